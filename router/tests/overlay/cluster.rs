//! Clusters for tests: those of `weft lab`, under a name of their own.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use control::Status;
use hostnet::link::VethRequest;
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use hostnet::packet::PacketSocket;
use router::lab::interrupt::Interrupt;
use router::lab::layout::{IFNAME, Layout};
use router::lab::probe::ping::{PAYLOAD, Pinger};
use router::lab::progress::Progress;
use router::lab::world::{Pod, World, WorldOptions};

/// The router under test, which is the plugin too.
pub(crate) const WEFT: &str = env!("CARGO_BIN_EXE_weft");
/// How long a thing that takes milliseconds may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster of so many nodes with so many pods each; removed on drop.
pub(crate) fn cluster(nodes: u16, pods: u16, router_args: &[&str]) -> World {
    cluster_on(nodes, pods, 1500, router_args)
}

/// As [`cluster`], on an underlay of this MTU.
pub(crate) fn cluster_on(nodes: u16, pods: u16, underlay_mtu: u16, args: &[&str]) -> World {
    let name = unique("wt");
    let layout = Layout {
        name,
        nodes,
        pods,
        underlay_mtu,
    };
    let options = WorldOptions {
        layout,
        weft: PathBuf::from(WEFT),
        cni: None,
        detached: false,
        router_args: args.iter().map(OsString::from).collect(),
    };
    World::build(&options, &Interrupt::default(), &mut Progress::silent())
        .unwrap_or_else(|error| panic!("the cluster cannot be built (are you root?): {error:#}"))
}

/// A name that no other test and no other process uses.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{prefix}{}x{}",
        std::process::id(),
        NEXT.fetch_add(1, Relaxed)
    )
}

/// A further machine on the cluster's underlay: a namespace with `eth0` at 10.99.0.`host`.
pub(crate) struct Stranger {
    name: String,
    pub(crate) netns: NetNs,
    pub(crate) address: Ipv4Addr,
}

impl Stranger {
    pub(crate) fn join(world: &World, host: u8) -> Self {
        let name = unique("ws");
        let netns = NetNs::create(&name).unwrap();
        let address = Ipv4Addr::new(10, 99, 0, host);
        let underlay = NetNs::open(&NetNs::path(&world.layout().underlay_netns())).unwrap();
        let mut outside = Netlink::open_in(&underlay).unwrap();
        let bridge = outside.link("underlay").unwrap().unwrap().index;
        outside
            .add_veth(&VethRequest {
                master: Some(bridge),
                host_up: true,
                peer_ns: Some(&netns),
                ..VethRequest::new(&format!("s{host}"), IFNAME, world.layout().underlay_mtu)
            })
            .unwrap();
        let mut inside = Netlink::open_in(&netns).unwrap();
        let link = inside.link(IFNAME).unwrap().unwrap();
        inside
            .add_address(link.index, format!("{address}/24").parse().unwrap())
            .unwrap();
        inside.set_up(link.index).unwrap();
        Self {
            name,
            netns,
            address,
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        NetNs::remove(&self.name).unwrap();
    }
}

/// A pod's IPv4 address.
pub(crate) fn v4(pod: &Pod) -> Ipv4Addr {
    match pod.address.addr() {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address} is not IPv4"),
    }
}

/// Whether an echo with this many bytes of data comes back before patience ends.
pub(crate) fn pings(from: &NetNs, to: Ipv4Addr, payload: usize) -> bool {
    let mut pinger = Pinger::open(from, 77).unwrap();
    (0..5).any(|_| {
        pinger
            .ping(to, payload, Duration::from_secs(1))
            .ok()
            .flatten()
            .is_some()
    })
}

/// Panics with the routers' logs unless every pod reaches every other.
pub(crate) fn assert_all_reach(world: &World) {
    for a in &world.pods {
        for b in &world.pods {
            assert!(
                pings(&a.netns, v4(b), PAYLOAD),
                "{} does not reach {}\n{}",
                a.layout.name,
                b.layout.name,
                world.log_tails()
            );
        }
    }
}

/// Asks again and again until the answer is yes.
pub(crate) fn eventually(what: &str, mut answer: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !answer() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A packet socket on an interface of a namespace.
pub(crate) fn packets(netns: &NetNs, interface: &str) -> PacketSocket {
    let index = Netlink::open_in(netns)
        .unwrap()
        .link(interface)
        .unwrap()
        .unwrap()
        .index;
    netns.run(|| PacketSocket::bind(index)).unwrap().unwrap()
}

/// The next frame received for which `wanted` is true, if one comes within `patience`.
pub(crate) fn receive(
    socket: &mut PacketSocket,
    patience: Duration,
    wanted: impl Fn(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let Some(packet) = socket.recv(left).unwrap() else {
            continue;
        };
        if wanted(packet.bytes) && !packet.outgoing {
            return Some(packet.bytes.to_vec());
        }
    }
}

/// Gives nft these rules, all or none, in a namespace.
pub(crate) fn nft(netns: &NetNs, rules: &str) {
    let run = netns.run(|| Command::new("nft").arg(rules).output());
    let output = run.unwrap().expect("nft is installed (.ci/test does it)");
    assert!(
        output.status.success(),
        "{rules}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A counter of a node's router.
pub(crate) fn counter(status: &Status, name: &str) -> u64 {
    status
        .counters
        .get(name)
        .copied()
        .unwrap_or_else(|| panic!("no counter {name}"))
}
