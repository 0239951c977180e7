//! What the links are told.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use wire::PeerId;

use super::change::Encapsulation;
use super::facts::{Activity, Gone, PeerFacts};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkInput {
    /// A peer is known, or something about it changed.
    Peer {
        /// Identity.
        id: PeerId,
        /// What is known.
        facts: Arc<PeerFacts>,
    },
    /// A peer is to be forgotten.
    Gone {
        /// Identity.
        id: PeerId,
        /// Why.
        why: Gone,
    },
    /// The control path to a peer was lost: its link is probed at once. Nothing else follows from
    /// it (I5).
    Doubt(PeerId),
    /// A probe arrived.
    Probe(Arrived),
    /// A probe could not be sent.
    SendFailed {
        /// To whom.
        id: PeerId,
        /// The nonce of [`ProbeToSend`](crate::link::ProbeToSend).
        nonce: u64,
        /// Why.
        error: SendError,
    },
    /// What crossed the links since the last report, to be told about every second. Links without
    /// traffic can be left out.
    Activity(Vec<Activity>),
    /// The data path was refused a datagram of this peer as too long (EMSGSIZE).
    TooBig {
        /// Whose.
        id: PeerId,
        /// How it was wrapped.
        encapsulation: Encapsulation,
    },
    /// The MTU of the underlay's interface, which may have changed.
    UnderlayMtu(u16),
    /// This node's own addresses, which may have changed.
    Addresses(Vec<IpAddr>),
    /// Time has passed: `poll_timeout` has come.
    Timeout,
}

/// A probe that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// How it was wrapped.
    pub encapsulation: Encapsulation,
    /// The underlay address and port that it came from: the last relay's if there was one.
    pub from: SocketAddr,
    /// Whether it came through a relay: its hop limit was not that of its source.
    pub relayed: bool,
    /// The inner frame, for which `wire::probe::is_probe` holds.
    pub frame: Vec<u8>,
}

/// Why a probe could not be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// Longer than the way takes (EMSGSIZE); the path's MTU as the kernel knows it, in bytes.
    TooBig(Option<u16>),
    /// Another error, in words.
    Other(String),
}
