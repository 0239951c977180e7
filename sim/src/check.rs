//! What must hold, as functions that say what does not.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::LinkChange;

use crate::Cluster;

/// All who are part of the network have links to all others that are, and to nobody else, each to
/// the right place.
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
    }
    Ok(())
}

/// Each pair of nodes that are part of the network has one control connection.
///
/// # Errors
/// Names the first pair that has none or several.
pub fn one_connection_per_pair(cluster: &Cluster) -> Result<(), String> {
    let inside = cluster.inside();
    for (index, a) in inside.iter().enumerate() {
        for b in &inside[index + 1..] {
            let count = cluster.connections(*a, *b);
            if count != 1 {
                return Err(format!("{count} connections between {a} and {b}"));
            }
        }
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
