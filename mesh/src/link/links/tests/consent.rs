//! Frames in the clear between those who trust each other, and nobody else.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::link::view::LinkState;
use crate::rng::SplitMix64;

const INSIDE: &str = "10.0.0.0/16";
const TRUSTED: &str = "vxlan direct 10.0.0.2:6784 1 1414";
const SEALED: &str = "sleeve direct 10.0.0.2:6783 1 1414";

/// Nodes with a password, of which these trust the network that all are in.
fn sealed(count: usize, seed: u64, trusting: &[usize]) -> Net {
    let mut net = Net::with(count, seed, |node, config| {
        config.sealed = true;
        config.mtu = 1414;
        if trusting.contains(&node) {
            config.trusted = vec![INSIDE.parse().unwrap()];
        }
    });
    net.join();
    net
}

#[test]
fn those_who_trust_each_other_send_in_the_clear_and_show_it() {
    let mut net = sealed(2, 1, &[0, 1]);
    net.until(S(5), Net::is_whole).unwrap();
    assert_eq!(net.path(0, 1), SEALED);
    net.flow(0, 1);
    net.until(S(5), |net| net.path(0, 1) == TRUSTED).unwrap();
    net.run(S(120));
    assert_eq!(net.reason(0, 1), None);
    let view = net.nodes[0].links.view(net.nodes[1].id, net.now).unwrap();
    let [vxlan, sleeve] = &view.ways[..] else {
        panic!("{view:?}");
    };
    assert_eq!(vxlan.plain, Some(INSIDE.parse().unwrap()));
    assert!(vxlan.chosen && vxlan.state == LinkState::Up);
    assert_eq!((sleeve.plain, sleeve.state), (None, LinkState::Up));
    assert_eq!(net.changes(0, 1, S(1002)), [""; 0], "and stays so");
    assert_eq!(net.lost_since(S(0)), 0, "no frame is lost on the way there");
    assert_eq!(net.exposed, [""; 0]);
}

#[test]
fn i4_one_side_alone_is_not_enough_and_is_told_why() {
    for trusting in [0, 1] {
        let mut net = sealed(2, 2, &[trusting]);
        net.flow(0, 1);
        net.run(S(60));
        assert_eq!(net.path(0, 1), SEALED);
        assert_eq!(net.plain, 0);
        let (other, lone) = (1 - trusting, "the peer does not trust this node's address");
        let why = net.reason(trusting, other).unwrap();
        assert_eq!(why, format!("frames are sealed: {lone}"));
        assert_eq!(net.reason(other, trusting).unwrap(), "frames are sealed");
    }
}

#[test]
fn i4_a_node_outside_is_sealed_with_all() {
    let mut net = sealed(3, 3, &[0, 1, 2]);
    net.renumber(2, "192.0.2.3".parse().unwrap());
    net.join();
    for (a, b) in [(0, 1), (1, 2), (2, 0)] {
        net.flow(a, b);
    }
    net.run(S(60));
    assert_eq!(net.path(0, 1), TRUSTED);
    for (a, b) in [(0, 2), (1, 2), (2, 0), (2, 1)] {
        assert!(net.path(a, b).starts_with("sleeve direct"), "{a} to {b}");
    }
    assert_eq!(net.exposed, [""; 0]);
}

/// The relay is trusted, and gets what it cannot read.
#[test]
fn i4_what_is_relayed_is_sealed() {
    let mut net = sealed(3, 4, &[0, 1, 2]);
    net.flow(0, 1);
    net.until(S(5), |net| net.path(0, 1) == TRUSTED).unwrap();
    net.cut(0, 1, true);
    net.until(S(10), |net| net.path(0, 1).starts_with("sleeve via n3"))
        .unwrap();
    net.run(S(60));
    assert_eq!(net.exposed, [""; 0]);
    net.cut(0, 1, false);
    net.until(S(30), |net| net.path(0, 1) == TRUSTED).unwrap();
}

#[test]
fn i4_a_node_that_moves_out_of_the_network_seals_at_once() {
    let mut net = sealed(2, 5, &[0, 1]);
    net.flow(0, 1);
    net.flow(1, 0);
    net.run(S(10));
    assert_eq!(net.path(0, 1), TRUSTED);
    net.renumber(0, "192.0.2.9".parse().unwrap());
    assert_eq!(net.path(0, 1), SEALED);
    let outside = |net: &Net| net.path(1, 0).starts_with("sleeve direct 192.0.2.9");
    net.until(S(10), outside).unwrap();
    net.run(S(30));
    assert_eq!(net.exposed, [""; 0]);
    net.renumber(0, "10.0.0.1".parse().unwrap());
    net.join();
    net.until(S(30), |net| net.path(0, 1) == TRUSTED).unwrap();
}

/// Its kernel took another way, or another address, and nobody told it: the peer's answers do.
#[test]
fn i4_a_node_that_moves_unawares_seals_after_one_more_answer() {
    let mut net = sealed(2, 6, &[0, 1]);
    net.flow(0, 1);
    net.run(S(10));
    let moved = net.now;
    net.move_silently(0, "192.0.2.9".parse().unwrap());
    let took = net.until(S(10), |net| net.path(0, 1) == SEALED).unwrap();
    assert!(took < MS(1200), "{took:?}");
    let told = net.exposed.len();
    net.run(S(30));
    assert_eq!(net.exposed.len(), told);
    assert!(net.now > moved + S(30));
}

