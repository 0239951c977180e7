//! Every verb in every version of the specification, field by field, in real namespaces.

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use common::{BRIDGE, GATEWAY, Namespace, Node, VERSIONS, finish};
use control::AttachmentRef;
use hostnet::{LinkKind, PacketSocket};
use serde_json::{Value, json};
use wire::Mac;

#[test]
fn version_lists_what_is_supported() {
    let node = Node::new();
    for version in VERSIONS {
        let stdin = json!({"cniVersion": version}).to_string();
        let answer = node.call("VERSION").run_with(stdin.as_bytes()).result();
        assert_eq!(
            answer,
            json!({"cniVersion": version, "supportedVersions": VERSIONS})
        );
    }
    let answer = node.call("VERSION").run_with(b"").result();
    assert_eq!(
        answer,
        json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS})
    );
    node.call("VERSION")
        .run_with(b"{")
        .assert_error(6, "standard input");
    node.call("VERSION")
        .run_with(br#"{"cniVersion": 1}"#)
        .assert_error(6, "cniVersion");
}

#[test]
fn add_answers_field_by_field_in_every_version() {
    for version in VERSIONS {
        let node = Node::new();
        let pod = Namespace::new();
        let result = node
            .pod_call("ADD", "c1", &pod)
            .version(version)
            .run()
            .result();

        let veth = node.veth_of("c1").unwrap();
        let eth0 = pod.link("eth0").unwrap();
        let mut host = json!({"name": veth.name, "mac": veth.mac});
        let mut inside = json!({"name": "eth0", "mac": eth0.mac, "sandbox": pod.path()});
        let mut ip = json!({"address": "10.32.0.7/12", "gateway": GATEWAY, "interface": 1});
        if version == "1.1.0" {
            host["mtu"] = json!(1450);
            inside["mtu"] = json!(1450);
        }
        if ["0.3.1", "0.4.0"].contains(&version) {
            ip["version"] = json!("4");
        }
        let expected = json!({
            "cniVersion": version,
            "interfaces": [host, inside],
            "ips": [ip],
            "routes": [{"dst": "0.0.0.0/0", "gw": GATEWAY}],
            "dns": {},
        });
        assert_eq!(result, expected);
    }
}

#[test]
fn add_makes_one_flat_layer_2() {
    let node = Node::new();
    let pod = Namespace::new();
    node.add("c1", &pod);

    let bridge = node.host.link(BRIDGE).unwrap();
    let veth = node.veth_of("c1").unwrap();
    assert_eq!(
        (veth.kind, veth.master, veth.up),
        (Some(LinkKind::Veth), Some(bridge.index), true)
    );
    assert_eq!(
        (veth.mtu, veth.alias.as_deref()),
        (1450, Some("weft:c1/eth0"))
    );
    let eth0 = pod.link("eth0").unwrap();
    assert_eq!((eth0.mtu, eth0.up, eth0.running), (1450, true, true));
    assert_eq!(veth.peer_index, Some(eth0.index));
    assert!(
        pod.addresses(&eth0)
            .contains(&"10.32.0.7/12".parse().unwrap())
    );

    let routes = pod.netlink().routes(Some(eth0.index)).unwrap();
    let default = routes
        .iter()
        .find(|route| route.dst.prefix_len() == 0)
        .unwrap();
    assert_eq!(default.gateway, Some(GATEWAY.parse().unwrap()));
    // The range is on the link: a pod of another node is asked for directly.
    let choice = pod
        .netlink()
        .route_to("10.44.1.2".parse().unwrap())
        .unwrap()
        .unwrap();
    assert_eq!((choice.oif, choice.gateway), (eth0.index, None));
}

