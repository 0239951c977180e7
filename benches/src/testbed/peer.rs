//! Other people's userspace overlays, as far as they are installed.

mod n2n;
mod ovs;
mod tinc;
mod vpncloud;
mod wireguard;

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use hostnet::netlink::Netlink;
use hostnet::{Link, Route, sysctl};
use ipnet::IpNet;
use router::lab::interrupt::Interrupt;

use super::{POLL, READY, Side, Testbed, link};
use crate::record::NotRun;
use crate::traffic;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Open vSwitch with its userspace datapath, VXLAN.
    OpenVSwitch,
    /// vpncloud in switch mode.
    VpnCloud,
    /// tinc 1.0 in switch mode.
    Tinc,
    /// n2n, routed: it drops frames of stations behind its TAP.
    N2n,
    /// WireGuard by Cloudflare, routed.
    BoringTun,
    /// Mullvad's continuation of it.
    GotaTun,
}

/// The pods' MTU over a daemon that is not told the underlay's: what their manuals use.
const MTU: u16 = 1400;

impl Peer {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OpenVSwitch => "ovs",
            Self::VpnCloud => "vpncloud",
            Self::Tinc => "tinc",
            Self::N2n => "n2n",
            Self::BoringTun => "boringtun",
            Self::GotaTun => "gotatun",
        }
    }

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::OpenVSwitch => "OVS in userspace",
            Self::VpnCloud => "vpncloud, encrypted",
            Self::Tinc => "tinc, encrypted",
            Self::N2n => "n2n, encrypted",
            Self::BoringTun => "boringtun (L3)",
            Self::GotaTun => "gotatun (L3)",
        }
    }

    /// The executables that it needs, and how one gets them.
    const fn needs(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::OpenVSwitch => (
                &["ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl"],
                "apt-get install openvswitch-switch",
            ),
            Self::VpnCloud => (&["vpncloud"], "cargo install vpncloud"),
            Self::Tinc => (&["tincd"], "apt-get install tinc"),
            Self::N2n => (&["edge", "supernode"], "apt-get install n2n"),
            Self::BoringTun => (&["boringtun-cli"], "cargo install boringtun-cli"),
            Self::GotaTun => (&["gotatun"], "cargo install gotatun-cli"),
        }
    }

    /// Why it cannot be run here; none if it can.
    pub(crate) fn missing(self) -> Option<NotRun> {
        let (programs, remedy) = self.needs();
        let missing = programs.iter().find(|program| find(program).is_none())?;
        Some(NotRun {
            subject: self.label().to_owned(),
            reason: format!("{missing} is not installed: {remedy}"),
        })
    }
}

/// An executable, where `PATH`, Debian's directories for the administrator, or cargo put it.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("HOME").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/bin".into()])
        .chain([Path::new(&home).join(".cargo/bin")])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

impl Testbed {
    pub(super) fn peer(&mut self, peer: Peer, interrupt: &Interrupt) -> anyhow::Result<()> {
        match peer {
            Peer::OpenVSwitch => self.ovs(interrupt)?,
            Peer::VpnCloud => self.vpncloud(interrupt)?,
            Peer::Tinc => self.tinc(interrupt)?,
            Peer::N2n => self.n2n(interrupt)?,
            Peer::BoringTun | Peer::GotaTun => self.wireguard(peer, interrupt)?,
        }
        self.wait_until_it_carries(interrupt)
    }

    /// A daemon says that it runs, but not that packets pass: a first one tells.
    fn wait_until_it_carries(&self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let end = Instant::now() + READY;
        while traffic::round_trips(self.ends(), POLL)?.is_empty() {
            interrupt.check()?;
            if Instant::now() > end {
                bail!("no packet passes after {READY:?}\n{}", self.peer_logs());
            }
        }
        Ok(())
    }

    fn peer_logs(&self) -> String {
        let Ok(entries) = std::fs::read_dir(self.directory.path()) else {
            return String::new();
        };
        entries
            .flatten()
            .filter(|entry| entry.path().extension() == Some(OsStr::new("log")))
            .filter_map(|entry| {
                let text = std::fs::read_to_string(entry.path()).ok()?;
                let lines: Vec<_> = text.lines().rev().take(10).collect();
                let lines: Vec<_> = lines.into_iter().rev().collect();
                Some(format!(
                    "{}:\n{}\n",
                    entry.path().display(),
                    lines.join("\n")
                ))
            })
            .collect()
    }

