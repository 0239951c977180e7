//! What a pod sees: one flat layer 2 over all nodes.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use control::PeerState;
use hostnet::netlink::Netlink;
use nix::sys::signal::Signal;
use router::lab::interrupt::Interrupt;
use router::lab::probe::{ping, throughput};

use crate::cluster::{
    assert_all_reach, cluster, cluster_on, counter, eventually, packets, pings, receive, v4,
};

#[test]
fn pods_of_all_nodes_share_one_flat_network() {
    let world = cluster(3, 2, &[]);
    assert_all_reach(&world);
    let addresses: std::collections::BTreeSet<_> = world.pods.iter().map(v4).collect();
    assert_eq!(addresses.len(), 6, "an address is held twice");

    for pod in &world.pods {
        let mut netlink = Netlink::open_in(&pod.netns).unwrap();
        let link = netlink.link("eth0").unwrap().unwrap();
        assert!(link.up && link.running);
        assert_eq!(link.mtu, 1450);
        assert_eq!(link.mac, pod.mac);
        let addresses = netlink.addresses(link.index).unwrap();
        assert!(addresses.contains(&pod.address) && pod.address.prefix_len() == 12);
        // The range is on-link; the rest of the world is behind the node's own bridge address.
        let other = world
            .pods
            .iter()
            .find(|other| v4(other) != v4(pod))
            .unwrap();
        let on_link = netlink.route_to(v4(other).into()).unwrap().unwrap();
        assert_eq!((on_link.oif, on_link.gateway), (link.index, None));
        let beyond = netlink
            .route_to("192.0.2.1".parse().unwrap())
            .unwrap()
            .unwrap();
        let bridge = world
            .node_of(pod)
            .status()
            .unwrap()
            .overlay
            .bridge_addresses;
        assert!(
            bridge.iter().any(|b| Some(b.addr()) == beyond.gateway),
            "{bridge:?} {beyond:?}"
        );
        // Neighbours are the pods themselves, on whatever node they run.
        let neighbours = netlink.neighbours(link.index).unwrap();
        for other in world.pods.iter().filter(|other| v4(other) != v4(pod)) {
            let known = neighbours
                .iter()
                .find(|n| n.address == IpAddr::from(v4(other)));
            let mac = known.map(|n| n.mac);
            assert_eq!(
                mac,
                Some(other.mac),
                "{} in {}",
                other.layout.name,
                pod.layout.name
            );
        }
    }
}

#[test]
fn tcp_crosses_with_offloads_and_without() {
    for args in [&[][..], &["--offloads", "off"]] {
        let world = cluster(2, 1, args);
        let (a, b) = (&world.pods[0], &world.pods[1]);
        for (from, to) in [(a, b), (b, a)] {
            let (duration, interrupt) = (Duration::from_millis(500), Interrupt::default());
            let address = to.address.addr();
            let sent = throughput::tcp(&from.netns, &to.netns, address, duration, &interrupt);
            let sent = sent.unwrap_or_else(|e| panic!("{args:?}: {e:#}\n{}", world.log_tails()));
            assert!(sent.bytes > 1_000_000, "{args:?}: {sent:?}");
        }
        // A packet of the pods' MTU, and one that IP has to fragment.
        for payload in [1450 - 28, 4000] {
            assert!(
                pings(&a.netns, v4(b), payload),
                "{args:?}: {payload} bytes of data"
            );
        }
    }
}

#[test]
fn the_pods_mtu_follows_the_underlays() {
    for underlay in [1280, 9000] {
        let world = cluster_on(2, 1, underlay, &[]);
        let (a, b) = (&world.pods[0], &world.pods[1]);
        let link = Netlink::open_in(&a.netns)
            .unwrap()
            .link("eth0")
            .unwrap()
            .unwrap();
        assert_eq!(link.mtu, u32::from(underlay) - 50);
        assert!(pings(&a.netns, v4(b), usize::from(underlay) - 50 - 28));
    }
}

/// A node whose link takes less than the pods send: they are told, and adapt; nothing is lost in
/// silence.
#[test]
fn pods_learn_that_a_link_is_narrower_than_their_mtu() {
    let mut world = cluster(2, 1, &[]);
    assert_all_reach(&world);
    world.end_router(1, Signal::SIGKILL).unwrap();
    world.start_router_again(1, &["--mtu", "1300"]).unwrap();
    eventually("the new MTU is known", || {
        let status = world.nodes[0].status().unwrap();
        status
            .peers
            .iter()
            .any(|peer| peer.state == PeerState::Up && peer.mtu == 1300)
    });
    let (a, b) = (&world.pods[0], &world.pods[1]);
    for (from, to) in [(a, b), (b, a)] {
        let (second, interrupt) = (Duration::from_secs(1), Interrupt::default());
        let sent = throughput::tcp(
            &from.netns,
            &to.netns,
            to.address.addr(),
            second,
            &interrupt,
        );
        let sent = sent.unwrap_or_else(|e| panic!("{e:#}\n{}", world.log_tails()));
        assert!(sent.bytes > 1_000_000, "{sent:?}");
    }
    assert!(counter(&world.nodes[0].status().unwrap(), "too_big_reports") > 0);
    // The node itself is told as well.
    assert!(pings(&world.nodes[0].netns, v4(b), 1400));
}

/// 14 + 20 + 8 + 8 around the frame: 98 bytes leave as 148, and tcpdump reads them as VXLAN.
#[test]
fn an_echo_of_98_bytes_leaves_as_148_and_tcpdump_reads_it() {
    let world = cluster(2, 1, &[]);
    let (a, b) = (&world.pods[0], &world.pods[1]);
    assert!(pings(&a.netns, v4(b), ping::PAYLOAD));

    let node = world.node_of(a);
    let mut capture = packets(&node.netns, "eth0");
    let tcpdump = node.netns.run(|| {
        Command::new("tcpdump")
            .args([
                "-n",
                "-e",
                "-i",
                "eth0",
                "-T",
                "vxlan",
                "-c",
                "1",
                "--immediate-mode",
            ])
            .arg("udp dst port 6784 and greater 148")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    });
    let mut tcpdump = tcpdump
        .unwrap()
        .expect("tcpdump is installed (.ci/test does it)");
    // It says on standard error when it listens.
    let mut listening = [0; 64];
    std::io::Read::read(tcpdump.stderr.as_mut().unwrap(), &mut listening).unwrap();
    assert!(pings(&a.netns, v4(b), ping::PAYLOAD));

    let is_echo = |frame: &[u8]| frame.len() > 42 && frame[36..38] == 6784u16.to_be_bytes();
    let frame = receive(&mut capture, Duration::from_secs(5), |frame| {
        is_echo(frame) && frame[50 + 12..50 + 14] == [8, 0]
    });
    assert_eq!(
        frame.expect("the answer is seen on the underlay").len(),
        148
    );

    let output = tcpdump.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for part in [
        "length 148",
        "VXLAN, flags [I] (0x08), vni 1",
        "ICMP echo request",
    ] {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}
