//! Nodes that do not all reach each other.

use super::*;

#[test]
fn a_and_c_talk_through_b_and_directly_once_they_can() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed);
        net.cut(0, 2, true);
        net.join();
        let took = net.until(S(10), Net::is_whole).unwrap();
        assert!(took < S(3), "{took:?}");
        assert_eq!(net.path(0, 2), "sleeve via n2 2 1438");
        net.flow(0, 2);
        net.run(S(20));
        let start = net.now;
        assert_eq!(net.lost_since(S(0)), 0);
        assert_eq!(net.reason(0, 2).unwrap(), "no reply on UDP 6783");
        net.cut(0, 2, false);
        let both = |net: &Net| {
            [net.path(0, 2), net.path(2, 0)]
                .iter()
                .all(|p| p.starts_with("vxlan"))
        };
        let took = net.until(S(10), both).unwrap();
        assert!(took < S(5), "{took:?}");
        net.run(S(5));
        assert_eq!(net.lost_since(start), 0, "no frame of the flow is lost");
        net.assert_i3();
    }
}

/// VXLAN is not waited for where it is not used.
#[test]
fn sealed_links_find_relays_too() {
    let mut net = Net::with(3, 5, |_, config| config.sealed = true);
    net.cut(0, 2, true);
    net.join();
    let took = net.until(S(10), Net::is_whole).unwrap();
    assert!(took < S(3), "{took:?}");
    assert_eq!(net.path(0, 2), "sleeve via n2 2 1414");
    net.cut(0, 2, false);
    let direct = |net: &Net| net.path(0, 2).starts_with("sleeve direct");
    net.until(S(20), direct).unwrap();
    net.flow(0, 2);
    net.run(S(5));
    net.cut(0, 2, true);
    let relayed = |net: &Net| net.path(0, 2).contains("via");
    let took = net.until(S(10), relayed).unwrap();
    assert!(took < S(5), "{took:?}");
    net.assert_i3();
}

#[test]
fn a_flow_whose_direct_way_dies_goes_on_through_another() {
    let mut net = Net::new(3, 1);
    net.join();
    net.flow(0, 2);
    net.run(S(20));
    net.cut(0, 2, true);
    let took = net
        .until(S(10), |net| net.path(0, 2).contains("via"))
        .unwrap();
    assert!(took < S(5), "{took:?}");
    assert!(
        !net.changes(0, 2, S(0))
            .iter()
            .any(|change| change.contains("down"))
    );
    net.assert_i3();
}

#[test]
fn a_dead_relay_is_replaced() {
    let mut net = Net::new(4, 2);
    net.cut(0, 3, true);
    net.join();
    net.flow(0, 3);
    net.run(S(20));
    let relay = if net.path(0, 3).contains("n2") { 1 } else { 2 };
    assert!(net.path(0, 3).contains("via"));
    net.run_node(relay, false);
    let other = format!("via n{}", 4 - relay);
    let took = net
        .until(S(20), |net| {
            net.path(0, 3).contains(&other) && net.path(3, 0).contains(&other)
        })
        .unwrap();
    assert!(took < S(8), "{took:?}");
    let start = net.now;
    net.run(S(5));
    assert_eq!(net.lost_since(start + MS(1)), 0);
}

#[test]
fn a_chain_is_crossed_and_a_shorter_way_is_taken() {
    let mut net = Net::new(5, 3);
    for a in 0..5 {
        for b in a + 2..5 {
            net.cut(a, b, true);
        }
    }
    net.join();
    let took = net.until(S(60), Net::is_whole).unwrap();
    assert!(took < S(40), "{took:?}");
    net.flow(0, 4);
    net.run(S(10));
    assert_eq!(net.path(0, 4), "sleeve via n2 4 1438");
    let start = net.now;
    net.cut(1, 4, false);
    net.until(S(60), |net| net.path(0, 4).starts_with("sleeve via n2 2"))
        .unwrap();
    net.run(S(2));
    assert_eq!(net.lost_since(start), 0);
    net.assert_i3();
}

#[test]
fn at_full_health_nothing_is_published() {
    let mut net = Net::new(6, 4);
    net.join();
    net.run(S(300));
    for node in &net.nodes {
        assert_eq!(node.facts.reach, crate::route::Reach::default());
    }
}

#[test]
fn a_crashed_node_makes_nobody_publish() {
    let mut net = Net::new(6, 5);
    net.join();
    net.run(S(30));
    net.run_node(0, false);
    for other in 1..6 {
        let id = net.nodes[0].id;
        net.input(other, crate::link::input::LinkInput::Doubt(id));
    }
    net.run(S(300));
    for node in &net.nodes[1..] {
        assert_eq!(node.facts.reach, crate::route::Reach::default());
    }
}

#[test]
fn a_link_that_flaps_is_not_followed() {
    let mut net = Net::new(3, 6);
    net.join();
    net.flow(0, 2);
    net.run(S(10));
    let start = net.now;
    for _ in 0..30 {
        net.cut(0, 2, true);
        net.run(S(5));
        net.cut(0, 2, false);
        net.run(S(2));
    }
    let changes = net.changes(0, 2, start);
    assert!(changes.len() < 12, "in 30 flaps {changes:?}");
    net.assert_i3();
}

#[test]
fn every_broadcast_arrives_once_though_links_are_missing() {
    let mut net = Net::new(6, 7);
    for (a, b) in [(0, 1), (0, 2), (1, 3), (2, 4), (4, 5), (3, 5)] {
        net.cut(a, b, true);
    }
    net.join();
    net.until(S(30), Net::is_whole).unwrap();
    net.run(S(10));
    let start = net.now;
    for a in 0..6 {
        for b in (0..6).filter(|b| *b != a) {
            net.send_frame(a, b, false);
        }
    }
    net.run(S(1));
    assert_eq!(net.lost_since(start), 0);
    net.assert_i3();
}
