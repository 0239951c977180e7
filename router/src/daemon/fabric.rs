//! The router as the cluster's decisions meet it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use control::RemoveRequest;
use hostnet::netlink::Netlink;
use ipnet::IpNet;
use mesh::Target;
use wire::PeerName;

use crate::cluster::GRACE;
use crate::http::ControlService as _;
use crate::http::metrics::Observed as _;
use crate::io::kube::{Cluster, Fabric, KeeperOptions, Report, keep};
use crate::node::Node;
use crate::settings::NodeAddressChoice;

/// Raised while the API server cannot be used.
const CONDITION: &str = "kubernetes_api";
/// How long it may be away before anybody is told: a rolling update of it takes that long.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a watch may last. A dead connection is noticed shortly after.
const WATCH_SECS: u32 = 60;
/// Twice the longest pause between attempts to watch.
const QUIET: Duration = Duration::from_secs(60);
/// Between looks at what is to be done.
const TURN: Duration = Duration::from_secs(1);

/// Follows the cluster's nodes.
pub(super) async fn follow_cluster(node: Arc<Node>, cluster: Cluster) -> &'static str {
    let settings = node.settings();
    let options = KeeperOptions {
        me: settings.name.clone(),
        within: settings.node_address.as_ref().and_then(network),
        watch_secs: WATCH_SECS,
        turn: TURN,
        grace: GRACE,
        quiet: QUIET,
    };
    let fabric = NodeFabric {
        node: Arc::clone(&node),
        trouble: Mutex::new(None),
    };
    keep(cluster, options, &fabric).await;
    "the cluster's follower"
}

/// The network in which nodes' addresses are to lie.
fn network(choice: &NodeAddressChoice) -> Option<IpNet> {
    let name = match choice {
        NodeAddressChoice::Within(net) => return Some(*net),
        NodeAddressChoice::Interface(name) => name,
    };
    let found = Netlink::open().and_then(|mut netlink| {
        let link = netlink.link(name)?;
        link.map_or(Ok(Vec::new()), |link| netlink.addresses(link.index))
    });
    let link_local = |net: &IpNet| match net {
        IpNet::V4(v4) => v4.addr().is_link_local(),
        IpNet::V6(v6) => v6.addr().is_unicast_link_local(),
    };
    match found.map(|all| all.into_iter().find(|net| !link_local(net))) {
        Ok(Some(net)) => Some(net.trunc()),
        Ok(None) => {
            tracing::warn!(
                interface = name,
                "--node-address names no interface with an address"
            );
            None
        }
        Err(error) => {
            tracing::warn!(interface = name, %error, "cannot look at --node-address");
            None
        }
    }
}

struct NodeFabric {
    node: Arc<Node>,
    /// Since when the API server cannot be used, and why, if anybody was told.
    trouble: Mutex<Option<(Instant, Option<String>)>>,
}

impl NodeFabric {
    fn target(&self, address: IpAddr) -> Option<Target> {
        let port = self.node.settings().control_port;
        SocketAddr::new(address, port).to_string().parse().ok()
    }
}

impl Fabric for NodeFabric {
    async fn connect(&self, address: IpAddr) {
        // The operator has the last word.
        if let Some(target) = self.target(address)
            && !self.node.has_left().await
        {
            self.node.mesh().connect(target).await;
        }
    }

    async fn forget(&self, address: IpAddr) {
        if let Some(target) = self.target(address) {
            self.node.mesh().forget(target).await;
        }
    }

    async fn members(&self) -> Vec<PeerName> {
        let Ok(status) = self.node.ipam().status().await else {
            return Vec::new();
        };
        let me = &self.node.settings().name;
        let peers = status.peers.into_iter();
        peers
            .filter(|peer| peer.name != *me && !(peer.gone && peer.owned == 0))
            .map(|peer| peer.name)
            .collect()
    }

    async fn remove(&self, name: PeerName) -> Result<bool, String> {
        let removed = self.node.remove(RemoveRequest { name }).await;
        removed
            .map(|removed| removed.waiting.is_empty())
            .map_err(|error| error.to_string())
    }

    async fn is_ready(&self) -> bool {
        self.node.readiness().await.reasons.is_empty()
    }

    fn report(&self, report: Report) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match report {
            Report::Well => {
                if let Some((_, Some(_))) = trouble.take() {
                    self.node.clear(CONDITION, "");
                }
            }
            Report::Trouble(why) => {
                let (since, told) = trouble.get_or_insert((Instant::now(), None));
                if since.elapsed() > PATIENCE && told.as_ref() != Some(&why) {
                    self.node.raise(CONDITION, "", why.clone());
                    *told = Some(why);
                }
            }
        }
    }
}
