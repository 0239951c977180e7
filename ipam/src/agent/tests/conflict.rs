//! Two rings that were seeded apart meet.

use std::time::Duration;

use super::world::{World, seeds};
use crate::ring::tests::name;

#[test]
fn rings_seeded_apart_become_one() {
    let mut world = World::new("10.0.0.0/24");
    let nodes = ["a", "b", "c", "d"];
    for (x, y) in [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")] {
        world.cut(x, y);
    }
    for node in nodes {
        let apart: &[&str] = if node < "c" { &["a", "b"] } else { &["c", "d"] };
        world.start(node, seeds(apart));
    }
    world.settle_unchecked();
    let mut held = Vec::new();
    for node in nodes {
        for i in 0..3 {
            let pod = format!("{node}{i}");
            held.push((
                node,
                pod.clone(),
                world.allocate_unchecked(node, &pod).unwrap(),
            ));
        }
    }
    for (x, y) in [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")] {
        world.heal(x, y);
        world.settle_unchecked();
    }
    world.pass(Duration::from_secs(60));
    world.assert_agreed();
    for (node, pod, net) in &held {
        assert_eq!(
            world.agent(node).lookup_text(pod),
            Some(*net),
            "nobody loses an address"
        );
    }
    // 10.0.0.1 to .3 by a and c, .128 to .130 by b and d.
    let mut doubles = 0;
    for node in nodes {
        let view = world.agent(node).view();
        assert!(view.notices.iter().any(|n| n.kind == "ipam_seeded_apart"));
        doubles += view
            .notices
            .iter()
            .filter(|n| n.kind == "ipam_double")
            .count();
    }
    assert_eq!(doubles, 2, "the owner of each part names its containers");
    for node in nodes {
        assert!(
            world.agent(node).available().is_ok(),
            "{node} has space before a container needs it"
        );
    }
    // All allocate on, no address that another holds.
    for node in nodes {
        let net = world
            .allocate_within(node, &format!("{node}-new"), Duration::from_secs(5))
            .unwrap();
        assert!(held.iter().all(|(_, _, old)| *old != net));
        let at = world
            .agent(node)
            .allocator()
            .universe()
            .number(net.addr())
            .unwrap();
        assert_eq!(world.agent("a").ring().owner_of(at), Some(&name(node)));
    }
}

#[test]
fn another_range_is_refused_and_told() {
    let mut world = World::of("10.0.0.0/24", &["a"], &["a"]);
    world.net = "10.1.0.0/24";
    world.start("b", seeds(&["b"]));
    world.settle();
    let notices = world.agent("a").view().notices;
    assert!(
        notices.iter().any(|n| n.kind == "ipam_refused"),
        "{notices:?}"
    );
    world.allocate("a", "pod").unwrap();
    world.allocate("b", "pod").unwrap();
}
