//! The table against plain models of it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::entry::tests::entry;

fn id(number: u8) -> PeerId {
    PeerId([number; 8])
}

fn sealed(number: u8, version: u64, neighbours: &[u8]) -> Arc<Sealed> {
    let mut entry = entry(number);
    entry.version = version;
    entry.neighbours = neighbours.iter().copied().map(id).collect();
    entry.neighbours.sort_unstable();
    entry.neighbours.dedup();
    Sealed::new(entry)
}

fn roster() -> Roster {
    Roster::new(sealed(0, 1, &[]))
}

/// Everybody that a search from this node finds, and in how many steps at least.
fn search(roster: &Roster) -> BTreeMap<PeerId, usize> {
    let mut found = BTreeMap::from([(id(0), 0)]);
    let mut edge = vec![id(0)];
    for steps in 1.. {
        let mut next = Vec::new();
        for at in &edge {
            for number in 1..=u8::MAX {
                let other = id(number);
                let joined = |a: PeerId, b: PeerId| {
                    roster
                        .get(a)
                        .is_some_and(|peer| peer.gone.is_none() && peer.entry.lists(b))
                };
                let reached = if *at == id(0) {
                    roster.direct.contains(&other)
                        && roster.get(other).is_some_and(|peer| peer.gone.is_none())
                } else {
                    joined(*at, other) && joined(other, *at)
                };
                if reached && !found.contains_key(&other) {
                    found.insert(other, steps);
                    next.push(other);
                }
            }
        }
        if next.is_empty() {
            break;
        }
        edge = next;
    }
    found.remove(&id(0));
    found
}

