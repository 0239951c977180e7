//! What the data path is told of a peer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use wire::{PeerId, PeerName};

/// How frames are wrapped on their way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encapsulation {
    /// RFC 7348: direct neighbours only, plain.
    Vxlan,
    /// Through NAT, relayed, or sealed.
    Sleeve,
}

impl Encapsulation {
    /// As status and metrics show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Sleeve => "sleeve",
        }
    }
}

impl fmt::Display for Encapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The way that frames for a peer take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// How they are wrapped.
    pub encapsulation: Encapsulation,
    /// Where the datagrams go: the next hop's address and port.
    pub endpoint: SocketAddr,
    /// Who receives them there: the peer itself, or a relay.
    pub next_hop: PeerId,
    /// Links that they cross: 1 if direct.
    pub hops: u8,
    /// Largest inner IP packet that gets through, in bytes; tested by probes.
    pub mtu: u16,
    /// Why it is not a better one; None for the best there is.
    pub reason: Option<String>,
}

impl Path {
    /// The best kind of path: VXLAN to the peer itself.
    pub const fn vxlan(peer: PeerId, endpoint: SocketAddr, mtu: u16) -> Self {
        Self {
            encapsulation: Encapsulation::Vxlan,
            endpoint,
            next_hop: peer,
            hops: 1,
            mtu,
            reason: None,
        }
    }
}

/// A change of a data link. Each says all about its peer: an earlier one that was not acted upon
/// can be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// Frames can be sent to the peer; also said when anything of this changed.
    Up {
        /// Identity.
        id: PeerId,
        /// Name.
        name: PeerName,
        /// The way that frames take.
        path: Path,
        /// Where sleeve reaches the peer directly, whatever `path` is: for datagrams of others that
        /// this node relays to it. None if it does not; then they go along `path`, if that leads
        /// through another relay.
        sleeve: Option<SocketAddr>,
        /// Where frames are sealed: the peer's address, to and from which they may be in the clear
        /// all the same, since both sides trust it. Frames from there are to be taken though `path`
        /// is sealed.
        plain: Option<IpAddr>,
    },
    /// No probe comes back from the peer on any way.
    Down {
        /// Identity.
        id: PeerId,
        /// Name.
        name: PeerName,
        /// Why.
        reason: String,
    },
    /// The peer left, or this node did.
    Left {
        /// Identity.
        id: PeerId,
        /// Name.
        name: PeerName,
    },
}

impl LinkChange {
    /// Whose link it is.
    pub const fn id(&self) -> PeerId {
        match self {
            Self::Up { id, .. } | Self::Down { id, .. } | Self::Left { id, .. } => *id,
        }
    }
}
