//! The allocator against a naive model, and each of its refusals.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::ring::tests::{name, universe};
use crate::ring::{Claim, Delta, Seeding, Segment};

const HOLD_DOWN: Duration = Duration::from_secs(60);
const T0: Duration = Duration::from_secs(1000);

fn key(i: usize) -> AllocationKey {
    AllocationKey::new(format!("c{i}"), "eth0").unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn seeded(range: &str, seeds: &[&str]) -> Ring {
    Ring::seeded(
        universe(range),
        &Seeding::new(seeds.iter().map(|s| name(s))).unwrap(),
    )
    .unwrap()
}

fn allocator(range: &str, seeds: &[&str]) -> Allocator {
    Allocator::new(name("a"), seeded(range, seeds), HOLD_DOWN)
}

/// Ring, addresses in use and released ones, as a store would keep them.
#[derive(Default)]
struct Disk {
    allocations: Vec<Allocation>,
    released: BTreeMap<IpAddr, Duration>,
}

impl Disk {
    fn write(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Allocated { allocation, .. } => {
                    self.released.remove(&allocation.address.addr());
                    self.allocations.push(allocation);
                }
                Change::Released {
                    allocation,
                    reusable_at,
                } => {
                    let address = allocation.address.addr();
                    self.allocations.retain(|a| a.address.addr() != address);
                    self.released.insert(address, reusable_at);
                }
                Change::Reusable { address } => {
                    self.released.remove(&address);
                }
            }
        }
    }

    fn read(&self, ring: Ring) -> Allocator {
        let released = self.released.iter().map(|(&address, &at)| (address, at));
        Allocator::restore(
            name("a"),
            ring,
            HOLD_DOWN,
            self.allocations.clone(),
            released,
        )
        .unwrap()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Allocate {
        key: usize,
        subnet: usize,
    },
    Claim {
        key: usize,
        subnet: usize,
        host: u128,
    },
    Release {
        key: usize,
    },
    Wait {
        secs: u64,
    },
    /// Somebody takes or gives a range, with this host number as its start.
    Reassign {
        first: u128,
        span: u128,
        to_me: bool,
    },
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..12, 0usize..3).prop_map(|(key, subnet)| Step::Allocate { key, subnet }),
        2 => (0usize..12, 0usize..3, 0u128..32)
            .prop_map(|(key, subnet, host)| Step::Claim { key, subnet, host }),
        3 => (0usize..12).prop_map(|key| Step::Release { key }),
        1 => (0u64..80).prop_map(|secs| Step::Wait { secs }),
        1 => (0u128..32, 0u128..8, any::<bool>())
            .prop_map(|(first, span, to_me)| Step::Reassign { first, span, to_me }),
        1 => Just(Step::Restart),
    ]
}

/// What the allocator should do, one address at a time.
struct Model {
    owned: BTreeSet<u128>,
    /// Address to key and subnet.
    used: BTreeMap<u128, (usize, IpNet)>,
    released: BTreeMap<u128, Duration>,
}

impl Model {
    fn held(&self, key: usize, subnet: IpNet) -> Option<u128> {
        let mut used = self.used.iter();
        used.find(|(_, has)| **has == (key, subnet))
            .map(|(&address, _)| address)
    }

    fn next(&self, subnet: IpNet, now: Duration) -> Option<u128> {
        let range = Range::of(subnet);
        let usable: Vec<u128> = (range.first() + 1..range.last())
            .filter(|at| self.owned.contains(at) && !self.used.contains_key(at))
            .collect();
        let free = usable
            .iter()
            .find(|at| self.released.get(at).is_none_or(|&until| until <= now));
        free.or_else(|| usable.iter().min_by_key(|at| (self.released[at], **at)))
            .copied()
    }
}

