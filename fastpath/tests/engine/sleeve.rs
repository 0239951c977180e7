//! Sleeve: the other encapsulation, relays, and probes in both.

use crate::frames::{
    ME, Node, POD_A, POD_B, Sent, Tcp, endpoint, forwarding, peer, read, sleeve, snapshot,
    udp_partial,
};
use fastpath::{DropReason, Encapsulation, Forwarding, Link, Port, VnetHdr};
use proptest::prelude::*;
use wire::probe::{Probe, ProbeKind};
use wire::sleeve::{HOP_LIMIT, Header, Kind};
use wire::{Mac, PeerId, probe, vxlan};

/// A link in sleeve to the peer `to`, directly or by the relay `via`.
fn link(to: u8, via: u8, mtu: u16) -> Link {
    Link {
        encapsulation: Encapsulation::Sleeve,
        ..Link::vxlan(Some(peer(to)), sleeve(via), mtu)
    }
}

/// Three nodes, of which 1 and 3 reach each other by 2 alone.
fn line() -> [Node; 3] {
    let node = |me, links: [Link; 2]| Node::new(snapshot(peer(me), links));
    [
        node(1, [link(2, 2, 1438), link(3, 2, 1438)]),
        node(2, [link(1, 1, 1438), link(3, 3, 1438)]),
        node(3, [link(1, 2, 1438), link(2, 2, 1438)]),
    ]
}

fn header(source: PeerId, destination: PeerId, hop_limit: u8) -> Header {
    Header {
        hop_limit,
        ..Header::plain(source, destination)
    }
}

fn datagram(header: Header, frame: &[u8]) -> Vec<u8> {
    [&header.bytes()[..], frame].concat()
}

fn frame() -> Vec<u8> {
    [
        &wire::ethernet::header(POD_B, POD_A, 0x0806)[..],
        &[0; 46][..],
    ]
    .concat()
}

fn request(source: u8, destination: PeerId, size: u16) -> Vec<u8> {
    let probe = Probe {
        kind: ProbeKind::Request,
        size,
        source: peer(source),
        destination,
        run: 7,
        nonce: 9,
    };
    probe.frame()
}

/// Lets a node receive trains that another sent.
fn carry(node: &mut Node, from: u8, trains: &[Sent]) -> crate::frames::Came {
    let runs: Vec<_> = trains.iter().map(|train| train.datagrams.clone()).collect();
    node.receive_in(Encapsulation::Sleeve, sleeve(from), &runs)
}

#[test]
fn a_super_frame_crosses_in_trains_and_is_joined_at_the_peer() {
    let mut a = Node::new(snapshot(peer(1), [link(2, 2, 1438)]));
    let mut b = Node::new(snapshot(peer(2), [link(1, 1, 1438)]));
    let tcp = Tcp::new(40 * 1_386);
    let sent = a.read_tap([read(tcp.header(1_386), &tcp.partial())]);
    let [train] = &sent[..] else {
        panic!("{} trains", sent.len());
    };
    assert_eq!(
        (train.endpoint, train.encapsulation, train.datagrams.len()),
        (sleeve(2), Encapsulation::Sleeve, 40)
    );
    let expected = Header::plain(peer(1), peer(2)).bytes();
    assert!(train.datagrams.iter().all(|d| d.starts_with(&expected)));
    // The longest datagram fills an IPv4 packet of 1500 bytes.
    assert_eq!(train.datagrams[0].len(), 1500 - 28);

    let came = carry(&mut b, 1, &sent);
    let [frame] = &came.tap.0[..] else {
        panic!("{} frames", came.tap.0.len());
    };
    assert!(frame.ends_with(&tcp.payload));
    assert_eq!(b.macs.lookup(POD_A), Some(Port::Link(0)));
    let totals = |node: &Node| node.forwarding.link(0).unwrap().counters.totals();
    let (sent, received) = (totals(&a), totals(&b));
    assert_eq!((sent.tx_frames, sent.tx_bytes), (40, 40 * 1452));
    assert_eq!((received.rx_frames, received.rx_bytes), (40, 40 * 1452));
}

