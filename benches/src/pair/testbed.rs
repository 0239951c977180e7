//! Two nodes and a pod on each, in namespaces, on an underlay veth of their own: one testbed for each
//! thing to be compared, all built before the first measurement and idle between theirs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use control::{Client, PeerState};
use hostnet::ethtool::{self, Feature};
use hostnet::link::{BridgeOptions, VethRequest, VxlanOptions};
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use ipnet::IpNet;
use router::lab::interrupt::Interrupt;
use serde::Serialize;
use tempfile::TempDir;
use wire::Vni;

use super::Counters;
use super::traffic::Ends;
use crate::binaries::Binaries;
use crate::plugin::{Plugin, Verb};
use crate::pods;

/// What connects the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Overlay {
    /// Nothing: the underlay veth is a port of both bridges.
    None,
    /// The kernel's VXLAN device as a port of each bridge.
    Kernel,
    /// weft.
    Weft,
    /// weft with all offloads off: one frame, one system call.
    WeftPlain,
    /// Another build of weft (`--beside`).
    #[value(skip)]
    Beside,
}

impl Overlay {
    /// All, in the order of the table's columns.
    pub(crate) const ALL: [Self; 5] = [
        Self::None,
        Self::Kernel,
        Self::Weft,
        Self::WeftPlain,
        Self::Beside,
    ];

    /// Its row in the table.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::None => "no overlay",
            Self::Kernel => "kernel VXLAN + bridge",
            Self::Weft => "weft",
            Self::WeftPlain => "weft, offloads off",
            Self::Beside => "weft, other build",
        }
    }
}

/// What the underlay veth does with frames longer than its MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Underlay {
    /// Default offloads: frames of 64 KB cross whole, and nobody ever cuts them.
    Veth,
    /// Segmentation and checksum offloads off: every frame on the wire has at most 1514 bytes.
    Nooff,
}

impl fmt::Display for Underlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Veth => "veth, default offloads",
            Self::Nooff => "veth, offloads off",
        })
    }
}

/// A pair of nodes, ready for traffic. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Testbed {
    pub(crate) overlay: Overlay,
    pub(crate) underlay: Underlay,
    sides: Vec<Side>,
    directory: TempDir,
}

#[derive(Debug)]
struct Side {
    name: String,
    node: NetNs,
    pod: NetNs,
    address: IpAddr,
    router: Option<Child>,
}

/// The underlay's MTU, and the pods' behind 50 bytes of VXLAN.
const UNDERLAY_MTU: u16 = 1500;
const POD_MTU: u16 = 1450;
const READY: Duration = Duration::from_secs(20);
/// One question to a control socket.
const ANSWER: Duration = Duration::from_secs(2);

impl Testbed {
    /// Builds it.
    pub(crate) fn build(
        overlay: Overlay,
        underlay: Underlay,
        binaries: &Binaries,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("weft-bench-").context("make a directory")?;
        let mut testbed = Self {
            overlay,
            underlay,
            sides: Vec::new(),
            directory,
        };
        for side in 0..2u8 {
            let name = pods::name(&format!("{overlay:?}{underlay:?}{side}"));
            let node = NetNs::create(&name)?;
            let pod = NetNs::create(&format!("{name}p"));
            let pod = pod.inspect_err(|_| drop(NetNs::remove(&name)))?;
            let address = IpAddr::from([10, 32, 0, side + 1]);
            testbed.sides.push(Side {
                name,
                node,
                pod,
                address,
                router: None,
            });
        }
        testbed.connect()?;
        match overlay {
            Overlay::None | Overlay::Kernel => testbed.bridge()?,
            Overlay::Weft | Overlay::Beside => testbed.route(&[], binaries, interrupt)?,
            Overlay::WeftPlain => testbed.route(&["--offloads", "off"], binaries, interrupt)?,
        }
        Ok(testbed)
    }