proptest! {
    /// A1 to A3 of docs/ipam.md, lowest first, hold-down, restarts, and ranges that come and go.
    #[test]
    fn does_what_the_model_does(steps in prop::collection::vec(any_step(), 0..120)) {
        let subnets = [net("10.0.0.0/27"), net("10.0.0.0/28"), net("10.0.0.16/29")];
        let ring = seeded("10.0.0.0/27", &["a", "b"]);
        let base = ring.universe().range().first();
        let hosts = base + 1..base + 31;
        let mut model = Model {
            owned: (base + 1..base + 16).collect(),
            used: BTreeMap::new(),
            released: BTreeMap::new(),
        };
        let mut allocator = Allocator::new(name("a"), ring, HOLD_DOWN);
        let mut disk = Disk::default();
        let mut now = T0;
        let mut version = 1;
        for step in steps {
            match step {
                Step::Allocate { key: k, subnet } => {
                    let subnet = subnets[subnet];
                    let expected = model.held(k, subnet).or_else(|| model.next(subnet, now));
                    let got = allocator.allocate(&key(k), Some(subnet), now);
                    prop_assert_eq!(got.as_ref().ok().map(|net| crate::range::number(net.addr())), expected);
                    if let Some(address) = expected {
                        prop_assert_eq!(got.unwrap().trunc(), subnet);
                        model.used.insert(address, (k, subnet));
                        model.released.remove(&address);
                    }
                }
                Step::Claim { key: k, subnet, host } => {
                    let subnet = subnets[subnet];
                    let address = base + host;
                    let good = match model.held(k, subnet) {
                        Some(held) => held == address,
                        None => {
                            let range = Range::of(subnet);
                            range.first() < address && address < range.last()
                                && model.owned.contains(&address)
                                && !model.used.contains_key(&address)
                        }
                    };
                    let wanted = allocator.universe().address(address);
                    let got = allocator.claim(&key(k), Some(subnet), wanted, now);
                    prop_assert_eq!(got.is_ok(), good, "{:?}", got);
                    if good {
                        model.used.insert(address, (k, subnet));
                        model.released.remove(&address);
                    }
                }
                Step::Release { key: k } => {
                    let gone: BTreeSet<u128> =
                        model.used.iter().filter(|(_, has)| has.0 == k).map(|(&at, _)| at).collect();
                    let got = allocator.release(&key(k), now);
                    prop_assert_eq!(
                        got.iter().map(|net| crate::range::number(net.addr())).collect::<BTreeSet<_>>(),
                        gone.clone()
                    );
                    for address in gone {
                        model.used.remove(&address);
                        model.released.insert(address, now + HOLD_DOWN);
                    }
                }
                Step::Wait { secs } => now += Duration::from_secs(secs),
                Step::Reassign { first, span, to_me } => {
                    version += 1;
                    let range = Range::new(base + first, base + (first + span).min(31)).unwrap();
                    let owner = name(if to_me { "a" } else { "b" });
                    let claim = Claim { epoch: 0, version, owner };
                    let mut ring = allocator.ring().clone();
                    ring.merge(&Delta {
                        universe: ring.universe(),
                        segments: vec![Segment { range, claim }],
                        seedings: BTreeSet::new(),
                    roster: crate::roster::Roster::new(),
                    }).unwrap();
                    allocator.set_ring(ring);
                    for address in (range.first()..=range.last()).filter(|at| hosts.contains(at)) {
                        if to_me { model.owned.insert(address); } else { model.owned.remove(&address); }
                    }
                }
                Step::Restart => allocator = disk.read(allocator.ring().clone()),
            }
            disk.write(allocator.drain_changes());
            let used: BTreeMap<u128, AllocationKey> =
                model.used.iter().map(|(&at, &(k, _))| (at, key(k))).collect();
            prop_assert_eq!(&allocator.used, &used);
            let usage = allocator.usage();
            prop_assert_eq!((usage.owned, usage.used), (model.owned.len() as u128, used.len() as u128));
            let idle = model.owned.iter().filter(|at| !used.contains_key(at)).count() as u128;
            prop_assert_eq!(idle, usage.free + usage.cooling, "{:?}", usage);
            prop_assert_eq!(disk.allocations.len(), used.len());
        }
    }
}

/// All that a caller can see or that decides what comes next.
fn state(
    a: &Allocator,
) -> (
    Space,
    BTreeMap<AllocationKey, Vec<IpNet>>,
    BTreeMap<u128, AllocationKey>,
) {
    (a.space.clone(), a.held.clone(), a.used.clone())
}

