//! Probes: what decides whether a link is up, where a peer is, and whether frames may be in the clear.
//! Whatever comes, no link comes up by it that did not answer, and nothing is agreed.
//!
//! The first byte: bit 0 sealed, bit 1 in VXLAN, bit 2 by a relay, bit 3 what follows is the body of a
//! probe, so that the fuzzer need not find its header.

#![no_main]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mesh::Reach;
use mesh::link::{Arrived, LinkConfig, LinkInput, LinkOutput, Links, PeerFacts};
use wire::PeerId;
use wire::ethernet::header;
use wire::probe::{ETHERTYPE, GROUP, source_mac};

const PEER: PeerId = PeerId([1; 8]);

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, rest)) = bytes.split_first() else {
        return;
    };
    let now = Duration::from_secs(1);
    let mut config = LinkConfig::new(PeerId([0xee; 8]), 7, 42);
    config.sealed = how & 1 != 0;
    config.trusted = vec!["192.0.2.0/24".parse().expect("a network")];
    let mut links = Links::new(config);
    let facts = Arc::new(PeerFacts {
        name: "peer".parse().expect("a name"),
        run: 1,
        addresses: vec![[192, 0, 2, 1].into()],
        vxlan_port: 6784,
        sleeve_port: 6783,
        sleeve_seen: None,
        mtu: 1450,
        reach: Reach::default(),
    });
    links.handle(LinkInput::Peer { id: PEER, facts }, now);
    let frame = if how & 8 == 0 {
        rest.to_vec()
    } else {
        [&header(GROUP, source_mac(PEER), ETHERTYPE)[..], rest].concat()
    };
    let encapsulation = if how & 2 == 0 {
        mesh::Encapsulation::Sleeve
    } else {
        mesh::Encapsulation::Vxlan
    };
    let arrived = Arrived {
        encapsulation,
        from: SocketAddr::from(([192, 0, 2, 1 + (how >> 6)], 6783)),
        relayed: how & 4 != 0,
        frame,
    };
    while links.poll_output().is_some() {}
    links.handle(LinkInput::Probe(arrived), now);
    let mut probes = 0;
    while let Some(output) = links.poll_output() {
        match output {
            LinkOutput::Probe(_) => probes += 1,
            LinkOutput::Link(change) => panic!("{change:?}"),
            LinkOutput::Reach(_) | LinkOutput::SleeveSeen(_) => {}
        }
    }
    assert!(probes <= 8, "{probes} probes for one");
    assert!(!links.is_up(PEER));
});
