//! Sealed links: what leaves, what is taken, and what waits for a key.

use std::net::SocketAddr;
use std::sync::Arc;

use fastpath::{
    Arrival, Cipher, ControlSink, Datagram, DropReason, Encapsulation, KeyNews, Link, OpenKey,
    Outlets, Port, SealKey, Sealer, Train, TrainSink, VnetHdr,
};
use proptest::prelude::*;
use wire::PeerId;
use wire::sleeve::{Header, Kind, SEAL_LEN};

use crate::frames::{
    Came, Node, POD_A, POD_B, Sent, Tap, Tcp, Underlay, endpoint, peer, read, sleeve, snapshot,
};

/// What the engine says of keys and handshakes.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) probes: Vec<Vec<u8>>,
    handshakes: Vec<(PeerId, SocketAddr, Vec<u8>)>,
    news: Vec<(PeerId, KeyNews)>,
    /// The keys for a peer that has no link.
    unlinked: Option<(PeerId, Arc<Sealer>)>,
}

impl ControlSink for Told {
    fn probe(&mut self, probe: Arrival<'_>) {
        self.probes.push(probe.frame.to_vec());
    }

    fn handshake(&mut self, from: PeerId, origin: SocketAddr, message: &[u8]) {
        self.handshakes.push((from, origin, message.to_vec()));
    }

    fn keys(&mut self, peer: PeerId, news: KeyNews) {
        self.news.push((peer, news));
    }

    fn sealer(&self, peer: PeerId) -> Option<Arc<Sealer>> {
        let (of, sealer) = self.unlinked.as_ref()?;
        (*of == peer).then(|| Arc::clone(sealer))
    }
}

/// A link in sleeve to the peer `to` by `via`, with what seals it.
pub(crate) fn link(to: u8, via: u8) -> (Link, Arc<Sealer>) {
    let sealer = Arc::new(Sealer::new());
    let link = Link {
        encapsulation: Encapsulation::Sleeve,
        sealer: Some(Arc::clone(&sealer)),
        ..Link::vxlan(Some(peer(to)), sleeve(via), 1414)
    };
    (link, sealer)
}

pub(crate) fn node(me: u8, links: impl IntoIterator<Item = Link>) -> Node {
    Node::new(snapshot(peer(me), links).sealed())
}

/// Nodes 1 and 2, without keys, and their sealers.
pub(crate) fn pair() -> (Node, Node, Arc<Sealer>, Arc<Sealer>) {
    let ((to_b, a), (to_a, b)) = (link(2, 2), link(1, 1));
    (node(1, [to_b]), node(2, [to_a]), a, b)
}

/// A session: each side seals with what the other opens.
fn agree(a: &Sealer, b: &Sealer, epoch: u16) {
    let seal = |n| Some(Arc::new(SealKey::new(Cipher::Aes256Gcm, &[n; 32], epoch)));
    let open = |n| Some(Arc::new(OpenKey::new(Cipher::Aes256Gcm, &[n; 32], epoch)));
    a.set(seal(1), [open(2), None, None]);
    b.set(seal(2), [open(1), None, None]);
}

pub(crate) fn receive(node: &mut Node, from: u8, sent: &[Sent]) -> (Came, Told) {
    let mut told = Told::default();
    let came = receive_with(node, from, sent, &mut told);
    (came, told)
}

fn receive_with(node: &mut Node, from: u8, sent: &[Sent], told: &mut Told) -> Came {
    let mut came = Came::default();
    let mut runs: Vec<_> = sent
        .iter()
        .map(|sent| (sent.datagrams[0].len(), sent.datagrams.concat()))
        .collect();
    let received = runs.iter_mut().map(|(segment, bytes)| Datagram {
        bytes,
        segment: *segment,
        source: sleeve(from),
        encapsulation: Encapsulation::Sleeve,
    });
    node.take(
        received,
        &mut Outlets {
            tap: &mut came.tap,
            underlay: &mut came.relayed,
            control: told,
        },
    );
    came
}

