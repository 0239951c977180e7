//! Which counters were seen: the sliding window of RFC 6479, shared by workers without a lock.
//!
//! RFC 6479 keeps a ring of bitmaps and the highest counter seen; moving the window clears the
//! bitmaps that come into reach. With several writers a bitmap could be cleared after another has
//! set a bit in it. Here each word of the ring says itself which block of counters its bits belong
//! to, and changes as a whole: taking a counter is one compare-and-swap, and there is no highest
//! counter to agree on.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::MAX_COUNTER;
use crate::counters::DropReason;

/// Counters in a word. The other half of it is the block's number.
const BLOCK: u64 = u32::BITS as u64;
/// Words of the ring: 16,384 counters in 4 KiB. A flow's datagrams overtake each other by what its
/// workers hold at a time, trains of 64 in batches of a few tens, and by what the underlay's queues
/// reorder.
const WORDS: usize = 512;

const _: () = assert!(
    MAX_COUNTER / BLOCK <= u32::MAX as u64,
    "a block's number fits in half a word"
);

#[derive(Debug)]
pub(super) struct Window {
    /// Number of a block in the upper half, in the lower a bit for each counter seen of it.
    ring: Box<[AtomicU64]>,
}

/// Where a counter's bit is.
struct Place {
    word: usize,
    block: u64,
    bit: u64,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            ring: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether a counter may still be taken.
    pub(super) fn check(&self, counter: u64) -> Result<(), DropReason> {
        let place = Self::place(counter)?;
        let word = self.ring[place.word].load(Relaxed);
        Self::with(word, &place).map(|_| ())
    }

    /// Takes a counter: of any number of calls with the same one, one succeeds at most.
    pub(super) fn take(&self, counter: u64) -> Result<(), DropReason> {
        let place = Self::place(counter)?;
        let word = &self.ring[place.word];
        let mut seen = word.load(Relaxed);
        loop {
            let taken = Self::with(seen, &place)?;
            match word.compare_exchange_weak(seen, taken, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    fn place(counter: u64) -> Result<Place, DropReason> {
        if counter >= MAX_COUNTER {
            return Err(DropReason::SealTooOld);
        }
        let block = counter / BLOCK;
        Ok(Place {
            word: (block % WORDS as u64) as usize,
            block,
            bit: 1 << (counter % BLOCK),
        })
    }

    /// The word with the counter taken.
    fn with(word: u64, place: &Place) -> Result<u64, DropReason> {
        let block = word >> BLOCK;
        if block > place.block {
            return Err(DropReason::SealTooOld);
        }
        if block < place.block {
            return Ok(place.block << BLOCK | place.bit);
        }
        if word & place.bit != 0 {
            return Err(DropReason::SealReplayed);
        }
        Ok(word | place.bit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SPAN: u64 = WORDS as u64 * BLOCK;

    #[test]
    fn every_counter_is_taken_once() {
        let window = Window::new();
        for counter in 0..3 * SPAN {
            assert_eq!(window.check(counter), Ok(()));
            assert_eq!(window.take(counter), Ok(()));
            assert_eq!(window.check(counter), Err(DropReason::SealReplayed));
            assert_eq!(window.take(counter), Err(DropReason::SealReplayed));
        }
        assert_eq!(window.take(0), Err(DropReason::SealTooOld));
    }

    #[test]
    fn a_train_that_is_overtaken_by_a_whole_window_is_taken() {
        let window = Window::new();
        window.take(SPAN).unwrap();
        // The block of the newest has the place of the oldest, and nothing else is lost.
        for counter in BLOCK..SPAN {
            assert_eq!(window.take(counter), Ok(()), "{counter}");
        }
        assert_eq!(window.take(BLOCK - 1), Err(DropReason::SealTooOld));
    }

    #[test]
    fn counters_beyond_the_last_are_refused() {
        let window = Window::new();
        assert_eq!(window.take(MAX_COUNTER - 1), Ok(()));
        for counter in [MAX_COUNTER, u64::MAX] {
            assert_eq!(window.take(counter), Err(DropReason::SealTooOld));
        }
        assert_eq!(window.take(MAX_COUNTER - 1), Err(DropReason::SealReplayed));
    }

    #[test]
    fn i3_of_threads_that_race_for_a_counter_one_wins() {
        let window = Window::new();
        let taken: Vec<u64> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..2 * SPAN).filter(|c| window.take(*c).is_ok()).collect())
                })
                .collect();
            let each = racers.into_iter().map(|racer| racer.join().unwrap());
            each.flat_map(|taken: Vec<u64>| taken).collect()
        });
        let distinct: BTreeSet<_> = taken.iter().collect();
        assert_eq!(distinct.len(), taken.len(), "a counter was taken twice");
    }

    proptest! {
        /// Against the definition: a counter is fresh if it was not taken and no block that shares
        /// its word is newer.
        #[test]
        fn agrees_with_a_set(counters in prop::collection::vec(0..4 * SPAN, 1..400)) {
            let window = Window::new();
            let mut seen: BTreeSet<u64> = BTreeSet::new();
            for counter in counters {
                let block = counter / BLOCK;
                let newer = seen.iter().any(|other| {
                    let other = other / BLOCK;
                    other > block && (other - block).is_multiple_of(WORDS as u64)
                });
                let expected = if newer {
                    Err(DropReason::SealTooOld)
                } else if seen.contains(&counter) {
                    Err(DropReason::SealReplayed)
                } else {
                    Ok(())
                };
                prop_assert_eq!(window.check(counter), expected);
                prop_assert_eq!(window.take(counter), expected);
                if expected.is_ok() {
                    seen.insert(counter);
                }
            }
        }
    }
}
