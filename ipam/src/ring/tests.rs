//! The algebra of rings, checked against a plain list of claims, one for each address.

use proptest::prelude::*;

use super::*;

pub(crate) fn universe(net: &str) -> Universe {
    Universe::new(net.parse().unwrap()).unwrap()
}

pub(crate) fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

const NET: &str = "10.0.0.0/28";
const SIZE: u128 = 16;

fn any_peer() -> impl Strategy<Value = PeerName> {
    prop::sample::select(vec![name("a"), name("b"), name("c")])
}

fn any_claim() -> impl Strategy<Value = Claim> {
    (0u32..3, 1u64..4, any_peer()).prop_map(|(epoch, version, owner)| Claim {
        epoch,
        version,
        owner,
    })
}

fn any_seeding() -> impl Strategy<Value = Seeding> {
    prop::collection::vec(any_peer(), 1..4).prop_map(|peers| Seeding::new(peers).unwrap())
}

/// Arbitrary claims on arbitrary parts: also such as no run of the protocol would make.
pub(crate) fn any_delta() -> impl Strategy<Value = Delta> {
    let claims = prop::collection::vec(prop::option::of(any_claim()), SIZE as usize);
    let seedings = prop::collection::btree_set(any_seeding(), 0..3);
    let member = (0u32..3, 0u32..3).prop_map(|(life, gone)| Member { life, gone });
    let roster = prop::collection::vec((any_peer(), member), 0..4);
    (claims, seedings, roster).prop_map(|(claims, seedings, roster)| {
        let universe = universe(NET);
        let first = universe.range().first();
        let segments = (first..)
            .zip(claims)
            .filter_map(|(at, claim)| {
                Some(Segment {
                    range: Range::single(at),
                    claim: claim?,
                })
            })
            .collect();
        Delta {
            universe,
            segments,
            seedings,
            roster: roster.into_iter().collect(),
        }
    })
}

pub(crate) fn any_ring() -> impl Strategy<Value = Ring> {
    any_delta().prop_map(|delta| {
        let mut ring = Ring::undecided(delta.universe);
        ring.merge(&delta).unwrap();
        ring
    })
}

fn merged(ring: &Ring, other: &Ring) -> Ring {
    let mut ring = ring.clone();
    ring.merge(&other.delta()).unwrap();
    ring
}

fn addresses(ring: &Ring) -> impl Iterator<Item = u128> + use<> {
    let range = ring.universe().range();
    range.first()..=range.last()
}

fn claims(ring: &Ring) -> Vec<Option<Claim>> {
    addresses(ring).map(|at| ring.claim(at).cloned()).collect()
}

/// Covers the universe exactly once, and coalesces: R1 and R2 of docs/ipam.md.
fn assert_well_formed(ring: &Ring) {
    let ranges: Vec<_> = ring.ranges().collect();
    assert_eq!(ranges[0].0.first(), ring.universe().range().first());
    assert_eq!(
        ranges[ranges.len() - 1].0.last(),
        ring.universe().range().last()
    );
    for pair in ranges.windows(2) {
        assert_eq!(pair[0].0.last() + 1, pair[1].0.first(), "{ring:?}");
        assert_ne!(
            pair[0].1, pair[1].1,
            "two tokens where one would do: {ring:?}"
        );
    }
    let sizes: u128 = ring.owners().values().sum();
    let undecided: u128 = ring
        .ranges()
        .filter(|(_, claim)| claim.is_none())
        .map(|(range, _)| range.size())
        .sum();
    assert_eq!(sizes + undecided, ring.universe().range().size());
}

