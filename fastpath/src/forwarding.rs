//! The forwarding state that the control plane publishes: an immutable snapshot, read by every
//! worker without a lock.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foldhash::fast::FixedState;
use wire::{PeerId, Vni, sleeve};

use crate::counters::LinkCounters;
use crate::groups::GroupTable;
use crate::resolver::Resolver;
use crate::seal::Sealer;
use crate::too_big::OwnAddress;

/// Number of a link, stable for as long as the link lives. Learned MACs point at it.
pub type Slot = u16;

/// How frames are wrapped. The seam where a kernel VXLAN device comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulation {
    /// RFC 7348, in userspace: direct neighbours only.
    Vxlan,
    /// `wire::sleeve`: names origin and destination, so that it passes relays and NAT.
    Sleeve,
}

/// A way to one other node, whose frames arrive at its slot however they are wrapped.
#[derive(Debug, Clone)]
pub struct Link {
    /// Who is at its end; none for an endpoint that speaks VXLAN and nothing else.
    pub peer: Option<PeerId>,
    /// Where its datagrams go: to the peer, or to a relay on the way.
    pub endpoint: SocketAddr,
    /// How they are wrapped. Only a peer has sleeve: without one the link is left out.
    pub encapsulation: Encapsulation,
    /// Largest inner IP packet, in bytes, that gets through whole.
    pub mtu: u16,
    /// Where sleeve reaches the peer directly, whatever the link's own way is: for the datagrams of
    /// others that this node relays. None: they go the link's own way, if that is sleeve.
    pub sleeve: Option<SocketAddr>,
    /// Underlay addresses from which its datagrams may come, besides that of a direct endpoint.
    pub sources: Vec<IpAddr>,
    /// What seals its frames, in sleeve; none: they are in the clear.
    pub sealer: Option<Arc<Sealer>>,
    /// Where all is sealed: the peer's address, to and from which frames may be in the clear all the
    /// same, in VXLAN.
    pub plain: Option<IpAddr>,
    /// What crossed it. Shared by successive snapshots.
    pub counters: Arc<LinkCounters>,
}

impl Link {
    /// A direct link in VXLAN, by which nothing is relayed.
    pub fn vxlan(peer: Option<PeerId>, endpoint: SocketAddr, mtu: u16) -> Self {
        Self {
            peer,
            endpoint,
            encapsulation: Encapsulation::Vxlan,
            mtu,
            sleeve: None,
            sources: Vec::new(),
            sealer: None,
            plain: None,
            counters: Arc::default(),
        }
    }

    /// Whether frames may be in the clear to and from this address where others are sealed.
    pub(crate) fn is_plain_at(&self, address: IpAddr) -> bool {
        let plain = self.plain.map(|plain| plain.to_canonical());
        plain == Some(address.to_canonical())
    }
}

/// The snapshot.
#[derive(Debug, Clone)]
pub struct Forwarding {
    vni: Vni,
    me: PeerId,
    sealed: bool,
    own: Option<OwnAddress>,
    links: Vec<Option<Entry>>,
    flood: Vec<Slot>,
    by_source: HashMap<IpAddr, Slot, FixedState>,
    /// As `by_source`, of those from which frames may come in the clear where all is sealed.
    by_plain: HashMap<IpAddr, Slot, FixedState>,
    by_peer: HashMap<PeerId, Slot, FixedState>,
    /// Addresses from which sleeve may come: of peers and of relays.
    neighbours: HashSet<IpAddr, FixedState>,
    resolver: Resolver,
    groups: Arc<GroupTable>,
}

/// A link with what is computed once for all its frames.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) link: Link,
    /// Of sleeve; without meaning for a VTEP.
    pub(crate) header: [u8; sleeve::HEADER_LEN],
}

