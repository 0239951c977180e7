//! The mesh in clusters, with faults.
//!
//! Named after the invariants of the design; each is played for many seeds.

use std::time::Duration;

use mesh::{ConditionKind, Input, LinkChange, Target};
use sim::check::{all_know_all, connections_are_few_and_enough, dials, no_link_lost};
use sim::{Cluster, run};

const S: fn(u64) -> Duration = Duration::from_secs;

/// A cluster of 2 to `most` nodes, each with one target among the earlier ones, that has come up.
fn settled(cluster: &mut Cluster, most: usize) -> Result<Vec<usize>, String> {
    let count = 2 + cluster.below(most - 1);
    let nodes: Vec<usize> = cluster.add(count).collect();
    for number in &nodes[1..] {
        let at = cluster.below(*number);
        cluster.target(*number, at);
    }
    for number in &nodes {
        cluster.start(*number);
    }
    agree(cluster, S(60))?;
    Ok(nodes)
}

/// All know all within this time, and stay so: nothing is dialled and no link moves for a while.
fn agree(cluster: &mut Cluster, within: Duration) -> Result<(), String> {
    let agreed = |cluster: &Cluster| {
        all_know_all(cluster).is_ok() && connections_are_few_and_enough(cluster).is_ok()
    };
    if !cluster.run_until(within, agreed) {
        all_know_all(cluster)?;
        connections_are_few_and_enough(cluster)?;
    }
    // What was under way comes to its end first, the longest back-off of a target included.
    cluster.run_for(S(100));
    let (since, before, inside) = (cluster.now(), dials(cluster), cluster.inside());
    cluster.run_for(S(150));
    all_know_all(cluster)?;
    connections_are_few_and_enough(cluster)?;
    no_link_lost(cluster, &inside, since)?;
    // A target that nobody answers at is dialled for ever.
    let nodes = cluster.nodes();
    let answered = |target| {
        inside
            .iter()
            .any(|n| Target::from(nodes[*n].control()) == target)
    };
    let mut targets = inside.iter().flat_map(|number| &nodes[*number].targets);
    if targets.all(|target| answered(target.clone())) && dials(cluster) != before {
        return Err("somebody still dials in a network at rest".to_owned());
    }
    Ok(())
}

/// A time up to this many seconds.
fn moment(cluster: &mut Cluster, most: u64) -> Duration {
    cluster.rng.up_to(S(most))
}

#[test]
fn one_address_is_enough_to_join() {
    run(0..100, |cluster| {
        let count = 2 + cluster.below(15);
        let nodes: Vec<usize> = cluster.add(count).collect();
        for number in &nodes {
            // All have the same list, as a DaemonSet would: the first node is told its own address.
            cluster.target(*number, 0);
            cluster.start(*number);
            let pause = moment(cluster, 3);
            cluster.run_for(pause);
        }
        agree(cluster, S(30))?;
        no_link_lost(cluster, &nodes, S(0))
    });
}

#[test]
fn all_start_at_once_in_a_random_tree() {
    run(100..250, |cluster| {
        let nodes = settled(cluster, 16)?;
        no_link_lost(cluster, &nodes, S(0))
    });
}

#[test]
fn a_newcomer_is_known_to_all_within_seconds() {
    run(250..300, |cluster| {
        let nodes = settled(cluster, 20)?;
        let newcomer = cluster.add(1).start;
        let at = cluster.pick(&nodes).unwrap();
        cluster.target(newcomer, at);
        cluster.start(newcomer);
        if !cluster.run_until(S(6), |cluster| all_know_all(cluster).is_ok()) {
            all_know_all(cluster)?;
        }
        agree(cluster, S(1))
    });
}

/// In a large network a node's own news wait for their turn, but not those that a newcomer depends on: as
/// long as its only neighbour does not list it, nobody else can reach it.
#[test]
fn newcomers_that_reach_one_node_alone_do_not_wait_for_its_turn() {
    const NODES: usize = 300;
    let mut cluster = Cluster::new(1);
    cluster.thorough = false;
    cluster.judges = |_| false;
    let all_reach_all = |cluster: &Cluster| {
        let others = cluster.inside().len() - 1;
        let mut nodes = cluster.nodes().iter();
        nodes.all(|node| node.reachable.len() == others)
    };
    for number in cluster.add(NODES) {
        if number > 0 {
            cluster.target(number, 0);
        }
        cluster.start(number);
    }
    assert!(
        cluster.run_until(S(60), all_reach_all),
        "they do not come together"
    );
    cluster.run_for(S(60));
    for which in 0..6 {
        let newcomer = cluster.add(1).start;
        for other in 1..newcomer {
            cluster.cut(newcomer, other);
        }
        cluster.target(newcomer, 0);
        cluster.start(newcomer);
        let start = cluster.now();
        assert!(
            cluster.run_until(S(60), all_reach_all),
            "newcomer {which} stays unknown"
        );
        let time = cluster.now() - start;
        assert!(time < S(3), "newcomer {which} is known after {time:?}");
    }
}

