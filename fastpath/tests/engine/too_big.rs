//! Packets longer than their link: fragments, or an answer to the sender.

use fastpath::{DropReason, VnetHdr};
use pnet_packet::Packet as _;
use pnet_packet::icmp::{IcmpPacket, IcmpTypes};
use pnet_packet::icmpv6::{Icmpv6Packet, Icmpv6Types};
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::ipv6::Ipv6Packet;
use proptest::prelude::*;
use wire::Mac;

use crate::frames::{
    Node, OWN, POD_A, POD_B, Tcp, complete, endpoint, forwarding, read, udp_partial,
};

/// A node that knows [`POD_B`] behind a link of this inner MTU.
fn node(mtu: u16) -> Node {
    let mut node = Node::new(forwarding(mtu, &[1]));
    let hello = [
        &wire::vxlan::header(wire::Vni::DEFAULT)[..],
        &POD_A.0,
        &POD_B.0,
        &[8, 6],
    ]
    .concat();
    node.receive(endpoint(1), &[vec![hello]]);
    node
}

#[test]
fn a_sender_over_ipv4_is_told_the_mtu() {
    for (len, mss) in [(1_400, 1_400), (20_000, 1_398)] {
        let mut node = node(1_200);
        let tcp = Tcp::new(len);
        assert_eq!(node.read_tap([read(tcp.header(mss), &tcp.partial())]), []);
        assert_eq!(node.counters.dropped(DropReason::TooBig), 1);
        let (header, answer) = VnetHdr::parse(&node.answers.0[0]).unwrap();
        assert_eq!(header, VnetHdr::PLAIN);
        assert_eq!((&answer[..6], &answer[12..14]), (&POD_A.0[..], &[8, 0][..]));
        // The kernel would take a frame from its own address for a loop.
        assert!(answer[6..12] != OWN.mac.0 && answer[6..12] != POD_B.0);
        let ip = Ipv4Packet::new(&answer[14..]).unwrap();
        assert_eq!(ip.get_checksum(), pnet_packet::ipv4::checksum(&ip));
        assert_eq!(Some(ip.get_source()), OWN.v4);
        assert_eq!(usize::from(ip.get_total_length()), answer.len() - 14);
        let icmp = IcmpPacket::new(ip.payload()).unwrap();
        assert_eq!(icmp.get_icmp_type(), IcmpTypes::DestinationUnreachable);
        assert_eq!(icmp.get_icmp_code().0, 4);
        assert_eq!(icmp.get_checksum(), pnet_packet::icmp::checksum(&icmp));
        assert_eq!(icmp.payload()[2..4], 1_200u16.to_be_bytes());
        assert_eq!(icmp.payload()[4 + 12..4 + 20], tcp.frame()[26..34]);
    }
}

#[test]
fn a_sender_over_ipv6_is_told_the_mtu() {
    let mut node = node(1_300);
    let tcp = Tcp {
        v6: true,
        ..Tcp::new(1_400)
    };
    assert_eq!(node.read_tap([read(tcp.header(1_400), &tcp.partial())]), []);
    let (_, answer) = VnetHdr::parse(&node.answers.0[0]).unwrap();
    let ip = Ipv6Packet::new(&answer[14..]).unwrap();
    assert_eq!(
        ip.get_source(),
        "fe80::ff:fe00:1".parse::<std::net::Ipv6Addr>().unwrap()
    );
    let icmp = Icmpv6Packet::new(ip.payload()).unwrap();
    assert_eq!(icmp.get_icmpv6_type(), Icmpv6Types::PacketTooBig);
    let sum = pnet_packet::icmpv6::checksum(&icmp, &ip.get_source(), &ip.get_destination());
    assert_eq!(icmp.get_checksum(), sum);
    assert_eq!(icmp.payload()[..4], 1_300u32.to_be_bytes());
    assert!(answer.len() - 14 <= 1_280);
}

