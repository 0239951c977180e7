//! `weft-bench`: measurements that need the kernel, next to what they are to be compared with in
//! the same run. What needs none is a criterion bench (`cargo bench -p weft-bench`).

mod all;
mod bar;
mod binaries;
mod cni;
mod compare;
mod cpu;
mod events;
mod ipam;
mod latency;
mod machine;
mod mesh;
mod mtu;
mod node;
mod overhead;
mod pair;
mod plugin;
mod pods;
mod process;
mod record;
mod report;
mod stats;
mod table;
mod tap;
mod testbed;
mod torture;
mod traffic;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use router::lab::interrupt::{Interrupt, Interrupted};

/// Measures weft beside what it replaces. Needs root; everything happens in network namespaces of
/// its own and is removed at the end.
#[derive(Debug, Parser)]
#[command(name = "weft-bench", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// All of the following but tap, into one record and one page
    All(all::Args),
    /// Bytes and CPU that each encapsulation costs, by headers and by counters
    Overhead(overhead::Args),
    /// What the underlay's MTU does, and what a wrong one of the pods costs
    Mtu(mtu::Args),
    /// Time until real routers have a link to each other
    Mesh(mesh::Args),
    /// ADD and DEL of weft-cni beside the plugins bridge and host-local, in turn
    Cni(cni::Args),
    /// Two nodes: TCP, small UDP packets and round trips over weft, beside the kernel's VXLAN
    Pair(pair::Args),
    /// An HTML page with plots, tables and every figure of records
    Report(report::Args),
    /// What has changed from one record to another, beyond the noise
    Compare(compare::Args),
    /// The address pool with its disk: one address at a time, and many at once
    Ipam(ipam::Args),
    /// The address plan of real routers that are killed, cut off, removed and returned: no figures, but
    /// whether an address was given twice or lost
    Torture(torture::Args),
    /// Reads and writes of a TAP: one frame a call (tun-tap) beside weft's super-frames
    Tap(tap::Args),
}

/// Usage errors, as sysexits.h has them and the router does.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    // As `weft` it is the router, as `weft-cni` the plugin: see `Binaries::own`.
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str) {
        Some("weft") => return router::cli::main(std::env::args_os()),
        Some("weft-cni") => return cni_shim::process_main(),
        _ => {}
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usage = error.use_stderr();
            // Nothing is left to be done about a closed terminal.
            let _ = error.print();
            return if usage {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let result = Interrupt::install()
        .map_err(anyhow::Error::from)
        .and_then(|interrupt| match cli.verb {
            Verb::All(args) => all::run(&args, &interrupt),
            Verb::Overhead(args) => overhead::run(&args, &interrupt),
            Verb::Mtu(args) => mtu::run(&args, &interrupt),
            Verb::Mesh(args) => mesh::run(&args, &interrupt),
            Verb::Cni(args) => cni::run(&args, &interrupt),
            Verb::Pair(args) => pair::run(&args, &interrupt),
            Verb::Report(args) => report::run(&args),
            Verb::Compare(args) => compare::run(&args),
            Verb::Ipam(args) => ipam::run(&args, &interrupt),
            Verb::Torture(args) => torture::run(&args, &interrupt),
            Verb::Tap(args) => tap::run(&args, &interrupt),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-bench: {error:#}");
            let interrupted = error.is::<Interrupted>();
            ExitCode::from(if interrupted { Interrupt::EXIT } else { 1 })
        }
    }
}

/// How long a measurement may take.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("use 0.1 to 60 seconds".to_owned()),
    }
}