#[test]
fn i5_resets_of_connections_never_cost_a_link() {
    run(300..400, |cluster| {
        let nodes = settled(cluster, 10)?;
        let since = cluster.now();
        for _ in 0..60 {
            cluster.reset_any();
            let pause = moment(cluster, 8);
            cluster.run_for(pause);
        }
        no_link_lost(cluster, &nodes, since)?;
        agree(cluster, S(150))?;
        no_link_lost(cluster, &nodes, since)
    });
}

#[test]
fn i5_malformed_messages_never_cost_a_link() {
    run(400..480, |cluster| {
        let nodes = settled(cluster, 8)?;
        let since = cluster.now();
        for _ in 0..60 {
            let garbage: Vec<u8> = match cluster.rng.below(3) {
                0 => vec![0xff; 64],
                1 => vec![0, 0, 0, 3, 5, 0x0a, 0xff],
                _ => cluster.rng.next_u64().to_be_bytes().to_vec(),
            };
            cluster.corrupt_any(&garbage);
            let pause = moment(cluster, 8);
            cluster.run_for(pause);
        }
        agree(cluster, S(150))?;
        no_link_lost(cluster, &nodes, since)
    });
}

#[test]
fn a_partition_costs_its_own_links_only_and_heals() {
    run(500..600, |cluster| {
        let nodes = settled(cluster, 12)?;
        let apart: Vec<usize> = nodes
            .iter()
            .copied()
            .filter(|_| cluster.rng.below(2) == 0)
            .collect();
        let rest: Vec<usize> = nodes
            .iter()
            .copied()
            .filter(|n| !apart.contains(n))
            .collect();
        let since = cluster.now();
        cluster.partition(&apart);
        let span = S(10) + moment(cluster, 900);
        cluster.run_for(span);
        // Sixty seconds of silence, sixty of grace, and the time between two pings.
        if span > S(160) {
            let across = |a: &usize, b: &usize| {
                let id = cluster.nodes()[*b].hello.id;
                cluster.nodes()[*a].links.contains_key(&id)
            };
            if apart
                .iter()
                .any(|a| rest.iter().any(|b| across(a, b) || across(b, a)))
            {
                return Err("a link across the partition is up".to_owned());
            }
        }
        cluster.heal();
        agree(cluster, S(300))?;
        no_link_lost(cluster, &apart, since)?;
        no_link_lost(cluster, &rest, since)
    });
}

#[test]
fn i5_a_control_path_that_breaks_costs_no_link() {
    run(600..650, |cluster| {
        let nodes = settled(cluster, 10)?;
        let since = cluster.now();
        for _ in 0..3 {
            // TCP alone is blocked, around one node or between any two.
            let apart = cluster.pick(&nodes).unwrap();
            for other in &nodes {
                if cluster.rng.below(3) > 0 {
                    cluster.rule(apart, *other, |rule| rule.tcp = false);
                }
            }
            let span = moment(cluster, 400);
            cluster.run_for(span);
            cluster.heal();
            let span = moment(cluster, 60);
            cluster.run_for(span);
        }
        no_link_lost(cluster, &nodes, since)?;
        agree(cluster, S(150))?;
        no_link_lost(cluster, &nodes, since)
    });
}