#[test]
fn a_packet_too_big_for_sleeve_is_reported_and_one_that_may_be_is_fragmented() {
    let mut a = Node::new(snapshot(peer(1), [link(2, 2, 1438)]));
    a.macs.learn(POD_B, Port::Link(0), 1);
    let tcp = Tcp::new(1450 - 52);
    assert_eq!(a.read_tap([read(tcp.header(1398), &tcp.partial())]), []);
    assert_eq!(a.answers.0.len(), 1);
    let mtu = &a.answers.0[0][VnetHdr::LEN + 14 + 20 + 6..][..2];
    assert_eq!(mtu, 1438_u16.to_be_bytes());
    let mut udp = udp_partial(false, 7, (1, 2), &[7; 1422]);
    udp[20] = 0; // DF
    let sent = a.read_tap([read(VnetHdr::PLAIN, &udp)]);
    assert_eq!(sent.iter().map(|s| s.datagrams.len()).sum::<usize>(), 2);
}

/// One link may have another encapsulation than the next, and a broadcast uses each one's.
#[test]
fn a_broadcast_goes_to_each_peer_in_its_own_encapsulation() {
    let mut node = Node::new(snapshot(
        ME,
        [
            Link::vxlan(Some(peer(1)), endpoint(1), 1450),
            link(2, 2, 1438),
            link(3, 2, 1438),
            Link::vxlan(None, endpoint(4), 1450),
        ],
    ));
    let frame = [
        &wire::ethernet::header(Mac::BROADCAST, POD_A, 0x0806)[..],
        &[0; 46][..],
    ]
    .concat();
    let mut sent = node.read_tap([read(VnetHdr::PLAIN, &frame)]);
    sent.sort_by_key(|train| train.datagrams.clone());
    let sent: Vec<_> = sent
        .into_iter()
        .map(|train| (train.endpoint, train.datagrams))
        .collect();
    let plain = |n| vec![datagram(Header::plain(ME, peer(n)), &frame)];
    let vxlan = vec![[&vxlan::header(node.forwarding.vni())[..], &frame].concat()];
    assert_eq!(
        sent,
        [
            (sleeve(2), plain(2)),
            (sleeve(2), plain(3)),
            (endpoint(1), vxlan.clone()),
            (endpoint(4), vxlan),
        ]
    );
}

/// I3: over a relay too.
#[test]
fn i3_a_relayed_broadcast_arrives_once_at_each_and_teaches_who_sent_it() {
    let [mut a, mut b, mut c] = line();
    let frame = [
        &wire::ethernet::header(Mac::BROADCAST, POD_A, 0x0806)[..],
        &[0; 46][..],
    ]
    .concat();
    let sent = a.read_tap([read(VnetHdr::PLAIN, &frame)]);
    let at_b = carry(&mut b, 1, &sent);
    assert_eq!(at_b.tap.0, [read(VnetHdr::PLAIN, &frame)]);
    let [onward] = &at_b.relayed.0[..] else {
        panic!("{} relayed", at_b.relayed.0.len());
    };
    assert_eq!(onward.endpoint, sleeve(3));
    let at_c = carry(&mut c, 2, &at_b.relayed.0);
    assert_eq!(at_c.tap.0, [read(VnetHdr::PLAIN, &frame)]);
    assert_eq!(at_c.relayed.0, []);
    // Behind the origin's link, not the relay's: what C answers goes to A's slot.
    assert_eq!(c.macs.lookup(POD_A), Some(Port::Link(0)));
    assert_eq!(b.macs.lookup(POD_A), Some(Port::Link(0)));
}

