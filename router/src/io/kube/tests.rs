use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use wire::PeerName;

use super::apiserver::{ApiServer, Fault};
use super::*;

/// How long a thing that takes milliseconds may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_millis(300);

/// A router that only remembers what it is told.
#[derive(Default)]
struct Recorder {
    connected: Mutex<BTreeSet<IpAddr>>,
    members: Mutex<BTreeSet<PeerName>>,
    removed: Mutex<Vec<PeerName>>,
    /// Whether a removal is confirmed by the others at once.
    unconfirmed: AtomicBool,
    ready: AtomicBool,
    report: Mutex<Option<Report>>,
}

impl Fabric for Arc<Recorder> {
    async fn connect(&self, address: IpAddr) {
        assert!(self.connected.lock().unwrap().insert(address));
    }

    async fn forget(&self, address: IpAddr) {
        assert!(self.connected.lock().unwrap().remove(&address));
    }

    async fn members(&self) -> Vec<PeerName> {
        self.members.lock().unwrap().iter().cloned().collect()
    }

    async fn remove(&self, name: PeerName) -> Result<bool, String> {
        let confirmed = !self.unconfirmed.load(Relaxed);
        if confirmed {
            self.members.lock().unwrap().remove(&name);
        }
        self.removed.lock().unwrap().push(name);
        Ok(confirmed)
    }

    async fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    fn report(&self, report: Report) {
        *self.report.lock().unwrap() = Some(report);
    }
}

/// A keeper that runs until it is dropped.
struct Running {
    fabric: Arc<Recorder>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(server: &ApiServer, me: &str, members: &[&str]) -> Self {
        let fabric = Arc::new(Recorder::default());
        *fabric.members.lock().unwrap() = members.iter().map(|n| n.parse().unwrap()).collect();
        let options = KeeperOptions {
            me: me.parse().unwrap(),
            within: None,
            watch_secs: 1,
            turn: Duration::from_millis(20),
            grace: GRACE,
            quiet: Duration::from_secs(2),
        };
        let (cluster, told) = (client(server), Arc::clone(&fabric));
        let task = tokio::spawn(async move { keep(cluster, options, &told).await });
        Self { fabric, task }
    }

    fn connected(&self) -> Vec<String> {
        let connected = self.fabric.connected.lock().unwrap();
        connected.iter().map(ToString::to_string).collect()
    }

    fn removed(&self) -> Vec<String> {
        let removed = self.fabric.removed.lock().unwrap();
        removed.iter().map(ToString::to_string).collect()
    }