proptest! {
    #[test]
    fn merge_is_commutative(a in any_ring(), b in any_ring()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
    }

    #[test]
    fn merge_is_associative(a in any_ring(), b in any_ring(), c in any_ring()) {
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
    }

    #[test]
    fn merge_is_idempotent(a in any_ring(), b in any_ring()) {
        let once = merged(&a, &b);
        prop_assert_eq!(&merged(&once, &b), &once);
        prop_assert_eq!(&merged(&once, &once), &once);
    }

    /// Address by address the greater claim, in a well-formed ring, and every change reported.
    #[test]
    fn merge_takes_the_greater_claim(a in any_ring(), delta in any_delta()) {
        let mut model = claims(&a);
        let first = a.universe().range().first();
        for segment in &delta.segments {
            for at in segment.range.first()..=segment.range.last() {
                let mine = &mut model[usize::try_from(at - first).unwrap()];
                *mine = mine.take().max(Some(segment.claim.clone()));
            }
        }
        let before = claims(&a);
        let mut ring = a;
        let reassigned = ring.merge(&delta).unwrap();
        assert_well_formed(&ring);
        let after = claims(&ring);
        prop_assert_eq!(&after, &model);
        for (i, at) in addresses(&ring).enumerate() {
            let told: Vec<_> = reassigned.iter().filter(|r| r.range.contains(at)).collect();
            if before[i] == after[i] {
                prop_assert!(told.is_empty());
            } else {
                prop_assert_eq!(told.len(), 1);
                prop_assert_eq!((&told[0].before, Some(&told[0].after)), (&before[i], after[i].as_ref()));
            }
        }
    }

    /// One digest and one answer each way make two rings equal.
    #[test]
    fn digests_repair(a in any_ring(), b in any_ring()) {
        prop_assert_eq!(a.digest() == b.digest(), a == b);
        let to_a = b.answer(&a.digest()).unwrap();
        let to_b = a.answer(&b.digest()).unwrap();
        prop_assert_eq!(to_a.is_empty() && to_b.is_empty(), a == b);
        let both = merged(&a, &b);
        let (mut a, mut b) = (a, b);
        a.merge(&to_a).unwrap();
        b.merge(&to_b).unwrap();
        prop_assert_eq!(&a, &both);
        prop_assert_eq!(&b, &both);
    }

    #[test]
    fn queries_agree(ring in any_ring()) {
        assert_well_formed(&ring);
        for peer in ["a", "b", "c", "stranger"].map(name) {
            let owned = ring.owned_by(&peer);
            for at in addresses(&ring) {
                prop_assert_eq!(owned.contains(at), ring.owner_of(at) == Some(&peer));
            }
            prop_assert_eq!(ring.owners().get(&peer).copied().unwrap_or(0), owned.size());
        }
        prop_assert_eq!(ring.is_undecided(), ring.owners().is_empty());
    }

    /// Nodes edit what they own and tell each other in any order, with messages lost and
    /// repeated. No address is ever owned by two nodes in their own eyes, and all end equal.
    #[test]
    fn owners_editing_never_own_the_same_address(
        steps in prop::collection::vec((0usize..3, 0usize..3, 0u128..SIZE, 0u128..6, 0u8..4), 0..60)
    ) {
        let names = ["a", "b", "c"].map(name);
        let universe = universe(NET);
        let seeding = Seeding::new(names.clone()).unwrap();
        let mut nodes = vec![Ring::seeded(universe, &seeding).unwrap(); 3];
        for (who, to, first, span, what) in steps {
            let range = Range::new(
                universe.range().first() + first,
                universe.range().first() + (first + span).min(SIZE - 1),
            ).unwrap();
            match what {
                0 => {
                    let before = nodes[who].clone();
                    match nodes[who].give(range, &names[who], &names[to]) {
                        Ok(delta) => prop_assert_eq!(merged_delta(&before, &delta), nodes[who].clone()),
                        Err(_) => prop_assert_eq!(&before, &nodes[who]),
                    }
                }
                1 => {
                    let owned = nodes[who].owned_by(&names[who]);
                    nodes[who].coalesce(&names[who]).unwrap();
                    prop_assert_eq!(nodes[who].owned_by(&names[who]), owned);
                }
                _ => {
                    let delta = nodes[who].delta();
                    nodes[to].merge(&delta).unwrap();
                }
            }
            for at in universe.range().first()..=universe.range().last() {
                let owners = (0..3).filter(|&i| nodes[i].owner_of(at) == Some(&names[i])).count();
                prop_assert!(owners <= 1, "{owners} owners\n{nodes:?}");
            }
        }
        let all = nodes.iter().skip(1).fold(nodes[0].clone(), |all, node| merged(&all, node));
        assert_well_formed(&all);
        for at in universe.range().first()..=universe.range().last() {
            prop_assert!(all.owner_of(at).is_some(), "an address was lost: {all:?}");
        }
    }

    /// Each seed gets one CIDR block, the blocks cover the universe, in the order of the names.
    #[test]
    fn seeding_divides_fairly(count in 1usize..40, prefix in 16u8..27, reverse: bool) {
        let universe = universe(&format!("10.32.0.0/{prefix}"));
        let mut names: Vec<PeerName> = (0..count).map(|i| name(&format!("n{i:02}"))).collect();
        if reverse {
            names.reverse();
        }
        let seeding = Seeding::new(names.iter().chain(&names[..1]).cloned()).unwrap();
        let ring = Ring::seeded(universe, &seeding).unwrap();
        assert_well_formed(&ring);
        prop_assert_eq!(ring.tokens(), count);
        let mut sizes = Vec::new();
        for ((range, claim), peer) in ring.ranges().zip(seeding.peers()) {
            prop_assert_eq!(&claim.unwrap().owner, peer);
            prop_assert!(range.size().is_power_of_two() && range.first() % range.size() == 0);
            sizes.push(range.size());
        }
        prop_assert!(sizes.iter().max().unwrap() / sizes.iter().min().unwrap() <= 2);
    }
}

fn merged_delta(ring: &Ring, delta: &Delta) -> Ring {
    let mut ring = ring.clone();
    ring.merge(delta).unwrap();
    ring
}

