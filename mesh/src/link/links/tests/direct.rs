//! Two nodes and the ways between them.

use super::*;
use crate::link::facts::Gone;
use crate::link::input::LinkInput;
use crate::link::view::LinkState;

#[test]
fn a_healthy_pair_is_up_over_vxlan_after_a_round_trip_or_two() {
    let mut net = Net::new(2, 1);
    net.join();
    let took = net.until(S(5), Net::is_whole).unwrap();
    assert!(took < MS(60), "{took:?}");
    assert_eq!(net.path(0, 1), "vxlan direct 10.0.0.2:6784 1 1450");
    assert_eq!(net.reason(0, 1), None);
    net.run(S(1));
    let view = net.nodes[0].links.view(net.nodes[1].id, net.now).unwrap();
    assert_eq!((view.state, view.reason), (LinkState::Up, None));
    assert_eq!(view.quality.rtt, Some(MS(1)));
    let sleeve = &view.ways[1];
    assert_eq!(
        (sleeve.state, sleeve.quality.mtu),
        (LinkState::Up, Some(1438))
    );
    assert_eq!(
        net.changes(0, 1, S(0)),
        ["vxlan"],
        "sleeve came first and was not taken"
    );
}

#[test]
fn i8_blocked_vxlan_shows_its_port_and_sleeve_carries_on() {
    let mut net = Net::new(2, 2);
    net.rule(0, 1, |rule| rule.vxlan = false);
    net.join();
    let took = net.until(S(10), Net::is_whole).unwrap();
    assert!(took < MS(1200), "{took:?}");
    net.run(S(5));
    assert_eq!(net.path(0, 1), "sleeve direct 10.0.0.2:6783 1 1438");
    assert_eq!(net.reason(0, 1).unwrap(), "no reply on UDP 6784");
    let view = net.nodes[0].links.view(net.nodes[1].id, net.now).unwrap();
    assert_eq!(view.ways[0].state, LinkState::Down);
    assert_eq!(view.ways[0].reason.as_deref(), Some("no reply on UDP 6784"));
    // It is taken again when it works.
    net.flow(0, 1);
    net.run(S(5));
    net.rule(0, 1, |rule| rule.vxlan = true);
    let back = net
        .until(S(10), |net| net.path(0, 1).starts_with("vxlan"))
        .unwrap();
    assert!(back < S(4), "{back:?}");
    net.run(S(2));
    assert_eq!(net.lost_since(S(0)), 0);
}

#[test]
fn i8_all_blocked_is_down_with_both_ports() {
    let mut net = Net::new(2, 3);
    net.cut(0, 1, true);
    net.join();
    net.run(S(10));
    assert_eq!(net.path(0, 1), "down: no reply on UDP 6784 and 6783");
    assert_eq!(
        net.changes(0, 1, S(0)),
        ["down: no reply on UDP 6784 and 6783"]
    );
}

#[test]
fn a_dead_link_with_traffic_is_noticed_in_seconds_and_comes_back_in_seconds() {
    for seed in 0..20 {
        let mut net = Net::new(2, seed);
        net.join();
        net.flow(0, 1);
        net.run(S(30) + MS(seed * 77));
        net.cut(0, 1, true);
        let down = net
            .until(S(10), |net| net.path(0, 1).starts_with("down"))
            .unwrap();
        assert!(down > S(2) && down < S(5), "{down:?}");
        net.run(S(20));
        net.cut(0, 1, false);
        let up = net.until(S(10), |net| net.is_whole()).unwrap();
        assert!(up < S(3), "{up:?}");
    }
}

#[test]
fn when_vxlan_alone_dies_sleeve_takes_over_before_it_is_given_up() {
    let mut net = Net::new(2, 4);
    net.join();
    net.flow(0, 1);
    net.run(S(30));
    net.rule(0, 1, |rule| rule.vxlan = false);
    let over = net
        .until(S(10), |net| net.path(0, 1).starts_with("sleeve"))
        .unwrap();
    assert!(over < MS(2500), "{over:?}");
    net.run(S(60));
    assert_eq!(net.changes(0, 1, S(1001)), ["sleeve"]);
    assert_eq!(net.reason(0, 1).unwrap(), "no reply on UDP 6784");
}

#[test]
fn a_way_that_takes_over_and_dies_is_noticed_in_seconds_though_nobody_uses_it() {
    // Links in trouble get so few probes that VXLAN goes down and sleeve takes over at one moment.
    let mut net = Net::with(2, 14, |_, config| config.timing.idle_rate = 1);
    net.join();
    net.run(S(60));
    net.rule(0, 1, |rule| rule.vxlan = false);
    net.until(S(30), |net| net.path(0, 1).starts_with("sleeve"))
        .unwrap();
    net.cut(0, 1, true);
    let down = net
        .until(S(100), |net| net.path(0, 1).starts_with("down"))
        .unwrap();
    assert!(down < S(7), "{down:?}");
}

#[test]
fn one_direction_that_is_blocked_is_no_link() {
    let mut net = Net::new(2, 5);
    net.join();
    net.flow(0, 1);
    net.run(S(10));
    net.one_way(1, 0, |rule| (rule.vxlan, rule.sleeve) = (false, false));
    net.until(S(10), |net| {
        net.path(0, 1).starts_with("down") && net.path(1, 0).starts_with("down")
    })
    .unwrap();
}

