//! Space gets to where it is needed.

use std::time::Duration;

use super::world::{World, seeds};
use crate::AllocateError;
use crate::range::Range;
use crate::ring::tests::name;
use crate::roster::Member;

const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_node_that_is_no_seed_gets_a_block() {
    let mut world = World::of("10.32.0.0/12", &["a", "b", "c", "d"], &["a", "b", "c"]);
    let owned = world.agent("d").ring().owned_by(&name("d"));
    assert_eq!((owned.size(), owned.iter().count()), (256, 1));
    world.allocate("d", "pod").unwrap();
    world.assert_agreed();
}

#[test]
fn an_allocation_from_own_space_costs_no_gossip() {
    let mut world = World::of("10.32.0.0/12", &["a", "b", "c"], &["a", "b", "c"]);
    world.pass(SOON);
    let before = world.bytes;
    for i in 0..1000 {
        world.allocate("a", &format!("pod{i}")).unwrap();
    }
    world.settle();
    assert_eq!(world.bytes, before);
}

#[test]
fn space_is_asked_for_before_it_runs_out_and_in_growing_blocks() {
    let mut world = World::of("10.32.0.0/12", &["a", "b"], &["a"]);
    for i in 0..5000 {
        // Never an error: more is there before the last is used.
        world.allocate("b", &format!("pod{i}")).unwrap();
        world.settle();
    }
    let owned = world.agent("b").ring().owned_by(&name("b"));
    assert!(owned.size() <= 8192, "{}", owned.size());
    world.pass(SOON);
    world.assert_agreed();
    assert!(
        world.agent("b").ring().tokens() <= 12,
        "{:?}",
        world.agent("b").ring()
    );
}

#[test]
fn a_donor_gives_at_most_half() {
    let world = World::of("10.0.0.0/24", &["a", "b", "c"], &["a"]);
    let owned = |node: &str| world.agent("a").ring().owned_by(&name(node)).size();
    assert_eq!((owned("a"), owned("b"), owned("c")), (128, 64, 64));
}

#[test]
fn a_full_range_is_an_error_that_says_so() {
    let mut world = World::of("10.0.0.0/27", &["a", "b"], &["a"]);
    for i in 0..30 {
        let node = if i % 3 == 0 { "a" } else { "b" };
        world
            .allocate_within(node, &format!("pod{i}"), 5 * SOON)
            .unwrap_or_else(|error| panic!("pod{i}: {error}"));
    }
    for node in ["a", "b"] {
        let error = world.allocate_within(node, "late", SOON).unwrap_err();
        assert!(matches!(error, AllocateError::Full { .. }), "{error}");
    }
    // One that goes makes room for another, wherever it was.
    world.ask("a", |agent, now| {
        agent.release(&super::world::key("pod0"), now);
    });
    world.pass(super::world::HOLD_DOWN + SOON);
    world.allocate("a", "tick").unwrap();
}

#[test]
fn a_subnet_of_peers_is_asked_for() {
    let mut world = World::of("10.32.0.0/12", &["a", "b"], &["a", "b"]);
    let subnet: ipnet::IpNet = "10.32.7.0/24".parse().unwrap();
    let mut got = None;
    for _ in 0..2 {
        world.ask("b", |agent, now| {
            got = Some(agent.allocate(&super::world::key("pod"), Some(subnet), now));
        });
        world.settle();
    }
    assert!(subnet.contains(&got.unwrap().unwrap().addr()));
}

/// Nodes take from the default subnet, and get space in it from whoever owns it; a container that
/// has an address from before keeps it.
#[test]
fn addresses_come_from_the_default_subnet() {
    let mut world = World::of("10.32.0.0/12", &["a", "b"], &["a", "b"]);
    let old = world.allocate("b", "old").unwrap();
    let subnet: ipnet::IpNet = "10.32.128.0/17".parse().unwrap();
    let settings = crate::AgentSettings {
        default_subnet: Some(subnet),
        ..seeds(&["a", "b"])
    };
    world.start("b", settings);
    world.pass(SOON);
    for i in 0..1000 {
        let given = world.allocate("b", &format!("pod{i}")).unwrap();
        assert!(
            subnet.contains(&given.addr()) && given.prefix_len() == 17,
            "{given}"
        );
        world.settle();
    }
    assert_eq!(world.allocate("b", "old").unwrap(), old);
    assert_eq!(world.agent("b").available(), Ok(()));
    world.assert_agreed();
}

