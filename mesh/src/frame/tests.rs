use std::net::SocketAddr;

use proptest::prelude::*;
use wire::PeerId;

use super::*;
use crate::{Departure, Hello, KnownPeer, Refusal, RefusalCode};

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
    );
    (ids, numbers).prop_map(
        |((id, name, public_key, run), (control, vxlan, vni, mtu, version))| Hello {
            id: PeerId(id),
            name: name.parse().unwrap(),
            public_key,
            run,
            control_port: control,
            vxlan_port: vxlan,
            vni: vni.try_into().unwrap(),
            mtu,
            version,
        },
    )
}

fn known() -> impl Strategy<Value = KnownPeer> {
    let address = (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(SocketAddr::from);
    let address = address.prop_filter("an address of one node", |a| {
        !a.ip().is_unspecified() && !a.ip().is_multicast()
    });
    let addresses = prop::collection::vec(address, 0..8);
    (any::<[u8; 8]>(), "[a-z0-9]{1,63}", any::<u64>(), addresses).prop_map(
        |(id, name, run, addresses)| KnownPeer {
            id: PeerId(id),
            name: name.parse().unwrap(),
            run,
            addresses,
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let departure = (any::<[u8; 8]>(), any::<u64>()).prop_map(|(id, run)| Departure {
        id: PeerId(id),
        run,
    });
    prop_oneof![
        hello().prop_map(|hello| Message::Hello(Box::new(hello))),
        (0u32..20, "\\PC{0,80}").prop_map(|(code, text)| {
            Message::Refuse(Refusal::new(RefusalCode::from_number(code), &text))
        }),
        Just(Message::Ready),
        Just(Message::Welcome),
        (
            prop::collection::vec(known(), 0..20),
            prop::collection::vec(departure, 0..20)
        )
            .prop_map(|(known, left)| Message::Peers { known, left }),
        Just(Message::Leave),
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        (any::<u8>(), any::<Vec<u8>>())
            .prop_map(|(channel, payload)| Message::Gossip { channel, payload }),
        (10u8..).prop_map(Message::Unknown),
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
    assert_eq!(preamble(), *b"weft\x00\x01\x00\x01");
    let mut bytes = Vec::new();
    emit(&Message::Ready, &mut bytes);
    emit(
        &Message::Gossip {
            channel: 7,
            payload: b"ab".to_vec(),
        },
        &mut bytes,
    );
    emit(&Message::Ping(0x0102_0304_0506_0708), &mut bytes);
    assert_eq!(
        bytes,
        [
            0, 0, 0, 1, 3, //
            0, 0, 0, 4, 9, 7, b'a', b'b', //
            0, 0, 0, 10, 7, 0x09, 8, 7, 6, 5, 4, 3, 2, 1,
        ]
    );
}

#[test]
fn four_gigabytes_are_refused_without_keeping_a_byte_of_them() {
    let mut deframer = Deframer::new();
    deframer.push(&framed(u32::MAX, &[kind::GOSSIP]));
    let error = deframer.next_message(Stage::Established).unwrap_err();
    assert_eq!(
        error,
        FrameError::TooLarge {
            kind: kind::GOSSIP,
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
        (kind::GOSSIP, Stage::Established, 1 << 20),
        (200, Stage::Established, 1 << 20),
        (kind::PEERS, Stage::Established, 128 << 10),
        (kind::PING, Stage::Established, 4 << 10),
        (kind::GOSSIP, Stage::Handshake, 4 << 10),
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
fn a_full_part_of_the_list_of_peers_is_within_its_limit() {
    let peer = KnownPeer {
        id: PeerId([0xff; 8]),
        name: "n".repeat(63).parse().unwrap(),
        run: u64::MAX,
        addresses: vec!["[ffff:ffff::ffff]:65535".parse().unwrap(); 8],
    };
    let mut bytes = Vec::new();
    emit(
        &Message::Peers {
            known: vec![peer; 256],
            left: Vec::new(),
        },
        &mut bytes,
    );
    assert!(bytes.len() - 4 <= MAX_PEERS, "{}", bytes.len());
}

#[test]
fn other_protocols_and_versions_are_told_apart() {
    assert_eq!(
        read(b"GET / HTTP/1.1\r\n", 1, Stage::Handshake),
        Err(FrameError::NotWeft(b"G".to_vec()))
    );
    assert_eq!(
        read(b"weft\x00\x02\x00\x05", 3, Stage::Handshake),
        Err(FrameError::Version {
            oldest: 2,
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
