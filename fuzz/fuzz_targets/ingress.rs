//! Datagrams from the underlay, as runs or one by one, in VXLAN and in sleeve, to a node that seals and
//! to one that does not: opened, joined, relayed, or dropped.
//!
//! The first byte says how: bit 0 sealed, bit 1 sleeve, bit 2 the TAP takes nothing undone, bits 3 to 5
//! the sender. Then the length of a datagram in the run, 2 bytes, and the run. Where all is sealed, bit 6
//! seals what is in it first, for what the engine does with it: as a frame, or with bit 7 as several.

#![no_main]

mod common;

use fastpath::{
    Arrival, Cipher, ControlSink, Datagram, Encapsulation, Ingress, Outlets, SealKey, TapTakes,
};
use libfuzzer_sys::fuzz_target;
use wire::sleeve::{Header, Kind, SEAL_LEN};

use common::{ME, Tables, Tap, Underlay, endpoint, forwarding, peer};

fuzz_target!(|bytes: &[u8]| {
    let Some((&[how, high, low], rest)) = bytes.split_first_chunk() else {
        return;
    };
    let (sealed, in_sleeve) = (how & 1 != 0, how & 2 != 0);
    let does = how & 4 == 0;
    let takes = TapTakes {
        csum: does,
        tcp: does,
        udp: does,
    };
    let encapsulation = if in_sleeve {
        Encapsulation::Sleeve
    } else {
        Encapsulation::Vxlan
    };
    let forwarding = forwarding(sealed, 1450);
    let tables = Tables::new();
    let mut run = rest.to_vec();
    let mut segment = usize::from(u16::from_be_bytes([high, low]));
    if sealed && in_sleeve && how & 64 != 0 {
        let kind = match how & 128 {
            0 => Kind::SEALED,
            _ => Kind::AGGREGATE,
        };
        run = seal(kind, rest);
        segment = 0;
    }
    let datagram = Datagram {
        bytes: &mut run,
        segment,
        source: endpoint(how >> 3 & 7, if in_sleeve { 6783 } else { 40_000 }),
        encapsulation,
    };
    Ingress::new(takes).batch(
        [datagram],
        &forwarding,
        &tables.macs,
        &tables.counters,
        1,
        &mut Outlets {
            tap: &mut Tap,
            underlay: &mut Underlay { sealed },
            control: &mut Control,
        },
    );
});

/// A datagram of peer 2 around this text.
fn seal(kind: Kind, text: &[u8]) -> Vec<u8> {
    let header = Header {
        kind,
        epoch: 1,
        ..Header::plain(peer(2), ME)
    };
    let room = [0; SEAL_LEN];
    let mut datagram = [&header.bytes()[..], &room[..8], text, &room[8..]].concat();
    let key = SealKey::new(Cipher::ChaCha20Poly1305, &[7; 32], 1);
    let mut claim = key.claim(1).expect("the key is new");
    key.seal(&mut datagram, &mut claim);
    datagram
}

/// Takes what is for the router.
struct Control;

impl ControlSink for Control {
    fn probe(&mut self, probe: Arrival<'_>) {
        assert!(wire::probe::is_probe(probe.frame));
        let _ = wire::probe::parse(probe.frame);
    }
}
