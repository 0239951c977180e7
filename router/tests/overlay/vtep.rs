//! Linux's own VXLAN device as a peer.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hostnet::link::VxlanOptions;
use hostnet::netlink::Netlink;
use router::lab::interrupt::Interrupt;
use router::lab::probe::throughput;
use wire::{Mac, Vni};

use crate::cluster::{Stranger, cluster, packets, pings, receive, v4};

/// An address of the overlay's range that no node owns at first: seeds share it among themselves,
/// but hand out from the bottom of their parts.
const POD: Ipv4Addr = Ipv4Addr::new(10, 47, 255, 77);

/// ping, TCP both ways, broadcast and a frame of 1450 bytes, on weft's port and on Linux's, with
/// the device's default offloads: its inner checksums arrive partial, for veth completes none.
#[test]
fn linux_vxlan_device_is_a_peer() {
    for (port, offloads) in [(6784u16, "on"), (8472, "on"), (6784, "off")] {
        let port_text = port.to_string();
        let args = [
            "--vxlan-port",
            &port_text,
            "--vtep",
            "10.99.0.100",
            "--offloads",
            offloads,
        ];
        let world = cluster(1, 1, &args);
        let stranger = Stranger::join(&world, 100);
        vxlan(&stranger, world.nodes[0].layout.address, port);
        let pod = &world.pods[0];

        for (from, to) in [(&pod.netns, POD), (&stranger.netns, v4(pod))] {
            for payload in [56, 1450 - 28] {
                assert!(
                    pings(from, to, payload),
                    "port {port}, offloads {offloads}: {payload} bytes to {to}"
                );
            }
        }
        let ends = [
            (&pod.netns, &stranger.netns, IpAddr::from(POD)),
            (&stranger.netns, &pod.netns, v4(pod).into()),
        ];
        for (from, to, address) in ends {
            let half = Duration::from_millis(500);
            let sent = throughput::tcp(from, to, address, half, &Interrupt::default());
            let sent = sent.unwrap_or_else(|e| {
                panic!("port {port}, offloads {offloads}, to {address}: {e:#}")
            });
            assert!(
                sent.bytes > 1_000_000,
                "port {port}, offloads {offloads}, to {address}: {sent:?}"
            );
        }

        let mut frame = wire::ethernet::header(Mac::BROADCAST, pod.mac, 0x88b5).to_vec();
        frame.extend(b"to all stations");
        frame.resize(60, 0);
        let mut seen = packets(&stranger.netns, "vx");
        packets(&pod.netns, "eth0").send(&frame).unwrap();
        let arrived = receive(&mut seen, Duration::from_secs(3), |bytes| bytes == frame);
        assert!(
            arrived.is_some(),
            "port {port}, offloads {offloads}: broadcast to the device"
        );

        let status = world.nodes[0].status().unwrap();
        let peer = &status.peers[0];
        let address = peer.address.map(|address| address.to_string());
        assert_eq!(address, Some(format!("10.99.0.100:{port}")));
        assert!(peer.tx_frames > 0 && peer.rx_frames > 0);
    }
}

#[test]
fn a_port_that_the_kernels_device_holds_is_named() {
    let world = cluster(1, 1, &[]);
    let stranger = Stranger::join(&world, 100);
    vxlan(&stranger, world.nodes[0].layout.address, 6784);
    let dir = tempfile::tempdir().unwrap();
    let output = stranger.netns.run(|| {
        std::process::Command::new(crate::cluster::WEFT)
            .args([
                "run",
                "--config",
                "/dev/null",
                "--name",
                "late",
                "--ipam-init",
                "seed=late",
            ])
            .arg("--state-dir")
            .arg(dir.path())
            .arg("--socket")
            .arg(dir.path().join("weft.sock"))
            .output()
    });
    let output = output.unwrap().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("6784") && text.contains("--vxlan-port"),
        "{text}"
    );
    let left = Netlink::open_in(&stranger.netns).unwrap().links().unwrap();
    let names: Vec<_> = left.iter().map(|link| link.name.as_str()).collect();
    assert!(
        !names.contains(&"weft") && !names.contains(&"weft-tap"),
        "left behind: {names:?}"
    );
}

/// `ip link add vx type vxlan id 1 remote NODE dstport PORT`, with an address, up.
fn vxlan(stranger: &Stranger, node: Ipv4Addr, port: u16) {
    let mut netlink = Netlink::open_in(&stranger.netns).unwrap();
    let eth0 = netlink.link("eth0").unwrap().unwrap().index;
    let options = VxlanOptions {
        local: Some(stranger.address.into()),
        remote: Some(node.into()),
        dev: Some(eth0),
        mtu: 1450,
        ..VxlanOptions::new(Vni::DEFAULT, port)
    };
    let index = netlink.add_vxlan("vx", &options).unwrap();
    netlink
        .add_address(index, format!("{POD}/12").parse().unwrap())
        .unwrap();
    netlink.set_up(index).unwrap();
}
