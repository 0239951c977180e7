//! Other people's plugins behind `weft-cni` in one list: what it prints is what they need.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::cluster::{Stranger, cluster, pings};
use crate::runtime::PodNs;

/// A connection to a port of the node ends up in the pod; a rate is set on the pod's host veth.
#[test]
fn portmap_and_bandwidth_follow_in_the_list() {
    let world = cluster(1, 1, &[]);
    let stranger = Stranger::join(&world, 100);
    let node = &world.nodes[0];
    // As on every node of Kubernetes: portmap sends the connection through the forwarding path.
    node.netns
        .run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .unwrap()
        .unwrap();
    let pod = PodNs::new();
    let list = [
        json!({ "type": "weft-cni", "socket": node.layout.socket }),
        json!({ "type": "portmap", "capabilities": { "portMappings": true }, "runtimeConfig": {
            "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] } }),
        json!({ "type": "bandwidth", "ingressRate": 100_000_000, "ingressBurst": 10_000_000,
            "egressRate": 100_000_000, "egressBurst": 10_000_000 }),
    ];
    let mut previous = None;
    for config in &list {
        let added = pod.call(&node.netns, "ADD", config, previous.as_ref());
        previous = Some(added.expect_json());
    }
    let result = previous.unwrap();
    assert_eq!(
        result["interfaces"].as_array().unwrap().len(),
        3,
        "{result}"
    );

    let listener = pod
        .netns
        .run(|| TcpListener::bind("0.0.0.0:80"))
        .unwrap()
        .unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, client) = listener.accept().unwrap();
        stream.write_all(b"from the pod").unwrap();
        client
    });
    let target = SocketAddr::from((node.layout.address, 8080));
    let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(5));
    let mut stream = stranger
        .netns
        .run(connect)
        .unwrap()
        .expect("the port is mapped");
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from the pod");
    assert_eq!(server.join().unwrap().ip(), stranger.address);

    for config in list.iter().rev() {
        pod.call(&node.netns, "DEL", config, Some(&result))
            .expect_ok();
    }
    let address = result["ips"][0]["address"].as_str().unwrap();
    let address = address.split('/').next().unwrap().parse().unwrap();
    assert!(!pings(&world.pods[0].netns, address, 56));
}
