//! The command line: one verb to a file.
//!
//! Exit statuses: 0 well, 1 failed, 64 asked for something that cannot be (`EX_USAGE`,
//! `sysexits(3)`).

mod cni;
mod connect;
mod doctor;
mod forget;
mod leave;
mod ps;
mod rmpeer;
mod router;
mod run;
mod status;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The command line or the configuration cannot be (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

/// A network for containers: every node a switch, all pods on one Ethernet.
#[derive(Debug, Parser)]
#[command(name = "weft", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the router of this node
    Run(Box<run::Args>),
    /// Show this node, its peers and its addresses
    Status(status::Args),
    /// Connect to other nodes, now and after every restart
    Connect(connect::Args),
    /// Do not look for nodes at these addresses any more
    Forget(forget::Args),
    /// Take this node out of the network and give its free addresses to the others
    Leave(leave::Args),
    /// List the containers of this node and their addresses
    Ps(ps::Args),
    /// Take over the addresses of a node that is gone for good
    Rmpeer(rmpeer::Args),
    /// Look at this node and say what is wrong with it
    Doctor(doctor::Args),
    /// Put the plugin and its configuration where the container runtime looks for them
    InstallCni(cni::Args),
    /// Remove the plugin and its configuration
    UninstallCni(cni::UninstallArgs),
    /// Try it on this machine: nodes, pods and traffic between them, in network namespaces
    Lab(crate::lab::Args),
}

/// Does what a command line says.
pub fn main(line: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell if even this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.verb {
        Verb::Run(args) => run::run(*args),
        Verb::Status(args) => status::run(&args),
        Verb::Connect(args) => connect::run(&args),
        Verb::Forget(args) => forget::run(&args),
        Verb::Leave(args) => leave::run(&args),
        Verb::Ps(args) => ps::run(&args),
        Verb::Rmpeer(args) => rmpeer::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::InstallCni(args) => cni::install(&args),
        Verb::UninstallCni(args) => cni::uninstall(&args),
        Verb::Lab(args) => crate::lab::run(&args).unwrap_or_else(|error| {
            complain(format_args!("{error:#}"));
            ExitCode::FAILURE
        }),
    }
}

/// Says on standard error why a verb failed.
fn complain(error: impl std::fmt::Display) {
    eprintln!("weft: {error}");
}
