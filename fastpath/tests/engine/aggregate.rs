//! Small frames that share a sealed datagram.

use std::sync::Arc;

use fastpath::{Cipher, DropReason, OpenKey, SealKey, Sealer, VnetHdr};
use proptest::prelude::*;
use wire::sleeve::{Header, Kind};
use wire::{aggregate, sleeve};

use crate::frames::{Node, POD_A, POD_B, Sent, Tap, Tcp, Underlay, peer, read};
use crate::sealed::{link, node, one, pair, receive};

/// A session in which both sides take aggregates, or neither.
fn agree(a: &Sealer, b: &Sealer, epoch: u16, aggregates: bool) {
    let seal = |n| {
        let key = SealKey::new(Cipher::Aes256Gcm, &[n; 32], epoch);
        Some(Arc::new(key.aggregating(aggregates)))
    };
    let open = |n| Some(Arc::new(OpenKey::new(Cipher::Aes256Gcm, &[n; 32], epoch)));
    a.set(seal(1), [open(2), open(9), None]);
    b.set(seal(2), [open(1), open(9), None]);
}

fn willing() -> (Node, Node, Arc<Sealer>, Arc<Sealer>) {
    let (a, b, seals, opens) = pair();
    agree(&seals, &opens, 7, true);
    (a, b, seals, opens)
}

/// A frame that nothing joins, with its number.
fn frame(number: u16, len: usize) -> Vec<u8> {
    let mut frame = [&POD_B.0[..], &POD_A.0, &[0x88, 0xb6], &number.to_be_bytes()].concat();
    frame.resize(len.max(16), 0xee);
    frame
}

fn reads(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let read = |frame: &Vec<u8>| read(VnetHdr::PLAIN, frame);
    frames.iter().map(read).collect()
}

fn datagrams(sent: &[Sent]) -> Vec<Vec<u8>> {
    sent.iter()
        .flat_map(|sent| sent.datagrams.clone())
        .collect()
}

fn kinds(sent: &[Sent]) -> Vec<u8> {
    datagrams(sent).iter().map(|datagram| datagram[0]).collect()
}

#[test]
fn small_frames_of_a_batch_share_datagrams_and_come_out_in_order() {
    let (mut a, mut b, ..) = willing();
    let frames: Vec<_> = (0..700).map(|n| frame(n, 106)).collect();
    let sent = a.read_tap(reads(&frames));
    // 13 of 108 bytes in 1,428; a padded one is as long as a full frame's.
    let lens: Vec<_> = datagrams(&sent).iter().map(Vec::len).collect();
    assert_eq!((sent.len(), lens.len()), (2, 54));
    assert_eq!((lens[0], lens[52]), (1_472, 1_472));
    assert!(kinds(&sent).iter().all(|kind| *kind == Kind::AGGREGATE.0));
    let totals = a.forwarding.link(0).unwrap().counters.totals();
    assert_eq!((totals.tx_frames, totals.tx_bytes), (700, 700 * 106));

    let (came, _) = receive(&mut b, 1, &sent);
    assert_eq!(came.tap.0, reads(&frames));
    let totals = b.forwarding.link(0).unwrap().counters.totals();
    assert_eq!((totals.rx_frames, totals.rx_bytes), (700, 700 * 106));
    b.counters.each(|name, _, value| match name {
        "rx_datagrams" | "rx_aggregates" => assert_eq!(value, 54, "{name}"),
        _ => {}
    });
    let (came, _) = receive(&mut b, 1, &sent);
    assert_eq!(came.tap.0.len(), 0, "once");
    assert_eq!(b.counters.dropped(DropReason::SealReplayed), 54);
}

#[test]
fn packets_of_a_pod_that_left_as_one_share_datagrams() {
    let (mut a, mut b, ..) = willing();
    let tcp = Tcp::new(40 * 100);
    let sent = a.read_tap([read(tcp.header(100), &tcp.partial())]);
    assert_eq!(datagrams(&sent).len(), 5);
    let (came, _) = receive(&mut b, 1, &sent);
    assert_eq!(came.tap.0, [read(tcp.header(100), &tcp.partial())]);
}

#[test]
fn a_frame_alone_goes_as_it_always_did() {
    let (mut a, ..) = willing();
    let sent = a.read_tap(reads(&[frame(1, 106)]));
    assert_eq!(kinds(&sent), [Kind::SEALED.0]);
    assert_eq!(sent[0].datagrams[0].len(), 106 + 20 + sleeve::SEAL_LEN);
}

