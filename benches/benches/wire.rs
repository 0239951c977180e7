//! What is done to every frame: parse, hash, checksum, encapsulate.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wire::{Mac, Vni, checksum, decode, ethernet, flow, vxlan};

/// An Ethernet, IPv4 and TCP header and `payload` bytes behind them.
fn tcp_frame(payload: usize) -> Vec<u8> {
    let mut frame = ethernet::header(
        Mac([2, 0, 0, 0, 0, 9]),
        Mac([2, 0, 0, 0, 0, 7]),
        ethernet::ETHERTYPE_IPV4,
    )
    .to_vec();
    frame.extend([
        0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 32, 0, 7, 10, 40, 0, 9,
    ]);
    let total = u16::try_from(40 + payload).expect("benches use frames of at most 64 KB");
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame.extend([
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    frame.extend((0..=250u8).cycle().take(payload));
    frame
}

fn udp6_frame() -> Vec<u8> {
    let mut frame = ethernet::header(
        Mac([2, 0, 0, 0, 0, 9]),
        Mac([2, 0, 0, 0, 0, 7]),
        ethernet::ETHERTYPE_IPV6,
    )
    .to_vec();
    frame.extend([0x60, 0, 0, 0, 0, 8, 17, 64]);
    frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    frame.extend([0x14, 0xe9, 0, 53, 0, 8, 0, 0]);
    frame
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let frame = tcp_frame(1396);
    let mut datagram = vxlan::header(Vni::DEFAULT).to_vec();
    datagram.extend(&frame);
    group.bench_function("vxlan and ethernet", |b| {
        b.iter(|| {
            let (vni, frame) = vxlan::parse(black_box(&datagram)).expect("a good datagram");
            (
                vni,
                ethernet::dst(frame),
                ethernet::src(frame),
                ethernet::ethertype(frame),
            )
        });
    });
    group.bench_function("decode for people", |b| {
        b.iter(|| decode::decode(black_box(&frame), &[vxlan::DEFAULT_PORT]));
    });
    group.finish();
}

fn flow_hash(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow hash");
    let mut tagged = tcp_frame(64);
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    let arp = wire::arp::announcement(Mac([2, 0, 0, 0, 0, 7]), [10, 32, 0, 7].into());
    for (name, frame) in [
        ("tcp4", tcp_frame(64)),
        ("tcp4 tagged", tagged),
        ("udp6", udp6_frame()),
        ("arp", arp.to_vec()),
    ] {
        group.bench_function(name, |b| b.iter(|| flow::hash(black_box(&frame))));
    }
    group.finish();
}

fn internet_checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [20, 64, 1400, 65_536] {
        let bytes: Vec<u8> = (0..=250u8).cycle().take(len).collect();
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(len.to_string(), |b| {
            b.iter(|| checksum::checksum(black_box(&bytes)))
        });
    }
    group.finish();
}

fn encapsulate(c: &mut Criterion) {
    let mut group = c.benchmark_group("vxlan header and copy");
    for payload in [24, 1396] {
        let frame = tcp_frame(payload);
        let mut out = vec![0; vxlan::HEADER_LEN + frame.len()];
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(frame.len().to_string(), |b| {
            b.iter(|| {
                let (header, room) = out.split_at_mut(vxlan::HEADER_LEN);
                header.copy_from_slice(&vxlan::header(black_box(Vni::DEFAULT)));
                room.copy_from_slice(black_box(&frame));
                black_box(&mut out);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parse, flow_hash, internet_checksum, encapsulate);
criterion_main!(benches);
