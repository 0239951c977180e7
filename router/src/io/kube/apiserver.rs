//! An API server for tests: the few paths that are used, over real HTTP, with conflicts, watches and
//! faults on demand. Also used by the tests of whole routers, which take this file as it is.

#![allow(dead_code, reason = "each user needs its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is to go wrong with the next request of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An error of this status.
    Status(u16),
    /// Of a watch: the version that it asks for is too old.
    Gone,
    /// Of a watch: nothing ever comes, not even the end.
    Hang,
}

#[derive(Default)]
struct Data {
    version: u64,
    nodes: BTreeMap<String, Value>,
    record: Option<Value>,
    /// What watches tell, with its version.
    history: Vec<(u64, Value)>,
    faults: Vec<(&'static str, Fault)>,
    /// Kinds of the requests that came.
    asked: Vec<&'static str>,
}

/// The handle of a server. It ends when dropped.
pub(crate) struct ApiServer {
    data: Arc<Mutex<Data>>,
    /// The version of the newest event.
    news: watch::Sender<u64>,
    pub(crate) address: SocketAddr,
    task: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Shared {
    data: Arc<Mutex<Data>>,
    news: watch::Receiver<u64>,
}

impl ApiServer {
    pub(crate) fn start() -> Self {
        Self::on(std::net::TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Serves what comes to this listener.
    pub(crate) fn on(listener: std::net::TcpListener) -> Self {
        let mut server = Self {
            data: Arc::default(),
            news: watch::Sender::new(0),
            address: listener.local_addr().unwrap(),
            task: None,
        };
        listener.set_nonblocking(true).unwrap();
        server.serve(TcpListener::from_std(listener).unwrap());
        server
    }

    /// Listens where it did before, with what it knew.
    pub(crate) async fn listen(&mut self) {
        let listener = loop {
            // The port may be held for a moment by what was cut off.
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        let shared = Shared {
            data: Arc::clone(&self.data),
            news: self.news.subscribe(),
        };
        let app = Router::new()
            .route("/api/v1/nodes", get(nodes))
            .route("/api/v1/nodes/{name}", get(node))
            .route("/api/v1/nodes/{name}/status", axum::routing::patch(status))
            .route(
                "/api/v1/namespaces/kube-system/configmaps",
                axum::routing::post(create),
            )
            .route(
                "/api/v1/namespaces/kube-system/configmaps/weft",
                get(record).patch(change),
            )
            .with_state(shared);
        self.task = Some(tokio::spawn(async move {
            axum::serve(listener, app).await.unwrap();
        }));
    }

    /// Goes away.
    pub(crate) fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Adds a node, or changes it.
    pub(crate) fn set_node(&self, name: &str, uid: &str, address: &str) {
        let mut data = self.data.lock().unwrap();
        data.version += 1;
        let version = data.version;
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "uid": uid, "resourceVersion": version.to_string()},
            "status": {"addresses": [
                {"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address},
            ]},
        });
        let known = data.nodes.insert(name.to_owned(), node.clone());
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        data.history
            .push((version, json!({"type": kind, "object": node})));
        self.news.send_replace(version);
    }

    pub(crate) fn delete_node(&self, name: &str) {
        let mut data = self.data.lock().unwrap();
        data.version += 1;
        let version = data.version;
        let node = data.nodes.remove(name).unwrap();
        data.history
            .push((version, json!({"type": "DELETED", "object": node})));
        self.news.send_replace(version);
    }

    /// The next request of this kind fails so. Faults of a kind come in order.
    pub(crate) fn fail(&self, kind: &'static str, fault: Fault) {
        self.data.lock().unwrap().faults.push((kind, fault));
    }

    /// How many requests of this kind came.
    pub(crate) fn asked(&self, kind: &str) -> usize {
        let data = self.data.lock().unwrap();
        data.asked.iter().filter(|asked| **asked == kind).count()
    }

    /// The record's keys.
    pub(crate) fn record(&self) -> BTreeMap<String, String> {
        let data = self.data.lock().unwrap();
        let record = data.record.clone().unwrap_or_default();
        serde_json::from_value(record["data"].clone()).unwrap_or_default()
    }

    pub(crate) fn node(&self, name: &str) -> Value {
        self.data.lock().unwrap().nodes[name].clone()
    }

    /// Ends all watches and forgets what they told: who comes with an old version is refused.
    pub(crate) fn compact(&self) {
        self.data.lock().unwrap().history.clear();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Notes a request; the fault that is meant for it, if any.
    fn note(&self, kind: &'static str) -> Option<Fault> {
        let mut data = self.data.lock().unwrap();
        data.asked.push(kind);
        let place = data.faults.iter().position(|(of, _)| *of == kind)?;
        Some(data.faults.remove(place).1)
    }
}

fn refusal(code: u16, reason: &str) -> Response {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": format!("the test wants a {code}"),
    });
    (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response()
}

fn faulty(fault: Option<Fault>) -> Option<Response> {
    match fault {
        Some(Fault::Status(code)) => Some(refusal(code, "Test")),
        _ => None,
    }
}

async fn nodes(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .clone()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    if parameter("watch").is_none() {
        if let Some(response) = faulty(shared.note("list")) {
            return response;
        }
        let data = shared.data.lock().unwrap();
        let items: Vec<_> = data.nodes.values().cloned().collect();
        let list = json!({
            "apiVersion": "v1", "kind": "NodeList", "items": items,
            "metadata": {"resourceVersion": data.version.to_string()},
        });
        return list.to_string().into_response();
    }
    let from: u64 = parameter("resourceVersion").map_or(0, |version| version.parse().unwrap());
    let fault = shared.note("watch");
    if let Some(response) = faulty(fault) {
        return response;
    }
    match fault {
        Some(Fault::Gone) => {
            let gone = json!({"type": "ERROR", "object": {
                "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 410,
                "reason": "Expired", "message": "too old resource version",
            }});
            format!("{gone}\n").into_response()
        }
        Some(Fault::Hang) => {
            let silence = futures::stream::pending::<Result<Bytes, Infallible>>();
            Body::from_stream(silence).into_response()
        }
        _ => {
            let seconds = parameter("timeoutSeconds").map_or(60, |text| text.parse().unwrap());
            let events = events(shared, from)
                .take_until(Box::pin(tokio::time::sleep(Duration::from_secs(seconds))));
            Body::from_stream(events).into_response()
        }
    }
}

/// The events after a version, as they come.
fn events(
    shared: Shared,
    from: u64,
) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send {
    futures::stream::unfold((shared, from), |(mut shared, from)| async move {
        loop {
            let next = {
                let data = shared.data.lock().unwrap();
                data.history
                    .iter()
                    .find(|(version, _)| *version > from)
                    .cloned()
            };
            if let Some((version, event)) = next {
                return Some((Ok(format!("{event}\n").into()), (shared, version)));
            }
            shared.news.changed().await.ok()?;
        }
    })
}

async fn node(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    if let Some(response) = faulty(shared.note("get node")) {
        return response;
    }
    match shared.data.lock().unwrap().nodes.get(&name) {
        Some(node) => {
            let partial = json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": node["metadata"],
            });
            partial.to_string().into_response()
        }
        None => refusal(404, "NotFound"),
    }
}

async fn status(State(shared): State<Shared>, Path(name): Path<String>, body: String) -> Response {
    if let Some(response) = faulty(shared.note("patch status")) {
        return response;
    }
    let mut data = shared.data.lock().unwrap();
    let patch: Value = serde_json::from_str(&body).unwrap();
    let node = data.nodes.get_mut(&name).unwrap();
    node["status"]["conditions"] = patch["status"]["conditions"].clone();
    node.to_string().into_response()
}

async fn create(State(shared): State<Shared>, body: String) -> Response {
    if let Some(response) = faulty(shared.note("create")) {
        return response;
    }
    let mut data = shared.data.lock().unwrap();
    if data.record.is_some() {
        return refusal(409, "AlreadyExists");
    }
    let mut record: Value = serde_json::from_str(&body).unwrap();
    data.version += 1;
    record["metadata"]["resourceVersion"] = json!(data.version.to_string());
    data.record = Some(record.clone());
    (StatusCode::CREATED, record.to_string()).into_response()
}

async fn record(State(shared): State<Shared>) -> Response {
    if let Some(response) = faulty(shared.note("get")) {
        return response;
    }
    match &shared.data.lock().unwrap().record {
        Some(record) => record.to_string().into_response(),
        None => refusal(404, "NotFound"),
    }
}

/// A JSON merge patch (RFC 7386) of the data, refused if it names a version that is not the newest.
async fn change(State(shared): State<Shared>, body: String) -> Response {
    if let Some(response) = faulty(shared.note("patch")) {
        return response;
    }
    let mut data = shared.data.lock().unwrap();
    let Some(mut record) = data.record.clone() else {
        return refusal(404, "NotFound");
    };
    let patch: Value = serde_json::from_str(&body).unwrap();
    let wanted = &patch["metadata"]["resourceVersion"];
    if !wanted.is_null() && *wanted != record["metadata"]["resourceVersion"] {
        return refusal(409, "Conflict");
    }
    for (key, value) in patch["data"].as_object().unwrap() {
        if value.is_null() {
            record["data"].as_object_mut().unwrap().remove(key);
        } else {
            record["data"][key] = value.clone();
        }
    }
    data.version += 1;
    record["metadata"]["resourceVersion"] = json!(data.version.to_string());
    data.record = Some(record.clone());
    record.to_string().into_response()
}
