//! `weft-bench`: measurements that need the kernel, next to what they are to be compared with in
//! the same run. What needs none is a criterion bench (`cargo bench -p weft-bench`).

mod binaries;
mod cni;
mod latency;
mod node;
mod pair;
mod plugin;
mod pods;
mod tap;

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
    /// ADD and DEL of weft-cni beside the plugins bridge and host-local, in turn
    Cni(cni::Args),
    /// Two nodes: TCP, small UDP packets and round trips over weft, beside the kernel's VXLAN
    Pair(pair::Args),
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
            Verb::Cni(args) => cni::run(&args, &interrupt),
            Verb::Pair(args) => pair::run(&args, &interrupt),
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
