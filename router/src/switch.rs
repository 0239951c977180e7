//! Which links the data path gets: the mesh's peers and the operator's VTEPs, composed.
//!
//! Pure. Inputs are changes, the output is the whole list of links each time, so that a change
//! that was lost is repaired by the next one. Invariants: no two links go to one endpoint, and
//! none goes to this node, since either would deliver a flooded frame twice or in a circle (I3).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wire::{PeerId, PeerName, vxlan};

use crate::io::datapath::{LinkKey, LinkTarget};
use crate::settings::Endpoint;

/// The composition of links.
#[derive(Debug)]
pub struct Switch {
    underlay_mtu: u16,
    own: BTreeSet<SocketAddr>,
    peers: BTreeMap<PeerId, Peer>,
    vteps: BTreeMap<Endpoint, Vtep>,
}

#[derive(Debug)]
struct Peer {
    name: PeerName,
    endpoint: SocketAddr,
    mtu: u16,
}

/// A VTEP that the operator named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vtep {
    /// As it was named.
    pub endpoint: Endpoint,
    /// Where it is, or why that is not known.
    pub resolved: Result<SocketAddr, String>,
    /// Since when that is so, on the caller's clock.
    pub since: Duration,
}

/// Whether a VTEP is a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VtepUse {
    /// It is.
    Link(LinkTarget),
    /// It is not, and why.
    LeftOut(String),
}

impl Switch {
    /// A composition without peers, on an underlay of this MTU.
    ///
    /// `own` is where this node itself receives; `now` is the caller's monotonic time.
    pub fn new(
        underlay_mtu: u16,
        own: impl IntoIterator<Item = SocketAddr>,
        vteps: impl IntoIterator<Item = Endpoint>,
        now: Duration,
    ) -> Self {
        let vteps = vteps.into_iter().map(|endpoint| {
            let resolved = endpoint
                .address()
                .ok_or_else(|| "its name was not resolved yet".into());
            (
                endpoint.clone(),
                Vtep {
                    endpoint,
                    resolved,
                    since: now,
                },
            )
        });
        Self {
            underlay_mtu,
            own: own.into_iter().map(canonical).collect(),
            peers: BTreeMap::new(),
            vteps: vteps.collect(),
        }
    }

    /// A peer's link is up, or has changed.
    pub fn peer_up(&mut self, id: PeerId, name: PeerName, endpoint: SocketAddr, mtu: u16) {
        self.peers.insert(
            id,
            Peer {
                name,
                endpoint: canonical(endpoint),
                mtu,
            },
        );
    }

    /// A peer's link is down, or the peer has left.
    pub fn peer_gone(&mut self, id: PeerId) {
        self.peers.remove(&id);
    }

    /// A VTEP's name was looked up. Returns whether that changed anything.
    ///
    /// A failed look-up leaves the last good address in use: trouble with names is no reason to
    /// stop a link that works (I5).
    pub fn vtep_resolved(
        &mut self,
        endpoint: &Endpoint,
        resolved: Result<SocketAddr, String>,
        now: Duration,
    ) -> bool {
        let Some(vtep) = self.vteps.get_mut(endpoint) else {
            return false;
        };
        let resolved = resolved.map(canonical);
        if vtep.resolved == resolved || (resolved.is_err() && vtep.resolved.is_ok()) {
            return false;
        }
        vtep.resolved = resolved;
        vtep.since = now;
        true
    }

    /// The links, in the order of their keys.
    pub fn links(&self) -> Vec<LinkTarget> {
        let mut links: Vec<_> = self.peer_links().collect();
        links.extend(self.vteps().into_iter().filter_map(|(_, used)| match used {
            VtepUse::Link(link) => Some(link),
            VtepUse::LeftOut(_) => None,
        }));
        links.sort_by_key(|link| link.key);
        links
    }

    /// The VTEPs in the order of their names, each with what becomes of it.
    pub fn vteps(&self) -> Vec<(&Vtep, VtepUse)> {
        let mut taken: BTreeMap<SocketAddr, String> = self
            .peers
            .values()
            .rev()
            .map(|peer| (peer.endpoint, format!("peer {}", peer.name)))
            .collect();
        self.vteps
            .values()
            .map(|vtep| {
                let used = self.use_of(vtep, &mut taken);
                (vtep, used)
            })
            .collect()
    }

    /// The name of a peer that is up.
    pub fn peer_name(&self, id: PeerId) -> Option<&PeerName> {
        self.peers.get(&id).map(|peer| &peer.name)
    }

    /// Of two peers at one endpoint, as when a node came back with a new identity, one has a link;
    /// the mesh soon says which of them is gone.
    fn peer_links(&self) -> impl Iterator<Item = LinkTarget> {
        let mut taken = BTreeSet::new();
        self.peers.iter().filter_map(move |(id, peer)| {
            let free = !self.own.contains(&peer.endpoint) && taken.insert(peer.endpoint);
            free.then(|| LinkTarget {
                key: LinkKey::Peer(*id),
                endpoint: peer.endpoint,
                mtu: peer.mtu.min(self.link_mtu(peer.endpoint.ip())),
            })
        })
    }