pub(crate) fn one(datagram: Vec<u8>) -> Vec<Sent> {
    vec![Sent {
        endpoint: sleeve(2),
        encapsulation: Encapsulation::Sleeve,
        socket: 0,
        datagrams: vec![datagram],
    }]
}

fn small() -> Vec<u8> {
    read(VnetHdr::PLAIN, &Tcp::new(64).frame())
}

#[test]
fn i4_a_super_frame_crosses_sealed_and_is_joined() {
    let (mut a, mut b, seals, opens) = pair();
    agree(&seals, &opens, 7);
    let tcp = Tcp::new(40 * 1_362);
    let sent = a.read_tap([read(tcp.header(1_362), &tcp.partial())]);
    let [train] = &sent[..] else {
        panic!("{} trains", sent.len());
    };
    assert_eq!(train.datagrams.len(), 40);
    // 1,362 + 32 of TCP + 20 + 14, the header and the seal: 1,472 bytes of UDP in an MTU of 1,500.
    assert_eq!(train.datagrams[0].len(), 1_472);
    assert_eq!(train.datagrams[0].len(), 1_428 + 20 + SEAL_LEN);
    assert_eq!(train.datagrams[0][..4], [2, 16, 0, 7]);
    let text = &tcp.payload[..64];
    for datagram in &train.datagrams {
        assert!(!datagram.windows(64).any(|bytes| bytes == text));
    }
    let (came, told) = receive(&mut b, 1, &sent);
    let [frame] = &came.tap.0[..] else {
        panic!("{} frames", came.tap.0.len());
    };
    assert!(frame.ends_with(&tcp.payload));
    assert_eq!(told.news, [(peer(1), KeyNews::Used(7))]);
    let totals = a.forwarding.link(0).unwrap().counters.totals();
    assert_eq!((totals.tx_frames, totals.tx_bytes), (40, 40 * 1_428));
    // A copy of all of it: nothing is delivered twice.
    let (came, told) = receive(&mut b, 1, &sent);
    assert_eq!((came.tap.0.len(), told.news.len()), (0, 0));
    assert_eq!(b.counters.dropped(DropReason::SealReplayed), 40);
}

/// Counts what is wanted, and keeps trains.
#[derive(Default)]
struct Wanting(Underlay, Vec<PeerId>);

impl TrainSink for Wanting {
    fn send(&mut self, train: Train<'_>) {
        self.0.send(train);
    }

    fn want(&mut self, peer: PeerId) {
        self.1.push(peer);
    }
}

fn egress(node: &mut Node, mut reads: Vec<Vec<u8>>) -> Wanting {
    let mut sink = Wanting::default();
    let reads = reads.iter_mut().map(Vec::as_mut_slice);
    node.send(reads, &mut sink, &mut Tap::default());
    sink
}

fn resume(node: &mut Node) -> Vec<Sent> {
    let mut sink = Wanting::default();
    node.resume(&mut sink);
    sink.0.0
}

/// What the tag protects is not summed a second time: neither here, nor in the pod's kernel.
#[test]
fn cut_segments_cross_sealed_with_partial_sums_and_join_with_complete_ones() {
    let (mut a, mut b, seals, opens) = pair();
    agree(&seals, &opens, 7);
    let cut = Tcp::new(3 * 1_362);
    // What follows is a short segment of the same flow, whose sum is complete.
    let follows = Tcp {
        sequence: cut.sequence.wrapping_add(3 * 1_362),
        id: cut.id + 3,
        ..Tcp::new(500)
    };
    let whole = read(VnetHdr::PLAIN, &follows.frame());
    let sent = a.read_tap([read(cut.header(1_362), &cut.partial()), whole]);
    let mut datagrams = sent.iter().flat_map(|sent| sent.datagrams.clone());
    let mut first = datagrams.next().unwrap();
    let open = OpenKey::new(Cipher::Aes256Gcm, &[1; 32], 7);
    let segment = Tcp {
        payload: cut.payload[..1_362].to_vec(),
        ..cut.clone()
    };
    assert_eq!(open.open(&mut first).unwrap().frame, segment.partial());

    let (came, _) = receive(&mut b, 1, &sent);
    let joined = Tcp {
        payload: [&cut.payload[..], &follows.payload].concat(),
        ..cut
    };
    assert_eq!(came.tap.0, [read(joined.header(1_362), &joined.partial())]);
    // A TAP that completes no sums gets whole ones.
    b.ingress = fastpath::Ingress::default();
    let sent = a.read_tap([read(joined.header(1_362), &joined.partial())]);
    let (came, _) = receive(&mut b, 1, &sent);
    assert_eq!(came.tap.0.len(), 4);
    assert_eq!(
        came.tap.0[0],
        read(
            VnetHdr::PLAIN,
            &Tcp {
                payload: joined.payload[..1_362].to_vec(),
                ..joined
            }
            .frame()
        )
    );
}

