//! `weft-bench mtu`: what the MTU of the underlay does, and what a wrong one of the pods costs.

use std::time::Duration;

use anyhow::Context as _;
use router::lab::interrupt::Interrupt;

use crate::bar::Bar;
use crate::binaries::Binaries;
use crate::events::Events;
use crate::pair::load;
use crate::pods;
use crate::record::{Bench, Case, Metric, Output, Record};
use crate::stats::{Short, Spread};
use crate::table::Table;
use crate::testbed::{Overlay, Setup, Testbed, Underlay};
use crate::traffic;

/// What to measure, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds; each measures every case once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 1.0, value_parser = crate::seconds)]
    seconds: f64,
    /// Three short rounds over three underlays: a first look
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    output: Output,
}

/// The least that every IPv4 host takes (RFC 791), the least of IPv6 (RFC 8200), what tunnels and some
/// clouds leave of Ethernet, Ethernet, and two sizes of jumbo frames.
const UNDERLAYS: &[u16] = &[576, 1280, 1400, 1460, 1500, 4000, 9000];
const QUICK: &[u16] = &[576, 1500, 9000];

/// How the pods' MTU is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// By weft: the underlay's less the encapsulation.
    Automatic,
    /// Half of that: too small.
    Half,
    /// Weave Net's, whatever the underlay.
    Weave,
    /// The underlay's own: too big by the encapsulation.
    TooBig,
}

impl Choice {
    const ALL: [Self; 4] = [Self::Automatic, Self::Half, Self::Weave, Self::TooBig];

    const fn label(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Half => "half of it",
            Self::Weave => "1376",
            Self::TooBig => "the underlay's own",
        }
    }

    /// What is set for an underlay on which `automatic` is right; none if it is not to be set, or
    /// would be another choice than its name says.
    fn fixed(self, underlay: u16, automatic: u16) -> Option<u16> {
        const WEAVE: u16 = 1376;
        // Below it weft takes no fixed MTU: every host has to be able to receive as much.
        const LEAST: u16 = 576;
        match self {
            Self::Automatic => None,
            Self::Half => Some(automatic / 2).filter(|half| *half >= LEAST),
            Self::Weave => Some(WEAVE).filter(|weave| *weave < automatic),
            Self::TooBig => Some(underlay),
        }
    }
}

/// Measures, and prints the table.
pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    pods::remove_leftovers()?;
    let record = measure(args, interrupt)?;
    args.output.finish(&record, |record| {
        let tables = Table::of(record, Bench::Mtu);
        tables.iter().map(Table::text).collect()
    })
}

impl Args {
    /// For `weft-bench all`.
    pub(crate) fn of_all(quick: bool) -> Self {
        Self {
            rounds: 3,
            seconds: 0.5,
            quick,
            output: Output::default(),
        }
    }
}

pub(crate) fn measure(args: &Args, interrupt: &Interrupt) -> anyhow::Result<Record> {
    let binaries = Binaries::own()?;
    let (rounds, seconds, underlays) = if args.quick {
        (3, 0.15, QUICK)
    } else {
        (args.rounds, args.seconds, UNDERLAYS)
    };
    let duration = Duration::from_secs_f64(seconds);
    let mut record = Record::new();
    let most = underlays.len() * (Choice::ALL.len() + 1) * usize::from(rounds);
    let bar = Bar::new("mtu", most);
    for &underlay in underlays {
        bar.prepare(&format!("building nodes on an underlay of {underlay}"));
        let setup = |overlay, pod_mtu| Setup {
            underlay_mtu: underlay,
            pod_mtu,
            ..Setup::new(overlay, Underlay::Nooff)
        };
        let build = |setup| Testbed::build(setup, &binaries, interrupt);
        let automatic = build(setup(Overlay::Weft, None))?;
        let right = u16::try_from(automatic.pod_mtu()?).context("no MTU is that large")?;
        let kernel = build(setup(Overlay::Kernel, Some(right)))?;
        let mut testbeds = vec![(Choice::Automatic, automatic), (Choice::Automatic, kernel)];
        for choice in Choice::ALL {
            interrupt.check()?;
            if let Some(mtu) = choice.fixed(underlay, right) {
                testbeds.push((choice, build(setup(Overlay::Weft, Some(mtu)))?));
            }
        }
        for round in 1..=rounds {
            for (choice, testbed) in &testbeds {
                interrupt.check()?;
                let label = testbed.setup.overlay.label();
                let chosen = choice.label();
                bar.next(format!("round {round}: {underlay}, {label}, {chosen}"));
                for (metric, figure) in stream(testbed, duration)? {
                    record.push(case(testbed, *choice, metric), figure);
                }
            }
        }
        let note = verdict(&record, underlay, right);
        record.notes.extend(note);
    }
    Ok(record)
}

