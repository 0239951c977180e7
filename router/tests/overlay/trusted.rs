//! With a password, frames between two nodes are in the clear where both trust the network between
//! them, and nowhere else.

use std::net::Ipv4Addr;
use std::time::Duration;

use control::Encapsulation;
use nix::sys::signal::Signal;
use router::lab::world::World;

use crate::cluster::{assert_all_reach, cluster, counter, eventually};
use crate::encrypted::{MARK, Password, capture, holding, is_up, send_marks, status};
use crate::flow::Flow;
use crate::relay::{part, peer, relayed_by, reunite, way};
use crate::verbs::weft;

const PASSWORD: &str = "a long password for tests\n";
const VXLAN: Option<(Encapsulation, Option<String>)> = Some((Encapsulation::Vxlan, None));
const SLEEVE: Option<(Encapsulation, Option<String>)> = Some((Encapsulation::Sleeve, None));

/// The nodes of a world as networks of one address each, as the setting takes them.
fn networks(world: &World, nodes: &[usize]) -> String {
    let nodes = nodes.iter().map(|node| &world.nodes[*node].layout);
    let networks = nodes.map(|node| format!("{}/32", node.address));
    networks.collect::<Vec<_>>().join(",")
}

fn start_again(world: &mut World, node: usize, trusted: &str) {
    world.end_router(node, Signal::SIGTERM).unwrap();
    let args = ["--trusted-subnets", trusted];
    let args = if trusted.is_empty() { &[][..] } else { &args };
    world.start_router_again(node, args).unwrap();
}

fn marks(world: &World) {
    for _ in 0..40 {
        send_marks(world);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Of frames on the wire, those between these two addresses.
fn between(frames: &[Vec<u8>], a: Ipv4Addr, b: Ipv4Addr) -> Vec<Vec<u8>> {
    let of = |frame: &&Vec<u8>| {
        let ends = frame.get(26..30).zip(frame.get(30..34));
        ends == Some((&a.octets(), &b.octets())) || ends == Some((&b.octets(), &a.octets()))
    };
    frames.iter().filter(of).cloned().collect()
}

/// The first two trust each other, and the third, which nobody trusts, is sealed with both.
#[test]
fn those_who_trust_each_other_are_in_the_clear_and_say_so() {
    let password = Password::new(PASSWORD);
    let mut world = cluster(3, 1, &password.args());
    let trusted = networks(&world, &[0, 1]);
    for node in 0..3 {
        start_again(&mut world, node, &trusted);
    }
    let as_agreed = |world: &World| {
        let sealed = [(0, 2), (2, 0), (1, 2), (2, 1)];
        way(world, 0, 1) == VXLAN
            && way(world, 1, 0) == VXLAN
            && sealed.iter().all(|&(a, b)| way(world, a, b) == SLEEVE)
    };
    eventually("the links are as agreed", || as_agreed(&world));
    assert_all_reach(&world);
    let flow = Flow::start(&world.pods[0], &world.pods[1]);
    let addresses = [0, 1, 2].map(|node: usize| world.nodes[node].layout.address);
    let [first, second, third] = addresses;
    // From the first pod to the last, and to all.
    let frames = capture(&mut world, 0, |world| marks(world));
    assert!(holding(&between(&frames, first, second), MARK) > 0);
    let sealed = between(&frames, first, third);
    assert!(sealed.len() > 20, "{} datagrams", sealed.len());
    assert_eq!(holding(&sealed, MARK), 0);
    // What routers say to each other is sealed all the same.
    let frames = capture(&mut world, 1, |world| {
        start_again(world, 0, &trusted);
        eventually("it is as before", || as_agreed(world));
    });
    let name = world.nodes[1].layout.name.clone();
    assert_eq!(holding(&frames, name.as_bytes()), 0);
    flow.goes_on("in the clear");

    // The operator sees it at both ends.
    for (at, of) in [(0, 1), (1, 0)] {
        let subnet = format!("{}/32", addresses[of]);
        let name = &world.nodes[of].layout.name;
        let peer = peer(&world.nodes[at], name).unwrap();
        assert_eq!(peer.plain, Some(subnet.parse().unwrap()));
        let plain = format!("plain (trusted subnet {subnet})");
        for verb in [&["status"][..], &["status", "links"]] {
            let page = weft(&world.nodes[at], verb).stdout;
            let page = String::from_utf8(page).unwrap();
            assert!(page.contains(&plain), "{page}");
        }
        let status = status(&world, at);
        assert!(status.overlay.encrypted);
        assert_eq!(status.overlay.trusted_subnets.len(), 2);
    }

    // By a relay it is sealed: the relay would read it.
    part(&world, 0, 1, "");
    eventually("both relay through the third", || {
        let through = relayed_by(&world, 2);
        way(&world, 0, 1) == through && way(&world, 1, 0) == through
    });
    let frames = capture(&mut world, 2, |world| marks(world));
    assert_eq!(holding(&frames, MARK), 0);
    flow.goes_on("through the relay");
    reunite(&world, [0, 1]);
    eventually("they are direct again", || as_agreed(&world));
    flow.goes_on("in the clear again");
    flow.end();
}

/// From before the first router on, nothing is in the clear if one side alone trusts; it is told why.
#[test]
fn i4_one_side_that_trusts_is_not_enough() {
    let password = Password::new(PASSWORD);
    let mut world = cluster(2, 1, &password.args());
    let all = networks(&world, &[0, 1]);
    for lone in [0, 1] {
        for node in [0, 1] {
            world.end_router(node, Signal::SIGKILL).unwrap();
        }
        let frames = capture(&mut world, 0, |world| {
            send_marks(world);
            for node in [0, 1] {
                let args = ["--trusted-subnets", all.as_str()];
                let args = if node == lone { &args[..] } else { &[] };
                world.start_router_again(node, args).unwrap();
            }
            eventually("the routers find each other", || {
                send_marks(world);
                is_up(world, 0, 1) && is_up(world, 1, 0)
            });
            assert_all_reach(world);
            // Some probes and answers later.
            for _ in 0..5 {
                marks(world);
            }
        });
        assert!(frames.len() > 100, "{} frames crossed", frames.len());
        assert_eq!(holding(&frames, MARK), 0);
        assert_eq!(way(&world, 0, 1), SLEEVE);
        let why = |at: usize, of: usize| {
            let name = &world.nodes[of].layout.name;
            peer(&world.nodes[at], name).unwrap().reason.unwrap()
        };
        let told = why(lone, 1 - lone);
        assert!(
            told.ends_with("does not trust this node's address"),
            "{told}"
        );
        assert_eq!(why(1 - lone, lone), "frames are sealed");
        for node in [0, 1] {
            assert_eq!(counter(&status(&world, node), "drop_plain_refused"), 0);
        }
    }
}