#[test]
fn i4_frames_wait_for_a_key_and_cross_when_it_comes() {
    let (mut a, mut b, seals, opens) = pair();
    let tcp = Tcp::new(3 * 1_362);
    let partial = read(Tcp::new(64).header(1_362), &Tcp::new(64).partial());
    let reads = vec![small(), partial, read(tcp.header(1_362), &tcp.partial())];
    let sink = egress(&mut a, reads);
    assert_eq!(sink.0.0, [], "nothing leaves in the clear");
    assert_eq!(sink.1, [peer(2)], "once a second");
    assert_eq!(resume(&mut a), [], "nor without a key");
    agree(&seals, &opens, 7);
    let sent = resume(&mut a);
    let count: usize = sent.iter().map(|sent| sent.datagrams.len()).sum();
    assert_eq!(count, 5);
    let (came, _) = receive(&mut b, 1, &sent);
    assert!(came.tap.0.last().unwrap().ends_with(&tcp.payload));
    assert_eq!(resume(&mut a), [], "once");
    assert_eq!(a.counters.dropped(DropReason::SealNoKey), 0);
}

#[test]
fn i3_a_flooded_frame_waits_for_those_without_a_key_alone() {
    let ((to_b, seals_b), (to_c, seals_c)) = (link(2, 2), link(3, 3));
    let mut a = node(1, [to_b, to_c]);
    agree(&seals_b, &Sealer::new(), 1);
    let sink = egress(&mut a, vec![small()]);
    assert_eq!((sink.0.0.len(), &sink.1[..]), (1, &[peer(3)][..]));
    agree(&seals_c, &Sealer::new(), 1);
    let sent = resume(&mut a);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].endpoint, sleeve(3));
}

#[test]
fn i6_what_waits_is_bounded_and_counted() {
    let (mut a, _, seals, opens) = pair();
    egress(&mut a, (0..100).map(|_| small()).collect());
    assert_eq!(a.counters.dropped(DropReason::SealNoKey), 68);
    agree(&seals, &opens, 7);
    a.now += 9;
    assert_eq!(resume(&mut a), [], "what waited too long is not sent");
    assert_eq!(a.counters.dropped(DropReason::SealNoKey), 100);
}

#[test]
fn i4_nothing_plain_is_taken_or_passed_on() {
    let (mut a, mut b, seals, opens) = pair();
    agree(&seals, &opens, 7);
    let frame = Tcp::new(64).frame();
    let plain = |to| [&Header::plain(peer(1), to).bytes()[..], &frame].concat();
    let (came, _) = receive(&mut b, 1, &one(plain(peer(2))));
    let (relayed, _) = receive(&mut b, 1, &one(plain(peer(1))));
    let vxlan = [&wire::vxlan::header(wire::Vni::DEFAULT)[..], &frame].concat();
    let by_vxlan = b.receive_in(Encapsulation::Vxlan, endpoint(1), &[vec![vxlan]]);
    for came in [came, relayed, by_vxlan] {
        assert_eq!((came.tap.0.len(), came.relayed.0.len()), (0, 0));
    }
    assert_eq!(b.counters.dropped(DropReason::PlainRefused), 3);
    // A link that came without a sealer sends nothing.
    a.forwarding = snapshot(peer(1), [Link::vxlan(Some(peer(2)), endpoint(2), 1450)]).sealed();
    assert_eq!(a.read_tap([small()]), []);
    assert_eq!(a.counters.dropped(DropReason::PlainRefused), 1);
    // Nor does one in VXLAN, though it has one.
    let vxlan = Link {
        sealer: Some(seals),
        ..Link::vxlan(Some(peer(2)), endpoint(2), 1450)
    };
    a.forwarding = snapshot(peer(1), [vxlan]).sealed();
    assert_eq!(a.read_tap([small()]), []);
    assert_eq!(a.counters.dropped(DropReason::PlainRefused), 2);
}

