//! The parts of `weft status` about other nodes: who they are, which ways lead to them, and where
//! this node looks for them.
//!
//! What needs attention comes first: a list of a hundred nodes is read from its top.

use std::fmt::{self, Write as _};

use control::{Encapsulation, PeerState, PeerStatus, Status, TargetState, WayStatus};
use ipnet::IpNet;
use serde::Serialize;
use wire::PeerId;

use super::{rtt, span, write_table};

/// A way to a node, or what there is instead, for machines.
#[derive(Debug, Serialize)]
pub(super) struct Link<'a> {
    peer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<PeerId>,
    #[serde(flatten)]
    way: WayStatus,
}

/// How frames and control messages get to a node, for machines.
#[derive(Debug, Serialize)]
pub(super) struct Route<'a> {
    peer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<PeerId>,
    state: PeerState,
    encapsulation: Encapsulation,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hops: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_via: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_hops: Option<u32>,
}

/// All ways to all nodes.
pub(super) fn links(status: &Status) -> Vec<Link<'_>> {
    let all = sorted(status).into_iter();
    all.flat_map(|peer| {
        let ways = match peer.ways.as_slice() {
            [] => vec![only_way(peer)],
            ways => ways.to_vec(),
        };
        ways.into_iter().map(|way| Link {
            peer: &peer.name,
            id: peer.id,
            way,
        })
    })
    .collect()
}

/// How each node is reached.
pub(super) fn routes(status: &Status) -> Vec<Route<'_>> {
    let all = sorted(status).into_iter();
    all.map(|peer| Route {
        peer: &peer.name,
        id: peer.id,
        state: peer.state,
        encapsulation: peer.encapsulation,
        via: peer.via.as_deref(),
        hops: peer.hops,
        control_via: peer.control_via.as_deref(),
        control_hops: peer.control_hops,
    })
    .collect()
}

/// The nodes, those in trouble first.
pub(super) fn sorted(status: &Status) -> Vec<&PeerStatus> {
    let mut peers: Vec<&PeerStatus> = status.peers.iter().collect();
    peers.sort_by(|a, b| (severity(a.state), &a.name).cmp(&(severity(b.state), &b.name)));
    peers
}

const fn severity(state: PeerState) -> u8 {
    match state {
        PeerState::Down => 0,
        PeerState::Connecting => 1,
        PeerState::Degraded => 2,
        PeerState::Up => 3,
    }
}

/// What a VTEP has, and a node of which nothing is known yet.
fn only_way(peer: &PeerStatus) -> WayStatus {
    WayStatus {
        encapsulation: peer.encapsulation,
        via: peer.via.clone(),
        in_use: peer.state.is_open(),
        plain: peer.plain,
        address: peer.address,
        state: peer.state,
        reason: peer.reason.clone(),
        since_secs: peer.since_secs,
        mtu: (peer.mtu > 0).then_some(peer.mtu),
        rtt_us: peer.rtt_us,
        loss_percent: peer.loss_percent,
    }
}

pub(super) fn write_peers(out: &mut String, status: &Status) -> fmt::Result {
    let mut rows = vec![
        [
            "NODE", "IDENTITY", "VERSION", "LINK", "FOR", "CONTROL", "ADDRESS", "REASON",
        ]
        .map(str::to_owned),
    ];
    rows.extend(sorted(status).into_iter().map(|peer| {
        [
            peer.name.clone(),
            peer.id.map_or_else(dash, |id| id.to_string()),
            peer.version.clone().unwrap_or_else(dash),
            peer.state.as_str().to_owned(),
            span(peer.since_secs),
            control_path(peer),
            peer.control
                .map_or_else(dash, |address| address.to_string()),
            peer.reason.clone().unwrap_or_default(),
        ]
    }));
    write_table(out, &rows)
}

