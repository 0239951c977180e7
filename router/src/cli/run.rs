//! `weft run`: the router, in the foreground until a signal ends it.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

use super::{EXIT_USAGE, complain};
use crate::daemon::{self, Stop};
use crate::password::{self, PasswordError};
use crate::settings::{self, Options, Settings};

/// Flags of `weft run`. Those of [`Options`] can be set by environment and file too.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file in TOML; its keys are the flags below with _ for -
    /// [default: /etc/weft/weft.toml, if it is there]
    #[arg(long, env = "WEFT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Check the settings, print them as a configuration file, and exit
    #[arg(long)]
    check: bool,

    /// Exit when standard input ends, as it does when the parent dies
    #[arg(long, hide = true)]
    exit_with_stdin: bool,

    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: Args) -> ExitCode {
    // Before anything else can read it, start a thread or show the environment.
    let password = match hostnet::environment::take(password::VARIABLE) {
        Ok(password) => password,
        Err(error) => {
            complain(format_args!("cannot take {}: {error}", password::VARIABLE));
            return ExitCode::FAILURE;
        }
    };
    let host_name = nix::unistd::gethostname().unwrap_or_default();
    let host_name = host_name.to_string_lossy();
    let config = args
        .config
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty());
    let settings = match settings::load(args.options, config, &host_name) {
        Ok(settings) => settings,
        Err(error) => {
            complain(error);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let password = password.map(|text| Zeroizing::new(text.to_string_lossy().into_owned()));
    if password.is_some() && settings.password_file.is_some() {
        complain(PasswordError::Twice);
        return ExitCode::from(EXIT_USAGE);
    }
    if args.check {
        print!("{}", settings.to_toml());
        return ExitCode::SUCCESS;
    }
    start_log(&settings);
    match daemon::run(
        settings,
        password,
        Stop {
            with_stdin: args.exit_with_stdin,
        },
    ) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The log goes to standard error, where systemd and Kubernetes pick it up.
fn start_log(settings: &Settings) {
    let filter = EnvFilter::try_new(&settings.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