    /// Starts a daemon on a node, in the foreground, with its words in a file of this testbed.
    fn daemon<S: AsRef<OsStr>>(
        &mut self,
        index: usize,
        program: &str,
        arguments: &[S],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let path = find(program).with_context(|| format!("{program} is not installed"))?;
        let side = &mut self.sides[index];
        let log = format!("{program}{}.log", side.number);
        let log = File::create(self.directory.path().join(log))?;
        let mut command = Command::new(path);
        command
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = side.node.run(|| command.spawn())?;
        side.daemons
            .push(child.with_context(|| format!("cannot execute {program}"))?);
        Ok(())
    }

    /// Runs a program on a node to its end.
    fn call<S: AsRef<OsStr>>(
        &self,
        index: usize,
        program: &str,
        arguments: &[S],
    ) -> anyhow::Result<()> {
        let path = find(program).with_context(|| format!("{program} is not installed"))?;
        let mut command = Command::new(path);
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        let output = self.sides[index].node.run(|| command.output())??;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!("{program} failed with {}: {}", output.status, words.trim());
        }
        Ok(())
    }
}

/// Waits for a socket that a daemon makes.
fn wait_for(path: &Path, interrupt: &Interrupt) -> anyhow::Result<()> {
    let end = Instant::now() + READY;
    while !path.exists() {
        if Instant::now() > end {
            bail!("there is no {} after {READY:?}", path.display());
        }
        interrupt.sleep(POLL)?;
    }
    Ok(())
}

impl Side {
    /// Waits for a device that a daemon makes.
    fn device(&self, name: &str, interrupt: &Interrupt) -> anyhow::Result<Link> {
        let end = Instant::now() + READY;
        loop {
            if let Some(link) = Netlink::open_in(&self.node)?.link(name)? {
                return Ok(link);
            }
            if Instant::now() > end {
                bail!("there is no {name} after {READY:?}");
            }
            interrupt.sleep(POLL)?;
        }
    }

    /// The pod behind a router: its subnet is 10.32.N.0/24, everything else goes through the daemon's
    /// device, by way of `gateway` where the device is an Ethernet.
    fn route(
        &mut self,
        device: u32,
        gateway: Option<std::net::IpAddr>,
        mtu: u16,
    ) -> anyhow::Result<()> {
        let subnet = |number: u8, host: u8| IpNet::new([10, 32, number, host].into(), 24);
        self.plug(None, mtu)?;
        self.node
            .run(|| sysctl::write("net/ipv4/ip_forward", "1"))??;
        let mut netlink = Netlink::open_in(&self.node)?;
        let pod0 = link(&self.node, "pod0")?.index;
        netlink.add_address(pod0, subnet(self.number, 1)?)?;
        netlink.set_up(device)?;
        netlink.add_route(&Route {
            dst: subnet(3 - self.number, 0)?,
            gateway,
            oif: Some(device),
            src: None,
            // The daemon may give its device an address later.
            onlink: gateway.is_some(),
        })?;
        let inside = subnet(self.number, 2)?;
        self.address = inside.addr();
        let mut netlink = Netlink::open_in(&self.pod)?;
        let eth0 = link(&self.pod, "eth0")?.index;
        netlink.add_address(eth0, inside)?;
        netlink.set_up(eth0)?;
        let node = subnet(self.number, 1)?.addr();
        netlink.add_route(&Route::default_via(node, eth0))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_where_debian_puts_them() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-of-anybody"), None);
    }

    #[test]
    fn a_missing_peer_says_how_to_get_it() {
        for peer in [Peer::Tinc, Peer::N2n, Peer::OpenVSwitch, Peer::VpnCloud] {
            if let Some(not_run) = peer.missing() {
                assert!(not_run.reason.contains(" install "), "{}", not_run.reason);
            }
        }
    }
}