#[test]
fn reports_are_few_and_never_about_errors_or_groups() {
    let mut node = node(1_200);
    let tcp = Tcp::new(1_400);
    for _ in 0..300 {
        node.read_tap([read(tcp.header(1_400), &tcp.partial())]);
    }
    assert_eq!(node.answers.0.len(), 100);
    node.now += 1;
    node.answers.0.clear();

    let group = Tcp {
        dst: Mac::BROADCAST,
        ..tcp.clone()
    };
    node.read_tap([read(group.header(1_400), &group.partial())]);
    let mut error = tcp.frame();
    (error[23], error[34]) = (1, 3);
    node.read_tap([read(VnetHdr::PLAIN, &error)]);
    assert!(node.answers.0.is_empty());
    assert_eq!(node.counters.dropped(DropReason::TooBig), 302);
}

/// The kernel takes nothing that claims to come from its own address.
#[test]
fn the_node_itself_is_told_as_if_by_the_destination() {
    let mut node = node(1_200);
    let mut frame = Tcp {
        src: OWN.mac,
        ..Tcp::new(1_400)
    }
    .frame();
    frame[26..30].copy_from_slice(&OWN.v4.unwrap().octets());
    node.read_tap([read(VnetHdr::PLAIN, &frame)]);
    let (_, answer) = VnetHdr::parse(&node.answers.0[0]).unwrap();
    let ip = Ipv4Packet::new(&answer[14..]).unwrap();
    assert_eq!(ip.get_source().octets(), frame[30..34]);
    assert_eq!(ip.get_destination(), OWN.v4.unwrap());
}

/// The tag takes four bytes of what is left, and comes back with the answer.
#[test]
fn a_sender_in_a_vlan_is_told_too() {
    let mut node = node(1_450);
    let frame = Tcp::new(1_398).frame();
    let tagged = [&frame[..12], &[0x81, 0, 0, 42], &frame[12..]].concat();
    node.read_tap([read(VnetHdr::PLAIN, &tagged)]);
    let (_, answer) = VnetHdr::parse(&node.answers.0[0]).unwrap();
    assert_eq!(answer[12..18], [0x81, 0, 0, 42, 8, 0]);
    assert_eq!(answer[18 + 20 + 6..18 + 20 + 8], 1_446u16.to_be_bytes());
}

/// TCP without path MTU discovery: each segment is fragmented.
#[test]
fn a_super_frame_that_may_be_fragmented_is() {
    let mut node = node(1_200);
    let tcp = Tcp::new(5 * 1_398);
    let mut frame = tcp.partial();
    frame[20] = 0;
    let sent = node.read_tap([read(tcp.header(1_398), &frame)]);
    let datagrams: Vec<_> = sent.iter().flat_map(|train| &train.datagrams).collect();
    assert_eq!(datagrams.len(), 10);
    assert!(
        datagrams
            .iter()
            .all(|datagram| datagram.len() <= 8 + 14 + 1_200)
    );
    assert!(node.answers.0.is_empty());
}

proptest! {
    /// A packet that allows it crosses in pieces that fit and make up the whole.
    #[test]
    fn fragments_make_up_the_packet(len in 1_200usize..8_000, mtu in 576u16..1_190) {
        let payload: Vec<u8> = (0..len).map(|i| (i % 249) as u8).collect();
        let mut frame = complete(udp_partial(false, 7, (5_000, 53), &payload), false, 6);
        frame[20] = 0;
        let mut node = node(mtu);
        let sent = node.read_tap([read(VnetHdr::PLAIN, &frame)]);
        let mut whole = vec![0; frame.len() - 34];
        let mut last = 0;
        for datagram in sent.iter().flat_map(|train| &train.datagrams) {
            let ip = Ipv4Packet::new(&datagram[8 + 14..]).unwrap();
            prop_assert!(datagram.len() - 8 - 14 <= usize::from(mtu));
            prop_assert_eq!(usize::from(ip.get_total_length()), datagram.len() - 8 - 14);
            prop_assert_eq!(ip.get_checksum(), pnet_packet::ipv4::checksum(&ip));
            prop_assert_eq!(ip.get_identification(), 7);
            let offset = usize::from(ip.get_fragment_offset()) * 8;
            whole[offset..offset + ip.payload().len()].copy_from_slice(ip.payload());
            last += usize::from(ip.get_flags() & 1 == 0);
        }
        prop_assert_eq!(&whole[..], &frame[34..]);
        prop_assert_eq!(last, 1);
    }
}
