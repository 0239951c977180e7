//! Which broadcasts have come already.

use std::collections::BTreeMap;

use wire::PeerId;

/// A broadcast may come this much later than a newer one of the same origin.
const WINDOW: u64 = 128;

/// The latest broadcasts of each origin: 32 bytes for an origin, whatever it sends.
///
/// An origin's numbers grow over all of its runs, so that what an earlier run sent is old news and
/// stays so. If each run had a window of its own, a message of one run would open the way for those of
/// the other, and the two would circulate for ever and multiply.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<PeerId, Window>);

#[derive(Debug)]
struct Window {
    /// The greatest number seen.
    top: u64,
    /// Bit n: the number `top - n` has come.
    bits: u128,
}

impl Seen {
    /// Notes a broadcast; says whether it is the first time that it comes. One that is older than
    /// the window counts as seen.
    pub(crate) fn note(&mut self, origin: PeerId, sequence: u64) -> bool {
        let window = self.0.entry(origin).or_insert(Window {
            top: sequence,
            bits: 0,
        });
        if let Some(ahead) = sequence.checked_sub(window.top).filter(|ahead| *ahead > 0) {
            let shift = u32::try_from(ahead).unwrap_or(u32::MAX);
            window.bits = window.bits.checked_shl(shift).unwrap_or(0);
            window.top = sequence;
        }
        let behind = window.top - sequence;
        if behind >= WINDOW {
            return false;
        }
        let bit = 1 << behind;
        let new = window.bits & bit == 0;
        window.bits |= bit;
        new
    }

    /// Keeps those origins alone.
    pub(crate) fn retain(&mut self, keep: impl Fn(PeerId) -> bool) {
        self.0.retain(|origin, _| keep(*origin));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: PeerId = PeerId([1; 8]);

    #[test]
    fn each_comes_once_and_a_restart_counts_on() {
        let mut seen = Seen::default();
        assert!(seen.note(A, 0) && !seen.note(A, 0));
        assert!(seen.note(A, 1 << 32) && !seen.note(A, 5));
        assert!(seen.note(PeerId([2; 8]), 5));
        assert!(seen.note(A, (1 << 32) + 2) && seen.note(A, (1 << 32) + 1));
        assert!(seen.note(A, u64::MAX) && !seen.note(A, 1 << 32));
        seen.retain(|origin| origin != A);
        assert!(seen.note(A, 1));
    }

    proptest! {
        #[test]
        fn i3_nothing_comes_twice(numbers in prop::collection::vec(0u64..400, 0..200)) {
            let mut seen = Seen::default();
            let mut model = BTreeSet::new();
            for number in numbers {
                let top = model.last().copied().unwrap_or(0);
                let wanted = number + WINDOW > top && !model.contains(&number);
                prop_assert_eq!(seen.note(A, number), wanted);
                model.insert(number);
            }
        }
    }
}
