//! NATs, peers that move, and datagrams that are forged.

use std::net::{IpAddr, SocketAddr};

use wire::probe::{Probe, ProbeKind};

use super::*;

#[test]
fn a_node_behind_a_translating_nat_is_reached_over_sleeve() {
    let mut net = Net::new(3, 1);
    net.behind_nat(2, [203, 0, 113, 1]);
    net.join();
    let took = net.until(S(10), Net::is_whole).unwrap();
    assert!(took < S(2), "{took:?}");
    net.run(S(5));
    let inside = net.path(2, 0);
    assert!(
        inside.starts_with("sleeve direct 10.0.0.1:6783"),
        "{inside}"
    );
    let outside = net.path(0, 2);
    assert!(
        outside.starts_with("sleeve direct 203.0.113.1:"),
        "{outside}"
    );
    assert_eq!(net.path(0, 1), "vxlan direct 10.0.0.2:6784 1 1450");
    let seen = net.nodes[2].facts.sleeve_seen.unwrap();
    assert!(
        outside.contains(&seen.to_string()),
        "{outside}, seen as {seen}"
    );
    assert_ne!(seen.port(), 6783);
    assert_eq!(net.nodes[0].facts.sleeve_seen, None);
}

#[test]
fn a_mapping_is_kept_alive_without_traffic() {
    let mut net = Net::new(2, 2);
    net.behind_nat(1, [203, 0, 113, 1]);
    net.join();
    net.run(S(10));
    let start = net.now;
    net.run(S(600));
    assert_eq!(net.changes(0, 1, start), [""; 0]);
    assert_eq!(net.changes(1, 0, start), [""; 0]);
}

/// Three nodes behind one NAT and one outside, which has links to all of them after `time`. Those inside are
/// neighbours, so that most see each as it is, and its entry does not name the address outside.
fn seen_by_one_alone(idle: Duration, time: Duration) -> Net {
    let mut net = Net::with(4, 7, |_, config| config.timing.idle = idle);
    for node in 1..4 {
        net.behind_nat(node, [203, 0, 113, 1]);
    }
    net.join();
    net.run(time);
    for node in 1..4 {
        assert_eq!(net.nodes[node].facts.sleeve_seen, None);
        let path = net.path(0, node);
        assert!(path.starts_with("sleeve direct 203.0.113.1:"), "{path}");
    }
    net
}

/// Its probes over VXLAN come first, and an answer to their address finds nobody: those over sleeve count by
/// themselves. Among many nodes the next ones come minutes later.
#[test]
fn a_node_that_one_peer_alone_sees_behind_a_nat_is_found_at_once() {
    seen_by_one_alone(S(380), S(3));
}

/// Most of those who see the nodes inside see them as they are, and outvote the one outside: it alone knows of
/// the mappings, by addresses that no entry names.
#[test]
fn a_mapping_that_only_the_other_side_knows_of_is_kept_alive() {
    let mut net = seen_by_one_alone(S(10), S(20));
    // As among many nodes, where idle links are tested seldom.
    for node in &mut net.nodes {
        node.links.config.timing.idle = S(100);
    }
    let start = net.now;
    net.run(S(600));
    for node in 1..4 {
        assert_eq!(net.changes(0, node, start), [""; 0]);
        assert_eq!(net.changes(node, 0, start), [""; 0]);
    }
}

#[test]
fn a_nat_that_restarts_costs_seconds() {
    let mut net = Net::new(2, 3);
    net.behind_nat(1, [203, 0, 113, 1]);
    net.join();
    net.flow(0, 1);
    net.run(S(10));
    let before = net.path(0, 1);
    net.restart_nat(1);
    let moved = net.until(S(10), |net| net.path(0, 1) != before).unwrap();
    assert!(net.path(0, 1).starts_with("sleeve direct 203.0.113.1:"));
    assert!(moved < S(3), "{moved:?}");
    let start = net.now;
    net.run(S(10));
    assert_eq!(net.lost_since(start + MS(1)), 0);
}

