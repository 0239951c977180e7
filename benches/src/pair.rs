//! `weft-bench pair`: two nodes on this machine, joined by weft, by the kernel's VXLAN and by whatever
//! else is installed, measured in turn within one run. Only the ratios within a run carry over to
//! another day or machine: both nodes, their pods and the traffic share this machine's cores.

mod iperf;
pub(crate) mod load;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use router::lab::interrupt::Interrupt;

use crate::bar::Bar;
use crate::binaries::Binaries;
use crate::pods;
use crate::record::{Bench, Case, Counted, Metric, NotRun, Output, Record};
use crate::stats::{Short, Spread};
use crate::table::Table;
use crate::testbed::{Counters, Overlay, Setup, Testbed, Underlay};
use load::Load;

/// What to measure, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds; each measures every case once, in turn, and the medians are taken over rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 3.0, value_parser = crate::seconds)]
    seconds: f64,
    /// Three rounds of a fraction of a second, of few cases: a first look, whose figures are rough
    #[arg(long)]
    quick: bool,
    /// Measure only over this underlay
    #[arg(long, value_enum)]
    underlay: Option<Underlay>,
    /// Measure only these overlays
    #[arg(long, value_enum, value_delimiter = ',')]
    overlay: Vec<Overlay>,
    /// Measure only these kinds of traffic
    #[arg(long, value_enum, value_delimiter = ',')]
    load: Vec<Load>,
    /// Another build of `weft` (or of weft-bench), measured beside this one in the same run
    #[arg(long, value_name = "PATH")]
    beside: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Args {
    /// For `weft-bench all`.
    pub(crate) fn of_all(quick: bool) -> Self {
        Self {
            rounds: 3,
            seconds: 1.0,
            quick,
            underlay: None,
            overlay: Vec::new(),
            load: Vec::new(),
            beside: None,
            output: Output::default(),
        }
    }

    /// What is measured, in the order of the table's columns, as far as it is installed; the rest goes
    /// to the record.
    fn overlays(&self, record: &mut Record) -> Vec<Overlay> {
        let mut overlays = Vec::new();
        for &overlay in Overlay::ALL {
            let wanted = match overlay {
                Overlay::Beside => self.beside.is_some(),
                Overlay::Peer(_) if self.quick && self.overlay.is_empty() => false,
                other => self.overlay.is_empty() || self.overlay.contains(&other),
            };
            if !wanted {
                continue;
            }
            match overlay.missing() {
                Some(not_run) => record.not_run.push(not_run),
                None => overlays.push(overlay),
            }
        }
        overlays
    }

    fn loads(&self) -> Vec<Load> {
        let wanted = |load: &Load| {
            if self.load.is_empty() {
                !self.quick || load.is_quick()
            } else {
                self.load.contains(load)
            }
        };
        Load::ALL.iter().copied().filter(wanted).collect()
    }
}

/// Measures, and prints the table.
pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    pods::remove_leftovers()?;
    let record = measure(args, interrupt)?;
    args.output.finish(&record, |record| {
        let tables = Table::of(record, Bench::Pair);
        tables.iter().map(Table::text).collect()
    })
}

pub(crate) fn measure(args: &Args, interrupt: &Interrupt) -> anyhow::Result<Record> {
    let binaries = Binaries::own()?;
    let mut record = Record::new();
    let (rounds, seconds) = if args.quick {
        (3, 0.2)
    } else {
        (args.rounds, args.seconds)
    };
    let duration = Duration::from_secs_f64(seconds);
    let overlays = args.overlays(&mut record);
    let loads = args.loads();
    let underlays = [Underlay::Veth, Underlay::Nooff];
    let underlays = underlays.map(|underlay| match args.underlay {
        Some(only) if only != underlay => None,
        _ => Some(underlay),
    });
    let count = underlays.iter().flatten().count() * overlays.len() * loads.len();
    let bar = Bar::new("pair", count * usize::from(rounds));
    for underlay in underlays.into_iter().flatten() {
        let mut testbeds = Vec::new();
        for &overlay in &overlays {
            interrupt.check()?;
            bar.prepare(&format!(
                "building two nodes: {underlay}, {}",
                overlay.label()
            ));
            let binaries = match (&args.beside, overlay) {
                (Some(other), Overlay::Beside) => &Binaries::one(other),
                _ => &binaries,
            };
            match Testbed::build(Setup::new(overlay, underlay), binaries, interrupt) {
                Ok(testbed) => testbeds.push(testbed),
                // Somebody else's daemon that does not work here is no reason to stop.
                Err(error) if matches!(overlay, Overlay::Peer(_)) => {
                    interrupt.check()?;
                    lacks(&mut record, overlay, format!("{error:#}"));
                }
                Err(error) => return Err(error),
            }
        }
        for round in 1..=rounds {
            for &load in &loads {
                // In turn, so that what the machine does meanwhile falls on all alike.
                for testbed in &mut testbeds {
                    interrupt.check()?;
                    if let Some(reason) = testbed.ended() {
                        lacks(&mut record, testbed.setup.overlay, reason);
                        continue;
                    }
                    let label = testbed.setup.overlay.label();
                    bar.next(format!(
                        "round {round}: {underlay}, {}, {label}",
                        load.label()
                    ));
                    one(&mut record, testbed, load, round, duration)
                        .with_context(|| format!("{label}, {}", load.label()))?;
                }
            }
        }
        for testbed in &testbeds {
            if let Some(bytes) = testbed.resident() {
                let case = case(testbed, "after all loads", Metric::Resident);
                record.push(case, bytes as f64 / 1e6);
            }
        }
        if !args.quick && args.load.is_empty() {
            cross_check(&mut record, &testbeds, rounds, duration, &bar, interrupt)?;
        }
    }
    Ok(record)
}