/// One TCP stream and what trouble it met.
fn stream(testbed: &Testbed, duration: Duration) -> anyhow::Result<Vec<(Metric, f64)>> {
    // A sender learns of a path's MTU once and remembers it: that is not to be missed by a later run.
    let before = Events::of(testbed.namespaces())?;
    let mut figures = load::tcp(testbed, 1, duration)?;
    // Packets as long as the pods' MTU, for which somebody has to fragment if that is too much.
    let payload = usize::try_from(testbed.pod_mtu()?)?.saturating_sub(28);
    let datagrams = traffic::udp(testbed.ends(), 1, payload, duration / 4)?;
    let events = Events::of(testbed.namespaces())?.since(before);
    let received = figures
        .iter()
        .find(|(metric, _)| *metric == Metric::Throughput);
    let bytes = received.map_or(0.0, |(_, gigabits)| gigabits / 8.0 * duration.as_secs_f64());
    let gigabytes = bytes + datagrams.bytes as f64 / 1e9;
    if gigabytes > 0.0 {
        figures.push((Metric::Fragments, events.fragments as f64 / gigabytes));
        figures.push((Metric::TooBig, events.unreachable as f64 / gigabytes));
    }
    Ok(figures)
}

fn case(testbed: &Testbed, choice: Choice, metric: Metric) -> Case {
    Case {
        bench: Bench::Mtu,
        setting: "one TCP stream, the pods' MTU chosen in several ways".to_owned(),
        subject: testbed.setup.overlay.label().to_owned(),
        load: choice.label().to_owned(),
        metric,
        x: Some(f64::from(testbed.setup.underlay_mtu)),
    }
}

/// What the automatic choice gave in terms of the best one, and the wrong ones in terms of it.
fn verdict(record: &Record, underlay: u16, right: u16) -> Option<String> {
    let medians: Vec<(&str, Spread)> = Choice::ALL
        .iter()
        .filter_map(|choice| {
            let series = record.of(Bench::Mtu).find(|series| {
                series.case.subject == Overlay::Weft.label()
                    && series.case.load == choice.label()
                    && series.case.metric == Metric::Throughput
                    && series.case.x == Some(f64::from(underlay))
            })?;
            Some((choice.label(), series.spread()?))
        })
        .collect();
    let (_, automatic) = medians.first()?;
    let (best, most) = medians
        .iter()
        .max_by(|(_, a), (_, b)| a.median.total_cmp(&b.median))?;
    let others: Vec<_> = medians[1..]
        .iter()
        .map(|(label, spread)| format!("{label} {}x", Short(spread.median / automatic.median)))
        .collect();
    Some(format!(
        "underlay {underlay}: automatic ({right}) {automatic} Gb/s, {}x of the best ({best}); {}",
        Short(automatic.median / most.median),
        others.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{case as any, empty};

    #[test]
    fn a_choice_that_is_not_what_its_name_says_is_left_out() {
        assert_eq!(Choice::Half.fixed(1500, 1450), Some(725));
        assert_eq!(Choice::Half.fixed(576, 526), None);
        assert_eq!(Choice::Weave.fixed(1500, 1450), Some(1376));
        assert_eq!(Choice::Weave.fixed(1400, 1350), None);
        assert_eq!(Choice::TooBig.fixed(1500, 1450), Some(1500));
        assert_eq!(Choice::Automatic.fixed(1500, 1450), None);
    }

    #[test]
    fn the_verdict_is_about_one_underlay_and_weft() {
        let mut record = empty();
        for (subject, choice, x, gigabits) in [
            ("weft", Choice::Automatic, 1500.0, 4.0),
            ("weft", Choice::TooBig, 1500.0, 1.0),
            ("weft", Choice::Half, 1500.0, 5.0),
            ("weft", Choice::Half, 9000.0, 50.0),
            ("kernel VXLAN", Choice::Automatic, 1500.0, 8.0),
        ] {
            let case = Case {
                bench: Bench::Mtu,
                x: Some(x),
                ..any(subject, choice.label(), Metric::Throughput)
            };
            record.push(case, gigabits);
        }
        let verdict = verdict(&record, 1500, 1450).unwrap();
        assert!(
            verdict.contains("0.80x of the best (half of it)"),
            "{verdict}"
        );
        assert!(verdict.contains("the underlay's own 0.25x"), "{verdict}");
        assert_eq!(super::verdict(&record, 576, 526), None);
    }
}
