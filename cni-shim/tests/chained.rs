//! `portmap` and `bandwidth` of Debian's `containernetworking-plugins` chained behind `weft-cni`:
//! they have to find what they need in its result, and it has to agree with theirs.
//!
//! The plugins are looked for in `/usr/lib/cni`, or where `CNI_PATH` says. They speak up to 1.0.0.

mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{BRIDGE, Namespace, Node};
use serde_json::{Value, json};

#[test]
fn portmap_and_bandwidth_work_on_the_result() {
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let node = Node::new();
        let pod = Namespace::new();
        let ours = |verb, prev: &Value| {
            let call = node.pod_call(verb, "c1", &pod).version(version);
            call.with("prevResult", prev.clone()).run()
        };
        let bandwidth = |verb, prev: &Value| {
            let limit = json!({
                "ingressRate": 1_000_000, "ingressBurst": 100_000,
                "egressRate": 1_000_000, "egressBurst": 100_000,
            });
            let capabilities = json!({ "bandwidth": limit });
            foreign(&node, &pod, verb, "bandwidth", version, &capabilities, prev)
        };
        let portmap = |verb, prev: &Value| {
            let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
            let capabilities = json!({ "portMappings": ports });
            foreign(&node, &pod, verb, "portmap", version, &capabilities, prev)
        };
        let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();

        let result = node
            .pod_call("ADD", "c1", &pod)
            .version(version)
            .run()
            .result();
        let limited = parse(bandwidth("ADD", &result));
        // It shapes on an interface of its own, which it made because it found the veth.
        assert_eq!(limited["interfaces"].as_array().unwrap().len(), 3);
        let last = parse(portmap("ADD", &limited));
        assert_eq!(last["ips"], result["ips"]);
        if version != "0.3.1" {
            ours("CHECK", &last).assert_silent_success();
            assert_eq!(bandwidth("CHECK", &last), "");
            // Not portmap: 1.1.1 looks for IPv6 rules of a pod that has no IPv6 address.
        }
        portmap("DEL", &last);
        bandwidth("DEL", &last);
        ours("DEL", &last).assert_silent_success();
        assert_eq!(node.host.links(), [BRIDGE]);
        node.assert_nothing_left(&pod);
    }
}

/// Runs another plugin as the runtime does, and returns what it answers.
fn foreign(
    node: &Node,
    pod: &Namespace,
    verb: &str,
    name: &str,
    version: &str,
    capabilities: &Value,
    prev: &Value,
) -> String {
    let dir = std::env::var_os("CNI_PATH").map_or("/usr/lib/cni".into(), PathBuf::from);
    let config = json!({
        "cniVersion": version, "name": "pods", "type": name, "snat": true,
        "runtimeConfig": capabilities, "prevResult": prev,
    });
    let spawn = || {
        Command::new(dir.join(name))
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", pod.path())
            .env("CNI_PATH", &dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("install Debian's containernetworking-plugins, or say in CNI_PATH where it is")
    };
    let mut child = node
        .host
        .ns
        .run(spawn)
        .expect("the node's namespace is there");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin
        .write_all(config.to_string().as_bytes())
        .expect("the plugin reads");
    drop(stdin);
    let output = child.wait_with_output().expect("the plugin ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name} {verb}: {text}");
    text
}
