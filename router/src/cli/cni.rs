//! `weft install-cni` and `weft uninstall-cni`: the plugin and its configuration, by hand.

use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};

use super::complain;
use super::router::RouterArgs;
use crate::install::CniDirs;

/// Flags of both.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the container runtime finds plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,

    /// Where the container runtime finds networks
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,

    #[command(flatten)]
    router: RouterArgs,
}

/// Flags of `weft uninstall-cni`.
#[derive(Debug, clap::Args)]
pub(super) struct UninstallArgs {
    #[command(flatten)]
    args: Args,

    /// Stay until told to end, for a DaemonSet whose pods are to be counted
    #[arg(long)]
    wait: bool,
}

impl Args {
    fn dirs(&self) -> CniDirs {
        CniDirs {
            bin: self.bin_dir.clone(),
            conf: self.conf_dir.clone(),
        }
    }
}

pub(super) fn install(args: &Args) -> ExitCode {
    match args.dirs().install(args.router.socket()) {
        Ok(true) => {
            println!("installed");
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("installed already");
            ExitCode::SUCCESS
        }
        Err(error) => failed(error),
    }
}

pub(super) fn uninstall(args: &UninstallArgs) -> ExitCode {
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    end.add(Signal::SIGINT);
    // Before anything is said, so that none is missed; process 1 of a container would ignore them.
    let blocked = if args.wait {
        end.thread_block()
    } else {
        Ok(())
    };
    if let Err(error) = args.args.dirs().uninstall() {
        return failed(error);
    }
    println!("removed");
    if args.wait && blocked.and_then(|()| end.wait()).is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn failed(error: crate::install::InstallError) -> ExitCode {
    complain(format_args!("{:#}", anyhow::Error::from(error)));
    ExitCode::FAILURE
}
