//! What a cluster of some size costs, and how fast it is: the table of `sim scale`.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::node::Node;
use crate::{Budget, Cluster, Traffic};

/// Up to this many nodes all links of all nodes are simulated, and each node has entries of its own.
/// Beyond, that takes more time and memory than it is worth.
const WHOLE: usize = 100;
/// Of a larger cluster, the links of one node in so many are simulated, and of one that is larger
/// still, of one in many more. The others answer probes, and their links follow the control path.
const SAMPLE: usize = 50;
const LARGE: usize = 2000;
const SAMPLE_LARGE: usize = 250;
/// Between two looks whether something holds.
const LOOK: Duration = Duration::from_millis(50);
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(1200);
/// Seconds within which all nodes of a cluster start, and how many start in a second at least.
const START_SECONDS: usize = 20;
const STARTS_LEAST: usize = 50;
/// How long a cluster is left alone before it counts as at rest.
const CALM: Duration = Duration::from_secs(180);
/// How long it is looked at then: several turns of idle links.
const REST: Duration = Duration::from_secs(1800);
/// How long a partition lasts.
const PARTED: Duration = Duration::from_secs(60);
/// How long a node is down that restarts.
const DOWN: Duration = Duration::from_secs(20);

/// What was measured at one size.
#[derive(Debug, Clone)]
pub struct Row {
    /// Nodes.
    pub nodes: usize,
    /// From the start of a newcomer until it knows all and all know it, and until there are links.
    pub join: Option<Times>,
    /// At rest, per node and minute.
    pub rest: Option<Rate>,
    /// While one node in a hundred restarts each minute, per node and minute.
    pub churn: Option<Rate>,
    /// Bytes of memory of a node, the simulation's own included, and links that are not simulated left
    /// out.
    pub memory: u64,
    /// From the end of a partition into halves.
    pub heal: Option<Times>,
    /// From the loss of a tenth of the nodes until the others know and hang together.
    pub loss: Option<Times>,
}

/// What can be measured. With thousands of nodes each takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// What nodes send at rest.
    Rest,
    /// How long a newcomer takes.
    Join,
    /// What nodes send while one in a hundred restarts each minute.
    Churn,
    /// How fast a partition into halves is over.
    Heal,
    /// How fast the loss of a tenth is.
    Loss,
}

impl Part {
    /// Whether it is a rate, which what is still under way would add to.
    const fn needs_rest(&self) -> bool {
        matches!(self, Self::Rest | Self::Churn)
    }
}

/// How long something took; none: it was not over after 20 minutes.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Until the control plane was right on all nodes.
    pub control: Option<Duration>,
    /// Until all data links were.
    pub links: Option<Duration>,
}

/// What a node sends in a minute.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Messages on control connections, of the average node.
    pub messages: f64,
    /// Their bytes.
    pub message_bytes: f64,
    /// Probes and answers to them.
    pub probes: f64,
    /// Their bytes.
    pub probe_bytes: f64,
    /// Control bytes of the node that sends most.
    pub most: f64,
}

/// Measures some things of a cluster of this size, one after the other.
///
/// # Errors
/// It does not come together.
pub fn measure(
    nodes: usize,
    seed: u64,
    parts: &[Part],
    mut told: impl FnMut(&str),
) -> Result<Row, String> {
    let before = resident();
    let mut run = Run::new(nodes, seed);
    let formed = run.form();
    let (Some(control), Some(links)) = (formed.control, formed.links) else {
        return Err(format!("{nodes} nodes did not come together: {formed:?}"));
    };
    let peak = run.cluster.peak;
    told(&format!(
        "{nodes} nodes, {} starting each second through one address: all know all after {:.1} s, all links are \
         up after {:.1} s, at most {} messages and {} dials in a second",
        starts(nodes),
        control.as_secs_f64(),
        links.as_secs_f64(),
        peak.most_messages,
        peak.most_dials
    ));
    told(&run.entries());
    // Else there is no need to wait until all is quiet, which takes long with thousands of nodes.
    if parts.first().is_some_and(Part::needs_rest) {
        run.cluster.run_for(CALM);
    }
    let memory = (resident().saturating_sub(before)) / nodes as u64 + run.unshared();
    let mut row = Row {
        nodes,
        join: None,
        rest: None,
        churn: None,
        memory,
        heal: None,
        loss: None,
    };
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            run.settle();
            if part.needs_rest() {
                run.cluster.run_for(CALM);
            }
        }
        match part {
            Part::Rest => row.rest = Some(run.rate(REST, |_| ())),
            Part::Join => row.join = Some(run.join()),
            Part::Churn => row.churn = Some(run.churn()),
            Part::Heal => row.heal = Some(run.heal(&mut told)),
            Part::Loss => row.loss = Some(run.lose()),
        }
        told(&format!("{part:?}: {row}"));
    }
    Ok(row)
}

