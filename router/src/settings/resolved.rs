//! What the router runs with, complete.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use mesh::Fingerprint;
use wire::{PeerName, Vni};

use super::Endpoint;
use crate::install::CniDirs;
use crate::io::datapath::SpinPolicy;

/// What the router runs with. Every value can be acted upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// This node's name.
    pub name: PeerName,
    /// Directory of what survives a restart.
    pub state_dir: PathBuf,
    /// Path of the control socket.
    pub socket: PathBuf,
    /// Name of the bridge.
    pub bridge: String,
    /// Name of the TAP device.
    pub tap: String,
    /// Other routers to connect to.
    pub peers: Vec<Endpoint>,
    /// Endpoints that speak VXLAN only.
    pub vteps: Vec<Endpoint>,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// UDP port of sleeve.
    pub sleeve_port: u16,
    /// VXLAN network identifier.
    pub vni: Vni,
    /// TCP port of the connections between routers.
    pub control_port: u16,
    /// The one address on which these are accepted; none: all.
    pub listen: Option<IpAddr>,
    /// Where metrics and health are served, if at all.
    pub metrics_address: Option<SocketAddr>,
    /// Addresses of the overlay.
    pub range: IpNet,
    /// Where addresses come from unless a network names a subnet; none: the whole range.
    pub default_subnet: Option<IpNet>,
    /// Nodes among which the range is first split; empty: not decided here.
    pub seeds: Vec<PeerName>,
    /// How many nodes agree on the first split; none: not to be agreed upon.
    pub consensus: Option<u32>,
    /// Whether the cluster's API server decides on the first split.
    pub cluster_divides: bool,
    /// File with the password; none: no encryption, unless the environment has one.
    pub password_file: Option<PathBuf>,
    /// The nodes that are spoken to; empty: all that have the password.
    pub allow_identity: BTreeSet<Fingerprint>,
    /// Networks in which frames may be in the clear though there is a password, if both sides say so.
    pub trusted_subnets: Vec<IpNet>,
    /// How long a session's keys are in use.
    pub rekey_interval: Duration,
    /// How long a released address rests.
    pub ipam_hold_down: Duration,
    /// The pods' MTU; none: found out.
    pub mtu: Option<u16>,
    /// How long a silent station is remembered.
    pub mac_age: Duration,
    /// TAP queues; none: by the number of CPUs.
    pub queues: Option<usize>,
    /// Whether segmentation offloads are used.
    pub offloads: bool,
    /// When workers look for work instead of sleeping.
    pub spin: SpinPolicy,
    /// Nice value of the workers; none: as the router was started.
    pub worker_nice: Option<i8>,
    /// Whether each worker stays on a processor of its own.
    pub pin_workers: bool,
    /// Whether what leaves the range carries the node's address.
    pub masquerade: bool,
    /// Whether pods are held to their addresses.
    pub spoof_guard: bool,
    /// Where plugin and configuration are installed; none: nowhere.
    pub cni_dirs: Option<CniDirs>,
    /// Whether peers are taken from the nodes of a Kubernetes cluster.
    pub kubernetes: bool,
    /// Which address of these is used; none: the internal one.
    pub node_address: Option<NodeAddressChoice>,
    /// Whether peers of peers are connected to.
    pub discovery: bool,
    /// Most control connections of other routers that are accepted.
    pub conn_limit: usize,
    /// Filter of the log.
    pub log_level: String,
}

/// Which of a cluster node's addresses is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAddressChoice {
    /// The one in this network.
    Within(IpNet),
    /// The one in the network of this interface of this machine.
    Interface(String),
}

impl Display for NodeAddressChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Within(net) => net.fmt(f),
            Self::Interface(name) => name.fmt(f),
        }
    }
}