#[test]
fn a_relayed_run_goes_out_as_trains_with_one_hop_less() {
    let [_, mut b, _] = line();
    let full = frame();
    let to = |n: u8| datagram(header(peer(1), peer(n), 9), &full);
    let short = datagram(header(peer(1), peer(3), 9), &full[..50]);
    let run = vec![to(3), to(3), to(2), to(3), to(9), to(9), to(3), short];
    let came = b.receive_in(Encapsulation::Sleeve, sleeve(1), &[run]);
    let shapes: Vec<_> = came
        .relayed
        .0
        .iter()
        .map(|train| (train.endpoint, train.datagrams.len()))
        .collect();
    assert_eq!(shapes, [(sleeve(3), 2), (sleeve(3), 1), (sleeve(3), 2)]);
    let lowered = datagram(header(peer(1), peer(3), 8), &full);
    assert_eq!(came.relayed.0[0].datagrams, [lowered.clone(), lowered]);
    assert_eq!(came.tap.0.len(), 1);
    assert_eq!(b.counters.dropped(DropReason::NoRoute), 2);
    let mut relayed = 0;
    b.counters.each(|name, _, value| {
        if name == "relayed_datagrams" {
            relayed = value;
        }
    });
    assert_eq!(relayed, 5);
}

/// A run may have more datagrams than a train.
#[test]
fn a_long_run_is_relayed_in_several_trains() {
    let [_, mut b, _] = line();
    let run = vec![datagram(header(peer(1), peer(3), 9), &frame()); 150];
    let came = b.receive_in(Encapsulation::Sleeve, sleeve(1), &[run]);
    let counts: Vec<_> = came.relayed.0.iter().map(|t| t.datagrams.len()).collect();
    assert_eq!(counts, [64, 64, 22]);
}

/// Where this node itself uses VXLAN, it relays by the sleeve that it knows to reach the peer.
#[test]
fn a_relay_uses_sleeve_whatever_its_own_link_uses() {
    let straight = Link::vxlan(Some(peer(3)), endpoint(3), 1450);
    let with = Link {
        sleeve: Some(sleeve(33)),
        ..straight.clone()
    };
    let transit = datagram(header(peer(1), peer(3), 9), &frame());
    for (to, expected) in [(with, Some(sleeve(33))), (straight, None)] {
        let mut node = Node::new(snapshot(ME, [link(1, 1, 1438), to]));
        let came = node.receive_in(Encapsulation::Sleeve, sleeve(1), &[vec![transit.clone()]]);
        let went = came.relayed.0.first().map(|train| train.endpoint);
        assert_eq!(went, expected);
        let no_route = u64::from(expected.is_none());
        assert_eq!(node.counters.dropped(DropReason::NoRoute), no_route);
    }
}

/// I3: two relays that take each other for the way to a third let nothing circulate.
#[test]
fn i3_disagreeing_relays_let_nothing_circulate() {
    // A sends by B, B by C, and C takes A for the way to 9: the hop limit ends it.
    let ring = |me: u8, next: u8| Node::new(snapshot(peer(me), [link(9, next, 1438)]));
    let mut nodes = [ring(1, 2), ring(2, 3), ring(3, 1)];
    for (node, before) in nodes.iter_mut().zip([3, 1, 2]) {
        let links = [
            node.forwarding.link(0).unwrap().clone(),
            link(before, before, 1438),
            // The origin is none of the three.
            link(8, before, 1438),
        ];
        node.forwarding = snapshot(node.forwarding.me(), links);
    }
    let mut run = vec![datagram(Header::plain(peer(8), peer(9)), &frame())];
    let mut passed = 0;
    for step in 0.. {
        let (at, from) = (step % 3, [3, 1, 2][step % 3]);
        let mut came = nodes[at].receive_in(Encapsulation::Sleeve, sleeve(from), &[run.clone()]);
        assert!(came.tap.0.is_empty());
        let Some(train) = came.relayed.0.pop() else {
            assert_eq!(nodes[at].counters.dropped(DropReason::HopLimit), 1);
            break;
        };
        run = train.datagrams;
        passed += 1;
    }
    assert_eq!(passed, usize::from(HOP_LIMIT));

    // Two that point at each other: the first one stops it.
    let [_, mut b, _] = line();
    b.forwarding = snapshot(peer(2), [link(1, 1, 1438), link(3, 1, 1438)]);
    let came = b.receive_in(
        Encapsulation::Sleeve,
        sleeve(1),
        &[vec![datagram(header(peer(1), peer(3), 9), &frame())]],
    );
    assert_eq!(came.relayed.0, []);
    assert_eq!(b.counters.dropped(DropReason::RouteBack), 1);
}

