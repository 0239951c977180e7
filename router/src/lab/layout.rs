//! What a lab consists of, as names and addresses: nothing here touches the machine.
//!
//! Everything that a lab makes carries its name, so that what an earlier run left behind can be
//! told from what belongs to others: [`Layout::owns_netns`] is the only test that cleaning trusts.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where labs keep their sockets, state and logs: gone after a reboot, as the namespaces are.
const RUN: &str = "/run";
/// The interface of a node on the underlay, and of a pod on the overlay.
pub const IFNAME: &str = "eth0";
/// The bridge that stands for the nodes' network.
pub const UNDERLAY_BRIDGE: &str = "underlay";
/// Prefix length of the underlay's addresses.
pub const UNDERLAY_PREFIX: u8 = 24;
/// Most nodes in one lab: each runs a whole router, and its address is the last byte of a /24.
pub const MAX_NODES: u16 = 32;
/// Most pods on one node of a lab.
pub const MAX_PODS: u16 = 32;

/// A lab's shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// First part of every name that the lab gives.
    pub name: String,
    /// Number of nodes, 1 to [`MAX_NODES`].
    pub nodes: u16,
    /// Number of pods on each node, 1 to [`MAX_PODS`].
    pub pods: u16,
    /// MTU of the nodes' network, in bytes of IP packet.
    pub underlay_mtu: u16,
}

impl Layout {
    /// Name of the lab that `weft lab` makes.
    pub const DEFAULT_NAME: &str = "weft-lab";

    /// The lab's directory, which holds everything but the namespaces.
    pub fn dir(&self) -> PathBuf {
        dir_of(&self.name)
    }

    /// The namespace of the bridge that stands for the nodes' network.
    pub fn underlay_netns(&self) -> String {
        format!("{}-underlay", self.name)
    }

    /// The nodes in order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeLayout> + '_ {
        (1..=self.nodes).map(|number| self.node(number))
    }

    /// The node with this number, counted from 1.
    pub fn node(&self, number: u16) -> NodeLayout {
        let name = format!("node{number}");
        let dir = self.dir().join(&name);
        NodeLayout {
            number,
            netns: format!("{}-{name}", self.name),
            address: Ipv4Addr::new(10, 99, 0, u8::try_from(number).unwrap_or(u8::MAX)),
            socket: dir.join("weft.sock"),
            state_dir: dir.join("state"),
            log: dir.join("router.log"),
            name,
            dir,
        }
    }

    /// The pods of all nodes, in the order of the nodes.
    pub fn pods(&self) -> impl Iterator<Item = PodLayout> + '_ {
        (1..=self.nodes).flat_map(move |node| (1..=self.pods).map(move |pod| self.pod(node, pod)))
    }

    /// The pod with this number on the node with that one, both counted from 1.
    pub fn pod(&self, node: u16, pod: u16) -> PodLayout {
        let name = format!("node{node}-pod{pod}");
        let netns = format!("{}-{name}", self.name);
        PodLayout {
            node,
            container_id: netns.clone(),
            name,
            netns,
        }
    }

    /// Whether a namespace of this name can only have been made by the lab called `lab`.
    pub fn owns_netns(lab: &str, netns: &str) -> bool {
        let Some(rest) = netns
            .strip_prefix(lab)
            .and_then(|rest| rest.strip_prefix('-'))
        else {
            return false;
        };
        let numbered = |text: &str, word: &str| {
            text.strip_prefix(word)
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        match rest.split_once('-') {
            None => rest == "underlay" || numbered(rest, "node"),
            Some((node, pod)) => numbered(node, "node") && numbered(pod, "pod"),
        }
    }
}

/// The directory of the lab with this name.
pub fn dir_of(lab: &str) -> PathBuf {
    Path::new(RUN).join(lab)
}

/// A node: a namespace with one interface on the underlay, and a router in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLayout {
    /// Counted from 1.
    pub number: u16,
    /// Name of the node and of its router.
    pub name: String,
    /// Its network namespace.
    pub netns: String,
    /// Its address on the underlay.
    pub address: Ipv4Addr,
    /// Its directory.
    pub dir: PathBuf,
    /// The router's control socket.
    pub socket: PathBuf,
    /// The router's state.
    pub state_dir: PathBuf,
    /// What the router writes to standard error.
    pub log: PathBuf,
}

/// A pod: a namespace that `weft-cni` attaches to its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLayout {
    /// The node it runs on, counted from 1.
    pub node: u16,
    /// Name of the pod, unique in the lab.
    pub name: String,
    /// Its network namespace.
    pub netns: String,
    /// Its `CNI_CONTAINERID`.
    pub container_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout {
            name: Layout::DEFAULT_NAME.to_owned(),
            nodes: 3,
            pods: 2,
            underlay_mtu: 1500,
        }
    }

    #[test]
    fn names_follow_from_the_lab() {
        let layout = layout();
        let node = layout.node(2);
        assert_eq!(node.netns, "weft-lab-node2");
        assert_eq!(node.address, Ipv4Addr::new(10, 99, 0, 2));
        assert_eq!(node.socket, Path::new("/run/weft-lab/node2/weft.sock"));
        let pods: Vec<_> = layout.pods().map(|pod| pod.name).collect();
        assert_eq!(pods.len(), 6);
        assert_eq!(pods[2], "node2-pod1");
        assert_eq!(layout.pod(3, 2).netns, "weft-lab-node3-pod2");
    }

    #[test]
    fn a_lab_owns_what_it_names_and_nothing_else() {
        let layout = layout();
        assert!(
            layout
                .nodes()
                .all(|node| Layout::owns_netns("weft-lab", &node.netns))
        );
        assert!(
            layout
                .pods()
                .all(|pod| Layout::owns_netns("weft-lab", &pod.netns))
        );
        assert!(Layout::owns_netns("weft-lab", &layout.underlay_netns()));
        for foreign in [
            "weft-lab",
            "weft-lab-",
            "weft-lab-mine",
            "weft-lab-node",
            "weft-lab-node1-",
            "weft-labs-node1",
            "weft-lab-node1-pod1-x",
            "weft-lab-nodex",
            "my-weft-lab-node1",
            "weft-lab-node1-podx",
        ] {
            assert!(!Layout::owns_netns("weft-lab", foreign), "{foreign}");
        }
    }
}
