//! A node of one: `weft run` in a network namespace of its own.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use control::Client;
use hostnet::netns::NetNs;
use router::lab::interrupt::Interrupt;
use tempfile::TempDir;

use crate::pods;

/// How long the router has until it hands out addresses.
const READY: Duration = Duration::from_secs(30);
/// How long it has to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// One question to the control socket.
const ANSWER: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// Fixed, so that both plugins set the same one; an underlay of 1500 gives it.
pub(crate) const MTU: u16 = 1450;

/// The running node. Dropping it ends the router and removes everything.
#[derive(Debug)]
pub(crate) struct Node {
    netns: NetNs,
    name: String,
    directory: TempDir,
    router: Option<Child>,
}

impl Node {
    /// Starts the router and waits until it hands out addresses.
    pub(crate) fn start(weft: &Path, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let directory =
            TempDir::with_prefix(pods::name("node-")).context("cannot make a directory")?;
        let name = pods::name("node");
        let netns = NetNs::create(&name)?;
        let mut node = Self {
            netns,
            name,
            directory,
            router: None,
        };
        node.router = Some(node.spawn(weft)?);
        node.wait_until_ready(interrupt)
            .with_context(|| node.log_tail())?;
        Ok(node)
    }

    /// The namespace that the router runs in.
    pub(crate) fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// A directory that goes with the node.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The router's control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory().join("weft.sock")
    }

    /// The router's process.
    pub(crate) fn router(&self) -> Option<u32> {
        self.router.as_ref().map(Child::id)
    }

    fn log(&self) -> PathBuf {
        self.directory().join("weft.log")
    }

    fn spawn(&self, weft: &Path) -> anyhow::Result<Child> {
        // Neither this machine's configuration nor this shell's is to decide what is measured.
        let config = self.directory().join("weft.toml");
        fs::write(&config, "").context("cannot write an empty configuration")?;
        let log = File::create(self.log()).context("cannot write the router's log")?;
        let mut command = Command::new(weft);
        command
            .arg("run")
            .arg("--config")
            .arg(&config)
            .arg("--state-dir")
            .arg(self.directory().join("state"))
            .arg("--socket")
            .arg(self.socket())
            .args([
                "--name",
                "bench",
                "--ipam-init",
                "seed=bench",
                "--metrics-address",
                "off",
            ])
            .args(["--mtu", &MTU.to_string()])
            // Killed with -9, this program leaves no router behind.
            .arg("--exit-with-stdin")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is this program's to handle.
            .process_group(0);
        self.netns
            .run(|| command.spawn())?
            .with_context(|| format!("cannot execute {}", weft.display()))
    }

    fn wait_until_ready(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let client = Client::new(self.socket(), ANSWER);
        let end = Instant::now() + READY;
        loop {
            let waiting_for = match client.status() {
                Ok(status) if status.ipam.ready => return Ok(()),
                Ok(status) => status
                    .ipam
                    .reason
                    .unwrap_or_else(|| "no addresses yet".to_owned()),
                Err(error) => error.to_string(),
            };
            if let Some(router) = &mut self.router
                && let Some(status) = router.try_wait()?
            {
                bail!("weft run ended with {status}");
            }
            if Instant::now() > end {
                bail!("weft run is not ready after {READY:?}: {waiting_for}");
            }
            interrupt.sleep(POLL)?;
        }
    }

    /// The end of the router's log, to go with an error.
    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(10)..];
        format!(
            "the router does not start; its last words:\n{}\n",
            tail.join("\n")
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut router) = self.router.take() {
            // The end of its standard input tells it to end.
            drop(router.stdin.take());
            let end = Instant::now() + GRACE;
            while matches!(router.try_wait(), Ok(None)) && Instant::now() < end {
                thread::sleep(POLL);
            }
            // Both do nothing to a process that has ended.
            let _ = router.kill();
            let _ = router.wait();
        }
        if let Err(error) = NetNs::remove(&self.name) {
            eprintln!("weft-bench: {error}");
        }
    }
}
