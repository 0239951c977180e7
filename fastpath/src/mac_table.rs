//! The forwarding database: on which port each MAC was last seen.
//!
//! The table is shared by all workers; in front of it each has a small [`MacCache`], so that the
//! shared one is touched once a second per flow and not once a packet. A generation number, raised
//! on every change, empties the caches.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use foldhash::fast::RandomState;
use wire::Mac;

use crate::forwarding::Slot;

/// Where a MAC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// On this node's bridge.
    Local,
    /// Behind a link.
    Link(Slot),
}

/// A learned address, for the status page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacEntry {
    /// The address.
    pub mac: Mac,
    /// Where it was seen.
    pub port: Port,
    /// Seconds since then.
    pub age: u32,
}

/// The shared table. Bounded: when it is full no new address is learned, which costs flooding, not
/// delivery, and is counted.
#[derive(Debug)]
pub struct MacTable {
    map: DashMap<Mac, Learned, RandomState>,
    capacity: usize,
    len: AtomicUsize,
    generation: AtomicU64,
    refused: AtomicU64,
    moved: AtomicU64,
}

#[derive(Debug)]
struct Learned {
    port: Port,
    /// Seconds on the worker's clock. Atomic, so that a refresh takes no exclusive lock.
    seen: AtomicU32,
}

impl MacTable {
    /// A table for at most `capacity` addresses.
    pub fn new(capacity: usize) -> Self {
        Self {
            map: DashMap::with_hasher(RandomState::default()),
            capacity,
            len: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        }
    }

    /// Where `mac` was last seen.
    pub fn lookup(&self, mac: Mac) -> Option<Port> {
        self.map.get(&mac).map(|learned| learned.port)
    }

    /// Notes that `mac` was seen on `port` at `now` (seconds). A moved address is relearned at once.
    /// Returns whether it was not known to be there.
    pub fn learn(&self, mac: Mac, port: Port, now: u32) -> bool {
        if let Some(learned) = self.map.get(&mac)
            && learned.port == port
        {
            learned.seen.store(now, Relaxed);
            return false;
        }
        // Reserved before the insertion, so that racing workers cannot pass the bound together.
        if self.len.fetch_add(1, Relaxed) >= self.capacity && !self.map.contains_key(&mac) {
            self.len.fetch_sub(1, Relaxed);
            self.refused.fetch_add(1, Relaxed);
            return false;
        }
        let learned = Learned {
            port,
            seen: AtomicU32::new(now),
        };
        match self.map.entry(mac) {
            MapEntry::Occupied(mut there) => {
                self.len.fetch_sub(1, Relaxed);
                there.insert(learned);
                self.moved.fetch_add(1, Relaxed);
            }
            MapEntry::Vacant(free) => {
                free.insert(learned);
            }
        }
        self.generation.fetch_add(1, Release);
        true
    }

    /// Forgets what was not seen for more than `age` seconds.
    pub fn expire(&self, now: u32, age: u32) {
        self.forget(|learned| now.saturating_sub(learned.seen.load(Relaxed)) > age);
    }

    /// Forgets what was learned from a link. Called when the link goes, before its slot is reused.
    pub fn forget_link(&self, slot: Slot) {
        self.forget(|learned| learned.port == Port::Link(slot));
    }

    fn forget(&self, stale: impl Fn(&Learned) -> bool) {
        let mut gone = 0;
        self.map.retain(|_, learned| {
            let stale = stale(learned);
            gone += usize::from(stale);
            !stale
        });
        if gone > 0 {
            self.len.fetch_sub(gone, Relaxed);
            self.generation.fetch_add(1, Release);
        }
    }

