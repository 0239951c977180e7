//! Nodes that go, are declared gone, and come back.

use std::time::Duration;

use super::world::{World, key, seeds};
use crate::ring::tests::name;
use crate::{AllocateError, RemoveError};

const SOON: Duration = Duration::from_secs(3);

fn owned(world: &World, at: &str, node: &str) -> u128 {
    world.agent(at).ring().owned_by(&name(node)).size()
}

#[test]
fn a_removed_nodes_space_goes_to_the_node_that_was_told() {
    let mut world = World::of("10.0.0.0/24", &["a", "b", "c"], &["a", "b", "c"]);
    world.crash("a");
    world.remove("b", "a");
    world.settle();
    assert_eq!(owned(&world, "c", "a"), 0);
    assert_eq!(world.agent("b").usable().size(), 64 + 128 - 1);
    world.assert_agreed();
    // Again, and from elsewhere.
    let ring = world.agent("c").ring().clone();
    world.remove("b", "a");
    world.remove("c", "a");
    world.settle();
    assert_eq!(*world.agent("c").ring(), ring);
}

#[test]
fn two_who_remove_at_once_agree() {
    let mut world = World::of("10.0.0.0/24", &["a", "b", "c"], &["a", "b", "c"]);
    world.crash("a");
    world.remove("b", "a");
    world.remove("c", "a");
    world.settle();
    world.pass(SOON);
    world.assert_agreed();
    assert_eq!(owned(&world, "b", "a"), 0);
    let usable = world.agent("b").usable().size() + world.agent("c").usable().size();
    assert_eq!(usable, 254);
}

#[test]
fn refusals() {
    let mut world = World::of("10.0.0.0/24", &["a", "b"], &["a", "b"]);
    world.ask("a", |agent, now| {
        let remove =
            |agent: &mut crate::Agent, who: &str| agent.remove(&name(who), now).unwrap_err();
        assert!(matches!(remove(agent, "a"), RemoveError::Myself { .. }));
        assert!(matches!(remove(agent, "b"), RemoveError::Connected { .. }));
        assert!(matches!(remove(agent, "x"), RemoveError::Unknown { .. }));
    });
}

/// The remover waits for every living node: one may have been given space that it does not know.
#[test]
fn a_gift_of_the_dead_is_not_taken() {
    let mut world = World::of("10.0.0.0/24", &["a", "b", "c"], &["a", "b"]);
    world.cut("a", "b");
    for i in 0..60 {
        world
            .allocate_within("c", &format!("pod{i}"), SOON)
            .unwrap();
    }
    world.cut("b", "c");
    for i in 60..80 {
        world
            .allocate_within("c", &format!("pod{i}"), SOON)
            .unwrap();
    }
    let given = owned(&world, "c", "c");
    assert!(given > owned(&world, "b", "c"), "b has not heard of all");
    world.crash("a");
    world.remove("b", "a");
    world.pass(SOON);
    let view = world.agent("b").view();
    assert_eq!(view.waiting, [name("c")]);
    assert!(view.notices.iter().any(|n| n.kind == "ipam_unconfirmed"));
    world.heal("b", "c");
    world.pass(SOON);
    assert_eq!(owned(&world, "b", "c"), given);
    assert!(world.agent("b").view().waiting.is_empty());
    assert_eq!(owned(&world, "b", "a"), 0);
    world.assert_agreed();
}

#[test]
fn a_node_that_returns_learns_before_it_allocates() {
    let mut world = World::of("10.0.0.0/24", &["a", "b", "c"], &["a", "b", "c"]);
    let kept = world.allocate("a", "old").unwrap();
    world.crash("a");
    world.remove("b", "a");
    world.settle();
    world.cut("a", "b");
    world.cut("a", "c");
    world.restart("a");
    let error = world.allocate("a", "new").unwrap_err();
    assert!(
        matches!(error, AllocateError::NotAdmitted { .. }),
        "{error}"
    );
    assert_eq!(
        world.allocate("a", "old").unwrap(),
        kept,
        "it keeps what it has"
    );
    world.heal("a", "c");
    world.settle();
    assert!(world.agent("a").is_admitted());
    let view = world.agent("a").view();
    assert_eq!(view.estranged.len(), 1);
    assert!(view.notices.iter().any(|n| n.kind == "ipam_estranged"));
    world.heal("a", "b");
    world.pass(SOON);
    // It has been given space again, and its old address is not handed out.
    let new = world.allocate("a", "new").unwrap();
    assert_ne!(new, kept);
    assert_eq!(world.agent("b").view().blocked.len(), 1);
    let at = world
        .agent("b")
        .allocator()
        .universe()
        .number(kept.addr())
        .unwrap();
    assert!(!world.agent("b").usable().contains(at));
    world.ask("a", |agent, now| {
        agent.release(&key("old"), now);
    });
    world.settle();
    assert!(world.agent("b").usable().contains(at));
    world.assert_agreed();
}

