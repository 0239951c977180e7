//! A node's engine with a few links, plain or sealed, and sinks that look at what comes out.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use fastpath::{
    Cipher, Counters, Encapsulation, Forwarding, FrameSink, Link, MAX_PARTS, MacTable, OpenKey,
    OwnAddress, SealKey, Sealer, Slot, Train, TrainSink, VnetHdr,
};
use wire::{Mac, PeerId, Vni};

pub const ME: PeerId = PeerId([0xee; 8]);

pub fn peer(n: u8) -> PeerId {
    PeerId([n; 8])
}

pub fn endpoint(n: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], port))
}

/// Peer 1 in VXLAN (where all is sealed: in a trusted subnet), peer 2 in sleeve, which takes aggregates, peer 3 by
/// peer 2.
pub fn forwarding(sealed: bool, mtu: u16) -> Forwarding {
    let own = OwnAddress {
        mac: Mac([2, 0, 0, 0, 0, 1]),
        v4: Some(Ipv4Addr::new(10, 32, 0, 1)),
    };
    let sealer = |takes| {
        let sealer = Sealer::new();
        let key = || OpenKey::new(Cipher::ChaCha20Poly1305, &[7; 32], 1);
        let seals = SealKey::new(Cipher::ChaCha20Poly1305, &[7; 32], 1).aggregating(takes);
        sealer.set(Some(Arc::new(seals)), [Some(Arc::new(key())), None, None]);
        sealed.then(|| Arc::new(sealer))
    };
    let vxlan = Link {
        sealer: sealer(false),
        plain: Some(endpoint(1, 0).ip()),
        ..Link::vxlan(Some(peer(1)), endpoint(1, 6784), mtu)
    };
    let sleeve = |n: u8, via: u8| Link {
        encapsulation: Encapsulation::Sleeve,
        sealer: sealer(n == via),
        sleeve: (n == via).then(|| endpoint(n, 6783)),
        ..Link::vxlan(Some(peer(n)), endpoint(via, 6783), mtu)
    };
    let links = [vxlan, sleeve(2, 2), sleeve(3, 2)];
    let links = (0 as Slot..).zip(links);
    let forwarding = Forwarding::new(Vni::DEFAULT, ME, Some(own), links);
    if sealed {
        forwarding.sealed()
    } else {
        forwarding
    }
}

/// What a node has besides.
pub struct Tables {
    pub macs: MacTable,
    pub counters: Counters,
}

impl Tables {
    pub fn new() -> Self {
        Self {
            macs: MacTable::new(256),
            counters: Counters::default(),
        }
    }
}

/// A TAP: each frame begins with a header that can be read, and is no longer than the kernel takes.
pub struct Tap;

impl FrameSink for Tap {
    fn deliver(&mut self, parts: &[&[u8]]) {
        assert!(parts.len() <= MAX_PARTS);
        let frame = parts.concat();
        assert!(VnetHdr::parse(&frame).is_some());
        assert!(frame.len() <= VnetHdr::LEN + 65_557, "{}", frame.len());
    }
}

/// The underlay: trains are what the kernel takes, and nothing plain leaves a sealed node unasked.
pub struct Underlay {
    pub sealed: bool,
}

impl TrainSink for Underlay {
    fn send(&mut self, train: Train<'_>) {
        assert_eq!(train.bytes.chunks(train.segment).count(), train.count);
        assert!(train.bytes.len() <= 65_535 && train.count <= 64);
        if self.sealed && train.encapsulation == Encapsulation::Sleeve {
            for datagram in train.bytes.chunks(train.segment) {
                let (header, _) = wire::sleeve::parse(datagram).expect("a whole header");
                assert_ne!(header.kind, wire::sleeve::Kind::PLAIN, "it is in the clear");
            }
        }
    }
}
