//! The overlay over an underlay that speaks IPv6 alone.

use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use control::{Client, PeerState};
use hostnet::link::VethRequest;
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use router::lab::interrupt::Interrupt;
use router::lab::probe::throughput;
use serde_json::json;
use tempfile::TempDir;

use crate::cluster::{WEFT, eventually, pings, unique};

#[test]
fn two_nodes_on_an_ipv6_underlay() {
    let directory = tempfile::tempdir().unwrap();
    let [a, b] = [Side::new("a"), Side::new("b")];
    let mut netlink = Netlink::open_in(&a.node).unwrap();
    let request = VethRequest {
        host_up: true,
        peer_ns: Some(&b.node),
        ..VethRequest::new("eth0", "eth0", 1500)
    };
    netlink.add_veth(&request).unwrap();
    for (side, address) in [(&a, address(1)), (&b, address(2))] {
        let mut netlink = Netlink::open_in(&side.node).unwrap();
        let eth0 = netlink.link("eth0").unwrap().unwrap().index;
        netlink
            .add_address(eth0, format!("{address}/64").parse().unwrap())
            .unwrap();
        netlink.set_up(eth0).unwrap();
    }
    // A bare address, and one with a port.
    let _routers = [
        a.start(&directory, &address(2).to_string()),
        b.start(&directory, &format!("[{}]:6783", address(1))),
    ];
    for side in [&a, &b] {
        eventually("the peer is up over IPv6", || {
            let status = Client::new(side.socket(&directory), Duration::from_secs(2)).status();
            status.is_ok_and(|status| {
                let up = |peer: &control::PeerStatus| {
                    peer.state == PeerState::Up && peer.address.is_some_and(|a| a.is_ipv6())
                };
                status.ipam.ready && status.peers.iter().any(up)
            })
        });
    }
    let [on_a, on_b] = [&a, &b].map(|side| side.attach(&directory));
    // 1500 - 40 - 8 - 8 - 14.
    let link = Netlink::open_in(&a.pod)
        .unwrap()
        .link("eth0")
        .unwrap()
        .unwrap();
    assert_eq!(link.mtu, 1430);
    for (from, to) in [(&a, on_b), (&b, on_a)] {
        let IpAddr::V4(v4) = to else {
            panic!("{to} is not IPv4")
        };
        for payload in [56, 1430 - 28] {
            assert!(pings(&from.pod, v4, payload), "{payload} bytes to {v4}");
        }
    }
    let half = Duration::from_millis(500);
    let sent = throughput::tcp(&a.pod, &b.pod, on_b, half, &Interrupt::default()).unwrap();
    assert!(sent.bytes > 1_000_000, "{sent:?}");
}

fn address(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, number)
}

/// A node and its pod.
struct Side {
    name: &'static str,
    names: [String; 2],
    node: NetNs,
    pod: NetNs,
}

impl Side {
    fn new(name: &'static str) -> Self {
        let names = [unique("w6"), unique("w6p")];
        let [node, pod] = names.each_ref().map(|name| NetNs::create(name).unwrap());
        Self {
            name,
            names,
            node,
            pod,
        }
    }

    fn socket(&self, directory: &TempDir) -> std::path::PathBuf {
        directory.path().join(self.name).join("weft.sock")
    }

    fn start(&self, directory: &TempDir, peer: &str) -> Running {
        let mut command = Command::new(WEFT);
        command
            .args(["run", "--config", "/dev/null", "--name", self.name])
            .args(["--ipam-init", "seed=a,b", "--peer", peer])
            .arg("--state-dir")
            .arg(directory.path().join(self.name))
            .arg("--socket")
            .arg(self.socket(directory))
            .arg("--exit-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Running(self.node.run(|| command.spawn()).unwrap().unwrap())
    }

    /// Attaches the pod, and says which address it got.
    fn attach(&self, directory: &TempDir) -> IpAddr {
        let config = json!({
            "cniVersion": "1.0.0", "name": "weft", "type": "weft-cni",
            "socket": self.socket(directory),
        });
        let file = directory.path().join(format!("{}.json", self.name));
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(WEFT);
        command
            .arg0("weft-cni")
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", &self.names[1])
            .env("CNI_NETNS", NetNs::path(&self.names[1]))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .stdin(std::fs::File::open(&file).unwrap());
        let output = self.node.run(|| command.output()).unwrap().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let address = result["ips"][0]["address"].as_str().unwrap();
        address.parse::<ipnet::IpNet>().unwrap().addr()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        for name in &self.names {
            NetNs::remove(name).unwrap();
        }
    }
}

/// A router that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
