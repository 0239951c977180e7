//! What it costs.

use super::*;
use crate::link::input::LinkInput;

/// Probes per second, averaged over the last seconds, of the busiest node; answers included.
fn rate(net: &Net, seconds: u64) -> u64 {
    let from = net.now.as_secs() - seconds;
    let of = |node: &net::Node| {
        node.probes
            .range(from..)
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    net.nodes.iter().map(of).max().unwrap() / seconds
}

#[test]
fn at_rest_probes_do_not_grow_with_the_number_of_peers() {
    for count in [3, 30, 120] {
        let mut net = Net::new(count, 1);
        net.join();
        let took = net.until(S(30), Net::is_whole).unwrap();
        assert!(took < S(10), "{count}: {took:?}");
        net.run(S(300));
        let rate = rate(&net, 100);
        assert!(rate <= 21, "{count} nodes: {rate} a second");
    }
}

#[test]
fn when_half_of_all_vanish_a_used_link_is_judged_no_later() {
    let mut net = Net::new(80, 2);
    net.join();
    net.run(S(60));
    net.flow(0, 1);
    net.run(S(10));
    for a in 0..40 {
        for b in 40..80 {
            net.cut(a, b, true);
        }
    }
    net.run(S(2));
    net.cut(0, 1, true);
    let took = net
        .until(S(20), |net| net.path(0, 1).contains("via"))
        .unwrap();
    assert!(took < S(6), "{took:?}");
    net.run(S(20));
    assert!(rate(&net, 20) < 300, "{} a second", rate(&net, 20));
}

#[test]
fn i6_requests_without_end_are_not_all_answered() {
    let mut net = Net::new(2, 3);
    net.join();
    net.run(S(10));
    let probe = wire::probe::Probe {
        kind: wire::probe::ProbeKind::Request,
        size: 68,
        source: net.nodes[1].id,
        destination: net.nodes[0].id,
        run: 7,
        nonce: 1,
    };
    let from = "10.0.0.2:6783".parse().unwrap();
    for _ in 0..5000 {
        net.forge(0, from, probe.frame());
    }
    let counters = net.nodes[0].links.counters();
    assert!(
        counters.answers_sent < 200 && counters.answers_limited > 4800,
        "{counters:?}"
    );
}

#[test]
fn i6_tables_are_bounded() {
    let mut net = Net::with(6, 4, |_, config| config.limits.peers = 3);
    net.join();
    net.run(S(20));
    assert_eq!(net.nodes[0].links.views(net.now).len(), 3);
    assert!(net.nodes[0].links.counters().peers_full >= 2);
    assert!(net.nodes[0].links.counters().unknown_peer > 0);
}

/// A newcomer knows all others at once, and asks them before they know it. When they do, each asks it
/// once, and then rarely: its own links must not wait for their turn again.
#[test]
fn a_newcomer_that_asked_too_early_is_whole_when_it_is_asked() {
    let count = 300;
    let mut net = Net::new(count, 9);
    for other in 1..count {
        let (id, facts) = (net.nodes[other].id, net.nodes[other].facts.clone());
        net.input(
            0,
            LinkInput::Peer {
                id,
                facts: facts.into(),
            },
        );
    }
    net.run(S(8));
    assert_eq!(
        net.nodes[0].table.len(),
        0,
        "nobody answers one that it does not know"
    );
    let (id, facts) = (net.nodes[0].id, net.nodes[0].facts.clone());
    for other in 1..count {
        let facts = facts.clone().into();
        net.input(other, LinkInput::Peer { id, facts });
    }
    let took = net.until(S(60), |net| net.nodes[0].table.len() == count - 1);
    assert!(took.unwrap() < S(4), "{took:?}");
}
