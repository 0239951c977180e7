//! The address plan, as far as the data path needs it.

use std::net::IpAddr;

use wire::PeerId;

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// This node's.
    Me,
    /// Another node's.
    Peer(PeerId),
}

/// A run of addresses of one node, both ends included and of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnedRange {
    /// The lowest.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
    /// Whose they are.
    pub owner: Owner,
}

/// Who owns which addresses. What is in no range has no owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerMap {
    /// Disjoint, in ascending order. IPv4 addresses are numbered as IPv6 maps them.
    runs: Box<[Run]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u128,
    last: u128,
    owner: Owner,
}

impl OwnerMap {
    /// A map of these ranges, in any order. Of those that overlap, which an address plan has none of,
    /// the one that begins first counts; one whose ends do not go together counts for nothing.
    pub fn new(ranges: impl IntoIterator<Item = OwnedRange>) -> Self {
        let mut sorted: Vec<Run> = ranges.into_iter().filter_map(run).collect();
        sorted.sort_by_key(|run| (run.first, run.last));
        let mut runs: Vec<Run> = Vec::with_capacity(sorted.len());
        for mut run in sorted {
            if let Some(before) = runs.last_mut() {
                let Some(free) = before.last.checked_add(1) else {
                    break;
                };
                run.first = run.first.max(free);
                if run.first > run.last {
                    continue;
                }
                if run.first == free && run.owner == before.owner {
                    before.last = run.last;
                    continue;
                }
            }
            runs.push(run);
        }
        Self { runs: runs.into() }
    }

    /// Whose an address is, if anybody's.
    pub fn owner(&self, address: IpAddr) -> Option<Owner> {
        let number = number(address);
        let behind = self.runs.partition_point(|run| run.first <= number);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        (number <= run.last).then_some(run.owner)
    }

    /// Whether nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

fn run(range: OwnedRange) -> Option<Run> {
    let OwnedRange { first, last, owner } = range;
    let (first, last) =
        (first.is_ipv4() == last.is_ipv4()).then(|| (number(first), number(last)))?;
    (first <= last).then_some(Run { first, last, owner })
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn owner(n: u8) -> Owner {
        match n {
            0 => Owner::Me,
            n => Owner::Peer(PeerId([n; 8])),
        }
    }

    fn v4(first: u32, last: u32, n: u8) -> OwnedRange {
        OwnedRange {
            first: Ipv4Addr::from_bits(first).into(),
            last: Ipv4Addr::from_bits(last).into(),
            owner: owner(n),
        }
    }

    proptest! {
        /// Whatever the ranges, an address is its who comes first of those that hold it.
        #[test]
        fn a_map_finds_what_a_search_finds(
            ranges in proptest::collection::vec((0u32..64, 0u32..64, 0u8..4), 0..12),
            at_the_end: bool,
        ) {
            let base = if at_the_end { u32::MAX - 63 } else { 0x0a20_0000 };
            let ranges: Vec<_> = ranges
                .into_iter()
                .map(|(first, last, n)| v4(base + first, base + last, n))
                .collect();
            let map = OwnerMap::new(ranges.iter().copied());
            let mut sorted = ranges;
            sorted.sort_by_key(|range| (range.first, range.last));
            for address in (0..64).map(|n| IpAddr::from(Ipv4Addr::from_bits(base + n))) {
                let holds = |range: &&OwnedRange| (range.first..=range.last).contains(&address);
                let found = sorted.iter().find(holds).map(|range| range.owner);
                prop_assert_eq!(map.owner(address), found, "{}", address);
            }
            for outside in [Ipv4Addr::from_bits(base - 1).into(), Ipv6Addr::LOCALHOST.into()] {
                prop_assert_eq!(map.owner(outside), None);
            }
        }

        /// The runs of one owner are one, so that a lookup costs what the plan's owners make it cost.
        #[test]
        fn neighbours_of_one_owner_are_one_run(cuts in proptest::collection::btree_set(1u32..1000, 0..20)) {
            let mut first = 0;
            let mut ranges = Vec::new();
            for cut in cuts.into_iter().chain([1000]) {
                ranges.push(v4(first, cut - 1, 7));
                first = cut;
            }
            let map = OwnerMap::new(ranges);
            prop_assert_eq!(map.runs.len(), 1);
            prop_assert_eq!(map.owner(Ipv4Addr::from_bits(999).into()), Some(owner(7)));
        }
    }

    #[test]
    fn families_are_apart_and_the_last_address_counts() {
        let v6 = |first: Ipv6Addr, last: Ipv6Addr, n| OwnedRange {
            first: first.into(),
            last: last.into(),
            owner: owner(n),
        };
        let top = Ipv6Addr::from_bits(u128::MAX);
        let map = OwnerMap::new([
            v6(Ipv6Addr::from_bits(u128::MAX - 9), top, 1),
            v6(top, top, 2),
            v4(0, 9, 3),
            OwnedRange {
                first: Ipv4Addr::UNSPECIFIED.into(),
                last: top.into(),
                owner: owner(1),
            },
        ]);
        assert_eq!(map.owner(top.into()), Some(owner(1)));
        assert_eq!(map.owner(Ipv4Addr::from_bits(9).into()), Some(owner(3)));
        assert_eq!(map.owner(Ipv6Addr::from_bits(9).into()), None);
        assert!(OwnerMap::default().is_empty());
    }
}
