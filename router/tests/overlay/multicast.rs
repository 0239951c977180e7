//! Multicast goes to the nodes whose pods listen, once they have said so.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use hostnet::netlink::Netlink;
use hostnet::packet::PacketSocket;
use router::lab::layout::IFNAME;
use router::lab::world::Pod;
use wire::Mac;
use wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, header};
use wire::membership::group_mac;

use crate::cluster::{cluster, counter, eventually, packets, receive, v4};
use crate::encrypted::Password;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x1234, 0x5678);
/// Nobody ever joins these.
const NOBODYS: Ipv4Addr = Ipv4Addr::new(239, 9, 9, 9);
const NOBODYS6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x9999, 0x9999);

const SOON: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(300);

/// A packet to a group, of a protocol for experiments (RFC 3692), with a mark.
fn to_v4(group: Ipv4Addr, from: &Pod, mark: u8) -> Vec<u8> {
    let mut ip = [
        0x45, 0, 0, 46, 0, 0, 0, 0, 8, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    ip[12..16].copy_from_slice(&v4(from).octets());
    ip[16..20].copy_from_slice(&group.octets());
    let sum = wire::checksum::checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mac = group_mac(group.into()).unwrap();
    [&header(mac, from.mac, ETHERTYPE_IPV4)[..], &ip, &[mark; 26]].concat()
}

fn to_v6(group: Ipv6Addr, from: &Pod, mark: u8) -> Vec<u8> {
    let mut ip = [0; 40];
    (ip[0], ip[5], ip[6], ip[7]) = (0x60, 26, 253, 8);
    ip[8..24].copy_from_slice(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7).octets());
    ip[24..40].copy_from_slice(&group.octets());
    let mac = group_mac(group.into()).unwrap();
    [&header(mac, from.mac, ETHERTYPE_IPV6)[..], &ip, &[mark; 26]].concat()
}

/// A pod's listener of both groups.
fn join(pod: &Pod) -> [UdpSocket; 2] {
    let mut netlink = Netlink::open_in(&pod.netns).unwrap();
    let eth0 = netlink.link(IFNAME).unwrap().unwrap().index;
    let address = v4(pod);
    pod.netns
        .run(|| {
            let four = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5000)).unwrap();
            four.join_multicast_v4(&GROUP, &address).unwrap();
            let six = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 5001)).unwrap();
            six.join_multicast_v6(&GROUP6, eth0).unwrap();
            [four, six]
        })
        .unwrap()
}

/// Sends from the first pod to the group of one family, and sees whether it arrives at the others.
struct Bench<'a> {
    from: &'a Pod,
    pod: PacketSocket,
    others: [PacketSocket; 2],
    mark: u8,
}

impl<'a> Bench<'a> {
    fn new(pods: &'a [Pod]) -> Self {
        let socket = |pod: &Pod| packets(&pod.netns, IFNAME);
        Self {
            from: &pods[0],
            pod: socket(&pods[0]),
            others: [socket(&pods[1]), socket(&pods[2])],
            mark: 0,
        }
    }

    fn arrives(&mut self, frame: fn(&Pod, u8) -> Vec<u8>) -> [bool; 2] {
        self.mark = self.mark.wrapping_add(1);
        let frame = frame(self.from, self.mark);
        self.pod.send(&frame).unwrap();
        let [second, third] = &mut self.others;
        // Whoever is sent it gets it at the same time.
        let same = |seen: &[u8]| seen == frame;
        let at_second = receive(second, SOON, same).is_some();
        let at_third = receive(third, if at_second { QUIET } else { SOON }, same).is_some();
        [at_second, at_third]
    }
}

#[test]
fn a_group_reaches_those_who_joined_it_and_no_others() {
    joined_and_no_others(&[]);
}

/// Each copy is sealed for its node, and nobody else gets one.
#[test]
fn a_group_reaches_those_who_joined_it_over_sealed_links() {
    let password = Password::new("a long password for tests\n");
    joined_and_no_others(&password.args());
}

fn joined_and_no_others(args: &[&str]) {
    let world = cluster(3, 1, args);
    let mut bench = Bench::new(&world.pods);
    let group: [fn(&Pod, u8) -> Vec<u8>; 2] = [
        |pod, mark| to_v4(GROUP, pod, mark),
        |pod, mark| to_v6(GROUP6, pod, mark),
    ];
    let nobodys: [fn(&Pod, u8) -> Vec<u8>; 2] = [
        |pod, mark| to_v4(NOBODYS, pod, mark),
        |pod, mark| to_v6(NOBODYS6, pod, mark),
    ];
    for frame in group {
        assert_eq!(bench.arrives(frame), [true; 2], "nobody has joined yet");
    }
    let _second = join(&world.pods[1]);
    for frame in group {
        eventually("it reaches the second node alone", || {
            let [second, third] = bench.arrives(frame);
            assert!(second, "the one who joined");
            !third
        });
    }
    // Every copy that was kept from somebody was counted.
    assert!(counter(&world.nodes[0].status().unwrap(), "multicast_selected") > 0);

    let third = join(&world.pods[2]);
    for frame in group {
        eventually("it reaches both", || bench.arrives(frame) == [true; 2]);
    }
    drop(third);
    for frame in group {
        eventually("it reaches the second node alone again", || {
            let [second, third] = bench.arrives(frame);
            assert!(second, "the one who stayed");
            !third
        });
    }
    for frame in nobodys {
        assert_eq!(bench.arrives(frame), [true; 2], "a group without listeners");
    }
}

/// A querier among the pods makes its node one that gets all groups, and all reports.
#[test]
fn a_multicast_router_gets_all_groups() {
    let world = cluster(3, 1, &[]);
    let mut bench = Bench::new(&world.pods);
    let _second = join(&world.pods[1]);
    let frame: fn(&Pod, u8) -> Vec<u8> = |pod, mark| to_v4(GROUP, pod, mark);
    eventually("it reaches the second node alone", || {
        bench.arrives(frame) == [true, false]
    });
    let router = packets(&world.pods[2].netns, IFNAME);
    let mac: Mac = world.pods[2].mac;
    router
        .send(&wire::membership::igmp_general_query(mac, 10, 125))
        .unwrap();
    eventually("it reaches the router, too", || {
        bench.arrives(frame) == [true, true]
    });
}
