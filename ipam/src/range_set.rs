//! A set of addresses kept as runs, so that its cost follows the number of runs and never the
//! number of addresses: an IPv6 /64 is one entry.

use std::collections::BTreeMap;
use std::fmt;

use crate::range::Range;

/// A set of addresses. Runs are disjoint and never touch each other: two that touch are one.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct RangeSet {
    /// First address of each run, and its last.
    runs: BTreeMap<u128, u128>,
    size: u128,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many addresses. Saturates: the whole 128-bit space counts one too few.
    pub fn size(&self) -> u128 {
        self.size
    }

    /// Whether there is no address in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: u128) -> bool {
        self.runs
            .range(..=address)
            .next_back()
            .is_some_and(|(_, &last)| address <= last)
    }

    /// Its runs, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.runs.iter().map(|(&first, &last)| run(first, last))
    }

    /// The parts of its runs that lie within `window`, in order. Costs a search, then one step
    /// for each run.
    pub fn within(&self, window: Range) -> impl Iterator<Item = Range> + '_ {
        let from = self
            .runs
            .range(..=window.first())
            .next_back()
            .filter(|&(_, &last)| last >= window.first())
            .map_or(window.first(), |(&first, _)| first);
        self.runs
            .range(from..=window.last())
            .filter_map(move |(&first, &last)| run(first, last).overlap(&window))
    }

    /// The lowest address within `window`.
    pub fn lowest_within(&self, window: Range) -> Option<u128> {
        self.within(window).next().map(|range| range.first())
    }

    /// How many addresses lie within `window`.
    pub fn size_within(&self, window: Range) -> u128 {
        self.within(window)
            .fold(0, |sum: u128, range| sum.saturating_add(range.size()))
    }

    /// Adds a run; what is there already stays.
    pub fn insert(&mut self, range: Range) {
        let (mut first, mut last) = (range.first(), range.last());
        // One beyond on each side, because runs that touch become one.
        let touching = run(first.saturating_sub(1), last.saturating_add(1));
        let swallowed: Vec<(u128, u128)> = self.overlapping(touching).collect();
        for (old_first, old_last) in swallowed {
            first = first.min(old_first);
            last = last.max(old_last);
            self.runs.remove(&old_first);
            self.size -= run(old_first, old_last).size();
        }
        self.runs.insert(first, last);
        self.size = self.size.saturating_add(run(first, last).size());
    }

    /// Takes a run out; what is not there stays away.
    pub fn remove(&mut self, range: Range) {
        let cut: Vec<(u128, u128)> = self.overlapping(range).collect();
        for (first, last) in cut {
            self.runs.remove(&first);
            self.size -= run(first, last).size();
            if first < range.first() {
                self.keep(first, range.first() - 1);
            }
            if range.last() < last {
                self.keep(range.last() + 1, last);
            }
        }
    }

    /// Takes out everything that `other` has.
    pub fn remove_all(&mut self, other: &Self) {
        for range in other.iter() {
            self.remove(range);
        }
    }

    fn keep(&mut self, first: u128, last: u128) {
        self.runs.insert(first, last);
        self.size += run(first, last).size();
    }

    fn overlapping(&self, window: Range) -> impl Iterator<Item = (u128, u128)> + '_ {
        let before = self.runs.range(..window.first()).next_back();
        before
            .filter(move |&(_, &last)| last >= window.first())
            .into_iter()
            .chain(self.runs.range(window.first()..=window.last()))
            .map(|(&first, &last)| (first, last))
    }
}

fn run(first: u128, last: u128) -> Range {
    Range::new(first, last).expect("a run's first address is not behind its last")
}

impl FromIterator<Range> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain set of numbers, low in the space and at its very end.
        #[test]
        fn does_what_a_set_does(
            steps in prop::collection::vec((any::<bool>(), 0u128..40, 0u128..12), 0..40),
            at_the_end: bool,
            window in (0u128..40, 0u128..40),
        ) {
            let base = if at_the_end { u128::MAX - 51 } else { 0 };
            let mut set = RangeSet::new();
            let mut model = BTreeSet::new();
            for (add, first, span) in steps {
                let range = Range::new(base + first, base + first + span).unwrap();
                if add {
                    set.insert(range);
                    model.extend(range.first()..=range.last());
                } else {
                    set.remove(range);
                    model.retain(|a| !range.contains(*a));
                }
                prop_assert_eq!(set.size(), model.len() as u128);
                let listed: Vec<u128> = set.iter().flat_map(|r| r.first()..=r.last()).collect();
                prop_assert_eq!(listed, model.iter().copied().collect::<Vec<_>>());
                let mut runs = set.iter();
                let mut before = runs.next();
                for run in runs {
                    prop_assert!(before.unwrap().last() + 1 < run.first(), "runs touch: {set:?}");
                    before = Some(run);
                }
            }
            let window = Range::new(base + window.0.min(window.1), base + window.0.max(window.1)).unwrap();
            let inside: Vec<u128> = model.iter().copied().filter(|a| window.contains(*a)).collect();
            prop_assert_eq!(set.lowest_within(window), inside.first().copied());
            prop_assert_eq!(set.size_within(window), inside.len() as u128);
            for address in 0..52 {
                prop_assert_eq!(set.contains(base + address), model.contains(&(base + address)));
            }
        }
    }

    #[test]
    fn the_whole_space_is_one_run() {
        let whole = Range::new(0, u128::MAX).unwrap();
        let mut set = RangeSet::new();
        set.insert(whole);
        assert_eq!((set.size(), set.iter().count()), (u128::MAX, 1));
        set.remove(Range::new(1, u128::MAX - 1).unwrap());
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [Range::single(0), Range::single(u128::MAX)]
        );
    }
}
