//! The data links: what probes find out about every way to every peer, and which way frames take.
//!
//! **Role.** A state machine of its own, which [`Mesh`](crate::Mesh) embeds. It sends probes in the
//! real encapsulations, judges ways by the answers, and says where frames for each peer go.
//!
//! **Inputs.** What entries say of peers, probes that arrived, probes that could not be sent, what
//! traffic there was, and `now`. **Outputs.** Probes to send, changes of links, and what this node
//! tells others: whom it reaches, and how others see it.

mod change;
mod config;
mod facts;
mod view;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use wire::PeerId;

use crate::route::Reach;

pub use change::{Encapsulation, LinkChange, Path};
pub use config::{LinkConfig, LinkLimits, LinkTiming};
pub use facts::{Activity, Gone, PeerFacts};
pub use view::{LinkState, LinkView, Quality, WayView};

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
        /// The nonce of [`ProbeToSend`].
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

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkOutput {
    /// Send a probe.
    Probe(ProbeToSend),
    /// A link changed.
    Link(LinkChange),
    /// Whom this node reaches, for its entry.
    Reach(Reach),
    /// Where others see this node's sleeve, for its entry; None if that is not known, or nothing
    /// but its own address and port.
    SleeveSeen(Option<SocketAddr>),
}

/// A probe to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeToSend {
    /// How it is wrapped; sealed if frames are.
    pub encapsulation: Encapsulation,
    /// The peer that it is for: the destination in sleeve's header.
    pub to: PeerId,
    /// Where the datagram goes: the peer's address, or a relay's.
    pub endpoint: SocketAddr,
    /// Its number, for [`LinkInput::SendFailed`].
    pub nonce: u64,
    /// The inner Ethernet frame.
    pub frame: Vec<u8>,
}
