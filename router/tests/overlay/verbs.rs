//! The verbs about other nodes, as an operator uses them, and what they mean over restarts.

use std::process::{Command, Output};

use control::{TargetSource, TargetState};
use nix::sys::signal::Signal;
use router::lab::world::{Node, World};

use crate::cluster::{WEFT, assert_all_reach, cluster, counter, eventually, nft, pings, v4};
use crate::relay::{DIRECT, peer, way};

/// Says something to a node's router.
pub(crate) fn weft(node: &Node, line: &[&str]) -> Output {
    let socket = node.layout.socket.to_str().unwrap();
    let run = Command::new(WEFT)
        .args(line)
        .args(["--socket", socket])
        .env_clear()
        .output();
    let output = run.unwrap();
    assert!(
        output.status.success(),
        "weft {line:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A node's targets with those who named them.
fn targets(node: &Node) -> Vec<(String, TargetSource)> {
    let all = node.status().unwrap().targets.into_iter();
    all.map(|target| (target.target, target.source)).collect()
}

/// Nothing that a node dials gets out; what is dialled from elsewhere does.
fn dial_nobody(node: &Node) {
    nft(
        &node.netns,
        "add table inet mute
         add chain inet mute out { type filter hook output priority 0; }
         add rule inet mute out tcp dport 6783 tcp flags & (syn|ack) == syn drop",
    );
}

/// What `connect` and `forget` have said holds after a crash, over what the settings say; and a node
/// that is told of nobody finds the network by what it knew.
#[test]
fn i7_targets_and_known_nodes_survive_a_crash() {
    let mut world = cluster(2, 1, &[]);
    let named = |target: &str, source| (target.to_owned(), source);
    assert_eq!(
        targets(&world.nodes[1]),
        [named("10.99.0.1:6783", TargetSource::Settings)]
    );
    let said = weft(&world.nodes[1], &["connect", "10.99.0.9", "10.99.0.8:7000"]);
    assert!(text(&said).contains("10.99.0.1:6783, 10.99.0.8:7000, 10.99.0.9:6783"));
    let said = weft(
        &world.nodes[1],
        &["forget", "10.99.0.1", "10.99.0.8:7000", "nobody"],
    );
    assert_eq!(text(&said), "targets: 10.99.0.9:6783\n");
    assert!(String::from_utf8_lossy(&said.stderr).contains("nobody:6783 was no target here"));
    // A node that was found stays; where it is gets written down within seconds.
    assert_eq!(way(&world, 1, 0), DIRECT);
    let file = world.nodes[1].layout.state_dir.join("peers.json");
    eventually("where others are is written down", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("10.99.0.1:6783"))
    });

    world.end_router(1, Signal::SIGKILL).unwrap();
    dial_nobody(&world.nodes[0]);
    world.start_router_again(1, &[]).unwrap();
    eventually("it has found the other by itself", || {
        way(&world, 1, 0) == DIRECT && way(&world, 0, 1) == DIRECT
    });
    assert_eq!(
        targets(&world.nodes[1]),
        [named("10.99.0.9:6783", TargetSource::Connect)]
    );
    assert_all_reach(&world);

    weft(&world.nodes[1], &["connect", "--replace", "10.99.0.1"]);
    let status = world.nodes[1].status().unwrap();
    let [only] = status.targets.as_slice() else {
        panic!("{:?}", status.targets)
    };
    assert_eq!(
        (only.target.as_str(), only.source),
        ("10.99.0.1:6783", TargetSource::Connect)
    );
    eventually("the target is found", || {
        let status = world.nodes[1].status().unwrap();
        let target = &status.targets[0];
        target.state == TargetState::Found && target.peer.as_deref() == Some("node1")
    });
}

/// A clean leave: nobody waits for a silence to end, its space has other owners, and it stays away
/// over a restart until it is told to come back.
#[test]
fn a_node_that_leaves_is_dropped_at_once_and_stays_away_until_it_is_told() {
    let mut world = cluster(3, 1, &[]);
    let said = text(&weft(&world.nodes[2], &["leave"]));
    assert!(said.contains("are kept"), "{said}");
    eventually("the others know it no more", || {
        world.nodes[..2].iter().all(|node| {
            let peers = node.status().unwrap().peers;
            peers.iter().all(|peer| peer.name != "node3")
        })
    });
    let owned = |node: &Node| {
        let peers = node.status().unwrap().ipam.peers.into_iter();
        peers
            .filter(|peer| peer.name.as_str() == "node3")
            .map(|peer| peer.owned)
            .sum::<u64>()
    };
    // Its bridge and its pod have addresses still.
    eventually("its space is theirs", || owned(&world.nodes[0]) == 2);
    assert!(!pings(&world.pods[0].netns, v4(&world.pods[2]), 56));
    assert!(pings(&world.pods[0].netns, v4(&world.pods[1]), 56));

    world.end_router(2, Signal::SIGKILL).unwrap();
    world.start_router_again(2, &[]).unwrap();
    eventually("it runs again", || world.nodes[2].status().is_ok());
    let away = world.nodes[2].status().unwrap();
    assert!(away.node.left && away.peers.is_empty() && away.targets.is_empty());
    assert!(
        away.conditions
            .iter()
            .any(|condition| condition.name == "left")
    );
    let page = text(&weft(&world.nodes[2], &["status"]));
    assert!(page.contains("this node has left the network"), "{page}");

    weft(&world.nodes[2], &["connect", "10.99.0.2"]);
    eventually("it is back with all", || {
        way(&world, 2, 0) == DIRECT && way(&world, 1, 2) == DIRECT
    });
    assert_all_reach(&world);
    let back = world.nodes[2].status().unwrap();
    assert!(
        !back.node.left
            && back
                .conditions
                .iter()
                .all(|condition| condition.name != "left")
    );
    eventually("it has space again", || owned(&world.nodes[0]) > 2);
}