    async fn until_connected(&self, wanted: &[&str]) {
        eventually("the peers are as they should be", || {
            self.connected() == wanted
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn eventually(what: &str, mut answer: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !answer() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn three_nodes() -> ApiServer {
    let server = ApiServer::start();
    for (number, name) in (1..).zip(["a", "b", "c"]) {
        server.set_node(name, &format!("uid-{name}"), &format!("192.0.2.{number}"));
    }
    server
}

fn client(server: &ApiServer) -> Cluster {
    let uri = format!("http://{}", server.address).parse().unwrap();
    let mut config = kube::Config::new(uri);
    config.default_namespace = "kube-system".to_owned();
    Cluster::of(config)
}

async fn divide(server: &ApiServer, me: &str) -> Result<Division, ApiFailure> {
    let dir = tempfile::tempdir().unwrap();
    let range = "10.32.0.0/12".parse().unwrap();
    first_division(&client(server), &me.parse().unwrap(), range, dir.path()).await
}

#[tokio::test]
async fn nodes_that_join_are_connected_and_those_that_leave_forgotten() {
    let server = three_nodes();
    let running = Running::start(&server, "a", &[]);
    running.until_connected(&["192.0.2.2", "192.0.2.3"]).await;
    server.set_node("d", "uid-d", "192.0.2.4");
    running
        .until_connected(&["192.0.2.2", "192.0.2.3", "192.0.2.4"])
        .await;
    server.delete_node("c");
    running.until_connected(&["192.0.2.2", "192.0.2.4"]).await;
    // One whose address changes.
    server.set_node("b", "uid-b", "192.0.2.20");
    running.until_connected(&["192.0.2.4", "192.0.2.20"]).await;
}

#[tokio::test]
async fn i5_an_api_server_that_errs_takes_no_peer_away() {
    let server = three_nodes();
    for status in [401, 403, 429, 500] {
        server.fail("list", Fault::Status(status));
    }
    let running = Running::start(&server, "a", &[]);
    running.until_connected(&["192.0.2.2", "192.0.2.3"]).await;
    // The watch's version is too old, and what happened meanwhile is lost: a new list tells.
    for fault in [
        Fault::Gone,
        Fault::Status(410),
        Fault::Status(500),
        Fault::Status(403),
    ] {
        server.fail("watch", fault);
    }
    server.delete_node("c");
    server.compact();
    eventually("all faults came", || server.asked("watch") > 4).await;
    running.until_connected(&["192.0.2.2"]).await;
    eventually("it says that all is well again", || {
        *running.fabric.report.lock().unwrap() == Some(Report::Well)
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_hangs_is_given_up() {
    let server = three_nodes();
    server.fail("watch", Fault::Hang);
    let running = Running::start(&server, "a", &[]);
    running.until_connected(&["192.0.2.2", "192.0.2.3"]).await;
    server.set_node("d", "uid-d", "192.0.2.4");
    running
        .until_connected(&["192.0.2.2", "192.0.2.3", "192.0.2.4"])
        .await;
    assert!(server.asked("watch") > 1);
}

#[tokio::test]
async fn i5_without_an_api_server_everything_stays() {
    let mut server = three_nodes();
    let running = Running::start(&server, "a", &["b", "c", "x"]);
    running.until_connected(&["192.0.2.2", "192.0.2.3"]).await;
    server.stop();
    eventually("it is noticed", || {
        matches!(
            *running.fabric.report.lock().unwrap(),
            Some(Report::Trouble(_))
        )
    })
    .await;
    tokio::time::sleep(2 * GRACE).await;
    assert_eq!(running.connected(), ["192.0.2.2", "192.0.2.3"]);
    assert!(running.removed().is_empty());
    server.set_node("d", "uid-d", "192.0.2.4");
    server.listen().await;
    running
        .until_connected(&["192.0.2.2", "192.0.2.3", "192.0.2.4"])
        .await;
}

/// A list that lacks the asking node itself is a fault of somebody.
#[tokio::test]
async fn a_list_without_this_node_is_not_believed() {
    let server = three_nodes();
    let division = divide(&server, "a").await.unwrap();
    assert!(!division.others);
    let running = Running::start(&server, "a", &["b", "c"]);
    running.until_connected(&["192.0.2.2", "192.0.2.3"]).await;
    for name in ["a", "b", "c"] {
        server.delete_node(name);
    }
    tokio::time::sleep(3 * GRACE).await;
    assert_eq!(running.connected(), ["192.0.2.2", "192.0.2.3"]);
    assert!(running.removed().is_empty());
}

#[tokio::test]
async fn the_node_is_written_down_and_opened_for_pods() {
    let server = three_nodes();
    divide(&server, "a").await.unwrap();
    for status in [500, 409] {
        server.fail("patch", Fault::Status(status));
        server.fail("patch status", Fault::Status(status));
    }
    let running = Running::start(&server, "a", &[]);
    eventually("it is written down", || {
        server
            .record()
            .get("node.a")
            .is_some_and(|uid| uid == "uid-a")
    })
    .await;
    assert!(
        server.node("a")["status"]["conditions"].is_null(),
        "it is not ready"
    );
    running.fabric.ready.store(true, Relaxed);
    eventually("pods are let in", || {
        let condition = &server.node("a")["status"]["conditions"][0];
        condition["type"] == "NetworkUnavailable" && condition["status"] == "False"
    })
    .await;
    // A node of this name that is another.
    server.set_node("a", "uid-a2", "192.0.2.1");
    eventually("it is written down anew", || {
        server
            .record()
            .get("node.a")
            .is_some_and(|uid| uid == "uid-a2")
    })
    .await;
}

#[tokio::test]
async fn a_deleted_nodes_addresses_are_taken_over_by_exactly_one() {
    let server = three_nodes();
    divide(&server, "a").await.unwrap();
    let mut running = Vec::new();
    for name in ["a", "b", "c"] {
        let members: Vec<_> = ["a", "b", "c"].into_iter().filter(|n| *n != name).collect();
        running.push(Running::start(&server, name, &members));
    }
    eventually("all are written down", || server.record().len() == 5).await;
    for running in &running {
        running.fabric.unconfirmed.store(true, Relaxed);
    }
    drop(running.pop());
    for status in [409, 500, 429] {
        server.fail("patch", Fault::Status(status));
    }
    server.delete_node("c");
    let total = |running: &[Running]| running.iter().filter(|r| !r.removed().is_empty()).count();
    eventually("somebody takes over", || total(&running) > 0).await;
    tokio::time::sleep(2 * GRACE).await;
    assert_eq!(total(&running), 1, "exactly one");
    assert!(server.record().contains_key("heir.uid-c"));
    // The others confirm: the record forgets it.
    for running in &running {
        running.fabric.members.lock().unwrap().clear();
    }
    eventually("it is signed off", || {
        !server.record().contains_key("node.c") && !server.record().contains_key("heir.uid-c")
    })
    .await;
}

#[tokio::test]
async fn an_heir_that_is_deleted_too_is_replaced() {
    let server = three_nodes();
    divide(&server, "a").await.unwrap();
    server.set_node("d", "uid-d", "192.0.2.4");
    let cluster = client(&server);
    let write = [
        ("node.c".to_owned(), Some("uid-c")),
        ("heir.uid-c".to_owned(), Some("d")),
    ];
    cluster.change_record(None, &write).await.unwrap();
    let running = Running::start(&server, "a", &["c"]);
    server.delete_node("c");
    tokio::time::sleep(3 * GRACE).await;
    assert!(running.removed().is_empty(), "that is node d's");
    server.delete_node("d");
    eventually("a takes it upon itself", || running.removed() == ["c"]).await;
}

#[tokio::test]
async fn a_node_that_returns_keeps_what_it_has() {
    let server = three_nodes();
    divide(&server, "a").await.unwrap();
    let running = Running::start(&server, "a", &["b", "c"]);
    let cluster = client(&server);
    let write = [("node.c".to_owned(), Some("uid-c"))];
    cluster.change_record(None, &write).await.unwrap();
    // Within the grace, as another Node of the same name.
    server.delete_node("c");
    tokio::time::sleep(GRACE / 2).await;
    server.set_node("c", "uid-c2", "192.0.2.3");
    tokio::time::sleep(2 * GRACE).await;
    assert!(running.removed().is_empty());
    // One that never was a node of the cluster is nobody's to remove.
    running
        .fabric
        .members
        .lock()
        .unwrap()
        .insert("outsider".parse().unwrap());
    tokio::time::sleep(2 * GRACE).await;
    assert!(running.removed().is_empty());
    assert!(!server.record().keys().any(|key| key.starts_with("heir.")));
}

/// The watch hangs, so the node seems gone; the server itself knows better.
#[tokio::test]
async fn a_removal_is_fenced_by_a_last_look() {
    let server = three_nodes();
    divide(&server, "a").await.unwrap();
    let cluster = client(&server);
    let write = [("node.c".to_owned(), Some("uid-c"))];
    cluster.change_record(None, &write).await.unwrap();
    server.delete_node("c");
    for _ in 0..2 {
        server.fail("watch", Fault::Hang);
    }
    let running = Running::start(&server, "a", &["c"]);
    running.until_connected(&["192.0.2.2"]).await;
    server.set_node("c", "uid-c2", "192.0.2.3");
    eventually("it looked", || server.asked("get node") > 0).await;
    tokio::time::sleep(GRACE).await;
    assert!(running.removed().is_empty());
}

#[tokio::test]
async fn one_node_divides_the_range_and_all_know_which() {
    let server = ApiServer::start();
    for kind in ["get", "create", "get"] {
        server.fail(kind, Fault::Status(500));
    }
    let divided = futures::future::join_all((0..8).map(|n| {
        let me = format!("n{n}");
        let server = &server;
        async move { divide(server, &me).await.unwrap() }
    }))
    .await;
    let first = &divided[0].seeds;
    assert_eq!(first.len(), 1);
    assert!(divided.iter().all(|division| division.seeds == *first));
    assert_eq!(server.record()["range"], "10.32.0.0/12");
    assert_eq!(server.record()["seeds"], first[0].as_str());
}

#[tokio::test]
async fn the_division_needs_the_api_server_once() {
    let mut server = ApiServer::start();
    let dir = tempfile::tempdir().unwrap();
    let me: PeerName = "a".parse().unwrap();
    let range = "10.32.0.0/12".parse().unwrap();
    let learn = || {
        let (client, me, dir) = (client(&server), me.clone(), dir.path().to_owned());
        async move { first_division(&client, &me, range, &dir).await.unwrap() }
    };
    let first = learn().await;
    assert!(!first.others);
    let again = learn();
    server.stop();
    assert_eq!(again.await.seeds, first.seeds);
}

#[tokio::test]
async fn another_range_than_the_clusters_is_refused() {
    let server = ApiServer::start();
    divide(&server, "a").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let range = "10.64.0.0/12".parse().unwrap();
    let me = "b".parse().unwrap();
    let error = first_division(&client(&server), &me, range, dir.path()).await;
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("10.32.0.0/12") && text.contains("--range is 10.64.0.0/12"),
        "{text}"
    );
}
