//! Where the data path meets the end of what the kernel holds: what is lost there has a reason in the
//! status, and traffic goes on when the cause is gone.

use std::net::SocketAddr;

use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use hostnet::udp::{Datagram, UdpOptions, UdpSocket};
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