/// The address's broadcast is set: a datagram to it is taken by every pod.
#[test]
fn pods_reach_each_other_and_the_broadcast_address() {
    let node = Node::new();
    let (one, two) = (Namespace::new(), Namespace::new());
    node.add("c1", &one);
    node.add("c2", &two);
    let bind = |pod: &Namespace| {
        pod.ns
            .run(|| UdpSocket::bind("0.0.0.0:9000").unwrap())
            .unwrap()
    };
    let (a, b) = (bind(&one), bind(&two));
    b.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    a.set_broadcast(true).unwrap();
    let mut buffer = [0; 16];
    for destination in ["10.32.0.8:9000", "10.47.255.255:9000"] {
        a.send_to(b"hello", destination).unwrap();
        let (length, from) = b.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..length], from.to_string().as_str()),
            (&b"hello"[..], "10.32.0.7:9000")
        );
    }
    // And the neighbour is the other pod itself, not something in between.
    let eth0 = one.link("eth0").unwrap();
    let neighbours = one.netlink().neighbours(eth0.index).unwrap();
    let other: IpAddr = "10.32.0.8".parse().unwrap();
    let found = neighbours
        .iter()
        .find(|neighbour| neighbour.address == other)
        .unwrap();
    assert_eq!(found.mac, two.link("eth0").unwrap().mac);
}

#[test]
fn add_announces_its_addresses_to_everybody_on_the_bridge() {
    let node = Node::new();
    let (listener, pod) = (Namespace::new(), Namespace::new());
    node.add("c1", &listener);
    let index = listener.link("eth0").unwrap().index;
    let mut socket = listener
        .ns
        .run(|| PacketSocket::bind(index).unwrap())
        .unwrap();
    node.router
        .answer_with("addresses", json!(["10.32.0.8/12", "fd00:77::8/64"]));
    node.add("c2", &pod);
    let mac = pod.link("eth0").unwrap().mac;
    let arp = wire::arp::announcement(mac, "10.32.0.8".parse().unwrap()).to_vec();
    let na = wire::ndp::unsolicited_na(mac, "fd00:77::8".parse().unwrap()).to_vec();
    let mut missing = vec![arp, na];
    while !missing.is_empty() {
        let packet = socket.recv(Duration::from_secs(2)).unwrap();
        // The kernel sends more of its own when an interface comes up.
        let packet = packet.expect("the announcement reaches the other pod");
        missing.retain(|frame| packet.outgoing || !packet.bytes.starts_with(frame));
    }
}

/// A frame for everybody comes back to its sender where the port is in hairpin mode.
#[test]
fn hairpin_mode_is_on_unless_switched_off() {
    for (setting, expected) in [(None, true), (Some(true), true), (Some(false), false)] {
        let node = Node::new();
        let pod = Namespace::new();
        let mut call = node.pod_call("ADD", "c1", &pod);
        if let Some(setting) = setting {
            call = call.with("hairpinMode", json!(setting));
        }
        call.run().result();
        let index = pod.link("eth0").unwrap().index;
        let mut socket = pod.ns.run(|| PacketSocket::bind(index).unwrap()).unwrap();
        let frame = wire::arp::announcement(Mac::local([1; 6]), "10.32.9.9".parse().unwrap());
        socket.send(&frame).unwrap();
        let mut returned = false;
        while let Some(packet) = socket.recv(Duration::from_millis(300)).unwrap() {
            returned |= !packet.outgoing && packet.bytes.starts_with(&frame);
        }
        assert_eq!(returned, expected, "hairpinMode {setting:?}");
    }
}