#[test]
fn every_refused_sleeve_datagram_has_its_reason() {
    let plain = |source: u8, destination: PeerId, hop_limit| {
        datagram(header(peer(source), destination, hop_limit), &frame())
    };
    let odd = Header {
        kind: Kind(77),
        ..Header::plain(peer(1), ME)
    };
    let group = wire::ethernet::header(POD_B, Mac::BROADCAST, 0x0800);
    let stp = wire::ethernet::header(Mac([1, 0x80, 0xc2, 0, 0, 0]), POD_A, 0x0026);
    let to_me = Header::plain(peer(1), ME);
    for (from, datagram, reason) in [
        (1, vec![1; 19], DropReason::SleeveTruncated),
        (1, datagram(odd, &frame()), DropReason::SleeveUnknownKind),
        (1, plain(7, ME, 16), DropReason::SleeveUnknownPeer),
        (9, plain(1, ME, 16), DropReason::UnknownSource),
        (9, plain(1, peer(3), 16), DropReason::UnknownSource),
        (1, plain(1, peer(3), 0), DropReason::HopLimit),
        (1, plain(1, peer(7), 16), DropReason::NoRoute),
        (1, plain(3, peer(1), 16), DropReason::RouteBack),
        (
            3,
            datagram(header(ME, peer(1), 3), &frame()),
            DropReason::RouteBack,
        ),
        (1, datagram(to_me, &frame()[..13]), DropReason::PeerRunt),
        (1, datagram(to_me, &group), DropReason::PeerBadSource),
        (1, datagram(to_me, &stp), DropReason::LinkLocal),
    ] {
        let mut node = Node::new(snapshot(ME, [link(1, 1, 1438), link(3, 3, 1438)]));
        let came = node.receive_in(Encapsulation::Sleeve, sleeve(from), &[vec![datagram]]);
        assert_eq!(came.tap.0, [] as [Vec<u8>; 0]);
        assert_eq!((came.relayed.0, came.probes.0), (vec![], vec![]));
        assert!(node.macs.is_empty());
        assert_eq!(node.counters.dropped(reason), 1, "{reason:?}");
    }
}

/// The frames of a peer are its own however they come: by VXLAN while it is reached by sleeve, from
/// another of its addresses, through a port that NAT chose.
#[test]
fn a_peer_is_known_whatever_way_its_frames_come() {
    let narrow = Link {
        sources: vec![endpoint(1).ip(), endpoint(11).ip()],
        ..link(1, 2, 1438)
    };
    let mut node = Node::new(snapshot(
        ME,
        [Link::vxlan(Some(peer(2)), endpoint(2), 1450), narrow],
    ));
    let by_vxlan = [&vxlan::header(node.forwarding.vni())[..], &frame()].concat();
    for from in [1, 11] {
        let came = node.receive(endpoint(from), &[vec![by_vxlan.clone()]]);
        assert_eq!(came.len(), 1);
        assert_eq!(node.macs.lookup(POD_A), Some(Port::Link(1)));
    }
    let by_sleeve = datagram(Header::plain(peer(1), ME), &frame());
    let mut mapped = sleeve(11);
    mapped.set_port(40_000);
    for from in [sleeve(1), mapped, sleeve(2)] {
        let came = node.receive_in(Encapsulation::Sleeve, from, &[vec![by_sleeve.clone()]]);
        assert_eq!(came.tap.0.len(), 1, "{from}");
    }
    assert_eq!(node.macs.lookup(POD_A), Some(Port::Link(1)));
}

