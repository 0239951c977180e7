//! `weft-bench overhead`: what an encapsulation costs in bytes, by its headers and by the underlay's
//! counters, which have to agree to the byte, and in CPU for frames of each size.

mod capture;
pub(crate) mod format;

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use router::lab::interrupt::Interrupt;

use crate::bar::Bar;
use crate::binaries::Binaries;
use crate::cpu::CpuTime;
use crate::pods;
use crate::record::{Bench, Case, Check, Metric, Output, Record};
use crate::table::Table;
use crate::testbed::{Overlay, Setup, Testbed, Underlay};
use crate::traffic::{Until, WINDOW, windowed};
use capture::Capture;
use format::{Encapsulation, Family, INNER};

/// What to measure, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds, in each of which every size is sent over every encapsulation
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,
    /// Seconds of one measurement of CPU time
    #[arg(long, default_value_t = 1.0, value_parser = crate::seconds)]
    seconds: f64,
    /// Three short rounds of few sizes: a first look
    #[arg(long)]
    quick: bool,
    /// Count bytes only
    #[arg(long)]
    bytes: bool,
    #[command(flatten)]
    output: Output,
}

/// Lengths of pods' frames, from the Ethernet header on and without FCS.
const SIZES: &[usize] = &[64, 128, 256, 512, 1024, 1464, 4000, 9000];
const QUICK: &[usize] = &[64, 512, 1464, 9000];
/// Fits the longest frame in the largest encapsulation.
const UNDERLAY_MTU: u16 = 9216;
const POD_MTU: u16 = 9000;
/// Frames whose bytes are counted.
const COUNTED: u64 = 64;
/// How often a count is repeated if something else passed the underlay while it began or ended, or if
/// the machine was so busy that a frame came too late to count.
const TRIES: usize = 5;

/// Measures, prints, and fails if a byte is missing.
pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    pods::remove_leftovers()?;
    let record = measure(args, interrupt)?;
    args.output.finish(&record, |record| {
        let tables = Table::of(record, Bench::Overhead);
        tables.iter().map(Table::text).collect()
    })?;
    record.verify()
}

impl Args {
    /// For `weft-bench all`.
    pub(crate) fn of_all(quick: bool) -> Self {
        Self {
            rounds: 3,
            seconds: 0.5,
            quick,
            bytes: false,
            output: Output::default(),
        }
    }
}

pub(crate) fn measure(args: &Args, interrupt: &Interrupt) -> anyhow::Result<Record> {
    let binaries = Binaries::own()?;
    let (rounds, seconds, sizes) = if args.quick {
        (3, 0.1, QUICK)
    } else {
        (args.rounds, args.seconds, SIZES)
    };
    let mut record = Record::new();
    // What the formats say needs no measurement, so all of them are there.
    for encapsulation in Encapsulation::ALL {
        for &size in sizes {
            let share = encapsulation.goodput_share(size) * 100.0;
            record.push(case(encapsulation, size, Metric::GoodputShare), share);
        }
    }
    let bar = Bar::new(
        "overhead",
        paths().len() * sizes.len() * usize::from(rounds + 1),
    );
    bar.prepare("building two nodes for each encapsulation");
    let mut testbeds = Vec::new();
    for (encapsulation, overlay, v6) in paths() {
        let setup = Setup {
            v6,
            underlay_mtu: UNDERLAY_MTU,
            pod_mtu: Some(POD_MTU),
            ..Setup::new(overlay, Underlay::Nooff)
        };
        if let Some(not_run) = overlay.missing() {
            record.not_run.push(not_run);
            continue;
        }
        let testbed = Testbed::build(setup, &binaries, interrupt)?;
        testbeds.push((encapsulation, testbed));
    }
    for (encapsulation, testbed) in &testbeds {
        for &size in sizes {
            interrupt.check()?;
            let what = format!(
                "{} frames of {size} B, {} by {}",
                COUNTED,
                encapsulation.label(),
                testbed.setup.overlay.label()
            );
            bar.next(what.clone());
            let counted = count(testbed, size).with_context(|| what.clone())?;
            let expected = encapsulation.on_wire(size) as u64 * COUNTED;
            record.checks.push(Check {
                what,
                expected,
                counted,
            });
            if testbed.setup.overlay != Overlay::Kernel {
                let bytes = counted as f64 / COUNTED as f64;
                record.push(case(*encapsulation, size, Metric::WireBytes), bytes);
            }
        }
    }
    if args.bytes {
        return Ok(record);
    }
    for round in 1..=rounds {
        for &size in sizes {
            // In turn, so that what the machine does meanwhile falls on all alike.
            for (encapsulation, testbed) in &testbeds {
                interrupt.check()?;
                bar.next(format!(
                    "round {round}: {size} B, {}",
                    encapsulation.label()
                ));
                let before = CpuTime::now()?;
                let until = Until::Elapsed(Duration::from_secs_f64(seconds));
                let arrived = windowed(testbed.ends(), size - INNER, WINDOW, until)?;
                let busy = CpuTime::now()?.since(before).as_secs_f64();
                ensure!(arrived.bytes > 0, "no frame of {size} B arrived");
                let mut case = case(*encapsulation, size, Metric::CpuPerGb);
                if testbed.setup.overlay == Overlay::Kernel {
                    case.subject = format!("{} by the kernel", encapsulation.label());
                }
                record.push(case, busy / (arrived.bytes as f64 / 1e9));
            }
        }
    }
    Ok(record)
}

/// What is measured: an encapsulation, who does it, and whether the underlay is IPv6.
fn paths() -> Vec<(Encapsulation, Overlay, bool)> {
    vec![
        (Encapsulation::None, Overlay::None, false),
        (Encapsulation::Vxlan(Family::V4), Overlay::Kernel, false),
        (Encapsulation::Vxlan(Family::V4), Overlay::Weft, false),
        (Encapsulation::Vxlan(Family::V6), Overlay::Weft, true),
        (
            Encapsulation::Sealed(Family::V4),
            Overlay::WeftSealed,
            false,
        ),
    ]
}

fn case(encapsulation: Encapsulation, size: usize, metric: Metric) -> Case {
    Case {
        bench: Bench::Overhead,
        setting: "frames of a pod, one UDP packet each".to_owned(),
        subject: encapsulation.label().to_owned(),
        load: String::new(),
        metric,
        x: Some(size as f64),
    }
}

/// Bytes of [`COUNTED`] frames on the underlay by the interface's own counter, less those of packets
/// that are none of them (what routers say to each other, address resolution). A capture tells which
/// those are; that it saw all is shown by its sum being the counter's.
fn count(testbed: &Testbed, size: usize) -> anyhow::Result<u64> {
    let [node, ..] = testbed.namespaces();
    let payload = size - INNER;
    let send = |packets| windowed(testbed.ends(), payload, WINDOW, Until::Packets(packets));
    // Addresses are resolved and MACs learned before, so that nothing is flooded.
    send(2)?;
    for _ in 0..TRIES {
        let capture = Capture::start(node, "eth0")?;
        let before = capture.sent_bytes()?;
        let mut arrived = 0;
        // One at a time: several small ones could share a sealed datagram.
        for sent in 1..=COUNTED {
            arrived += send(1)?.packets;
            capture.wait_for(sent);
        }
        let counter = capture.sent_bytes()? - before;
        let seen = capture.finish()?;
        if arrived == COUNTED && seen.bytes() == counter {
            return Ok(counter - seen.bytes_besides(COUNTED));
        }
    }
    bail!("in {TRIES} tries frames came late or something else began or ended to pass meanwhile")
}