#[test]
fn three_seeds_share_the_default_range_as_documented() {
    let universe = universe("10.32.0.0/12");
    let seeding = Seeding::new(["c", "a", "b", "a"].map(name)).unwrap();
    assert_eq!(seeding.to_string(), "a,b,c");
    let ring = Ring::seeded(universe, &seeding).unwrap();
    let shares: Vec<_> = ring
        .ranges()
        .map(|(range, claim)| format!("{} {}", claim.unwrap().owner, range.text(universe.family())))
        .collect();
    assert_eq!(
        shares,
        [
            "a 10.32.0.0-10.39.255.255",
            "b 10.40.0.0-10.43.255.255",
            "c 10.44.0.0-10.47.255.255"
        ]
    );
    assert!(ring.owned_by(&name("d")).is_empty());
}

#[test]
fn seeding_refusals() {
    assert_eq!(Seeding::new([]), Err(SeedError::Empty));
    let seeding = Seeding::new((0..5).map(|i| name(&format!("n{i}")))).unwrap();
    let error = Ring::seeded(universe("10.0.0.0/30"), &seeding).unwrap_err();
    assert_eq!(
        error.to_string(),
        "range 10.0.0.0/30 has 4 addresses, too few for 5 seeds: use a larger --range or fewer seeds"
    );
}

#[test]
fn another_universe_is_not_merged() {
    let mut ring = Ring::undecided(universe("10.32.0.0/12"));
    let other = Ring::undecided(universe("10.0.0.0/8"));
    assert!(matches!(
        ring.merge(&other.delta()),
        Err(MergeError::OtherUniverse { .. })
    ));
    assert!(matches!(
        ring.answer(&other.digest()),
        Err(MergeError::OtherUniverse { .. })
    ));
}

#[test]
fn a_mosaic_beyond_the_limit_is_not_merged() {
    let universe = universe("fd00::/64");
    let first = universe.range().first();
    let segments: Vec<Segment> = (0..MAX_TOKENS as u128)
        .map(|i| Segment {
            range: Range::single(first + 2 * i),
            claim: Claim {
                epoch: 0,
                version: 1,
                owner: name("a"),
            },
        })
        .collect();
    let mut ring = Ring::undecided(universe);
    let few = Delta {
        universe,
        segments: segments[..100].to_vec(),
        seedings: BTreeSet::new(),
        roster: Roster::new(),
    };
    ring.merge(&few).unwrap();
    let before = ring.clone();
    let many = Delta {
        universe,
        segments,
        seedings: BTreeSet::new(),
        roster: Roster::new(),
    };
    assert!(matches!(
        ring.merge(&many),
        Err(MergeError::TooFragmented { .. })
    ));
    assert_eq!(ring, before);
}

/// A fence: what a node that was declared gone still claims loses against the take-over,
/// however often it changed its claims meanwhile.
#[test]
fn a_take_over_outbids_the_dead() {
    let universe = universe(NET);
    let seeding = Seeding::new(["a", "b"].map(name)).unwrap();
    let mut heir = Ring::seeded(universe, &seeding).unwrap();
    let mut dead = heir.clone();
    heir.take_over(&name("a"), &name("b")).unwrap();
    let whole = dead.owned_by(&name("a")).iter().next().unwrap();
    for half in [whole.halves().unwrap().0, whole] {
        dead.give(half, &name("a"), &name("a")).unwrap();
    }
    dead.coalesce(&name("a")).unwrap();
    let lost = dead.merge(&heir.delta()).unwrap();
    assert!(dead.owned_by(&name("a")).is_empty());
    assert_eq!(
        lost.iter().map(|r| r.range.size()).sum::<u128>(),
        whole.size()
    );
    assert_eq!(merged(&heir, &dead), heir);
}

#[test]
fn giving_and_taking_back_leaves_one_token() {
    let universe = universe(NET);
    let mut ring = Ring::seeded(universe, &Seeding::new(["a", "b"].map(name)).unwrap()).unwrap();
    let part = Range::new(universe.range().first() + 2, universe.range().first() + 4).unwrap();
    ring.give(part, &name("a"), &name("b")).unwrap();
    assert_eq!(ring.tokens(), 4);
    ring.give(part, &name("b"), &name("a")).unwrap();
    ring.coalesce(&name("a")).unwrap();
    assert_eq!(ring.tokens(), 2);
    let error = ring
        .give(universe.range(), &name("a"), &name("b"))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "range 10.0.0.0-10.0.0.15 is not wholly owned by a: only an owner gives space away"
    );
}

#[test]
fn versions_at_the_limit_are_an_error() {
    let universe = universe(NET);
    let range = universe.range();
    let owner = name("a");
    let segment = |epoch, version| Segment {
        range,
        claim: Claim {
            epoch,
            version,
            owner: owner.clone(),
        },
    };
    let mut ring = Ring::undecided(universe);
    let segments = vec![segment(u32::MAX, u64::MAX)];
    ring.merge(&Delta {
        universe,
        segments,
        seedings: BTreeSet::new(),
        roster: Roster::new(),
    })
    .unwrap();
    assert!(matches!(
        ring.give(range, &owner, &name("b")),
        Err(EditError::Exhausted { .. })
    ));
    assert!(matches!(
        ring.take_over(&owner, &name("b")),
        Err(EditError::Exhausted { .. })
    ));
}
