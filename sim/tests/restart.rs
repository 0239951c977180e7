//! All nodes of a large network restart together.

use std::time::Duration;

use mesh::{Counters, Mesh};
use sim::{Budget, Cluster, Peak, Traffic, run};

const S: fn(u64) -> Duration = Duration::from_secs;
const NODES: usize = 500;
/// Of so many nodes the links of one are simulated, or the test would take minutes.
const SAMPLE: usize = 50;
/// Whom a node wants to be connected with in a network of this size: two on each side in the circle
/// of identities, and half the logarithm less one.
const WANTED: u64 = 8;
/// Connections of a node, since others want it as well: the logarithm, and two more.
const DEGREE: u64 = 11;

/// Messages get from all to all, and all whose links are simulated have them all.
fn is_whole(cluster: &Cluster) -> bool {
    let mut nodes = cluster.nodes().iter().enumerate();
    nodes.all(|(number, node)| {
        let links = node.links.len() == NODES - 1 || !number.is_multiple_of(SAMPLE);
        node.reachable.len() == NODES - 1 && links
    })
}

fn counters(cluster: &Cluster) -> Vec<Counters> {
    let meshes = cluster.nodes().iter().filter_map(|node| node.mesh.as_ref());
    meshes.map(Mesh::counters).collect()
}

/// Nodes that all have the first one for a target start, and come together.
fn form(
    cluster: &mut Cluster,
    nodes: usize,
    whole: impl Fn(&Cluster) -> bool,
) -> Result<(), String> {
    for number in cluster.add(nodes).skip(1) {
        cluster.target(number, 0);
    }
    for number in 0..nodes {
        cluster.start(number);
    }
    match cluster.run_until(S(60), whole) {
        true => Ok(()),
        false => Err("they do not come together".to_owned()),
    }
}

/// All end at once, and will know when they start again what they have written down.
fn crash(cluster: &mut Cluster, nodes: usize) {
    for number in 0..nodes {
        let node = cluster.node(number);
        let mesh = node.mesh.as_ref();
        node.remembered = mesh.map_or_else(Vec::new, Mesh::addresses);
        cluster.crash(number);
    }
}

#[test]
fn five_hundred_that_restart_together_are_no_storm() {
    run(0..1, |cluster| {
        cluster.budget = Budget {
            steps: 200_000_000,
            ..Budget::default()
        };
        cluster.thorough = false;
        cluster.judges = |number| number.is_multiple_of(SAMPLE);
        form(cluster, NODES, is_whole)?;

        // As when a new version is rolled out without care.
        crash(cluster, NODES);
        let before: Vec<Traffic> = cluster.nodes().iter().map(|node| node.traffic).collect();
        cluster.peak = Peak::default();
        let start = cluster.now();
        for number in 0..NODES {
            cluster.start(number);
            cluster.run_for(S(1) / 500);
        }
        if !cluster.run_until(S(20), is_whole) {
            return Err("they are not together again after 20 s".to_owned());
        }
        cluster.run_for((start + S(40)).saturating_sub(cluster.now()));

        let all = counters(cluster);
        let nodes = NODES as u64;
        // Whom it wants, and once more, since it knows few others when it first chooses; its target and
        // those that it remembers, one after the other until one answers, are as many again at most.
        let dials = all.iter().map(|counters| counters.dials);
        let mean = dials.clone().sum::<u64>() / nodes;
        let most = dials.max().unwrap_or(0);
        if mean > 2 * WANTED || most > 4 * WANTED {
            return Err(format!("{mean} dials of a node, {most} of one"));
        }
        // No second has more than all dials to those who are wanted.
        if cluster.peak.most_dials > nodes * WANTED {
            return Err(format!("{:?}", cluster.peak));
        }
        // News go out 20 times a second on each connection at most, and are over after half of the time.
        // Each may be asked about, and that be answered.
        let after = cluster.nodes().iter().zip(&before);
        let sent = after.map(|(node, before)| node.traffic.since(before).messages);
        let mean = sent.clone().sum::<u64>() / nodes;
        let most = sent.max().unwrap_or(0);
        if mean > 3 * 20 * DEGREE * 20 {
            return Err(format!("{mean} messages of a node"));
        }
        // The one that all others have for a target hears twice from each, and tells each all.
        let accepted = all.iter().map(|counters| counters.accepted).max();
        if accepted > Some(2 * nodes) || most > nodes * 4 * DEGREE {
            return Err(format!("{accepted:?} connections of one, {most} messages"));
        }

        cluster.run_for(S(30));
        let dials = counters(cluster).iter().map(|c| c.dials).sum::<u64>();
        if dials != all.iter().map(|c| c.dials).sum::<u64>() || !is_whole(cluster) {
            return Err("they do not come to rest".to_owned());
        }
        Ok(())
    });
}

/// No node has a target: each finds the others at addresses that it remembers, and all become one network,
/// though the first connection of each is soon made and leads to few.
#[test]
fn those_who_only_remember_each_other_come_together() {
    run(0..3, |cluster| {
        let nodes = 300;
        cluster.judges = |_| false;
        let whole = |cluster: &Cluster| {
            let mut all = cluster.nodes().iter();
            all.all(|node| node.reachable.len() == nodes - 1)
        };
        form(cluster, nodes, whole)?;
        crash(cluster, nodes);
        for number in 0..nodes {
            cluster.node(number).targets.clear();
            cluster.start(number);
            cluster.run_for(S(1) / 300);
        }
        if !cluster.run_until(S(60), whole) {
            let sizes = cluster.nodes().iter().map(|node| node.reachable.len());
            let sizes: Vec<usize> = sizes.collect();
            return Err(format!("they stay in parts: {sizes:?}"));
        }
        Ok(())
    });
}
