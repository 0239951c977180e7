//! The plugin against a real router: every verb in every version of the specification, many pods at
//! once, and other IPAM plugins on either side.

use std::collections::BTreeSet;
use std::thread;

use hostnet::netlink::Netlink;
use ipnet::IpNet;
use router::lab::world::{Node, World};
use serde_json::{Value, json};

use crate::cluster::{cluster, eventually, pings, v4};
use crate::runtime::{Call, PodNs};

const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// As many as kubelet runs on one node unless it is told otherwise (`maxPods`).
const PODS: usize = 110;

/// The golden sequence: what a runtime does with a pod, field by field.
#[test]
fn every_verb_in_every_version() {
    let world = cluster(1, 1, &["--ipam-hold-down", "1s"]);
    let node = &world.nodes[0];
    for version in VERSIONS {
        let pod = PodNs::new();
        let plain = configuration(node, version);
        let run = |verb, config: Value| {
            let container_id = &pod.name;
            pod.execute(
                &node.netns,
                &Call {
                    verb,
                    container_id,
                    config,
                },
            )
        };
        let supported = run("VERSION", plain.clone()).expect_json();
        assert_eq!(
            supported,
            json!({"cniVersion": version, "supportedVersions": VERSIONS})
        );
        match version {
            "1.1.0" => run("STATUS", plain.clone()).expect_ok(),
            _ => run("STATUS", plain.clone()).expect_error(1, "STATUS"),
        }

        let result = run("ADD", plain.clone()).expect_json();
        assert_eq!(result, expected(node, &pod, version, &result));
        let gateway: std::net::IpAddr = result["ips"][0]["gateway"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(world.pods[0].gateway, Some(gateway));
        assert!(pings(&pod.netns, v4(&world.pods[0]), 56));

        let mut with_prev = plain.clone();
        with_prev["prevResult"] = result.clone();
        match version {
            "0.3.1" => run("CHECK", with_prev.clone()).expect_error(1, "CHECK"),
            _ => run("CHECK", with_prev.clone()).expect_ok(),
        }
        if version == "1.1.0" {
            // It names nobody of this network, so this pod goes.
            let mut gc = plain.clone();
            gc["cni.dev/valid-attachments"] = json!([
                {"containerID": world.pods[0].layout.container_id, "ifname": "eth0"},
            ]);
            run("GC", gc).expect_ok();
            run("CHECK", with_prev.clone()).expect_error(101, "does not know");
        }
        run("DEL", with_prev).expect_ok();
        run("DEL", plain).expect_ok();
        assert_only_the_worlds_own(&world);
    }
}

/// Parallel processes, and no lock among them.
#[test]
fn as_many_pods_as_a_node_has_at_once() {
    let world = cluster(1, 1, &["--ipam-hold-down", "1s"]);
    let node = &world.nodes[0];
    let pods: Vec<_> = (0..PODS).map(|_| PodNs::new()).collect();
    let all = |verb: &'static str| -> Vec<_> {
        thread::scope(|scope| {
            let calls: Vec<_> = pods
                .iter()
                .map(|pod| scope.spawn(move || run(node, pod, verb)))
                .collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        })
    };
    let addresses: BTreeSet<_> = all("ADD")
        .iter()
        .map(|added| added.expect_json()["ips"][0]["address"].to_string())
        .collect();
    assert_eq!(addresses.len(), PODS, "I1");
    for pod in pods.iter().step_by(10) {
        assert!(pings(&pod.netns, v4(&world.pods[0]), 56));
    }
    for deleted in all("DEL") {
        deleted.expect_ok();
    }
    assert_only_the_worlds_own(&world);
}

/// `host-local` gives the addresses: the router knows of them all the same.
#[test]
fn another_ipam_plugin_under_this_one() {
    let world = cluster(1, 1, &[]);
    let node = &world.nodes[0];
    let pod = PodNs::new();
    let books = tempfile::tempdir().unwrap();
    let config = json!({
        "type": "weft-cni", "socket": node.layout.socket,
        "ipam": {
            "type": "host-local", "dataDir": books.path(),
            "ranges": [[{"subnet": "10.9.0.0/24", "gateway": "10.9.0.1"}]],
            "routes": [{"dst": "10.96.0.0/12"}],
        },
    });
    let result = pod.call(&node.netns, "ADD", &config, None).expect_json();
    assert_eq!(result["ips"][0]["address"], "10.9.0.2/24");
    assert_eq!(result["ips"][0]["gateway"], "10.9.0.1");
    assert_eq!(
        result["routes"],
        json!([{"dst": "10.96.0.0/12", "gw": "10.9.0.1"}])
    );
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    let mut inside = Netlink::open_in(&pod.netns).unwrap();
    let eth0 = inside.link("eth0").unwrap().unwrap();
    let has = inside.addresses(eth0.index).unwrap();
    assert!(
        has.contains(&"10.9.0.2/24".parse::<IpNet>().unwrap()),
        "{has:?}"
    );
    assert_eq!(held(&world), [world_pod(&world)], "weft gave nothing");

    pod.call(&node.netns, "CHECK", &config, Some(&result))
        .expect_ok();
    // Not ours to give back, ours to forget; and the giver has it back.
    pod.call(&node.netns, "DEL", &config, Some(&result))
        .expect_ok();
    pod.call(&node.netns, "CHECK", &config, Some(&result))
        .expect_error(101, "does not know");
    assert!(!books.path().join("weft/10.9.0.2").exists());
    assert_only_the_worlds_own(&world);

    // A refusal of the other plugin comes through, and nothing stays.
    let mut full = config;
    full["ipam"]["ranges"][0][0]["subnet"] = json!("nonsense");
    let refused = pod.call(&node.netns, "ADD", &full, None);
    assert!(refused.code().is_some(), "{}", refused.words());
    assert!(
        refused.words().contains("host-local"),
        "{}",
        refused.words()
    );
    assert_only_the_worlds_own(&world);
}

