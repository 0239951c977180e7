//! The packet engine without the kernel around it: frames from a TAP into trains, trains into
//! frames for a TAP.

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use fastpath::{
    Arrival, ControlSink, Counters, Datagram, Egress, Encapsulation, Forwarding, FrameSink,
    GsoType, Ingress, Link, MacTable, Outlets, Port, TapTakes, Train, TrainLimits, TrainSink,
    VnetHdr,
};
use wire::{Mac, PeerId, Vni, checksum, ethernet, sleeve};

const HERE: Mac = Mac([2, 0, 0, 0, 0, 7]);
const THERE: Mac = Mac([2, 0, 0, 0, 0, 9]);
const MTU: u16 = 1450;
/// TCP payload of a full segment: the MTU less 20 and 20.
const MSS: u16 = 1410;
const HEADERS: usize = 54;

fn endpoint() -> SocketAddr {
    SocketAddr::from(([192, 168, 77, 2], 6784))
}

const ME: PeerId = PeerId([1; 8]);
const PEER: PeerId = PeerId([2; 8]);

/// What `me` knows: a link to `peer`.
fn forwarding(me: PeerId, peer: PeerId, encapsulation: Encapsulation) -> Forwarding {
    let link = Link {
        encapsulation,
        ..Link::vxlan(Some(peer), endpoint(), MTU)
    };
    Forwarding::new(Vni::DEFAULT, me, None, [(0, link)])
}

/// What a TAP with offloads hands over: an offload header and a TCP frame of `payload` bytes, its
/// checksum left to the device.
fn tap_read(payload: usize) -> Vec<u8> {
    let len = u16::try_from(40 + payload).expect("benches use frames of at most 64 KB");
    let header = VnetHdr {
        needs_csum: true,
        gso: if payload > usize::from(MSS) {
            GsoType::TcpV4
        } else {
            GsoType::None
        },
        ecn: false,
        hdr_len: 54,
        gso_size: if payload > usize::from(MSS) { MSS } else { 0 },
        csum_start: 34,
        csum_offset: 16,
    };
    let mut read = header.bytes().to_vec();
    read.extend(ethernet::header(THERE, HERE, ethernet::ETHERTYPE_IPV4));
    let mut ip = [
        0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 32, 0, 7, 10, 40, 0, 9,
    ];
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    let sum = checksum::checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    read.extend(ip);
    let mut tcp = [
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ];
    let pseudo = checksum::pseudo_header_v4(
        [10, 32, 0, 7].into(),
        [10, 40, 0, 9].into(),
        checksum::PROTOCOL_TCP,
        len - 20,
    );
    tcp[16..18].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
    read.extend(tcp);
    read.extend((0..=250u8).cycle().take(payload));
    read
}

/// Keeps the last train.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    segment: usize,
}

impl TrainSink for Kept {
    fn send(&mut self, train: Train<'_>) {
        self.bytes = train.bytes.to_vec();
        self.segment = train.segment;
    }
}

/// Drops everything, as fast as a kernel that takes no time.
struct Gone;

impl TrainSink for Gone {
    fn send(&mut self, train: Train<'_>) {
        black_box(train.bytes);
    }
}

impl FrameSink for Gone {
    fn deliver(&mut self, parts: &[&[u8]]) {
        black_box(parts);
    }
}

impl ControlSink for Gone {
    fn probe(&mut self, probe: Arrival<'_>) {
        black_box(probe);
    }
}

