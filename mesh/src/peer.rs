//! What is known of one other node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wire::{PeerId, PeerName};

use crate::entry::Sealed;

/// State of the data link to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Frames can be sent to it.
    Up,
    /// Heard of, not reached yet.
    Connecting,
    /// Was up, and has been out of reach for longer than the grace.
    Down,
}

/// A peer, for status and for the data path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Name.
    pub name: PeerName,
    /// Identity.
    pub id: PeerId,
    /// Where its data goes. None while that is not known.
    pub endpoint: Option<SocketAddr>,
    /// The other end of its control connection, or the address at which it would be dialled.
    pub control: Option<SocketAddr>,
    /// Whether a control connection with it is in use.
    pub connected: bool,
    /// Control connections that messages for it cross: 1 if it is connected. None: it is out of
    /// reach.
    pub hops: Option<usize>,
    /// The neighbour that messages for it are handed to, if it is not connected itself.
    pub via: Option<PeerName>,
    /// State of the data link.
    pub state: PeerState,
    /// Why the state is not `Up`, or why it is out of reach.
    pub reason: Option<String>,
    /// For how long the state has been so.
    pub since: Duration,
    /// Largest IP packet of the overlay that it takes, in bytes.
    pub mtu: Option<u16>,
    /// Round trip of the last ping on the control connection.
    pub rtt: Option<Duration>,
    /// Its software version.
    pub version: Option<String>,
}

/// Why a peer does not count any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It said so.
    Left,
    /// Another identity, that can be reached, has its name: the same machine with a new key.
    Superseded,
    /// It was out of reach for too long.
    Forgotten,
}

/// That a peer does not count any more. It is kept for a while, so that late news do not bring it
/// back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) why: Why,
    pub(crate) at: Duration,
}

/// Since when a peer is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// When this node noticed.
    pub(crate) at: Duration,
    /// For how long it had been so by then, as others knew; seconds.
    before: u32,
}

impl Lost {
    pub(crate) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.at) + Duration::from_secs(self.before.into())
    }
}

/// One of the table's rows. There may be thousands in each of thousands of simulated nodes, so that
/// what concerns few of them is kept elsewhere.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) entry: Arc<Sealed>,
    /// The node before it on the way from this one; None: out of reach. The tree's own.
    pub(crate) parent: Option<PeerId>,
    /// Since when it is out of reach; None: it is not.
    pub(crate) lost: Option<Box<Lost>>,
    pub(crate) gone: Option<Box<Gone>>,
    /// Whether the other parts of the program were told that messages get to it.
    pub(crate) told: bool,
    /// Whether it was out of reach for so long that what is known of it may be old.
    pub(crate) doubted: bool,
    /// Whether another node that can be reached has the same name, and comes first.
    pub(crate) rival: bool,
    /// Whether the data path was told of groups that it wants, and not that it wants all.
    pub(crate) selective: bool,
    pub(crate) state: PeerState,
    pub(crate) since: Duration,
    pub(crate) endpoint: Option<SocketAddr>,
    /// Whether its entry says something of the link that the data path was not told.
    pub(crate) stale: bool,
    /// Why it is out of reach, or its link is down.
    pub(crate) reason: Option<Box<str>>,
}

impl Peer {
    /// A peer that others tell of, and that was out of reach for `idle` as they know.
    pub(crate) fn new(entry: Arc<Sealed>, idle: Duration, now: Duration) -> Self {
        Self {
            entry,
            parent: None,
            lost: Some(Box::new(Lost {
                at: now,
                before: u32::try_from(idle.as_secs()).unwrap_or(u32::MAX),
            })),
            gone: None,
            told: false,
            doubted: false,
            rival: false,
            selective: false,
            state: PeerState::Connecting,
            since: now,
            endpoint: None,
            stale: false,
            reason: None,
        }
    }

    pub(crate) const fn is_reachable(&self) -> bool {
        self.parent.is_some()
    }

    /// Whether frames are sent to it.
    pub(crate) fn is_up(&self) -> bool {
        self.state == PeerState::Up
    }

    /// It can be reached.
    pub(crate) fn found(&mut self) {
        self.lost = None;
        self.reason = None;
    }

    /// It cannot be reached any more.
    pub(crate) fn lose(&mut self, now: Duration) {
        self.lost = Some(Box::new(Lost { at: now, before: 0 }));
    }

    /// For how long it has been out of reach.
    pub(crate) fn idle(&self, now: Duration) -> Duration {
        self.lost
            .as_ref()
            .map_or(Duration::ZERO, |lost| lost.age(now))
    }

    /// Goes over to another state of the data link.
    pub(crate) fn enter(&mut self, state: PeerState, now: Duration) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }
}