/// One that has all the connections that it accepts refuses more, says so and counts it; links need
/// none.
#[test]
fn beyond_the_limit_connections_are_refused_and_links_are_up_all_the_same() {
    let mut world = cluster(4, 1, &[]);
    world.end_router(0, Signal::SIGKILL).unwrap();
    dial_nobody(&world.nodes[0]);
    world.start_router_again(0, &["--conn-limit", "1"]).unwrap();
    eventually("all links are up", || {
        (1..4).all(|other| way(&world, 0, other) == DIRECT && way(&world, other, 0) == DIRECT)
    });
    eventually("somebody was refused", || {
        counter(&world.nodes[0].status().unwrap(), "mesh_refused_full") > 0
    });
    assert_eq!(world.nodes[0].status().unwrap().node.conn_limit, 1);
    eventually("two are reached through the third", || {
        let status = world.nodes[0].status().unwrap();
        let through = status
            .peers
            .iter()
            .filter(|peer| peer.control_via.is_some());
        (status.node.connections, through.count()) == (1, 2)
    });
    assert_all_reach(&world);
}

/// Without discovery a node connects with those that are named and no others; messages for the rest
/// go through these.
#[test]
fn without_discovery_only_those_that_are_named_are_connected() {
    let world = cluster(3, 1, &["--no-discovery"]);
    let far = |from: usize, to: &str| {
        let peer = peer(&world.nodes[from], to).unwrap();
        (peer.control_via, peer.control_hops)
    };
    eventually("the first is the way to the third", || {
        far(1, "node3") == (Some("node1".to_owned()), Some(2))
    });
    assert_eq!(far(2, "node1"), (None, Some(1)));
    for node in &world.nodes[1..] {
        let status = node.status().unwrap();
        assert!(!status.node.discovery);
        assert_eq!(status.node.connections, 1);
    }
    assert_all_reach(&world);
    let page = text(&weft(&world.nodes[1], &["status", "routes"]));
    let line = page.lines().find(|line| line.starts_with("node3")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["node3", "vxlan", "1", "by", "node1", "2"], "{page}");
}

/// Both ways of a link are shown, for people and for machines.
#[test]
fn i8_every_way_of_a_link_is_shown() {
    let world = cluster(2, 1, &[]);
    let json = |part: &str| -> serde_json::Value {
        let output = weft(&world.nodes[0], &["status", part, "-o", "json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    eventually("sleeve is tried, too", || {
        let links = json("links");
        let shown: Vec<_> = links.as_array().unwrap().iter().collect();
        shown.len() == 2
            && shown
                .iter()
                .all(|link| link["state"] == "up" && link["peer"] == "node2")
            && (&shown[0]["encapsulation"], &shown[0]["in_use"]) == (&"vxlan".into(), &true.into())
            && (&shown[1]["encapsulation"], &shown[1]["in_use"])
                == (&"sleeve".into(), &false.into())
            && (&shown[0]["mtu"], &shown[1]["mtu"]) == (&1450.into(), &1438.into())
    });
    assert_eq!(json("peers")[0]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json("routes")[0]["hops"], 1);
    assert_eq!(json("targets"), serde_json::json!([]));
    let page = text(&weft(&world.nodes[0], &["status", "links"]));
    assert_eq!(page.lines().count(), 3, "{page}");
    let page = text(&weft(&world.nodes[0], &["status"]));
    assert!(page.contains("health     good, the link is up\n"), "{page}");
}

/// What cannot be is refused in words, and nothing has changed.
#[test]
fn an_address_that_cannot_be_is_refused() {
    let world: World = cluster(1, 0, &[]);
    let socket = world.nodes[0].layout.socket.to_str().unwrap();
    let run = Command::new(WEFT)
        .args(["connect", "good", "bad host", "--socket", socket])
        .env_clear()
        .output();
    let output = run.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("\"bad host\" is not an address"), "{error}");
    assert!(targets(&world.nodes[0]).is_empty());
}
