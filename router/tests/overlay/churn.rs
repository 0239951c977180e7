//! Pods that come and go while the router is killed again and again: afterwards there is nothing too
//! many and nothing too few.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use control::pending;
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use nix::sys::signal::Signal;
use router::lab::world::World;
use serde_json::{Value, json};

use crate::cluster::{PATIENCE, assert_all_reach, cluster, eventually};
use crate::cni::held;
use crate::runtime::{Call, PodNs};

/// Pods that are added and deleted at the same time.
const PARALLEL: usize = 16;
/// Pods in all.
const PODS: usize = 1000;

#[test]
fn i2_churn_with_a_router_that_is_killed_leaves_nothing() {
    let mut world = cluster(1, 2, &["--ipam-hold-down", "1s"]);
    let before = kernel_state(&world);
    let netns = NetNs::open(&NetNs::path(&world.nodes[0].layout.netns)).unwrap();
    let socket = world.nodes[0].layout.socket.clone();
    let (next, kills, over) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicBool::new(false),
    );
    let config = json!({
        "cniVersion": "1.1.0", "name": "churn", "type": "weft-cni", "socket": socket,
    });

    thread::scope(|scope| {
        let workers: Vec<_> = (0..PARALLEL)
            .map(|_| {
                scope.spawn(|| {
                    // One namespace after another is what a node has; making one is not the test.
                    let pod = PodNs::new();
                    while let number @ 0..PODS = next.fetch_add(1, Relaxed) {
                        live(&netns, &pod, &format!("churn-{number}"), &config);
                    }
                })
            })
            .collect();
        let killer = scope.spawn(|| {
            // Not a regular beat: the time that the router was up last decides the next.
            let mut pause = Duration::from_millis(150);
            while !over.load(Relaxed) {
                thread::sleep(pause);
                world.end_router(0, Signal::SIGKILL).unwrap();
                thread::sleep(pause / 4);
                world.start_router_again(0, &[]).unwrap();
                let up = Instant::now();
                eventually("the router is back", || world.nodes[0].status().is_ok());
                let up = u64::try_from(up.elapsed().as_micros()).unwrap();
                pause = Duration::from_millis(100 + up % 700);
                kills.fetch_add(1, Relaxed);
            }
        });
        let results: Vec<_> = workers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        over.store(true, Relaxed);
        killer.join().unwrap();
        for result in results {
            result.unwrap();
        }
    });
    assert!(
        kills.load(Relaxed) >= 3,
        "the router was killed {kills:?} times"
    );

    // What was noted while it was down is carried out at the next start at the latest.
    world.end_router(0, Signal::SIGKILL).unwrap();
    world.start_router_again(0, &[]).unwrap();
    eventually("only the world's own pods are left", || {
        let ready = world.nodes[0]
            .status()
            .is_ok_and(|status| status.ipam.ready);
        ready && held(&world).len() == 2
    });
    let left = pending::list(&world.nodes[0].layout.socket).unwrap();
    assert!(
        left.pending.is_empty() && left.unreadable.is_empty(),
        "{left:?}"
    );
    let noted = fs::read_to_string(world.nodes[0].layout.state_dir.join("attachments.json"));
    assert!(!noted.unwrap().contains("churn-"));
    eventually("the kernel's state is what it was", || {
        kernel_state(&world) == before
    });
    assert_all_reach(&world);
}

/// One pod's life, as kubelet sees to it: what fails is taken down and tried again.
fn live(node: &NetNs, pod: &PodNs, container_id: &str, config: &Value) {
    let call = |verb, config: Value| {
        pod.execute(
            node,
            &Call {
                verb,
                container_id,
                config,
            },
        )
    };
    let end = Instant::now() + 3 * PATIENCE;
    let result = loop {
        let added = call("ADD", config.clone());
        match added.code() {
            None => break added.expect_json(),
            // Not there, not ready, or killed in the middle of its answer.
            Some(11 | 102) => call("DEL", config.clone()).expect_ok(),
            Some(_) => panic!("{}", added.words()),
        }
        assert!(Instant::now() < end, "{}", added.words());
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(result["interfaces"].as_array().unwrap().len(), 2);
    call("DEL", config.clone()).expect_ok();
    let mut inside = Netlink::open_in(&pod.netns).unwrap();
    assert!(inside.link("eth0").unwrap().is_none());
}

/// Interfaces, their addresses and all routes of the node; without what differs from start to start.
fn kernel_state(world: &World) -> BTreeSet<String> {
    let mut netlink = Netlink::open_in(&world.nodes[0].netns).unwrap();
    let mut state = BTreeSet::new();
    for link in netlink.links().unwrap() {
        let name = &link.name;
        for address in netlink.addresses(link.index).unwrap() {
            // The kernel's own, which come after a while.
            let own = matches!(address, ipnet::IpNet::V6(v6) if v6.addr().is_unicast_link_local());
            if !own {
                state.insert(format!("{name} {address}"));
            }
        }
        for route in netlink.routes(Some(link.index)).unwrap() {
            if route.dst.addr().is_ipv4() {
                state.insert(format!("{name} {} via {:?}", route.dst, route.gateway));
            }
        }
        state.insert(format!("{name} {:?}", link.kind));
    }
    state
}