#[test]
fn an_authority_divides_once() {
    let mut world = World::new("10.0.0.0/24");
    for node in ["a", "b"] {
        world.start(node, crate::AgentSettings::default());
    }
    for first in ["b", "a"] {
        world.ask("a", |agent, now| {
            let among = crate::Seeding::new([name(first)]).unwrap();
            agent.divide(&among, now).unwrap();
        });
        world.pass(SOON);
    }
    world.assert_agreed();
    assert_eq!(world.agent("a").ring().seedings().len(), 1);
    world.allocate("a", "pod").unwrap();
    world.allocate("b", "pod").unwrap();
}

fn claim(world: &mut World, node: &str, pod: &str, address: &str) -> Result<(), AllocateError> {
    let mut got = None;
    for _ in 0..2 {
        world.ask(node, |agent, now| {
            let address = address.parse().unwrap();
            got = Some(agent.claim(&super::world::key(pod), None, address, now));
        });
        world.settle();
    }
    got.unwrap()
        .map(|net| assert_eq!(net.addr().to_string(), address))
}

#[test]
fn an_address_of_another_node_can_be_claimed() {
    let mut world = World::of("10.0.0.0/24", &["a", "b"], &["a", "b"]);
    claim(&mut world, "b", "pod", "10.0.0.9").unwrap();
    world.assert_agreed();
    // At rest is no obstacle, in use is.
    world.allocate("a", "old").unwrap();
    let error = claim(&mut world, "b", "other", "10.0.0.1").unwrap_err();
    assert!(
        matches!(error, AllocateError::AddressOfPeer { .. }),
        "{error}"
    );
    world.ask("a", |agent, now| {
        agent.release(&super::world::key("old"), now);
    });
    world.pass(SOON);
    claim(&mut world, "b", "other", "10.0.0.1").unwrap();
    let next = world.allocate("a", "next").unwrap();
    assert_eq!(next.addr().to_string(), "10.0.0.2");
    world.assert_agreed();
}

#[test]
fn idle_space_comes_back_in_one_piece() {
    let mut world = World::of("10.32.0.0/12", &["a", "b"], &["a"]);
    for i in 0..3000 {
        world.allocate("b", &format!("pod{i}")).unwrap();
        world.settle();
    }
    for i in 0..3000 {
        world.ask("b", |agent, now| {
            agent.release(&super::world::key(&format!("pod{i}")), now);
        });
    }
    world.pass(Duration::from_secs(3600));
    let owned = world.agent("b").ring().owned_by(&name("b"));
    assert!((256..=512).contains(&owned.size()), "{}", owned.size());
    world.assert_agreed();
    assert!(
        world.agent("a").ring().tokens() <= 6,
        "{:?}",
        world.agent("a").ring()
    );
}

#[test]
fn a_lost_gift_is_found_by_digest() {
    let mut world = World::of("10.32.0.0/12", &["a", "b", "c"], &["a"]);
    world.cut("a", "c");
    world.cut("b", "c");
    world.start("d", seeds(&["a"]));
    world.settle();
    world.heal("b", "c");
    world.settle();
    assert_eq!(world.agent("c").ring(), world.agent("a").ring());
}

/// What a node costs the cluster, in bytes: while it allocates, when it is given space, when it
/// joins, when it starts again, and at rest.
#[derive(Debug)]
struct Costs {
    allocations: usize,
    gift: usize,
    join: usize,
    restart: usize,
    rest: usize,
}

