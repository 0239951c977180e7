//! What the links want done.

use std::net::SocketAddr;

use wire::PeerId;

use super::change::{Encapsulation, LinkChange};
use crate::route::Reach;

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
    /// Its number, for [`LinkInput::SendFailed`](crate::link::LinkInput::SendFailed).
    pub nonce: u64,
    /// The inner Ethernet frame.
    pub frame: Vec<u8>,
}
