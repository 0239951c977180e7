//! Random networks and random trouble: whatever happens, nothing circulates or arrives twice, and
//! when the trouble ends all is well again.

use super::*;
use crate::link::input::LinkInput;
use crate::rng::SplitMix64;

/// One network, and some minutes of trouble.
fn trouble(seed: u64) {
    let mut rng = SplitMix64::new(seed);
    let count = 3 + usize::try_from(rng.below(4)).unwrap();
    let mut net = Net::new(count, seed);
    let pick = |rng: &mut SplitMix64| usize::try_from(rng.below(count as u64)).unwrap();
    let natted = rng.below(3) == 0;
    if natted {
        net.behind_nat(count - 1, [203, 0, 113, 1]);
    }
    net.join();
    net.flow(0, 1);
    net.flow(1, 2);
    let mut stopped = None;
    for _ in 0..12 {
        let (a, b) = (pick(&mut rng), pick(&mut rng));
        match rng.below(10) {
            which @ 0..4 => net.disturb(which, a, b),
            4 => {
                let lost = rng.below(300);
                net.rule(a, b, |rule| rule.lost = lost);
            }
            5 => {
                let mtu = 700 + u16::try_from(rng.below(801)).unwrap();
                net.rule(a, b, |rule| rule.mtu = mtu);
            }
            6 => {
                let jitter = MS(rng.below(200));
                net.rule(a, b, |rule| rule.jitter = jitter);
            }
            7 => match stopped.take() {
                Some(node) => net.run_node(node, true),
                None => {
                    net.run_node(a, false);
                    stopped = Some(a);
                }
            },
            8 => {
                let id = net.nodes[b].id;
                net.input(a, LinkInput::Doubt(id));
            }
            _ => net.restart_nat(a),
        }
        net.run(MS(rng.below(8000)));
        net.assert_i3();
    }
    if let Some(node) = stopped {
        net.run_node(node, true);
    }
    net.calm();
    let well = |net: &Net| {
        let direct = |a: usize, b: usize| {
            let kind = if natted && (a == count - 1 || b == count - 1) {
                "sleeve direct"
            } else {
                "vxlan direct"
            };
            net.path(a, b).starts_with(kind)
        };
        (0..count).all(|a| (0..count).all(|b| a == b || direct(a, b)))
    };
    net.until(S(180), well).unwrap_or_else(|| {
        let paths = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
        let bad: Vec<_> = paths
            .filter(|(a, b)| a != b)
            .map(|(a, b)| (a, b, net.path(a, b)))
            .collect();
        panic!("seed {seed}: not well: {bad:#?}")
    });
    let start = net.now;
    net.run(S(3));
    net.assert_i3();
    assert_eq!(
        net.lost_since(start + MS(1)),
        0,
        "seed {seed}: frames of flows are lost"
    );
}

#[test]
fn i3_and_recovery_in_random_trouble() {
    let seeds = std::env::var("WEFT_LINK_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    for seed in 0..seeds.unwrap_or(200) {
        trouble(seed);
    }
}
