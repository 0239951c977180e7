//! `weft-bench compare OLD NEW`: what has changed by more than the runs of either differ among
//! themselves. Absolute figures carry over to no other day or machine, ratios within a run do, so a
//! figure that has a reference is compared as its ratio to that reference.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use crate::record::{Better, Case, Record, Series};
use crate::stats::{Change, Short, Spread};

/// Two records.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What `--out` wrote before
    old: PathBuf,
    /// What it wrote after
    new: PathBuf,
    /// Percent by which medians may differ without meaning anything
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    noise: u8,
    /// Compare figures as they are, not their ratios to the kernel's: for two builds on one machine
    /// on one day
    #[arg(long)]
    absolute: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// What became of the figures.
#[derive(Debug, Default, Serialize)]
struct Comparison {
    better: Vec<Moved>,
    worse: Vec<Moved>,
    /// Cases whose figures did not move beyond the noise.
    unchanged: usize,
    /// Cases that only one of the records has.
    only_old: usize,
    only_new: usize,
    /// What the reader should know before believing any of it.
    warnings: Vec<String>,
}

/// A figure that moved.
#[derive(Debug, Serialize)]
struct Moved {
    case: Case,
    /// Relative to the reference, instead of in the metric's unit.
    relative: bool,
    old: String,
    new: String,
    /// The new median in terms of the old one; none if the old one was zero.
    ratio: Option<f64>,
}

/// Reads both, compares, prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (old, new) = (Record::read(&args.old)?, Record::read(&args.new)?);
    let comparison = compare(&old, &new, f64::from(args.noise) / 100.0, args.absolute);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&comparison)?);
    } else {
        print!("{}", render(&comparison));
    }
    Ok(())
}

fn compare(old: &Record, new: &Record, noise: f64, absolute: bool) -> Comparison {
    let mut result = Comparison {
        warnings: warnings(old, new),
        ..Comparison::default()
    };
    for before in &old.series {
        let Some(after) = new.series.iter().find(|after| after.case == before.case) else {
            result.only_old += 1;
            continue;
        };
        let bases = if absolute {
            None
        } else {
            base(old, &before.case).zip(base(new, &after.case))
        };
        let (Some(from), Some(to)) = (before.spread(), after.spread()) else {
            continue;
        };
        let (from, to) = match bases {
            Some((old, new)) => (from.scaled(1.0 / old), to.scaled(1.0 / new)),
            None => (from, to),
        };
        let ratio = match Change::between(&from, &to, noise) {
            Some(Change::Noise { .. }) => {
                result.unchanged += 1;
                continue;
            }
            Some(Change::Moved { ratio }) => Some(ratio),
            None => None,
        };
        let up = to.median > from.median;
        let moved = Moved {
            case: before.case.clone(),
            relative: bases.is_some(),
            old: from.to_string(),
            new: to.to_string(),
            ratio,
        };
        if up == (before.case.metric.better() == Better::Higher) {
            result.better.push(moved);
        } else {
            result.worse.push(moved);
        }
    }
    let known = |after: &&Series| old.series.iter().any(|before| before.case == after.case);
    result.only_new = new.series.iter().filter(|after| !known(after)).count();
    result
}

/// Median of the reference in the same record; none for the reference itself.
fn base(record: &Record, case: &Case) -> Option<f64> {
    let name = case
        .bench
        .reference()
        .filter(|name| *name != case.subject)?;
    let of = Case {
        subject: name.to_owned(),
        ..case.clone()
    };
    let series = record.series.iter().find(|series| series.case == of)?;
    Spread::of(&series.runs)
        .map(|spread| spread.median)
        .filter(|median| *median > 0.0)
}

fn warnings(old: &Record, new: &Record) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.machine != new.machine {
        warnings.push(format!(
            "the machines differ: {} and {}",
            old.machine.summary(),
            new.machine.summary()
        ));
    }
    if old.debug_build != new.debug_build {
        warnings.push("one is of a debug build, the other is not".to_owned());
    }
    let few = |record: &Record| record.series.iter().any(|series| series.runs.len() < 3);
    if few(old) || few(new) {
        warnings.push("some figures have fewer than three runs, too few for a spread".to_owned());
    }
    warnings
}

