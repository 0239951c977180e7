//! Routers that stand still, and all of them restarted in turn, while traffic flows.

use control::{PeerState, PeerStatus};
use nix::sys::signal::Signal;

use crate::cluster::{assert_all_reach, cluster, eventually, pings, v4};
use crate::flow::Flow;
use crate::relay::{DIRECT, part, peer, reunite, way};

/// I5: one that reads nothing and says nothing is the trouble of nobody else.
#[test]
fn i5_a_stopped_router_is_nobody_elses_trouble() {
    let world = cluster(4, 1, &[]);
    let flows = [
        Flow::start(&world.pods[0], &world.pods[1]),
        Flow::start(&world.pods[1], &world.pods[2]),
        Flow::start(&world.pods[2], &world.pods[0]),
    ];
    let among = |a: usize, b: usize| -> PeerStatus {
        peer(&world.nodes[a], &world.nodes[b].layout.name).unwrap()
    };
    let pairs = [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)];
    let before = pairs.map(|(a, b)| among(a, b).since_secs);
    world.signal_router(3, Signal::SIGSTOP).unwrap();
    eventually("the others see that it is down", || {
        (0..3).all(|node| among(node, 3).state == PeerState::Down)
    });
    for flow in &flows {
        flow.goes_on("beside a router that stands still");
    }
    for ((a, b), before) in pairs.into_iter().zip(before) {
        let now = among(a, b);
        assert_eq!((now.state, now.via), (PeerState::Up, None), "{a} to {b}");
        assert!(
            now.since_secs >= before,
            "{a} to {b} was not up all the time"
        );
    }
    world.signal_router(3, Signal::SIGCONT).unwrap();
    eventually("it is back", || {
        (0..3).all(|node| way(&world, node, 3) == DIRECT && way(&world, 3, node) == DIRECT)
    });
    for flow in flows {
        flow.goes_on("after all");
        flow.end();
    }
    assert_all_reach(&world);
}

/// A relay that stands still is replaced by another within seconds.
#[test]
fn a_flow_through_a_relay_that_is_stopped_goes_on_through_another() {
    let world = cluster(4, 1, &[]);
    part(&world, 0, 2, "");
    let through = |a: usize, b: usize| way(&world, a, b).and_then(|(_, via)| via);
    eventually("both relay", || {
        through(0, 2).is_some() && through(2, 0).is_some()
    });
    let flow = Flow::start(&world.pods[0], &world.pods[2]);
    flow.goes_on("through a relay");
    let used = through(0, 2).unwrap();
    let relay = if used == "node2" { 1 } else { 3 };
    let other = world.nodes[4 - relay].layout.name.clone();
    world.signal_router(relay, Signal::SIGSTOP).unwrap();
    eventually("both relay through the other", || {
        through(0, 2).as_ref() == Some(&other) && through(2, 0).as_ref() == Some(&other)
    });
    flow.goes_on("through the other relay");
    world.signal_router(relay, Signal::SIGCONT).unwrap();
    reunite(&world, [0, 2]);
    eventually("it is direct again", || way(&world, 0, 2) == DIRECT);
    flow.end();
}

/// I7: a rolling restart of all routers breaks no connection.
#[test]
fn i7_a_flow_survives_a_rolling_restart_of_all() {
    let mut world = cluster(3, 1, &[]);
    let flow = Flow::start(&world.pods[0], &world.pods[2]);
    flow.goes_on("at first");
    for node in 0..3 {
        world.end_router(node, Signal::SIGTERM).unwrap();
        world.start_router_again(node, &[]).unwrap();
        eventually("it is back with all others", || {
            let others = (0..3).filter(|other| *other != node);
            let mut links = others.map(|other| {
                way(&world, node, other) == DIRECT && way(&world, other, node) == DIRECT
            });
            links.all(|up| up)
        });
        flow.goes_on("after a restart");
    }
    flow.end();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        assert!(pings(&world.pods[from].netns, v4(&world.pods[to]), 56));
    }
}
