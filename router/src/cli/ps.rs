//! `weft ps`: the containers of this node, their Ethernet addresses and their addresses.

use std::process::ExitCode;

use super::complain;
use super::router::RouterArgs;

/// Flags of `weft ps`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    router: RouterArgs,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match args.router.client().status() {
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