#[test]
fn two_nodes_behind_two_nats_meet_by_their_seen_addresses() {
    let mut net = Net::new(3, 4);
    net.behind_nat(1, [203, 0, 113, 1]);
    net.behind_nat(2, [203, 0, 113, 2]);
    net.join();
    net.until(S(20), Net::is_whole).unwrap();
    net.until(S(30), |net| {
        net.path(1, 2).starts_with("sleeve direct") && net.path(2, 1).starts_with("sleeve direct")
    })
    .unwrap();
}

#[test]
fn two_nodes_behind_one_nat_are_told_apart() {
    let mut net = Net::new(3, 5);
    net.behind_nat(1, [203, 0, 113, 1]);
    net.behind_nat(2, [203, 0, 113, 1]);
    net.join();
    net.until(S(10), Net::is_whole).unwrap();
    net.run(S(5));
    for node in [1, 2] {
        let (path, seen) = (
            net.path(0, node),
            net.nodes[node].facts.sleeve_seen.unwrap(),
        );
        assert!(path.starts_with(&format!("sleeve direct {seen}")), "{path}");
        assert_eq!(seen.ip().to_string(), "203.0.113.1");
        let why = net.reason(0, node).unwrap();
        assert!(why.starts_with("203.0.113.1 is the address of n"), "{why}");
    }
    assert_eq!(
        net.path(1, 2),
        "vxlan direct 10.0.0.3:6784 1 1450",
        "they are neighbours inside"
    );
}

#[test]
fn a_forged_datagram_moves_nothing() {
    let mut net = Net::new(2, 6);
    net.join();
    net.flow(0, 1);
    net.run(S(10));
    let start = net.now;
    for n in 0..2000_u16 {
        let probe = Probe {
            kind: ProbeKind::Request,
            size: 68,
            source: net.nodes[1].id,
            destination: net.nodes[0].id,
            run: 7,
            nonce: n.into(),
        };
        let from = SocketAddr::from(([198, 51, 100, 7], 1000 + n));
        net.forge(0, from, probe.frame());
        let kind = ProbeKind::Reply {
            observed: from,
            plain: true,
        };
        net.forge(0, from, Probe { kind, ..probe }.frame());
        net.run(MS(20));
    }
    assert_eq!(net.changes(0, 1, start), [""; 0]);
    assert_eq!(net.path(0, 1), "vxlan direct 10.0.0.2:6784 1 1450");
    assert_eq!(net.nodes[0].links.counters().stray_answers, 2000);
    assert_eq!(net.nodes[0].facts.sleeve_seen, None);
    // No more is sent than came, nor often.
    let busiest = net.nodes[0].probes.values().max().unwrap();
    assert!(*busiest < 120, "{busiest} probes in a second");
    assert!(
        net.nodes[0].links.counters().addresses_evicted > 0,
        "the table is bounded"
    );
}

#[test]
fn a_peer_with_two_addresses_does_not_wander() {
    let mut net = Net::new(2, 7);
    let second: IpAddr = "192.0.2.9".parse().unwrap();
    net.nodes[1].facts.addresses.push(second);
    net.join();
    net.flow(0, 1);
    net.run(S(60));
    assert_eq!(net.changes(0, 1, S(0)), ["vxlan"]);
    // The peer is given another address, of which its entry tells.
    net.renumber(1, second);
    net.join();
    let moved = net
        .until(S(10), |net| net.path(0, 1).contains("192.0.2.9"))
        .unwrap();
    assert!(moved < S(3), "{moved:?}");
}

#[test]
fn a_peer_that_moved_is_found_by_what_it_sends() {
    let mut net = Net::new(2, 8);
    net.join();
    net.flow(1, 0);
    net.run(S(20));
    // Nobody is told: its control path is as lost as its old address.
    let new: IpAddr = "192.0.2.77".parse().unwrap();
    net.move_silently(1, new);
    let moved = net
        .until(S(10), |net| net.path(0, 1).contains("192.0.2.77"))
        .unwrap();
    assert!(moved < S(5), "{moved:?}");
}
