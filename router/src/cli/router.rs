//! Which router a verb speaks to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use control::Client;

/// Longer than the router allows itself, so that its own answer is seen.
const DEADLINE: Duration = Duration::from_secs(12);

/// The flag by which a verb finds its router.
#[derive(Debug, clap::Args)]
pub(super) struct RouterArgs {
    /// Control socket of the router
    #[arg(long, env = "WEFT_SOCKET", value_name = "PATH", default_value = control::DEFAULT_SOCKET)]
    socket: PathBuf,
}

impl RouterArgs {
    /// Speaks to it, each question with the time that any answer takes.
    pub(super) fn client(&self) -> Client {
        Client::new(&self.socket, DEADLINE)
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}
