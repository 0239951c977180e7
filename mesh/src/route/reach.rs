//! What one node reaches directly over sleeve, as it tells the others.

use std::collections::BTreeSet;

use wire::PeerId;

/// Identities that a [`Reach`] lists at most: 2 KiB of a node's entry.
pub const MAX_REACH: usize = 256;

/// The peers that a node's sleeve reaches directly, in whichever form is shorter.
///
/// A peer that was not tried yet counts as reached, so that in a healthy network nothing is listed
/// and nothing changes when nodes come. Two nodes are neighbours if each reaches the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// All but these, in ascending order.
    AllExcept(Vec<PeerId>),
    /// These alone, in ascending order.
    Only(Vec<PeerId>),
}

impl Default for Reach {
    fn default() -> Self {
        Self::AllExcept(Vec::new())
    }
}

impl Reach {
    /// The shorter form. A list that is too long is cut so that less is claimed than there is: a
    /// way that is not used is better than one that does not exist.
    pub fn new(reached: &BTreeSet<PeerId>, missed: &BTreeSet<PeerId>) -> Self {
        if missed.len() <= MAX_REACH && missed.len() <= reached.len() {
            Self::AllExcept(missed.iter().copied().collect())
        } else {
            Self::Only(reached.iter().copied().take(MAX_REACH).collect())
        }
    }

    /// A form that another node sent: sorted and cut as [`Reach::new`] does, so that it can be
    /// searched and has a bound.
    #[must_use]
    pub fn normalised(self) -> Self {
        let sorted = |mut list: Vec<PeerId>| {
            list.sort_unstable();
            list.dedup();
            list
        };
        match self {
            Self::AllExcept(list) => {
                let list = sorted(list);
                if list.len() <= MAX_REACH {
                    Self::AllExcept(list)
                } else {
                    Self::Only(Vec::new())
                }
            }
            Self::Only(list) => {
                let mut list = sorted(list);
                list.truncate(MAX_REACH);
                Self::Only(list)
            }
        }
    }

    /// Whether the node reaches this peer.
    pub fn contains(&self, peer: PeerId) -> bool {
        match self {
            Self::AllExcept(list) => list.binary_search(&peer).is_err(),
            Self::Only(list) => list.binary_search(&peer).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(numbers: std::ops::Range<u64>) -> BTreeSet<PeerId> {
        numbers.map(|n| PeerId(n.to_be_bytes())).collect()
    }

    #[test]
    fn the_shorter_form_is_taken_and_says_the_same() {
        let healthy = Reach::new(&peers(0..1000), &peers(0..0));
        assert_eq!(healthy, Reach::default());
        let some = Reach::new(&peers(0..10), &peers(10..12));
        assert!(matches!(&some, Reach::AllExcept(list) if list.len() == 2));
        let few = Reach::new(&peers(0..2), &peers(2..12));
        assert!(matches!(&few, Reach::Only(list) if list.len() == 2));
        for peer in peers(0..12) {
            assert_eq!(some.contains(peer), peers(0..10).contains(&peer));
            assert_eq!(few.contains(peer), peers(0..2).contains(&peer));
        }
    }

    #[test]
    fn i6_a_list_is_cut_so_that_less_is_claimed() {
        let all = peers(0..2000);
        let (reached, missed) = (peers(0..1000), peers(1000..2000));
        let ours = Reach::new(&reached, &missed);
        let foreign = [
            Reach::AllExcept(missed.iter().rev().copied().collect()).normalised(),
            Reach::Only(reached.iter().rev().copied().collect()).normalised(),
        ];
        for reach in foreign.iter().chain([&ours]) {
            let (Reach::AllExcept(list) | Reach::Only(list)) = reach;
            assert!(list.len() <= MAX_REACH);
            assert!(
                all.iter()
                    .all(|peer| !reach.contains(*peer) || reached.contains(peer))
            );
        }
        assert!(ours.contains(PeerId(0_u64.to_be_bytes())));
    }
}
