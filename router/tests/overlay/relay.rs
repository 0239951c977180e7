//! Nodes that do not reach each other, or not in every way: relays, blocked ports, NAT.

use std::net::IpAddr;
use std::time::Duration;

use control::{Encapsulation, PeerState, PeerStatus};
use hostnet::link::VethRequest;
use hostnet::netlink::Netlink;
use hostnet::route::Route;
use nix::sys::signal::Signal;
use router::lab::layout::IFNAME;
use router::lab::world::{Node, World};
use wire::Mac;
use wire::ethernet::header;

use crate::cluster::{
    Stranger, assert_all_reach, cluster, counter, eventually, nft, packets, pings, receive, v4,
};
use crate::flow::Flow;

/// What a node says of the peer with this name.
pub(crate) fn peer(node: &Node, name: &str) -> Option<PeerStatus> {
    let peers = node.status().ok()?.peers;
    peers.into_iter().find(|peer| peer.name == name)
}

/// The encapsulation of an open link and the relay on it.
pub(crate) fn way(
    world: &World,
    from: usize,
    to: usize,
) -> Option<(Encapsulation, Option<String>)> {
    let peer = peer(&world.nodes[from], &world.nodes[to].layout.name)?;
    let open = matches!(peer.state, PeerState::Up | PeerState::Degraded);
    open.then_some((peer.encapsulation, peer.via))
}

pub(crate) fn relayed_by(world: &World, relay: usize) -> Option<(Encapsulation, Option<String>)> {
    let relay = world.nodes[relay].layout.name.clone();
    Some((Encapsulation::Sleeve, Some(relay)))
}

pub(crate) const DIRECT: Option<(Encapsulation, Option<String>)> =
    Some((Encapsulation::Vxlan, None));

/// Both sides of a pair drop what the other sends, of this kind.
pub(crate) fn part(world: &World, a: usize, b: usize, what: &str) {
    for (at, other) in [(a, b), (b, a)] {
        let other = world.nodes[other].layout.address;
        nft(
            &world.nodes[at].netns,
            &format!(
                "add table inet parted
                 add chain inet parted in {{ type filter hook prerouting priority -300; }}
                 add rule inet parted in ip saddr {other} {what} drop"
            ),
        );
    }
}

pub(crate) fn reunite(world: &World, nodes: [usize; 2]) {
    for node in nodes {
        nft(&world.nodes[node].netns, "delete table inet parted");
    }
}

/// A - B - C: whatever lies between A and C, TCP connections among it, is lost and comes back.
#[test]
fn a_pair_without_a_path_talks_through_the_third_and_directly_again() {
    let world = cluster(3, 1, &[]);
    let flow = Flow::start(&world.pods[0], &world.pods[2]);
    flow.goes_on("at first");

    part(&world, 0, 2, "");
    eventually("both relay through the second", || {
        let through = relayed_by(&world, 1);
        way(&world, 0, 2) == through && way(&world, 2, 0) == through
    });
    flow.goes_on("through the relay");
    assert_all_reach(&world);
    let relay = world.nodes[1].status().unwrap();
    assert!(counter(&relay, "relayed_datagrams") > 0);
    assert_eq!(way(&world, 0, 1), DIRECT);

    // Frames of the pods' MTU do not fit; who sends them is told, or they are fragmented.
    let (a, c) = (&world.pods[0], &world.pods[2]);
    assert!(pings(&a.netns, v4(c), 1450 - 28));

    reunite(&world, [0, 2]);
    eventually("both are direct again", || {
        way(&world, 0, 2) == DIRECT && way(&world, 2, 0) == DIRECT
    });
    flow.goes_on("directly again");
    flow.end();
}

/// I3: over a relay, too, a broadcast frame arrives once at each.
#[test]
fn i3_a_broadcast_arrives_once_over_a_relay() {
    let world = cluster(4, 1, &[]);
    part(&world, 0, 2, "");
    part(&world, 0, 3, "");
    eventually("the first relays to two others", || {
        [2, 3].iter().all(|&to| {
            let there = way(&world, 0, to);
            there == relayed_by(&world, 1) && way(&world, to, 0) == there
        })
    });
    let mut sockets: Vec<_> = world
        .pods
        .iter()
        .map(|pod| packets(&pod.netns, IFNAME))
        .collect();
    for from in [0, 3] {
        for number in 0..20_u8 {
            let mut frame = header(Mac::BROADCAST, world.pods[from].mac, 0x88b6).to_vec();
            frame.extend([7; 45]);
            frame.push(number);
            sockets[from].send(&frame).unwrap();
        }
        for (to, socket) in sockets.iter_mut().enumerate().filter(|(to, _)| *to != from) {
            // The bridge returns a pod's own, for it may have hairpin on.
            let source = world.pods[from].mac.0;
            let ours = |frame: &[u8]| frame[12..14] == [0x88, 0xb6] && frame[6..12] == source;
            let mut numbers: Vec<u8> = std::iter::from_fn(|| {
                receive(socket, Duration::from_secs(1), ours)
                    .and_then(|frame| frame.last().copied())
            })
            .collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "from {from} at {to}");
        }
    }
}

