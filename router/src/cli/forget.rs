//! `weft forget`: takes back addresses of `weft connect` and of the settings.

use std::process::ExitCode;

use control::ForgetRequest;

use super::complain;
use super::router::RouterArgs;

/// Flags of `weft forget`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As `weft status targets` shows them. Nodes that were found there stay in the network
    #[arg(required = true, value_name = "HOST[:PORT]")]
    addresses: Vec<String>,

    #[command(flatten)]
    router: RouterArgs,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let request = ForgetRequest {
        targets: args.addresses.clone(),
    };
    match args.router.client().forget_peers(&request) {
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
