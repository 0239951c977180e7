//! Routers that are killed, leave and come back.

use control::{PeerState, Status};
use hostnet::netlink::Netlink;
use nix::sys::signal::Signal;

use crate::cluster::{assert_all_reach, cluster, eventually, pings, v4};

/// I7: a restart loses no pod, no address and no configuration; traffic resumes by itself.
#[test]
fn a_killed_router_comes_back_to_its_pods() {
    let mut world = cluster(2, 2, &[]);
    assert_all_reach(&world);
    let before = world.nodes[0].status().unwrap();
    world.end_router(0, Signal::SIGKILL).unwrap();
    let mut netlink = Netlink::open_in(&world.nodes[0].netns).unwrap();
    assert!(
        netlink.link("weft").unwrap().is_some(),
        "the bridge went with the router"
    );
    // Pods of one node need no router.
    assert!(pings(&world.pods[0].netns, v4(&world.pods[1]), 56));

    world.start_router_again(0, &[]).unwrap();
    let node = &world.nodes[0];
    // Until it has dialled, or was dialled, nobody is all it knows.
    let ready = |status: Status| {
        status.ipam.ready && status.peers.iter().any(|peer| peer.state == PeerState::Up)
    };
    eventually("the router and its peer are back", || {
        node.status().is_ok_and(ready)
    });
    let after = node.status().unwrap();
    assert_eq!(after.node.id, before.node.id);
    assert_eq!(
        after.overlay.bridge_addresses,
        before.overlay.bridge_addresses
    );
    assert_eq!(after.overlay.bridge_mac, before.overlay.bridge_mac);
    assert_eq!(held(&after), held(&before));
    assert_all_reach(&world);
}

/// A router that is asked to end says so: the others forget it at once, and it removes what it
/// made, but for the bridge that pods still hang on.
#[test]
fn a_router_that_leaves_is_forgotten() {
    let mut world = cluster(3, 1, &[]);
    assert_all_reach(&world);
    world.end_router(2, Signal::SIGTERM).unwrap();
    let left = &world.nodes[2];
    eventually("the others forget it", || {
        world.nodes[..2].iter().all(|node| {
            let status = node.status().unwrap();
            let up = status
                .peers
                .iter()
                .filter(|peer| peer.state == PeerState::Up)
                .count();
            up == 1
                && status
                    .macs
                    .iter()
                    .all(|entry| entry.port != left.layout.name)
        })
    });
    let mut netlink = Netlink::open_in(&left.netns).unwrap();
    assert!(
        netlink.link("weft-tap").unwrap().is_none(),
        "the TAP is left"
    );
    assert!(
        netlink.link("weft").unwrap().is_some(),
        "a pod hangs on the bridge"
    );
    assert!(pings(&world.pods[0].netns, v4(&world.pods[1]), 56));
}

/// Somebody deletes the TAP: the router cannot mend that, says so and ends, to be started anew.
#[test]
fn a_router_without_its_tap_ends() {
    let mut world = cluster(1, 1, &[]);
    let node = &world.nodes[0];
    let mut netlink = Netlink::open_in(&node.netns).unwrap();
    let tap = netlink.link("weft-tap").unwrap().unwrap();
    netlink.delete_link(tap.index).unwrap();
    eventually("the router has ended", || world.nodes[0].status().is_err());
    let log = std::fs::read_to_string(&world.nodes[0].layout.log).unwrap();
    assert!(log.contains("TAP was deleted"), "{log}");
    world.end_router(0, Signal::SIGKILL).unwrap();
    world.start_router_again(0, &[]).unwrap();
    eventually("it is back", || {
        world.nodes[0].status().is_ok_and(|s| s.ipam.ready)
    });
}

/// What `weft ps` shows is what the pod has, and survives the router.
#[test]
fn i7_the_macs_of_pods_are_known_after_a_restart() {
    let mut world = cluster(1, 2, &[]);
    world.end_router(0, Signal::SIGKILL).unwrap();
    world.start_router_again(0, &[]).unwrap();
    eventually("the router answers", || world.nodes[0].status().is_ok());
    let allocations = world.nodes[0].status().unwrap().ipam.allocations;
    for pod in &world.pods {
        let held = allocations
            .iter()
            .find(|held| held.container_id == pod.layout.container_id);
        assert_eq!(held.unwrap().mac, Some(pod.mac));
    }
}

/// The addresses that a node has handed out, and to whom.
fn held(status: &Status) -> Vec<(String, ipnet::IpNet)> {
    let allocations = status.ipam.allocations.iter();
    let mut held: Vec<_> = allocations
        .map(|a| (a.container_id.clone(), a.address))
        .collect();
    held.sort();
    held
}
