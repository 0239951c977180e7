//! What is known of one other node.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use wire::{PeerId, PeerName};

use crate::connection::ConnId;
use crate::dial::Dialling;
use crate::hello::Hello;

/// State of the data link to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Frames can be sent to it.
    Up,
    /// Heard of, not connected yet.
    Connecting,
    /// Was up, and its control connection has been gone for longer than the grace.
    Down,
}

/// A peer, for status and for the data path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Name.
    pub name: PeerName,
    /// Identity.
    pub id: PeerId,
    /// Where its data goes: the address of its last control connection, and its VXLAN port. None
    /// before the first connection.
    pub endpoint: Option<SocketAddr>,
    /// The other end of its control connection, or the address at which it will be dialled.
    pub control: Option<SocketAddr>,
    /// Whether a control connection is in use.
    pub connected: bool,
    /// State of the data link.
    pub state: PeerState,
    /// Why the state is not `Up`, or why control is not connected.
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

/// A known control address of a peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) address: SocketAddr,
    /// When it was last heard of or seen to work.
    pub(crate) confirmed: Duration,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: PeerName,
    pub(crate) run: u64,
    /// Its introduction, once it has been connected.
    pub(crate) hello: Option<Box<Hello>>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) dialling: Dialling,
    /// Attempts so far, which picks the address of the next.
    pub(crate) attempts: usize,
    /// The connection in use.
    pub(crate) control: Option<ConnId>,
    /// Connections on which it has introduced itself and that are not in use yet.
    pub(crate) pending: BTreeSet<ConnId>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) state: PeerState,
    pub(crate) since: Duration,
    /// Why control was lost, or the link went down.
    pub(crate) reason: Option<String>,
    /// Last time that it was connected or heard of.
    pub(crate) known: Duration,
}

impl Peer {
    pub(crate) fn new(name: PeerName, run: u64, now: Duration) -> Self {
        Self {
            name,
            run,
            hello: None,
            addresses: Vec::new(),
            dialling: Dialling::default(),
            attempts: 0,
            control: None,
            pending: BTreeSet::new(),
            endpoint: None,
            state: PeerState::Connecting,
            since: now,
            reason: None,
            known: now,
        }
    }

    /// Notes an address. Returns whether it is new, and whether another made room for it.
    pub(crate) fn learn_address(
        &mut self,
        address: SocketAddr,
        capacity: usize,
        now: Duration,
    ) -> (bool, bool) {
        if let Some(known) = self
            .addresses
            .iter_mut()
            .find(|known| known.address == address)
        {
            known.confirmed = now;
            return (false, false);
        }
        let full = self.addresses.len() >= capacity;
        if full {
            let oldest = (0..self.addresses.len()).min_by_key(|i| self.addresses[*i].confirmed);
            if let Some(oldest) = oldest {
                self.addresses.remove(oldest);
            }
        }
        self.addresses.push(Address {
            address,
            confirmed: now,
        });
        (true, full)
    }

    pub(crate) fn forget_address(&mut self, address: SocketAddr) {
        self.addresses.retain(|known| known.address != address);
    }

    /// The address confirmed last.
    pub(crate) fn best_address(&self) -> Option<SocketAddr> {
        self.addresses
            .iter()
            .max_by_key(|known| known.confirmed)
            .map(|known| known.address)
    }

    /// Goes over to another state of the data link.
    pub(crate) fn enter(&mut self, state: PeerState, reason: Option<String>, now: Duration) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
        self.reason = reason;
    }

    pub(crate) fn view(&self, id: PeerId, remote: Option<SocketAddr>, now: Duration) -> PeerView {
        PeerView {
            name: self.name.clone(),
            id,
            endpoint: self.endpoint,
            control: remote.or_else(|| self.best_address()),
            connected: self.control.is_some(),
            state: self.state,
            reason: if self.control.is_some() {
                None
            } else {
                // The reason of a lost connection says more than the dials that failed since.
                self.reason
                    .clone()
                    .or_else(|| self.dialling.failure.clone())
            },
            since: now.saturating_sub(self.since),
            mtu: self.hello.as_ref().map(|hello| hello.mtu),
            rtt: None,
            version: self.hello.as_ref().map(|hello| hello.version.clone()),
        }
    }
}
