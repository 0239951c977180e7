//! Targets: addresses of other nodes at which this one is told to find the network.

use serde::{Deserialize, Serialize};
use wire::PeerId;

/// Names addresses of other nodes, from now on and after every restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectRequest {
    /// `HOST[:PORT]`; the port is the node's own control port unless given.
    pub targets: Vec<String>,
    /// Whether these are all that there is from now on: others are taken back.
    #[serde(default)]
    pub replace: bool,
}

/// Takes addresses back, from now on and after every restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetRequest {
    /// As in [`ConnectRequest::targets`].
    pub targets: Vec<String>,
}

/// Answer to [`ConnectRequest`] and [`ForgetRequest`]: the targets as they are now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Targets {
    /// All of them, `HOST:PORT`, sorted.
    pub targets: Vec<String>,
    /// Those of the request that were no targets, `HOST:PORT`.
    #[serde(default)]
    pub unknown: Vec<String>,
}

/// Answer to a leave.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Left {
    /// Addresses that other nodes own now.
    pub given: u64,
    /// Addresses that this node owns still, those that its containers use among them.
    pub kept: u64,
}

/// A target and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// `HOST:PORT`.
    pub target: String,
    /// Who named it.
    pub source: TargetSource,
    /// What becomes of it.
    pub state: TargetState,
    /// The node that answers there, if its name is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<PeerId>,
    /// Time until it is dialled, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_secs: Option<u64>,
    /// Why it was not reached when it was last dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Who named a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetSource {
    /// The settings (`--peer`).
    Settings,
    /// `weft connect`.
    Connect,
    /// The Kubernetes cluster.
    Cluster,
}

impl TargetSource {
    /// As status shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "--peer",
            Self::Connect => "weft connect",
            Self::Cluster => "cluster",
        }
    }
}

/// What becomes of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// Will be dialled.
    Waiting,
    /// Is being dialled.
    Connecting,
    /// Is an address of a node that is known; it is dialled while that one is out of reach.
    Found,
    /// Is this node itself.
    Myself,
}

impl TargetState {
    /// As status shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Found => "found",
            Self::Myself => "this node",
        }
    }
}
