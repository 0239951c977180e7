//! Removal: a node that is gone for good gives its addresses up.

use serde::{Deserialize, Serialize};
use wire::PeerName;

/// Says that a node is gone for good: its part of the range is taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveRequest {
    /// Its name.
    pub name: PeerName,
}

/// Answer to [`RemoveRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Removed {
    /// Addresses that were taken over by this request.
    pub taken: u64,
    /// Nodes that have to confirm it before these are used; empty: they are in use.
    #[serde(default)]
    pub waiting: Vec<PeerName>,
    /// Nodes that were removed before and that the one removed now may have let in again, unheard:
    /// they have to be down still.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unheard: Vec<PeerName>,
}