/// Both sides trust the network between them: frames leave in VXLAN and are taken from that address
/// alone, and sealed ones are taken as ever.
#[test]
fn i4_frames_are_in_the_clear_where_a_link_says_so_and_nowhere_else() {
    let plain = |to: u8, at: u8, plain: u8| {
        let (sealed, sealer) = link(to, to);
        let link = Link {
            encapsulation: Encapsulation::Vxlan,
            endpoint: endpoint(at),
            plain: Some(endpoint(plain).ip()),
            ..sealed
        };
        (link, sealer)
    };
    let ((to_b, seals), (to_a, opens)) = (plain(2, 2, 2), plain(1, 1, 1));
    let (mut a, mut b) = (node(1, [to_b]), node(2, [to_a]));
    assert!(a.forwarding.allows_vxlan(peer(2), endpoint(2).ip()));
    assert!(!a.forwarding.allows_vxlan(peer(2), endpoint(3).ip()));
    assert!(!a.forwarding.allows_vxlan(peer(3), endpoint(2).ip()));
    // No key is needed for it.
    let sent = a.read_tap([small()]);
    assert_eq!(sent[0].encapsulation, Encapsulation::Vxlan);
    let datagrams = [sent[0].datagrams.clone()];
    let came = b.receive_in(Encapsulation::Vxlan, endpoint(1), &datagrams);
    assert_eq!(came.tap.0.len(), 1);
    let came = b.receive_in(Encapsulation::Vxlan, endpoint(3), &datagrams);
    assert_eq!(came.tap.0.len(), 0);
    assert_eq!(b.counters.dropped(DropReason::PlainRefused), 1);
    // In sleeve it is refused as ever, though it comes from there.
    let frame = Tcp::new(64).frame();
    let sleeve = [&Header::plain(peer(1), peer(2)).bytes()[..], &frame].concat();
    let (came, _) = receive(&mut b, 1, &one(sleeve));
    assert_eq!(came.tap.0.len(), 0);
    assert_eq!(b.counters.dropped(DropReason::PlainRefused), 2);
    // The other side may be ahead or behind: what it seals is taken too.
    agree(&seals, &opens, 9);
    let (sealed, _) = link(2, 2);
    let back = Link {
        sealer: Some(Arc::clone(&seals)),
        ..sealed
    };
    a.forwarding = snapshot(peer(1), [back]).sealed();
    let sent = a.read_tap([small()]);
    assert_eq!(sent[0].encapsulation, Encapsulation::Sleeve);
    let (came, _) = receive(&mut b, 1, &sent);
    assert_eq!(came.tap.0.len(), 1);
    // A link that leads elsewhere than where it was agreed sends nothing.
    a.forwarding = snapshot(peer(1), [plain(2, 3, 2).0]).sealed();
    assert_eq!(a.read_tap([small()]), []);
    assert_eq!(a.counters.dropped(DropReason::PlainRefused), 1);
}

