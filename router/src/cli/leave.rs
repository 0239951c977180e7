//! `weft leave`: takes this node out of the network.

use std::process::ExitCode;

use super::complain;
use super::router::RouterArgs;

/// Flags of `weft leave`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    router: RouterArgs,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match args.router.client().leave() {
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
