//! Whom to dial next, and what became of it.

use std::fmt;
use std::time::Duration;

use wire::PeerId;

use crate::backoff::Backoff;
use crate::connection::ConnId;
use crate::target::Target;

/// On whose behalf a connection is dialled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Candidate {
    /// A target that the operator named, of which it is not known whose it is.
    Target(Target),
    /// A peer that is known, at one of its addresses.
    Peer(PeerId),
}

/// The dialling of one candidate.
#[derive(Debug, Default)]
pub(crate) struct Dialling {
    pub(crate) backoff: Backoff,
    /// The dial or handshake under way.
    pub(crate) conn: Option<ConnId>,
    /// Whether it waits for its turn.
    pub(crate) queued: bool,
    /// Why the last attempt failed.
    pub(crate) failure: Option<String>,
    /// Attempts so far, which picks the address of the next.
    pub(crate) attempts: usize,
}

impl Dialling {
    /// Whether a dial is under way or waits for its turn.
    pub(crate) const fn is_busy(&self) -> bool {
        self.conn.is_some() || self.queued
    }

    /// Whether others should be taken for the time being.
    pub(crate) const fn has_failed(&self) -> bool {
        self.backoff.failures() >= ENOUGH
    }
}

/// Attempts after which a peer that does not answer is passed over for another.
const ENOUGH: u32 = 2;

/// A target that the operator named.
#[derive(Debug, Default)]
pub(crate) struct TargetEntry {
    pub(crate) dialling: Dialling,
    /// Who answered there last. While that peer can be reached the target is not dialled.
    pub(crate) peer: Option<PeerId>,
    /// It turned out to be this node.
    pub(crate) myself: bool,
    /// Not named by the operator: an address that an earlier run knew, or that a node named which is
    /// full.
    pub(crate) remembered: bool,
    /// A remembered one that has this one dial left: there is a connection since.
    pub(crate) once_more: bool,
}

/// Why a dial reached nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialError {
    /// All addresses of the name were to be avoided: they are this node's own.
    OnlyMyself,
    /// What the system says, with the address.
    Failed(String),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyMyself => f.write_str("leads to this node only"),
            Self::Failed(text) => f.write_str(text),
        }
    }
}

/// What becomes of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetState {
    /// Will be dialled.
    Waiting,
    /// Is being dialled.
    Connecting,
    /// Is an address of this peer, which is known.
    Peer(PeerId),
    /// Is this node itself.
    Myself,
}

/// A target, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetView {
    /// The target.
    pub target: Target,
    /// What becomes of it.
    pub state: TargetState,
    /// Why the last dial failed.
    pub reason: Option<String>,
    /// Time until the next dial.
    pub retry_in: Option<Duration>,
}
