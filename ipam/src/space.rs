//! Which addresses a node may hand out: of those that it owns, the free ones and those held down
//! after a release. Runs and single records only, nothing that grows with the size of the range.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::range::Range;
use crate::range_set::RangeSet;

/// Most addresses held down at a time: as many as the default range has. Beyond it the one
/// released longest ago is let go early; it costs 100 bytes each.
const MAX_COOLING: usize = 1 << 20;

/// The allocator's view of addresses, without who uses them.
///
/// S1: `free` holds exactly the addresses that are owned, not reserved, not in use and not
/// cooling.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Space {
    /// The universe without its reserved first and last address.
    hosts: Range,
    /// Owned hosts.
    owned: RangeSet,
    free: RangeSet,
    /// Released addresses and when they may be used again.
    cooling: BTreeMap<u128, Duration>,
    /// The same, the earliest first.
    queue: BTreeSet<(Duration, u128)>,
}

impl Space {
    pub(crate) fn new(hosts: Range) -> Self {
        Self {
            hosts,
            owned: RangeSet::new(),
            free: RangeSet::new(),
            cooling: BTreeMap::new(),
            queue: BTreeSet::new(),
        }
    }

    /// Sets what is owned; `used` are all addresses in use, owned or not.
    pub(crate) fn set_owned(&mut self, owned: &RangeSet, used: impl Iterator<Item = u128>) {
        self.owned = owned.within(self.hosts).collect();
        self.free = self.owned.clone();
        for address in used.chain(self.cooling.keys().copied()) {
            self.free.remove(Range::single(address));
        }
    }

    pub(crate) fn owned(&self) -> &RangeSet {
        &self.owned
    }

    pub(crate) fn free(&self) -> &RangeSet {
        &self.free
    }

    /// How many owned addresses are held down. Counts one by one.
    pub(crate) fn cooling(&self) -> usize {
        self.cooling
            .keys()
            .filter(|&&address| self.owned.contains(address))
            .count()
    }

    /// The address to hand out next: the lowest free one, or if there is none the one whose
    /// hold-down ends first.
    pub(crate) fn next_within(&self, window: Range) -> Option<u128> {
        self.free.lowest_within(window).or_else(|| {
            let mut released = self.queue.iter().map(|&(_, address)| address);
            released.find(|&address| window.contains(address) && self.owned.contains(address))
        })
    }

    /// The address is in use from now on; returns until when it was held down.
    pub(crate) fn take(&mut self, address: u128) -> Option<Duration> {
        self.free.remove(Range::single(address));
        self.warm(address)
    }

    /// The address is out of use, and was never to be held down.
    pub(crate) fn free_again(&mut self, address: u128) {
        if self.owned.contains(address) {
            self.free.insert(Range::single(address));
        }
    }

    /// The address is out of use, and held down until `reusable_at`.
    pub(crate) fn give_back(&mut self, address: u128, reusable_at: Duration) {
        self.take(address);
        self.cooling.insert(address, reusable_at);
        self.queue.insert((reusable_at, address));
    }

    /// Ends the hold-down of addresses whose time has come, and returns them.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<u128> {
        let mut expired = Vec::new();
        while let Some(&(reusable_at, address)) = self.queue.first()
            && (reusable_at <= now || self.cooling.len() > MAX_COOLING)
        {
            self.warm(address);
            self.free_again(address);
            expired.push(address);
        }
        expired
    }

    fn warm(&mut self, address: u128) -> Option<Duration> {
        let reusable_at = self.cooling.remove(&address)?;
        self.queue.remove(&(reusable_at, address));
        Some(reusable_at)
    }
}