    /// From the first pod to the second.
    pub(crate) fn ends(&self) -> Ends<'_> {
        Ends {
            from: &self.sides[0].pod,
            to: &self.sides[1].pod,
            address: self.sides[1].address,
        }
    }

    /// Memory that the routers hold, in bytes; none without routers.
    pub(crate) fn resident(&self) -> Option<u64> {
        let routers = self.sides.iter().filter_map(|side| side.router.as_ref());
        routers.map(|router| resident(router.id())).max().flatten()
    }

    /// Counters of the routers' data paths; none without routers.
    pub(crate) fn counters(&self) -> anyhow::Result<Vec<Counters>> {
        let routers = self.sides.iter().enumerate();
        let routers = routers.filter(|(_, side)| side.router.is_some());
        routers
            .map(|(index, _)| Ok(self.client(index + 1).status()?.counters))
            .collect()
    }

    /// A client of the router on a node, counted from 1.
    fn client(&self, number: usize) -> Client {
        Client::new(self.socket(number), ANSWER)
    }

    fn socket(&self, number: usize) -> PathBuf {
        let directory = self.directory.path().join(number.to_string());
        directory.join("weft.sock")
    }

    /// The underlay: a veth between the nodes.
    fn connect(&self) -> anyhow::Result<()> {
        let [a, b] = &self.sides[..] else {
            unreachable!("a pair has two sides")
        };
        let mut netlink = Netlink::open_in(&a.node)?;
        netlink.add_veth(&VethRequest {
            host_up: true,
            peer_ns: Some(&b.node),
            ..VethRequest::new("eth0", "eth0", UNDERLAY_MTU)
        })?;
        for (number, side) in (1u8..).zip(&self.sides) {
            let mut netlink = Netlink::open_in(&side.node)?;
            let eth0 = netlink
                .link("eth0")?
                .context("the underlay veth is gone")?
                .index;
            if self.overlay != Overlay::None {
                let address = IpNet::new(IpAddr::V4(underlay_address(number)), 24)?;
                netlink.add_address(eth0, address)?;
            }
            netlink.set_up(eth0)?;
            if self.underlay == Underlay::Nooff {
                side.node.run(|| {
                    [
                        Feature::TxChecksum,
                        Feature::Tso,
                        Feature::Gso,
                        Feature::Gro,
                    ]
                    .into_iter()
                    .try_for_each(|feature| ethtool::set("eth0", feature, false))
                })??;
            }
        }
        Ok(())
    }

    /// A bridge on each node, the pod on it, and the overlay's device or the bare underlay.
    fn bridge(&self) -> anyhow::Result<()> {
        for (number, side) in (1u8..).zip(&self.sides) {
            let mut netlink = Netlink::open_in(&side.node)?;
            let options = BridgeOptions {
                mtu: POD_MTU,
                ..BridgeOptions::default()
            };
            let bridge = netlink.add_bridge("br0", &options)?;
            netlink.set_up(bridge)?;
            let eth0 = netlink
                .link("eth0")?
                .context("the underlay veth is gone")?
                .index;
            let port = match self.overlay {
                Overlay::None => eth0,
                _ => netlink.add_vxlan(
                    "vx0",
                    &VxlanOptions {
                        local: Some(underlay_address(number).into()),
                        remote: Some(underlay_address(3 - number).into()),
                        dev: Some(eth0),
                        mtu: POD_MTU,
                        ..VxlanOptions::new(Vni::DEFAULT, 4789)
                    },
                )?,
            };
            netlink.set_master(port, Some(bridge))?;
            netlink.set_up(port)?;
            netlink.add_veth(&VethRequest {
                master: Some(bridge),
                host_up: true,
                peer_ns: Some(&side.pod),
                ..VethRequest::new("pod0", "eth0", POD_MTU)
            })?;
            let mut inside = Netlink::open_in(&side.pod)?;
            let eth0 = inside
                .link("eth0")?
                .context("the pod's veth is gone")?
                .index;
            inside.add_address(eth0, IpNet::new(side.address, 12)?)?;
            inside.set_up(eth0)?;
        }
        Ok(())
    }

    /// A router on each node, and the pod attached by the plugin.
    fn route(
        &mut self,
        further: &[&str],
        binaries: &Binaries,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        for number in 1..=2u8 {
            let directory = self.directory.path().join(number.to_string());
            std::fs::create_dir(&directory).context("make a router's directory")?;
            let side = &mut self.sides[usize::from(number) - 1];
            let mut command = Command::new(&binaries.weft);
            command
                .arg0("weft")
                .args(["run", "--config", "/dev/null", "--metrics-address", "off"])
                .args(["--name", &format!("n{number}"), "--ipam-init", "seed=n1,n2"])
                .args(["--peer", &underlay_address(3 - number).to_string()])
                .arg("--state-dir")
                .arg(directory.join("state"))
                .arg("--socket")
                .arg(directory.join("weft.sock"))
                .args(further)
                .arg("--exit-with-stdin")
                .env_clear()
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(directory.join("log"))?);
            let router = side.node.run(|| command.spawn())?;
            side.router = Some(router.context("cannot execute weft")?);
        }
        let end = Instant::now() + READY;
        for number in 1..=2u8 {
            let client = self.client(usize::from(number));
            let ready = |status: &control::Status| {
                status.ipam.ready && status.peers.iter().any(|peer| peer.state == PeerState::Up)
            };
            while !client.status().is_ok_and(|status| ready(&status)) {
                if Instant::now() > end {
                    let log = self.directory.path().join(number.to_string()).join("log");
                    bail!(
                        "the routers are not ready:\n{}",
                        std::fs::read_to_string(log)?
                    );
                }
                interrupt.sleep(Duration::from_millis(20))?;
            }
            let socket = self.socket(usize::from(number));
            let side = &mut self.sides[usize::from(number) - 1];
            side.attach(binaries, &socket)?;
        }
        Ok(())
    }
}

impl Side {
    /// Has the plugin attach the pod, and takes over the address that it got.
    fn attach(&mut self, binaries: &Binaries, socket: &Path) -> anyhow::Result<()> {
        let plugin = Plugin::weft(&binaries.weft_cni, socket);
        let pod = format!("{}p", self.name);
        self.node.run(|| plugin.call(Verb::Add, &pod))??;
        let mut netlink = Netlink::open_in(&self.pod)?;
        let eth0 = netlink
            .link("eth0")?
            .context("the plugin made no eth0")?
            .index;
        let addresses = netlink.addresses(eth0)?;
        let v4 = addresses.iter().find(|address| address.addr().is_ipv4());
        self.address = v4.context("the plugin set no address")?.addr();
        Ok(())
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        for side in &mut self.sides {
            if let Some(mut router) = side.router.take() {
                drop(router.stdin.take());
                let end = Instant::now() + Duration::from_secs(5);
                while matches!(router.try_wait(), Ok(None)) && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(10));
                }
                let _ = router.kill();
                let _ = router.wait();
            }
            for name in [format!("{}p", side.name), side.name.clone()] {
                if let Err(error) = NetNs::remove(&name) {
                    eprintln!("weft-bench: {error}");
                }
            }
        }
    }
}

/// The underlay address of a node, inside the testbed's own namespaces.
const fn underlay_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 0, number)
}

/// `VmRSS` of a process.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}
