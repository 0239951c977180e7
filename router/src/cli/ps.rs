//! `weft ps`: the containers of this node, their Ethernet addresses and their addresses.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use control::Client;

use super::complain;

/// Longer than the router allows itself, so that its own answer is seen.
const DEADLINE: Duration = Duration::from_secs(12);

/// Flags of `weft ps`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Control socket of the router
    #[arg(long, env = "WEFT_SOCKET", value_name = "PATH", default_value = control::DEFAULT_SOCKET)]
    socket: PathBuf,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match Client::new(&args.socket, DEADLINE).status() {
        Ok(status) => {
            println!(
                "{:<64}  {:<15}  {:<17}  ADDRESS",
                "CONTAINER", "INTERFACE", "MAC"
            );
            for held in &status.ipam.allocations {
                let mac = held
                    .mac
                    .map_or_else(|| "-".to_owned(), |mac| mac.to_string());
                println!(
                    "{:<64}  {:<15}  {mac:<17}  {}",
                    held.container_id, held.ifname, held.address
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
