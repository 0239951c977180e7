//! Other people's plugins behind `weft-cni` in one list: what it prints is what they need.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hostnet::netns::NetNs;
use serde_json::{Value, json};

use crate::cluster::{Stranger, WEFT, cluster, pings, unique};

/// Where Debian's `containernetworking-plugins` lie.
const PLUGINS: &str = "/usr/lib/cni";

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
        previous = Some(pod.call(&node.netns, "ADD", config, previous.as_ref()));
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
        pod.call(&node.netns, "DEL", config, Some(&result));
    }
    let address = result["ips"][0]["address"].as_str().unwrap();
    let address = address.split('/').next().unwrap().parse().unwrap();
    assert!(!pings(&world.pods[0].netns, address, 56));
}

/// A namespace for a container.
struct PodNs {
    name: String,
    netns: NetNs,
}

impl PodNs {
    fn new() -> Self {
        let name = unique("wp");
        Self {
            netns: NetNs::create(&name).unwrap(),
            name,
        }
    }

    /// Executes a plugin in the node's namespace as a runtime does.
    fn call(&self, node: &NetNs, verb: &str, config: &Value, prev: Option<&Value>) -> Value {
        let mut config = config.clone();
        let kind = config["type"].as_str().unwrap().to_owned();
        config["cniVersion"] = json!("1.0.0");
        config["name"] = json!("weft");
        if let Some(prev) = prev {
            config["prevResult"] = prev.clone();
        }
        let own = kind == "weft-cni";
        let program = if own {
            WEFT.into()
        } else {
            Path::new(PLUGINS).join(&kind)
        };
        let mut command = Command::new(&program);
        command
            .arg0(&kind)
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &self.name)
            .env("CNI_NETNS", NetNs::path(&self.name))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", PLUGINS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = node.run(|| command.spawn()).unwrap();
        let mut child = child.unwrap_or_else(|error| {
            panic!(
                "{}: {error}; .ci/test installs containernetworking-plugins",
                program.display()
            )
        });
        child
            .stdin
            .take()
            .unwrap()
            .write_all(config.to_string().as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let words = [&output.stdout[..], &output.stderr].concat();
        assert!(
            output.status.success(),
            "{kind} {verb}: {}",
            String::from_utf8_lossy(&words)
        );
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }
}

impl Drop for PodNs {
    fn drop(&mut self) {
        NetNs::remove(&self.name).unwrap();
    }
}