#[test]
fn probes_go_to_the_router_whoever_sent_them_and_nowhere_else() {
    let mut node = Node::new(snapshot(ME, [link(1, 1, 1438)]));
    let small = request(1, ME, 68);
    let by_vxlan = [&vxlan::header(node.forwarding.vni())[..], &small].concat();
    let came = node.receive_in(Encapsulation::Vxlan, endpoint(7), &[vec![by_vxlan]]);
    assert_eq!(
        came.probes.0,
        [(Encapsulation::Vxlan, endpoint(7), false, small.clone())]
    );
    let relayed = datagram(header(peer(1), ME, HOP_LIMIT - 1), &small);
    let direct = datagram(Header::plain(peer(1), ME), &small);
    let came = node.receive_in(Encapsulation::Sleeve, sleeve(7), &[vec![relayed, direct]]);
    assert_eq!(
        came.probes.0,
        [
            (Encapsulation::Sleeve, sleeve(7), true, small.clone()),
            (Encapsulation::Sleeve, sleeve(7), false, small),
        ]
    );
    assert!(came.tap.0.is_empty() && node.macs.is_empty());
}

/// A pod cannot forge a probe.
#[test]
fn a_probe_from_a_pod_is_dropped() {
    let mut node = Node::new(forwarding(1450, &[1]));
    let forged = request(1, peer(1), 68);
    assert_eq!(node.read_tap([read(VnetHdr::PLAIN, &forged)]), []);
    assert_eq!(node.counters.dropped(DropReason::LinkLocal), 1);
}

/// A probe through a relay is relayed as what pods send is.
#[test]
fn a_probe_for_another_is_relayed_and_not_read() {
    let [_, mut b, mut c] = line();
    let size = 1452;
    let through = datagram(Header::plain(peer(1), peer(3)), &request(1, peer(3), size));
    let came = b.receive_in(Encapsulation::Sleeve, sleeve(1), &[vec![through]]);
    assert!(came.probes.0.is_empty());
    let came = carry(&mut c, 2, &came.relayed.0);
    let [(_, from, relayed, frame)] = &came.probes.0[..] else {
        panic!("{} probes", came.probes.0.len());
    };
    assert_eq!((*from, *relayed), (sleeve(2), true));
    assert_eq!(probe::parse(frame).unwrap().size, size);
}

#[test]
fn a_sleeve_link_without_a_peer_is_left_out() {
    let vtep = Link {
        encapsulation: Encapsulation::Sleeve,
        ..Link::vxlan(None, endpoint(1), 1450)
    };
    let snapshot: Forwarding = snapshot(ME, [vtep]);
    assert!(snapshot.flood().is_empty() && snapshot.link(0).is_none());
}

proptest! {
    /// I6: nothing that arrives can crash the engine, and nothing is relayed to where it came from.
    #[test]
    fn any_sleeve_bytes_get_a_verdict(
        runs in proptest::collection::vec(
            proptest::collection::vec((0_u8..5, 0_u8..5, 0_u8..4, 0_u8..3, 0_usize..90), 1..6),
            1..6,
        ),
        junk in proptest::collection::vec(any::<u8>(), 1..100),
        from in 1_u8..5,
    ) {
        let mut node = Node::new(snapshot(peer(2), [link(1, 1, 1438), link(3, 3, 1438), link(4, 3, 1438)]));
        let runs: Vec<_> = runs
            .into_iter()
            .map(|run| {
                // Of equal length but for the last, as the kernel has it.
                let len = run[0].4 + 20;
                let mut datagrams: Vec<_> = run
                    .into_iter()
                    .map(|(source, destination, hop_limit, kind, _)| {
                        let header = Header {
                            kind: Kind(kind),
                            ..header(peer(source), peer(destination), hop_limit)
                        };
                        let mut bytes = datagram(header, &frame());
                        bytes.resize(len, 0);
                        bytes
                    })
                    .collect();
                let mut last = junk.clone();
                last.truncate(len);
                datagrams.push(last);
                datagrams
            })
            .collect();
        let came = node.receive_in(Encapsulation::Sleeve, sleeve(from), &runs);
        for train in came.relayed.0 {
            prop_assert!(train.endpoint != sleeve(from));
        }
    }
}