impl Forwarding {
    /// A snapshot of the node `me` with these links, each at its slot; `own` is the overlay's own
    /// address.
    ///
    /// Of two links to one address the one with the lower slot is taken for the sender of VXLAN from
    /// there: its source port is the flow's hash and tells nothing.
    pub fn new(
        vni: Vni,
        me: PeerId,
        own: Option<OwnAddress>,
        links: impl IntoIterator<Item = (Slot, Link)>,
    ) -> Self {
        let mut snapshot = Self {
            vni,
            me,
            sealed: false,
            own,
            links: Vec::new(),
            flood: Vec::new(),
            by_source: HashMap::default(),
            by_plain: HashMap::default(),
            by_peer: HashMap::default(),
            neighbours: HashSet::default(),
            resolver: Resolver::default(),
            groups: Arc::default(),
        };
        for (slot, link) in links {
            if link.encapsulation == Encapsulation::Sleeve && link.peer.is_none() {
                continue;
            }
            let index = usize::from(slot);
            if snapshot.links.len() <= index {
                snapshot.links.resize(index + 1, None);
            }
            let header = sleeve::Header::plain(me, link.peer.unwrap_or(me)).bytes();
            snapshot.links[index] = Some(Entry { link, header });
        }
        for (slot, entry) in (0..).zip(&snapshot.links) {
            let Some(Entry { link, .. }) = entry else {
                continue;
            };
            snapshot.flood.push(slot);
            let ip = link.endpoint.ip().to_canonical();
            // A sleeve endpoint may be a relay's, and not the peer's.
            let own = (link.encapsulation == Encapsulation::Vxlan).then_some(ip);
            for source in own.into_iter().chain(link.sources.iter().copied()) {
                let source = source.to_canonical();
                snapshot.by_source.entry(source).or_insert(slot);
                snapshot.neighbours.insert(source);
            }
            if let Some(plain) = link.plain {
                let plain = plain.to_canonical();
                snapshot.by_plain.entry(plain).or_insert(slot);
            }
            if let Some(peer) = link.peer {
                snapshot.by_peer.entry(peer).or_insert(slot);
                snapshot.neighbours.insert(ip);
                let sleeve = link.sleeve.map(|sleeve| sleeve.ip().to_canonical());
                snapshot.neighbours.extend(sleeve);
            }
        }
        snapshot
    }

    /// The same, where nothing may leave or be taken in the clear but where a link says so.
    #[must_use]
    pub fn sealed(self) -> Self {
        Self {
            sealed: true,
            ..self
        }
    }

    /// Whether nothing may leave or be taken in the clear but where a link says so.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The same, asking for addresses by this plan.
    #[must_use]
    pub fn with_resolver(self, resolver: Resolver) -> Self {
        Self { resolver, ..self }
    }

    /// The same, sending multicast by this table.
    #[must_use]
    pub fn with_groups(self, groups: Arc<GroupTable>) -> Self {
        Self { groups, ..self }
    }

    /// The virtual network that frames belong to.
    pub fn vni(&self) -> Vni {
        self.vni
    }

    /// This node.
    pub fn me(&self) -> PeerId {
        self.me
    }

    /// Who tells a pod that its packet is too big; nobody, before the bridge has an address.
    pub fn own(&self) -> Option<&OwnAddress> {
        self.own.as_ref()
    }

    /// Who is asked for addresses.
    pub(crate) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Who wants which multicast groups.
    pub(crate) fn groups(&self) -> &GroupTable {
        &self.groups
    }

    /// The link at a slot, if it still lives.
    pub fn link(&self, slot: Slot) -> Option<&Link> {
        self.entry(slot).map(|entry| &entry.link)
    }

    pub(crate) fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.links.get(usize::from(slot))?.as_ref()
    }

    /// All links: where a broadcast goes.
    pub fn flood(&self) -> &[Slot] {
        &self.flood
    }

    /// The link whose VXLAN comes from this address; where all is sealed, only if it may.
    pub fn source(&self, address: IpAddr) -> Option<Slot> {
        let by_address = match self.sealed {
            true => &self.by_plain,
            false => &self.by_source,
        };
        by_address.get(&address.to_canonical()).copied()
    }

    /// Whether VXLAN may be sent to this address of a peer.
    pub fn allows_vxlan(&self, peer: PeerId, address: IpAddr) -> bool {
        let link = self.peer(peer).and_then(|slot| self.link(slot));
        !self.sealed || link.is_some_and(|link| link.is_plain_at(address))
    }

    /// The link to a peer.
    pub fn peer(&self, peer: PeerId) -> Option<Slot> {
        self.by_peer.get(&peer).copied()
    }

    /// Where a sleeve datagram goes that is for this peer, and by which link.
    pub fn relay(&self, peer: PeerId) -> Option<(Slot, SocketAddr)> {
        let slot = self.peer(peer)?;
        let link = self.link(slot)?;
        let own = (link.encapsulation == Encapsulation::Sleeve).then_some(link.endpoint);
        Some((slot, link.sleeve.or(own)?))
    }

    /// Whether this address is a peer's or a relay's.
    pub fn is_neighbour(&self, address: IpAddr) -> bool {
        self.neighbours.contains(&address.to_canonical())
    }
}
