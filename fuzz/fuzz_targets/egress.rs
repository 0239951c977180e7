//! Reads from the TAP: an offload header and a frame, as a pod or its kernel may make them. They are cut,
//! fragmented, answered, wrapped, sealed, or dropped.
//!
//! The first byte says how: bit 0 sealed, bit 1 a link of 600 bytes. Several reads follow each other, each
//! behind its length of 2 bytes.

#![no_main]

mod common;

use fastpath::{Egress, TrainLimits};
use libfuzzer_sys::fuzz_target;

use common::{Tables, Tap, Underlay, forwarding};

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, mut rest)) = bytes.split_first() else {
        return;
    };
    let sealed = how & 1 != 0;
    let forwarding = forwarding(sealed, if how & 2 == 0 { 1450 } else { 600 });
    let tables = Tables::new();
    let mut egress = Egress::new(4, TrainLimits::default());
    let mut underlay = Underlay { sealed };
    egress.begin(&forwarding, &tables.macs, 1);
    while let Some((&len, behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes(len)).min(behind.len());
        let (read, behind) = behind.split_at(len);
        rest = behind;
        egress.frame(
            &mut read.to_vec(),
            &forwarding,
            &tables.macs,
            &tables.counters,
            &mut underlay,
            &mut Tap,
        );
    }
    egress.flush(&mut underlay);
    for said in egress.said() {
        let _ = wire::membership::parse(said);
    }
});
