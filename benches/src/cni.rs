//! ADD and DEL of `weft-cni` and of Debian's `bridge` with `host-local`, in turn on the same
//! pods' worth of namespaces, so that both meet the machine in the same state; then many calls at
//! once, as when a node starts; and what a router costs that has a full node of pods and nothing
//! to do.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use hostnet::caps;
use router::lab::interrupt::Interrupt;

use crate::bar::Bar;
use crate::binaries::Binaries;
use crate::latency::Latency;
use crate::node::Node;
use crate::plugin::{Plugin, Verb};
use crate::pods::{self, Pods};
use crate::process;
use crate::record::{Bench, Case, Metric, NotRun, Output, Record};
use crate::table::Table;

/// Pods before those that count: executables in the page cache, the bridges made.
const WARM_UP: usize = 3;
/// Parts of the calls, each with percentiles of its own, so that these have a spread.
const PARTS: usize = 5;
/// Pods of a router at rest: kubelet's own limit for a node (`--max-pods`).
const FULL_NODE: usize = 110;
/// How long a router is looked at while it rests, each time: enough for 10 ms to be no large part.
const REST: Duration = Duration::from_secs(4);
/// How one call after the other is called in records.
const ALONE: &str = "one at a time";

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
    let count = if args.quick { 40 } else { args.pods.into() };
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
    bar.prepare("a router at rest");
    at_rest(&node, &contestants[0], &mut record, interrupt)?;
    Ok(record)
}

/// A plugin, its pods and what it took them.
#[derive(Debug)]
struct Contestant<'a> {
    plugin: &'a Plugin,
    pods: Pods,
    alone: Calls,
    at_once: Calls,
    /// Of bursts, the wall time of each divided by its calls.
    add_each: Vec<Duration>,
    del_each: Vec<Duration>,
}

/// What calls took, in the order of their ends.
#[derive(Debug, Default)]
struct Calls {
    add: Vec<Duration>,
    del: Vec<Duration>,
}

impl<'a> Contestant<'a> {
    fn new(plugin: &'a Plugin, kind: &str, pods: usize) -> anyhow::Result<Self> {
        let pods = Pods::create(kind, WARM_UP + pods)?;
        Ok(Self {
            plugin,
            pods,
            alone: Calls::default(),
            at_once: Calls::default(),
            add_each: Vec::new(),
            del_each: Vec::new(),
        })
    }

    fn call(&mut self, verb: Verb, pod: usize) -> anyhow::Result<()> {
        let took = self.plugin.call(verb, &self.pods.names()[pod])?;
        if pod >= WARM_UP {
            self.alone.of(verb).push(took);
        }
        Ok(())
    }

    /// Calls for these pods, `parallel` of them at any time.
    fn burst(&mut self, verb: Verb, pods: &[String], parallel: usize) -> anyhow::Result<()> {
        let next = AtomicUsize::new(0);
        let plugin = self.plugin;
        let started = Instant::now();
        // New threads are in the namespace of the one that makes them.
        let took = thread::scope(|scope| {
            let callers: Vec<_> = (0..parallel)
                .map(|_| {
                    scope.spawn(|| {
                        let mut took = Vec::new();
                        while let Some(pod) = pods.get(next.fetch_add(1, Relaxed)) {
                            took.push(plugin.call(verb, pod)?);
                        }
                        anyhow::Ok(took)
                    })
                })
                .collect();
            callers
                .into_iter()
                .map(|caller| caller.join().map_err(|_| anyhow!("a call panicked"))?)
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        let each = started.elapsed() / u32::try_from(pods.len())?.max(1);
        self.at_once.of(verb).extend(took.into_iter().flatten());
        match verb {
            Verb::Add => self.add_each.push(each),
            Verb::Del => self.del_each.push(each),
        }
        Ok(())
    }

    fn write(&self, record: &mut Record, parallel: u16) {
        let at_once = format!("{parallel} at once");
        for (calls, load) in [(&self.alone, ALONE), (&self.at_once, &at_once)] {
            for (durations, p50, p99) in [
                (&calls.add, Metric::Add, Metric::AddP99),
                (&calls.del, Metric::Del, Metric::DelP99),
            ] {
                for part in durations.chunks(durations.len().div_ceil(PARTS).max(1)) {
                    if let Some(latency) = Latency::of(part.iter().copied()) {
                        record.push(self.case(load, p50), millis(latency.p50_ns));
                        record.push(self.case(load, p99), millis(latency.p99_ns));
                    }
                }
            }
        }
        for (durations, metric) in [
            (&self.add_each, Metric::AddParallel),
            (&self.del_each, Metric::DelParallel),
        ] {
            for each in durations {
                record.push(self.case(&at_once, metric), each.as_secs_f64() * 1e3);
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

impl Calls {
    fn of(&mut self, verb: Verb) -> &mut Vec<Duration> {
        match verb {
            Verb::Add => &mut self.add,
            Verb::Del => &mut self.del,
        }
    }
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
            let pods = contestant.pods.names().to_vec();
            contestant.burst(Verb::Add, &pods, parallel)?;
            contestant.burst(Verb::Del, &pods, parallel)?;
        }
    }
    Ok(())
}

/// Memory and processor time of a router that a full node of pods is attached to, while nobody
/// asks it anything and no pod sends.
fn at_rest(
    node: &Node,
    weft: &Contestant<'_>,
    record: &mut Record,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let router = node.router().context("the router was not started")?;
    let pods = Pods::create("r", FULL_NODE)?;
    let attached = pods.names();
    node.netns().run(|| {
        let mut calls = attached.iter();
        calls.try_for_each(|pod| weft.plugin.call(Verb::Add, pod).map(drop))
    })??;
    let load = format!("at rest with {FULL_NODE} pods");
    for _ in 0..PARTS {
        let before = process::busy(router).context("the router has ended")?;
        interrupt.sleep(REST)?;
        let busy = process::busy(router).context("the router has ended")? - before;
        let resident = process::resident(router).context("the router has ended")?;
        let busy = busy.as_secs_f64() * 1e3 / REST.as_secs_f64();
        record.push(weft.case(&load, Metric::IdleCpu), busy);
        record.push(weft.case(&load, Metric::Resident), resident as f64 / 1e6);
    }
    node.netns().run(|| {
        let mut calls = attached.iter();
        calls.try_for_each(|pod| weft.plugin.call(Verb::Del, pod).map(drop))
    })?
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}
