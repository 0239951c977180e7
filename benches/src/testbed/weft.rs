//! A router on each node, and the pods attached by the plugin.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use control::{Client, PeerState, Status};
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use router::lab::interrupt::Interrupt;

use super::{Counters, Overlay, POLL, READY, Side, Testbed, link};
use crate::binaries::Binaries;
use crate::plugin::{Plugin, Verb};
use crate::record::NotRun;

/// One question to a control socket.
const ANSWER: Duration = Duration::from_secs(2);
/// The setting that turns encryption on.
const PASSWORD_KEY: &str = "password_file";

/// Starts a router in a namespace, with its socket, state and log in a directory of its own. It ends
/// when its standard input does.
pub(crate) fn start(
    weft: &Path,
    netns: &NetNs,
    directory: &Path,
    arguments: &[String],
) -> anyhow::Result<Child> {
    fs::create_dir(directory).context("make a router's directory")?;
    let mut command = Command::new(weft);
    command
        .arg0("weft")
        .args(["run", "--config", "/dev/null", "--metrics-address", "off"])
        .arg("--state-dir")
        .arg(directory.join("state"))
        .arg("--socket")
        .arg(socket(directory))
        .args(arguments)
        .arg("--exit-with-stdin")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(File::create(log(directory))?)
        // Ctrl-C is this program's to handle.
        .process_group(0);
    netns
        .run(|| command.spawn())?
        .context("cannot execute weft")
}

/// Waits until what a router says about itself satisfies `ready`.
pub(crate) fn wait(
    directory: &Path,
    end: Instant,
    interrupt: &Interrupt,
    ready: impl Fn(&Status) -> bool,
) -> anyhow::Result<Status> {
    let client = Client::new(socket(directory), ANSWER);
    loop {
        if let Ok(status) = client.status()
            && ready(&status)
        {
            return Ok(status);
        }
        if Instant::now() > end {
            bail!(
                "the routers are not ready:\n{}",
                fs::read_to_string(log(directory)).unwrap_or_default()
            );
        }
        interrupt.sleep(POLL)?;
    }
}

/// Links of a router that carry frames.
pub(crate) fn links(status: &Status) -> usize {
    let up = |peer: &&control::PeerStatus| peer.state == PeerState::Up;
    status.peers.iter().filter(up).count()
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("weft.sock")
}

fn log(directory: &Path) -> PathBuf {
    directory.join("log")
}

/// Why frames cannot be sealed; none if they can.
pub(super) fn no_encryption() -> Option<NotRun> {
    let has = router::settings::Options::keys()
        .iter()
        .any(|key| key == PASSWORD_KEY);
    (!has).then(|| NotRun {
        subject: Overlay::WeftSealed.label().to_owned(),
        reason: "this weft takes no password".to_owned(),
    })
}

impl Testbed {
    /// Routers with a password in common.
    pub(super) fn sealed(
        &mut self,
        binaries: &Binaries,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        let path = self.directory.path().join("password");
        // Routers refuse a password that others can read.
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(b"a password for benchmarks\n")?;
        let password = format!("--password-file={}", path.display());
        self.weft(&[&password], binaries, interrupt)?;
        for index in 0..self.sides.len() {
            let client = Client::new(socket(&self.router_directory(index)), ANSWER);
            // A figure of plain frames under this name would be worse than none.
            ensure!(client.status()?.overlay.encrypted, "frames are not sealed");
        }
        Ok(())
    }

    pub(super) fn weft(
        &mut self,
        further: &[&str],
        binaries: &Binaries,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        for index in 0..self.sides.len() {
            let directory = self.router_directory(index);
            let number = self.sides[index].number;
            let mut arguments = vec![
                format!("--name=n{number}"),
                "--ipam-init=seed=n1,n2".to_owned(),
                format!("--peer={}", self.setup.address(3 - number)),
            ];
            if let Some(mtu) = self.setup.pod_mtu {
                arguments.push(format!("--mtu={mtu}"));
            }
            arguments.extend(further.iter().map(ToString::to_string));
            let side = &mut self.sides[index];
            let router = start(&binaries.weft, &side.node, &directory, &arguments)?;
            side.daemons.push(router);
        }
        let end = Instant::now() + READY;
        for index in 0..self.sides.len() {
            let directory = self.router_directory(index);
            wait(&directory, end, interrupt, |status| {
                status.ipam.ready && links(status) > 0
            })?;
            self.sides[index].attach(binaries, &socket(&directory))?;
        }
        Ok(())
    }

    /// Counters of the routers' data paths; none without routers.
    pub(crate) fn counters(&self) -> anyhow::Result<Vec<Counters>> {
        let directories = (0..self.sides.len()).map(|index| self.router_directory(index));
        directories
            .filter(|directory| socket(directory).exists())
            .map(|directory| {
                let client = Client::new(socket(&directory), ANSWER);
                Ok(client.status()?.counters)
            })
            .collect()
    }

    fn router_directory(&self, index: usize) -> PathBuf {
        self.directory.path().join((index + 1).to_string())
    }
}

impl Side {
    /// Has the plugin attach the pod, and takes over the address that it got.
    fn attach(&mut self, binaries: &Binaries, socket: &Path) -> anyhow::Result<()> {
        let plugin = Plugin::weft(&binaries.weft_cni, socket);
        let pod = format!("{}p", self.name);
        self.node.run(|| plugin.call(Verb::Add, &pod))??;
        let eth0 = link(&self.pod, "eth0")?.index;
        let addresses = Netlink::open_in(&self.pod)?.addresses(eth0)?;
        let v4 = addresses.iter().find(|address| address.addr().is_ipv4());
        self.address = v4.context("the plugin set no address")?.addr();
        Ok(())
    }
}