/// Nodes that start in a second when a cluster is made.
fn starts(nodes: usize) -> usize {
    (nodes / START_SECONDS).max(STARTS_LEAST)
}

struct Run {
    cluster: Cluster,
    /// Whose links are simulated.
    judges: fn(usize) -> bool,
}

impl Run {
    fn new(nodes: usize, seed: u64) -> Self {
        let mut cluster = Cluster::new(seed);
        cluster.budget = Budget {
            steps: u64::MAX,
            ..Budget::default()
        };
        cluster.thorough = false;
        // One more joins.
        cluster.configure = |config| {
            config.limits.peers = 6000;
            if let Some(links) = &mut config.links {
                links.limits.peers = 6000;
            }
        };
        let whole = nodes <= WHOLE;
        if whole {
            cluster.shelf = None;
        }
        cluster.judges = if whole {
            |_| true
        } else if nodes < LARGE {
            |number| number.is_multiple_of(SAMPLE)
        } else {
            |number| number.is_multiple_of(SAMPLE_LARGE)
        };
        for number in cluster.add(nodes).skip(1) {
            cluster.target(number, 0);
        }
        let judges = cluster.judges;
        Self { cluster, judges }
    }

    /// Starts all nodes.
    fn form(&mut self) -> Times {
        let count = self.cluster.nodes().len();
        let start = self.cluster.now();
        for number in 0..count {
            self.cluster.start(number);
            if (number + 1).is_multiple_of(starts(count)) {
                self.cluster.run_for(Duration::from_secs(1));
            }
        }
        self.times(start)
    }

    /// Waits until all is right again.
    fn settle(&mut self) {
        let now = self.cluster.now();
        self.times(now);
    }

    fn times(&mut self, start: Duration) -> Times {
        let judges = self.judges;
        let control = self.until(start, control_is_right);
        let links = self.until(start, |cluster| links_are_right(cluster, judges));
        Times { control, links }
    }

    fn until(&mut self, start: Duration, holds: impl Fn(&Cluster) -> bool) -> Option<Duration> {
        while !holds(&self.cluster) {
            if self.cluster.now() > start + PATIENCE {
                return None;
            }
            self.cluster.run_for(LOOK);
        }
        Some(self.cluster.now() - start)
    }

    /// What nodes send while something is done each second.
    fn rate(&mut self, span: Duration, mut each: impl FnMut(&mut Cluster)) -> Rate {
        let count = |cluster: &Cluster| -> Vec<Traffic> {
            cluster.nodes().iter().map(|node| node.traffic).collect()
        };
        let before = count(&self.cluster);
        for _ in 0..span.as_secs() {
            each(&mut self.cluster);
            self.cluster.run_for(Duration::from_secs(1));
        }
        let after = count(&self.cluster);
        let sent: Vec<Traffic> = after.iter().zip(&before).map(|(a, b)| a.since(b)).collect();
        let minutes = span.as_secs_f64() / 60.0;
        let all = sent.len() as f64;
        // Who does not probe itself answers those who do, as all would.
        let judged = (0..sent.len()).filter(|n| (self.judges)(*n)).count() as f64;
        let sum = |of: fn(&Traffic) -> u64| sent.iter().map(of).sum::<u64>() as f64 / minutes;
        let most = sent.iter().map(|sent| sent.message_bytes).max();
        Rate {
            messages: sum(|sent| sent.messages) / all,
            message_bytes: sum(|sent| sent.message_bytes) / all,
            probes: sum(|sent| sent.probes) / judged,
            probe_bytes: sum(|sent| sent.probe_bytes) / judged,
            most: most.unwrap_or(0) as f64 / minutes,
        }
    }

    /// What has become of entries since the nodes started, as text.
    fn entries(&self) -> String {
        let meshes = self
            .cluster
            .nodes()
            .iter()
            .filter_map(|node| node.mesh.as_ref());
        let counters: Vec<_> = meshes.map(mesh::Mesh::counters).collect();
        let sum = |of: fn(&mesh::Counters) -> u64| counters.iter().map(of).sum::<u64>();
        format!(
            "{} versions of entries written, and received {} times by those who did not know them and {} times by \
             those who did",
            sum(|counters| counters.published),
            sum(|counters| counters.entries_taken),
            sum(|counters| counters.entries_known),
        )
    }

    fn join(&mut self) -> Times {
        let door = self.cluster.below(self.cluster.nodes().len());
        // A judge, so that its links are looked at.
        let judges = self.cluster.judges;
        self.cluster.judges = |_| true;
        let newcomer = self.cluster.add(1).start;
        self.cluster.target(newcomer, door);
        let start = self.cluster.now();
        self.cluster.start(newcomer);
        self.cluster.judges = judges;
        let times = self.times(start);
        let links = self.until(start, |cluster| links_of(cluster, newcomer));
        Times {
            links: links.max(times.links),
            ..times
        }
    }

