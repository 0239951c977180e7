//! A node in namespaces of its own: a bridge, a router that is a thread, pods, and calls of the
//! real `weft-cni` as a container runtime makes them.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails"
)]

pub(crate) mod router;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use control::{AttachmentRef, DetachRequest};
use hostnet::{BridgeOptions, Link, NetNs, Netlink};
use ipnet::IpNet;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use router::Router;

pub(crate) const BRIDGE: &str = "weft";
pub(crate) const GATEWAY: &str = "10.32.0.1";
pub(crate) const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A network namespace that is removed again.
pub(crate) struct Namespace {
    name: String,
    pub(crate) ns: NetNs,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wcni-{}-{count}", std::process::id());
        let ns = NetNs::create(&name).expect("these tests need root, for network namespaces");
        Self { name, ns }
    }

    pub(crate) fn path(&self) -> PathBuf {
        NetNs::path(&self.name)
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.ns).unwrap()
    }

    pub(crate) fn link(&self, name: &str) -> Option<Link> {
        self.netlink().link(name).unwrap()
    }

    /// Names of all interfaces but `lo`.
    pub(crate) fn links(&self) -> Vec<String> {
        let links = self
            .netlink()
            .links()
            .unwrap()
            .into_iter()
            .map(|link| link.name);
        links.filter(|name| name != "lo").collect()
    }

    pub(crate) fn addresses(&self, link: &Link) -> Vec<IpNet> {
        self.netlink().addresses(link.index).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        NetNs::remove(&self.name).unwrap();
    }
}

/// A node: what the plugin finds on a machine where `weft run` runs.
pub(crate) struct Node {
    pub(crate) host: Namespace,
    pub(crate) dir: TempDir,
    pub(crate) router: Router,
}

impl Node {
    pub(crate) fn new() -> Self {
        let host = Namespace::new();
        let dir = tempfile::tempdir().unwrap();
        let router = Router::start(dir.path().join("weft.sock"));
        let mut netlink = host.netlink();
        let options = BridgeOptions {
            mac: None,
            mtu: 1450,
            alias: None,
        };
        let bridge = netlink.add_bridge(BRIDGE, &options).unwrap();
        netlink.set_up(bridge).unwrap();
        netlink
            .add_address(bridge, format!("{GATEWAY}/12").parse().unwrap())
            .unwrap();
        Self { host, dir, router }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("weft.sock")
    }

    /// The configuration as libcni hands it over.
    pub(crate) fn config(&self, version: &str) -> Value {
        json!({"cniVersion": version, "name": "pods", "type": "weft-cni", "socket": self.socket()})
    }

    pub(crate) fn call<'a>(&'a self, verb: &'a str) -> Call<'a> {
        let config = self.config("1.1.0");
        Call {
            node: self,
            env: vec![("CNI_COMMAND".into(), verb.into())],
            config,
        }
    }

    /// A call about one pod's `eth0`.
    pub(crate) fn pod_call<'a>(&'a self, verb: &'a str, id: &str, pod: &Namespace) -> Call<'a> {
        self.call(verb)
            .env("CNI_CONTAINERID", id)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", pod.path().to_str().unwrap())
            .env("CNI_PATH", "/opt/cni/bin")
    }

    pub(crate) fn add(&self, id: &str, pod: &Namespace) -> Value {
        self.pod_call("ADD", id, pod).run().result()
    }

    pub(crate) fn veth_of(&self, id: &str) -> Option<Link> {
        self.host.link(&AttachmentRef::new(id, "eth0").host_veth())
    }

    /// Releases that wait for the router.
    pub(crate) fn pending(&self) -> Vec<DetachRequest> {
        let listing = control::pending::list(&self.socket()).unwrap();
        assert!(listing.unreadable.is_empty());
        listing
            .pending
            .into_iter()
            .map(|pending| pending.request)
            .collect()
    }

    /// What has to be true after an `ADD` that failed and after every `DEL`.
    pub(crate) fn assert_nothing_left(&self, pod: &Namespace) {
        assert_eq!(self.host.links(), [BRIDGE]);
        assert_eq!(pod.links(), [""; 0]);
        assert_eq!(self.router.held(), []);
        assert_eq!(self.pending(), []);
    }
}

/// One call of the plugin.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    node: &'a Node,
    env: Vec<(String, String)>,
    config: Value,
}

impl Call<'_> {
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn version(self, version: &str) -> Self {
        self.with("cniVersion", json!(version))
    }

    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    pub(crate) fn run(&self) -> Outcome {
        self.run_with(self.config.to_string().as_bytes())
    }

    pub(crate) fn run_with(&self, stdin: &[u8]) -> Outcome {
        finish(self.spawn(stdin, Stdio::piped()))
    }

    /// With standard output going to a file instead.
    pub(crate) fn run_into(&self, stdout: File) -> Outcome {
        finish(self.spawn(self.config.to_string().as_bytes(), stdout.into()))
    }

    pub(crate) fn start(&self) -> Child {
        self.spawn(self.config.to_string().as_bytes(), Stdio::piped())
    }

    fn spawn(&self, stdin: &[u8], stdout: Stdio) -> Child {
        let env = self.env.clone();
        let spawned = self.node.host.ns.run(move || {
            Command::new(env!("CARGO_BIN_EXE_weft-cni"))
                .env_clear()
                .envs(env)
                .stdin(Stdio::piped())
                .stdout(stdout)
                .stderr(Stdio::piped())
                .spawn()
        });
        let mut child = spawned.unwrap().unwrap();
        // A plugin that refuses early does not read it.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child
    }
}

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn finish(mut child: Child) -> Outcome {
    let read = |pipe: Option<&mut dyn Read>| {
        let mut text = String::new();
        if let Some(pipe) = pipe {
            pipe.read_to_string(&mut text).unwrap();
        }
        text
    };
    let stdout = read(child.stdout.as_mut().map(|pipe| pipe as &mut dyn Read));
    let stderr = read(child.stderr.as_mut().map(|pipe| pipe as &mut dyn Read));
    let status = child
        .wait()
        .unwrap()
        .code()
        .expect("no signal ends the plugin");
    Outcome {
        status,
        stdout,
        stderr,
    }
}

impl Outcome {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The result of a call that must succeed.
    pub(crate) fn result(&self) -> Value {
        assert_eq!(self.status, 0, "{self:?}");
        self.json()
    }

    /// For calls that answer nothing.
    pub(crate) fn assert_silent_success(&self) {
        assert_eq!((self.status, self.stdout.as_str()), (0, ""), "{self:?}");
    }

    /// Checks the shape of an error and returns its code and text.
    pub(crate) fn error(&self) -> (u64, String) {
        assert_eq!(self.status, 1, "{self:?}");
        let error = self.json();
        assert!(
            VERSIONS.contains(&error["cniVersion"].as_str().unwrap()),
            "{self:?}"
        );
        let text = |key: &str| error[key].as_str().unwrap().to_owned();
        (
            error["code"].as_u64().unwrap(),
            format!("{}: {}", text("msg"), text("details")),
        )
    }

    /// For errors of one kind that must name something.
    pub(crate) fn assert_error(&self, code: u64, names: &str) {
        let (found, text) = self.error();
        assert_eq!(found, code, "{self:?}");
        assert!(text.contains(names), "{names:?} is not in {text:?}");
        assert!(
            self.stderr.contains(&format!("error {code} after")),
            "{self:?}"
        );
    }
}

/// A namespace's path for calls whose pod is not there.
pub(crate) fn nowhere() -> &'static Path {
    Path::new("/run/netns/wcni-nowhere")
}