#[test]
fn an_idle_link_that_dies_is_noticed_within_its_cycle() {
    let mut net = Net::new(2, 6);
    net.join();
    net.run(S(60));
    net.cut(0, 1, true);
    let down = net
        .until(S(60), |net| net.path(0, 1).starts_with("down"))
        .unwrap();
    assert!(down < S(17), "{down:?}");
    net.cut(0, 1, false);
    let up = net.until(S(60), Net::is_whole).unwrap();
    assert!(up < S(5), "{up:?}");
}

#[test]
fn loss_makes_a_link_degraded_and_does_not_take_it_down() {
    let mut net = Net::new(2, 7);
    net.join();
    net.flow(0, 1);
    net.rule(0, 1, |rule| rule.lost = 200);
    net.run(S(120));
    let view = net.nodes[0].links.view(net.nodes[1].id, net.now).unwrap();
    assert_eq!(view.state, LinkState::Degraded);
    assert!(view.reason.unwrap().contains("% of probes are lost"));
    assert_eq!(
        net.changes(0, 1, S(0))
            .iter()
            .filter(|c| c.contains("down"))
            .count(),
        0
    );
    net.rule(0, 1, |rule| rule.lost = 0);
    net.run(S(60));
    let view = net.nodes[0].links.view(net.nodes[1].id, net.now).unwrap();
    assert_eq!((view.state, view.quality.loss), (LinkState::Up, Some(0)));
}

#[test]
fn a_degraded_link_that_nobody_uses_is_judged_anew_all_the_same() {
    // As among a hundred nodes.
    let mut net = Net::with(2, 7, |_, config| config.timing.idle = S(60));
    net.join();
    net.flow(0, 1);
    net.rule(0, 1, |rule| rule.lost = 200);
    let state = |net: &Net| net.nodes[0].links.view(net.nodes[1].id, net.now);
    let is = |net: &Net, wanted| state(net).is_some_and(|view| view.state == wanted);
    net.run(S(120));
    assert!(is(&net, LinkState::Degraded));
    net.end_flow(0, 1);
    net.rule(0, 1, |rule| rule.lost = 0);
    let took = net.until(S(300), |net| is(net, LinkState::Up)).unwrap();
    assert!(took < S(60), "{took:?}");
}

#[test]
fn a_way_that_becomes_slow_is_not_down() {
    let mut net = Net::new(2, 8);
    net.join();
    net.flow(0, 1);
    net.run(S(10));
    net.rule(0, 1, |rule| (rule.delay, rule.jitter) = (MS(400), MS(200)));
    net.run(S(60));
    assert_eq!(net.changes(0, 1, S(1001)), [""; 0]);
    let view = net.nodes[0].links.view(net.nodes[1].id, net.now).unwrap();
    assert!(view.quality.rtt.unwrap() > MS(800), "{view:?}");
}

#[test]
fn i5_what_is_said_of_the_control_path_takes_no_link_down() {
    let mut net = Net::new(3, 9);
    net.join();
    net.run(S(10));
    for _ in 0..200 {
        let id = net.nodes[1].id;
        net.input(0, LinkInput::Doubt(id));
        net.run(MS(300));
    }
    assert_eq!(net.changes(0, 1, S(0)), ["vxlan"]);
    assert_eq!(net.changes(0, 2, S(0)), ["vxlan"]);
}

#[test]
fn i5_a_node_that_stood_still_blames_nobody() {
    let mut net = Net::new(4, 10);
    net.join();
    for other in 1..4 {
        net.flow(0, other);
        net.flow(1, (other + 1) % 4);
    }
    net.run(S(20));
    net.run_node(0, false);
    net.run(S(20));
    assert!(net.path(1, 0).starts_with("down"), "{}", net.path(1, 0));
    assert!(net.path(1, 2).starts_with("vxlan"), "nobody else notices");
    net.run_node(0, true);
    net.until(S(5), Net::is_whole).unwrap();
    assert_eq!(
        net.changes(0, 1, S(1001)),
        [""; 0],
        "it was at fault itself"
    );
    assert_eq!(net.changes(1, 2, S(1001)), [""; 0]);
}

#[test]
fn a_restarted_peer_is_back_within_a_round_trip_of_the_news() {
    let mut net = Net::new(2, 11);
    net.join();
    net.flow(0, 1);
    net.run(S(10));
    net.cut(0, 1, true);
    net.run(S(300));
    net.cut(0, 1, false);
    net.end_flow(0, 1);
    net.run(MS(100));
    net.nodes[1].facts.run += 1;
    net.join();
    let up = net
        .until(S(5), |net| net.path(0, 1).starts_with("vxlan"))
        .unwrap();
    assert!(up < MS(600), "{up:?}");
}

#[test]
fn a_peer_that_is_gone_is_gone() {
    let mut net = Net::new(3, 12);
    net.join();
    net.run(S(5));
    let id = net.nodes[1].id;
    net.input(
        0,
        LinkInput::Gone {
            id,
            why: Gone::Left,
        },
    );
    net.input(
        2,
        LinkInput::Gone {
            id,
            why: Gone::Removed("another has its name".into()),
        },
    );
    assert_eq!(net.changes(0, 1, S(1001)), ["left"]);
    assert_eq!(net.changes(2, 1, S(1001)), ["down: another has its name"]);
    let before = net.nodes[0].links.counters().unknown_peer;
    net.run(S(60));
    assert!(net.nodes[0].links.counters().unknown_peer > before);
    assert_eq!(net.nodes[0].links.view(id, net.now), None);
}
