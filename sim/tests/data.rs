//! Probes and frames as datagrams: what is lost, late, doubled, blocked, too large or translated on
//! the way costs what it must and nothing else, and all is well after each heal.

use std::time::Duration;

use mesh::{Encapsulation, Input};
use sim::check::{all_know_all, arrived, no_link_lost};
use sim::{Cluster, run};

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// A cluster of `least` to `most` nodes with one target each.
fn start(cluster: &mut Cluster, least: usize, most: usize) -> Vec<usize> {
    let count = least + cluster.below(most - least + 1);
    let nodes: Vec<usize> = cluster.add(count).collect();
    for number in &nodes[1..] {
        cluster.target(*number, 0);
    }
    for number in &nodes {
        cluster.start(*number);
    }
    nodes
}

fn settle(cluster: &mut Cluster, within: Duration) -> Result<(), String> {
    if cluster.run_until(within, |cluster| all_know_all(cluster).is_ok()) {
        return Ok(());
    }
    all_know_all(cluster)
}

/// I3: what each node sends to all now arrives everywhere, once.
fn all_hear_all(cluster: &mut Cluster) -> Result<(), String> {
    let inside = cluster.inside();
    let sent: Vec<u64> = inside.iter().map(|node| cluster.broadcast(*node)).collect();
    cluster.run_for(S(1));
    arrived(cluster, &sent)?;
    let others = inside.len() - 1;
    let short = |number: &&u64| {
        let frame = cluster.frames.get(**number);
        frame.is_none_or(|frame| frame.copies.len() != others)
    };
    match sent.iter().find(short) {
        Some(number) => Err(format!("frame {number} was not sent to all")),
        None => Ok(()),
    }
}

/// Something becomes of the packets between two machines, one way or both.
fn trouble(cluster: &mut Cluster, a: usize, b: usize) {
    let kind = cluster.rng.below(10);
    let amount = cluster.rng.below(1000);
    let change = move |rule: &mut sim::Rule| match kind {
        0 => rule.vxlan = false,
        1 => rule.sleeve = false,
        2 => (rule.vxlan, rule.sleeve) = (false, false),
        3 => rule.tcp = false,
        4 => rule.lost = amount,
        5 => rule.lost = amount / 10,
        6 => rule.twice = amount,
        7 => rule.jitter = MS(amount),
        8 => rule.mtu = 1280 + u16::try_from(amount / 5).unwrap_or(0),
        _ => *rule = sim::Rule::SHUT,
    };
    match cluster.rng.below(4) {
        0 => cluster.rule(a, b, change),
        1 => cluster.everywhere(change),
        _ => cluster.one_way(a, b, change),
    }
}

/// Puts some machines behind NATs; the first two stay outside.
fn translate(cluster: &mut Cluster) {
    let mut inner: Vec<usize> = Vec::new();
    for number in 2..8 {
        if cluster.rng.below(3) == 0 {
            inner.push(number);
        }
    }
    let cut = cluster.below(inner.len() + 1);
    let (one, two) = inner.split_at(cut);
    for nodes in [one, two] {
        let symmetric = cluster.rng.below(3) == 0;
        if !nodes.is_empty() {
            cluster.translate(nodes, symmetric);
        }
    }
}

