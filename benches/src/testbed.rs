//! Two nodes and a pod on each, in namespaces, on an underlay veth of their own: one testbed for each
//! thing to be compared, all built before the first measurement and idle between theirs.

mod kernel;
mod peer;
pub(crate) mod weft;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use hostnet::ethtool::{self, Feature};
use hostnet::link::VethRequest;
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use hostnet::sysctl;
use ipnet::IpNet;
use router::lab::interrupt::Interrupt;
use tempfile::TempDir;
use wire::vxlan;

use crate::binaries::Binaries;
use crate::pods;
use crate::process::resident;
use crate::record::NotRun;
use crate::traffic::Ends;

pub(crate) use peer::Peer;

/// What connects the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlay {
    /// Nothing: the underlay veth is a port of both bridges.
    None,
    /// The kernel's VXLAN device as a port of each bridge.
    Kernel,
    /// weft.
    Weft,
    /// weft with a password: every frame is sealed.
    WeftSealed,
    /// weft with all offloads off: one frame, one system call.
    WeftPlain,
    /// Another build of weft (`--beside`).
    Beside,
    /// Somebody else's daemon.
    Peer(Peer),
}

impl Overlay {
    /// All, in the order of the table's columns.
    pub(crate) const ALL: &[Self] = &[
        Self::None,
        Self::Kernel,
        Self::Weft,
        Self::WeftSealed,
        Self::WeftPlain,
        Self::Beside,
        Self::Peer(Peer::OpenVSwitch),
        Self::Peer(Peer::VpnCloud),
        Self::Peer(Peer::Tinc),
        Self::Peer(Peer::N2n),
        Self::Peer(Peer::BoringTun),
        Self::Peer(Peer::GotaTun),
    ];

    /// Its name in tables.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::None => "no overlay",
            Self::Kernel => "kernel VXLAN",
            Self::Weft => "weft",
            Self::WeftSealed => "weft, encrypted",
            Self::WeftPlain => "weft, offloads off",
            Self::Beside => "weft, other build",
            Self::Peer(peer) => peer.label(),
        }
    }

    /// Why it cannot be run here; none if it can.
    pub(crate) fn missing(self) -> Option<NotRun> {
        match self {
            Self::Peer(peer) => peer.missing(),
            Self::WeftSealed => weft::no_encryption(),
            _ => None,
        }
    }
}

impl ValueEnum for Overlay {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let name = match self {
            Self::None => "none",
            Self::Kernel => "kernel",
            Self::Weft => "weft",
            Self::WeftSealed => "weft-encrypted",
            Self::WeftPlain => "weft-plain",
            Self::Beside => "beside",
            Self::Peer(peer) => peer.name(),
        };
        // The other build comes with the flag that names it.
        Some(PossibleValue::new(name).hide(*self == Self::Beside))
    }
}

/// What the underlay veth does with frames longer than its MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Underlay {
    /// The veth's default offloads: frames of 64 KB cross whole, and nobody ever cuts them
    Veth,
    /// Segmentation and checksum offloads off: no frame on the wire is longer than its MTU
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

/// What to build.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) overlay: Overlay,
    pub(crate) underlay: Underlay,
    /// The underlay has IPv6 addresses instead of IPv4.
    pub(crate) v6: bool,
    /// In bytes of IP packet.
    pub(crate) underlay_mtu: u16,
    /// The pods', in bytes of IP packet; none: what weft finds out, and the same for the others.
    pub(crate) pod_mtu: Option<u16>,
}

impl Setup {
    /// An underlay of 1500 over IPv4, and the pods' MTU that goes with it.
    pub(crate) const fn new(overlay: Overlay, underlay: Underlay) -> Self {
        Self {
            overlay,
            underlay,
            v6: false,
            underlay_mtu: 1500,
            pod_mtu: None,
        }
    }

    /// The pods' MTU where weft does not choose it: what VXLAN leaves of the underlay's.
    fn kernel_mtu(&self) -> u16 {
        let overhead = if self.v6 {
            vxlan::OVERHEAD_IPV6
        } else {
            vxlan::OVERHEAD_IPV4
        };
        self.pod_mtu.unwrap_or(self.underlay_mtu - overhead)
    }

    /// The underlay address of a node, inside the testbed's own namespaces.
    const fn address(&self, number: u8) -> IpAddr {
        if self.v6 {
            IpAddr::V6(Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, number as u16))
        } else {
            IpAddr::V4(Ipv4Addr::new(10, 98, 0, number))
        }
    }
}

/// A pair of nodes, ready for traffic. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Testbed {
    pub(crate) setup: Setup,
    sides: Vec<Side>,
    directory: TempDir,
    /// What daemons leave outside of it.
    files: Vec<PathBuf>,
}

#[derive(Debug)]
struct Side {
    /// Counted from 1.
    number: u8,
    name: String,
    node: NetNs,
    pod: NetNs,
    address: IpAddr,
    daemons: Vec<Child>,
}

/// Counters of a router's data path, by name.
pub(crate) type Counters = BTreeMap<String, u64>;