    /// Addresses known.
    pub fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Addresses not learned because the table was full.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Addresses that changed their port.
    pub fn moved(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    /// A copy of the table, sorted by address.
    pub fn entries(&self, now: u32) -> Vec<MacEntry> {
        let mut all: Vec<_> = self
            .map
            .iter()
            .map(|entry| MacEntry {
                mac: *entry.key(),
                port: entry.port,
                age: now.saturating_sub(entry.seen.load(Relaxed)),
            })
            .collect();
        all.sort_unstable_by_key(|entry| entry.mac);
        all
    }
}

/// A worker's own window on the table: direct-mapped, so that looking in costs one comparison.
#[derive(Debug)]
pub struct MacCache {
    /// Destinations, and apart from them sources: a flow's pair never shares a line.
    found: Box<[Line; LINES]>,
    learned: Box<[Line; LINES]>,
    generation: u64,
    second: u32,
}

/// Enough for the flows that a worker handles within a second, small enough for the L1 cache.
const LINES: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Line {
    mac: Mac,
    port: Port,
}

const EMPTY: Line = Line {
    mac: Mac::ZERO,
    port: Port::Local,
};

impl MacCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self {
            found: Box::new([EMPTY; LINES]),
            learned: Box::new([EMPTY; LINES]),
            generation: u64::MAX,
            second: 0,
        }
    }

    /// To be called once per batch: forgets what may have changed since the last.
    pub fn refresh(&mut self, table: &MacTable, now: u32) {
        // Whoever sees the number sees the change that it stands for.
        let generation = table.generation.load(Acquire);
        if generation != self.generation || now != self.second {
            self.generation = generation;
            self.second = now;
            self.found.fill(EMPTY);
            self.learned.fill(EMPTY);
        }
    }

    /// Where `mac` is, asking the table on a miss. `mac` must not be [`Mac::ZERO`].
    pub fn lookup(&mut self, table: &MacTable, mac: Mac) -> Option<Port> {
        let line = &mut self.found[index(mac)];
        if line.mac == mac {
            return Some(line.port);
        }
        let port = table.lookup(mac)?;
        *line = Line { mac, port };
        Some(port)
    }

    /// Notes that `mac` was seen on `port`, telling the table at most once a second. Returns whether
    /// it was not known to be there.
    pub fn learn(&mut self, table: &MacTable, mac: Mac, port: Port, now: u32) -> bool {
        let line = &mut self.learned[index(mac)];
        if line.mac == mac && line.port == port {
            return false;
        }
        *line = Line { mac, port };
        table.learn(mac, port, now)
    }
}

impl Default for MacCache {
    fn default() -> Self {
        Self::new()
    }
}

/// The low bytes differ most, whether the kernel drew the address or a vendor counted it up.
fn index(mac: Mac) -> usize {
    let [_, _, c, d, e, f] = mac.0;
    usize::from(f ^ c.rotate_left(3)) ^ usize::from(e.wrapping_mul(31) ^ d.rotate_left(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    #[test]
    fn a_moved_address_is_relearned_at_once() {
        let (table, mut one, mut two) = (MacTable::new(8), MacCache::new(), MacCache::new());
        one.refresh(&table, 1);
        two.refresh(&table, 1);
        one.learn(&table, mac(1), Port::Link(3), 1);
        two.refresh(&table, 1);
        assert_eq!(two.lookup(&table, mac(1)), Some(Port::Link(3)));
        one.learn(&table, mac(1), Port::Local, 1);
        two.refresh(&table, 1);
        assert_eq!(two.lookup(&table, mac(1)), Some(Port::Local));
        assert_eq!((table.len(), table.moved()), (1, 1));
    }

    #[test]
    fn a_full_table_learns_nothing_new_but_still_moves_what_it_knows() {
        let table = MacTable::new(2);
        table.learn(mac(1), Port::Local, 0);
        table.learn(mac(2), Port::Local, 0);
        table.learn(mac(3), Port::Local, 0);
        assert_eq!(
            (table.lookup(mac(3)), table.len(), table.refused()),
            (None, 2, 1)
        );
        table.learn(mac(1), Port::Link(0), 0);
        assert_eq!(
            (table.lookup(mac(1)), table.len()),
            (Some(Port::Link(0)), 2)
        );
    }

    #[test]
    fn ages_and_links_are_forgotten() {
        let table = MacTable::new(8);
        table.learn(mac(1), Port::Link(0), 10);
        table.learn(mac(2), Port::Link(1), 10);
        table.learn(mac(1), Port::Link(0), 500);
        table.expire(611, 600);
        assert_eq!(
            (table.lookup(mac(1)), table.lookup(mac(2))),
            (Some(Port::Link(0)), None)
        );
        table.forget_link(0);
        assert!(table.is_empty() && table.lookup(mac(1)).is_none());
    }

    #[test]
    fn the_cache_refreshes_the_table_once_a_second() {
        let (table, mut cache) = (MacTable::new(8), MacCache::new());
        for now in [1, 5] {
            cache.refresh(&table, now);
            cache.learn(&table, mac(1), Port::Local, now);
        }
        assert_eq!(
            table.entries(7),
            [MacEntry {
                mac: mac(1),
                port: Port::Local,
                age: 2
            }]
        );
    }
}
