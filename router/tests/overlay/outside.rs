//! Pods and what is not a pod: the node, machines of the underlay, and Services as kube-proxy makes
//! them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use hostnet::netns::NetNs;
use nix::sys::signal::Signal;

use crate::cluster::{Stranger, cluster, eventually, pings, v4};
use crate::runtime::{Call, PodNs};

/// What leaves the range carries the node's address; what stays in it, on whatever node, never does.
#[test]
fn only_what_leaves_the_range_is_masqueraded() {
    let world = cluster(2, 1, &[]);
    let stranger = Stranger::join(&world, 100);
    let [one, two] = &world.pods[..] else {
        panic!("two pods")
    };
    let outside = udp(&stranger.netns, stranger.address);
    let sender = udp(&one.netns, v4(one));
    sender
        .send_to(b"out", outside.local_addr().unwrap())
        .unwrap();
    let from = source(&outside);
    assert_eq!(from, world.nodes[0].layout.address, "the node's address");

    let other = udp(&two.netns, v4(two));
    sender.send_to(b"in", other.local_addr().unwrap()).unwrap();
    assert_eq!(source(&other), v4(one), "the pod's own");
    // And answers come back in.
    assert!(pings(&one.netns, stranger.address, 56));
}

#[test]
fn the_node_and_its_pods_reach_each_other() {
    let world = cluster(2, 1, &[]);
    for (node, pod) in world.nodes.iter().zip(&world.pods) {
        assert!(pings(&node.netns, v4(pod), 56));
        assert!(pings(&pod.netns, node.layout.address, 56));
    }
    // A pod of another node, too, without losing its address on the way back.
    assert!(pings(&world.nodes[0].netns, v4(&world.pods[1]), 56));
    assert!(pings(
        &world.pods[1].netns,
        world.nodes[0].layout.address,
        56
    ));
}

#[test]
fn rules_that_somebody_flushed_come_back() {
    let world = cluster(1, 1, &[]);
    let stranger = Stranger::join(&world, 100);
    let (node, pod) = (&world.nodes[0], &world.pods[0]);
    let before = ruleset(&node.netns);
    assert!(before.contains("masquerade fully-random"), "{before}");
    nft(&node.netns, "flush ruleset");
    assert_eq!(ruleset(&node.netns), "");
    eventually("the rules are back", || ruleset(&node.netns) == before);
    assert!(pings(&pod.netns, stranger.address, 56));
}

/// With pods left the rules stay and judge them; with none they leave with the router.
#[test]
fn rules_leave_with_the_last_pod_and_the_router() {
    let mut world = cluster(1, 1, &[]);
    let has_rules = |world: &router::lab::world::World| {
        ruleset(&world.nodes[0].netns).contains("table inet weft")
    };
    assert!(has_rules(&world));
    world.end_router(0, Signal::SIGTERM).unwrap();
    assert!(has_rules(&world));
    world.start_router_again(0, &[]).unwrap();
    eventually("the router is back", || {
        world.nodes[0].status().is_ok_and(|s| s.ipam.ready)
    });
    let pod = PodNs::new();
    let call = Call {
        verb: "DEL",
        container_id: &world.pods[0].layout.container_id,
        config: serde_json::json!({
            "cniVersion": "1.0.0", "name": "weft", "type": "weft-cni",
            "socket": world.nodes[0].layout.socket,
        }),
    };
    pod.execute(&world.nodes[0].netns, &call).expect_ok();
    world.end_router(0, Signal::SIGTERM).unwrap();
    assert!(!has_rules(&world), "{}", ruleset(&world.nodes[0].netns));
}

/// `externalTrafficPolicy: Local`: kube-proxy sends the connection to a pod of this node and leaves
/// the source alone; so do we.
#[test]
fn a_local_node_port_keeps_the_clients_address() {
    let world = cluster(1, 1, &[]);
    let stranger = Stranger::join(&world, 100);
    let (node, pod) = (&world.nodes[0], &world.pods[0]);
    let rules = format!(
        "table ip kube-proxy {{
            chain services {{
                type nat hook prerouting priority -100
                tcp dport 30080 dnat to {}:80
            }}
        }}",
        v4(pod)
    );
    nft(&node.netns, &rules);
    let client = answered(&pod.netns, &stranger.netns, (node.layout.address, 30080));
    assert_eq!(client, stranger.address);
}

/// A pod that is chosen as the backend of its own Service.
#[test]
fn a_pod_reaches_itself_through_its_service() {
    let world = cluster(1, 1, &[]);
    let (node, pod) = (&world.nodes[0], &world.pods[0]);
    let address = v4(pod);
    let rules = format!(
        "table ip kube-proxy {{
            chain services {{
                type nat hook prerouting priority -100
                ip daddr 10.96.0.10 tcp dport 80 dnat to {address}:80
            }}
            chain hairpin {{
                type nat hook postrouting priority 100
                ip saddr {address} ip daddr {address} masquerade
            }}
        }}",
    );
    nft(&node.netns, &rules);
    let service = Ipv4Addr::new(10, 96, 0, 10);
    let client = answered(&pod.netns, &pod.netns, (service, 80));
    assert_eq!(Some(client.into()), pod.gateway, "through the node");
}

/// Serves one connection to port 80 of a pod; returns the client's address as the pod sees it.
fn answered(pod: &NetNs, client: &NetNs, target: (Ipv4Addr, u16)) -> Ipv4Addr {
    let listener = pod
        .run(|| TcpListener::bind("0.0.0.0:80"))
        .unwrap()
        .unwrap();
    let server = thread::spawn(move || {
        let (mut stream, client) = listener.accept().unwrap();
        stream.write_all(b"from the pod").unwrap();
        client
    });
    let connect = || TcpStream::connect_timeout(&SocketAddr::from(target), Duration::from_secs(5));
    let mut stream = client.run(connect).unwrap().expect("the pod is reached");
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from the pod");
    match server.join().unwrap() {
        SocketAddr::V4(client) => *client.ip(),
        SocketAddr::V6(client) => panic!("{client}"),
    }
}

fn udp(netns: &NetNs, address: Ipv4Addr) -> UdpSocket {
    let socket = netns
        .run(|| UdpSocket::bind((address, 0)))
        .unwrap()
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket
}

fn source(socket: &UdpSocket) -> Ipv4Addr {
    match socket.recv_from(&mut [0; 16]).unwrap().1 {
        SocketAddr::V4(from) => *from.ip(),
        SocketAddr::V6(from) => panic!("{from}"),
    }
}

fn nft(netns: &NetNs, rules: &str) {
    let run = || Command::new("nft").arg(rules).output().unwrap();
    let output = netns.run(run).unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn ruleset(netns: &NetNs) -> String {
    let run = || {
        Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap()
    };
    let output = netns.run(run).unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
