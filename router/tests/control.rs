//! A router as its control socket's callers meet it: alone in a namespace, so this needs root and
//! /dev/net/tun, and fails without.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use control::{
    AttachRequest, Attachment, AttachmentRef, Client, ClientError, ErrorCode, GcRequest, Status,
    pending,
};
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use router::node::ATTACH_DEADLINE;

/// How long a thing that takes milliseconds may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A namespace and a directory for a router; both go with the value.
struct Place {
    name: String,
    netns: NetNs,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wc{}x{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let netns = NetNs::create(&name).expect("a namespace can be made, which needs root");
        Self {
            name,
            netns,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("weft.sock")
    }

    fn client(&self) -> Client {
        Client::new(self.socket(), PATIENCE)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command
            .env_clear()
            .args([
                "run",
                "--config=/dev/null",
                "--name=a",
                "--ipam-hold-down=1s",
            ])
            .env("WEFT_IPAM_INIT", "seed=a")
            .env("WEFT_SOCKET", self.socket())
            .env("WEFT_STATE_DIR", self.dir.path().join("state"))
            .arg("--exit-with-stdin")
            .args(args)
            .stdin(Stdio::piped());
        command
    }

    /// Starts a router and waits until it can attach pods.
    fn start(&self, args: &[&str]) -> Router {
        self.start_until(args, |status| !status.overlay.bridge_addresses.is_empty())
    }

    /// Starts a router and waits until its status is as wanted.
    fn start_until(&self, args: &[&str], wanted: impl Fn(Status) -> bool) -> Router {
        let log = self.dir.path().join("log");
        let stderr = std::fs::File::create(&log).unwrap();
        let spawn = || self.command(args).stderr(stderr).spawn();
        let child = self.netns.run(spawn).unwrap().unwrap();
        let router = Router { child };
        let end = Instant::now() + PATIENCE;
        while !self.client().status().is_ok_and(&wanted) {
            let said = || std::fs::read_to_string(&log).unwrap();
            assert!(
                Instant::now() < end,
                "the router does not come up: {}",
                said()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        router
    }

    /// Runs a router that cannot start, to its end.
    fn fail(&self, args: &[&str]) -> (Option<i32>, String) {
        let run = || {
            let mut child = self.command(args).stderr(Stdio::piped()).spawn()?;
            // Open until the end, so that it is not the reason of the end.
            let _stdin = child.stdin.take();
            child.wait_with_output()
        };
        let Output { status, stderr, .. } = self.netns.run(run).unwrap().unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    }

    fn status(&self) -> Status {
        self.client().status().unwrap()
    }

    /// What the metrics server answers: the status line and the body.
    fn get(&self, path: &str) -> (String, String) {
        let ask = || {
            let mut stream = TcpStream::connect("127.0.0.1:6782")?;
            write!(stream, "GET {path} HTTP/1.1\r\nhost: weft\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        };
        let answer = self.netns.run(ask).unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    fn bridge(&self) -> Option<hostnet::Link> {
        Netlink::open_in(&self.netns).unwrap().link("weft").unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        NetNs::remove(&self.name).unwrap();
    }
}

/// A running router, killed on drop.
struct Router {
    child: Child,
}

impl Router {
    fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    fn end(mut self) -> Option<i32> {
        // Waiting closes it otherwise, which would be another reason to end.
        let _stdin = self.child.stdin.take();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(container_id: &str, network: &str) -> AttachRequest {
    AttachRequest {
        container_id: container_id.to_owned(),
        ifname: "eth0".to_owned(),
        network: Some(network.to_owned()),
        ..AttachRequest::default()
    }
}

fn of(container_id: &str) -> AttachmentRef {
    AttachmentRef::new(container_id, "eth0")
}

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    match result.unwrap_err() {
        ClientError::Api(error) => error.code,
        other => panic!("{other}"),
    }
}

#[test]
fn attach_is_idempotent_and_detach_gives_back() {
    let place = Place::new();
    let _router = place.start(&["--range=10.32.0.0/24"]);
    let client = place.client();
    let first = client.attach(&request("pod", "weft")).unwrap();
    assert_eq!(client.attach(&request("pod", "weft")).unwrap(), first);
    assert_eq!(client.attachment(&of("pod")).unwrap(), first);
    assert_eq!(first.range, ["10.32.0.0/24".parse().unwrap()]);
    assert_eq!(first.addresses[0].prefix_len(), 24);
    let gateways: Vec<_> = place
        .status()
        .overlay
        .bridge_addresses
        .iter()
        .map(ipnet::IpNet::addr)
        .collect();
    assert_eq!(first.gateways, gateways);
    assert_eq!(first.bridge, "weft");

    let another = client.attach(&request("other", "weft")).unwrap();
    assert_ne!(another.addresses, first.addresses);
    let mut wanted = request("third", "weft");
    wanted.address = Some(first.addresses[0].addr());
    assert_eq!(code(client.attach(&wanted)), ErrorCode::Conflict);
    wanted.address = Some("192.0.2.1".parse().unwrap());
    assert_eq!(code(client.attach(&wanted)), ErrorCode::BadRequest);

    let detached = client.detach(&of("pod").into()).unwrap();
    assert_eq!(detached.released, first.addresses);
    assert_eq!(client.detach(&of("pod").into()).unwrap().released, []);
    assert_eq!(code(client.attachment(&of("pod"))), ErrorCode::NotFound);
    assert_eq!(
        code(client.attach(&request("weft:bridge", "weft"))),
        ErrorCode::BadRequest
    );
}

#[test]
fn a_collection_keeps_to_its_network_and_never_takes_the_gateway() {
    let place = Place::new();
    let router = place.start(&[]);
    let client = place.client();
    for (container, network) in [("kept", "weft"), ("gone", "weft"), ("foreign", "other")] {
        client.attach(&request(container, network)).unwrap();
    }
    // The networks are known after a restart too.
    router.signal(Signal::SIGKILL);
    drop(router);
    let _router = place.start(&[]);
    let collect = GcRequest {
        network: Some("weft".to_owned()),
        keep: vec![of("kept")],
    };
    let collected = client.gc(&collect).unwrap();
    let released: Vec<_> = collected.released.iter().map(|r| &r.attachment).collect();
    assert_eq!(released, [&of("gone")]);
    let everything = client.gc(&GcRequest::default()).unwrap();
    assert_eq!(everything.released.len(), 2);
    let left = place.status().ipam.allocations;
    assert_eq!(left.len(), 1, "only the bridge's own: {left:?}");
}

/// I7, and what a DEL noted while the router was away.
#[test]
fn i7_addresses_survive_a_kill_and_pending_releases_are_carried_out() {
    let place = Place::new();
    let router = place.start(&[]);
    let client = place.client();
    let before = client.attach(&request("stays", "weft")).unwrap();
    client.attach(&request("gone", "weft")).unwrap();
    let bridge = place.bridge().unwrap();
    router.signal(Signal::SIGKILL);
    drop(router);
    pending::note(&place.socket(), &of("gone").into()).unwrap();

    let _router = place.start(&[]);
    assert_eq!(client.attachment(&of("stays")).unwrap(), before);
    assert_eq!(code(client.attachment(&of("gone"))), ErrorCode::NotFound);
    assert!(pending::list(&place.socket()).unwrap().pending.is_empty());
    let after = place.bridge().unwrap();
    assert_eq!(
        (after.index, after.mac),
        (bridge.index, bridge.mac),
        "the bridge was adopted"
    );

    // A release that is older than an attach must not undo it.
    pending::note(&place.socket(), &of("again").into()).unwrap();
    client.attach(&request("again", "weft")).unwrap();
    assert!(pending::list(&place.socket()).unwrap().pending.is_empty());
    client.attachment(&of("again")).unwrap();
}

#[test]
fn it_ends_cleanly_by_signal_and_with_standard_input() {
    let place = Place::new();
    for signal in [Some(Signal::SIGTERM), Some(Signal::SIGINT), None] {
        let mut router = place.start(&[]);
        match signal {
            Some(signal) => router.signal(signal),
            None => drop(router.child.stdin.take()),
        }
        assert_eq!(router.end(), Some(0), "{signal:?}");
        assert!(place.bridge().is_none(), "{signal:?}: the bridge is left");
        assert!(!place.socket().exists(), "{signal:?}: the socket is left");
    }
}

#[test]
fn a_second_router_is_refused_and_harms_nothing() {
    let place = Place::new();
    let _router = place.start(&[]);
    let pod = place.client().attach(&request("pod", "weft")).unwrap();
    let bridge = place.bridge();
    let state = place.dir.path().join("other");
    let state = state.to_str().unwrap();
    let socket = place.dir.path().join("other.sock");
    let socket = socket.to_str().unwrap();
    let ports = [
        "--control-port=7783",
        "--vxlan-port=7784",
        "--metrics-address=off",
    ];
    for (args, says) in [
        (vec![], "TCP [::]:6783"),
        (vec![], "UDP [::]:6783"),
        (ports.to_vec(), "the state directory"),
        (
            [&ports[..], &["--state-dir", state]].concat(),
            "the control socket",
        ),
        (
            [&ports[..], &["--state-dir", state, "--socket", socket]].concat(),
            "--bridge and --tap",
        ),
    ] {
        let (status, said) = place.fail(&args);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(says), "{args:?}: {said}");
    }
    let index = |bridge: Option<hostnet::Link>| bridge.map(|link| (link.index, link.mac));
    assert_eq!(index(place.bridge()), index(bridge));
    assert_eq!(place.client().attachment(&of("pod")).unwrap(), pod);
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    let place = Place::new();
    let netlink = &mut Netlink::open_in(&place.netns).unwrap();
    netlink
        .add_bridge("taken", &hostnet::BridgeOptions::default())
        .unwrap();
    let count = netlink.links().unwrap().len();
    for (args, says) in [
        (&["--bridge=taken"][..], "--bridge"),
        (&["--tap=taken"], "taken"),
        (&["--tap=lo"], "lo"),
    ] {
        let (status, said) = place.fail(args);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(says), "{said}");
        assert_eq!(
            netlink.links().unwrap().len(),
            count,
            "{args:?} left an interface"
        );
        assert!(!place.socket().exists());
    }
}

#[test]
fn probes_tell_living_from_ready() {
    let place = Place::new();
    let router = place.start(&[]);
    assert_eq!(
        place.get("/readyz"),
        ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned())
    );
    let (status, metrics) = place.get("/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(
        metrics.contains("weft_ipam_addresses{state=\"used\"} 1\n"),
        "{metrics}"
    );
    drop(router);

    // A node that is not told how the range is divided lives, and cannot attach anything.
    let place = Place::new();
    let _router = place.start_until(&["--ipam-init="], |_| true);
    assert_eq!(place.get("/healthz").0, "HTTP/1.1 200 OK");
    let (status, reasons) = place.get("/readyz");
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert!(
        reasons.contains("no address can be handed out"),
        "{reasons}"
    );
    // It waits for the division until its deadline, for it may come any moment, and says so.
    let waited = Instant::now();
    let refused = place.client().attach(&request("pod", "weft")).unwrap_err();
    assert!(waited.elapsed() > ATTACH_DEADLINE / 2);
    assert!(
        refused
            .to_string()
            .contains("is not divided among nodes yet"),
        "{refused}"
    );
    assert_eq!(code::<Attachment>(Err(refused)), ErrorCode::NotReady);
}
