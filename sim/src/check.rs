//! What must hold, as functions that say what does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh::{FULL_MESH, LinkChange};

use crate::Cluster;

/// All who are part of the network have links to all others that are, and to nobody else, each to
/// the right place, and messages get to all of them.
///
/// # Errors
/// Names the first node whose links are others.
pub fn all_know_all(cluster: &Cluster) -> Result<(), String> {
    let nodes = cluster.nodes();
    let inside = cluster.inside();
    for number in &inside {
        let wanted = inside.iter().filter(|other| *other != number).map(|other| {
            let node = &nodes[*other];
            let mut endpoint = node.control();
            endpoint.set_port(node.hello.vxlan_port);
            (node.hello.id, (node.hello.name.clone(), endpoint))
        });
        let wanted: BTreeMap<_, _> = wanted.collect();
        let links = &nodes[*number].links;
        if *links != wanted {
            let extra = links
                .iter()
                .filter(|(id, link)| wanted.get(*id) != Some(*link));
            let extra: Vec<_> = extra.map(|(_, (name, _))| name).collect();
            let missing = wanted
                .iter()
                .filter(|(id, link)| links.get(*id) != Some(*link));
            let missing: Vec<_> = missing.map(|(_, (name, _))| name).collect();
            let now = cluster.now();
            return Err(format!(
                "at {now:?} node {number} has links to {extra:?} that it should not have, and \
                 none to {missing:?}"
            ));
        }
        let told = &nodes[*number].reachable;
        let names = wanted.iter().map(|(id, (name, _))| (*id, name.clone()));
        if *told != names.collect() {
            let now = cluster.now();
            return Err(format!(
                "at {now:?} node {number} can send to {told:?} only"
            ));
        }
    }
    Ok(())
}

/// The nodes that are part of the network hang together, no pair of them has two control
/// connections, and none has many; while there are few nodes, all pairs have one.
///
/// # Errors
/// Says what is not so.
pub fn connections_are_few_and_enough(cluster: &Cluster) -> Result<(), String> {
    let inside = cluster.inside();
    let count = inside.len();
    // A node chooses four in the circle and some at random, and others choose it.
    let most = match count {
        0..=FULL_MESH => count.saturating_sub(1),
        _ => 12 + 2 * usize::try_from(count.ilog2()).unwrap_or(0),
    };
    let held = cluster.held();
    let mut edges: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (a, b) in held {
        if !edges.entry(a).or_default().insert(b) | !edges.entry(b).or_default().insert(a) {
            return Err(format!("{a} and {b} have two connections"));
        }
    }
    for number in &inside {
        let degree = edges.get(number).map_or(0, BTreeSet::len);
        if degree > most || (count <= FULL_MESH && degree < most) {
            return Err(format!(
                "{number} of {count} nodes has {degree} connections"
            ));
        }
    }
    let mut found: BTreeSet<usize> = inside.iter().take(1).copied().collect();
    let mut queue: Vec<usize> = found.iter().copied().collect();
    while let Some(at) = queue.pop() {
        let next = edges.get(&at).into_iter().flatten();
        queue.extend(next.copied().filter(|other| found.insert(*other)));
    }
    if found.len() != count {
        return Err(format!(
            "{found:?} have no connection with the others of {inside:?}"
        ));
    }
    Ok(())
}

/// No data link of these nodes to each other went down or away since then.
///
/// # Errors
/// Names the first that did.
pub fn no_link_lost(cluster: &Cluster, among: &[usize], since: Duration) -> Result<(), String> {
    let nodes = cluster.nodes();
    for number in among {
        for (at, change) in nodes[*number].changes.iter().filter(|(at, _)| *at >= since) {
            let concerns = among
                .iter()
                .any(|other| nodes[*other].hello.id == change.id());
            match change {
                LinkChange::Down { name, reason, .. } if concerns => {
                    return Err(format!("at {at:?} node {number} lost {name}: {reason}"));
                }
                LinkChange::Left { name, .. } if concerns => {
                    return Err(format!("at {at:?} node {number} heard that {name} left"));
                }
                LinkChange::Up { .. } | LinkChange::Down { .. } | LinkChange::Left { .. } => {}
            }
        }
    }
    Ok(())
}

/// Dials begun by all nodes since their starts.
pub fn dials(cluster: &Cluster) -> u64 {
    cluster
        .nodes()
        .iter()
        .filter_map(|node| node.mesh.as_ref())
        .map(|m| m.counters().dials)
        .sum()
}
