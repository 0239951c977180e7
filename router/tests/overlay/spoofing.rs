//! Pods that pretend to be somebody else, and pods that pretend to be routers.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hostnet::packet::PacketSocket;
use router::lab::world::{Pod, World};
use wire::Mac;

use crate::cluster::{assert_all_reach, cluster, counter, eventually, packets, receive, v4};

const MARK: &[u8] = b"are you sure that it was me?";
const NOBODY: Mac = Mac([2, 0, 0, 0, 0, 0x99]);

#[test]
fn what_a_pod_is_not_it_cannot_send_from() {
    let mut world = cluster(1, 2, &["--spoof-guard", "on"]);
    assert_all_reach(&world);
    try_everything(&world);
    // I7: the next router knows its pods, and holds them to the same.
    world
        .end_router(0, nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    world.start_router_again(0, &[]).unwrap();
    eventually("the router is back", || {
        world.nodes[0].status().is_ok_and(|s| s.ipam.ready)
    });
    assert_all_reach(&world);
    try_everything(&world);
}

fn try_everything(world: &World) {
    let [bad, good] = &world.pods[..] else {
        panic!("two pods")
    };
    let mut sender = packets(&bad.netns, "eth0");
    let mut receiver = packets(&good.netns, "eth0");
    let own = udp4(bad.mac, good.mac, v4(bad), v4(good));
    let target: Ipv6Addr = "fd00::1".parse().unwrap();
    let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
    let cases = [
        ("pod_spoofed_mac", udp4(NOBODY, good.mac, v4(bad), v4(good))),
        ("pod_spoofed_mac", other(NOBODY, good.mac)),
        ("pod_spoofed_mac", arp(bad.mac, NOBODY, v4(bad), good)),
        ("pod_spoofed_address", arp(bad.mac, bad.mac, v4(good), good)),
        (
            "pod_spoofed_address",
            udp4(bad.mac, good.mac, Ipv4Addr::new(10, 40, 1, 2), v4(good)),
        ),
        (
            "pod_spoofed_address",
            icmp6(bad.mac, good.mac, target, 128, None),
        ),
        (
            "pod_spoofed_address",
            icmp6(bad.mac, good.mac, link_local, 136, Some(target)),
        ),
        (
            "pod_router_advertisement",
            icmp6(bad.mac, good.mac, link_local, 134, None),
        ),
    ];
    for (number, (reason, frame)) in cases.iter().enumerate() {
        let before = dropped(world, reason);
        sender.send(frame).unwrap();
        let arrived = arrives(&mut receiver, &mut sender, frame, &own);
        assert!(!arrived, "case {number}: {reason}");
        assert_eq!(
            dropped(world, reason),
            before + 1,
            "case {number}: {reason}"
        );
    }
    // What is no lie passes: its own address, probes before it has one, and what is not IP.
    for frame in [
        own.clone(),
        other(bad.mac, good.mac),
        arp(bad.mac, bad.mac, Ipv4Addr::UNSPECIFIED, good),
        icmp6(bad.mac, good.mac, link_local, 135, Some(target)),
        icmp6(
            bad.mac,
            good.mac,
            Ipv6Addr::UNSPECIFIED,
            135,
            Some(link_local),
        ),
    ] {
        sender.send(&frame).unwrap();
        let found = receive(&mut receiver, Duration::from_secs(5), |f| f == frame);
        assert!(found.is_some(), "{frame:02x?} did not arrive");
    }
}

/// Without the guard a pod may carry machines of its own, but give nobody a route.
#[test]
fn without_the_guard_only_router_advertisements_are_dropped() {
    let world = cluster(1, 2, &[]);
    let [bad, good] = &world.pods[..] else {
        panic!("two pods")
    };
    let mut sender = packets(&bad.netns, "eth0");
    let mut receiver = packets(&good.netns, "eth0");
    let passes = udp4(NOBODY, good.mac, Ipv4Addr::new(10, 40, 1, 2), v4(good));
    let advert = icmp6(bad.mac, good.mac, "fe80::1".parse().unwrap(), 134, None);
    sender.send(&advert).unwrap();
    assert!(!arrives(&mut receiver, &mut sender, &advert, &passes));
    assert_eq!(dropped(&world, "pod_router_advertisement"), 1);
}

/// Whether a frame that was sent comes before a good one that is sent after it.
fn arrives(
    receiver: &mut PacketSocket,
    sender: &mut PacketSocket,
    frame: &[u8],
    good: &[u8],
) -> bool {
    sender.send(good).unwrap();
    let first = receive(receiver, Duration::from_secs(5), |f| {
        f == frame || f == good
    });
    first.expect("the good frame arrives") == frame
}

fn dropped(world: &World, reason: &str) -> u64 {
    let status = world.nodes[0].status().unwrap();
    counter(&status, &format!("drop_{reason}"))
}

fn ethernet(source: Mac, destination: Mac, ethertype: u16) -> Vec<u8> {
    [&destination.0[..], &source.0, &ethertype.to_be_bytes()].concat()
}

/// A frame of the kind that is left for experiments (IEEE 802).
fn other(source: Mac, destination: Mac) -> Vec<u8> {
    [ethernet(source, destination, 0x88b5), MARK.to_vec()].concat()
}

fn udp4(source: Mac, destination: Mac, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let length = u16::try_from(8 + MARK.len()).unwrap();
    let mut header = [
        &[0x45, 0][..],
        &(20 + length).to_be_bytes(),
        &[0, 0, 0x40, 0, 64, 17, 0, 0],
        &from.octets(),
        &to.octets(),
    ]
    .concat();
    let checksum = wire::checksum::checksum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    // No UDP checksum.
    let udp = [&[0, 9, 0, 9][..], &length.to_be_bytes(), &[0, 0], MARK].concat();
    [ethernet(source, destination, 0x0800), header, udp].concat()
}

fn arp(source: Mac, sender: Mac, address: Ipv4Addr, to: &Pod) -> Vec<u8> {
    [
        &ethernet(source, to.mac, 0x0806)[..],
        &[0, 1, 8, 0, 6, 4, 0, 1],
        &sender.0,
        &address.octets(),
        &[0; 6],
        &v4(to).octets(),
    ]
    .concat()
}

/// An ICMPv6 message to all nodes; a checksum that no kernel would take keeps it from having effects.
fn icmp6(
    source: Mac,
    destination: Mac,
    from: Ipv6Addr,
    kind: u8,
    target: Option<Ipv6Addr>,
) -> Vec<u8> {
    let target = target.unwrap_or(Ipv6Addr::UNSPECIFIED);
    let body = [&[kind, 0, 0xba, 0xad, 0, 0, 0, 0][..], &target.octets()].concat();
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    let length = u16::try_from(body.len()).unwrap();
    [
        &ethernet(source, destination, 0x86dd)[..],
        &[0x60, 0, 0, 0],
        &length.to_be_bytes(),
        &[58, 255],
        &from.octets(),
        &all.octets(),
        &body,
    ]
    .concat()
}
