//! What a look at a lab found, as data: printed as it is with `--json`, and as a page by
//! [`page`](super::page) otherwise.
//!
//! Times are microseconds, sizes bytes.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::Serialize;
use wire::Mac;

/// Everything that the page shows.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// weft's version.
    pub version: &'static str,
    /// Whether nothing failed: every pair of pods reached each other, and the rest was seen too.
    pub ok: bool,
    /// What failed, one sentence each.
    pub failures: Vec<String>,
    /// The nodes' network.
    pub underlay: UnderlayReport,
    /// The nodes in order.
    pub nodes: Vec<NodeReport>,
    /// The pods in order.
    pub pods: Vec<PodReport>,
    /// Who reached whom.
    pub pings: PingReport,
    /// What the pods' neighbour tables hold of other pods.
    pub neighbours: Vec<NeighbourReport>,
    /// The pods' MTU.
    pub mtu: MtuReport,
    /// TCP between two pods on different nodes; none if it was not asked for or failed.
    pub throughput: Option<ThroughputReport>,
    /// One frame on the underlay; none if none was seen.
    pub frame: Option<FrameReport>,
}

/// The nodes' network.
#[derive(Debug, Clone, Serialize)]
pub struct UnderlayReport {
    /// Its namespace.
    pub netns: String,
    /// Its range.
    pub range: IpNet,
    /// Its MTU.
    pub mtu: u16,
}

/// A node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub netns: String,
    /// Its address on the underlay.
    pub address: Ipv4Addr,
    /// What its router says; none if it does not answer.
    pub router: Option<RouterReport>,
}

/// What a router says.
#[derive(Debug, Clone, Serialize)]
pub struct RouterReport {
    /// Its identity.
    pub id: String,
    /// Its bridge.
    pub bridge: String,
    /// The bridge's addresses: the pods' gateways.
    pub bridge_addresses: Vec<IpNet>,
    /// The router's port on the bridge.
    pub tap: String,
    /// Where it takes frames from other nodes (UDP).
    pub vxlan_port: u16,
    /// The network identifier in its frames.
    pub vni: u32,
    /// The part of the range from which its pods get addresses.
    pub owned: Vec<String>,
    /// Its links.
    pub peers: Vec<PeerReport>,
}

/// A link to another node.
#[derive(Debug, Clone, Serialize)]
pub struct PeerReport {
    /// The other node.
    pub name: String,
    /// `up`, `connecting` or `down`.
    pub state: String,
}

/// A pod.
#[derive(Debug, Clone, Serialize)]
pub struct PodReport {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its namespace.
    pub netns: String,
    /// Its address with the prefix length of the overlay's range.
    pub address: IpNet,
    /// Next hop of its default route.
    pub gateway: Option<IpAddr>,
    /// The address of its interface.
    pub mac: Mac,
    /// The MTU of its interface.
    pub mtu: u16,
}

/// Who reached whom.
#[derive(Debug, Clone, Serialize)]
pub struct PingReport {
    /// Bytes of data in each echo request.
    pub payload: usize,
    /// Round trips that were timed for each pair.
    pub samples: usize,
    /// Every pod to every other pod.
    pub pairs: Vec<PingPair>,
}

impl PingReport {
    /// The pair with these names.
    pub fn pair(&self, from: &str, to: &str) -> Option<&PingPair> {
        self.pairs
            .iter()
            .find(|pair| pair.from == from && pair.to == to)
    }

    /// The median of the medians of the pairs that `wanted` accepts.
    pub fn median_us(&self, wanted: impl Fn(&PingPair) -> bool) -> Option<f64> {
        median(
            self.pairs
                .iter()
                .filter(|pair| wanted(pair))
                .filter_map(|pair| pair.median_us)
                .collect(),
        )
    }
}

/// The middle value, the upper one of two.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// One pod to one other.
#[derive(Debug, Clone, Serialize)]
pub struct PingPair {
    /// Who asked.
    pub from: String,
    /// Who was to answer.
    pub to: String,
    /// Whether both are on one node.
    pub same_node: bool,
    /// Whether the answer came.
    pub reached: bool,
    /// Shortest round trip.
    pub best_us: Option<f64>,
    /// Median round trip.
    pub median_us: Option<f64>,
}

/// One entry of a pod's neighbour table.
#[derive(Debug, Clone, Serialize)]
pub struct NeighbourReport {
    /// Whose table.
    pub pod: String,
    /// Whose address the entry is about.
    pub neighbour: String,
    /// That address.
    pub address: IpAddr,
    /// The MAC in the table.
    pub mac: Mac,
    /// Whether it is the one of the other pod's own interface.
    pub is_own: bool,
}

/// The pods' MTU.
#[derive(Debug, Clone, Serialize)]
pub struct MtuReport {
    /// In the pods.
    pub pod: u16,
    /// On the underlay.
    pub underlay: u16,
    /// An echo request of the full size, between nodes; none if none was answered.
    pub full_size: Option<FullSizeReport>,
}

/// A packet as large as the MTU allows.
#[derive(Debug, Clone, Serialize)]
pub struct FullSizeReport {
    /// Who sent it.
    pub from: String,
    /// Who answered.
    pub to: String,
    /// Bytes of the IP packet.
    pub bytes: u16,
    /// Round trip.
    pub rtt_us: f64,
}

/// One TCP connection.
#[derive(Debug, Clone, Serialize)]
pub struct ThroughputReport {
    /// Who sent.
    pub from: String,
    /// Who received.
    pub to: String,
    /// Bytes that arrived.
    pub bytes: u64,
    /// In how many seconds.
    pub seconds: f64,
    /// The quotient, in gigabits of data in a second.
    pub gbit_per_s: f64,
}

/// One captured frame.
#[derive(Debug, Clone, Serialize)]
pub struct FrameReport {
    /// Whose ping.
    pub from: String,
    /// To whom.
    pub to: String,
    /// The node on whose underlay interface it was seen.
    pub node: String,
    /// That interface.
    pub interface: String,
    /// Length of the whole frame.
    pub len: usize,
    /// Its layers from the outside to the inside.
    pub layers: Vec<LayerReport>,
    /// The whole frame, in hexadecimal.
    pub hex: String,
}

/// One header of a frame, or its payload.
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// What it is.
    pub name: String,
    /// Where it begins.
    pub offset: usize,
    /// How long it is.
    pub len: usize,
    /// Its fields in order: name and value.
    pub fields: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_none_one_and_more() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
    }
}
