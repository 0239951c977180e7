//! The multicast groups that a node's pods listen to, as it tells the others.

use wire::Mac;

/// Groups that are listed at most; a node with more listens to all.
pub const MAX_GROUPS: usize = 256;

/// Which multicast frames a node wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Groups {
    /// All of them: it does not know better.
    #[default]
    All,
    /// Those to these addresses, in ascending order, beside what everybody gets.
    Only(Vec<Mac>),
}

impl Groups {
    /// The groups of a list in any order.
    pub fn new(groups: impl IntoIterator<Item = Mac>) -> Self {
        let mut list: Vec<Mac> = groups.into_iter().take(MAX_GROUPS + 1).collect();
        list.sort_unstable();
        list.dedup();
        if list.len() > MAX_GROUPS {
            Self::All
        } else {
            Self::Only(list)
        }
    }

    /// Whether it wants frames to this address.
    pub fn contains(&self, group: Mac) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => list.binary_search(&group).is_ok(),
        }
    }

    /// Reads addresses of six bytes each; a rest is passed over.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        Self::new(bytes.as_chunks::<6>().0.iter().copied().map(Mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn macs(count: u16) -> impl Iterator<Item = Mac> {
        (0..count).rev().map(|n| {
            let [a, b] = n.to_be_bytes();
            Mac([0x01, 0, 0x5e, 0, a, b])
        })
    }

    #[test]
    fn i6_too_many_groups_are_all_groups() {
        let some = Groups::new(macs(256));
        assert!(some.contains(Mac([0x01, 0, 0x5e, 0, 0, 255])));
        assert!(!some.contains(Mac([0x01, 0, 0x5e, 0, 1, 0])));
        assert_eq!(Groups::new(macs(257)), Groups::All);
        assert!(Groups::All.contains(Mac([0x33; 6])));
    }
}
