//! Nodes that crash, lose what they knew, are renamed, or have each other's name.

use control::PeerState;
use hostnet::netlink::Netlink;
use nix::sys::signal::Signal;
use router::lab::world::World;

use crate::cluster::{assert_all_reach, cluster, eventually, pings, v4};
use crate::relay::{DIRECT, peer, way};

/// Whether the first two nodes have a link with a third of this name, which is the only third.
fn all_see(world: &World, name: &str) -> bool {
    world.nodes[..2].iter().all(|node| {
        let peers = node.status().unwrap().peers;
        let open = peers.iter().filter(|peer| peer.state.is_open());
        open.count() == 2 && peers.len() == 2 && peers.iter().any(|peer| peer.name == name)
    })
}

/// A crash is known by the silence: the link is down with a reason, and the rest goes on.
#[test]
fn a_node_that_crashes_is_down_for_a_reason_until_it_is_back() {
    let mut world = cluster(3, 1, &[]);
    let id = world.nodes[2].status().unwrap().node.id;
    world.end_router(2, Signal::SIGKILL).unwrap();
    eventually("the link is down", || {
        peer(&world.nodes[0], "node3").is_some_and(|peer| {
            peer.state == PeerState::Down
                && peer
                    .reason
                    .is_some_and(|why| why.contains("no reply on UDP"))
        })
    });
    assert!(pings(&world.pods[0].netns, v4(&world.pods[1]), 56));
    world.start_router_again(2, &[]).unwrap();
    eventually("it is back", || all_see(&world, "node3"));
    assert_eq!(peer(&world.nodes[0], "node3").unwrap().id, Some(id));
    assert_all_reach(&world);
}

/// A node whose disk is new has another identity under the old name: the others take it for what it
/// is, at once, and do not keep the old one.
#[test]
fn a_node_that_lost_its_state_takes_its_own_place() {
    let mut world = cluster(3, 0, &[]);
    let id = world.nodes[2].status().unwrap().node.id;
    world.end_router(2, Signal::SIGKILL).unwrap();
    std::fs::remove_dir_all(&world.nodes[2].layout.state_dir).unwrap();
    world.start_router_again(2, &[]).unwrap();
    eventually("the new one is seen", || {
        all_see(&world, "node3")
            && world.nodes[..2].iter().all(|node| {
                let now = peer(node, "node3").unwrap().id;
                now.is_some() && now != Some(id)
            })
    });
    eventually("it has addresses again", || {
        world.nodes[2]
            .status()
            .is_ok_and(|status| status.ipam.ready)
    });
}

/// The same node under another name: one node, with its new name, everywhere.
#[test]
fn a_renamed_node_is_one_node() {
    let mut world = cluster(3, 0, &[]);
    let id = world.nodes[2].status().unwrap().node.id;
    world.end_router(2, Signal::SIGTERM).unwrap();
    world.nodes[2].layout.name = "other".to_owned();
    world.start_router_again(2, &[]).unwrap();
    eventually("it is seen under its new name", || all_see(&world, "other"));
    assert_eq!(peer(&world.nodes[0], "other").unwrap().id, Some(id));
}

/// Of two nodes with one name the second is refused. Both are named to the operator, on both nodes;
/// the first keeps its links, its space and its pods.
#[test]
fn two_nodes_with_one_name_are_named_and_the_first_goes_on() {
    let mut world = cluster(3, 1, &[]);
    let ids = [1, 2].map(|node: usize| world.nodes[node].status().unwrap().node.id.to_string());
    let before = world.nodes[1].status().unwrap().ipam.owned;
    world.end_router(2, Signal::SIGTERM).unwrap();
    // The bridge says whose it is, and another machine would have none.
    let mut netlink = Netlink::open_in(&world.nodes[2].netns).unwrap();
    let bridge = netlink.link("weft").unwrap().unwrap();
    netlink.delete_link(bridge.index).unwrap();
    world.nodes[2].layout.name = "node2".to_owned();
    world.start_router_again(2, &[]).unwrap();
    let named = |node: usize| {
        let Ok(status) = world.nodes[node].status() else {
            return false;
        };
        let mut all = status.conditions.iter();
        all.any(|condition| {
            condition.name == "duplicate_name"
                && ids.iter().all(|id| condition.message.contains(id))
        })
    };
    eventually("both are named where they meet", || named(0) && named(2));
    assert_eq!((way(&world, 0, 1), way(&world, 1, 0)), (DIRECT, DIRECT));
    assert!(pings(&world.pods[0].netns, v4(&world.pods[1]), 56));
    let status = world.nodes[1].status().unwrap();
    assert_eq!(status.ipam.owned, before);
    assert!(status.ipam.ready);
    let links = world.nodes[0].status().unwrap().peers;
    let second = links.iter().find(|peer| peer.name == "node2").unwrap();
    assert_eq!(second.id.map(|id| id.to_string()).as_ref(), Some(&ids[0]));
}