#[test]
fn a_leaver_disappears_everywhere_at_once_and_may_come_back() {
    run(700..780, |cluster| {
        let nodes = settled(cluster, 12)?;
        let leaver = cluster.pick(&nodes).unwrap();
        let id = cluster.nodes()[leaver].hello.id;
        // Late news of it are on their way while it leaves.
        if cluster.rng.below(2) == 0 {
            let restarted = cluster.pick(&nodes).unwrap();
            if restarted != leaver {
                cluster.crash(restarted);
                cluster.start(restarted);
                let pause = moment(cluster, 2);
                cluster.run_for(pause);
            }
        }
        cluster.leave(leaver);
        let gone = |cluster: &Cluster| {
            cluster
                .inside()
                .iter()
                .all(|n| !cluster.nodes()[*n].links.contains_key(&id))
        };
        if !cluster.run_until(S(2), gone) {
            return Err("the leaver is still known".to_owned());
        }
        if !cluster.nodes()[leaver].links.is_empty() {
            return Err("the leaver still sends".to_owned());
        }
        cluster.crash(leaver);
        agree(cluster, S(150))?;
        if !gone(cluster) {
            return Err("the leaver came back by itself".to_owned());
        }
        // One that others dial is found again; one that has a target finds them.
        let others: Vec<usize> = nodes.iter().copied().filter(|n| *n != leaver).collect();
        let at = cluster.pick(&others).unwrap();
        cluster.target(leaver, at);
        cluster.start(leaver);
        agree(cluster, S(120))
    });
}

#[test]
fn crashes_restarts_and_lost_state_end_in_agreement() {
    run(800..900, |cluster| {
        let nodes = settled(cluster, 10)?;
        for _ in 0..6 {
            let victim = cluster.pick(&nodes).unwrap();
            match cluster.rng.below(4) {
                0 => cluster.power_off(victim),
                1 => {
                    cluster.crash(victim);
                    cluster.lose_state(victim);
                }
                _ => cluster.crash(victim),
            }
            let others: Vec<usize> = nodes.iter().copied().filter(|n| *n != victim).collect();
            let since = cluster.now();
            let span = moment(cluster, 200);
            cluster.run_for(span);
            no_link_lost(cluster, &others, since)?;
            cluster.start(victim);
            // Until all have found it, or have come to the end of its grace.
            let span = S(90) + moment(cluster, 60);
            cluster.run_for(span);
        }
        agree(cluster, S(200))
    });
}

#[test]
fn a_rolling_restart_moves_no_link_of_others() {
    run(900..980, |cluster| {
        let nodes = settled(cluster, 10)?;
        // One after the other, as a rolling upgrade does.
        for victim in &nodes {
            let others: Vec<usize> = nodes.iter().copied().filter(|n| n != victim).collect();
            let since = cluster.now();
            cluster.crash(*victim);
            let pause = S(1) + moment(cluster, 10);
            cluster.run_for(pause);
            cluster.start(*victim);
            cluster.run_for(S(40));
            no_link_lost(cluster, &others, since)?;
        }
        agree(cluster, S(60))
    });
}

#[test]
fn a_stopped_process_is_the_trouble_of_nobody_else() {
    run(1000..1060, |cluster| {
        let nodes = settled(cluster, 10)?;
        let stopped = cluster.pick(&nodes).unwrap();
        let others: Vec<usize> = nodes.iter().copied().filter(|n| *n != stopped).collect();
        let since = cluster.now();
        cluster.stop(stopped);
        let span = moment(cluster, 400);
        cluster.run_for(span);
        cluster.go_on(stopped);
        agree(cluster, S(200))?;
        no_link_lost(cluster, &others, since)
    });
}

#[test]
fn two_nodes_with_one_name_are_named_and_harm_nobody() {
    run(1100..1150, |cluster| {
        let nodes = settled(cluster, 8)?;
        let since = cluster.now();
        let twin = cluster.add(1).start;
        let original = cluster.pick(&nodes).unwrap();
        cluster.rename(twin, &format!("node-{original}"));
        let others: Vec<usize> = nodes.iter().copied().filter(|n| *n != original).collect();
        let at = cluster.pick(&nodes).unwrap();
        cluster.target(twin, at);
        cluster.start(twin);
        cluster.run_for(S(300));
        no_link_lost(cluster, &nodes, since)?;
        let twin_id = cluster.nodes()[twin].hello.id;
        if nodes
            .iter()
            .any(|n| cluster.nodes()[*n].links.contains_key(&twin_id))
        {
            return Err("the second of the name was taken on".to_owned());
        }
        let now = cluster.now();
        let mesh = cluster.node(at).mesh.as_ref().unwrap();
        let named = mesh.conditions(now).into_iter().any(|condition| {
            condition.kind == ConditionKind::DuplicateName
                && condition.message.contains(&twin_id.to_string())
        });
        if !named {
            return Err("the operator is not told".to_owned());
        }
        // When the twin gets a name of its own, all is well.
        cluster.crash(twin);
        cluster.rename(twin, "node-of-its-own");
        cluster.start(twin);
        agree(cluster, S(150))?;
        no_link_lost(cluster, &others, since)
    });
}

