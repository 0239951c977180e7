//! `weft forget`: takes back addresses of `weft connect` and of the settings.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use control::{Client, ForgetRequest};

use super::complain;

/// Longer than the router allows itself, so that its own answer is seen.
const DEADLINE: Duration = Duration::from_secs(12);

/// Flags of `weft forget`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As `weft status targets` shows them. Nodes that were found there stay in the network
    #[arg(required = true, value_name = "HOST[:PORT]")]
    addresses: Vec<String>,

    /// Control socket of the router
    #[arg(long, env = "WEFT_SOCKET", value_name = "PATH", default_value = control::DEFAULT_SOCKET)]
    socket: PathBuf,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let request = ForgetRequest {
        targets: args.addresses.clone(),
    };
    match Client::new(&args.socket, DEADLINE).forget_peers(&request) {
        Ok(answer) => {
            for target in &answer.unknown {
                complain(format_args!("{target} was no target here"));
            }
            match answer.targets.as_slice() {
                [] => println!("no target is left; nodes that know this one still find it"),
                targets => println!("targets: {}", targets.join(", ")),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}