/// `bridge` makes the interface and asks `weft-cni` for the address.
#[test]
fn this_ipam_plugin_under_another_one() {
    let world = cluster(1, 1, &["--ipam-hold-down", "1s"]);
    let node = &world.nodes[0];
    let pod = PodNs::new();
    let config = json!({
        "type": "bridge", "bridge": "cni9", "isGateway": false, "mtu": 1400,
        "ipam": {
            "type": "weft-cni", "socket": node.layout.socket, "subnet": "10.32.0.0/16",
            "gateway": "10.32.0.77", "routes": [{"dst": "10.96.0.0/12"}],
        },
    });
    let result = pod.call(&node.netns, "ADD", &config, None).expect_json();
    let address = result["ips"][0]["address"].as_str().unwrap();
    assert!(address.ends_with("/12"), "{address}");
    assert_eq!(result["ips"][0]["gateway"], "10.32.0.77");
    assert_eq!(
        result["routes"],
        json!([{"dst": "10.96.0.0/12", "gw": "10.32.0.77"}])
    );
    assert!(held(&world).contains(&pod.name));
    pod.call(&node.netns, "CHECK", &config, Some(&result))
        .expect_ok();
    pod.call(&node.netns, "DEL", &config, Some(&result))
        .expect_ok();
    assert_eq!(held(&world), [world_pod(&world)]);
}

fn configuration(node: &Node, version: &str) -> Value {
    json!({
        "cniVersion": version, "name": "golden", "type": "weft-cni", "socket": node.layout.socket,
    })
}

fn run(node: &Node, pod: &PodNs, verb: &str) -> crate::runtime::Outcome {
    let call = Call {
        verb,
        container_id: &pod.name,
        config: configuration(node, "1.1.0"),
    };
    pod.execute(&node.netns, &call)
}

/// The result that the kernel's state makes one expect.
fn expected(node: &Node, pod: &PodNs, version: &str, result: &Value) -> Value {
    let name = result["interfaces"][0]["name"].as_str().unwrap();
    let mut host = Netlink::open_in(&node.netns).unwrap();
    let veth = host.link(name).unwrap().unwrap();
    let mut inside = Netlink::open_in(&pod.netns).unwrap();
    let eth0 = inside.link("eth0").unwrap().unwrap();
    let is_v4 = |address: &IpNet| matches!(address, IpNet::V4(_));
    let addresses = inside.addresses(eth0.index).unwrap();
    let address = addresses.into_iter().find(is_v4).unwrap();
    let bridge = host.link("weft").unwrap().unwrap().index;
    let gateways = host.addresses(bridge).unwrap();
    let gateway = gateways.into_iter().find(is_v4).unwrap().addr();

    let mut outside = json!({"name": veth.name, "mac": veth.mac});
    let path = hostnet::netns::NetNs::path(&pod.name);
    let mut sandbox = json!({"name": "eth0", "mac": eth0.mac, "sandbox": path});
    let mut ip = json!({"address": address, "gateway": gateway, "interface": 1});
    if version == "1.1.0" {
        outside["mtu"] = json!(veth.mtu);
        sandbox["mtu"] = json!(eth0.mtu);
    }
    if ["0.3.1", "0.4.0"].contains(&version) {
        ip["version"] = json!("4");
    }
    json!({
        "cniVersion": version, "interfaces": [outside, sandbox], "ips": [ip],
        "routes": [{"dst": "0.0.0.0/0", "gw": gateway}], "dns": {},
    })
}

/// The containers that hold an address of weft's.
pub(crate) fn held(world: &World) -> Vec<String> {
    let status = world.nodes[0].status().unwrap();
    let containers = status.ipam.allocations.into_iter().map(|a| a.container_id);
    containers.filter(|id| !id.contains(':')).collect()
}

pub(crate) fn world_pod(world: &World) -> String {
    world.pods[0].layout.container_id.clone()
}

/// What must be left when all pods of a test are gone: the one that the world came with.
pub(crate) fn assert_only_the_worlds_own(world: &World) {
    eventually("the address is back", || held(world) == [world_pod(world)]);
    let mut netlink = Netlink::open_in(&world.nodes[0].netns).unwrap();
    let links = netlink.links().unwrap().into_iter();
    let veths: Vec<_> = links.filter(|link| link.name.starts_with("vw")).collect();
    assert_eq!(veths.len(), 1, "{veths:?}");
}
