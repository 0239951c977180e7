//! What a container runtime does: namespaces for pods, and calls of plugins (CNI specification §2).

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use hostnet::netns::NetNs;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{WEFT, unique};

/// Where Debian's `containernetworking-plugins` lie.
const PLUGINS: &str = "/usr/lib/cni";

/// A namespace for a container.
pub(crate) struct PodNs {
    pub(crate) name: String,
    pub(crate) netns: NetNs,
}

/// One call of a plugin; whatever stands in it goes to the plugin as it is.
pub(crate) struct Call<'a> {
    pub(crate) verb: &'a str,
    pub(crate) container_id: &'a str,
    /// The configuration, with its version and name.
    pub(crate) config: Value,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    what: String,
    output: Output,
}

impl PodNs {
    pub(crate) fn new() -> Self {
        let name = unique("wp");
        Self {
            netns: NetNs::create(&name).unwrap(),
            name,
        }
    }

    /// Calls a plugin of version 1.0.0 in the node's namespace about a container that has the
    /// namespace's name.
    pub(crate) fn call(
        &self,
        node: &NetNs,
        verb: &str,
        config: &Value,
        prev: Option<&Value>,
    ) -> Outcome {
        let mut config = config.clone();
        config["cniVersion"] = json!("1.0.0");
        config["name"] = json!("weft");
        if let Some(prev) = prev {
            config["prevResult"] = prev.clone();
        }
        let call = Call {
            verb,
            container_id: &self.name,
            config,
        };
        self.execute(node, &call)
    }

    /// Executes the plugin that the configuration names.
    pub(crate) fn execute(&self, node: &NetNs, call: &Call<'_>) -> Outcome {
        let kind = call.config["type"].as_str().unwrap();
        let program = if kind == "weft-cni" {
            Path::new(WEFT).to_owned()
        } else {
            Path::new(PLUGINS).join(kind)
        };
        let path = std::env::join_paths([own_plugins(), Path::new(PLUGINS)]).unwrap();
        let mut command = Command::new(&program);
        command
            .arg0(kind)
            .env("CNI_COMMAND", call.verb)
            .env("CNI_CONTAINERID", call.container_id)
            .env("CNI_NETNS", NetNs::path(&self.name))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = node.run(|| command.spawn()).unwrap();
        let mut child = child.unwrap_or_else(|error| {
            panic!(
                "{}: {error}; .ci/test installs containernetworking-plugins",
                program.display()
            )
        });
        let mut stdin = child.stdin.take().unwrap();
        // A plugin that refuses early does not read it.
        let _ = stdin.write_all(call.config.to_string().as_bytes());
        drop(stdin);
        Outcome {
            what: format!("{kind} {} of {}", call.verb, call.container_id),
            output: child.wait_with_output().unwrap(),
        }
    }
}

impl Drop for PodNs {
    fn drop(&mut self) {
        NetNs::remove(&self.name).unwrap();
    }
}

impl Outcome {
    /// The code of the error, or none if the call succeeded.
    pub(crate) fn code(&self) -> Option<u64> {
        if self.output.status.success() {
            return None;
        }
        let error: Value = serde_json::from_slice(&self.output.stdout)
            .unwrap_or_else(|_| panic!("{}", self.words()));
        error["code"]
            .as_u64()
            .or_else(|| panic!("no code: {}", self.words()))
    }

    pub(crate) fn words(&self) -> String {
        let words = [&self.output.stdout[..], &self.output.stderr].concat();
        format!("{}: {}", self.what, String::from_utf8_lossy(&words))
    }

    /// Of a call that must succeed and answers nothing, or nothing that is looked at.
    pub(crate) fn expect_ok(&self) {
        assert!(self.output.status.success(), "{}", self.words());
    }

    /// The result of a call that must succeed.
    pub(crate) fn expect_json(&self) -> Value {
        self.expect_ok();
        serde_json::from_slice(&self.output.stdout).unwrap_or_else(|_| panic!("{}", self.words()))
    }

    /// Of a call that must be refused with this code and name this.
    pub(crate) fn expect_error(&self, code: u64, names: &str) {
        assert_eq!(self.code(), Some(code), "{}", self.words());
        assert!(self.words().contains(names), "{}", self.words());
    }
}

/// A directory in which `weft-cni` is found by plugins that call others.
fn own_plugins() -> &'static Path {
    static DIR: OnceLock<TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(WEFT, dir.path().join("weft-cni")).unwrap();
        dir
    });
    dir.path()
}