#[test]
fn a_relay_passes_on_what_it_cannot_read() {
    let ((to_c, seals), (to_a, opens)) = (link(3, 2), link(1, 2));
    let (mut a, mut c) = (node(1, [to_c]), node(3, [to_a]));
    let mut relay = node(2, [link(1, 1).0, link(3, 3).0]);
    agree(&seals, &opens, 9);
    let sent = a.read_tap([small()]);
    let (came, _) = receive(&mut relay, 1, &sent);
    assert_eq!(came.tap.0.len(), 0);
    assert_eq!(came.relayed.0[0].endpoint, sleeve(3));
    let (came, _) = receive(&mut c, 2, &came.relayed.0);
    assert_eq!(came.tap.0.len(), 1);
    // Handshakes travel so, too.
    let handshake = Header {
        kind: Kind::HANDSHAKE,
        ..Header::plain(peer(1), peer(3))
    };
    let sent = one([&handshake.bytes()[..], b"message"].concat());
    let (came, _) = receive(&mut relay, 1, &sent);
    let (_, told) = receive(&mut c, 2, &came.relayed.0);
    assert_eq!(told.handshakes, [(peer(1), sleeve(2), b"message".to_vec())]);
}

#[test]
fn a_sealed_datagram_is_its_senders_from_wherever_it_comes() {
    let (mut a, mut b, seals, opens) = pair();
    agree(&seals, &opens, 7);
    let (came, _) = receive(&mut b, 77, &a.read_tap([small()]));
    assert_eq!(came.tap.0.len(), 1);
    assert_eq!(b.macs.lookup(POD_A), Some(Port::Link(0)));
}

#[test]
fn what_cannot_be_opened_is_told_and_teaches_nothing() {
    let (mut a, mut b, seals, opens) = pair();
    agree(&seals, &Sealer::new(), 7);
    let sent = a.read_tap([small()]);
    let (_, told) = receive(&mut b, 1, &sent);
    assert_eq!(told.news, [(peer(1), KeyNews::Lost)]);
    agree(&Sealer::new(), &opens, 8);
    b.now += 1;
    let (_, told) = receive(&mut b, 1, &sent);
    assert_eq!(told.news, [(peer(1), KeyNews::Lost)]);
    let again: Vec<_> = (0..50).flat_map(|_| sent.clone()).collect();
    let (_, told) = receive(&mut b, 1, &again);
    assert_eq!(told.news, [], "once a second, however often it is said");
    agree(&Sealer::new(), &opens, 7);
    let mut forged = sent.clone();
    forged[0].datagrams[0][40] ^= 1;
    let (_, told) = receive(&mut b, 1, &forged);
    assert_eq!(told.news, []);
    let short = one(sent[0].datagrams[0][..43].to_vec());
    receive(&mut b, 1, &short);
    for reason in [
        DropReason::SealNoSession,
        DropReason::SealBadTag,
        DropReason::SealTruncated,
    ] {
        assert_eq!(b.counters.dropped(reason), 1, "{reason:?}");
    }
    assert_eq!(b.counters.dropped(DropReason::SealUnknownEpoch), 51);
    assert_eq!(b.macs.lookup(POD_A), None);
}

#[test]
fn an_empty_frame_shows_the_key_and_is_no_frame() {
    let (_, mut b, seals, opens) = pair();
    agree(&seals, &opens, 7);
    let datagram = seals.datagram(peer(1), peer(2), &[]).unwrap();
    let (came, told) = receive(&mut b, 1, &one(datagram));
    assert_eq!(told.news, [(peer(1), KeyNews::Used(7))]);
    assert_eq!(
        (came.tap.0.len(), b.counters.dropped(DropReason::PeerRunt)),
        (0, 0)
    );
}

/// Also what a member of the network asks in the name of another is not heard.
#[test]
fn a_probe_crosses_sealed_in_its_own_name() {
    let (_, mut b, seals, opens) = pair();
    agree(&seals, &opens, 7);
    for (source, heard) in [(peer(1), true), (peer(3), false)] {
        let probe = wire::probe::Probe {
            kind: wire::probe::ProbeKind::Request,
            size: 1_428,
            source,
            destination: peer(2),
            run: 7,
            nonce: 9,
        };
        let datagram = seals.datagram(peer(1), peer(2), &probe.frame()).unwrap();
        let (_, told) = receive(&mut b, 1, &one(datagram));
        let frames = if heard { vec![probe.frame()] } else { vec![] };
        assert_eq!(told.probes, frames);
    }
    assert_eq!(b.counters.dropped(DropReason::PeerBadSource), 1);
}

