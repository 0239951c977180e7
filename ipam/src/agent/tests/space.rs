//! Space gets to where it is needed.

use std::time::Duration;

use super::world::{World, seeds};
use crate::AllocateError;
use crate::ring::tests::name;

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

/// What a node that joins costs the cluster, and what an allocation costs it: in bytes sent by all
/// together. One gift is one short message to each.
#[test]
fn gossip_follows_the_changes() {
    let names: Vec<String> = (0..100).map(|i| format!("node-{i:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::of("10.32.0.0/12", &names, &names[..3]);
    world.pass(SOON);
    let before = world.bytes;
    let reserve = world.agent("node-050").usable().size() - 64;
    for i in 0..reserve {
        world.allocate("node-050", &format!("pod{i}")).unwrap();
        world.settle();
    }
    assert_eq!(world.bytes, before);
    world.allocate("node-050", "one-more").unwrap();
    world.settle();
    let gift = world.bytes - before;
    assert!(
        (1..20_000).contains(&gift),
        "{gift} bytes for a gift of 256 addresses"
    );
}
