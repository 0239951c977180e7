//! The forwarding database with as many stations as a large cluster has.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use fastpath::{MacCache, MacTable, Port};
use wire::Mac;

const STATIONS: u32 = 10_000;
/// Destinations of a worker within a second, as its cache sees them.
const ACTIVE: usize = 32;

fn mac(station: u32) -> Mac {
    // Multiplied by an odd number, so that addresses differ in all bytes as the kernel's do.
    let [a, b, c, d] = station.wrapping_mul(0x9e37_79b1).to_be_bytes();
    Mac([0x02, 0x42, a, b, c, d])
}

fn full_table() -> MacTable {
    let table = MacTable::new(65_536);
    for station in 0..STATIONS {
        table.learn(
            mac(station),
            Port::Link(u16::try_from(station % 1000).unwrap_or(0)),
            0,
        );
    }
    table
}

fn lookups(c: &mut Criterion) {
    let table = full_table();
    let mut group = c.benchmark_group("mac, 10000 known");

    let all: Vec<_> = (0..STATIONS).map(mac).collect();
    let mut next = all.iter().cycle();
    group.bench_function("table lookup", |b| {
        b.iter(|| table.lookup(*next.next().expect("endless")));
    });
    let mut next = all.iter().cycle();
    group.bench_function("table refresh", |b| {
        b.iter(|| {
            let station = *next.next().expect("endless");
            let port = table.lookup(station).expect("learned above");
            table.learn(station, port, black_box(1));
        });
    });
    group.bench_function("table lookup, unknown", |b| {
        b.iter(|| table.lookup(black_box(Mac([0x06; 6]))));
    });

    let mut cache = MacCache::new();
    cache.refresh(&table, 0);
    let mut next = all[..ACTIVE].iter().cycle();
    group.bench_function("cache lookup", |b| {
        b.iter(|| cache.lookup(&table, *next.next().expect("endless")));
    });
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
