//! Attaches pods the way a container runtime does: by executing `weft-cni` with `CNI_*` variables
//! and the network's configuration on standard input (CNI specification §2).

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};
use hostnet::netns::NetNs;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::json;
use wire::Mac;

use super::layout::{IFNAME, NodeLayout, PodLayout};

/// The name under which the executable `weft` is the plugin.
const NAME: &str = "weft-cni";
/// Version of the specification that the lab speaks: the one that containerd writes today.
const CNI_VERSION: &str = "1.0.0";

/// The executable that is run as the plugin.
#[derive(Debug, Clone)]
pub struct Plugin {
    program: PathBuf,
}

/// What a successful ADD says about the pod's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Address with the prefix length of the overlay's range.
    pub address: IpNet,
    /// Next hop of the default route.
    pub gateway: Option<IpAddr>,
    /// Address of the interface inside the pod.
    pub mac: Mac,
}

impl Plugin {
    /// The plugin at `path`, or else the one that `weft` itself is when it is called `weft-cni`.
    pub fn new(path: Option<&Path>, weft: &Path) -> Self {
        Self {
            program: path.unwrap_or(weft).to_owned(),
        }
    }

    /// Attaches a pod's namespace to its node.
    pub fn add(
        &self,
        node: &NodeLayout,
        node_netns: &NetNs,
        pod: &PodLayout,
    ) -> anyhow::Result<Attached> {
        let output = self.execute("ADD", node, node_netns, pod)?;
        Attached::parse(&output.stdout).with_context(|| {
            format!(
                "{self} ADD of {} printed a result that cannot be used",
                pod.name
            )
        })
    }

    /// Detaches it.
    pub fn del(
        &self,
        node: &NodeLayout,
        node_netns: &NetNs,
        pod: &PodLayout,
    ) -> anyhow::Result<()> {
        self.execute("DEL", node, node_netns, pod).map(drop)
    }

    fn execute(
        &self,
        verb: &str,
        node: &NodeLayout,
        node_netns: &NetNs,
        pod: &PodLayout,
    ) -> anyhow::Result<Output> {
        let config = configuration(&node.socket).to_string();
        let run = || -> std::io::Result<Output> {
            let mut child = Command::new(&self.program)
                .arg0(NAME)
                .env_clear()
                .env("CNI_COMMAND", verb)
                .env("CNI_CONTAINERID", &pod.container_id)
                .env("CNI_NETNS", NetNs::path(&pod.netns))
                .env("CNI_IFNAME", IFNAME)
                .env("CNI_PATH", "/opt/cni/bin")
                .env(
                    "CNI_ARGS",
                    format!(
                        "IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME={}",
                        pod.name
                    ),
                )
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0)
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // A plugin that ends without reading says why on its output.
                let _ = stdin.write_all(config.as_bytes());
            }
            child.wait_with_output()
        };
        // The runtime runs on the node, so the plugin does.
        let output = node_netns
            .run(run)?
            .with_context(|| format!("cannot execute {}", self.program.display()))?;
        if !output.status.success() {
            bail!(
                "{self} {verb} of {} failed with {}: {}",
                pod.name,
                output.status,
                failure(&output)
            );
        }
        Ok(output)
    }
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(NAME)
    }
}

/// What a runtime hands to the plugin out of the network's list.
fn configuration(socket: &Path) -> serde_json::Value {
    json!({ "cniVersion": CNI_VERSION, "name": "weft", "type": NAME, "socket": socket })
}

/// The plugin's own words: the error object of the specification, or whatever else it printed.
fn failure(output: &Output) -> String {
    #[derive(Deserialize)]
    struct CniError {
        msg: String,
        #[serde(default)]
        details: String,
    }
    match serde_json::from_slice::<CniError>(&output.stdout) {
        Ok(error) if error.details.is_empty() => error.msg,
        Ok(error) => format!("{}: {}", error.msg, error.details),
        Err(_) => {
            let words = [&output.stdout[..], &output.stderr[..]].concat();
            String::from_utf8_lossy(&words).trim().to_owned()
        }
    }
}

impl Attached {
    fn parse(stdout: &[u8]) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct AddResult {
            interfaces: Vec<Interface>,
            ips: Vec<Ip>,
        }
        #[derive(Deserialize)]
        struct Interface {
            name: String,
            mac: Option<Mac>,
            sandbox: Option<String>,
        }
        #[derive(Deserialize)]
        struct Ip {
            address: IpNet,
            gateway: Option<IpAddr>,
        }
        let result: AddResult = serde_json::from_slice(stdout)?;
        let mac = result
            .interfaces
            .iter()
            .find(|interface| interface.name == IFNAME && interface.sandbox.is_some())
            .and_then(|interface| interface.mac)
            .context("no interface of the pod with a MAC address")?;
        let ip = result.ips.first().context("no address")?;
        Ok(Self {
            address: ip.address,
            gateway: ip.gateway,
            mac,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_side_of_the_result_is_read() {
        let result = br#"{"cniVersion":"1.0.0",
            "interfaces":[{"name":"weft","mac":"02:00:00:00:00:01"},{"name":"vw1","mac":"02:00:00:00:00:02"},
                          {"name":"eth0","mac":"02:00:00:00:00:03","sandbox":"/run/netns/p"}],
            "ips":[{"address":"10.32.0.2/12","gateway":"10.32.0.1","interface":2}],
            "routes":[{"dst":"0.0.0.0/0","gw":"10.32.0.1"}],"dns":{}}"#;
        let attached = Attached::parse(result).unwrap();
        assert_eq!(attached.address, "10.32.0.2/12".parse().unwrap());
        assert_eq!(attached.gateway, Some("10.32.0.1".parse().unwrap()));
        assert_eq!(attached.mac, "02:00:00:00:00:03".parse().unwrap());
        for bad in [&b""[..], b"{}", br#"{"interfaces":[],"ips":[]}"#] {
            assert!(Attached::parse(bad).is_err());
        }
    }

    #[test]
    fn a_failure_is_told_in_the_plugins_words() {
        use std::os::unix::process::ExitStatusExt;
        let output = |stdout: &str| Output {
            status: std::process::ExitStatus::from_raw(256),
            stdout: stdout.into(),
            stderr: b"panic\n".to_vec(),
        };
        let typed =
            output(r#"{"cniVersion":"1.0.0","code":11,"msg":"try again","details":"no ring"}"#);
        assert_eq!(failure(&typed), "try again: no ring");
        assert_eq!(failure(&output("")), "panic");
    }
}
