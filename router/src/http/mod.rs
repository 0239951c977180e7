//! The router's HTTP: the control interface on a unix socket, metrics and health on TCP.
//!
//! Both servers are bounded: so many connections at once, each for so long. What waits beyond that
//! waits in the kernel's backlog.

pub mod api;
pub mod bounded;
pub mod creds;
pub mod health;
pub mod metrics;
pub mod socket;

use std::future::Future;

use control::{
    ApiError, AttachRequest, Attachment, AttachmentRef, Collected, ConnectRequest, DetachRequest,
    Detached, ForgetRequest, GcRequest, Left, RemoveRequest, Removed, Status, Targets,
};

/// What the control interface asks of the node.
pub trait ControlService: Send + Sync + 'static {
    /// Hands out the addresses of an interface; the same ones when asked again.
    fn attach(
        &self,
        request: AttachRequest,
    ) -> impl Future<Output = Result<Attachment, ApiError>> + Send;

    /// Takes them back.
    fn detach(
        &self,
        request: DetachRequest,
    ) -> impl Future<Output = Result<Detached, ApiError>> + Send;

    /// What an interface was given.
    fn attachment(
        &self,
        of: AttachmentRef,
    ) -> impl Future<Output = Result<Attachment, ApiError>> + Send;

    /// Takes back what no listed interface holds.
    fn gc(&self, request: GcRequest) -> impl Future<Output = Result<Collected, ApiError>> + Send;

    /// Takes over what a node that is gone for good owns.
    fn remove(
        &self,
        request: RemoveRequest,
    ) -> impl Future<Output = Result<Removed, ApiError>> + Send;

    /// Names targets.
    fn connect(
        &self,
        request: ConnectRequest,
    ) -> impl Future<Output = Result<Targets, ApiError>> + Send;

    /// Takes targets back.
    fn forget(
        &self,
        request: ForgetRequest,
    ) -> impl Future<Output = Result<Targets, ApiError>> + Send;

    /// Takes the node out of the network.
    fn leave(&self) -> impl Future<Output = Result<Left, ApiError>> + Send;

    /// What the node knows about itself.
    fn status(&self) -> impl Future<Output = Result<Status, ApiError>> + Send;
}
