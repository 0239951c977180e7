//! What a peer's entry says that matters to the links.

use std::net::{IpAddr, SocketAddr};

use wire::{PeerId, PeerName};

use crate::route::Reach;

/// A peer, as its own entry and the control path describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFacts {
    /// Name.
    pub name: PeerName,
    /// Its present run: a restarted router is probed at once.
    pub run: u64,
    /// Addresses at which it may be reached, best first. No more than
    /// [`LinkLimits::addresses`](super::LinkLimits::addresses) are tried.
    pub addresses: Vec<IpAddr>,
    /// UDP port on which it receives VXLAN.
    pub vxlan_port: u16,
    /// UDP port on which it receives sleeve; 0: it has none.
    pub sleeve_port: u16,
    /// Whence its sleeve is seen to come, if others saw another port or address than its own.
    pub sleeve_seen: Option<SocketAddr>,
    /// Largest inner IP packet that it takes, in bytes.
    pub mtu: u16,
    /// Whom its sleeve reaches.
    pub reach: Reach,
}

/// Why there is no peer of this identity any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// It left.
    Left,
    /// It is forgotten, or another identity has its name.
    Removed(String),
}

/// What crossed a peer's link lately, whatever the encapsulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Whose link.
    pub id: PeerId,
    /// Frames sent since the last report.
    pub sent: u64,
    /// Frames received since the last report.
    pub received: u64,
}
