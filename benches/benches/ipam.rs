//! The address plan without disk and network: one address, and a ring of 5,000 tokens.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ipam::{AllocationKey, Allocator, Delta, Range, Ring, Seeding, Universe};
use wire::PeerName;

/// A cluster of 1,000 nodes has so many when each has a few blocks.
const TOKENS: u128 = 5000;
const HELD: usize = 1000;

fn name(number: u128) -> PeerName {
    format!("node-{number:04}").parse().expect("a node's name")
}

fn seeded() -> Ring {
    let net = "10.32.0.0/12".parse().expect("the default range");
    let universe = Universe::new(net).expect("it has room");
    let seeding = Seeding::new([name(0)]).expect("one name");
    Ring::seeded(universe, &seeding).expect("it has room for one")
}

/// Every second block of 128 addresses is another node's.
fn fragmented() -> Ring {
    let mut ring = seeded();
    let first = ring.universe().range().first();
    for i in 0..TOKENS / 2 {
        let start = first + 128 + i * 256;
        let block = Range::new(start, start + 127).expect("in order");
        let owner = name(1 + i % 999);
        ring.give(block, &name(0), &owner).expect("it is node 0's");
    }
    assert!(ring.tokens() as u128 >= TOKENS);
    ring
}

/// All claims of a ring, a version later: each of them wins.
fn later(ring: &Ring) -> Delta {
    let mut later = ring.clone();
    for (range, claim) in ring.ranges() {
        let owner = &claim.expect("all is decided").owner;
        later.give(range, owner, owner).expect("it is the owner's");
    }
    later.delta()
}

fn allocate(c: &mut Criterion) {
    let key = |i: usize| AllocationKey::new(format!("{i:064x}"), "eth0").expect("an id");
    let mut allocator = Allocator::new(name(0), seeded(), Duration::ZERO);
    for i in 0..HELD {
        let given = allocator.allocate(&key(i), None, Duration::ZERO);
        given.expect("the range is empty");
    }
    allocator.drain_changes();
    let mut now = Duration::ZERO;
    let key = key(HELD);
    c.bench_function("ipam, 1000 held: allocate and release", |b| {
        b.iter(|| {
            now += Duration::from_millis(1);
            let given = allocator.allocate(&key, None, now);
            black_box(given).expect("there is more");
            allocator.release(&key, now);
            allocator.drain_changes()
        });
    });
}

fn rings(c: &mut Criterion) {
    let ring = fragmented();
    let delta = later(&ring);
    let mut group = c.benchmark_group("ipam, 5000 tokens");
    group.bench_function("merge, all news", |b| {
        b.iter_batched_ref(
            || ring.clone(),
            |ring| ring.merge(&delta).expect("the same universe"),
            BatchSize::LargeInput,
        );
    });
    let mut own = ring.clone();
    group.bench_function("merge, no news", |b| {
        let same = ring.delta();
        b.iter(|| own.merge(&same).expect("the same universe"));
    });
    group.bench_function("delta encode", |b| b.iter(|| delta.encode()));
    let bytes = delta.encode();
    group.bench_function("delta decode", |b| {
        b.iter(|| Delta::decode(black_box(&bytes)).expect("just encoded"));
    });
    group.bench_function("digest", |b| b.iter(|| ring.digest()));
    group.finish();
}

criterion_group!(benches, allocate, rings);
criterion_main!(benches);
