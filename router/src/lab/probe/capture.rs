//! One frame, as it leaves a node.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Context;
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use hostnet::packet::PacketSocket;
use wire::decode::{Layer, decode};

use super::ping::{PAYLOAD, Pinger};
use crate::lab::layout::IFNAME;

/// How long a frame may take from the pod's socket to the node's interface.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pings that are tried: each is one chance to see a frame.
const ATTEMPTS: u32 = 3;

/// A frame and its layers, outermost first.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The whole frame.
    pub frame: Vec<u8>,
    /// What is in it.
    pub layers: Vec<Layer>,
}

/// Pings `target` from the pod of `pinger` and returns the echo request as it passed the underlay
/// interface of its node; none if it did not pass there.
pub fn echo_request(
    node: &NetNs,
    vxlan_port: u16,
    pinger: &mut Pinger,
    target: Ipv4Addr,
) -> anyhow::Result<Option<Captured>> {
    let mut netlink = Netlink::open_in(node)?;
    let link = netlink
        .link(IFNAME)?
        .with_context(|| format!("the node has no {IFNAME}"))?;
    let mut capture = node.run(|| PacketSocket::bind(link.index))??;
    for _ in 0..ATTEMPTS {
        pinger.ping(target, PAYLOAD, PATIENCE)?;
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let Some(packet) = capture.recv(left)? else {
                break;
            };
            let layers = decode(packet.bytes, &[vxlan_port]);
            if packet.outgoing && is_echo_request(&layers, target) {
                return Ok(Some(Captured {
                    frame: packet.bytes.to_vec(),
                    layers,
                }));
            }
        }
    }
    Ok(None)
}

/// Whether the frame is an echo request to `target` within VXLAN.
fn is_echo_request(layers: &[Layer], target: Ipv4Addr) -> bool {
    let Some(vxlan) = layers.iter().position(|layer| layer.name == "VXLAN") else {
        return false;
    };
    let inner = &layers[vxlan..];
    let to = inner
        .iter()
        .find(|layer| layer.name == "IPv4")
        .and_then(|ip| ip.field("destination"));
    let kind = inner
        .iter()
        .find(|layer| layer.name == "ICMP")
        .and_then(|icmp| icmp.field("type"));
    to == Some(&target.to_string()) && kind.is_some_and(|kind| kind.contains("echo request"))
}