#[test]
fn i4_a_peer_that_starts_again_is_asked_again() {
    let mut net = sealed(2, 7, &[0, 1]);
    net.flow(0, 1);
    net.run(S(10));
    net.restart(1, |config| config.trusted.clear());
    let took = net.until(S(10), |net| net.path(0, 1) == SEALED).unwrap();
    assert!(took < MS(100), "with the news of it: {took:?}");
    let told = net.exposed.len();
    net.run(S(60));
    assert_eq!(net.exposed.len(), told);
    net.restart(1, |config| config.trusted = vec![INSIDE.parse().unwrap()]);
    net.until(S(10), |net| {
        net.path(0, 1) == TRUSTED && net.path(1, 0).starts_with("vxlan")
    })
    .unwrap();
}

/// With the sealed way goes what was agreed on it: nothing else shows that it still holds.
#[test]
fn i4_without_the_sealed_way_nothing_is_plain() {
    let mut net = sealed(2, 8, &[0, 1]);
    net.flow(0, 1);
    net.run(S(10));
    net.rule(0, 1, |rule| rule.sleeve = false);
    net.until(S(10), |net| net.path(0, 1).starts_with("down"))
        .unwrap();
    let before = net.plain;
    net.run(S(60));
    assert_eq!(net.plain, before);
    net.rule(0, 1, |rule| rule.sleeve = true);
    net.until(S(30), |net| net.path(0, 1) == TRUSTED).unwrap();
}

/// The peer's VXLAN port may be blocked: sealed sleeve carries on.
#[test]
fn i8_without_vxlan_the_link_is_sealed_and_says_why() {
    let mut net = sealed(2, 9, &[0, 1]);
    net.rule(0, 1, |rule| rule.vxlan = false);
    net.until(S(5), Net::is_whole).unwrap();
    net.flow(0, 1);
    net.run(S(20));
    assert_eq!(net.path(0, 1), SEALED);
    assert_eq!(net.reason(0, 1).unwrap(), "no reply on UDP 6784");
    assert_eq!(net.lost_since(S(0)), 0);
}

/// Nodes that trust what they like, move, lose and stop, and are never exposed; in the end those in
/// the clear are those who trust each other.
fn trouble(seed: u64) {
    const NETS: [&str; 3] = ["10.0.0.0/16", "192.0.2.0/24", "198.51.100.0/24"];
    let mut rng = SplitMix64::new(seed);
    let count = 3 + usize::try_from(rng.below(3)).unwrap();
    let mut net = Net::with(count, seed, |_, config| {
        config.sealed = true;
        config.mtu = 1414;
        let trusted = NETS.iter().filter(|_| rng.below(3) > 0);
        config.trusted = trusted.map(|net| net.parse().unwrap()).collect();
    });
    let pick = |rng: &mut SplitMix64| usize::try_from(rng.below(count as u64)).unwrap();
    if rng.below(3) == 0 {
        net.behind_nat(count - 1, [203, 0, 113, 1]);
    }
    net.join();
    net.flow(0, 1);
    net.flow(1, 2);
    for step in 0..12 {
        let (a, b) = (pick(&mut rng), pick(&mut rng));
        match rng.below(8) {
            which @ 0..4 => net.disturb(which, a, b),
            4 => {
                let lost = rng.below(300);
                net.rule(a, b, |rule| (rule.lost, rule.jitter) = (lost, MS(lost)));
            }
            5 => net.restart(a, |_| {}),
            _ => {
                let nets: [[u8; 3]; 3] = [[10, 0, 7], [192, 0, 2], [198, 51, 100]];
                let [x, y, z] = nets[usize::try_from(rng.below(3)).unwrap()];
                let host = u8::try_from(20 * a + 10 + step).unwrap();
                net.renumber(a, IpAddr::from([x, y, z, host]));
                net.join();
            }
        }
        net.run(MS(rng.below(8000)));
        assert_eq!(net.exposed, [""; 0], "seed {seed}");
    }
    net.calm();
    let agreed = |net: &Net, a: usize, b: usize| {
        let address = |node: usize| net.nodes[node].seen_at();
        let trusts = |a: usize, b: usize| net.nodes[a].links.trusts(address(b)).is_some();
        trusts(a, b) && trusts(b, a)
    };
    let well = |net: &Net| {
        let as_agreed = |a: usize, b: usize| {
            let plain = net.path(a, b).starts_with("vxlan direct");
            let sealed = net.path(a, b).starts_with("sleeve direct");
            if agreed(net, a, b) { plain } else { sealed }
        };
        (0..count).all(|a| (0..count).all(|b| a == b || as_agreed(a, b)))
    };
    net.until(S(180), well).unwrap_or_else(|| {
        let paths = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
        let all = paths.filter(|(a, b)| a != b);
        let all: Vec<_> = all
            .map(|(a, b)| (a, b, agreed(&net, a, b), net.path(a, b)))
            .collect();
        panic!("seed {seed}: not well: {all:#?}")
    });
    assert_eq!(net.exposed, [""; 0], "seed {seed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn i4_no_trouble_exposes_a_frame(seed: u64) {
        trouble(seed);
    }
}
