//! `weft rmpeer`: takes over the addresses of a node that is gone for good.

use std::process::ExitCode;

use control::RemoveRequest;
use wire::PeerName;

use super::complain;
use super::router::RouterArgs;

/// Flags of `weft rmpeer`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Names of the nodes. They must be down: what they own is handed out anew
    #[arg(required = true, value_name = "NAME")]
    names: Vec<PeerName>,

    #[command(flatten)]
    router: RouterArgs,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let client = args.router.client();
    let mut code = ExitCode::SUCCESS;
    for name in &args.names {
        let removed = client.remove(&RemoveRequest { name: name.clone() });
        if let Ok(removed) = &removed
            && !removed.unheard.is_empty()
        {
            println!(
                "{} must still be down: removed before {name}, which was not asked about that",
                joined(&removed.unheard)
            );
        }
        match removed {
            Ok(removed) if removed.waiting.is_empty() => {
                println!("{name} is removed, {} addresses taken over", removed.taken);
            }
            Ok(removed) => {
                println!(
                    "{name} is removed; its {} addresses are used as soon as the others have \
                     confirmed it: {} (weft status ipam)",
                    removed.taken,
                    joined(&removed.waiting)
                );
            }
            Err(error) => {
                complain(error);
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn joined(names: &[PeerName]) -> String {
    let names: Vec<&str> = names.iter().map(PeerName::as_str).collect();
    names.join(", ")
}