fn egress(c: &mut Criterion) {
    let (macs, counters) = (MacTable::new(1000), Counters::default());
    macs.learn(THERE, Port::Link(0), 0);
    let mut engine = Egress::new(1, TrainLimits::default());
    let mut group = c.benchmark_group("egress");
    for (name, payload, encapsulation) in [
        ("64 B", 10, Encapsulation::Vxlan),
        ("full frame", usize::from(MSS), Encapsulation::Vxlan),
        ("60 KB cut", 42 * 1410, Encapsulation::Vxlan),
        ("60 KB cut, sleeve", 42 * 1410, Encapsulation::Sleeve),
    ] {
        let forwarding = forwarding(ME, PEER, encapsulation);
        let read = tap_read(payload);
        group.throughput(Throughput::Bytes((read.len() - VnetHdr::LEN) as u64));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || read.clone(),
                |read| {
                    engine.begin(&forwarding, &macs, 0);
                    engine.frame(read, &forwarding, &macs, &counters, &mut Gone, &mut Gone);
                    engine.flush(&mut Gone);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The train that [`PEER`] sends for one read from its TAP.
fn train(payload: usize, encapsulation: Encapsulation) -> Kept {
    let (forwarding, macs) = (forwarding(PEER, ME, encapsulation), MacTable::new(1000));
    macs.learn(THERE, Port::Link(0), 0);
    let mut kept = Kept::default();
    let mut engine = Egress::new(1, TrainLimits::default());
    engine.begin(&forwarding, &macs, 0);
    engine.frame(
        &mut tap_read(payload),
        &forwarding,
        &macs,
        &Counters::default(),
        &mut kept,
        &mut Gone,
    );
    engine.flush(&mut kept);
    assert!(
        kept.bytes.len() > payload + HEADERS,
        "the engine dropped the frame"
    );
    kept
}

fn ingress(c: &mut Criterion) {
    let mut group = c.benchmark_group("ingress");
    for (name, payload, encapsulation) in [
        ("64 B", 10, Encapsulation::Vxlan),
        ("full frame", usize::from(MSS), Encapsulation::Vxlan),
        ("60 KB join", 42 * 1410, Encapsulation::Vxlan),
        ("60 KB join, sleeve", 42 * 1410, Encapsulation::Sleeve),
    ] {
        let mut kept = train(payload, encapsulation);
        group.throughput(Throughput::Bytes(kept.bytes.len() as u64));
        let forwarding = forwarding(ME, PEER, encapsulation);
        receive(&mut group, name, &mut kept, encapsulation, &forwarding);
    }
    group.finish();
}

/// A train for another node, through this one.
fn relay(c: &mut Criterion) {
    let mut group = c.benchmark_group("relay");
    let mut kept = train(42 * 1410, Encapsulation::Sleeve);
    group.throughput(Throughput::Bytes(kept.bytes.len() as u64));
    let by_sleeve = |peer, last| Link {
        encapsulation: Encapsulation::Sleeve,
        ..Link::vxlan(
            Some(peer),
            SocketAddr::from(([192, 168, 77, last], 6783)),
            MTU,
        )
    };
    let links = [by_sleeve(PEER, 2), by_sleeve(ME, 3)];
    let forwarding = Forwarding::new(Vni::DEFAULT, PeerId([9; 8]), None, (0..).zip(links));
    let encapsulation = Encapsulation::Sleeve;
    receive(&mut group, "60 KB", &mut kept, encapsulation, &forwarding);
    group.finish();
}

fn receive(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    kept: &mut Kept,
    encapsulation: Encapsulation,
    forwarding: &Forwarding,
) {
    let mut engine = Ingress::new(TapTakes {
        csum: true,
        tcp: true,
        udp: true,
    });
    let (macs, counters) = (MacTable::new(1000), Counters::default());
    group.bench_function(name, |b| {
        b.iter(|| {
            // A relay lowers the hop limit in place.
            if encapsulation == Encapsulation::Sleeve {
                for datagram in kept.bytes.chunks_mut(kept.segment) {
                    sleeve::set_hop_limit(datagram, sleeve::HOP_LIMIT);
                }
            }
            let received = Datagram {
                bytes: &mut kept.bytes,
                segment: kept.segment,
                source: endpoint(),
                encapsulation,
            };
            let mut out = Outlets {
                tap: &mut Gone,
                underlay: &mut Gone,
                control: &mut Gone,
            };
            engine.batch([received], forwarding, &macs, &counters, 0, &mut out);
        });
    });
}

criterion_group!(benches, egress, ingress, relay);
criterion_main!(benches);