pub(super) fn write_links(out: &mut String, status: &Status) -> fmt::Result {
    let mut rows = vec![
        [
            "PEER", "WAY", "USED", "STATE", "FOR", "ADDRESS", "MTU", "RTT", "LOSS", "REASON",
        ]
        .map(str::to_owned),
    ];
    let mut last = None;
    for link in links(status) {
        let way = &link.way;
        // A name stands once, before all ways to its node.
        let again = last.replace((link.peer, link.id)) == Some((link.peer, link.id));
        rows.push([
            if again {
                String::new()
            } else {
                link.peer.to_owned()
            },
            wrapped(way.encapsulation, way.via.as_deref()),
            if way.in_use { "yes" } else { "-" }.to_owned(),
            way.state.as_str().to_owned(),
            span(way.since_secs),
            way.address.map_or_else(dash, |address| address.to_string()),
            way.mtu.map_or_else(dash, |mtu| mtu.to_string()),
            way.rtt_us.map_or_else(dash, rtt),
            way.loss_percent
                .map_or_else(dash, |loss| format!("{loss}%")),
            way.reason
                .clone()
                .or_else(|| way.plain.map(plain))
                .unwrap_or_default(),
        ]);
    }
    write_table(out, &rows)
}

pub(super) fn write_routes(out: &mut String, status: &Status) -> fmt::Result {
    let mut rows = vec![["PEER", "FRAMES", "HOPS", "CONTROL", "HOPS"].map(str::to_owned)];
    rows.extend(sorted(status).into_iter().map(|peer| {
        [
            peer.name.clone(),
            match peer.hops {
                Some(_) => wrapped(peer.encapsulation, peer.via.as_deref()),
                None => "none".to_owned(),
            },
            peer.hops.map_or_else(dash, |hops| hops.to_string()),
            control_path(peer),
            peer.control_hops.map_or_else(dash, |hops| hops.to_string()),
        ]
    }));
    write_table(out, &rows)
}

pub(super) fn write_targets(out: &mut String, status: &Status) -> fmt::Result {
    if status.node.left {
        writeln!(
            out,
            "this node has left the network: weft connect ADDRESS brings it back"
        )?;
    }
    if !status.node.discovery {
        writeln!(
            out,
            "nodes that others tell of are not dialled (--no-discovery)"
        )?;
    }
    if status.targets.is_empty() {
        return writeln!(out, "targets    none");
    }
    let mut rows =
        vec![["TARGET", "NAMED BY", "STATE", "NODE", "NEXT DIAL", "REASON"].map(str::to_owned)];
    rows.extend(status.targets.iter().map(|target| {
        let found = target.state == TargetState::Found;
        let id = || target.id.map(|id| id.to_string());
        [
            target.target.clone(),
            target.source.as_str().to_owned(),
            target.state.as_str().to_owned(),
            target.peer.clone().or_else(id).unwrap_or_else(dash),
            target
                .retry_secs
                .map_or_else(dash, |secs| format!("in {}", span(secs))),
            // Why an earlier dial failed is of no interest once somebody is there.
            target.reason.clone().filter(|_| !found).unwrap_or_default(),
        ]
    }));
    write_table(out, &rows)
}

/// How control messages get to a node.
fn control_path(peer: &PeerStatus) -> String {
    match (&peer.control_via, peer.control_hops) {
        (Some(via), _) => format!("by {via}"),
        (None, Some(_)) => "connected".to_owned(),
        (None, None) => "none".to_owned(),
    }
}

/// How frames are wrapped, and by whom they are relayed.
pub(super) fn wrapped(encapsulation: Encapsulation, via: Option<&str>) -> String {
    match via {
        Some(relay) => format!("{} by {relay}", encapsulation.as_str()),
        None => encapsulation.as_str().to_owned(),
    }
}

