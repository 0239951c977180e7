//! The cluster's API server: which nodes there are, who divides the range first, and who takes over
//! what a deleted node had.
//!
//! Nothing that runs depends on it: while it is away, peers stay what they were and pods are attached.
//! Only a node's very first start waits for it, to learn of the first division of the range.
//!
//! The cluster's record is one ConfigMap, [`RECORD`], in the router's own namespace:
//!
//! | key | value |
//! | --- | --- |
//! | `range` | the overlay's range |
//! | `seeds` | the node that was first, and divides it |
//! | `node.NAME` | UID of the Node of that name whose router ran last |
//! | `heir.UID` | name of the node that takes over what the node with this UID had |

mod api;
mod division;
mod keeper;

#[cfg(test)]
mod apiserver;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use api::{ApiFailure, Cluster};
pub use division::{Division, first_division};
pub use keeper::{Fabric, KeeperOptions, Report, keep};

/// Name of the ConfigMap.
pub const RECORD: &str = "weft";
/// How long one request may take. A watch may be silent for longer.
const REQUEST: Duration = Duration::from_secs(10);
