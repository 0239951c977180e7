//! What must hold, as functions that say what does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh::{Encapsulation, FULL_MESH, LinkChange, Path};

use crate::{Cluster, Link};

/// All who are part of the network have links to all others that are, and to nobody else, each the
/// best that the network between the two allows, and messages get to all of them.
///
/// # Errors
/// Names the first node of which that is not so.
pub fn all_know_all(cluster: &Cluster) -> Result<(), String> {
    let nodes = cluster.nodes();
    let inside = cluster.inside();
    let now = cluster.now();
    for number in &inside {
        let node = &nodes[*number];
        for other in inside.iter().filter(|other| *other != number) {
            let name = &nodes[*other].hello.name;
            let Some(link) = node.links.get(&nodes[*other].hello.id) else {
                return Err(format!("at {now:?} node {number} has no link to {name}"));
            };
            if link.name != *name {
                return Err(format!(
                    "at {now:?} node {number} calls {name} {}",
                    link.name
                ));
            }
            if *link != best(cluster, *number, *other, link) {
                return Err(format!("at {now:?} node {number} has to {name} {link:?}"));
            }
        }
        let others = inside.len() - 1;
        if node.links.len() != others {
            let known = |id| inside.iter().any(|other| nodes[*other].hello.id == id);
            let extra = node.links.iter().filter(|(id, _)| !known(**id));
            let extra: Vec<_> = extra.map(|(_, link)| &link.name).collect();
            return Err(format!(
                "at {now:?} node {number} still has links to {extra:?}"
            ));
        }
        let told = |other: &usize| node.reachable.contains_key(&nodes[*other].hello.id);
        let silent: Vec<_> = inside.iter().filter(|n| *n != number && !told(n)).collect();
        if !silent.is_empty() || node.reachable.len() != others {
            return Err(format!(
                "at {now:?} node {number} can send to {:?} only, not to {silent:?}",
                node.reachable.keys()
            ));
        }
    }
    Ok(())
}

/// The best link from one node to another, as far as it is known what that is; else the one that
/// there is.
fn best(cluster: &Cluster, from: usize, to: usize, link: &Link) -> Link {
    let ways = [cluster.rule_of(from, to), cluster.rule_of(to, from)];
    if cluster.is_translated(from)
        || cluster.is_translated(to)
        || ways.iter().any(|rule| !rule.vxlan)
    {
        return link.clone();
    }
    if cluster.password.is_some() {
        let sealed = Path {
            encapsulation: Encapsulation::Sleeve,
            ..link.path.clone()
        };
        return Link {
            path: sealed,
            ..link.clone()
        };
    }
    let node = &cluster.nodes()[to];
    let mut endpoint = node.control();
    endpoint.set_port(node.hello.vxlan_port);
    // VXLAN takes 50 bytes. Without traffic it takes a while until more is tried.
    let room = ways.iter().map(|rule| rule.mtu.saturating_sub(50)).min();
    let room = room.unwrap_or(0).min(node.hello.mtu).min(link.path.mtu);
    Link {
        path: Path::vxlan(node.hello.id, endpoint, room),
        ..link.clone()
    }
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
        if degree > most || (count <= FULL_MESH && degree < most && !cluster.has_nat()) {
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

/// I3: each frame of these arrived at each node that it was for, once.
///
/// # Errors
/// Names the first that did not.
pub fn arrived(cluster: &Cluster, frames: &[u64]) -> Result<(), String> {
    cluster.frames.check()?;
    for number in frames {
        let Some(frame) = cluster.frames.get(*number) else {
            return Err(format!("frame {number} is forgotten"));
        };
        let missing = frame.copies.iter().filter(|(_, at)| at.is_none());
        let missing: Vec<_> = missing.map(|(to, _)| to).collect();
        if !missing.is_empty() {
            return Err(format!(
                "frame {number} of {} at {:?} did not arrive at {missing:?}",
                frame.from, frame.at
            ));
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