/// What excepts a link from encryption.
pub(super) fn plain(subnet: IpNet) -> String {
    format!("plain (trusted subnet {subnet})")
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(write: fn(&mut String, &Status) -> fmt::Result) -> String {
        let mut status = crate::status::sample::status();
        let far = status.peers.iter_mut().find(|peer| peer.name == "node-3");
        let far = far.unwrap();
        far.control_hops = Some(2);
        far.control_via = Some("node-2".to_owned());
        let mut out = String::new();
        write(&mut out, &status).unwrap();
        out
    }

    #[test]
    fn every_way_of_a_link_is_shown_and_trouble_comes_first() {
        let page = page(write_links);
        let expected = "\
PEER            WAY     USED  STATE  FOR    ADDRESS           MTU   RTT     LOSS  REASON
node-3          vxlan   -     down   1m15s  192.0.2.172:6784  -     -       -     no reply on UDP 6784
                sleeve  -     down   1m15s  192.0.2.172:6783  -     -       -     no reply on UDP 6783
192.0.2.7:8472  vxlan   yes   up     1m30s  192.0.2.7:8472    1450  -       -
node-2          vxlan   yes   up     1m15s  192.0.2.171:6784  1450  0.31ms  0%
                sleeve  -     up     1m15s  192.0.2.171:6783  1438  0.31ms  0%
";
        assert_eq!(page, expected, "\n{page}");
    }

    #[test]
    fn i8_a_way_in_the_clear_is_shown_with_the_network_that_is_trusted() {
        let mut status = crate::status::sample::status();
        let near = status.peers.iter_mut().find(|peer| peer.name == "node-2");
        near.unwrap().ways[0].plain = Some("192.0.2.0/24".parse().unwrap());
        let mut out = String::new();
        write_links(&mut out, &status).unwrap();
        let line = out.lines().find(|line| line.starts_with("node-2")).unwrap();
        assert!(
            line.ends_with("  plain (trusted subnet 192.0.2.0/24)"),
            "{out}"
        );
    }

    #[test]
    fn routes_of_frames_and_of_control_messages_are_told_apart() {
        let page = page(write_routes);
        let expected = "\
PEER            FRAMES  HOPS  CONTROL    HOPS
node-3          none    -     by node-2  2
192.0.2.7:8472  vxlan   1     none       -
node-2          vxlan   1     connected  1
";
        assert_eq!(page, expected, "\n{page}");
    }

    #[test]
    fn nodes_are_shown_with_who_they_are() {
        let page = page(write_peers);
        let expected = "\
NODE            IDENTITY          VERSION  LINK  FOR    CONTROL    ADDRESS           REASON
node-3          acacacacacacacac  0.1.0    down  1m15s  by node-2  192.0.2.172:6783  no reply on UDP 6784 and 6783
192.0.2.7:8472  -                 -        up    1m30s  none       -
node-2          abababababababab  0.1.0    up    1m15s  connected  192.0.2.171:6783
";
        assert_eq!(page, expected, "\n{page}");
    }

    #[test]
    fn targets_are_shown_with_what_became_of_them() {
        let mut status = crate::status::sample::status();
        status.targets.push(control::TargetStatus {
            target: "b.example:6783".to_owned(),
            source: control::TargetSource::Connect,
            state: TargetState::Waiting,
            peer: None,
            id: None,
            retry_secs: Some(7),
            reason: Some("b.example:6783: connection refused".to_owned()),
        });
        status.node.discovery = false;
        let mut page = String::new();
        write_targets(&mut page, &status).unwrap();
        let expected = "\
nodes that others tell of are not dialled (--no-discovery)
TARGET            NAMED BY      STATE    NODE    NEXT DIAL  REASON
192.0.2.171:6783  --peer        found    node-2  -
b.example:6783    weft connect  waiting  -       in 7s      b.example:6783: connection refused
";
        assert_eq!(page, expected, "\n{page}");
    }

    #[test]
    fn machines_get_the_same() {
        let status = crate::status::sample::status();
        let links = serde_json::to_value(links(&status)).unwrap();
        assert_eq!(links[0]["peer"], "node-3");
        assert_eq!(links[0]["encapsulation"], "vxlan");
        assert_eq!(links[0]["reason"], "no reply on UDP 6784");
        assert_eq!(links[0]["since_secs"], 75);
        assert_eq!(
            (&links[3]["in_use"], &links[4]["in_use"]),
            (&true.into(), &false.into())
        );
        let routes = serde_json::to_value(routes(&status)).unwrap();
        assert_eq!(
            (&routes[2]["peer"], &routes[2]["hops"]),
            (&"node-2".into(), &1.into())
        );
    }
}
