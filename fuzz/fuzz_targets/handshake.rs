//! Handshake messages of whoever can send a datagram, cookies among them, to a node that waits for an
//! answer and is under load or not. None of them may end what it has, or make it send more than it got.
//!
//! The first byte: bit 0 under load, bit 1 the codes are made right, so that what they protect is
//! looked at, bits 2 and 3 who says to send it.

#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mesh::{Psk, Secrets, SessionConfig, SessionInput, SessionOutput, SessionTiming, Sessions};
use ring::digest::{SHA256, digest};
use ring::hmac;
use wire::PeerId;

/// Key pairs of X25519 (RFC 7748 §6.1): Alice's and Bob's.
const ALICE: [[u8; 32]; 2] = [
    [
        0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66,
        0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9,
        0x2c, 0x2a,
    ],
    [
        0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54, 0x74, 0x8b, 0x7d, 0xdc, 0xb4, 0x3e, 0xf7,
        0x5a, 0x0d, 0xbf, 0x3a, 0x0d, 0x26, 0x38, 0x1a, 0xf4, 0xeb, 0xa4, 0xa9, 0x8e, 0xaa, 0x9b,
        0x4e, 0x6a,
    ],
];
const BOB: [u8; 32] = [
    0xde, 0x9e, 0xdb, 0x7d, 0x7b, 0x7d, 0xc1, 0xb4, 0xd3, 0x5b, 0x61, 0xc2, 0xec, 0xe4, 0x35, 0x37,
    0x3f, 0x83, 0x43, 0xc8, 0x5b, 0x78, 0x67, 0x4d, 0xad, 0xfc, 0x7e, 0x14, 0x6f, 0x88, 0x2b, 0x4f,
];

fn id(public: &[u8; 32]) -> PeerId {
    let hash = digest(&SHA256, public);
    PeerId(*hash.as_ref().first_chunk().expect("32 bytes"))
}

/// The first code of `docs/wire-format.md`, which anybody can make who knows the node's public key.
fn sign(message: &mut [u8]) {
    let Some(end) = message.len().checked_sub(32) else {
        return;
    };
    let key = digest(&SHA256, &[&b"weft mac 1"[..], &ALICE[1]].concat());
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
    let tag = hmac::sign(&key, &message[..end]);
    message[end..end + 16].copy_from_slice(&tag.as_ref()[..16]);
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, rest)) = bytes.split_first() else {
        return;
    };
    let [private, public] = ALICE;
    let timing = SessionTiming {
        initiations: if how & 1 == 0 { 200 } else { 0 },
        ..SessionTiming::default()
    };
    let config = SessionConfig {
        id: id(&public),
        secrets: Secrets {
            private,
            public,
            passwords: vec![Psk::new([7; 32])],
        },
        start: 1,
        ciphers: Vec::new(),
        aggregates: true,
        allowed: None,
        seed: [9; 32],
        timing,
        peers: 4,
    };
    let now = Duration::from_secs(1);
    let mut sessions = Sessions::new(config, now);
    let bob = id(&BOB);
    let public = BOB;
    sessions.handle(SessionInput::Peer { id: bob, public }, now);
    sessions.handle(SessionInput::Want(bob), now);
    while sessions.poll_output().is_some() {}
    let mut message = rest.to_vec();
    if how & 2 != 0 {
        sign(&mut message);
    }
    let from = match how >> 2 & 3 {
        0 => bob,
        1 => id(&ALICE[1]),
        n => PeerId([n; 8]),
    };
    let input = SessionInput::Received {
        from,
        origin: SocketAddr::from(([192, 0, 2, 1], 6783)),
        message: &message,
    };
    sessions.handle(input, now);
    let mut answered = 0;
    while let Some(output) = sessions.poll_output() {
        if let SessionOutput::Send {
            message: answer, ..
        } = output
        {
            answered += answer.len();
        }
    }
    assert!(answered <= message.len(), "more is sent than came");
    assert!(sessions.view(bob, now).is_none(), "nobody has the password");
    let counters = sessions.counters();
    assert_eq!((counters.completed, counters.answered), (0, 0));
});
