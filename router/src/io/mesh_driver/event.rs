//! What the mesh tells the node.

use mesh::{ConditionChange, Groups, LinkChange, Output};
use wire::{PeerId, PeerName};

/// What the mesh tells the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshEvent {
    /// A data link changed. Only the last change of each peer is sure to be told.
    Link(LinkChange),
    /// The multicast groups that a peer wants changed. Only the last word on each peer is sure to be told.
    Groups {
        /// Identity.
        id: PeerId,
        /// What it wants.
        groups: Groups,
    },
    /// Messages get to a peer from now on, or do not any more. Only the last word on each name is sure
    /// to be told.
    Reachable {
        /// Identity.
        id: PeerId,
        /// Name.
        name: PeerName,
        /// Whether they do.
        reachable: bool,
    },
    /// A control connection with a peer is in use, the first or a new one.
    Connected {
        /// Identity.
        id: PeerId,
        /// Name.
        name: PeerName,
    },
    /// Gossip for another part of the program. Dropped when the router is far behind: those who
    /// gossip repair what is lost.
    Gossip {
        /// Identity of the sender.
        from: PeerId,
        /// Its name.
        name: PeerName,
        /// Which part it is for.
        channel: u8,
        /// The bytes.
        payload: Vec<u8>,
    },
    /// A condition for the operator began or ended.
    Condition(ConditionChange),
    /// The key of a peer that frames are sealed for, or none: the peer is no more. Only the last word
    /// on each peer is sure to be told.
    Key {
        /// Identity, which is not checked to follow from the key.
        id: PeerId,
        /// The static public key.
        public: Option<[u8; 32]>,
    },
}

impl MeshEvent {
    /// What an output tells the node; none if it is the driver's to carry out.
    pub(super) fn of(output: Output) -> Option<Self> {
        Some(match output {
            Output::Link(change) => Self::Link(change),
            Output::Groups { id, groups } => Self::Groups { id, groups },
            Output::Reachable { id, name } => Self::Reachable {
                id,
                name,
                reachable: true,
            },
            Output::Unreachable { id, name } => Self::Reachable {
                id,
                name,
                reachable: false,
            },
            Output::Connected { id, name } => Self::Connected { id, name },
            Output::Gossip {
                from,
                name,
                channel,
                payload,
            } => Self::Gossip {
                from,
                name,
                channel,
                payload,
            },
            Output::Key { id, public } => Self::Key { id, public },
            Output::Condition(change) => Self::Condition(change),
            Output::Dial { .. } | Output::Send { .. } | Output::Close { .. } | Output::Probe(_) => {
                return None;
            }
        })
    }
}