fn schedule(cluster: &mut Cluster, nat: bool) -> Result<(), String> {
    if nat {
        translate(cluster);
    }
    let nodes = start(cluster, 3, 7);
    settle(cluster, S(120))?;
    for _ in 0..25 {
        let node = nodes[cluster.below(nodes.len())];
        let other = nodes[cluster.below(nodes.len())];
        let running = cluster.nodes()[node].mesh.is_some();
        match cluster.rng.below(18) {
            0 if running => cluster.crash(node),
            1 if running => cluster.power_off(node),
            2 if running => cluster.stop(node),
            3 if running => cluster.go_on(node),
            4 if !running => cluster.lose_state(node),
            5 => cluster.partition(&[node, other]),
            6 | 7 => cluster.heal(),
            8 => cluster.reset_any(),
            9 => cluster.corrupt_any(&[0, 0, 0, 1, 77, 0xff]),
            10 => {
                // Back or forth by up to an hour, as when a machine's battery is empty.
                let clock = 1 + cluster.rng.below(7_200_000);
                cluster.set_clock(node, clock);
            }
            11 => {
                let rate = 100 + u32::try_from(cluster.rng.below(10_000)).unwrap_or(0);
                cluster.slow_down(node, Some(rate));
            }
            12 => cluster.restart_nats(),
            _ if !running => cluster.start(node),
            _ => trouble(cluster, node, other),
        }
        // Pods talk all the while.
        for _ in 0..10 {
            let from = nodes[cluster.below(nodes.len())];
            if cluster.rng.below(2) == 0 {
                cluster.broadcast(from);
            } else {
                cluster.unicast(from, other);
            }
            let pause = cluster.rng.up_to(S(3));
            cluster.run_for(pause);
        }
        cluster.frames.check()?;
        let past = cluster.now().saturating_sub(S(30));
        cluster.frames.forget_before(past);
    }
    cluster.heal();
    for node in &nodes {
        cluster.slow_down(*node, None);
        cluster.go_on(*node);
        if !cluster.nodes()[*node].is_in() {
            cluster.start(*node);
        }
    }
    // The first was told of nobody, and may have lost what it knew.
    let at = cluster.nodes()[1].control();
    cluster.input(0, Input::Connect(at.into()));
    settle(cluster, S(400))?;
    if nat {
        // A link without traffic through a NAT that forgot is found out with its next probe.
        cluster.run_for(S(60));
        all_know_all(cluster)?;
    }
    all_hear_all(cluster)?;
    // And so it stays.
    cluster.run_for(S(60));
    all_know_all(cluster)?;
    all_hear_all(cluster)
}

#[test]
fn i3_nothing_comes_twice_and_all_hear_all_after_each_heal() {
    run(4000..4500, |cluster| schedule(cluster, false));
}

#[test]
fn i3_so_it_is_behind_nats() {
    run(5000..5300, |cluster| schedule(cluster, true));
}

/// With sessions whose handshakes are lost, late, doubled, relayed, begun by both sides at once and
/// forgotten by one of them.
#[test]
fn i4_so_it_is_where_links_are_sealed() {
    run(5400..5480, |cluster| {
        cluster.password = Some(1);
        schedule(cluster, false)
    });
    run(5500..5560, |cluster| {
        cluster.password = Some(1);
        schedule(cluster, true)
    });
}

#[test]
fn i4_sessions_are_replaced_without_a_lost_frame() {
    run(5600..5610, |cluster| {
        cluster.password = Some(1);
        let nodes = start(cluster, 2, 5);
        settle(cluster, S(60))?;
        let sessions = |cluster: &Cluster| -> u64 {
            let counters = nodes.iter().filter_map(|n| cluster.session_counters(*n));
            counters.map(|counters| counters.completed).sum()
        };
        let before = sessions(cluster);
        cluster.everywhere(|rule| rule.jitter = MS(20));
        let sent = talk(cluster, nodes[0], nodes[1], S(600));
        cluster.run_for(S(1));
        arrived(cluster, &sent)?;
        let replaced = sessions(cluster) - before;
        if replaced < 4 {
            return Err(format!("{replaced} sessions in ten minutes"));
        }
        cluster.frames.check()
    });
}

#[test]
fn i4_who_has_another_password_gets_no_frame() {
    run(5700..5710, |cluster| {
        cluster.password = Some(1);
        let nodes: Vec<usize> = cluster.add(3).collect();
        cluster.target(1, 0);
        cluster.target(2, 0);
        cluster.start(0);
        cluster.start(1);
        cluster.password = Some(2);
        // Its control connections are not what is looked at here: nobody keeps it from those.
        cluster.start(2);
        cluster.run_for(S(60));
        let id = |number: usize| cluster.nodes()[nodes[number]].hello.id;
        let links = |number: usize, other: usize| {
            cluster.nodes()[nodes[number]]
                .links
                .contains_key(&id(other))
        };
        if !links(0, 1) || !links(1, 0) || links(0, 2) || links(2, 0) || links(1, 2) {
            return Err("a link with the stranger, or none with another".to_owned());
        }
        let counters = cluster.session_counters(0);
        if counters.is_none_or(|counters| counters.other_password == 0) {
            return Err("nobody was refused".to_owned());
        }
        cluster.frames.check()
    });
}