#[test]
fn who_does_not_take_aggregates_gets_none() {
    let (mut a, mut b, seals, opens) = pair();
    agree(&seals, &opens, 7, false);
    let frames: Vec<_> = (0..20).map(|n| frame(n, 106)).collect();
    let sent = a.read_tap(reads(&frames));
    assert_eq!(kinds(&sent), [Kind::SEALED.0; 20]);
    assert_eq!(receive(&mut b, 1, &sent).0.tap.0, reads(&frames));
}

/// Five-hundred-byte frames fill a datagram to two thirds: to pad that would cost the line more than it
/// saves anybody.
#[test]
fn no_more_than_an_eighth_is_padding() {
    let (mut a, mut b, ..) = willing();
    let frames: Vec<_> = (0..20).map(|n| frame(n, 500)).collect();
    let sent = a.read_tap(reads(&frames));
    let lens: Vec<_> = datagrams(&sent).iter().map(Vec::len).collect();
    assert_eq!((sent.len(), &lens[..]), (1, &[1_004 + 44; 10][..]));
    assert_eq!(receive(&mut b, 1, &sent).0.tap.0, reads(&frames));
}

#[test]
fn padding_is_zeros_and_not_what_an_earlier_train_has_left() {
    let (mut a, ..) = willing();
    a.read_tap(reads(&(0..60).map(|n| frame(n, 1_400)).collect::<Vec<_>>()));
    let frames: Vec<_> = (0..30).map(|n| frame(n, 106)).collect();
    let mut first = datagrams(&a.read_tap(reads(&frames))).swap_remove(0);
    let open = OpenKey::new(Cipher::Aes256Gcm, &[1; 32], 7);
    let text = open.open(&mut first).unwrap().frame;
    assert_eq!(text.len(), 1_428);
    assert_eq!(text[13 * 108..], [0; 24]);
}

/// A session is replaced in the middle of a batch: what is under way keeps its key.
#[test]
fn frames_before_and_after_a_rotation_do_not_share() {
    let (mut a, mut b, seals, opens) = willing();
    let frames: Vec<_> = (0..6).map(|n| frame(n, 106)).collect();
    let mut sink = Underlay::default();
    a.egress.begin(&a.forwarding, &a.macs, 1);
    for (n, mut read) in reads(&frames).into_iter().enumerate() {
        if n == 3 {
            let next = SealKey::new(Cipher::Aes256Gcm, &[9; 32], 8).aggregating(true);
            seals.set(Some(Arc::new(next)), [const { None }; 3]);
            let open = |n, epoch| Some(Arc::new(OpenKey::new(Cipher::Aes256Gcm, &[n; 32], epoch)));
            opens.set(None, [open(1, 7), open(9, 8), None]);
        }
        a.egress.frame(
            &mut read,
            &a.forwarding,
            &a.macs,
            &a.counters,
            &mut sink,
            &mut Tap::default(),
        );
    }
    a.egress.flush(&mut sink);
    assert_eq!(kinds(&sink.0), [Kind::AGGREGATE.0; 2]);
    assert_eq!(receive(&mut b, 1, &sink.0).0.tap.0, reads(&frames));
}

#[test]
fn a_key_that_is_used_up_seals_no_aggregate() {
    let (mut a, _, seals, _) = willing();
    let key = SealKey::new(Cipher::Aes256Gcm, &[1; 32], 7).aggregating(true);
    while key.claim(u32::MAX).is_some() {}
    seals.set(Some(Arc::new(key)), [const { None }; 3]);
    let frames: Vec<_> = (0..100).map(|n| frame(n, 106)).collect();
    assert_eq!(a.read_tap(reads(&frames)), []);
    // They wait for the next one, as many as may.
    assert_eq!(a.counters.dropped(DropReason::SealNoKey), 68);
}

/// A whole datagram of node 1's with this text.
fn aggregate_of(seals: &Sealer, text: &[u8]) -> Vec<u8> {
    let key = seals.sealing().unwrap();
    let header = Header {
        kind: Kind::AGGREGATE,
        epoch: key.epoch(),
        ..Header::plain(peer(1), peer(2))
    };
    let mut datagram = [&header.bytes()[..], &[0; 8], text, &[0; 16]].concat();
    key.seal(&mut datagram, &mut key.claim(1).unwrap());
    datagram
}

fn parts(frames: &[&[u8]]) -> Vec<u8> {
    let part = |frame: &&[u8]| {
        [
            &u16::try_from(frame.len()).unwrap().to_be_bytes()[..],
            frame,
        ]
        .concat()
    };
    frames.iter().flat_map(part).collect()
}

