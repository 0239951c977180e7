//! Which links the data path gets: the mesh's peers and the operator's VTEPs, composed.
//!
//! Pure. Inputs are changes, the output is the whole list of links each time, so that a change
//! that was lost is repaired by the next one. Invariants: no two VXLAN links go to one endpoint, and
//! none goes to this node, since either would deliver a flooded frame twice or in a circle (I3).
//! Sleeve names its destination, so that many links may go to one relay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fastpath::Encapsulation;
use mesh::Path;
use wire::{PeerId, PeerName, sleeve, vxlan};

use crate::io::datapath::{LinkKey, LinkTarget};
use crate::settings::Endpoint;

/// The composition of links.
#[derive(Debug)]
pub struct Switch {
    underlay_mtu: u16,
    /// Where sleeve is received, if all goes by it, sealed, but what is agreed to be in the clear.
    sealed_port: Option<u16>,
    vxlan_port: u16,
    own: BTreeSet<SocketAddr>,
    peers: BTreeMap<PeerId, Peer>,
    vteps: BTreeMap<Endpoint, Vtep>,
}

#[derive(Debug)]
struct Peer {
    name: PeerName,
    path: Path,
    sleeve: Option<SocketAddr>,
    /// Where its frames may be in the clear though others are sealed.
    plain: Option<IpAddr>,
    /// Where it was found, the latest last.
    addresses: Vec<IpAddr>,
}

