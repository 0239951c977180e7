//! What router, command line and CNI plugin say to each other over the control socket.
//!
//! HTTP/1.1 with JSON bodies on a unix socket, by default [`DEFAULT_SOCKET`]. The types here are
//! the whole vocabulary of both sides; [`Client`] is the blocking caller that the CNI plugin and
//! the command line use. The server is the router's own.
//!
//! | method and path | request | answer |
//! | --- | --- | --- |
//! | `POST /v1/attach` | [`AttachRequest`] | [`Attachment`]; idempotent per container and interface |
//! | `POST /v1/detach` | [`DetachRequest`] | [`Detached`]; an unknown attachment is no error |
//! | `GET /v1/attachment?container_id=..&ifname=..` | | [`Attachment`], or `not_found` |
//! | `POST /v1/gc` | [`GcRequest`] | [`Collected`] |
//! | `GET /v1/status` | | [`Status`] |
//! | `POST /v1/peers/remove` | [`RemoveRequest`] | [`Removed`] |
//! | `POST /v1/peers/connect` | [`ConnectRequest`] | [`Targets`]; idempotent |
//! | `POST /v1/peers/forget` | [`ForgetRequest`] | [`Targets`]; an unknown target is no error |
//! | `POST /v1/leave` | | [`Left`]; idempotent |
//!
//! A refusal is an [`ApiError`] as the body, with the HTTP status of its code. Unknown keys are
//! ignored on both sides and new ones have defaults, so that a node survives the moment of an
//! update in which plugin and router differ by a version.

mod attach;
mod client;
mod error;
mod http;
pub mod pending;
mod remove;
mod status;
mod targets;

pub use attach::{
    AttachRequest, Attachment, AttachmentRef, Collected, DetachRequest, Detached, GcRequest,
    PodRef, ReleasedAttachment,
};
pub use client::{Client, ClientError};
pub use error::{ApiError, ErrorCode};
pub use remove::{RemoveRequest, Removed};
pub use status::{
    AllocationStatus, BlockedRange, Condition, Encapsulation, EstrangedAddress, IpamPeer,
    IpamStatus, MacStatus, NodeStatus, OverlayStatus, OwnedRange, PeerKind, PeerState, PeerStatus,
    SessionStatus, Status, WayStatus,
};
pub use targets::{
    ConnectRequest, ForgetRequest, Left, TargetSource, TargetState, TargetStatus, Targets,
};

/// Where the router listens unless `--socket` says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/weft/weft.sock";

/// Largest request or answer that either side reads, in bytes. A status of 1,000 peers and
/// 65,536 MACs is about 8 MiB; twice that is a fault, not an answer.
pub const MAX_BODY: usize = 16 << 20;

/// Paths of the interface, versioned.
pub mod path {
    /// `POST`, [`AttachRequest`](crate::AttachRequest).
    pub const ATTACH: &str = "/v1/attach";
    /// `POST`, [`DetachRequest`](crate::DetachRequest).
    pub const DETACH: &str = "/v1/detach";
    /// `GET`, with `container_id` and `ifname` in the query.
    pub const ATTACHMENT: &str = "/v1/attachment";
    /// `POST`, [`GcRequest`](crate::GcRequest).
    pub const GC: &str = "/v1/gc";
    /// `GET`, [`Status`](crate::Status).
    pub const STATUS: &str = "/v1/status";
    /// `POST`, [`RemoveRequest`](crate::RemoveRequest).
    pub const REMOVE: &str = "/v1/peers/remove";
    /// `POST`, [`ConnectRequest`](crate::ConnectRequest).
    pub const CONNECT: &str = "/v1/peers/connect";
    /// `POST`, [`ForgetRequest`](crate::ForgetRequest).
    pub const FORGET: &str = "/v1/peers/forget";
    /// `POST`, without a body.
    pub const LEAVE: &str = "/v1/leave";
}
