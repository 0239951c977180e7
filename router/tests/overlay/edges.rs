//! Where the data path meets the end of what the kernel holds: what is lost there has a reason in the
//! status, and traffic goes on when the cause is gone. And what of the kernel's it has as its own.

use std::net::SocketAddr;
use std::path::Path;

use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use hostnet::udp::{Datagram, UdpOptions, UdpSocket};
use nix::libc;
use nix::sys::signal::Signal;

use crate::cluster::{assert_all_reach, cluster, counter, eventually, pings, v4};

#[test]
fn a_tap_that_goes_down_and_up_again_carries_on() {
    for args in [&[][..], &["--offloads", "off"]] {
        let world = cluster(2, 1, args);
        assert_all_reach(&world);
        let node = &world.nodes[1];
        let mut netlink = Netlink::open_in(&node.netns).unwrap();
        let tap = netlink.link("weft-tap").unwrap().unwrap().index;
        netlink.set_down(tap).unwrap();
        assert!(
            !pings(&world.pods[0].netns, v4(&world.pods[1]), 56),
            "{args:?}: something passed a TAP that is down"
        );
        let status = node.status().unwrap();
        assert!(counter(&status, "drop_tap_refused") > 0, "{args:?}");
        netlink.set_up(tap).unwrap();
        eventually("traffic resumes", || {
            pings(&world.pods[0].netns, v4(&world.pods[1]), 56)
        });
        assert_all_reach(&world);
    }
}

#[test]
fn workers_have_a_share_of_their_own_unless_told_otherwise() {
    for (args, share, label) in [
        (&[][..], (-10, libc::SCHED_BATCH), Some("nice=-10")),
        (
            &["--worker-nice", "-3"],
            (-3, libc::SCHED_BATCH),
            Some("nice=-3"),
        ),
        (&["--worker-nice", "off"], (0, libc::SCHED_OTHER), None),
    ] {
        let world = cluster(1, 1, args);
        let node = &world.nodes[0];
        let offloads = node.status().unwrap().overlay.offloads;
        let shown = offloads.iter().find(|label| label.starts_with("nice"));
        assert_eq!(shown.map(String::as_str), label, "{args:?}: {offloads:?}");
        let threads = threads(&node.netns);
        let (workers, others): (Vec<_>, Vec<_>) = threads
            .iter()
            .partition(|(name, ..)| name.starts_with("worker-"));
        let is = |wanted| move |(_, nice, policy): &&(String, i32, i32)| (*nice, *policy) == wanted;
        assert!(!workers.is_empty() && !others.is_empty(), "{threads:?}");
        assert!(workers.iter().all(is(share)), "{args:?}: {threads:?}");
        // Nobody else is put before pods.
        assert!(
            others.iter().all(is((0, libc::SCHED_OTHER))),
            "{args:?}: {threads:?}"
        );
    }
}

/// Name, nice value and policy of all threads in a namespace (fields 19 and 41 of proc_pid_stat(5)).
fn threads(netns: &NetNs) -> Vec<(String, i32, i32)> {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    let inside = entries(Path::new("/proc")).filter(|process| {
        NetNs::open(&process.path().join("ns/net")).is_ok_and(|of| of.same_as(netns))
    });
    let threads = inside.flat_map(|process| entries(&process.path().join("task")));
    threads
        .filter_map(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).ok()?;
            let (name, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
            let fields: Vec<_> = rest.split(' ').collect();
            let number = |field: usize| fields.get(field - 3)?.parse().ok();
            Some((name.to_owned(), number(19)?, number(41)?))
        })
        .collect()
}

/// A router that stands still: the kernel keeps what there is room for and drops the rest. The
/// router says so when it is back.
#[test]
fn what_the_kernel_has_no_room_for_is_counted() {
    let world = cluster(2, 1, &[]);
    assert_all_reach(&world);
    let node = &world.nodes[1];
    world.signal_router(1, Signal::SIGSTOP).unwrap();
    // More than the TAP's queue holds, and more than the receive buffer does.
    let pod = &world.pods[1];
    flood(&pod.netns, (v4(&world.pods[0]), 9).into(), 20_000);
    flood(
        &world.nodes[0].netns,
        (node.layout.address, 6784).into(),
        600_000,
    );
    world.signal_router(1, Signal::SIGCONT).unwrap();
    for reason in ["tap_queue_full", "underlay_queue_full"] {
        eventually(reason, || {
            let status = node.status();
            status.is_ok_and(|status| counter(&status, &format!("drop_{reason}")) > 0)
        });
    }
    assert_all_reach(&world);
}

/// Sends so many datagrams of one byte.
fn flood(from: &NetNs, dest: SocketAddr, count: usize) {
    let options = UdpOptions::new("0.0.0.0:0".parse().unwrap());
    let socket = from.run(|| UdpSocket::bind(&options)).unwrap().unwrap();
    let batch = [Datagram {
        dest,
        bytes: &[0],
        segment: 0,
    }; 64];
    for _ in 0..count / batch.len() {
        // What is refused was offered; it is the other end that is to be filled.
        let _ = socket.send_batch(&batch);
    }
}
