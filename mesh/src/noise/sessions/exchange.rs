//! What goes into the state machine and what comes out.

use std::net::SocketAddr;
use std::time::Duration;

use wire::PeerId;

use crate::noise::keys::{CipherChoice, SessionKeys};
use crate::noise::secret::Psk;

/// What happens to sessions.
#[derive(Debug)]
pub enum SessionInput<'a> {
    /// A peer exists, and this is its key.
    Peer {
        /// Identity.
        id: PeerId,
        /// Public key, which the identity follows from.
        public: [u8; 32],
    },
    /// A peer is no more.
    Gone(PeerId),
    /// A frame waits for a session.
    Want(PeerId),
    /// A peer sealed something with a key that is not known here: one side has lost a session.
    Lost(PeerId),
    /// A datagram was opened, the first with the key of this epoch.
    Used {
        /// Whose.
        id: PeerId,
        /// The key.
        epoch: u16,
    },
    /// Datagrams crossed the session of a peer.
    Active {
        /// Whose.
        id: PeerId,
        /// How many were sealed with the present key so far.
        sealed: u64,
        /// Whether any was opened since the last time.
        opened: bool,
    },
    /// A handshake message came.
    Received {
        /// Who made it, as the sleeve header says: not proven yet.
        from: PeerId,
        /// Where it came from on the underlay: the peer, or the last relay.
        origin: SocketAddr,
        /// What follows the sleeve header.
        message: &'a [u8],
    },
    /// The passwords are others now. Sessions that rest on none of them end.
    Passwords(Vec<Psk>),
    /// The time of [`Sessions::poll_timeout`](super::Sessions::poll_timeout) has come.
    Timeout,
}

/// Which way a handshake message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// As frames for the peer do; while it has no link, to wherever the peer may be.
    Link,
    /// Back to where that came from which it answers.
    Back(SocketAddr),
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum SessionOutput {
    /// Send a handshake message, sleeve kind 3.
    Send {
        /// For whom.
        to: PeerId,
        /// Which way.
        route: Route,
        /// What follows the sleeve header.
        message: Vec<u8>,
    },
    /// The keys for a peer are these now.
    Keys {
        /// Whose.
        id: PeerId,
        /// All that are in use.
        keys: SessionKeys,
    },
    /// Send an empty sealed frame, by which the peer learns that this node has the key.
    Confirm(PeerId),
}

/// A session, for the status page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionView {
    /// Cipher of what this node seals.
    pub cipher: CipherChoice,
    /// Since the handshake.
    pub age: Duration,
}
