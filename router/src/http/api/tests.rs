use std::path::{Path, PathBuf};

use axum::extract::connect_info::MockConnectInfo;
use control::{
    Attachment, Client, ClientError, Collected, Detached, ErrorCode, Left, Removed, Status, Targets,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::super::bounded::Bounded;
use super::super::socket;
use super::*;

/// Knows the container `pod` alone, and never ends with the container `slow`.
struct Fake;

impl ControlService for Fake {
    async fn attach(&self, request: AttachRequest) -> Result<Attachment, ApiError> {
        match request.container_id.as_str() {
            "pod" => Ok(attached()),
            "slow" => std::future::pending().await,
            _ => Err(ApiError::no_space(
                "10.32.0.0/12 is full",
                "give a larger --range",
            )),
        }
    }

    async fn detach(&self, _request: DetachRequest) -> Result<Detached, ApiError> {
        Ok(Detached::default())
    }

    async fn attachment(&self, of: AttachmentRef) -> Result<Attachment, ApiError> {
        if of.container_id == "pod" {
            return Ok(attached());
        }
        Err(ApiError::not_found("no such attachment", ""))
    }

    async fn gc(&self, _request: GcRequest) -> Result<Collected, ApiError> {
        Ok(Collected::default())
    }

    async fn remove(&self, request: RemoveRequest) -> Result<Removed, ApiError> {
        Ok(Removed {
            taken: 256,
            waiting: vec![request.name],
            unheard: Vec::new(),
        })
    }

    async fn connect(&self, request: ConnectRequest) -> Result<Targets, ApiError> {
        Ok(Targets {
            targets: request.targets,
            unknown: Vec::new(),
        })
    }

    async fn forget(&self, request: ForgetRequest) -> Result<Targets, ApiError> {
        Ok(Targets {
            targets: Vec::new(),
            unknown: request.targets,
        })
    }

    async fn leave(&self) -> Result<Left, ApiError> {
        Ok(Left {
            given: 255,
            kept: 1,
        })
    }

    async fn status(&self) -> Result<Status, ApiError> {
        Ok(crate::status::sample::status())
    }
}

fn attached() -> Attachment {
    Attachment {
        addresses: vec!["10.32.0.7/12".parse().unwrap()],
        gateways: vec!["10.32.0.1".parse().unwrap()],
        range: vec!["10.32.0.0/12".parse().unwrap()],
        mtu: 1450,
        bridge: "weft".to_owned(),
    }
}

/// A server on a socket in a directory of its own.
struct Server {
    _dir: tempfile::TempDir,
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen(
    connections: usize,
) -> (
    tempfile::TempDir,
    PathBuf,
    Bounded<tokio::net::UnixListener>,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.sock");
    let listener = socket::bind(&path).unwrap();
    (
        dir,
        path,
        Bounded::new(listener, connections, CONNECTION_LIFETIME),
    )
}

fn serve(connections: usize) -> Server {
    let (dir, path, listener) = listen(connections);
    let own_uid = nix::unistd::geteuid().as_raw();
    let app = router(Arc::new(Fake), own_uid).into_make_service_with_connect_info::<PeerUid>();
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Server {
        _dir: dir,
        path,
        task,
    }
}

/// Sends bytes as they are and reads the answer to its end.
async fn raw(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn post_raw(path: &Path, target: &str, body: &str) -> String {
    let length = body.len();
    let head = format!(
        "POST {target} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    raw(path, (head + body).as_bytes()).await
}

async fn client<T: Send + 'static>(
    server: &Server,
    call: impl FnOnce(Client) -> Result<T, ClientError> + Send + 'static,
) -> Result<T, ClientError> {
    let client = Client::new(&server.path, Duration::from_secs(5));
    tokio::task::spawn_blocking(move || call(client))
        .await
        .unwrap()
}

fn request(container_id: &str) -> AttachRequest {
    AttachRequest {
        container_id: container_id.to_owned(),
        ifname: "eth0".to_owned(),
        ..AttachRequest::default()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    match result.unwrap_err() {
        ClientError::Api(error) => error.code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_client_and_the_server_agree_on_every_path() {
    let server = serve(8);
    assert_eq!(
        client(&server, |c| c.attach(&request("pod")))
            .await
            .unwrap(),
        attached()
    );
    assert_eq!(
        code(client(&server, |c| c.attach(&request("other"))).await),
        ErrorCode::NoSpace
    );
    let of = |id: &str| AttachmentRef {
        container_id: id.to_owned(),
        ifname: "eth0".to_owned(),
    };
    let (known, unknown) = (of("pod"), of("other"));
    let detach = DetachRequest {
        container_id: "gone".to_owned(),
        ifname: "eth0".to_owned(),
    };
    assert_eq!(
        client(&server, move |c| c.attachment(&known))
            .await
            .unwrap(),
        attached()
    );
    assert_eq!(
        code(client(&server, move |c| c.attachment(&unknown)).await),
        ErrorCode::NotFound
    );
    let detached = client(&server, move |c| c.detach(&detach)).await.unwrap();
    assert_eq!(detached, Detached::default());
    let collected = client(&server, |c| c.gc(&GcRequest::default()))
        .await
        .unwrap();
    assert_eq!(collected, Collected::default());
    let status = client(&server, |c| c.status()).await.unwrap();
    assert_eq!(status, crate::status::sample::status());
}

#[tokio::test]
async fn refusals_are_json_with_a_remedy() {
    let server = serve(8);
    for (target, body, status, says) in [
        ("/v1/attach", "{", 400, "send the JSON object"),
        ("/v1/attach", "", 400, "send the JSON object"),
        ("/v1/attach", "[1]", 400, "send the JSON object"),
        (
            "/v1/attach",
            r#"{"container_id":"","ifname":"eth0"}"#,
            400,
            "container_id",
        ),
        (
            "/v1/attach",
            r#"{"container_id":"weft:bridge","ifname":"weft"}"#,
            400,
            "container_id",
        ),
        (
            "/v1/detach",
            r#"{"container_id":"a","ifname":"a/b"}"#,
            400,
            "ifname",
        ),
        ("/v1/detach", r#"{"container_id":"a"}"#, 400, "ifname"),
        ("/v2/attach", "{}", 404, "/v2/attach"),
        ("/v1/status", "{}", 405, "GET"),
    ] {
        let answer = post_raw(&server.path, target, body).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{target} {body}: {answer}"
        );
        let (_, json) = answer.split_once("\r\n\r\n").unwrap();
        let error: ApiError = serde_json::from_str(json).unwrap();
        assert!(error.to_string().contains(says), "{target} {body}: {error}");
        assert!(!error.remedy.is_empty(), "{error}");
    }
    let answer = raw(
        &server.path,
        b"GET /v1/attachment?container_id=a HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("ifname"),
        "{answer}"
    );
}

#[tokio::test]
async fn i6_a_large_request_is_refused_unread() {
    let server = serve(8);
    let body = "x".repeat(MAX_REQUEST + 1);
    let answer = post_raw(&server.path, "/v1/attach", &body).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("larger than 1048576 bytes"), "{answer}");
    let lie = "POST /v1/attach HTTP/1.1\r\nhost: w\r\ncontent-length: 4294967296\r\n\r\n{}";
    let answer = raw(&server.path, lie.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn i6_what_is_not_http_closes_only_its_own_connection() {
    let server = serve(8);
    for bytes in [&b"\0\x01\x02\r\n\r\n"[..], b"GET", b"", &[0xff; 70_000]] {
        let mut stream = UnixStream::connect(&server.path).await.unwrap();
        let _ = stream.write_all(bytes).await;
        drop(stream);
    }
    assert!(client(&server, |c| c.status()).await.is_ok());
}

#[tokio::test]
async fn others_than_root_and_the_owner_get_403() {
    let (_dir, path, listener) = listen(8);
    let app = router(Arc::new(Fake), 1000).layer(MockConnectInfo(PeerUid(Some(1001))));
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let answer = post_raw(
        &path,
        "/v1/attach",
        r#"{"container_id":"pod","ifname":"eth0"}"#,
    )
    .await;
    task.abort();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let (_, json) = answer.split_once("\r\n\r\n").unwrap();
    let error: ApiError = serde_json::from_str(json).unwrap();
    assert!(
        error.message.contains("user 1001") && error.remedy.contains("user 1000"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_end_is_answered_at_its_deadline() {
    let server = serve(8);
    let answer = post_raw(
        &server.path,
        "/v1/attach",
        r#"{"container_id":"slow","ifname":"e"}"#,
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.contains("\"code\":\"deadline\""), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn i6_connections_that_say_nothing_make_room_in_time() {
    let server = serve(2);
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(UnixStream::connect(&server.path).await.unwrap());
    }
    let get = b"GET /v1/status HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n";
    let answer = raw(&server.path, get).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