impl Settings {
    /// The settings as a configuration file, complete: read back, it gives the same settings.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut line = |key: &str, value: toml::Value| {
            // Writing to a text does not fail.
            let _ = writeln!(out, "{key} = {value}");
        };
        let text = |value: &dyn Display| toml::Value::String(value.to_string());
        let number = |value: u32| toml::Value::Integer(value.into());
        let all = |list: &[Endpoint]| list.iter().map(|e| text(e)).collect();
        line("name", text(&self.name));
        line("state_dir", text(&self.state_dir.display()));
        line("socket", text(&self.socket.display()));
        line("bridge", text(&self.bridge));
        line("tap", text(&self.tap));
        line("peer", toml::Value::Array(all(&self.peers)));
        line("vtep", toml::Value::Array(all(&self.vteps)));
        line("vxlan_port", number(self.vxlan_port.into()));
        line("sleeve_port", number(self.sleeve_port.into()));
        line("vni", number(self.vni.get()));
        line("control_port", number(self.control_port.into()));
        line(
            "listen",
            self.listen
                .map_or_else(|| text(&"all"), |address| text(&address)),
        );
        line(
            "metrics_address",
            self.metrics_address
                .map_or_else(|| text(&"off"), |address| text(&address)),
        );
        line("range", text(&self.range));
        let seeds: Vec<_> = self.seeds.iter().map(PeerName::as_str).collect();
        let init = if seeds.is_empty() {
            String::new()
        } else {
            format!("seed={}", seeds.join(","))
        };
        let init = self
            .consensus
            .map_or(init, |count| format!("consensus={count}"));
        let init = match self.cluster_divides {
            true => "cluster".to_owned(),
            false => init,
        };
        line("ipam_init", text(&init));
        let subnet = self.default_subnet.map(|subnet| subnet.to_string());
        line("ipam_default_subnet", text(&subnet.unwrap_or_default()));
        line(
            "password_file",
            self.password_file
                .as_ref()
                .map_or_else(|| text(&""), |path| text(&path.display())),
        );
        let allowed = self.allow_identity.iter().map(|one| text(one));
        line("allow_identity", toml::Value::Array(allowed.collect()));
        let trusted = self.trusted_subnets.iter().map(|one| text(one));
        line("trusted_subnets", toml::Value::Array(trusted.collect()));
        line(
            "rekey_interval",
            text(&humantime::format_duration(self.rekey_interval)),
        );
        line(
            "ipam_hold_down",
            text(&humantime::format_duration(self.ipam_hold_down)),
        );
        line(
            "mtu",
            self.mtu
                .map_or_else(|| text(&"auto"), |mtu| number(mtu.into())),
        );
        line("mac_age", text(&humantime::format_duration(self.mac_age)));
        let queues = |count| u32::try_from(count).map_or_else(|_| text(&count), number);
        line("queues", self.queues.map_or_else(|| text(&"auto"), queues));
        let switch = |on| text(&if on { "on" } else { "off" });
        line("offloads", switch(self.offloads));
        let spin = match self.spin {
            SpinPolicy::OFF => text(&"off"),
            SpinPolicy::AUTO => text(&"auto"),
            SpinPolicy { window } => text(&humantime::format_duration(window)),
        };
        line("spin", spin);
        let nice = |nice: i8| toml::Value::Integer(nice.into());
        line(
            "worker_nice",
            self.worker_nice.map_or_else(|| text(&"off"), nice),
        );
        line("pin_workers", switch(self.pin_workers));
        line("masquerade", switch(self.masquerade));
        line("spoof_guard", switch(self.spoof_guard));
        if let Some(CniDirs { bin, conf }) = &self.cni_dirs {
            line("cni_bin_dir", text(&bin.display()));
            line("cni_conf_dir", text(&conf.display()));
        }
        line("kubernetes", toml::Value::Boolean(self.kubernetes));
        let choice = self.node_address.as_ref().map(ToString::to_string);
        line("node_address", text(&choice.unwrap_or_default()));
        line("no_discovery", toml::Value::Boolean(!self.discovery));
        let limit = u32::try_from(self.conn_limit);
        line(
            "conn_limit",
            limit.map_or_else(|_| text(&self.conn_limit), number),
        );
        line("log_level", text(&self.log_level));
        out
    }
}