#[test]
fn sealing_allocates_nothing() {
    let (mut a, _, seals, opens) = pair();
    agree(&seals, &opens, 7);
    a.macs.learn(POD_B, Port::Link(0), 1);
    let tcp = Tcp::new(40 * 1_362);
    let bulk = read(tcp.header(1_362), &tcp.partial());
    a.read_tap([bulk.clone()]);
    struct Nowhere;
    impl TrainSink for Nowhere {
        fn send(&mut self, _: Train<'_>) {}
    }
    let mut bulk = bulk;
    let mut tap = Tap::default();
    let allocated = allocation_counter::measure(|| {
        for _ in 0..100 {
            a.send([&mut bulk[..]], &mut Nowhere, &mut tap);
        }
    });
    assert_eq!(allocated.count_total, 0);
}

/// By probes it gets a link, so it is heard; its frames come from nowhere yet.
#[test]
fn a_peer_without_a_link_is_heard_but_for_frames() {
    let (mut a, _, seals, opens) = pair();
    agree(&seals, &opens, 7);
    let mut b = node(2, []);
    let mut told = Told {
        unlinked: Some((peer(1), opens)),
        ..Told::default()
    };
    let probe = wire::probe::Probe {
        kind: wire::probe::ProbeKind::Request,
        size: 100,
        source: peer(1),
        destination: peer(2),
        run: 7,
        nonce: 9,
    };
    let datagram = seals.datagram(peer(1), peer(2), &probe.frame()).unwrap();
    receive_with(&mut b, 1, &one(datagram), &mut told);
    assert_eq!(told.probes, [probe.frame()]);
    assert_eq!(told.news, [(peer(1), KeyNews::Used(7))]);
    let came = receive_with(&mut b, 1, &a.read_tap([small()]), &mut told);
    assert_eq!(came.tap.0.len(), 0);
    assert_eq!(b.counters.dropped(DropReason::SleeveUnknownPeer), 1);
    assert_eq!(b.macs.lookup(POD_A), None);
}

/// A key that comes while a frame is put among those that wait lets it go at once.
#[test]
fn no_frame_is_forgotten_among_those_that_wait() {
    let (mut a, _, seals, opens) = pair();
    egress(&mut a, vec![small()]);
    agree(&seals, &opens, 7);
    let sent = egress(&mut a, vec![small()]).0.0;
    let waited = resume(&mut a);
    let count = |sent: &[Sent]| sent.iter().map(|sent| sent.datagrams.len()).sum::<usize>();
    assert_eq!(count(&sent) + count(&waited), 2);
}

proptest! {
    /// Before a datagram is opened nothing is known of it: whatever comes, nothing gets in, and
    /// nothing is learned.
    #[test]
    fn i6_no_bytes_get_in_unsealed(
        kind in 0..5_u8,
        epoch in 6..9_u16,
        source in 1..4_u8,
        destination in 1..4_u8,
        rest in prop::collection::vec(any::<u8>(), 0..200),
        cut in 0..220_usize,
    ) {
        let (_, mut b, seals, opens) = pair();
        agree(&seals, &opens, 7);
        let mut datagram = Header::plain(peer(source), peer(destination)).bytes().to_vec();
        datagram[0] = kind;
        datagram[2..4].copy_from_slice(&epoch.to_be_bytes());
        datagram.extend(rest);
        datagram.truncate(cut.max(1));
        let (came, told) = receive(&mut b, 1, &one(datagram));
        prop_assert_eq!(came.tap.0.len(), 0);
        prop_assert_eq!(told.probes.len(), 0);
        prop_assert_eq!(b.macs.lookup(POD_A), None);
        let used = |(_, news): &(PeerId, KeyNews)| matches!(news, KeyNews::Used(_));
        prop_assert!(!told.news.iter().any(used));
    }
}
