//! Frames of every kind, built by hand: what is sent on one pod's interface is seen once on
//! another's, whatever it is.

use std::time::Duration;

use wire::Mac;
use wire::ethernet::header;

use crate::cluster::{cluster, counter, eventually, packets, receive};

/// A mark that no other traffic carries.
const MARK: &[u8] = b"weft-test-frame";
const SOON: Duration = Duration::from_secs(3);
const QUIET: Duration = Duration::from_millis(300);

/// A frame with the mark in it. IP headers are whole: br_netfilter, where it is loaded, drops others.
fn frame(dst: Mac, src: Mac, ethertype: u16, number: u8) -> Vec<u8> {
    let mut frame = header(dst, src, ethertype).to_vec();
    match ethertype {
        0x8100 => frame.extend([0x00, 0x2a, 0x88, 0xb5]),
        0x0800 => {
            let mut ip = [
                0x45, 0, 0, 46, 0, 0, 0, 0, 1, 253, 0, 0, 10, 32, 0, 2, 239, 1, 2, 3,
            ];
            let sum = wire::checksum::checksum(&ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(ip);
        }
        0x86dd => {
            frame.extend([0x60, 0, 0, 0, 0, 32, 59, 1]);
            frame.extend("fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
            frame.extend("ff02::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
        }
        _ => {}
    }
    frame.extend(MARK);
    frame.push(number);
    frame.resize(frame.len().max(60), 0);
    if ethertype == 0x86dd {
        frame.resize(14 + 40 + 32, 0);
    }
    frame
}

fn marked(number: u8) -> impl Fn(&[u8]) -> bool {
    let mark = [MARK, &[number]].concat();
    move |frame| frame.windows(mark.len()).any(|window| window == mark)
}

/// I3: each destination port gets a frame once, and the router never sends one back.
#[test]
fn any_ethertype_reaches_every_pod_once() {
    for args in [&[][..], &["--offloads", "off"]] {
        let world = cluster(3, 2, args);
        let mut sockets: Vec<_> = world
            .pods
            .iter()
            .map(|pod| packets(&pod.netns, "eth0"))
            .collect();
        let mut tap = packets(&world.nodes[0].netns, "weft-tap");
        let cases = [
            (Mac::BROADCAST, 0x0806),
            (Mac([0x01, 0x00, 0x5e, 1, 2, 3]), 0x0800),
            (Mac([0x33, 0x33, 0, 0, 0, 9]), 0x86dd),
            (Mac::BROADCAST, 0x8100),
            (Mac([0x02, 9, 9, 9, 9, 9]), 0x88b5),
        ];
        for (number, (dst, ethertype)) in (0..).zip(cases) {
            sockets[0]
                .send(&frame(dst, world.pods[0].mac, ethertype, number))
                .unwrap();
            for (pod, socket) in world.pods.iter().zip(&mut sockets).skip(1) {
                let what = format!("{dst} {ethertype:#06x} at {} {args:?}", pod.layout.name);
                assert!(
                    receive(socket, SOON, marked(number)).is_some(),
                    "{what}: lost"
                );
                assert!(
                    receive(socket, QUIET, marked(number)).is_none(),
                    "{what}: twice"
                );
            }
            // What the router writes to its TAP is what the node receives there.
            let back = receive(&mut tap, QUIET, marked(number));
            assert!(
                back.is_none(),
                "{dst} {ethertype:#06x} came back to its node"
            );
        }
    }
}

#[test]
fn a_mac_that_moves_is_found_at_once() {
    let world = cluster(3, 1, &[]);
    let mut sockets: Vec<_> = world
        .pods
        .iter()
        .map(|pod| packets(&pod.netns, "eth0"))
        .collect();
    let wanderer = Mac([0x02, 0xaa, 0, 0, 0, 1]);
    let before = counter(&world.nodes[0].status().unwrap(), "flooded");
    for (number, home) in [(10u8, 1usize), (20, 2), (30, 1)] {
        let hello = frame(Mac::BROADCAST, wanderer, 0x88b5, number);
        sockets[home].send(&hello).unwrap();
        assert!(receive(&mut sockets[0], SOON, marked(number)).is_some());
        sockets[0]
            .send(&frame(wanderer, world.pods[0].mac, 0x88b5, number + 1))
            .unwrap();
        assert!(receive(&mut sockets[home], SOON, marked(number + 1)).is_some());
        let elsewhere = 3 - home;
        let other = receive(&mut sockets[elsewhere], QUIET, marked(number + 1));
        assert!(
            other.is_none(),
            "unicast for {wanderer} was flooded or sent to its old place"
        );
    }
    // Not one of these frames was flooded by node 1; what else it floods is ARP and the like.
    let status = world.nodes[0].status().unwrap();
    assert!(counter(&status, "flooded") - before < 10);
    let entry = status
        .macs
        .iter()
        .find(|entry| entry.mac == wanderer)
        .unwrap();
    assert_eq!(entry.port, world.nodes[1].layout.name);
}

#[test]
fn macs_age_out() {
    let world = cluster(2, 1, &["--mac-age", "1s"]);
    let socket = packets(&world.pods[1].netns, "eth0");
    let passing = Mac([0x02, 0xbb, 0, 0, 0, 1]);
    socket
        .send(&frame(Mac::BROADCAST, passing, 0x88b5, 1))
        .unwrap();
    let knows = || {
        world.nodes[0]
            .status()
            .unwrap()
            .macs
            .iter()
            .any(|entry| entry.mac == passing)
    };
    eventually("the MAC is learned", knows);
    eventually("the MAC is forgotten", || !knows());
}

/// Datagrams that are not weft's are dropped with their reasons, and nothing else happens.
#[test]
fn foreign_datagrams_are_counted_and_dropped() {
    let world = cluster(2, 1, &[]);
    let stranger = crate::cluster::Stranger::join(&world, 200);
    let node = &world.nodes[0];
    let good = [
        &wire::vxlan::header(wire::Vni::DEFAULT)[..],
        &frame(Mac::BROADCAST, Mac([2; 6]), 0x88b5, 1),
    ]
    .concat();
    let send = |netns: &hostnet::netns::NetNs, bytes: &[u8]| {
        let to = (node.layout.address, 6784);
        let sent = netns.run(|| std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(bytes, to));
        sent.unwrap().unwrap();
    };
    send(&stranger.netns, &good);
    let peer = &world.nodes[1].netns;
    send(peer, &good[..3]);
    send(peer, &[&[0; 8][..], &good[8..]].concat());
    send(peer, &[&[8, 0, 0, 0, 0, 0, 99, 0][..], &good[8..]].concat());
    send(peer, &good[..20]);
    for reason in [
        "unknown_source",
        "vxlan_truncated",
        "vxlan_no_vni",
        "vxlan_foreign_vni",
        "peer_runt",
    ] {
        eventually(reason, || {
            counter(&node.status().unwrap(), &format!("drop_{reason}")) >= 1
        });
    }
    crate::cluster::assert_all_reach(&world);
}
