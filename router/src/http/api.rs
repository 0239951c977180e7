//! The control interface: `control`'s paths and types over HTTP/1.1 on a unix socket.
//!
//! Every answer is JSON, refusals included. A request has a size and a time; nothing that comes in
//! can make a handler panic or wait for ever (I6).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use control::{
    ApiError, AttachRequest, AttachmentRef, ConnectRequest, DetachRequest, ForgetRequest,
    GcRequest, RemoveRequest, path,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ControlService;
use super::creds::{self, PeerUid};

/// Largest request, in bytes: a collection that keeps 5,000 attachments fits.
pub const MAX_REQUEST: usize = 1 << 20;
/// Requests at once, one to a connection: more than a node has pods that start together.
pub const MAX_CONNECTIONS: usize = 256;
/// How long a request may take, from its head to its answer.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection may live, idle time included.
pub const CONNECTION_LIFETIME: Duration = Duration::from_secs(30);

/// The interface's routes over a service, for callers that run as root or as `own_uid`.
pub fn router<S: ControlService>(service: Arc<S>, own_uid: u32) -> Router {
    Router::new()
        .route(path::ATTACH, post(attach::<S>))
        .route(path::DETACH, post(detach::<S>))
        .route(path::ATTACHMENT, get(attachment::<S>))
        .route(path::GC, post(gc::<S>))
        .route(path::STATUS, get(status::<S>))
        .route(path::REMOVE, post(remove::<S>))
        .route(path::CONNECT, post(connect::<S>))
        .route(path::FORGET, post(forget::<S>))
        .route(path::LEAVE, post(leave::<S>))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .layer(middleware::from_fn(deadline))
        .layer(middleware::from_fn(
            move |peer: ConnectInfo<PeerUid>, request: Request, next: Next| {
                creds::check(own_uid, peer, request, next)
            },
        ))
        .with_state(service)
}

async fn attach<S: ControlService>(
    State(service): State<Arc<S>>,
    Body(request): Body<AttachRequest>,
) -> Result<Response, Refusal> {
    check_ref(&request.container_id, &request.ifname)?;
    answer(&service.attach(request).await?)
}

async fn detach<S: ControlService>(
    State(service): State<Arc<S>>,
    Body(request): Body<DetachRequest>,
) -> Result<Response, Refusal> {
    check_ref(&request.container_id, &request.ifname)?;
    answer(&service.detach(request).await?)
}

async fn attachment<S: ControlService>(
    State(service): State<Arc<S>>,
    query: Result<Query<AttachmentRef>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(of) = query.map_err(|rejection| {
        ApiError::bad_request(
            rejection.body_text(),
            "give container_id and ifname in the query",
        )
    })?;
    check_ref(&of.container_id, &of.ifname)?;
    answer(&service.attachment(of).await?)
}

async fn gc<S: ControlService>(
    State(service): State<Arc<S>>,
    Body(request): Body<GcRequest>,
) -> Result<Response, Refusal> {
    answer(&service.gc(request).await?)
}

async fn remove<S: ControlService>(
    State(service): State<Arc<S>>,
    Body(request): Body<RemoveRequest>,
) -> Result<Response, Refusal> {
    answer(&service.remove(request).await?)
}

async fn connect<S: ControlService>(
    State(service): State<Arc<S>>,
    Body(request): Body<ConnectRequest>,
) -> Result<Response, Refusal> {
    answer(&service.connect(request).await?)
}

async fn forget<S: ControlService>(
    State(service): State<Arc<S>>,
    Body(request): Body<ForgetRequest>,
) -> Result<Response, Refusal> {
    answer(&service.forget(request).await?)
}

async fn leave<S: ControlService>(State(service): State<Arc<S>>) -> Result<Response, Refusal> {
    answer(&service.leave().await?)
}

async fn status<S: ControlService>(State(service): State<Arc<S>>) -> Result<Response, Refusal> {
    answer(&service.status().await?)
}

async fn no_such_path(request: Request) -> Refusal {
    ApiError::not_found(
        format!("there is no {} here", request.uri().path()),
        "the paths begin with /v1/; is the caller of a newer version?",
    )
    .into()
}

async fn no_such_method(request: Request) -> Refusal {
    let error = ApiError::bad_request(
        format!("{} is not for {}", request.method(), request.uri().path()),
        "status and attachment are read with GET, the others are POST",
    );
    Refusal {
        status: StatusCode::METHOD_NOT_ALLOWED,
        error,
    }
}

async fn deadline(request: Request, next: Next) -> Response {
    let what = request.uri().path().to_owned();
    match tokio::time::timeout(DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!(path = what, deadline = ?DEADLINE, "a request took too long");
            let message = format!("{what} was not done within {DEADLINE:?}");
            Refusal::from(ApiError::deadline(
                message,
                "try again; the router's log may say why",
            ))
            .into_response()
        }
    }
}

/// Names of an attachment as the runtime gives them. The router's own have a colon, which no
/// container identifier has (CNI spec 1.1.0, `CNI_CONTAINERID`).
fn check_ref(container_id: &str, ifname: &str) -> Result<(), ApiError> {
    let id_char = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    const MAX: usize = AttachmentRef::MAX_CONTAINER_ID;
    if !(1..=MAX).contains(&container_id.len()) || !container_id.bytes().all(id_char) {
        return Err(ApiError::bad_request(
            format!(
                "container_id {:?} is not a container's identifier",
                shorten(container_id)
            ),
            format!("use 1 to {MAX} letters, digits, '-', '_' and '.'"),
        ));
    }
    let name_char = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
    if !(1..=15).contains(&ifname.len()) || !ifname.bytes().all(name_char) {
        return Err(ApiError::bad_request(
            format!("ifname {:?} is not an interface's name", shorten(ifname)),
            "use 1 to 15 characters without '/', ':' and spaces",
        ));
    }
    Ok(())
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A refusal and the HTTP status that goes with it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: ApiError,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let status = StatusCode::from_u16(error.code.http_status());
        Self {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            error,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // A refusal is made of texts, which JSON can always hold.
        let body = serde_json::to_vec(&self.error).unwrap_or_default();
        (
            self.status,
            [(header::CONTENT_TYPE, "application/json")],
            body,
        )
            .into_response()
    }
}

fn answer<T: Serialize>(value: &T) -> Result<Response, Refusal> {
    let body = serde_json::to_vec(value).map_err(|error| {
        ApiError::internal(format!("the answer cannot be written: {error}"), "")
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A JSON body, whatever the request calls it: the callers are ours, and `curl` says "form".
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        // One that says so itself is not read first.
        let announced = request.headers().get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > MAX_REQUEST) {
            return Err(too_large());
        }
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                let status = rejection.status();
                if status == StatusCode::PAYLOAD_TOO_LARGE {
                    return too_large();
                }
                let error = ApiError::bad_request(rejection.body_text(), "send the whole body");
                Refusal { status, error }
            })?;
        match axum::Json::<T>::from_bytes(&bytes) {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(not_json(&rejection).into()),
        }
    }
}

fn too_large() -> Refusal {
    let message = format!("the request is larger than {MAX_REQUEST} bytes");
    let error = ApiError::bad_request(message, "send less at a time");
    Refusal {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        error,
    }
}

fn not_json(rejection: &JsonRejection) -> ApiError {
    ApiError::bad_request(
        rejection.body_text(),
        "send the JSON object that the path asks for",
    )
}

#[cfg(test)]
mod tests;