    /// One node in a hundred restarts each minute, at least three in all.
    fn churn(&mut self) -> Rate {
        let count = self.cluster.nodes().len();
        let every = Duration::from_secs(6000) / u32::try_from(count).unwrap_or(u32::MAX);
        let span = (every * 3).max(Duration::from_secs(120));
        let (mut next, mut down) = (self.cluster.now(), Vec::new());
        self.rate(span, |cluster| {
            while next <= cluster.now() {
                next += every;
                let victim = cluster.below(count);
                if cluster.nodes()[victim].is_in() {
                    cluster.crash(victim);
                    down.push((cluster.now() + DOWN, victim));
                }
            }
            let now = cluster.now();
            for (_, victim) in down.extract_if(.., |(at, _)| *at <= now) {
                cluster.start(victim);
            }
        })
    }

    fn heal(&mut self, told: &mut impl FnMut(&str)) -> Times {
        for number in 0..self.cluster.nodes().len() {
            if !self.cluster.nodes()[number].is_in() {
                self.cluster.start(number);
            }
        }
        self.settle();
        let half: BTreeSet<usize> = (0..self.cluster.nodes().len()).step_by(2).collect();
        self.cluster.halve(half);
        self.cluster.run_for(PARTED);
        told(&format!("parted for {PARTED:?}; {}", self.entries()));
        self.cluster.heal();
        let start = self.cluster.now();
        self.times(start)
    }

    fn lose(&mut self) -> Times {
        // Not those alone whose links are simulated.
        let lost: Vec<usize> = (3..self.cluster.nodes().len()).step_by(10).collect();
        let start = self.cluster.now();
        for number in lost {
            self.cluster.power_off(number);
        }
        self.times(start)
    }

    /// Bytes of the entries that nodes share here, and would not if each ran by itself.
    fn unshared(&self) -> u64 {
        if self.cluster.shelf.is_none() {
            return 0;
        }
        let mesh = self.cluster.nodes()[0].mesh.as_ref();
        let entries = mesh.into_iter().flat_map(mesh::Mesh::entries);
        // As it was sent and as it was read.
        let bytes = entries.map(|entry| size_of::<mesh::Entry>() + 2 * entry.bytes().len());
        bytes.sum::<usize>() as u64
    }
}

/// Messages get from all to all, and to nobody else.
fn control_is_right(cluster: &Cluster) -> bool {
    let inside = cluster.inside();
    let nodes = cluster.nodes();
    inside
        .iter()
        .all(|number| nodes[*number].reachable.len() == inside.len() - 1)
}

/// All who judge their links have one to all others, and to nobody else.
fn links_are_right(cluster: &Cluster, judges: fn(usize) -> bool) -> bool {
    let inside = cluster.inside();
    let links = |node: &Node| node.links.len() == inside.len() - 1;
    let mut judging = inside.iter().filter(|number| judges(**number));
    judging.all(|number| links(&cluster.nodes()[*number]))
}

fn links_of(cluster: &Cluster, number: usize) -> bool {
    cluster.nodes()[number].links.len() == cluster.inside().len() - 1
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kilobytes.unwrap_or(0_u64) * 1024
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |time: Option<Duration>| match time {
            Some(time) => format!("{:.1} s", time.as_secs_f64()),
            None => "over 20 min".to_owned(),
        };
        write!(f, "{} / {}", text(self.control), text(self.links))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} + {:.0} / {:.0} + {:.0} kB ({:.1} kB/s; {:.1})",
            self.messages,
            self.probes,
            self.message_bytes / 1e3,
            self.probe_bytes / 1e3,
            (self.message_bytes + self.probe_bytes) / 60e3,
            (self.most + self.probe_bytes) / 60e3,
        )
    }
}

/// The table's head, in Markdown.
pub const HEAD: &str = "\
| nodes | one joins: known / linked | at rest, per node and minute: messages + probes / their bytes (per second; busiest \
node) | the same, 1 % restart each minute | memory per node | halves meet: known / linked | a tenth is lost: \
known / unlinked |
| --- | --- | --- | --- | --- | --- | --- |";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn text<T: fmt::Display>(measured: &Option<T>) -> String {
            let text = measured.as_ref().map(T::to_string);
            text.unwrap_or_else(|| "not measured".to_owned())
        }
        write!(
            f,
            "| {} | {} | {} | {} | {:.1} MB | {} | {} |",
            self.nodes,
            text(&self.join),
            text(&self.rest),
            text(&self.churn),
            self.memory as f64 / 1e6,
            text(&self.heal),
            text(&self.loss)
        )
    }
}
