//! A link, for status.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use wire::{PeerId, PeerName};

use super::change::{Encapsulation, Path};

/// State of a link, or of one way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Not tried, or no answer yet.
    Connecting,
    /// Probes come back, small ones and those of full size.
    Up,
    /// Some do not: too many are lost, or only small ones pass.
    Degraded,
    /// None does.
    Down,
}

impl LinkState {
    /// As status and metrics show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// The link to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// Identity.
    pub id: PeerId,
    /// Name.
    pub name: PeerName,
    /// The way that frames take; None while there is none.
    pub path: Option<Path>,
    /// State of that way, or of all.
    pub state: LinkState,
    /// Why the state is not `Up`.
    pub reason: Option<String>,
    /// For how long the state has been so.
    pub since: Duration,
    /// What is measured on that way.
    pub quality: Quality,
    /// Every way that is known, the one in use among them.
    pub ways: Vec<WayView>,
}

/// One way to a peer: an encapsulation, directly or through a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayView {
    /// How frames are wrapped.
    pub encapsulation: Encapsulation,
    /// The relay; None: directly.
    pub relay: Option<PeerId>,
    /// Whether frames take it.
    pub chosen: bool,
    /// The subnet that both sides trust, for which frames are in the clear though others are sealed.
    pub plain: Option<IpNet>,
    /// Where datagrams go. None while that is not known.
    pub endpoint: Option<SocketAddr>,
    /// State.
    pub state: LinkState,
    /// Why the state is not `Up`.
    pub reason: Option<String>,
    /// For how long the state has been so.
    pub since: Duration,
    /// What is measured.
    pub quality: Quality,
}

/// What probes measure on a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quality {
    /// Smoothed round trip (RFC 6298 §2), the router's own time included.
    pub rtt: Option<Duration>,
    /// Shortest round trip seen.
    pub rtt_min: Option<Duration>,
    /// Lost probes of the last ones, in percent.
    pub loss: Option<u8>,
    /// Largest inner IP packet that gets through, in bytes.
    pub mtu: Option<u16>,
}
