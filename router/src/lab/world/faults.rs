//! What tests do to a world: end routers in every way and start them again.

use std::ffi::OsString;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::World;

impl World {
    /// Ends a node's router with a signal and waits until it is gone. `node` is its place in
    /// [`World::nodes`].
    ///
    /// # Errors
    /// The router does not run, or cannot be ended.
    pub fn end_router(&mut self, node: usize, signal: Signal) -> anyhow::Result<()> {
        let name = self.nodes[node].layout.name.clone();
        let mut router = self.nodes[node]
            .router
            .take()
            .context("the router does not run")?;
        let pid = i32::try_from(router.id()).context("process number out of range")?;
        kill(Pid::from_raw(pid), signal)?;
        router.wait()?;
        self.state.routers.retain(|(of, _)| *of != name);
        self.save()
    }

    /// Sends a signal to a node's router that does not end it, such as SIGSTOP and SIGCONT. `node` is
    /// its place in [`World::nodes`].
    ///
    /// # Errors
    /// The router does not run.
    pub fn signal_router(&self, node: usize, signal: Signal) -> anyhow::Result<()> {
        let router = self.nodes[node].router.as_ref();
        let router = router.context("the router does not run")?;
        let pid = i32::try_from(router.id()).context("process number out of range")?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Starts a router again that [`World::end_router`] had ended, as it was started before but with
    /// these further arguments.
    ///
    /// # Errors
    /// This process did not build the world, or the router cannot be executed.
    pub fn start_router_again(&mut self, node: usize, further: &[&str]) -> anyhow::Result<()> {
        let mut options = self
            .options
            .clone()
            .context("this process did not build the world")?;
        options
            .router_args
            .extend(further.iter().map(OsString::from));
        self.start_router(node, &options)
    }
}
