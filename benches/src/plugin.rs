//! Runs a CNI plugin the way a container runtime does: a process with `CNI_*` in its environment
//! and the configuration on its standard input (CNI specification §2).

use std::fmt;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hostnet::netns::NetNs;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::node::MTU;

/// The version that containerd writes today, and that Debian's plugins speak too.
const CNI_VERSION: &str = "1.0.0";
/// Where Debian installs the reference plugins.
const DEBIAN: &str = "/usr/lib/cni";
/// The package that they come in.
const DEBIAN_PACKAGE: &str = "containernetworking-plugins";

/// What is asked of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
}

/// A plugin and its configuration.
#[derive(Debug)]
pub(crate) struct Plugin {
    /// As the report names it.
    pub(crate) title: &'static str,
    program: PathBuf,
    /// The name that it is called by, which some executables go by.
    name: &'static str,
    /// Where it finds the plugins that it calls itself (`CNI_PATH`).
    path: PathBuf,
    config: String,
}

impl Plugin {
    /// weft's, for the router at `socket`.
    pub(crate) fn weft(program: &Path, socket: &Path) -> Self {
        let config = json!({
            "cniVersion": CNI_VERSION, "name": "weft", "type": "weft-cni", "socket": socket,
        });
        Self {
            title: "weft-cni",
            program: program.to_owned(),
            name: "weft-cni",
            path: program.parent().unwrap_or(Path::new("/")).to_owned(),
            config: config.to_string(),
        }
    }

    /// Debian's `bridge` with `host-local`, told to do what `weft-cni` does: a gateway on the
    /// bridge, the default route through it, hairpin, the same MTU. It keeps its books in
    /// `directory`. `Err` is the reason why it cannot be run.
    pub(crate) fn debian(directory: &Path) -> Result<Self, String> {
        let path = PathBuf::from(DEBIAN);
        for name in ["bridge", "host-local"] {
            if !path.join(name).is_file() {
                return Err(format!(
                    "{DEBIAN}/{name} is missing: install it with `apt-get install {DEBIAN_PACKAGE}`"
                ));
            }
        }
        let config: Value = json!({
            "cniVersion": CNI_VERSION, "name": "debian", "type": "bridge",
            "bridge": "cni0", "isGateway": true, "isDefaultGateway": true, "hairpinMode": true,
            "mtu": MTU,
            "ipam": {
                "type": "host-local",
                "dataDir": directory.join("host-local"),
                "ranges": [[{ "subnet": "10.64.0.0/12" }]],
            },
        });
        let config = config.to_string();
        Ok(Self {
            title: "bridge + host-local",
            program: path.join("bridge"),
            name: "bridge",
            path,
            config,
        })
    }

    /// Attaches or detaches the namespace `pod`, and says how long that took. The calling thread
    /// is in the node's namespace, where a runtime is.
    pub(crate) fn call(&self, verb: Verb, pod: &str) -> anyhow::Result<Duration> {
        let mut command = Command::new(&self.program);
        command
            .arg0(self.name)
            .env_clear()
            .env("CNI_COMMAND", verb.to_string())
            .env("CNI_CONTAINERID", pod)
            .env("CNI_NETNS", NetNs::path(pod))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let begin = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot execute {}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that ends without reading says why on its output.
            let _ = stdin.write_all(self.config.as_bytes());
        }
        let output = child.wait_with_output()?;
        let took = begin.elapsed();

        if !output.status.success() {
            let words = [output.stdout, output.stderr].concat();
            bail!(
                "{} {verb} of {pod} failed with {}: {}",
                self.title,
                output.status,
                String::from_utf8_lossy(&words).trim()
            );
        }
        if verb == Verb::Add {
            check_result(&output.stdout)
                .with_context(|| format!("{} {verb} of {pod}", self.title))?;
        }
        Ok(took)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
        })
    }
}

/// A quick failure that looks like a success would win every comparison.
fn check_result(stdout: &[u8]) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Added {
        ips: Vec<Ip>,
    }
    #[derive(Deserialize)]
    struct Ip {
        #[serde(rename = "address")]
        _address: IpNet,
    }
    let added: Added = serde_json::from_slice(stdout).context("its result cannot be read")?;
    if added.ips.is_empty() {
        bail!("its result has no address");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_needs_an_address() {
        check_result(br#"{"cniVersion":"1.0.0","ips":[{"address":"10.32.0.7/12"}]}"#).unwrap();
        for bad in [
            &b""[..],
            b"{}",
            br#"{"ips":[]}"#,
            br#"{"ips":[{"address":"x"}]}"#,
        ] {
            assert!(check_result(bad).is_err());
        }
    }
}
