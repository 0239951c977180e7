//! Who is at the other end of the control socket.
//!
//! The socket's mode keeps others out already; the kernel's word about the peer (`SO_PEERCRED`,
//! `unix(7)`) is asked as well, because modes get changed and directories get mounted.

use axum::extract::ConnectInfo;
use axum::extract::Request;
use axum::extract::connect_info::Connected;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::serve::IncomingStream;
use control::ApiError;
use tokio::net::UnixListener;

use super::api::Refusal;
use super::bounded::Bounded;

/// The peer's user, if the kernel told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerUid(pub Option<u32>);

impl Connected<IncomingStream<'_, Bounded<UnixListener>>> for PeerUid {
    fn connect_info(stream: IncomingStream<'_, Bounded<UnixListener>>) -> Self {
        Self(
            stream
                .io()
                .get_ref()
                .peer_cred()
                .ok()
                .map(|credentials| credentials.uid()),
        )
    }
}

/// Whether a user may use the control interface: root, and the user that runs the router.
pub fn allowed(peer: PeerUid, own_uid: u32) -> bool {
    peer.0.is_some_and(|uid| uid == 0 || uid == own_uid)
}

/// Lets nobody else in.
pub(super) async fn check(
    own_uid: u32,
    ConnectInfo(peer): ConnectInfo<PeerUid>,
    request: Request,
    next: Next,
) -> Response {
    if allowed(peer, own_uid) {
        return next.run(request).await;
    }
    let who = peer
        .0
        .map_or_else(|| "an unknown user".to_owned(), |uid| format!("user {uid}"));
    tracing::warn!(peer = who, "refused a control request");
    let error = ApiError::bad_request(
        format!("{who} may not control the router"),
        format!("ask as root or as user {own_uid}, which runs it"),
    );
    Refusal {
        status: StatusCode::FORBIDDEN,
        error,
    }
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_routers_own_user_only() {
        assert!(allowed(PeerUid(Some(0)), 1000));
        assert!(allowed(PeerUid(Some(1000)), 1000));
        assert!(!allowed(PeerUid(Some(1001)), 1000));
        assert!(!allowed(PeerUid(None), 0));
    }
}