#[test]
fn an_address_that_was_reused_meanwhile_is_named_on_both_sides() {
    let mut world = World::of("10.0.0.0/28", &["a", "b"], &["a", "b"]);
    let kept = world.allocate("a", "old").unwrap();
    world.crash("a");
    world.remove("b", "a");
    for i in 0..14 {
        world.allocate("b", &format!("pod{i}")).unwrap();
    }
    world.restart("a");
    world.settle();
    let notices = world.agent("b").view().notices;
    let double = notices.iter().find(|n| n.kind == "ipam_double").unwrap();
    let address = kept.addr().to_string();
    assert!(double.message.contains(&address), "{}", double.message);
    assert_eq!(world.agent("a").lookup_text("old"), Some(kept));
}

#[test]
fn a_lost_disk_is_noticed() {
    let mut world = World::of("10.0.0.0/24", &["a", "b", "c"], &["a", "b"]);
    for i in 0..40 {
        world
            .allocate_within("c", &format!("pod{i}"), SOON)
            .unwrap();
    }
    world.settle();
    let before = owned(&world, "b", "a");
    world.crash("a");
    world.lose_disk("a");
    world.restart("a");
    world.pass(SOON);
    assert_eq!(owned(&world, "a", "a"), before);
    assert!(world.agent("a").is_admitted());
    assert!(world.agent("a").ring().roster().get(&name("a")).life > 2);
    world.assert_agreed();
}

/// A node that is cut off and declared gone while it runs gives way when it hears of it.
#[test]
fn declared_gone_while_running() {
    let mut world = World::of("10.0.0.0/24", &["a", "b", "c"], &["a", "b", "c"]);
    world.cut("a", "b");
    world.cut("a", "c");
    world.remove("b", "a");
    world.settle_unchecked();
    world.heal("a", "c");
    world.settle_unchecked();
    world.heal("a", "b");
    world.pass(SOON);
    world.assert_agreed();
    assert_eq!(owned(&world, "a", "a"), owned(&world, "b", "a"));
    assert!(world.agent("a").is_admitted());
}

#[test]
fn the_last_node_admits_itself_when_the_others_are_declared_gone() {
    let mut world = World::of("10.0.0.0/24", &["a", "b"], &["a", "b"]);
    world.crash("a");
    world.crash("b");
    world.restart("b");
    assert!(!world.agent("b").is_admitted());
    world.remove("b", "a");
    assert!(world.agent("b").is_admitted());
    assert_eq!(world.agent("b").usable().size(), 254);
}

#[test]
fn seeds_start_together() {
    let mut world = World::new("10.0.0.0/24");
    world.start("a", seeds(&["a", "b"]));
    let error = world.allocate("a", "pod").unwrap_err();
    assert!(error.to_string().contains("waiting for b"), "{error}");
    world.start("b", seeds(&["a", "b"]));
    world.settle();
    world.allocate("a", "pod").unwrap();
    world.allocate("b", "pod").unwrap();
}

/// What a container gave back while the owner of its address could not hear of it is asked for.
#[test]
fn an_address_given_back_during_a_partition_is_free_again() {
    for (through_others, restarted) in [(false, false), (true, false), (true, true)] {
        let mut world = World::of("10.0.0.0/24", &["a", "b", "c"], &["a", "b", "c"]);
        let kept = world.allocate("a", "old").unwrap();
        world.crash("a");
        world.remove("b", "a");
        world.settle();
        world.restart("a");
        world.settle();
        assert_eq!(world.agent("b").view().blocked.len(), 1);
        world.cut("a", "b");
        world.ask("a", |agent, now| {
            agent.release(&key("old"), now);
        });
        world.settle();
        if restarted {
            world.crash("a");
            world.restart("a");
            world.settle();
        }
        if through_others {
            world.reach_again("a", "b");
        } else {
            world.heal("a", "b");
        }
        world.settle();
        let at = world.agent("b").allocator().universe();
        let at = at.number(kept.addr()).unwrap();
        assert!(world.agent("b").usable().contains(at));
    }
}