#[test]
fn i6_what_is_wrong_in_an_aggregate_is_dropped_and_the_rest_is_not() {
    let (_, mut b, seals, _) = willing();
    let (good, mut group, mut probe) = (frame(1, 64), frame(2, 64), frame(3, 64));
    group[6] = 1;
    probe[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0x0e]);
    probe[12..14].copy_from_slice(&[0x88, 0xb5]);
    let mut text = parts(&[&[1, 2, 3], &group, &probe, &good]);
    text.extend([1, 0, 7, 7]);
    let (came, told) = receive(&mut b, 1, &one(aggregate_of(&seals, &text)));
    assert_eq!(came.tap.0, reads(&[good]));
    assert_eq!(told.probes.len(), 0, "what is for the router comes alone");
    for reason in [
        DropReason::PeerRunt,
        DropReason::PeerBadSource,
        DropReason::LinkLocal,
        DropReason::PeerBadAggregate,
    ] {
        assert_eq!(b.counters.dropped(reason), 1, "{reason:?}");
    }
    let (came, _) = receive(&mut b, 1, &one(aggregate_of(&seals, &[])));
    assert_eq!(came.tap.0.len(), 0);
}

#[test]
fn i4_a_kind_is_what_was_sealed() {
    let (_, mut b, seals, _) = willing();
    let mut datagram = aggregate_of(&seals, &parts(&[&frame(1, 64), &frame(2, 64)]));
    datagram[0] = Kind::SEALED.0;
    let (came, _) = receive(&mut b, 1, &one(datagram));
    assert_eq!(came.tap.0.len(), 0);
    assert_eq!(b.counters.dropped(DropReason::SealBadTag), 1);
}

#[test]
fn a_relay_passes_on_an_aggregate() {
    let ((to_c, seals), (to_a, opens)) = (link(3, 2), link(1, 2));
    let (mut a, mut c) = (node(1, [to_c]), node(3, [to_a]));
    let mut relay = node(2, [link(1, 1).0, link(3, 3).0]);
    agree(&seals, &opens, 9, true);
    let frames: Vec<_> = (0..20).map(|n| frame(n, 106)).collect();
    let sent = a.read_tap(reads(&frames));
    let (came, _) = receive(&mut relay, 1, &sent);
    let (came, _) = receive(&mut c, 2, &came.relayed.0);
    assert_eq!(came.tap.0, reads(&frames));
}

proptest! {
    /// Whatever the sizes: all arrive once, in their order, in datagrams that the link takes.
    #[test]
    fn frames_of_any_sizes_cross_in_order(
        lens in prop::collection::vec(prop_oneof![4 => 16..200_usize, 1 => 200..1_429_usize], 1..200),
    ) {
        let ((to_b, ab), (to_c, ac)) = (link(2, 2), link(3, 3));
        let ((from_a, ba), (a_to_c, ca)) = (link(1, 1), link(1, 1));
        let mut a = node(1, [to_b, to_c]);
        let (mut b, mut c) = (node(2, [from_a]), node(3, [a_to_c]));
        agree(&ab, &ba, 7, true);
        agree(&ac, &ca, 7, false);
        let frames: Vec<_> = (0..).zip(&lens).map(|(n, len)| frame(n, *len)).collect();
        let sent = a.read_tap(reads(&frames));
        prop_assert!(datagrams(&sent).iter().all(|datagram| datagram.len() <= 1_472));
        let (for_b, for_c): (Vec<_>, Vec<_>) =
            sent.into_iter().partition(|sent| sent.endpoint == crate::frames::sleeve(2));
        prop_assert!(for_b.len() <= for_c.len() && datagrams(&for_b).len() <= lens.len());
        prop_assert_eq!(receive(&mut b, 1, &for_b).0.tap.0, reads(&frames));
        prop_assert_eq!(receive(&mut c, 1, &for_c).0.tap.0, reads(&frames));
        let totals = a.forwarding.link(0).unwrap().counters.totals();
        let bytes: usize = frames.iter().map(Vec::len).sum();
        prop_assert_eq!((totals.tx_frames, totals.tx_bytes), (lens.len() as u64, bytes as u64));
    }

    /// A member may seal anything.
    #[test]
    fn i6_any_text_is_taken_or_dropped(text: Vec<u8>) {
        let (_, mut b, seals, _) = willing();
        let (came, _) = receive(&mut b, 1, &one(aggregate_of(&seals, &text)));
        let whole = aggregate::frames(&text).filter(Result::is_ok).count();
        prop_assert!(came.tap.0.len() <= whole);
    }
}