/// Nothing is known of a link but what the data path itself finds out: with VXLAN's port blocked the
/// control connection stands, and traffic goes another way.
#[test]
fn a_blocked_vxlan_port_is_shown_and_sleeve_is_used() {
    let world = cluster(2, 1, &[]);
    let flow = Flow::start(&world.pods[0], &world.pods[1]);
    part(&world, 0, 1, "udp dport 6784");
    eventually("both use sleeve", || {
        [(0, 1), (1, 0)]
            .iter()
            .all(|&(a, b)| way(&world, a, b) == Some((Encapsulation::Sleeve, None)))
    });
    flow.goes_on("in sleeve");
    let status = peer(&world.nodes[0], "node2").unwrap();
    assert_eq!(status.mtu, 1438);
    let vxlan = status
        .ways
        .iter()
        .find(|way| way.encapsulation == Encapsulation::Vxlan)
        .unwrap();
    assert_eq!(vxlan.state, PeerState::Down);
    assert_eq!(vxlan.reason.as_deref(), Some("no reply on UDP 6784"));
    reunite(&world, [0, 1]);
    eventually("both use VXLAN again", || {
        way(&world, 0, 1) == DIRECT && way(&world, 1, 0) == DIRECT
    });
    flow.goes_on("in VXLAN again");
    flow.end();
}

/// TCP up, UDP blocked: between the two nodes nothing is to be had, and a third relays.
#[test]
fn with_udp_blocked_a_third_node_relays() {
    let world = cluster(3, 1, &[]);
    part(&world, 0, 1, "meta l4proto udp");
    eventually("the third relays", || {
        let through = relayed_by(&world, 2);
        way(&world, 0, 1) == through && way(&world, 1, 0) == through
    });
    assert_all_reach(&world);
    // I5: the control connection is another matter.
    assert!(peer(&world.nodes[0], "node2").unwrap().control.is_some());
}

/// Nobody is left that could relay: the link is down, and says why.
#[test]
fn with_udp_blocked_and_nobody_to_relay_the_link_is_down() {
    let world = cluster(2, 1, &[]);
    part(&world, 0, 1, "meta l4proto udp");
    eventually("the link is down for a reason", || {
        peer(&world.nodes[0], "node2").is_some_and(|peer| {
            peer.state == PeerState::Down
                && peer
                    .reason
                    .is_some_and(|why| why.contains("no reply on UDP"))
        })
    });
    reunite(&world, [0, 1]);
    eventually("it is up again", || way(&world, 0, 1) == DIRECT);
    assert_all_reach(&world);
}

/// One side is able to dial, its address and ports are translated, and nothing that it has not asked
/// for gets in: it is reached all the same, directly, at the port that NAT gave it.
#[test]
fn a_node_behind_nat_with_port_translation_is_reached() {
    let mut world = cluster(3, 1, &[]);
    world.end_router(2, Signal::SIGKILL).unwrap();
    let gateway = move_behind_nat(&world, 2, 77);
    world.start_router_again(2, &[]).unwrap();
    eventually("all reach the third by sleeve and it reaches them", || {
        [(0, 2), (1, 2), (2, 0), (2, 1)]
            .iter()
            .all(|&(a, b)| way(&world, a, b) == Some((Encapsulation::Sleeve, None)))
    });
    for node in &world.nodes[..2] {
        let address = peer(node, "node3").unwrap().address.unwrap();
        assert_eq!(address.ip(), IpAddr::from(gateway.address));
        assert_ne!(address.port(), 6783, "the NAT translates no port");
    }
    assert_all_reach(&world);
    let flow = Flow::start(&world.pods[0], &world.pods[2]);
    flow.goes_on("towards the one behind NAT");
    flow.end();
    let flow = Flow::start(&world.pods[2], &world.pods[1]);
    flow.goes_on("from behind NAT");
    flow.end();
}

/// Moves a node's `eth0` from the underlay behind a NAT at 10.99.0.`host`, which lets nothing in that
/// nobody behind it has begun.
pub(crate) fn move_behind_nat(world: &World, node: usize, host: u8) -> Stranger {
    let gateway = Stranger::join(world, host);
    let netns = &world.nodes[node].netns;
    let mut inside = Netlink::open_in(netns).unwrap();
    let old = inside.link(IFNAME).unwrap().unwrap();
    inside.delete_link(old.index).unwrap();
    let mut outside = Netlink::open_in(&gateway.netns).unwrap();
    outside
        .add_veth(&VethRequest {
            host_up: true,
            peer_ns: Some(netns),
            ..VethRequest::new("inner", IFNAME, world.layout().underlay_mtu)
        })
        .unwrap();
    for (netlink, name, address) in [
        (&mut outside, "inner", "192.168.50.1/24"),
        (&mut inside, IFNAME, "192.168.50.3/24"),
    ] {
        let link = netlink.link(name).unwrap().unwrap().index;
        netlink.add_address(link, address.parse().unwrap()).unwrap();
        netlink.set_up(link).unwrap();
    }
    let eth0 = inside.link(IFNAME).unwrap().unwrap().index;
    let default = Route::default_via("192.168.50.1".parse().unwrap(), eth0);
    inside.add_route(&default).unwrap();
    let forwards = gateway
        .netns
        .run(|| hostnet::sysctl::write("net/ipv4/ip_forward", "1"));
    forwards.unwrap().unwrap();
    nft(
        &gateway.netns,
        "add table ip nat
         add chain ip nat out { type nat hook postrouting priority 100; }
         add rule ip nat out oifname eth0 masquerade fully-random
         add table ip wall
         add chain ip wall in { type filter hook forward priority 0; }
         add rule ip wall in iifname eth0 ct state new drop",
    );
    gateway
}

/// Twenty routers that know one address start at the same moment.
#[test]
fn twenty_routers_join_at_once_through_one_address() {
    let world = cluster(20, 1, &["--queues", "1"]);
    for node in &world.nodes {
        let status = node.status().unwrap();
        let open = |peer: &&PeerStatus| peer.state == PeerState::Up;
        assert_eq!(status.peers.iter().filter(open).count(), 19);
    }
    let (first, last) = (&world.pods[0], &world.pods[19]);
    for pod in &world.pods[1..] {
        assert!(pings(&first.netns, v4(pod), 56), "{}", pod.layout.name);
    }
    assert!(pings(&last.netns, v4(&world.pods[9]), 56));
}