    fn use_of(&self, vtep: &Vtep, taken: &mut BTreeMap<SocketAddr, String>) -> VtepUse {
        let endpoint = match &vtep.resolved {
            Ok(endpoint) => *endpoint,
            Err(reason) => return VtepUse::LeftOut(reason.clone()),
        };
        if self.own.contains(&endpoint) {
            return VtepUse::LeftOut(format!("{endpoint} is this node"));
        }
        if let Some(other) = taken.get(&endpoint) {
            return VtepUse::LeftOut(format!("{endpoint} is {other}, which has a link already"));
        }
        taken.insert(endpoint, format!("VTEP {}", vtep.endpoint));
        VtepUse::Link(LinkTarget {
            key: LinkKey::Vtep(endpoint),
            endpoint,
            mtu: self.link_mtu(endpoint.ip()),
        })
    }

    /// Largest inner IP packet that fits the underlay whole on the way to this address.
    fn link_mtu(&self, address: IpAddr) -> u16 {
        self.underlay_mtu.saturating_sub(overhead(address))
    }
}

/// Bytes that VXLAN takes from the underlay's MTU on the way to an address.
pub fn overhead(address: IpAddr) -> u16 {
    if address.to_canonical().is_ipv4() {
        vxlan::OVERHEAD_IPV4
    } else {
        vxlan::OVERHEAD_IPV6
    }
}

/// An IPv4 address that came through an IPv6 socket is written as what it is.
fn canonical(endpoint: SocketAddr) -> SocketAddr {
    SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::parse(text, 6784).unwrap()
    }

    fn switch(vteps: &[&str]) -> Switch {
        let own = ["192.0.2.1:6784".parse().unwrap()];
        Switch::new(1500, own, vteps.iter().map(|text| endpoint(text)), S(0))
    }

    fn up(switch: &mut Switch, n: u8, address: &str, mtu: u16) {
        let name = format!("node-{n}").parse().unwrap();
        switch.peer_up(PeerId([n; 8]), name, address.parse().unwrap(), mtu);
    }

    fn endpoints(switch: &Switch) -> Vec<String> {
        switch
            .links()
            .iter()
            .map(|link| link.endpoint.to_string())
            .collect()
    }

    #[test]
    fn peers_come_change_and_go() {
        let mut switch = switch(&[]);
        up(&mut switch, 1, "192.0.2.2:6784", 1450);
        up(&mut switch, 2, "[::ffff:192.0.2.3]:6784", 1450);
        assert_eq!(endpoints(&switch), ["192.0.2.2:6784", "192.0.2.3:6784"]);
        up(&mut switch, 1, "192.0.2.9:6784", 1450);
        switch.peer_gone(PeerId([2; 8]));
        switch.peer_gone(PeerId([7; 8]));
        assert_eq!(endpoints(&switch), ["192.0.2.9:6784"]);
        assert_eq!(switch.peer_name(PeerId([1; 8])).unwrap().as_str(), "node-1");
    }

    #[test]
    fn the_smaller_side_sets_the_mtu() {
        let mut switch = switch(&["192.0.2.4", "2001:db8::4"]);
        up(&mut switch, 1, "192.0.2.2:6784", 1376);
        up(&mut switch, 2, "[2001:db8::2]:6784", 8950);
        let mtus: Vec<_> = switch.links().iter().map(|link| link.mtu).collect();
        assert_eq!(mtus, [1376, 1430, 1450, 1430]);
    }

    #[test]
    fn i3_no_endpoint_has_two_links_and_none_is_this_node() {
        let mut switch = switch(&["192.0.2.1", "192.0.2.2", "192.0.2.2:8472", "vtep.example"]);
        up(&mut switch, 1, "192.0.2.2:6784", 1450);
        up(&mut switch, 2, "192.0.2.2:6784", 1450);
        up(&mut switch, 3, "192.0.2.1:6784", 1450);
        let found = Ok("192.0.2.2:8472".parse().unwrap());
        assert!(switch.vtep_resolved(&endpoint("vtep.example"), found, S(1)));
        assert_eq!(endpoints(&switch), ["192.0.2.2:6784", "192.0.2.2:8472"]);

        let reasons: Vec<_> = switch
            .vteps()
            .into_iter()
            .map(|(_, used)| match used {
                VtepUse::Link(link) => link.endpoint.to_string(),
                VtepUse::LeftOut(reason) => reason,
            })
            .collect();
        assert_eq!(
            reasons,
            [
                "192.0.2.1:6784 is this node",
                "192.0.2.2:6784 is peer node-1, which has a link already",
                "192.0.2.2:8472",
                "192.0.2.2:8472 is VTEP 192.0.2.2:8472, which has a link already",
            ]
        );
    }

    #[test]
    fn i5_a_failed_look_up_leaves_the_link() {
        let mut switch = switch(&["vtep.example"]);
        let name = endpoint("vtep.example");
        assert_eq!(endpoints(&switch), [""; 0]);
        assert!(switch.vtep_resolved(&name, Err("no such name".into()), S(1)));
        assert!(switch.vtep_resolved(&name, Ok("192.0.2.5:6784".parse().unwrap()), S(2)));
        assert!(!switch.vtep_resolved(&name, Err("no such name".into()), S(3)));
        assert!(!switch.vtep_resolved(&endpoint("other"), Err(String::new()), S(3)));
        assert_eq!(endpoints(&switch), ["192.0.2.5:6784"]);
        assert_eq!(switch.vteps()[0].0.since, S(2));
    }
}