/// How long a daemon has until it is ready.
const READY: Duration = Duration::from_secs(20);
/// How long it has to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// Testbeds that this process has built, for each has names of its own.
static BUILT: AtomicU32 = AtomicU32::new(0);

impl Testbed {
    /// Builds it.
    pub(crate) fn build(
        setup: Setup,
        binaries: &Binaries,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix(pods::name("pair-")).context("make a directory")?;
        let mut testbed = Self {
            setup,
            sides: Vec::new(),
            directory,
            files: Vec::new(),
        };
        let this = BUILT.fetch_add(1, Relaxed);
        for number in 1..=2u8 {
            let name = pods::name(&format!("{this}n{number}"));
            let node = NetNs::create(&name)?;
            let pod = NetNs::create(&format!("{name}p"));
            let pod = pod.inspect_err(|_| drop(NetNs::remove(&name)))?;
            testbed.sides.push(Side {
                number,
                name,
                node,
                pod,
                address: IpAddr::from([10, 32, 0, number]),
                daemons: Vec::new(),
            });
        }
        testbed.connect()?;
        match setup.overlay {
            Overlay::None | Overlay::Kernel => testbed.kernel()?,
            Overlay::Weft | Overlay::Beside => testbed.weft(&[], binaries, interrupt)?,
            Overlay::WeftSealed => testbed.sealed(binaries, interrupt)?,
            Overlay::WeftPlain => testbed.weft(&["--offloads", "off"], binaries, interrupt)?,
            Overlay::Peer(peer) => testbed
                .peer(peer, interrupt)
                .with_context(|| format!("start {}", peer.label()))?,
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

    /// All namespaces: both nodes, then both pods.
    pub(crate) fn namespaces(&self) -> [&NetNs; 4] {
        let [a, b] = self.pair();
        [&a.node, &b.node, &a.pod, &b.pod]
    }

    /// Memory that the largest daemon holds, in bytes; none without daemons.
    pub(crate) fn resident(&self) -> Option<u64> {
        let daemons = self.sides.iter().flat_map(|side| &side.daemons);
        daemons.filter_map(|daemon| resident(daemon.id())).max()
    }

    /// Why nothing can be measured any more: a daemon has ended.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let mut daemons = self.sides.iter_mut().flat_map(|side| &mut side.daemons);
        let status = daemons.find_map(|daemon| daemon.try_wait().ok().flatten())?;
        Some(format!("its daemon ended while it was measured: {status}"))
    }

    /// The MTU of the first pod, in bytes of IP packet.
    pub(crate) fn pod_mtu(&self) -> anyhow::Result<u32> {
        Ok(link(&self.sides[0].pod, "eth0")?.mtu)
    }

    fn pair(&self) -> [&Side; 2] {
        [&self.sides[0], &self.sides[1]]
    }

    /// The underlay: a veth between the nodes.
    fn connect(&self) -> anyhow::Result<()> {
        let [a, b] = self.pair();
        let mut netlink = Netlink::open_in(&a.node)?;
        netlink.add_veth(&VethRequest {
            peer_ns: Some(&b.node),
            ..VethRequest::new("eth0", "eth0", self.setup.underlay_mtu)
        })?;
        for side in &self.sides {
            let mut netlink = Netlink::open_in(&side.node)?;
            let eth0 = link(&side.node, "eth0")?.index;
            if self.setup.v6 {
                // No wait for duplicates of an address that nobody else can have.
                let setting = sysctl::interface(sysctl::Family::V6, "eth0", "accept_dad");
                side.node.run(|| sysctl::write(&setting, "0"))??;
            }
            if self.setup.overlay != Overlay::None {
                let prefix = if self.setup.v6 { 64 } else { 24 };
                let address = IpNet::new(self.setup.address(side.number), prefix)?;
                netlink.add_address(eth0, address)?;
            }
            netlink.set_up(eth0)?;
            if self.setup.underlay == Underlay::Nooff {
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
}

impl Drop for Testbed {
    fn drop(&mut self) {
        let weft = !matches!(self.setup.overlay, Overlay::Peer(_));
        for side in &mut self.sides {
            for mut daemon in side.daemons.drain(..).rev() {
                // The end of its standard input tells a router to end.
                drop(daemon.stdin.take());
                let end = Instant::now() + GRACE;
                while weft && matches!(daemon.try_wait(), Ok(None)) && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(10));
                }
                // Both do nothing to a process that has ended.
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
            for name in [format!("{}p", side.name), side.name.clone()] {
                if let Err(error) = NetNs::remove(&name) {
                    eprintln!("weft-bench: {error}");
                }
            }
        }
        for file in &self.files {
            // Most daemons remove theirs themselves.
            let _ = std::fs::remove_file(file);
        }
    }
}

fn link(netns: &NetNs, name: &str) -> anyhow::Result<hostnet::Link> {
    Netlink::open_in(netns)?
        .link(name)?
        .with_context(|| format!("{name} is gone"))
}