#[test]
fn gossip_reaches_all_that_are_connected() {
    run(1200..1220, |cluster| {
        let nodes = settled(cluster, 10)?;
        let from = cluster.pick(&nodes).unwrap();
        let payload = vec![7; 100_000];
        cluster.input(
            from,
            Input::SendGossip {
                to: None,
                channel: 3,
                payload: payload.clone(),
            },
        );
        cluster.run_for(S(1));
        for number in nodes.iter().filter(|n| **n != from) {
            let name = &cluster.nodes()[from].hello.name;
            let wanted = [(name.clone(), 3, payload.clone())];
            if cluster.nodes()[*number].gossip != wanted {
                return Err(format!(
                    "node {number} did not get the gossip as it was sent"
                ));
            }
        }
        Ok(())
    });
}

/// Late messages of its last run and those of the next opened the way for each other, and went
/// round and multiplied for as long as their hop limit let them.
#[test]
fn i3_a_message_for_all_comes_once_though_its_sender_restarts() {
    run(1300..1400, |cluster| {
        let nodes = settled(cluster, 7)?;
        let sender = cluster.pick(&nodes).unwrap();
        let others: Vec<usize> = nodes.iter().copied().filter(|n| *n != sender).collect();
        for round in 0..20_u8 {
            // One who reads slowly hands on what all others have forgotten.
            let slow = cluster.pick(&others).unwrap();
            cluster.slow_down(slow, Some(20_000));
            for number in 0..5_u8 {
                let all = Input::SendGossip {
                    to: None,
                    channel: 3,
                    payload: [round, number].repeat(1000),
                };
                cluster.input(sender, all);
            }
            if cluster.rng.below(2) == 0 {
                let pause = cluster.rng.up_to(Duration::from_millis(300));
                cluster.run_for(pause);
                cluster.crash(sender);
                cluster.start(sender);
            }
            let pause = cluster.rng.up_to(Duration::from_millis(500));
            cluster.run_for(pause);
            cluster.slow_down(slow, None);
        }
        cluster.run_for(S(10));
        for number in others {
            let mut gossip = cluster.nodes()[number].gossip.clone();
            let all = gossip.len();
            gossip.sort();
            gossip.dedup();
            if gossip.len() < all || all == 0 {
                let distinct = gossip.len();
                return Err(format!(
                    "{number} got {all} messages, {distinct} distinct ones"
                ));
            }
        }
        Ok(())
    });
}

#[test]
fn whatever_happens_they_agree_in_the_end() {
    run(2000..2150, |cluster| {
        let nodes = settled(cluster, 10)?;
        for _ in 0..40 {
            let node = cluster.pick(&nodes).unwrap();
            let other = cluster.pick(&nodes).unwrap();
            let running = cluster.nodes()[node].mesh.is_some();
            match cluster.rng.below(12) {
                0 if running => cluster.crash(node),
                1 if running => cluster.power_off(node),
                2 if running => cluster.leave(node),
                3 if running => cluster.stop(node),
                4 if running => cluster.go_on(node),
                5 if !running => cluster.lose_state(node),
                6 => cluster.partition(&[node, other]),
                7 => cluster.cut(node, other),
                8 => cluster.heal(),
                9 => cluster.corrupt_any(&[0, 0, 0, 1, 77, 0xff, 0xff, 0xff, 0xff]),
                _ if !running => cluster.start(node),
                _ => cluster.reset_any(),
            }
            let pause = moment(cluster, 40);
            cluster.run_for(pause);
        }
        cluster.heal();
        for node in &nodes {
            if cluster.nodes()[*node].mesh.is_some() {
                cluster.go_on(*node);
            }
            if !cluster.nodes()[*node].is_in() {
                cluster.crash(*node);
                cluster.start(*node);
            }
            // The first node was told of nobody, and after a day alone knows nobody.
            if *node != 0 {
                continue;
            }
            cluster.input(0, Input::Connect(cluster.nodes()[1].control().into()));
        }
        agree(cluster, S(900))
    });
}

#[test]
fn a_seed_repeats_itself() {
    let play = |seed| {
        let mut cluster = Cluster::new(seed);
        settled(&mut cluster, 10).unwrap();
        cluster.reset_any();
        cluster.run_for(S(60));
        let changes = cluster.nodes().iter().map(|node| node.changes.clone());
        changes.collect::<Vec<Vec<(Duration, LinkChange)>>>()
    };
    assert_eq!(play(1), play(1));
    assert_ne!(play(1), play(2));
}