fn render(comparison: &Comparison) -> String {
    let mut text = String::new();
    for warning in &comparison.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    for (title, moved) in [("Worse", &comparison.worse), ("Better", &comparison.better)] {
        if moved.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{title} beyond the noise:");
        for moved in moved {
            let Case {
                setting,
                subject,
                load,
                metric,
                x,
                ..
            } = &moved.case;
            let place = x.map(|x| format!(" at {x}")).unwrap_or_default();
            let unit = if moved.relative {
                "of the reference"
            } else {
                metric.unit()
            };
            let ratio = moved.ratio.map(|ratio| format!(", {}x", Short(ratio)));
            let _ = writeln!(
                text,
                "  {setting}: {subject}: {load}{place}: {}: {} -> {} {unit}{}",
                metric.title(),
                moved.old,
                moved.new,
                ratio.unwrap_or_default()
            );
        }
    }
    let _ = writeln!(
        text,
        "\n{} better, {} worse, {} within the noise; {} only in the old record, {} only in the new",
        comparison.better.len(),
        comparison.worse.len(),
        comparison.unchanged,
        comparison.only_old,
        comparison.only_new
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Metric;
    use crate::record::tests::{case, empty};

    fn record(kernel: f64, weft: f64, cpu: f64) -> Record {
        let mut record = empty();
        for jitter in [0.99, 1.0, 1.01] {
            record.push(
                case("kernel VXLAN", "TCP 1", Metric::Throughput),
                kernel * jitter,
            );
            record.push(case("weft", "TCP 1", Metric::Throughput), weft * jitter);
            record.push(case("weft", "TCP 1", Metric::CpuPerGb), cpu * jitter);
        }
        record
    }

    #[test]
    fn a_slower_machine_is_no_slower_weft() {
        // Half as fast all over, CPU per byte as before.
        let comparison = compare(&record(10.0, 8.0, 2.0), &record(5.0, 4.0, 2.0), 0.1, false);
        assert!(comparison.better.is_empty());
        let worse: Vec<_> = comparison.worse.iter().map(|m| &m.case.subject).collect();
        assert_eq!(
            worse,
            ["kernel VXLAN"],
            "the reference itself is seen to change"
        );
        let absolute = compare(&record(10.0, 8.0, 2.0), &record(5.0, 4.0, 2.0), 0.1, true);
        assert_eq!(absolute.worse.len(), 2);
    }

    #[test]
    fn which_way_is_better_depends_on_the_metric() {
        let comparison = compare(
            &record(10.0, 8.0, 2.0),
            &record(10.0, 10.0, 3.0),
            0.1,
            false,
        );
        assert_eq!(comparison.better[0].case.metric, Metric::Throughput);
        assert_eq!(comparison.worse[0].case.metric, Metric::CpuPerGb);
        assert_eq!(comparison.unchanged, 1);
        let text = render(&comparison);
        assert!(
            text.contains("0.80 [0.79 .. 0.81] -> 1.00 [0.99 .. 1.01] of the reference, 1.25x"),
            "{text}"
        );
        assert!(
            text.contains("1 better, 1 worse, 1 within the noise"),
            "{text}"
        );
    }

    #[test]
    fn what_only_one_has_is_counted_and_another_machine_is_warned_of() {
        let old = record(10.0, 8.0, 2.0);
        let mut new = empty();
        new.machine.kernel = "7.0".to_owned();
        new.push(case("weft", "TCP 4", Metric::Throughput), 9.0);
        let comparison = compare(&old, &new, 0.1, false);
        assert_eq!((comparison.only_old, comparison.only_new), (3, 1));
        let text = render(&comparison);
        assert!(
            text.contains("the machines differ") && text.contains("fewer than three"),
            "{text}"
        );
    }

    #[test]
    fn from_nothing_to_something_is_a_change_without_a_ratio() {
        let of = |retransmissions: f64| {
            let mut record = empty();
            for _ in 0..3 {
                let case = case("weft", "TCP 1", Metric::Retransmissions);
                record.push(case, retransmissions);
            }
            record
        };
        let comparison = compare(&of(0.0), &of(5.0), 0.1, false);
        assert_eq!(comparison.worse.len(), 1);
        assert_eq!(comparison.worse[0].ratio, None);
        assert_eq!(compare(&of(0.0), &of(0.0), 0.1, false).unchanged, 1);
    }
}
