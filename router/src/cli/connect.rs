//! `weft connect`: names addresses at which this node finds others.

use std::process::ExitCode;

use control::ConnectRequest;

use super::complain;
use super::router::RouterArgs;

/// Flags of `weft connect`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Addresses of other nodes; one of one node is enough
    #[arg(required = true, value_name = "HOST[:PORT]")]
    addresses: Vec<String>,

    /// Take back all others, those of the settings included; connections that there are stay
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    router: RouterArgs,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let request = ConnectRequest {
        targets: args.addresses.clone(),
        replace: args.replace,
    };
    match args.router.client().connect_peers(&request) {
        Ok(answer) => {
            println!("targets: {}", answer.targets.join(", "));
            println!("weft status targets shows what becomes of them");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}
