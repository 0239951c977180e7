//! `weft connect`: names addresses at which this node finds others.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use control::{Client, ConnectRequest};

use super::complain;

/// Longer than the router allows itself, so that its own answer is seen.
const DEADLINE: Duration = Duration::from_secs(12);

/// Flags of `weft connect`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Addresses of other nodes; one of one node is enough
    #[arg(required = true, value_name = "HOST[:PORT]")]
    addresses: Vec<String>,

    /// Take back all others, those of the settings included; connections that there are stay
    #[arg(long)]
    replace: bool,

    /// Control socket of the router
    #[arg(long, env = "WEFT_SOCKET", value_name = "PATH", default_value = control::DEFAULT_SOCKET)]
    socket: PathBuf,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let request = ConnectRequest {
        targets: args.addresses.clone(),
        replace: args.replace,
    };
    match Client::new(&args.socket, DEADLINE).connect_peers(&request) {
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
