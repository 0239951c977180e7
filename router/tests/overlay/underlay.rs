//! An underlay that changes under traffic: another MTU on the path or on the interfaces, and a node
//! with two ways to it.

use std::time::{Duration, Instant};

use hostnet::link::VethRequest;
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use router::lab::layout::IFNAME;
use router::lab::world::World;

use crate::cluster::{cluster, eventually, pings, v4};
use crate::flow::Flow;
use crate::relay::{part, peer};
use crate::verbs::weft;

/// Longer than it takes to find a larger size, which is tried every 15 s under traffic.
const UPWARDS: Duration = Duration::from_secs(60);

fn set_mtu(netns: &NetNs, interface: &str, mtu: u16) {
    let mut netlink = Netlink::open_in(netns).unwrap();
    let link = netlink.link(interface).unwrap().unwrap();
    netlink.set_mtu(link.index, mtu).unwrap();
}

/// Waits until both nodes show this MTU for their link.
fn until_mtu(world: &World, mtu: u16) {
    let end = Instant::now() + UPWARDS;
    let shown =
        || [(0, "node2"), (1, "node1")].map(|(at, of)| peer(&world.nodes[at], of).unwrap().mtu);
    while shown() != [mtu; 2] {
        if Instant::now() > end {
            let links = weft(&world.nodes[0], &["status", "links"]);
            let links = String::from_utf8_lossy(&links.stdout).into_owned();
            panic!("{:?} instead of {mtu}\n{links}", shown());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Something on the way takes smaller packets than before and tells nobody: the size is found, pods
/// are told, and the larger one is found again.
#[test]
fn a_path_that_shrinks_and_grows_is_followed_under_a_flow() {
    let world = cluster(2, 1, &[]);
    let flow = Flow::start(&world.pods[0], &world.pods[1]);
    flow.goes_on("at first");
    until_mtu(&world, 1450);
    let underlay = NetNs::open(&NetNs::path(&world.layout().underlay_netns())).unwrap();
    // A bridge drops what is too large for the port that it leaves by.
    for port in ["node1", "node2"] {
        set_mtu(&underlay, port, 1300);
    }
    until_mtu(&world, 1250);
    flow.goes_on("on a narrow path");
    let links = weft(&world.nodes[0], &["status", "links"]);
    let links = String::from_utf8(links.stdout).unwrap();
    assert!(
        links
            .lines()
            .any(|line| line.contains("vxlan") && line.contains("1250")),
        "{links}"
    );
    // Packets of the pods' MTU are fragmented or refused with word of the size, and not lost.
    assert!(pings(&world.pods[0].netns, v4(&world.pods[1]), 1450 - 28));
    for port in ["node1", "node2"] {
        set_mtu(&underlay, port, 1500);
    }
    until_mtu(&world, 1450);
    flow.goes_on("on a wide path again");
    flow.end();
}

/// The nodes' own interfaces change: what leaves is smaller at once, the operator is told, and it is
/// as before when they change back.
#[test]
fn interfaces_that_shrink_and_grow_are_followed_under_a_flow() {
    let world = cluster(2, 1, &[]);
    let flow = Flow::start(&world.pods[0], &world.pods[1]);
    flow.goes_on("at first");
    for node in &world.nodes {
        set_mtu(&node.netns, IFNAME, 1400);
    }
    until_mtu(&world, 1350);
    flow.goes_on("with small interfaces");
    let told = |wanted: bool| {
        world.nodes.iter().all(|node| {
            let status = node.status().unwrap();
            let told = status.conditions.iter().any(|c| c.name == "mtu_too_large");
            told == wanted && (status.overlay.underlay_mtu == 1400) == wanted
        })
    };
    eventually("the operator is told", || told(true));
    assert!(pings(&world.pods[0].netns, v4(&world.pods[1]), 1450 - 28));
    for node in &world.nodes {
        set_mtu(&node.netns, IFNAME, 1500);
    }
    until_mtu(&world, 1450);
    eventually("it is over", || told(false));
    flow.goes_on("with large interfaces again");
    flow.end();
}

/// Two nodes with a second network between them: when the first fails, the flow goes on over the
/// second, whose address one of them was told.
#[test]
fn a_peer_with_two_networks_is_reached_over_the_other() {
    let world = cluster(2, 1, &[]);
    let mut near = Netlink::open_in(&world.nodes[0].netns).unwrap();
    near.add_veth(&VethRequest {
        host_up: true,
        peer_ns: Some(&world.nodes[1].netns),
        ..VethRequest::new("second", "second", 1500)
    })
    .unwrap();
    let mut far = Netlink::open_in(&world.nodes[1].netns).unwrap();
    for (netlink, address) in [(&mut near, "10.98.0.1/24"), (&mut far, "10.98.0.2/24")] {
        let link = netlink.link("second").unwrap().unwrap().index;
        netlink.add_address(link, address.parse().unwrap()).unwrap();
        netlink.set_up(link).unwrap();
    }
    weft(&world.nodes[0], &["connect", "10.98.0.2"]);
    let flow = Flow::start(&world.pods[0], &world.pods[1]);
    flow.goes_on("over the first network");
    eventually("the second address is known as the peer's", || {
        let targets = world.nodes[0].status().unwrap().targets;
        targets
            .iter()
            .any(|target| target.peer.as_deref() == Some("node2"))
    });
    part(&world, 0, 1, "");
    let over = |at: usize, of: &str, network: &str| {
        let address = peer(&world.nodes[at], of).and_then(|peer| peer.address);
        address.is_some_and(|address| address.to_string().starts_with(network))
    };
    let end = Instant::now() + UPWARDS;
    while !(over(0, "node2", "10.98.") && over(1, "node1", "10.98.")) {
        assert!(Instant::now() < end, "{}", world.log_tails());
        std::thread::sleep(Duration::from_millis(50));
    }
    flow.goes_on("over the second network");
    flow.end();
}