proptest! {
    /// What the disk refused did not happen.
    #[test]
    fn undo_is_exact(
        kept in prop::collection::vec(any_step(), 0..40),
        lost in prop::collection::vec(any_step(), 0..10),
    ) {
        let mut a = allocator("10.0.0.0/27", &["a", "b"]);
        let mut now = T0;
        let run = |a: &mut Allocator, step: &Step, now: &mut Duration| {
            let subnet = |i: usize| [None, Some(net("10.0.0.0/28")), Some(net("10.0.0.8/29"))][i];
            match step {
                Step::Allocate { key: k, subnet: s } => drop(a.allocate(&key(*k), subnet(*s), *now)),
                Step::Claim { key: k, subnet: s, host } => {
                    let address = a.universe().address(a.universe().range().first() + host);
                    drop(a.claim(&key(*k), subnet(*s), address, *now));
                }
                Step::Release { key: k } => drop(a.release(&key(*k), *now)),
                Step::Wait { secs } => *now += Duration::from_secs(*secs),
                Step::Reassign { .. } | Step::Restart => {}
            }
        };
        for step in &kept {
            run(&mut a, step, &mut now);
        }
        a.drain_changes();
        let mut untouched = a.clone();
        for step in &lost {
            run(&mut a, step, &mut now);
        }
        let changes = a.drain_changes();
        a.undo(&changes);
        // Time has passed for both.
        a.expire(now);
        untouched.expire(now);
        prop_assert_eq!(state(&a), state(&untouched));
    }
}

#[test]
fn lowest_first_and_idempotent() {
    let mut a = allocator("10.32.0.0/12", &["a", "b"]);
    assert_eq!(a.allocate(&key(1), None, T0), Ok(net("10.32.0.1/12")));
    assert_eq!(a.allocate(&key(2), None, T0), Ok(net("10.32.0.2/12")));
    assert_eq!(a.allocate(&key(1), None, T0), Ok(net("10.32.0.1/12")));
    assert_eq!(a.lookup(&key(2)), [net("10.32.0.2/12")]);
    assert_eq!(a.lookup(&key(3)), []);
    let other_interface = AllocationKey::new("c1", "net1").unwrap();
    assert_eq!(
        a.allocate(&other_interface, None, T0),
        Ok(net("10.32.0.3/12"))
    );
    assert_eq!(a.allocations().count(), 3);
    assert_eq!(a.available(net("10.32.0.0/12")), Ok(()));
}

#[test]
fn a_subnet_has_its_own_prefix_and_ends() {
    let mut a = allocator("10.32.0.0/12", &["a"]);
    let subnet = Some(net("10.33.0.0/30"));
    assert_eq!(a.allocate(&key(1), subnet, T0), Ok(net("10.33.0.1/30")));
    assert_eq!(a.allocate(&key(2), subnet, T0), Ok(net("10.33.0.2/30")));
    let full = a.allocate(&key(3), subnet, T0).unwrap_err();
    assert_eq!(
        full.to_string(),
        "all 2 addresses of 10.33.0.0/30 that this node owns are in use (0 are owned by other nodes)"
    );
    assert_eq!(a.available(net("10.33.0.0/30")), Err(full));
    // The same container may have an address in each of several subnets.
    assert_eq!(a.allocate(&key(1), None, T0), Ok(net("10.32.0.1/12")));
    assert_eq!(a.lookup_in(&key(1), subnet), Some(net("10.33.0.1/30")));
    assert_eq!(
        a.release(&key(1), T0),
        [net("10.33.0.1/30"), net("10.32.0.1/12")]
    );
    assert_eq!(a.release(&key(1), T0), []);
}

#[test]
fn a_released_address_rests_unless_nothing_else_is_free() {
    let mut a = allocator("10.0.0.0/29", &["a"]);
    for i in 1..=3 {
        a.allocate(&key(i), None, T0).unwrap();
    }
    a.release(&key(2), T0);
    a.release(&key(1), T0 + Duration::from_secs(1));
    assert_eq!(
        a.usage(),
        Usage {
            owned: 6,
            used: 1,
            cooling: 2,
            free: 3
        }
    );
    let before = T0 + HOLD_DOWN - Duration::from_millis(1);
    for (k, host) in [(4, 4), (5, 5), (6, 6), (7, 2), (8, 1)] {
        let address = net(&format!("10.0.0.{host}/29"));
        assert_eq!(
            a.allocate(&key(k), None, before),
            Ok(address),
            "lowest, then longest at rest"
        );
    }
    assert!(matches!(
        a.allocate(&key(9), None, before),
        Err(AllocateError::Full { .. })
    ));
    a.release(&key(8), before);
    a.release(&key(3), before);
    assert_eq!(
        a.allocate(&key(9), None, before + HOLD_DOWN),
        Ok(net("10.0.0.1/29"))
    );
}