fn lacks(record: &mut Record, overlay: Overlay, reason: String) {
    let subject = overlay.label().to_owned();
    let not_run = NotRun { subject, reason };
    if !record.not_run.contains(&not_run) {
        record.not_run.push(not_run);
    }
}

/// Runs a load once, and takes down what it gave and what the routers counted meanwhile.
fn one(
    record: &mut Record,
    testbed: &Testbed,
    load: Load,
    round: u16,
    duration: Duration,
) -> anyhow::Result<()> {
    let before = testbed.counters()?;
    for (metric, figure) in load.run(testbed, duration)? {
        record.push(case(testbed, load.label(), metric), figure);
    }
    let counters: Vec<_> = (before.iter().zip(&testbed.counters()?))
        .map(|(before, after)| moved(before, after))
        .collect();
    if !counters.is_empty() {
        record.counted.push(Counted {
            setting: testbed.setup.underlay.to_string(),
            subject: testbed.setup.overlay.label().to_owned(),
            load: load.label().to_owned(),
            round,
            counters,
        });
    }
    Ok(())
}

/// The same TCP streams by iperf3, where it is installed: how far the two agree says how far this
/// program's own traffic can be believed.
fn cross_check(
    record: &mut Record,
    testbeds: &[Testbed],
    rounds: u16,
    duration: Duration,
    bar: &Bar,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    if let Some(not_run) = iperf::missing() {
        if !record.not_run.contains(&not_run) {
            record.not_run.push(not_run);
        }
        return Ok(());
    }
    bar.prepare("the same streams by iperf3");
    let compared = [Overlay::Kernel, Overlay::Weft];
    let compared = |testbed: &&Testbed| compared.contains(&testbed.setup.overlay);
    for _ in 0..rounds {
        for testbed in testbeds.iter().filter(compared) {
            interrupt.check()?;
            let gigabits = iperf::tcp(testbed.ends(), duration)?;
            record.push(case(testbed, iperf::LOAD, Metric::Throughput), gigabits);
        }
    }
    for testbed in testbeds.iter().filter(compared) {
        let of = |load: &str| {
            let case = case(testbed, load, Metric::Throughput);
            let series = record.series.iter().find(|series| series.case == case)?;
            Spread::of(&series.runs)
        };
        if let (Some(own), Some(theirs)) = (of(Load::Tcp1.label()), of(iperf::LOAD)) {
            record.notes.push(format!(
                "{}, {}: one TCP stream by weft-bench {own} Gb/s, by iperf3 {theirs} Gb/s, ratio {}",
                testbed.setup.underlay,
                testbed.setup.overlay.label(),
                Short(own.median / theirs.median)
            ));
        }
    }
    Ok(())
}

fn case(testbed: &Testbed, load: &str, metric: Metric) -> Case {
    Case {
        bench: Bench::Pair,
        setting: testbed.setup.underlay.to_string(),
        subject: testbed.setup.overlay.label().to_owned(),
        load: load.to_owned(),
        metric,
        x: None,
    }
}

/// What counters moved by; only those that did.
fn moved(before: &Counters, after: &Counters) -> Counters {
    let moved = after.iter().map(|(name, value)| {
        let by = value.saturating_sub(*before.get(name).unwrap_or(&0));
        (name.clone(), by)
    });
    moved.filter(|(_, by)| *by > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counters_that_moved_are_kept() {
        let of = |pairs: &[(&str, u64)]| -> Counters {
            pairs.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect()
        };
        let before = of(&[("same", 3), ("more", 3), ("less", 3)]);
        let after = of(&[("same", 3), ("more", 5), ("less", 1), ("new", 2)]);
        assert_eq!(moved(&before, &after), of(&[("more", 2), ("new", 2)]));
    }
}