#[derive(Debug, Clone)]
enum Step {
    Apply(u8, Vec<u8>),
    Leave(u8),
    Connect(u8),
    Disconnect(u8),
    Bury(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let number = 1u8..12;
    prop_oneof![
        8 => (number.clone(), prop::collection::vec(0u8..12, 0..5))
            .prop_map(|(number, list)| Step::Apply(number, list)),
        1 => number.clone().prop_map(Step::Leave),
        2 => number.clone().prop_map(Step::Connect),
        2 => number.clone().prop_map(Step::Disconnect),
        1 => number.prop_map(Step::Bury),
    ]
}

proptest! {
    /// Whatever changes in whatever order, the tree spans what a search finds, its changes add up to
    /// it, and a message that follows next hops arrives.
    #[test]
    fn the_tree_spans_what_can_be_reached(steps in prop::collection::vec(step(), 1..80)) {
        let mut roster = roster();
        let mut told = BTreeSet::new();
        for (version, step) in (1u64..).zip(steps) {
            match step {
                Step::Apply(number, list) => {
                    roster.apply(sealed(number, version, &list), Duration::ZERO, Duration::ZERO);
                }
                Step::Leave(number) => {
                    let mut entry = entry(number);
                    (entry.version, entry.left) = (version, true);
                    roster.apply(Sealed::new(entry), Duration::ZERO, Duration::ZERO);
                }
                Step::Connect(number) => roster.connect(id(number), Duration::ZERO),
                Step::Disconnect(number) => roster.disconnect(id(number), Duration::ZERO),
                Step::Bury(number) => roster.bury(id(number), Why::Superseded, Duration::ZERO),
            }
            for (id, reachable) in roster.take_changes() {
                let news = if reachable { told.insert(id) } else { told.remove(&id) };
                prop_assert!(news, "{id} changed to what it was");
            }
            let found = search(&roster);
            prop_assert_eq!(&told, &found.keys().copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(roster.size(), found.len() + 1);
            for (id, steps) in &found {
                let hops = roster.hops(*id);
                prop_assert!(hops.is_some_and(|hops| hops >= *steps));
                prop_assert!(roster.direct.contains(&roster.next_hop(*id).unwrap()));
                prop_assert!(roster.get(*id).unwrap().lost.is_none());
            }
        }
    }

    /// Two tables that took the same entries in other orders are equal, and say so.
    #[test]
    fn the_order_does_not_matter(
        entries in prop::collection::vec((1u8..6, 1u64..5, 0u8..6), 0..30),
        seed: u64,
    ) {
        // One content per owner and version, as owners see to.
        let write = |(number, version, _): &(u8, u64, u8)| {
            sealed(*number, *version, &[number.wrapping_mul(7) % 12])
        };
        let mut a = roster();
        let mut b = roster();
        let mut shuffled = entries.clone();
        shuffled.sort_by_key(|entry| crate::rng::mix(seed ^ u64::from(entry.0) ^ (entry.1 << 8)));
        for entry in &entries {
            a.apply(write(entry), Duration::ZERO, Duration::ZERO);
        }
        for entry in &shuffled {
            b.apply(write(entry), Duration::ZERO, Duration::ZERO);
        }
        prop_assert_eq!(a.total(), b.total());
        prop_assert_eq!(a.buckets(), b.buckets());
        prop_assert_eq!(a.versions(u64::MAX), b.versions(u64::MAX));
    }
}

#[test]
fn a_difference_shows_in_its_part_alone() {
    let (mut a, mut b) = (roster(), roster());
    for roster in [&mut a, &mut b] {
        roster.apply(sealed(9, 3, &[]), Duration::ZERO, Duration::ZERO);
    }
    assert_eq!(a.total(), b.total());
    b.apply(sealed(200, 1, &[]), Duration::ZERO, Duration::ZERO);
    assert_ne!(a.total(), b.total());
    let differ = (0..BUCKETS).filter(|n| a.buckets()[*n] != b.buckets()[*n]);
    assert_eq!(differ.collect::<Vec<_>>(), [200 >> 2]);
    assert_eq!(b.versions(1 << (200 >> 2)), [(id(200), 1)]);
    // One that is gone is not summed up, and still listed.
    b.bury(id(200), Why::Forgotten, Duration::ZERO);
    assert_eq!(a.total(), b.total());
    assert_eq!(b.versions(u64::MAX).len(), 3);
}

#[test]
fn a_connection_is_spare_if_there_is_another_way() {
    let mut roster = roster();
    for (number, list) in [(1, [0, 2]), (2, [1, 3]), (3, [2, 4]), (4, [3, 0])] {
        roster.apply(sealed(number, 1, &list), Duration::ZERO, Duration::ZERO);
    }
    roster.connect(id(1), Duration::ZERO);
    assert!(!roster.is_spare(id(1)));
    assert_eq!(
        (roster.hops(id(4)), roster.next_hop(id(4))),
        (Some(4), Some(id(1)))
    );
    roster.connect(id(4), Duration::ZERO);
    assert!(roster.is_spare(id(1)) && roster.is_spare(id(4)));
    assert_eq!(
        (roster.hops(id(4)), roster.next_hop(id(4))),
        (Some(1), Some(id(4)))
    );
}

#[test]
fn names_are_found() {
    let mut roster = roster();
    roster.apply(sealed(1, 1, &[]), Duration::ZERO, Duration::ZERO);
    let mut twin = entry(2);
    twin.name = "n1".parse().unwrap();
    roster.apply(Sealed::new(twin), Duration::ZERO, Duration::ZERO);
    assert_eq!(roster.namesakes(&"n1".parse().unwrap()), [id(1), id(2)]);
    roster.apply(sealed(2, 9, &[]), Duration::ZERO, Duration::ZERO);
    assert_eq!(roster.namesakes(&"n1".parse().unwrap()), [id(1)]);
    assert_eq!(roster.namesakes(&"n2".parse().unwrap()), [id(2)]);
    roster.bury(id(1), Why::Left, Duration::ZERO);
    assert_eq!(roster.namesakes(&"n1".parse().unwrap()), []);
}