#[test]
fn i5_frames_pass_whatever_becomes_of_the_control_plane() {
    run(6000..6200, |cluster| {
        let nodes = start(cluster, 3, 8);
        settle(cluster, S(60))?;
        let since = cluster.now();
        for _ in 0..20 {
            let node = cluster.pick(&nodes).unwrap();
            let other = cluster.pick(&nodes).unwrap();
            match cluster.rng.below(6) {
                0 => cluster.rule(node, other, |rule| rule.tcp = false),
                1 => cluster.everywhere(|rule| rule.tcp = false),
                2 => cluster.heal(),
                3 => cluster.corrupt_any(&[0, 0, 0, 3, 5, 0x0a, 0xff]),
                4 => cluster.slow_down(node, Some(300)),
                _ => cluster.reset_any(),
            }
            for _ in 0..4 {
                let pause = cluster.rng.up_to(S(15));
                cluster.run_for(pause);
                all_hear_all(cluster)?;
            }
            no_link_lost(cluster, &nodes, since)?;
        }
        cluster.heal();
        for node in &nodes {
            cluster.slow_down(*node, None);
        }
        settle(cluster, S(300))?;
        no_link_lost(cluster, &nodes, since)
    });
}

/// Lets pods of two nodes talk for a while.
fn talk(cluster: &mut Cluster, a: usize, b: usize, span: Duration) -> Vec<u64> {
    let end = cluster.now() + span;
    let mut sent = Vec::new();
    while cluster.now() < end {
        sent.push(cluster.unicast(a, b));
        sent.push(cluster.unicast(b, a));
        cluster.run_for(MS(100));
    }
    sent
}

#[test]
fn traffic_goes_another_way_within_seconds_and_comes_back() {
    run(6500..6600, |cluster| {
        let nodes = start(cluster, 3, 6);
        settle(cluster, S(60))?;
        let (a, b) = (nodes[1], nodes[2]);
        let via = |cluster: &Cluster| {
            let link = cluster.nodes()[a].links.get(&cluster.nodes()[b].hello.id);
            link.map(|link| (link.path.encapsulation, link.path.hops > 1))
        };
        for (vxlan, sleeve, wanted) in [
            (false, true, (Encapsulation::Sleeve, false)),
            (true, true, (Encapsulation::Vxlan, false)),
            (false, false, (Encapsulation::Sleeve, true)),
            (true, true, (Encapsulation::Vxlan, false)),
        ] {
            cluster.rule(a, b, |rule| (rule.vxlan, rule.sleeve) = (vxlan, sleeve));
            talk(cluster, a, b, S(20));
            let sent = talk(cluster, a, b, S(5));
            cluster.run_for(S(1));
            arrived(cluster, &sent)?;
            if via(cluster) != Some(wanted) {
                return Err(format!("wanted {wanted:?}, have {:?}", via(cluster)));
            }
        }
        cluster.rule(a, b, |rule| rule.mtu = 1400);
        talk(cluster, a, b, S(20));
        let sent = talk(cluster, a, b, S(5));
        cluster.run_for(S(1));
        arrived(cluster, &sent)
    });
}

#[test]
fn i6_one_who_does_not_read_is_the_trouble_of_nobody_else() {
    run(6700..6730, |cluster| {
        let nodes = start(cluster, 3, 8);
        settle(cluster, S(60))?;
        // All are neighbours of all.
        cluster.run_for(S(30));
        let since = cluster.now();
        let slow = cluster.pick(&nodes).unwrap();
        let others: Vec<usize> = nodes.iter().copied().filter(|n| *n != slow).collect();
        cluster.slow_down(slow, Some(1000));
        let mut sent = vec![0; nodes.len()];
        for number in 0..120_u8 {
            let from = cluster.pick(&others).unwrap();
            sent[from] += 1;
            let all = Input::SendGossip {
                to: None,
                channel: 3,
                payload: vec![number; 200_000],
            };
            cluster.input(from, all);
            cluster.run_for(MS(500));
            let most = cluster.most_waiting();
            if most > 6 << 20 {
                return Err(format!("{most} bytes wait for one who does not read"));
            }
        }
        cluster.run_for(S(5));
        for number in &others {
            let got = cluster.nodes()[*number].gossip.len();
            if got != 120 - sent[*number] {
                return Err(format!(
                    "{number} got {got} messages and sent {}",
                    sent[*number]
                ));
            }
        }
        no_link_lost(cluster, &nodes, since)?;
        cluster.slow_down(slow, None);
        settle(cluster, S(300))
    });
}