#[test]
fn a_claim_may_take_what_rests() {
    let mut a = allocator("10.0.0.0/29", &["a"]);
    let address = a.allocate(&key(1), None, T0).unwrap();
    a.release(&key(1), T0);
    assert_eq!(a.claim(&key(2), None, address.addr(), T0), Ok(address));
    assert_eq!(a.usage().cooling, 0);
}

#[test]
fn ipv6_is_the_same_code() {
    let mut a = allocator("fd00:1::/48", &["a", "b", "c"]);
    assert_eq!(a.allocate(&key(1), None, T0), Ok(net("fd00:1::1/48")));
    let subnet = Some(net("fd00:1:0:7::/64"));
    assert_eq!(a.allocate(&key(1), subnet, T0), Ok(net("fd00:1:0:7::1/64")));
    assert_eq!(a.usage().free, (1u128 << 79) - 1 - 2);
    let wanted = ip("fd00:1:0:ffff::1");
    let error = a.claim(&key(2), None, wanted, T0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "address fd00:1:0:ffff::1 is owned by node c, which has not given it"
    );
}

#[test]
fn refusals_name_value_and_remedy() {
    let mut a = allocator("10.32.0.0/12", &["a", "b"]);
    a.claim(&key(1), None, ip("10.32.0.9"), T0).unwrap();
    let mut claim = |k, subnet: Option<&str>, address: &str| {
        a.claim(&key(k), subnet.map(net), ip(address), T0)
            .unwrap_err()
    };
    let refusals = [
        (
            claim(2, None, "10.32.0.9"),
            "in use by container c1 interface eth0",
            "delete container c1",
        ),
        (
            claim(1, None, "10.32.0.8"),
            "has 10.32.0.9/12 already, not 10.32.0.8",
            "CNI DEL",
        ),
        (
            claim(2, None, "10.48.0.1"),
            "10.48.0.1 is not inside 10.32.0.0/12",
            "10.32.0.0/12",
        ),
        (
            claim(2, None, "fd00::1"),
            "fd00::1 is not inside 10.32.0.0/12",
            "10.32.0.0/12",
        ),
        (
            claim(2, None, "10.32.0.0"),
            "10.32.0.0 is reserved",
            "another",
        ),
        (
            claim(2, Some("10.33.0.0/24"), "10.33.0.255"),
            "10.33.0.255 is reserved",
            "another",
        ),
        (
            claim(2, Some("10.33.0.0/24"), "10.34.0.1"),
            "not inside 10.33.0.0/24",
            "10.33.0.0/24",
        ),
        (
            claim(2, None, "10.40.0.1"),
            "10.40.0.1 is owned by node b",
            "on b",
        ),
    ];
    let mut allocate = |subnet: &str| a.allocate(&key(2), Some(net(subnet)), T0).unwrap_err();
    let more = [
        (
            allocate("10.48.0.0/24"),
            "10.48.0.0/24 is not inside the range 10.32.0.0/12",
            "10.32.0.0/12",
        ),
        (
            allocate("10.0.0.0/8"),
            "10.0.0.0/8 is not inside",
            "10.32.0.0/12",
        ),
        (
            allocate("fd00::/64"),
            "fd00::/64 is not inside",
            "10.32.0.0/12",
        ),
        (
            allocate("10.33.0.1/24"),
            "10.33.0.1/24 has bits set",
            "write 10.33.0.0/24",
        ),
        (allocate("10.33.0.0/31"), "10.33.0.0/31 has no room", "/30"),
        (
            allocate("10.41.0.0/24"),
            "node a owns no address of subnet 10.41.0.0/24",
            "weft status",
        ),
    ];
    for (error, says, remedy) in refusals.into_iter().chain(more) {
        assert!(error.to_string().contains(says), "{error}");
        assert!(
            error.remedy().contains(remedy),
            "{error}: {}",
            error.remedy()
        );
    }
}

