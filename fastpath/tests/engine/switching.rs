//! Learning, flooding, verdicts: what becomes of a frame.

use crate::frames::{ME, Node, POD_A, POD_B, Tcp, endpoint, forwarding, read};
use fastpath::{DropReason, Forwarding, MacEntry, Port, VnetHdr};
use proptest::prelude::*;
use wire::{Mac, Vni, vxlan};

fn ethernet(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&wire::ethernet::header(dst, src, ethertype)[..], payload].concat()
}

fn encapsulated(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&vxlan::header(vni.try_into().unwrap())[..], frame].concat()
}

/// I3: one copy to each peer, none back.
#[test]
fn broadcast_multicast_and_unknown_unicast_reach_every_peer_once() {
    let mut node = Node::new(forwarding(1450, &[1, 2, 3]));
    for dst in [Mac::BROADCAST, Mac([0x33, 0x33, 0, 0, 0, 1]), POD_B] {
        // A frame of any ethertype, among them VLAN tags and one that nobody knows.
        for ethertype in [0x0806, 0x8100, 0x88b5] {
            let frame = ethernet(dst, POD_A, ethertype, &[7; 46]);
            let sent = node.read_tap([read(VnetHdr::PLAIN, &frame)]);
            let mut to: Vec<_> = sent.iter().map(|sent| sent.endpoint).collect();
            to.sort();
            assert_eq!(to, [endpoint(1), endpoint(2), endpoint(3)]);
            assert!(
                sent.iter()
                    .all(|sent| sent.datagrams == [encapsulated(1, &frame)])
            );
        }
    }
}

#[test]
fn known_unicast_goes_to_its_peer_alone_and_follows_a_move_at_once() {
    let mut node = Node::new(forwarding(1450, &[1, 2]));
    let reply = encapsulated(1, &ethernet(POD_A, POD_B, 0x0806, &[0; 46]));
    let request = read(VnetHdr::PLAIN, &ethernet(POD_B, POD_A, 0x0806, &[0; 46]));
    for peer in [1, 2, 1] {
        assert_eq!(
            node.receive(endpoint(peer), &[vec![reply.clone()]]).len(),
            1
        );
        let sent = node.read_tap([request.clone()]);
        assert_eq!(
            sent.iter().map(|s| s.endpoint).collect::<Vec<_>>(),
            [endpoint(peer)]
        );
    }
    // The pod comes home: what it sends is learned, and frames for it stay here.
    node.read_tap([read(
        VnetHdr::PLAIN,
        &ethernet(Mac::BROADCAST, POD_B, 0x0806, &[0; 46]),
    )]);
    assert_eq!(node.read_tap([request]), []);
    assert_eq!(node.counters.dropped(DropReason::SamePort), 1);
    let entry = |mac| MacEntry {
        mac,
        port: Port::Local,
        age: 0,
    };
    assert_eq!(node.macs.entries(1), [entry(POD_A), entry(POD_B)]);
}

/// I3: what a peer sent goes to the TAP and to no other peer, whatever its destination.
#[test]
fn a_frame_from_a_peer_is_never_sent_to_a_peer() {
    let mut node = Node::new(forwarding(1450, &[1, 2]));
    for dst in [Mac::BROADCAST, POD_A, POD_B] {
        let frame = ethernet(dst, Mac([2, 0, 0, 0, 0, 9]), 0x0806, &[0; 46]);
        let written = node.receive(endpoint(1), &[vec![encapsulated(1, &frame)]]);
        assert_eq!(written, [read(VnetHdr::PLAIN, &frame)]);
    }
}