#[test]
fn add_tells_the_router_who_the_pod_is() {
    let node = Node::new();
    let pod = Namespace::new();
    let args = "K8S_POD_UID=8e1c;K8S_POD_NAME=nginx-0;X=y;K8S_POD_NAMESPACE=web;IgnoreUnknown=1";
    let outcome = node.pod_call("ADD", "c1", &pod).env("CNI_ARGS", args).run();
    outcome.result();
    let request = node.router.requests("/v1/attach").remove(0);
    let expected = json!({
        "container_id": "c1", "ifname": "eth0", "netns": pod.path(), "network": "pods",
        "pod": {"namespace": "web", "name": "nginx-0", "uid": "8e1c"},
        "mac": pod.link("eth0").unwrap().mac,
    });
    assert_eq!(request, expected);
    let line = outcome.stderr;
    for part in [
        "ADD pod web/nginx-0 container c1 eth0",
        "10.32.0.7/12 on weft",
        " ms",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn add_does_what_the_configuration_says() {
    let node = Node::new();
    let pod = Namespace::new();
    let result = node
        .pod_call("ADD", "c1", &pod)
        .with("mtu", json!(1376))
        .with("bridge", json!(BRIDGE))
        .with("ipam", json!({}))
        .with(
            "dns",
            json!({"nameservers": ["10.96.0.10"], "search": ["svc.local"]}),
        )
        .with(
            "routes",
            json!([{"dst": "10.96.0.0/12"}, {"dst": "198.51.100.0/24", "gw": "10.32.0.9"}]),
        )
        .with(
            "runtimeConfig",
            json!({"ips": ["10.33.0.5/12"], "mac": "02:00:00:00:00:55"}),
        )
        .run()
        .result();
    let eth0 = pod.link("eth0").unwrap();
    assert_eq!((eth0.mtu, eth0.mac), (1376, Mac([2, 0, 0, 0, 0, 0x55])));
    assert_eq!(node.veth_of("c1").unwrap().mtu, 1376);
    assert!(
        pod.addresses(&eth0)
            .contains(&"10.33.0.5/12".parse().unwrap())
    );
    assert_eq!(result["interfaces"][1]["mtu"], 1376);
    assert_eq!(
        result["dns"],
        json!({"nameservers": ["10.96.0.10"], "search": ["svc.local"]})
    );
    let expected = json!([
        {"dst": "10.96.0.0/12", "gw": GATEWAY}, {"dst": "198.51.100.0/24", "gw": "10.32.0.9"},
    ]);
    assert_eq!(result["routes"], expected);
    let routes = pod.netlink().routes(Some(eth0.index)).unwrap();
    let via: BTreeSet<_> = routes
        .iter()
        .filter_map(|r| Some((r.dst.to_string(), r.gateway?)))
        .collect();
    let expected = [("10.96.0.0/12", GATEWAY), ("198.51.100.0/24", "10.32.0.9")]
        .map(|(dst, gw)| (dst.to_owned(), gw.parse().unwrap()));
    assert_eq!(via, BTreeSet::from(expected), "and no default route");
}

#[test]
fn add_carries_ipv6_beside_ipv4() {
    let node = Node::new();
    let pod = Namespace::new();
    node.router
        .answer_with("addresses", json!(["10.32.0.7/12", "fd00:77::7/64"]));
    node.router
        .answer_with("gateways", json!([GATEWAY, "fd00:77::1"]));
    let result = node
        .pod_call("ADD", "c1", &pod)
        .version("0.4.0")
        .run()
        .result();
    assert_eq!(
        result["ips"][1],
        json!({"address": "fd00:77::7/64", "gateway": "fd00:77::1", "interface": 1, "version": "6"})
    );
    assert_eq!(
        result["routes"][1],
        json!({"dst": "::/0", "gw": "fd00:77::1"})
    );
    let eth0 = pod.link("eth0").unwrap();
    assert!(
        pod.addresses(&eth0)
            .contains(&"fd00:77::7/64".parse().unwrap())
    );
    let routes = pod.netlink().routes(Some(eth0.index)).unwrap();
    let gateways: Vec<_> = routes.iter().filter_map(|route| route.gateway).collect();
    assert!(
        gateways.contains(&"fd00:77::1".parse().unwrap()),
        "{gateways:?}"
    );
    check(&node, &pod, &result, "0.4.0").assert_silent_success();
}

#[test]
fn a_second_network_leaves_the_first_ones_default_route() {
    let node = Node::new();
    let pod = Namespace::new();
    let first = node.add("c1", &pod);
    let second = node
        .pod_call("ADD", "c1", &pod)
        .env("CNI_IFNAME", "net1")
        .with("prevResult", first.clone())
        .run()
        .result();
    // What the earlier plugin made is handed on, and ours comes behind it.
    assert_eq!(second["interfaces"][0], first["interfaces"][0]);
    assert_eq!(second["interfaces"][3]["name"], "net1");
    assert_eq!(second["ips"][1]["interface"], 3);
    assert_eq!(second["ips"][1]["address"], "10.32.0.8/12");
    assert_eq!(second["routes"], first["routes"]);
    check(&node, &pod, &second, "1.1.0").assert_silent_success();
    node.pod_call("DEL", "c1", &pod)
        .env("CNI_IFNAME", "net1")
        .run()
        .assert_silent_success();
    assert_eq!(pod.links(), ["eth0"]);
    node.pod_call("DEL", "c1", &pod)
        .run()
        .assert_silent_success();
    node.assert_nothing_left(&pod);
}

fn check(node: &Node, pod: &Namespace, result: &Value, version: &str) -> common::Outcome {
    node.pod_call("CHECK", "c1", pod)
        .version(version)
        .with("prevResult", result.clone())
        .run()
}

#[test]
fn check_agrees_right_after_add() {
    for version in VERSIONS {
        let node = Node::new();
        let pod = Namespace::new();
        let result = node
            .pod_call("ADD", "c1", &pod)
            .version(version)
            .run()
            .result();
        match version {
            "0.3.1" => check(&node, &pod, &result, version).assert_error(1, "CHECK"),
            _ => check(&node, &pod, &result, version).assert_silent_success(),
        }
    }
}

#[test]
fn check_names_what_is_missing() {
    type Harm = fn(&Node, &Namespace);
    let harms: [(&str, Harm); 9] = [
        ("does not have 10.32.0.7/12", |_, pod| {
            let eth0 = pod.link("eth0").unwrap();
            pod.netlink()
                .del_address(eth0.index, "10.32.0.7/12".parse().unwrap())
                .unwrap();
        }),
        ("no route to 0.0.0.0/0 via 10.32.0.1", |_, pod| {
            let eth0 = pod.link("eth0").unwrap();
            let route = hostnet::Route::default_via(GATEWAY.parse().unwrap(), eth0.index);
            pod.netlink().del_route(&route).unwrap();
        }),
        ("eth0 in the pod is down", |_, pod| {
            let eth0 = pod.link("eth0").unwrap();
            pod.netlink().set_down(eth0.index).unwrap();
        }),
        ("has an MTU of 1400, not 1450", |_, pod| {
            let eth0 = pod.link("eth0").unwrap();
            pod.netlink().set_mtu(eth0.index, 1400).unwrap();
        }),
        ("has the MAC 02:00:00:00:00:01, not", |_, pod| {
            let eth0 = pod.link("eth0").unwrap();
            pod.netlink()
                .set_mac(eth0.index, Mac([2, 0, 0, 0, 0, 1]))
                .unwrap();
        }),
        ("is not on the bridge weft", |node, _| {
            let veth = node.veth_of("c1").unwrap();
            node.host.netlink().set_master(veth.index, None).unwrap();
        }),
        ("is down", |node, _| {
            let veth = node.veth_of("c1").unwrap();
            node.host.netlink().set_down(veth.index).unwrap();
        }),
        ("eth0 is not in the pod", |node, _| {
            let veth = node.veth_of("c1").unwrap();
            node.host.netlink().delete_link(veth.index).unwrap();
        }),
        ("does not know c1/eth0", |node, _| {
            node.router.forget(&AttachmentRef::new("c1", "eth0"));
        }),
    ];
    for (text, harm) in harms {
        let node = Node::new();
        let pod = Namespace::new();
        let result = node.add("c1", &pod);
        check(&node, &pod, &result, "1.1.0").assert_silent_success();
        harm(&node, &pod);
        check(&node, &pod, &result, "1.1.0").assert_error(101, text);
    }
}

#[test]
fn check_needs_the_result_of_the_add() {
    let node = Node::new();
    let pod = Namespace::new();
    let result = node.add("c1", &pod);
    node.pod_call("CHECK", "c1", &pod)
        .run()
        .assert_error(7, "prevResult");
    let mut other = result.clone();
    other["interfaces"][1]["name"] = json!("eth1");
    check(&node, &pod, &other, "1.1.0").assert_error(7, "does not list eth0");
    let mut other = result.clone();
    other["ips"] = json!([]);
    check(&node, &pod, &other, "1.1.0").assert_error(101, "the router gave 10.32.0.7/12");
    node.router.stop();
    check(&node, &pod, &result, "1.1.0").assert_error(11, "is `weft run` running?");
}

#[test]
fn del_takes_everything_away_in_every_version() {
    for version in VERSIONS {
        let node = Node::new();
        let pod = Namespace::new();
        let result = node
            .pod_call("ADD", "c1", &pod)
            .version(version)
            .run()
            .result();
        let del = node
            .pod_call("DEL", "c1", &pod)
            .version(version)
            .with("prevResult", result);
        let outcome = del.run();
        outcome.assert_silent_success();
        assert!(
            outcome.stderr.contains("10.32.0.7/12 released"),
            "{outcome:?}"
        );
        node.assert_nothing_left(&pod);
        // Again, and without what only ADD needs.
        del.run().assert_silent_success();
        node.pod_call("DEL", "c1", &pod)
            .without("CNI_NETNS")
            .run()
            .assert_silent_success();
        node.assert_nothing_left(&pod);
    }
}

#[test]
fn status_says_whether_a_pod_can_be_added() {
    let node = Node::new();
    node.call("STATUS").run().assert_silent_success();
    node.call("STATUS")
        .version("1.0.0")
        .run()
        .assert_error(1, "STATUS");
    node.router.set_ipam_ready(false);
    node.call("STATUS")
        .run()
        .assert_error(50, "waiting for the seed peers a and b");
    node.router.stop();
    node.call("STATUS")
        .run()
        .assert_error(51, "is `weft run` running?");
}

#[test]
fn gc_keeps_what_is_listed_and_removes_the_rest() {
    let node = Node::new();
    let pods: Vec<_> = (0..3).map(|_| Namespace::new()).collect();
    for (number, pod) in pods.iter().enumerate() {
        node.add(&format!("c{number}"), pod);
    }
    let keep = json!([{"containerID": "c1", "ifname": "eth0"}]);
    let gc = node
        .call("GC")
        .with("cni.dev/valid-attachments", keep.clone());
    gc.run().assert_silent_success();
    assert_eq!(node.router.held(), [AttachmentRef::new("c1", "eth0")]);
    assert_eq!(node.router.requests("/v1/gc")[0]["network"], "pods");
    let left: Vec<_> = (0..3)
        .map(|n| node.veth_of(&format!("c{n}")).is_some())
        .collect();
    assert_eq!(left, [false, true, false]);
    gc.run().assert_silent_success();

    // No list is not an empty list.
    node.call("GC")
        .run()
        .assert_error(7, "cni.dev/valid-attachments");
    assert_eq!(node.router.held().len(), 1);
    gc.version("1.0.0").run().assert_error(1, "GC");
    node.call("GC")
        .with("cni.dev/valid-attachments", json!([]))
        .run()
        .assert_silent_success();
    assert_eq!(node.host.links(), [BRIDGE]);
    node.router.stop();
    let gc = node.call("GC").with("cni.dev/valid-attachments", keep);
    gc.run().assert_error(11, "is `weft run` running?");
}

#[test]
fn twenty_pods_at_once() {
    let node = Node::new();
    let pods: Vec<_> = (0..20).map(|_| Namespace::new()).collect();
    let id = |number: usize| format!("container-{number}");
    let start = |verb: &'static str| -> Vec<_> {
        let calls = pods.iter().enumerate();
        calls
            .map(|(number, pod)| node.pod_call(verb, &id(number), pod).start())
            .collect()
    };
    let results: Vec<_> = start("ADD")
        .into_iter()
        .map(|child| finish(child).result())
        .collect();
    let addresses: BTreeSet<_> = results
        .iter()
        .map(|result| result["ips"][0]["address"].to_string())
        .collect();
    assert_eq!(addresses.len(), 20);
    assert_eq!(node.host.links().len(), 21);
    for (pod, result) in pods.iter().zip(&results) {
        let eth0 = pod.link("eth0").unwrap();
        let address = result["ips"][0]["address"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(eth0.running && pod.addresses(&eth0).contains(&address));
    }
    for child in start("DEL") {
        finish(child).assert_silent_success();
    }
    for pod in &pods {
        node.assert_nothing_left(pod);
    }
}

#[test]
fn people_are_told_what_this_is() {
    let run = |argument: &str| {
        let program = env!("CARGO_BIN_EXE_weft-cni");
        let output = std::process::Command::new(program)
            .arg(argument)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run("--version").contains("CNI 0.3.1, 0.4.0, 1.0.0, 1.1.0"));
    assert!(run("--help").contains("/opt/cni/bin/weft-cni"));
    let node = Node::new();
    node.call("")
        .without("CNI_COMMAND")
        .run()
        .assert_error(4, "CNI_COMMAND is not set");
}
