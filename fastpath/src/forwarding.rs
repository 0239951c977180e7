//! The forwarding state that the control plane publishes: an immutable snapshot, read by every
//! worker without a lock.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foldhash::fast::FixedState;
use wire::Vni;

use crate::counters::LinkCounters;
use crate::too_big::OwnAddress;

/// Number of a link, stable for as long as the link lives. Learned MACs point at it.
pub type Slot = u16;

/// How frames are wrapped on a link. The seam where `sleeve` and a kernel VXLAN device come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulation {
    /// RFC 7348, in userspace.
    Vxlan,
}

/// A way to one other node.
#[derive(Debug, Clone)]
pub struct Link {
    /// Where its datagrams go.
    pub endpoint: SocketAddr,
    /// How they are wrapped.
    pub encapsulation: Encapsulation,
    /// Largest inner IP packet, in bytes, that fits the underlay whole.
    pub mtu: u16,
    /// What crossed it. Shared by successive snapshots.
    pub counters: Arc<LinkCounters>,
}

/// The snapshot.
#[derive(Debug, Clone)]
pub struct Forwarding {
    vni: Vni,
    links: Vec<Option<Link>>,
    flood: Vec<Slot>,
    by_source: HashMap<IpAddr, Slot, FixedState>,
    own: Option<OwnAddress>,
}

impl Forwarding {
    /// A snapshot with these links, each at its slot; `own` is the overlay's own address.
    ///
    /// Of two links to one address the one with the lower slot is taken for the sender of what
    /// arrives from there: a VXLAN datagram's source port is its flow's hash and tells nothing.
    pub fn new(
        vni: Vni,
        own: Option<OwnAddress>,
        links: impl IntoIterator<Item = (Slot, Link)>,
    ) -> Self {
        let mut snapshot = Self {
            vni,
            links: Vec::new(),
            flood: Vec::new(),
            by_source: HashMap::default(),
            own,
        };
        for (slot, link) in links {
            let index = usize::from(slot);
            if snapshot.links.len() <= index {
                snapshot.links.resize(index + 1, None);
            }
            snapshot.links[index] = Some(link);
        }
        for (slot, link) in (0..).zip(&snapshot.links) {
            if let Some(link) = link {
                snapshot.flood.push(slot);
                snapshot
                    .by_source
                    .entry(link.endpoint.ip().to_canonical())
                    .or_insert(slot);
            }
        }
        snapshot
    }

    /// The virtual network that frames belong to.
    pub fn vni(&self) -> Vni {
        self.vni
    }

    /// Who tells a pod that its packet is too big; nobody, before the bridge has an address.
    pub fn own(&self) -> Option<&OwnAddress> {
        self.own.as_ref()
    }

    /// The link at a slot, if it still lives.
    pub fn link(&self, slot: Slot) -> Option<&Link> {
        self.links.get(usize::from(slot))?.as_ref()
    }

    /// All links: where a broadcast goes.
    pub fn flood(&self) -> &[Slot] {
        &self.flood
    }

    /// The link whose other end has this address.
    pub fn source(&self, address: IpAddr) -> Option<Slot> {
        self.by_source.get(&address.to_canonical()).copied()
    }
}
