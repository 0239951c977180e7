use std::net::SocketAddr;

use proptest::prelude::*;
use wire::PeerId;

use super::*;
use crate::message::{Broadcast, Doubt, Parcel, Told};
use crate::{Hello, Refusal, RefusalCode};

fn hello() -> impl Strategy<Value = Hello> {
    let ids = (
        any::<[u8; 8]>(),
        "[a-z0-9][a-zA-Z0-9._-]{0,62}",
        any::<[u8; 32]>(),
        any::<u64>(),
    );
    let numbers = (
        any::<u16>(),
        1..=u16::MAX,
        0u32..1 << 24,
        any::<u16>(),
        "[ -~]{0,64}",
        any::<u16>(),
        prop::option::of(address()),
    );
    (ids, numbers).prop_map(
        |((id, name, public_key, run), (control, vxlan, vni, mtu, version, sleeve, seen))| Hello {
            id: PeerId(id),
            name: name.parse().unwrap(),
            public_key,
            run,
            control_port: control,
            vxlan_port: vxlan,
            vni: vni.try_into().unwrap(),
            mtu,
            version,
            sleeve_port: sleeve,
            seen,
        },
    )
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let address = (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(SocketAddr::from);
    address.prop_filter("an address of one node", |a| {
        !a.ip().is_unspecified() && !a.ip().is_multicast()
    })
}

fn id() -> impl Strategy<Value = PeerId> {
    any::<[u8; 8]>().prop_map(PeerId)
}

fn message() -> impl Strategy<Value = Message> {
    let refusal = (
        0u32..20,
        "\\PC{0,80}",
        prop::collection::vec(address(), 0..8),
    );
    let told = (any::<u32>(), any::<Vec<u8>>()).prop_map(|(idle, bytes)| Told { idle, bytes });
    let versions = prop::collection::vec((id(), any::<u64>()), 0..20);
    let cargo = || (id(), id(), any::<(u64, u8, u8)>(), any::<Vec<u8>>());
    let parcel = cargo().prop_map(|(from, to, (_, hops, channel), payload)| Parcel {
        from,
        to,
        hops,
        channel,
        payload,
    });
    let broadcast = cargo().prop_map(|(origin, _, numbers, payload)| {
        let (sequence, hops, channel) = numbers;
        Broadcast {
            origin,
            sequence,
            hops,
            channel,
            payload,
        }
    });
    let doubt = (id(), any::<u8>(), id()).prop_map(|(to, hops, about)| Doubt { to, hops, about });
    prop_oneof![
        hello().prop_map(|hello| Message::Hello(Box::new(hello))),
        refusal.prop_map(|(code, text, instead)| {
            Message::Refuse(Refusal {
                instead,
                ..Refusal::new(RefusalCode::from_number(code), &text)
            })
        }),
        Just(Message::Ready),
        Just(Message::Welcome),
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        prop::collection::vec(told, 0..5).prop_map(Message::Entries),
        any::<u64>().prop_map(Message::Digest),
        any::<u64>().prop_map(|sum| Message::Buckets(Box::new([sum; 64]))),
        (any::<u64>(), versions).prop_map(|(buckets, known)| Message::Versions { buckets, known }),
        prop::collection::vec(id(), 0..20).prop_map(Message::Ask),
        any::<bool>().prop_map(Message::Need),
        parcel.prop_map(Message::Parcel),
        broadcast.prop_map(Message::Broadcast),
        doubt.prop_map(Message::Doubt),
        (19u8..).prop_map(Message::Unknown),
    ]
}

/// Feeds a stream in pieces and collects what comes out.
fn read(stream: &[u8], pieces: usize, stage: Stage) -> Result<Vec<Message>, FrameError> {
    let mut deframer = Deframer::new();
    let mut messages = Vec::new();
    for piece in stream.chunks(pieces.max(1)) {
        deframer.push(piece);
        while let Some(message) = deframer.next_message(stage)? {
            messages.push(message);
        }
    }
    Ok(messages)
}

fn framed(length: u32, rest: &[u8]) -> Vec<u8> {
    let mut stream = preamble().to_vec();
    stream.extend(length.to_be_bytes());
    stream.extend(rest);
    stream
}

proptest! {
    #[test]
    fn messages_round_trip_however_they_are_cut(
        sent in prop::collection::vec(message(), 0..6),
        pieces in 1usize..200,
    ) {
        let mut stream = preamble().to_vec();
        for message in &sent {
            emit(message, &mut stream);
        }
        prop_assert_eq!(read(&stream, pieces, Stage::Established), Ok(sent));
    }

    #[test]
    fn any_bytes_are_read_or_refused(stream: Vec<u8>, pieces in 1usize..200) {
        let _ = read(&stream, pieces, Stage::Handshake);
    }

    #[test]
    fn any_body_of_any_kind_is_read_or_refused(kind: u8, body: Vec<u8>) {
        let mut rest = vec![kind];
        rest.extend(&body);
        let length = u32::try_from(rest.len()).unwrap();
        let _ = read(&framed(length, &rest), 4096, Stage::Established);
    }

    #[test]
    fn a_damaged_stream_is_read_or_refused(
        sent in prop::collection::vec(message(), 1..4),
        at: prop::sample::Index,
        value: u8,
    ) {
        let mut stream = preamble().to_vec();
        for message in &sent {
            emit(message, &mut stream);
        }
        let at = at.index(stream.len());
        stream[at] = value;
        let _ = read(&stream, 4096, Stage::Established);
    }
}

/// The bytes that `docs/wire-format.md` draws.
#[test]
fn bytes_match_the_documented_diagram() {
    assert_eq!(preamble(), *b"weft\x00\x02\x00\x02");
    let mut bytes = Vec::new();
    emit(&Message::Ready, &mut bytes);
    emit(
        &Message::Parcel(Parcel {
            from: PeerId([1; 8]),
            to: PeerId([2; 8]),
            hops: 32,
            channel: 7,
            payload: b"ab".to_vec(),
        }),
        &mut bytes,
    );
    emit(&Message::Ping(0x0102_0304_0506_0708), &mut bytes);
    assert_eq!(
        bytes,
        [
            0, 0, 0, 1, 3, //
            0, 0, 0, 21, 16, //
            1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 32, 7, b'a', b'b', //
            0, 0, 0, 10, 7, 0x09, 8, 7, 6, 5, 4, 3, 2, 1,
        ]
    );
}

#[test]
fn four_gigabytes_are_refused_without_keeping_a_byte_of_them() {
    let mut deframer = Deframer::new();
    deframer.push(&framed(u32::MAX, &[kind::PARCEL]));
    let error = deframer.next_message(Stage::Established).unwrap_err();
    assert_eq!(
        error,
        FrameError::TooLarge {
            kind: kind::PARCEL,
            length: u32::MAX,
            limit: MAX_MESSAGE
        }
    );
    assert!(
        deframer.buffer.capacity() <= 64,
        "{}",
        deframer.buffer.capacity()
    );
}

#[test]
fn limits_by_kind_and_stage() {
    let judge = |kind, length, stage| read(&framed(length, &[kind]), 64, stage).is_ok();
    for (kind, stage, limit) in [
        (kind::PARCEL, Stage::Established, 1 << 20),
        (200, Stage::Established, 1 << 20),
        (kind::ENTRIES, Stage::Established, 128 << 10),
        (kind::PING, Stage::Established, 4 << 10),
        (kind::PARCEL, Stage::Handshake, 4 << 10),
        (kind::HELLO, Stage::Handshake, 4 << 10),
    ] {
        assert!(
            judge(kind, limit, stage),
            "kind {kind}, {limit} bytes, {stage:?}"
        );
        assert!(
            !judge(kind, limit + 1, stage),
            "kind {kind}, {limit} bytes and one, {stage:?}"
        );
    }
}

#[test]
fn the_largest_lists_are_within_their_limit() {
    let ids = vec![PeerId([0xff; 8]); crate::message::MAX_IDS];
    let known = ids.iter().map(|id| (*id, u64::MAX)).collect();
    let buckets = u64::MAX;
    let bytes = vec![0; crate::MAX_ENTRY];
    // Parts of 64 KiB, the last entry of which begins within it.
    let told = vec![Told { idle: 0, bytes }; (64 << 10) / crate::MAX_ENTRY + 1];
    for message in [
        Message::Ask(ids),
        Message::Versions { buckets, known },
        Message::Entries(told),
    ] {
        let mut bytes = preamble().to_vec();
        emit(&message, &mut bytes);
        assert_eq!(
            read(&bytes, bytes.len(), Stage::Established),
            Ok(vec![message])
        );
    }
    let largest = Message::Broadcast(Broadcast {
        origin: PeerId([1; 8]),
        sequence: 1,
        hops: 1,
        channel: 1,
        payload: vec![0; crate::MAX_GOSSIP],
    });
    let mut bytes = preamble().to_vec();
    emit(&largest, &mut bytes);
    assert_eq!(
        read(&bytes, bytes.len(), Stage::Established),
        Ok(vec![largest])
    );
}

#[test]
fn i5_what_follows_an_unreadable_message_is_read() {
    let mut deframer = Deframer::new();
    deframer.push(&framed(3, &[kind::PING, 0x0a, 0xff]));
    let mut next = Vec::new();
    emit(&Message::Pong(7), &mut next);
    deframer.push(&next);
    let error = deframer.next_message(Stage::Established).unwrap_err();
    assert!(matches!(
        error,
        FrameError::Message {
            kind: kind::PING,
            ..
        }
    ));
    let next = deframer.next_message(Stage::Established);
    assert_eq!(next, Ok(Some(Message::Pong(7))));
}

#[test]
fn other_protocols_and_versions_are_told_apart() {
    assert_eq!(
        read(b"GET / HTTP/1.1\r\n", 1, Stage::Handshake),
        Err(FrameError::NotWeft(b"G".to_vec()))
    );
    assert_eq!(
        read(b"weft\x00\x03\x00\x05", 3, Stage::Handshake),
        Err(FrameError::Version {
            oldest: 3,
            newest: 5
        })
    );
    assert_eq!(
        read(b"weft\x00\x00\x00\x05", 3, Stage::Handshake),
        Ok(vec![])
    );
    assert_eq!(
        read(&framed(0, &[]), 64, Stage::Handshake),
        Err(FrameError::Empty)
    );
}
