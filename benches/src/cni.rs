//! ADD and DEL of `weft-cni` and of Debian's `bridge` with `host-local`, in turn on the same
//! pods' worth of namespaces, so that both meet the machine in the same state.

use std::time::Duration;

use hostnet::caps;
use router::lab::interrupt::Interrupt;
use serde::Serialize;

use crate::binaries::Binaries;
use crate::latency::{Latency, Millis};
use crate::node::Node;
use crate::plugin::{Plugin, Verb};
use crate::pods::{self, Pods};

/// Pods before those that count: executables in the page cache, the bridges made.
const WARM_UP: usize = 3;

/// Flags of `weft-bench cni`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pods that are attached and detached by each plugin
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pods: u16,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    pods: usize,
    /// Unoptimised executables: the numbers say little.
    debug_build: bool,
    weft_cni: Outcome,
    bridge_host_local: Outcome,
    /// weft's medians in terms of the others'; absent if those were not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<Ratios>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Measured(Times),
    NotRun { reason: String },
}

/// Of one plugin.
#[derive(Debug, Clone, Copy, Serialize)]
struct Times {
    add: Latency,
    del: Latency,
    /// Of both for one pod together.
    add_and_del: Latency,
}

#[derive(Debug, Serialize)]
struct Ratios {
    add: f64,
    del: f64,
    add_and_del: f64,
}

/// Runs the verb.
pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    let binaries = Binaries::find()?;
    if !caps::has_net_admin() {
        anyhow::bail!(
            "making network namespaces needs CAP_NET_ADMIN and CAP_SYS_ADMIN: run as root"
        );
    }
    pods::remove_leftovers()?;
    let node = Node::start(&binaries.weft, interrupt)?;
    let weft = Plugin::weft(&binaries.weft_cni, &node.socket());
    let debian = Plugin::debian(node.directory());

    let mut contestants = vec![Contestant::new(&weft, "w", args.pods.into())?];
    if let Ok(debian) = &debian {
        contestants.push(Contestant::new(debian, "d", args.pods.into())?);
    }
    node.netns()
        .run(|| measure(&mut contestants, interrupt))??;

    let weft = contestants[0].times();
    let debian_times = contestants.get(1).and_then(Contestant::times);
    let report = Report {
        pods: args.pods.into(),
        debug_build: binaries.debug,
        ratio: weft.zip(debian_times).map(|(ours, theirs)| Ratios {
            add: ours.add.ratio_to(&theirs.add),
            del: ours.del.ratio_to(&theirs.del),
            add_and_del: ours.add_and_del.ratio_to(&theirs.add_and_del),
        }),
        weft_cni: outcome(weft, None),
        bridge_host_local: outcome(debian_times, debian.err()),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

/// A plugin, its pods and what it took them.
#[derive(Debug)]
struct Contestant<'a> {
    plugin: &'a Plugin,
    pods: Pods,
    add: Vec<Duration>,
    del: Vec<Duration>,
}

impl<'a> Contestant<'a> {
    fn new(plugin: &'a Plugin, kind: &str, pods: usize) -> anyhow::Result<Self> {
        let pods = Pods::create(kind, WARM_UP + pods)?;
        Ok(Self {
            plugin,
            pods,
            add: Vec::new(),
            del: Vec::new(),
        })
    }

    fn call(&mut self, verb: Verb, pod: usize) -> anyhow::Result<()> {
        let took = self.plugin.call(verb, &self.pods.names()[pod])?;
        if pod >= WARM_UP {
            match verb {
                Verb::Add => self.add.push(took),
                Verb::Del => self.del.push(took),
            }
        }
        Ok(())
    }

    fn times(&self) -> Option<Times> {
        let both = self.add.iter().zip(&self.del).map(|(add, del)| *add + *del);
        Some(Times {
            add: Latency::of(self.add.iter().copied())?,
            del: Latency::of(self.del.iter().copied())?,
            add_and_del: Latency::of(both)?,
        })
    }
}

/// All pods up, then all down; in each round every plugin has one, and each begins in turn.
fn measure(contestants: &mut [Contestant<'_>], interrupt: &Interrupt) -> anyhow::Result<()> {
    let pods = contestants[0].pods.names().len();
    let mut warm: Vec<_> = (0..WARM_UP).collect();
    let mut rounds: Vec<(Verb, usize)> = Vec::new();
    rounds.extend(warm.iter().map(|&pod| (Verb::Add, pod)));
    rounds.extend(warm.drain(..).map(|pod| (Verb::Del, pod)));
    rounds.extend((WARM_UP..pods).map(|pod| (Verb::Add, pod)));
    rounds.extend((WARM_UP..pods).map(|pod| (Verb::Del, pod)));
    let count = contestants.len();
    for (verb, pod) in rounds {
        for turn in 0..count {
            interrupt.check()?;
            contestants[(pod + turn) % count].call(verb, pod)?;
        }
    }
    Ok(())
}

fn outcome(times: Option<Times>, not_run: Option<String>) -> Outcome {
    match times {
        Some(times) => Outcome::Measured(times),
        None => Outcome::NotRun {
            reason: not_run.unwrap_or_default(),
        },
    }
}

fn print(report: &Report) {
    println!(
        "CNI plugins: {} pods each, one plugin after the other\n",
        report.pods
    );
    println!(
        "{:22}{:>12}{:>12}{:>12}{:>12}{:>14}",
        "", "ADD p50", "p99", "DEL p50", "p99", "ADD+DEL p50"
    );
    for (title, outcome) in [
        ("weft-cni", &report.weft_cni),
        ("bridge + host-local", &report.bridge_host_local),
    ] {
        match outcome {
            Outcome::Measured(times) => println!(
                "{title:22}{:>12}{:>12}{:>12}{:>12}{:>14}",
                Millis(times.add.p50_ns),
                Millis(times.add.p99_ns),
                Millis(times.del.p50_ns),
                Millis(times.del.p99_ns),
                Millis(times.add_and_del.p50_ns),
            ),
            Outcome::NotRun { reason } => println!("{title:22}not run: {reason}"),
        }
    }
    if let Some(ratio) = &report.ratio {
        println!(
            "{:22}{:>12.2}{:>12}{:>12.2}{:>12}{:>14.2}",
            "ratio, aim at most 1", ratio.add, "", ratio.del, "", ratio.add_and_del
        );
    }
    if report.debug_build {
        println!("\nThese are debug builds: measure with `cargo build --release`.");
    }
}
