//! Agreement on the first division.

use std::time::Duration;

use super::world::World;
use crate::AgentSettings;
use crate::ring::tests::name;

fn consensus(count: u32) -> AgentSettings {
    AgentSettings {
        consensus: Some(count),
        ..AgentSettings::default()
    }
}

#[test]
fn three_agree() {
    let mut world = World::new("10.0.0.0/24");
    for node in ["a", "b", "c"] {
        world.start(node, consensus(3));
    }
    world.pass(Duration::from_secs(5));
    world.assert_agreed();
    let seedings = world.agent("a").ring().seedings();
    assert_eq!(seedings.first().unwrap().to_string(), "a,b,c");
    for node in ["a", "b", "c"] {
        world.allocate(node, "pod").unwrap();
    }
}

#[test]
fn a_minority_waits_and_says_for_what() {
    let mut world = World::new("10.0.0.0/24");
    world.start("a", consensus(3));
    world.pass(Duration::from_secs(60));
    let error = world.allocate("a", "pod").unwrap_err().to_string();
    assert!(
        error.contains("waiting for 2 of 3 nodes to agree, 1 here: a"),
        "{error}"
    );
    // A majority is enough, after a time for the third.
    world.start("b", consensus(3));
    world.pass(Duration::from_secs(20));
    world.allocate("a", "pod").unwrap();
    // The third gets its space as any node does.
    world.start("c", consensus(3));
    world.pass(Duration::from_secs(5));
    world.allocate("c", "pod").unwrap();
    world.assert_agreed();
}

#[test]
fn more_electors_than_named_decide_nothing() {
    let mut world = World::new("10.0.0.0/24");
    for node in ["a", "b", "c"] {
        world.start(node, consensus(2));
    }
    world.pass(Duration::from_secs(30));
    assert!(world.agent("a").ring().is_undecided());
    let view = world.agent("a").view();
    assert!(
        view.notices.iter().any(|n| n.kind == "ipam_electors"),
        "{view:?}"
    );
}

/// Whatever is delivered in whatever order, with crashes between, at most one division is decided.
#[test]
fn proposers_that_meet_decide_one_value() {
    for seed in 0..200u64 {
        let mut world = World::new("10.0.0.0/24");
        for node in ["a", "b", "c"] {
            world.start(node, consensus(3));
        }
        let mut random = seed;
        for _ in 0..60 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let node = ["a", "b", "c"][(random >> 33) as usize % 3];
            match (random >> 40) % 8 {
                0 => {
                    world.crash(node);
                    world.restart(node);
                }
                1 => world.cut(node, if node == "a" { "b" } else { "a" }),
                2 => world.heal(node, if node == "a" { "b" } else { "a" }),
                3 => world.advance(Duration::from_secs(3)),
                _ => {
                    world.deliver();
                }
            }
        }
        world.heal("a", "b");
        world.heal("a", "c");
        world.pass(Duration::from_secs(60));
        world.assert_agreed();
        assert_eq!(world.agent("a").ring().seedings().len(), 1, "seed {seed}");
        assert!(world.agent("b").is_admitted() && name("a") == *world.agent("a").me());
    }
}
