//! Why the address pool refused, and what that means to whoever asked over the control socket.

use std::sync::Arc;
use std::time::Duration;

use control::ApiError;
use ipam::{AllocateError, RemoveError, Universe};
use wire::PeerName;

use crate::io::ipam_store::StoreError;

/// Why a request was refused. Nothing changed, unless it was a deadline.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IpamError {
    /// The allocator has no such address to give.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    /// The store is of another range, which containers of this node still use.
    #[error(
        "--range is {wanted}, but this node has {used} addresses of {stored} in use: nothing new is handed out"
    )]
    OtherRange {
        /// The range that the addresses are of.
        stored: Universe,
        /// The range that was asked for.
        wanted: Universe,
        /// Addresses in use.
        used: usize,
    },
    /// The store is of another node, whose containers still use its addresses.
    #[error(
        "the state directory is of node {stored}, with {used} addresses in use, but this node is {wanted}: nothing new is handed out"
    )]
    OtherNode {
        /// The node that the addresses are of.
        stored: PeerName,
        /// The name that was asked for.
        wanted: PeerName,
        /// Addresses in use.
        used: usize,
    },
    /// A node cannot be removed.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// What was asked for could not be made durable.
    #[error("the record of addresses in use cannot be written: {}", chain(.0.as_ref()))]
    Store(Arc<StoreError>),
    /// No answer in time.
    #[error("no answer from the address pool within {deadline:?}")]
    Deadline {
        /// How long was waited.
        deadline: Duration,
    },
    /// The router is ending.
    #[error("the address pool has stopped")]
    Stopped,
}

impl IpamError {
    /// What whoever reads the error can do about it; empty if the text says it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Allocate(error) => error.remedy(),
            Self::OtherRange { stored, .. } => format!(
                "start it with --range {stored}, or move all containers off this node and start it again"
            ),
            Self::OtherNode { stored, wanted, .. } => {
                format!("start it with --name {stored}, or give {wanted} a --state-dir of its own")
            }
            Self::Store(_) | Self::Remove(_) => String::new(),
            Self::Deadline { .. } => "try again; if this stays, look at the disk".to_owned(),
            Self::Stopped => "start the router again".to_owned(),
        }
    }
}

impl From<StoreError> for IpamError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<IpamError> for ApiError {
    fn from(error: IpamError) -> Self {
        let (message, remedy) = (error.to_string(), error.remedy());
        match error {
            IpamError::Allocate(error) => match error {
                AllocateError::Undecided { .. }
                | AllocateError::Undivided { .. }
                | AllocateError::NotAdmitted { .. }
                | AllocateError::Unconfirmed { .. } => Self::not_ready(message, remedy),
                AllocateError::NothingOwned { .. }
                | AllocateError::SubnetOfPeers { .. }
                | AllocateError::Full { .. } => Self::no_space(message, remedy),
                AllocateError::SubnetOutside { .. }
                | AllocateError::SubnetHostBits { .. }
                | AllocateError::SubnetTooSmall { .. }
                | AllocateError::AddressOutside { .. }
                | AllocateError::AddressReserved { .. } => Self::bad_request(message, remedy),
                AllocateError::AddressOfPeer { .. }
                | AllocateError::AddressInUse { .. }
                | AllocateError::AddressWithheld { .. }
                | AllocateError::HoldsAnother { .. } => Self::conflict(message, remedy),
            },
            IpamError::OtherRange { .. } | IpamError::OtherNode { .. } | IpamError::Stopped => {
                Self::not_ready(message, remedy)
            }
            IpamError::Remove(RemoveError::Unknown { .. }) => Self::not_found(message, remedy),
            IpamError::Remove(_) => Self::conflict(message, remedy),
            IpamError::Store(_) => Self::internal(message, remedy),
            IpamError::Deadline { .. } => Self::deadline(message, remedy),
        }
    }
}

/// An error with what caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(" ({cause})"));
        source = cause.source();
    }
    text
}