#[test]
fn without_space_the_error_says_why() {
    let undecided = Ring::undecided(universe("10.32.0.0/12"));
    let mut a = Allocator::new(name("a"), undecided, HOLD_DOWN);
    let error = a.allocate(&key(1), None, T0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "range 10.32.0.0/12 is not divided among nodes yet"
    );
    assert!(error.remedy().contains("--ipam-init seed="));
    assert_eq!(a.claim(&key(1), None, ip("10.32.0.1"), T0), Err(error));

    let seeds = ["b", "c", "d", "e", "f", "g"];
    let mut a = allocator("10.32.0.0/12", &seeds);
    let error = a.allocate(&key(1), None, T0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "node a owns no part of 10.32.0.0/12, which is divided among b, c, d, e, f and 1 more"
    );
    assert!(error.remedy().contains("connect it to a node"));
}

#[test]
fn a_failed_call_leaves_nothing_to_store() {
    let mut a = allocator("10.0.0.0/30", &["a", "b"]);
    a.allocate(&key(1), None, T0).unwrap();
    assert_eq!(a.drain_changes().len(), 1);
    a.allocate(&key(1), None, T0).unwrap();
    a.allocate(&key(2), None, T0).unwrap_err();
    a.claim(&key(2), None, ip("10.0.0.2"), T0).unwrap_err();
    a.release(&key(3), T0);
    assert_eq!(a.drain_changes(), []);
}

#[test]
fn a_store_that_contradicts_itself_is_refused() {
    let ring = || seeded("10.0.0.0/29", &["a"]);
    let allocation = |k, address: &str| Allocation {
        key: key(k),
        address: net(address),
    };
    let restore = |allocations: Vec<Allocation>, released: Vec<(IpAddr, Duration)>| {
        Allocator::restore(name("a"), ring(), HOLD_DOWN, allocations, released).map(|_| ())
    };
    let one = || allocation(1, "10.0.0.1/29");
    assert_eq!(restore(vec![one()], vec![(ip("10.0.0.2"), T0)]), Ok(()));
    for (result, says) in [
        (
            restore(vec![one(), allocation(2, "10.0.0.1/29")], vec![]),
            "c1 interface eth0 and to container c2",
        ),
        (
            restore(vec![allocation(1, "10.1.0.1/29")], vec![]),
            "not inside the stored range",
        ),
        (
            restore(vec![one()], vec![(ip("10.0.0.1"), T0)]),
            "held down, and in use by container c1",
        ),
    ] {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn keys() {
    let long = "x".repeat(256);
    assert!(AllocationKey::new("weft:bridge", "weft").is_ok());
    for (container, ifname, field) in [
        ("", "eth0", "container id"),
        (long.as_str(), "eth0", "container id"),
        ("a b", "eth0", "container id"),
        ("a\n", "eth0", "container id"),
        ("a", "", "interface name"),
        ("a", "sixteen-letters!", "interface name"),
    ] {
        let error = AllocationKey::new(container, ifname).unwrap_err();
        assert_eq!(error.field, field);
    }
}

/// A /12 with 100,000 addresses in use answers from runs, not from lists: the whole test is a
/// matter of a second even unoptimised.
#[test]
fn large_pools_stay_quick() {
    let mut a = allocator("10.32.0.0/12", &["a"]);
    for i in 0..100_000 {
        a.allocate(&key(i), None, T0).unwrap();
    }
    for i in (0..100_000).step_by(2) {
        a.release(&key(i), T0);
    }
    assert_eq!(
        a.usage(),
        Usage {
            owned: (1 << 20) - 2,
            used: 50_000,
            cooling: 50_000,
            free: 948_574
        }
    );
    for i in 0..50_000 {
        a.allocate(&key(200_000 + i), None, T0 + HOLD_DOWN).unwrap();
    }
    assert_eq!(a.usage().cooling, 0);
    assert_eq!(a.space.free().iter().count(), 1);
}
