//! ADD and DEL of `weft-cni` and of Debian's `bridge` with `host-local`, in turn on the same
//! pods' worth of namespaces, so that both meet the machine in the same state; then all pods of each
//! at once, as when a node starts.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use hostnet::caps;
use router::lab::interrupt::Interrupt;

use crate::bar::Bar;
use crate::binaries::Binaries;
use crate::latency::Latency;
use crate::node::Node;
use crate::plugin::{Plugin, Verb};
use crate::pods::{self, Pods};
use crate::record::{Bench, Case, Metric, NotRun, Output, Record};
use crate::table::Table;

/// Pods before those that count: executables in the page cache, the bridges made.
const WARM_UP: usize = 3;
/// Parts of the calls, each with percentiles of its own, so that these have a spread.
const PARTS: usize = 5;

/// Flags of `weft-bench cni`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pods that are attached and detached by each plugin
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(10..=1000))]
    pods: u16,
    /// Calls at once, after those that are made one at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=200))]
    parallel: u16,
    /// Few pods: a first look
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    output: Output,
}

/// Runs the verb.
pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    pods::remove_leftovers()?;
    let record = measure(args, interrupt)?;
    args.output.finish(&record, |record| {
        let tables = Table::of(record, Bench::Cni);
        tables.iter().map(Table::text).collect()
    })
}

impl Args {
    /// For `weft-bench all`.
    pub(crate) fn of_all(quick: bool) -> Self {
        Self {
            pods: 100,
            parallel: 16,
            quick,
            output: Output::default(),
        }
    }
}

pub(crate) fn measure(args: &Args, interrupt: &Interrupt) -> anyhow::Result<Record> {
    let mut record = Record::new();
    let binaries = Binaries::find().or_else(|missing| {
        record.notes.push(format!(
            "weft-cni was measured as another name of weft-bench, for {missing:#}"
        ));
        Binaries::own()
    })?;
    if !caps::has_net_admin() {
        anyhow::bail!(
            "making network namespaces needs CAP_NET_ADMIN and CAP_SYS_ADMIN: run as root"
        );
    }
    let count = if args.quick { 25 } else { args.pods.into() };
    let node = Node::start(&binaries.weft, interrupt)?;
    let weft = Plugin::weft(&binaries.weft_cni, &node.socket());
    let debian = Plugin::debian(node.directory());

    let mut contestants = vec![Contestant::new(&weft, "w", count)?];
    match &debian {
        Ok(debian) => contestants.push(Contestant::new(debian, "d", count)?),
        Err(reason) => record.not_run.push(NotRun {
            subject: "bridge + host-local".to_owned(),
            reason: reason.clone(),
        }),
    }
    let calls = contestants.len() * 2 * (WARM_UP + count);
    let bar = Bar::new("cni", calls);
    node.netns().run(|| {
        one_at_a_time(&mut contestants, &bar, interrupt)?;
        bar.prepare(&format!("{} calls at once", args.parallel));
        at_once(&mut contestants, args.parallel.into(), interrupt)
    })??;
    for contestant in &contestants {
        contestant.write(&mut record, args.parallel);
    }
    Ok(record)
}

/// A plugin, its pods and what it took them.
#[derive(Debug)]
struct Contestant<'a> {
    plugin: &'a Plugin,
    pods: Pods,
    add: Vec<Duration>,
    del: Vec<Duration>,
    /// Of one call each, when many are made at once: wall time by calls.
    add_at_once: Vec<Duration>,
    del_at_once: Vec<Duration>,
}

impl<'a> Contestant<'a> {
    fn new(plugin: &'a Plugin, kind: &str, pods: usize) -> anyhow::Result<Self> {
        let pods = Pods::create(kind, WARM_UP + pods)?;
        Ok(Self {
            plugin,
            pods,
            add: Vec::new(),
            del: Vec::new(),
            add_at_once: Vec::new(),
            del_at_once: Vec::new(),
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

    /// Calls for these pods at once; returns the wall time for each.
    fn burst(&self, verb: Verb, pods: &[String]) -> anyhow::Result<Duration> {
        let started = Instant::now();
        // New threads are in the namespace of the one that makes them.
        thread::scope(|scope| {
            let calls: Vec<_> = pods
                .iter()
                .map(|pod| scope.spawn(move || self.plugin.call(verb, pod)))
                .collect();
            calls.into_iter().try_for_each(|call| {
                call.join()
                    .map_err(|_| anyhow!("a call panicked"))?
                    .map(drop)
            })
        })?;
        Ok(started.elapsed() / u32::try_from(pods.len())?.max(1))
    }

    fn write(&self, record: &mut Record, parallel: u16) {
        for (durations, p50, p99) in [
            (&self.add, Metric::Add, Metric::AddP99),
            (&self.del, Metric::Del, Metric::DelP99),
        ] {
            for part in durations.chunks(durations.len().div_ceil(PARTS).max(1)) {
                if let Some(latency) = Latency::of(part.iter().copied()) {
                    record.push(self.case("one call at a time", p50), millis(latency.p50_ns));
                    record.push(self.case("one call at a time", p99), millis(latency.p99_ns));
                }
            }
        }
        for (durations, metric) in [
            (&self.add_at_once, Metric::AddParallel),
            (&self.del_at_once, Metric::DelParallel),
        ] {
            for each in durations {
                let case = self.case(&format!("{parallel} calls at once"), metric);
                record.push(case, each.as_secs_f64() * 1e3);
            }
        }
    }

    fn case(&self, load: &str, metric: Metric) -> Case {
        Case {
            bench: Bench::Cni,
            setting: "calls of a CNI plugin".to_owned(),
            subject: self.plugin.title.to_owned(),
            load: load.to_owned(),
            metric,
            x: None,
        }
    }
}

/// All pods up, then all down; in each round every plugin has one, and each begins in turn.
fn one_at_a_time(
    contestants: &mut [Contestant<'_>],
    bar: &Bar,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
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
            let contestant = &mut contestants[(pod + turn) % count];
            bar.next(format!("{verb}, {}", contestant.plugin.title));
            contestant.call(verb, pod)?;
        }
    }
    Ok(())
}

/// Bursts of ADD and then of DEL for the same pods, a plugin at a time and in turn.
fn at_once(
    contestants: &mut [Contestant<'_>],
    parallel: usize,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    for _ in 0..PARTS {
        for contestant in &mut *contestants {
            interrupt.check()?;
            let names = contestant.pods.names();
            let pods = names[..parallel.min(names.len())].to_vec();
            let added = contestant.burst(Verb::Add, &pods)?;
            contestant.add_at_once.push(added);
            let deleted = contestant.burst(Verb::Del, &pods)?;
            contestant.del_at_once.push(deleted);
        }
    }
    Ok(())
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}
