//! Nodes that share the range: one that is no seed gets space, and one that is gone gives it up.

use control::{Client, RemoveRequest};
use hostnet::netlink::Netlink;
use nix::sys::signal::Signal;

use crate::cluster::{PATIENCE, assert_all_reach, cluster, eventually};

/// Of three nodes one is no seed: its pods get addresses all the same. Then a seed dies, is
/// removed, and comes back: it learns of it before it hands anything out, and its pods stay.
#[test]
fn space_is_shared_taken_over_and_learned_of() {
    let mut world = cluster(3, 1, &["--ipam-init", "seed=node1,node2"]);
    let names: Vec<_> = world.nodes.iter().map(|n| n.layout.name.clone()).collect();
    assert_eq!(names, ["node1", "node2", "node3"]);
    assert_all_reach(&world);
    let given: u64 = {
        let status = world.nodes[2].status().unwrap();
        status.ipam.owned.iter().map(|owned| owned.size).sum()
    };
    assert_eq!(given, 256, "a block, of the seed with most");

    let client = |i: usize| Client::new(&world.nodes[i].layout.socket, PATIENCE);
    let (second, third) = (client(1), client(2));
    let removal = RemoveRequest {
        name: "node1".parse().unwrap(),
    };
    let refused = second.remove(&removal).unwrap_err().to_string();
    assert!(refused.contains("is connected"), "{refused}");

    world.end_router(0, Signal::SIGKILL).unwrap();
    eventually("the removal is taken", || second.remove(&removal).is_ok());
    eventually("it is confirmed, and known to all", || {
        [&second, &third].iter().all(|client| {
            let ipam = client.status().unwrap().ipam;
            let gone = ipam.peers.iter().find(|peer| peer.name == removal.name);
            gone.is_some_and(|peer| peer.gone && peer.owned == 0) && ipam.waiting.is_empty()
        })
    });
    let whole: u64 = [&second, &third]
        .iter()
        .flat_map(|client| client.status().unwrap().ipam.owned)
        .map(|owned| owned.size)
        .sum();
    assert_eq!(whole, 1 << 20, "nothing is lost");
    // Again, from elsewhere, changes nothing.
    assert_eq!(third.remove(&removal).unwrap().taken, 0);

    world.start_router_again(0, &[]).unwrap();
    let first = Client::new(&world.nodes[0].layout.socket, PATIENCE);
    eventually("it is back, with space of its own", || {
        first.status().is_ok_and(|status| {
            let owned: u64 = status.ipam.owned.iter().map(|owned| owned.size).sum();
            // Of whom it asked first: 256 of a seed, 64 of the node that has 256 itself.
            status.ipam.ready && owned > 0
        })
    });
    let status = first.status().unwrap();
    assert!(
        !status.ipam.estranged.is_empty(),
        "its pod keeps its address"
    );
    eventually("the operator is told", || {
        let conditions = first.status().unwrap().conditions;
        conditions.iter().any(|c| c.name == "ipam_estranged")
    });
    assert_all_reach(&world);
}

/// A node that was removed comes back without containers: its bridge's address is another's by now,
/// and nobody has to see to it.
#[test]
fn a_bridge_whose_address_was_taken_over_gets_another() {
    let mut world = cluster(2, 0, &[]);
    let second = Client::new(&world.nodes[1].layout.socket, PATIENCE);
    let before = world.nodes[0].status().unwrap().overlay.bridge_addresses;
    world.end_router(0, Signal::SIGKILL).unwrap();
    let removal = RemoveRequest {
        name: "node1".parse().unwrap(),
    };
    eventually("the removal is taken", || second.remove(&removal).is_ok());

    world.start_router_again(0, &[]).unwrap();
    let first = &world.nodes[0];
    eventually("the bridge has an address that is its node's", || {
        first.status().is_ok_and(|status| {
            let addresses = &status.overlay.bridge_addresses;
            status.ipam.estranged.is_empty() && !addresses.is_empty() && *addresses != before
        })
    });
    let after = first.status().unwrap().overlay.bridge_addresses;
    let mut netlink = Netlink::open_in(&first.netns).unwrap();
    let bridge = netlink.link("weft").unwrap().unwrap();
    let mut has = netlink.addresses(bridge.index).unwrap();
    has.retain(|address| address.addr().is_ipv4());
    assert_eq!(has, after);
    eventually("the other may hand the old one out", || {
        second.status().unwrap().ipam.blocked.is_empty()
    });
}