/// Addresses of a peer that are remembered: as many as it may tell of itself.
const ADDRESSES: usize = 8;

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
    /// A composition without peers, on an underlay of this MTU, with VXLAN on this port.
    ///
    /// `own` is where this node itself receives; `now` is the caller's monotonic time.
    pub fn new(
        underlay_mtu: u16,
        vxlan_port: u16,
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
            sealed_port: None,
            vxlan_port,
            own: own.into_iter().map(canonical).collect(),
            peers: BTreeMap::new(),
            vteps: vteps.collect(),
        }
    }

    /// The same, where all goes by sleeve on this port, sealed, but what is agreed to be in the clear.
    #[must_use]
    pub fn sealed(self, port: u16) -> Self {
        Self {
            sealed_port: Some(port),
            ..self
        }
    }

    /// A peer's link is up, or has changed. `sleeve` is where sleeve reaches it directly, whatever
    /// the path is; `plain` where its frames may be in the clear though others are sealed.
    pub fn peer_up(
        &mut self,
        id: PeerId,
        name: PeerName,
        mut path: Path,
        sleeve: Option<SocketAddr>,
        plain: Option<IpAddr>,
    ) {
        path.endpoint = canonical(path.endpoint);
        let mut sleeve = sleeve.map(canonical);
        let plain = plain.map(|plain| plain.to_canonical());
        if let (Some(port), mesh::Encapsulation::Vxlan) = (self.sealed_port, path.encapsulation)
            && plain != Some(path.endpoint.ip())
        {
            path.encapsulation = mesh::Encapsulation::Sleeve;
            path.endpoint.set_port(port);
            sleeve = Some(path.endpoint);
        }
        let known = self.peers.remove(&id).map(|peer| peer.addresses);
        let mut addresses = known.unwrap_or_default();
        let direct = (path.next_hop == id).then_some(path.endpoint);
        for address in direct.into_iter().chain(sleeve) {
            addresses.retain(|known| *known != address.ip());
            addresses.push(address.ip());
        }
        let surplus = addresses.len().saturating_sub(ADDRESSES);
        addresses.drain(..surplus);
        self.peers.insert(
            id,
            Peer {
                name,
                path,
                sleeve,
                plain,
                addresses,
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
        let mut taken = BTreeMap::new();
        for peer in self.peers.values().rev() {
            // A peer has VXLAN too where its link is another: as a VTEP it would get all twice.
            let addresses = peer.addresses.iter();
            let at_port = addresses.map(|address| SocketAddr::new(*address, self.vxlan_port));
            for endpoint in at_port.chain(peer.vxlan()) {
                taken.insert(endpoint, format!("peer {}", peer.name));
            }
        }
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
            let endpoint = peer.path.endpoint;
            let free = peer.vxlan().is_none_or(|endpoint| taken.insert(endpoint));
            (free && !self.own.contains(&endpoint)).then(|| {
                let encapsulation = encapsulation(peer.path.encapsulation);
                LinkTarget {
                    key: LinkKey::Peer(*id),
                    endpoint,
                    via: (peer.path.next_hop != *id).then_some(peer.path.next_hop),
                    encapsulation,
                    mtu: peer
                        .path
                        .mtu
                        .min(self.link_mtu(encapsulation, endpoint.ip())),
                    sleeve: peer.sleeve,
                    sources: peer.addresses.clone(),
                    plain: peer.plain,
                }
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
        let mtu = self.link_mtu(Encapsulation::Vxlan, endpoint.ip());
        VtepUse::Link(LinkTarget::vxlan(LinkKey::Vtep(endpoint), endpoint, mtu))
    }

    /// The underlay's MTU is another.
    pub fn set_underlay_mtu(&mut self, mtu: u16) {
        self.underlay_mtu = mtu;
    }

    /// Largest inner IP packet that fits the underlay whole on the way to this address.
    fn link_mtu(&self, encapsulation: Encapsulation, address: IpAddr) -> u16 {
        let overhead = match (encapsulation, address.to_canonical()) {
            (Encapsulation::Vxlan, IpAddr::V4(_)) => vxlan::OVERHEAD_IPV4,
            (Encapsulation::Vxlan, IpAddr::V6(_)) => vxlan::OVERHEAD_IPV6,
            (Encapsulation::Sleeve, IpAddr::V4(_)) => sleeve::OVERHEAD_IPV4,
            (Encapsulation::Sleeve, IpAddr::V6(_)) => sleeve::OVERHEAD_IPV6,
        };
        let seal = if self.sealed_port.is_some() && encapsulation == Encapsulation::Sleeve {
            sleeve::SEAL_LEN
        } else {
            0
        };
        let seal = u16::try_from(seal).unwrap_or(u16::MAX);
        self.underlay_mtu.saturating_sub(overhead + seal)
    }
}

impl Peer {
    /// Where its VXLAN goes, if its link uses that.
    fn vxlan(&self) -> Option<SocketAddr> {
        (self.path.encapsulation == mesh::Encapsulation::Vxlan).then_some(self.path.endpoint)
    }
}

/// The mesh's word for it as the data path's.
pub fn encapsulation(of: mesh::Encapsulation) -> Encapsulation {
    match of {
        mesh::Encapsulation::Vxlan => Encapsulation::Vxlan,
        mesh::Encapsulation::Sleeve => Encapsulation::Sleeve,
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
        Switch::new(
            1500,
            6784,
            own,
            vteps.iter().map(|text| endpoint(text)),
            S(0),
        )
    }

    fn up(switch: &mut Switch, n: u8, address: &str, mtu: u16) {
        let path = Path::vxlan(PeerId([n; 8]), address.parse().unwrap(), mtu);
        by(switch, n, path, None);
    }

    fn by(switch: &mut Switch, n: u8, path: Path, sleeve: Option<&str>) {
        let name = format!("node-{n}").parse().unwrap();
        let sleeve = sleeve.map(|text| text.parse().unwrap());
        switch.peer_up(PeerId([n; 8]), name, path, sleeve, None);
    }

    /// The way to node `n` in sleeve, by the node `via`.
    fn relayed(n: u8, via: u8) -> Path {
        Path {
            encapsulation: mesh::Encapsulation::Sleeve,
            hops: if n == via { 1 } else { 2 },
            ..Path::vxlan(PeerId([via; 8]), ([192, 0, 2, via], 6783).into(), 1450)
        }
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

    #[test]
    fn relayed_peers_share_an_endpoint_and_lead_to_different_peers() {
        let mut switch = switch(&["192.0.2.3", "192.0.2.3:8472"]);
        by(&mut switch, 2, relayed(2, 2), Some("192.0.2.2:6783"));
        by(&mut switch, 3, relayed(3, 2), None);
        let links: Vec<_> = switch
            .links()
            .into_iter()
            .map(|link| (link.endpoint.to_string(), link.encapsulation, link.mtu))
            .collect();
        let sleeve = |endpoint: &str| (endpoint.to_owned(), Encapsulation::Sleeve, 1438);
        let vxlan = |endpoint: &str| (endpoint.to_owned(), Encapsulation::Vxlan, 1450);
        assert_eq!(
            links,
            [
                sleeve("192.0.2.2:6783"),
                sleeve("192.0.2.2:6783"),
                vxlan("192.0.2.3:6784"),
                vxlan("192.0.2.3:8472"),
            ]
        );
        // Once it is known to be at that address, it is no VTEP, though its link is not VXLAN.
        by(&mut switch, 3, relayed(3, 3), Some("192.0.2.3:6783"));
        assert_eq!(
            endpoints(&switch),
            ["192.0.2.2:6783", "192.0.2.3:6783", "192.0.2.3:8472"]
        );
    }

    #[test]
    fn i4_a_sealed_switch_has_vxlan_only_where_both_sides_trust() {
        let mut switch = switch(&[]).sealed(6783);
        let path = || Path::vxlan(PeerId([1; 8]), "192.0.2.2:6784".parse().unwrap(), 1414);
        let name: PeerName = "node-1".parse().unwrap();
        for (plain, expected) in [
            (None, (Encapsulation::Sleeve, 6783, 1414)),
            (Some([192, 0, 2, 3]), (Encapsulation::Sleeve, 6783, 1414)),
            (Some([192, 0, 2, 2]), (Encapsulation::Vxlan, 6784, 1414)),
        ] {
            let plain = plain.map(IpAddr::from);
            switch.peer_up(PeerId([1; 8]), name.clone(), path(), None, plain);
            let link = switch.links().remove(0);
            let found = (link.encapsulation, link.endpoint.port(), link.mtu);
            assert_eq!((found, link.plain), (expected, plain));
        }
    }

    #[test]
    fn frames_of_a_peer_may_come_from_where_it_was_found() {
        let mut switch = switch(&[]);
        up(&mut switch, 1, "192.0.2.2:6784", 1450);
        by(&mut switch, 1, relayed(1, 9), Some("192.0.2.3:40000"));
        let sources = |switch: &Switch| switch.links()[0].sources.clone();
        let [two, three]: [IpAddr; 2] = [[192, 0, 2, 2].into(), [192, 0, 2, 3].into()];
        assert_eq!(sources(&switch), [two, three]);
        // Not the relay's.
        by(&mut switch, 1, relayed(1, 9), None);
        assert_eq!(sources(&switch), [two, three]);
        for n in 10..30 {
            up(&mut switch, 1, &format!("192.0.2.{n}:6784"), 1450);
        }
        assert_eq!(sources(&switch).len(), ADDRESSES);
        switch.peer_gone(PeerId([1; 8]));
        up(&mut switch, 1, "192.0.2.2:6784", 1450);
        assert_eq!(sources(&switch), [two]);
    }
}
