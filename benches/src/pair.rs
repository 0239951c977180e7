//! `weft-bench pair`: two nodes on this machine, joined by the kernel's VXLAN and by weft, measured in
//! turn within one run. Only the ratios within a run carry over to another day or machine: both
//! nodes, their pods and the traffic share this machine's cores.

mod cpu;
mod table;
mod testbed;
mod traffic;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use router::lab::interrupt::Interrupt;
use router::lab::progress::Progress;
use serde::Serialize;

use crate::binaries::Binaries;
use crate::latency::Latency;
use crate::pods;
use cpu::CpuTime;
use testbed::{Overlay, Testbed, Underlay};

/// What to measure, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds; each measures every case once, in turn, and the medians are taken over rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// One round of one second: a first look, whose figures are rough
    #[arg(long)]
    quick: bool,
    /// Measure only over this underlay
    #[arg(long, value_enum)]
    underlay: Option<UnderlayChoice>,
    /// Measure only these overlays
    #[arg(long, value_enum, value_delimiter = ',')]
    overlay: Vec<Overlay>,
    /// Measure only these kinds of traffic
    #[arg(long, value_enum, value_delimiter = ',')]
    load: Vec<Load>,
    /// Another build of `weft` (or of weft-bench), measured beside this one in the same run
    #[arg(long, value_name = "PATH")]
    beside: Option<PathBuf>,
    /// Print every run's figures as one JSON document on standard output
    #[arg(long)]
    json: bool,
}

/// As `--underlay` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum UnderlayChoice {
    /// The veth's default offloads: frames of 64 KB cross whole
    Veth,
    /// Segmentation and checksum offloads off: frames of 1514 bytes cross
    Nooff,
}

impl Args {
    /// What is measured, in the order of the table's columns.
    fn overlays(&self) -> impl Iterator<Item = Overlay> {
        let wanted = |overlay: &Overlay| match overlay {
            Overlay::Beside => self.beside.is_some(),
            other => self.overlay.is_empty() || self.overlay.contains(other),
        };
        Overlay::ALL.into_iter().filter(wanted)
    }

    fn loads(&self) -> impl Iterator<Item = Load> {
        let wanted = |load: &Load| self.load.is_empty() || self.load.contains(load);
        Load::ALL.into_iter().filter(wanted)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.2..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("use 0.2 to 60 seconds".to_owned()),
    }
}

/// One kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// One TCP stream.
    Tcp1,
    /// Four TCP streams.
    Tcp4,
    /// 64-byte UDP packets of one flow.
    Udp1,
    /// 64-byte UDP packets of 64 flows.
    Udp64,
    /// Round trips of one UDP packet.
    RoundTrip,
}

impl Load {
    const ALL: [Self; 5] = [
        Self::Tcp1,
        Self::Tcp4,
        Self::Udp1,
        Self::Udp64,
        Self::RoundTrip,
    ];
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) underlay: Underlay,
    pub(crate) overlay: Overlay,
    pub(crate) load: Load,
    pub(crate) round: u16,
    /// Bits of payload received in a second (TCP).
    pub(crate) bits_per_second: Option<f64>,
    /// Packets received in a second, and sent (UDP).
    pub(crate) packets_per_second: Option<f64>,
    pub(crate) sent_per_second: Option<f64>,
    /// Busy seconds of all cores, by GB of payload (TCP).
    pub(crate) cpu_per_gb: Option<f64>,
    /// Round trips.
    pub(crate) latency: Option<Latency>,
    /// Memory of a router, in bytes.
    pub(crate) resident: Option<u64>,
    /// What the routers counted meanwhile: the sender's, then the receiver's; none without routers.
    pub(crate) counted: Vec<Counters>,
}

/// Counters of a router's data path, by name; only those that moved.
pub(crate) type Counters = BTreeMap<String, u64>;

/// Measures, and prints the table.
pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    let binaries = Binaries::own()?;
    pods::remove_leftovers()?;
    if binaries.debug {
        eprintln!("weft-bench: this is a debug build, its figures say little; use --release");
    }
    let (rounds, seconds) = if args.quick {
        (1, 1.0)
    } else {
        (args.rounds, args.seconds)
    };
    let underlays = [
        (Underlay::Veth, UnderlayChoice::Veth),
        (Underlay::Nooff, UnderlayChoice::Nooff),
    ];
    let mut progress = Progress::stderr();
    let mut figures = Vec::new();
    for (underlay, choice) in underlays {
        if args.underlay.is_some_and(|only| only != choice) {
            continue;
        }
        let mut testbeds = Vec::new();
        for overlay in args.overlays() {
            interrupt.check()?;
            let binaries = match (&args.beside, overlay) {
                (Some(other), Overlay::Beside) => &Binaries::one(other),
                _ => &binaries,
            };
            testbeds.push(Testbed::build(overlay, underlay, binaries, interrupt)?);
        }
        progress.step(format!("measuring over a {underlay}"));
        for round in 1..=rounds {
            for load in args.loads() {
                // In turn, so that what the machine does meanwhile falls on all alike.
                for testbed in &testbeds {
                    interrupt.check()?;
                    progress.detail(&format!(
                        "round {round} of {rounds}, {underlay}: {load:?}, {}",
                        testbed.overlay.label()
                    ));
                    figures.push(measure(
                        testbed,
                        load,
                        round,
                        Duration::from_secs_f64(seconds),
                    )?);
                }
            }
        }
        progress.finish();
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{}", table::render(&figures));
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "no run moves 2^52 of anything")]
fn measure(
    testbed: &Testbed,
    load: Load,
    round: u16,
    duration: Duration,
) -> anyhow::Result<Figure> {
    let ends = testbed.ends();
    let mut figure = Figure {
        underlay: testbed.underlay,
        overlay: testbed.overlay,
        load,
        round,
        bits_per_second: None,
        packets_per_second: None,
        sent_per_second: None,
        cpu_per_gb: None,
        latency: None,
        resident: None,
        counted: Vec::new(),
    };
    let before = testbed.counters()?;
    match load {
        Load::Tcp1 | Load::Tcp4 => {
            let before = CpuTime::now()?;
            let arrived = traffic::tcp(ends, if load == Load::Tcp1 { 1 } else { 4 }, duration)?;
            let busy = CpuTime::now()?.since(before).as_secs_f64();
            let seconds = arrived.elapsed.as_secs_f64();
            figure.bits_per_second = Some(arrived.bytes as f64 * 8.0 / seconds);
            figure.cpu_per_gb = (arrived.bytes > 0).then(|| busy / (arrived.bytes as f64 / 1e9));
        }
        Load::Udp1 | Load::Udp64 => {
            let flows = if load == Load::Udp1 { 1 } else { 64 };
            let arrived = traffic::udp(ends, flows, 64, duration)?;
            let seconds = arrived.elapsed.as_secs_f64();
            figure.packets_per_second = Some(arrived.packets as f64 / seconds);
            figure.sent_per_second = Some(arrived.sent as f64 / seconds);
        }
        Load::RoundTrip => figure.latency = Latency::of(traffic::round_trips(ends, duration)?),
    }
    figure.resident = testbed.resident();
    figure.counted = (before.iter().zip(&testbed.counters()?))
        .map(|(before, after)| moved(before, after))
        .collect();
    Ok(figure)
}

/// What counters moved by.
fn moved(before: &Counters, after: &Counters) -> Counters {
    let moved = after.iter().map(|(name, value)| {
        let by = value.saturating_sub(*before.get(name).unwrap_or(&0));
        (name.clone(), by)
    });
    moved.filter(|(_, by)| *by > 0).collect()
}
