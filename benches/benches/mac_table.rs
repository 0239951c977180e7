//! The forwarding database with as many stations as a large cluster has, and as a hundred of them
//! have, beside what could stand in its place.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::sync::RwLock;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use dashmap::DashMap;
use fastpath::{MacCache, MacTable, Port};
use wire::Mac;

/// Destinations of a worker within a second, as its cache sees them.
const ACTIVE: usize = 32;

fn mac(station: u32) -> Mac {
    // Multiplied by an odd number, so that addresses differ in all bytes as the kernel's do.
    let [a, b, c, d] = station.wrapping_mul(0x9e37_79b1).to_be_bytes();
    Mac([0x02, 0x42, a, b, c, d])
}

fn port(station: u32) -> Port {
    Port::Link(u16::try_from(station % 1000).unwrap_or(0))
}

/// Looks all stations up in turn, in an order that no prefetcher follows.
fn each(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    macs: &[Mac],
    lookup: impl Fn(Mac) -> Option<Port>,
) {
    let mut next = macs.iter().cycle();
    group.bench_function(name, |b| {
        b.iter(|| lookup(*next.next().expect("endless")));
    });
}

fn filled<S: BuildHasher + Default>(stations: u32) -> HashMap<Mac, Port, S> {
    let entries = (0..stations).map(|station| (mac(station), port(station)));
    entries.collect()
}

fn sharded<S: BuildHasher + Default + Clone>(stations: u32) -> DashMap<Mac, Port, S> {
    let entries = (0..stations).map(|station| (mac(station), port(station)));
    entries.collect()
}

fn lookups(c: &mut Criterion) {
    for stations in [10_000, 1_000_000] {
        let mut group = c.benchmark_group(format!("mac, {stations} known"));
        let macs: Vec<_> = (0..stations).map(mac).collect();

        let table = MacTable::new(2_000_000);
        for (station, mac) in (0..).zip(&macs) {
            table.learn(*mac, port(station), 0);
        }
        each(&mut group, "table (dashmap, foldhash)", &macs, |mac| {
            table.lookup(mac)
        });
        let mut next = macs.iter().cycle();
        group.bench_function("table, refresh", |b| {
            b.iter(|| {
                let station = *next.next().expect("endless");
                let port = table.lookup(station).expect("learned above");
                table.learn(station, port, black_box(1));
            });
        });
        group.bench_function("table, unknown", |b| {
            b.iter(|| table.lookup(black_box(Mac([0x06; 6]))));
        });
        let mut cache = MacCache::new();
        cache.refresh(&table, 0);
        let mut next = macs[..ACTIVE].iter().cycle();
        group.bench_function("worker's cache before the table", |b| {
            b.iter(|| cache.lookup(&table, *next.next().expect("endless")));
        });
        drop(table);

        let map = sharded::<RandomState>(stations);
        each(&mut group, "dashmap, SipHash", &macs, |mac| {
            map.get(&mac).map(|port| *port)
        });
        let map = RwLock::new(filled::<foldhash::fast::RandomState>(stations));
        each(&mut group, "one lock, foldhash", &macs, |mac| {
            let map = map.read().expect("nobody panics with it");
            map.get(&mac).copied()
        });
        let map = filled::<foldhash::fast::RandomState>(stations);
        each(&mut group, "no lock, foldhash", &macs, |mac| {
            map.get(&mac).copied()
        });
        let map = filled::<RandomState>(stations);
        each(&mut group, "no lock, SipHash", &macs, |mac| {
            map.get(&mac).copied()
        });
        group.finish();
    }
}

criterion_group!(benches, lookups);
criterion_main!(benches);
