//! The probes between two namespaces that a veth joins.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hostnet::link::VethRequest;
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use ipnet::IpNet;

use super::ping::{PAYLOAD, Pinger};
use super::throughput;
use crate::lab::interrupt::Interrupt;

const LEFT: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 3);
const PATIENCE: Duration = Duration::from_secs(2);
const IMPATIENCE: Duration = Duration::from_millis(100);

/// Two namespaces and a cable; both are gone when it is dropped.
struct Pair {
    names: [String; 2],
    left: NetNs,
    right: NetNs,
}

impl Pair {
    fn new(test: &str) -> Self {
        let names = ["left", "right"]
            .map(|side| format!("weft-probe-{test}-{side}-{}", std::process::id()));
        let left = NetNs::create(&names[0]).expect("needs root");
        let right = NetNs::create(&names[1]).unwrap();
        let mut netlink = Netlink::open_in(&left).unwrap();
        let veth = VethRequest {
            host: "eth0",
            mtu: 1500,
            host_mac: None,
            master: None,
            hairpin: false,
            host_up: true,
            peer_name: "eth0",
            peer_ns: Some(&right),
            peer_mac: None,
            alias: None,
        };
        netlink.add_veth(&veth).unwrap();
        for (ns, address) in [(&left, LEFT), (&right, RIGHT)] {
            let mut netlink = Netlink::open_in(ns).unwrap();
            let index = netlink.link("eth0").unwrap().unwrap().index;
            netlink
                .add_address(index, IpNet::new(IpAddr::V4(address), 24).unwrap())
                .unwrap();
            netlink.set_up(index).unwrap();
        }
        Self { names, left, right }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in &self.names {
            NetNs::remove(name).unwrap();
        }
    }
}

#[test]
fn ping_tells_who_answers_from_who_does_not() {
    let pair = Pair::new("ping");
    let mut pinger = Pinger::open(&pair.left, 7).unwrap();
    assert_eq!(pinger.reach(&[RIGHT], 3, PATIENCE).unwrap(), [true]);
    assert_eq!(
        pinger.reach(&[RIGHT, NOBODY, LEFT], 1, IMPATIENCE).unwrap(),
        [true, false, true]
    );
    let rtt = pinger.ping(RIGHT, PAYLOAD, PATIENCE).unwrap().unwrap();
    assert!(rtt < PATIENCE);
    assert!(
        pinger.ping(RIGHT, 1472, PATIENCE).unwrap().is_some(),
        "a full packet"
    );
    // No answer within the time, or the kernel knew that nobody has the address.
    assert!(matches!(
        pinger.ping(NOBODY, PAYLOAD, IMPATIENCE),
        Ok(None) | Err(_)
    ));

    // Two pingers in one namespace do not take each other's answers.
    let mut other = Pinger::open(&pair.left, 8).unwrap();
    other.ping(RIGHT, PAYLOAD, PATIENCE).unwrap().unwrap();
    pinger.ping(RIGHT, PAYLOAD, PATIENCE).unwrap().unwrap();
}

#[test]
fn tcp_counts_what_arrives_and_says_who_does_not_listen() {
    let pair = Pair::new("tcp");
    let interrupt = Interrupt::default();
    let time = Duration::from_millis(200);
    let transfer =
        throughput::tcp(&pair.left, &pair.right, RIGHT.into(), time, &interrupt).unwrap();
    assert!(
        transfer.bytes > 1_000_000 && transfer.elapsed >= time,
        "{transfer:?}"
    );
    assert!(transfer.gbit_per_s() > 0.01, "{transfer:?}");
    let error =
        throughput::tcp(&pair.left, &pair.right, NOBODY.into(), time, &interrupt).unwrap_err();
    assert!(format!("{error:#}").contains("cannot listen"), "{error:#}");
}
