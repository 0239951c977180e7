//! Every header parser: what it reads it must be able to write again, and it never panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{arp, decode, ethernet, flow, membership, ndp, probe, sleeve, vxlan};

fuzz_target!(|bytes: &[u8]| {
    if let Ok((vni, frame)) = vxlan::parse(bytes) {
        let again = [&vxlan::header(vni)[..], frame].concat();
        assert_eq!(vxlan::parse(&again), Ok((vni, frame)));
    }
    if let Ok((header, frame)) = sleeve::parse(bytes) {
        assert_eq!([&header.bytes()[..], frame].concat(), bytes);
    }
    if let Ok(probe) = probe::parse(bytes) {
        assert_eq!(probe::parse(&probe.frame()), Ok(probe));
    }
    let _ = probe::is_probe(bytes);
    if let Ok(arp) = arp::parse(bytes) {
        let dst = ethernet::dst(bytes).expect("it has a header");
        assert_eq!(arp::parse(&arp.frame(dst)), Ok(arp));
    }
    let _ = (ethernet::ethertype(bytes), ethernet::vlan(bytes));
    let _ = (ndp::solicitation(bytes), ndp::advertisement(bytes));
    let _ = membership::parse(bytes);
    let _ = (flow::hash(bytes), flow::symmetric(bytes));
    let _ = decode::decode(bytes, &[6784]);
});