/// The containers of a node that is declared gone are gone with it.
#[test]
fn what_a_gone_node_held_is_free_again() {
    let mut world = World::of("10.0.0.0/24", &["a", "b", "c"], &["a", "b", "c"]);
    let kept = world.allocate("a", "old").unwrap();
    world.crash("a");
    world.remove("b", "a");
    world.settle();
    world.restart("a");
    world.settle();
    assert_eq!(world.agent("b").view().blocked.len(), 1);
    world.crash("a");
    world.remove("c", "a");
    world.settle();
    assert!(world.agent("b").view().blocked.is_empty());
    let at = world.agent("b").allocator().universe();
    let at = at.number(kept.addr()).unwrap();
    assert!(world.agent("b").usable().contains(at));
}

/// Both were removed while they were down: neither knows, and the one's word is not enough for
/// the other.
#[test]
fn two_that_return_do_not_admit_each_other() {
    let mut world = World::of("10.0.0.0/24", &["a", "b", "c"], &["a", "b", "c"]);
    for node in ["a", "b"] {
        world.crash(node);
        world.cut(node, "c");
    }
    world.remove("c", "a");
    world.remove("c", "b");
    assert_eq!(world.agent("c").usable().size(), 254);
    world.restart("a");
    world.restart("b");
    world.pass(SOON);
    for node in ["a", "b"] {
        let error = world.allocate(node, "new").unwrap_err().to_string();
        assert!(error.contains("waiting for c"), "{error}");
    }
    world.heal("b", "c");
    world.pass(SOON);
    world.assert_agreed();
    assert!(world.agent("a").is_admitted() && world.agent("b").is_admitted());
}

/// After a power cut nobody is admitted. All together know what there is to know; one that stays
/// away has to be declared gone.
#[test]
fn a_cluster_that_starts_again_waits_for_all_that_live() {
    let nodes = ["a", "b", "c", "d"];
    let mut world = World::of("10.0.0.0/24", &nodes, &["a", "b", "c"]);
    for node in nodes {
        world.crash(node);
    }
    for node in &nodes[..3] {
        world.restart(node);
    }
    world.pass(SOON);
    assert!(
        nodes[..3]
            .iter()
            .all(|node| !world.agent(node).is_admitted())
    );
    world.restart("d");
    world.pass(SOON);
    assert!(nodes.iter().all(|node| world.agent(node).is_admitted()));
    for node in nodes {
        world.crash(node);
    }
    for node in &nodes[..3] {
        world.restart(node);
    }
    world.pass(SOON);
    world.remove("b", "d");
    world.pass(SOON);
    assert!(
        nodes[..3]
            .iter()
            .all(|node| world.agent(node).is_admitted())
    );
    assert_eq!(owned(&world, "a", "d"), 0);
    world.assert_agreed();
}

/// The gap of R6: the only node that knew of a return is declared gone. The operator is told whom to
/// look after; if that is in vain no container loses its address, both sides name theirs, and there
/// is one owner in the end.
#[test]
fn a_return_that_only_a_gone_node_knew_of_is_a_conflict_that_is_seen() {
    let mut world = World::of("10.0.0.0/24", &["a", "b", "c"], &["a", "b", "c"]);
    world.crash("a");
    world.cut("b", "c");
    world.remove("b", "a");
    world.cut("a", "b");
    world.restart("a");
    world.pass_unchecked(SOON);
    let kept = world.allocate_unchecked("a", "returned").unwrap();
    world.crash("c");
    world.ask("b", |agent, now| {
        let removed = agent.remove(&name("c"), now).unwrap();
        assert_eq!(removed.unheard, [name("a")]);
    });
    world.pass_unchecked(SOON);
    let again = (0..254).find(|i| {
        let given = world.allocate_unchecked("b", &format!("pod{i}"));
        given.unwrap() == kept
    });
    assert!(again.is_some(), "b took over what a used");

    world.heal("a", "b");
    world.pass_unchecked(Duration::from_secs(60));
    world.assert_agreed();
    world.check();
    assert_eq!(world.agent("a").lookup_text("returned"), Some(kept));
    for (node, kind, container) in [
        ("a", "ipam_estranged", "returned".to_owned()),
        ("b", "ipam_double", format!("pod{}", again.unwrap())),
    ] {
        let notices = world.agent(node).view().notices;
        let mut of_kind = notices.iter().filter(|n| n.kind == kind);
        assert!(
            of_kind.any(|n| n.message.contains(&container)),
            "{node}: {notices:?}"
        );
    }
}