#[test]
fn every_refused_frame_has_its_reason() {
    let frame = ethernet(POD_B, POD_A, 0x0800, &[0; 46]);
    let read_tap = |bytes: Vec<u8>| {
        let mut node = Node::new(forwarding(1450, &[1]));
        assert_eq!(node.read_tap([bytes]), []);
        node.counters
    };
    let plain = |frame: &[u8]| read(VnetHdr::PLAIN, frame);
    let long = ethernet(POD_B, POD_A, 0x0800, &[0; 1451]);
    let group = ethernet(POD_B, Mac::BROADCAST, 0x0800, &[0; 46]);
    let stp = ethernet(Mac([1, 0x80, 0xc2, 0, 0, 0]), POD_A, 0x0026, &[0; 46]);
    let bad = VnetHdr {
        needs_csum: true,
        csum_start: 9_000,
        ..VnetHdr::PLAIN
    };
    let cut = Tcp::new(3_000).header(100);
    for (bytes, reason) in [
        (vec![0; 5], DropReason::TapBadOffload),
        (plain(&frame[..13]), DropReason::TapRunt),
        (plain(&group), DropReason::TapBadSource),
        (plain(&stp), DropReason::LinkLocal),
        (plain(&long), DropReason::TooBig),
        (read(bad, &frame), DropReason::TapBadOffload),
        (read(cut, &frame), DropReason::TapBadOffload),
    ] {
        assert_eq!(read_tap(bytes).dropped(reason), 1, "{reason:?}");
    }
    let mut alone = Node::new(forwarding(1450, &[]));
    assert_eq!(alone.read_tap([plain(&frame)]), []);
    assert_eq!(alone.counters.dropped(DropReason::NoPeer), 1);

    let from_peer = |source, datagram: Vec<u8>| {
        let mut node = Node::new(forwarding(1450, &[1]));
        assert_eq!(node.receive(source, &[vec![datagram]]), [] as [Vec<u8>; 0]);
        assert!(node.macs.is_empty());
        node.counters
    };
    for (source, datagram, reason) in [
        (endpoint(1), vec![8, 0, 0], DropReason::VxlanTruncated),
        (endpoint(1), vec![0; 60], DropReason::VxlanNoVni),
        (
            endpoint(1),
            encapsulated(2, &frame),
            DropReason::VxlanForeignVni,
        ),
        (
            endpoint(9),
            encapsulated(1, &frame),
            DropReason::UnknownSource,
        ),
        (
            endpoint(1),
            encapsulated(1, &frame[..13]),
            DropReason::PeerRunt,
        ),
        (
            endpoint(1),
            encapsulated(1, &group),
            DropReason::PeerBadSource,
        ),
        (endpoint(1), encapsulated(1, &stp), DropReason::LinkLocal),
    ] {
        assert_eq!(from_peer(source, datagram).dropped(reason), 1, "{reason:?}");
    }
}

#[test]
fn a_longer_frame_than_the_link_takes_still_reaches_the_wider_ones() {
    let narrow = forwarding(1400, &[1]);
    let mut links = vec![(0, narrow.link(0).unwrap().clone())];
    links.push((1, forwarding(1450, &[2]).link(0).unwrap().clone()));
    let mut node = Node::new(Forwarding::new(Vni::DEFAULT, ME, None, links));
    let frame = ethernet(Mac::BROADCAST, POD_A, 0x0800, &[0; 1450]);
    let sent = node.read_tap([read(VnetHdr::PLAIN, &frame)]);
    assert_eq!(
        sent.iter().map(|s| s.endpoint).collect::<Vec<_>>(),
        [endpoint(2)]
    );
    assert_eq!(node.counters.dropped(DropReason::TooBig), 1);
}

#[test]
fn a_partial_checksum_is_completed_on_the_way_out() {
    let mut node = Node::new(forwarding(1450, &[1]));
    let tcp = Tcp::new(100);
    let sent = node.read_tap([read(tcp.header(1400), &tcp.partial())]);
    assert_eq!(sent[0].datagrams, [encapsulated(1, &tcp.frame())]);
}

/// A flow keeps to one socket, whose port is the flow's; different flows spread.
#[test]
fn the_flow_chooses_the_socket() {
    let mut node = Node::new(forwarding(1450, &[1]));
    let mut used = std::collections::BTreeSet::new();
    for port in 0..64 {
        let tcp = Tcp {
            port: 30_000 + port,
            ..Tcp::new(100)
        };
        let sockets: Vec<_> = (0..3)
            .map(|i| {
                let segment = Tcp {
                    sequence: i * 100,
                    ..tcp.clone()
                };
                node.read_tap([read(segment.header(1400), &segment.partial())])[0].socket
            })
            .collect();
        assert!(sockets.iter().all(|socket| *socket == sockets[0]));
        used.insert(sockets[0]);
    }
    assert_eq!(used.len(), 4);
}

proptest! {
    /// I6: nothing a pod or a peer sends can crash the engine.
    #[test]
    fn any_bytes_get_a_verdict(
        reads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8),
        headers in any::<[u8; 10]>(),
        kind in 0u8..6,
        size in 0u16..2_000,
    ) {
        let mut node = Node::new(forwarding(1450, &[1, 2]));
        node.read_tap(reads.iter().cloned());
        // With a header that the engine takes seriously.
        let ip = [0x08, 0x00, 0x45, 0, 0, 40];
        node.read_tap(reads.iter().map(|bytes| {
            let mut read = headers.to_vec();
            (read[0], read[1]) = (1, kind);
            read[4..6].copy_from_slice(&size.to_ne_bytes());
            read[6..8].copy_from_slice(&34u16.to_ne_bytes());
            read[8..10].copy_from_slice(&[if kind == 5 { 6 } else { 16 }, 0]);
            read.extend(POD_B.0);
            read.extend(POD_A.0);
            read.extend(ip);
            read.extend(bytes);
            read
        }));
        let runs: Vec<_> = reads.iter().filter(|r| !r.is_empty()).map(|r| vec![r.clone()]).collect();
        node.receive(endpoint(1), &runs);
        let framed: Vec<_> = reads.iter().map(|r| {
            let mut datagram = encapsulated(1, &ethernet(POD_A, POD_B, 0x0800, &[0x45]));
            datagram.extend(r);
            vec![datagram]
        }).collect();
        node.receive(endpoint(1), &framed);
    }
}