/// Ten nodes talk; all others have 32 addresses each and hear what is told to all.
fn costs(nodes: usize) -> Costs {
    let names: Vec<String> = (0..nodes).map(|i| format!("node-{i:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new("10.32.0.0/12");
    world.phantoms = names[10..].iter().map(|n| name(n)).collect();
    for node in &names[..10] {
        world.start(node, seeds(&names[..10]));
    }
    world.pass(SOON);
    let mut ring = world.agent(names[0]).ring().clone();
    let mut at = ring.universe().range().first();
    for phantom in &names[10..] {
        let block = Range::new(at, at + 31).unwrap();
        ring.give(block, &name(names[0]), &name(phantom)).unwrap();
        ring.note(&name(phantom), Member { life: 2, gone: 0 });
        at += 32;
    }
    for node in &names[..10] {
        world.ask(node, |agent, now| {
            assert!(agent.merge(&name(names[0]), &ring.delta(), now));
        });
    }
    world.settle();
    let since = |world: &mut World, before: usize| world.bytes - before;

    let before = world.bytes;
    world.start("new", seeds(&names[..10]));
    world.pass(SOON);
    let join = since(&mut world, before);

    let before = world.bytes;
    let reserve = world.agent("new").usable().size() - 64;
    assert!(reserve > 100, "{reserve}");
    for i in 0..reserve {
        world.allocate("new", &format!("pod{i}")).unwrap();
        world.settle();
    }
    let allocations = since(&mut world, before);
    world.allocate("new", "one-more").unwrap();
    world.settle();
    let gift = since(&mut world, before);
    assert!(world.agent("new").usable().size() > 64, "a gift came");

    let before = world.bytes;
    world.crash("node-0003");
    world.restart("node-0003");
    world.pass(SOON);
    let restart = since(&mut world, before);

    let before = world.bytes;
    world.pass(Duration::from_secs(600));
    let rest = since(&mut world, before);
    Costs {
        allocations,
        gift,
        join,
        restart,
        rest,
    }
}

#[test]
fn gossip_follows_the_changes_and_not_the_size_of_the_cluster() {
    let (small, large) = (costs(100), costs(1000));
    for (costs, nodes) in [(&small, 100), (&large, 1000)] {
        assert_eq!(costs.allocations, 0, "{costs:?}");
        // One short message to each.
        assert!(costs.gift < 130 * nodes, "{costs:?}");
        // A word or two to each; and of the ring and the roster what differs, to a few.
        assert!(costs.restart < 200 * nodes + 20_000, "{costs:?}");
        // The whole ring once, words that it lives, and a gift.
        assert!(costs.join < 300 * nodes + 20_000, "{costs:?}");
        // 20 digests of each of the 11 that talk, and as many answers.
        assert!(costs.rest < 11 * 20 * 1600, "{costs:?}");
    }
}

/// I2: what a node that leaves does not use has another owner at once; what its containers have stays
/// theirs, and a node that comes back gets space again.
#[test]
fn i2_a_node_that_leaves_gives_its_space_away() {
    let mut world = World::of("10.32.0.0/12", &["a", "b", "c"], &["a", "b", "c"]);
    let pod = world.allocate("b", "pod").unwrap();
    let gone = super::world::key("gone");
    world.allocate("b", "gone").unwrap();
    let mut handed = None;
    world.ask("b", |agent, now| {
        agent.release(&gone, now);
        handed = Some(agent.hand_over(now));
    });
    let handed = handed.unwrap();
    assert_eq!((handed.given, handed.kept), ((1 << 18) - 1, 1));
    world.settle();
    world.assert_agreed();
    // It asks for nothing while it is still there.
    world.pass(30 * SOON);
    assert_eq!(world.agent("b").ring().owned_by(&name("b")).size(), 1);
    let held = world.agent("b").lookup_in(&super::world::key("pod"), None);
    assert_eq!(held, Some(pod));

    for other in ["a", "c"] {
        world.cut("b", other);
    }
    world.pass(SOON);
    world.heal("b", "a");
    world.allocate_within("b", "next", 5 * SOON).unwrap();
    world.heal("b", "c");
    world.pass(SOON);
    world.assert_agreed();
}

/// With nobody there to take it, a node keeps what it has.
#[test]
fn i2_a_node_that_leaves_alone_keeps_its_space() {
    let mut world = World::of("10.0.0.0/24", &["a", "b"], &["a", "b"]);
    world.cut("a", "b");
    let mut handed = None;
    world.ask("a", |agent, now| handed = Some(agent.hand_over(now)));
    let handed = handed.unwrap();
    assert_eq!((handed.given, handed.kept), (0, 128));
    world.heal("a", "b");
    world.assert_agreed();
}
