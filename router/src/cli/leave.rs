//! `weft leave`: takes this node out of the network.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use control::Client;

use super::complain;

/// Longer than the router allows itself, so that its own answer is seen.
const DEADLINE: Duration = Duration::from_secs(12);

/// Flags of `weft leave`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Control socket of the router
    #[arg(long, env = "WEFT_SOCKET", value_name = "PATH", default_value = control::DEFAULT_SOCKET)]
    socket: PathBuf,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match Client::new(&args.socket, DEADLINE).leave() {
        Ok(left) => {
            println!(
                "left the network: {} addresses were given to other nodes, {} are kept",
                left.given, left.kept
            );
            println!("weft connect ADDRESS brings the node back; it stays away until then");
            if left.kept > 0 {
                println!(
                    "if it is to go for good, weft rmpeer on another node takes what is kept, once \
                     this router is stopped"
                );
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}
