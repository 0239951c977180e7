//! From what was given to what the router runs with.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use mesh::Fingerprint;
use tracing_subscriber::EnvFilter;
use wire::{PeerName, Vni, vxlan};

use crate::io::datapath::SpinPolicy;

use super::{Endpoint, Given, Options, Problem, Source};
use crate::install::CniDirs;

/// Smallest MTU: what every IPv4 host must be able to receive (RFC 791 §3.1).
const MIN_MTU: u16 = 576;
/// Largest MTU: a frame with the VXLAN overhead of 50 must fit an IP packet of 65535 bytes.
const MAX_MTU: u16 = u16::MAX - vxlan::OVERHEAD_IPV4;
/// Kernel limit of a device's name: `IFNAMSIZ` less the closing zero.
const MAX_IFNAME: usize = 15;
/// Longest time, and the usual one, for which a session's keys are in use: WireGuard's.
const REKEY: Duration = Duration::from_secs(120);
/// More queues than any machine's network card has use for.
const MAX_QUEUES: usize = 256;
/// Spinning for longer is a core given away.
const MAX_SPIN: Duration = Duration::from_millis(10);
/// Weave's value. A node in a network of 5,000 needs 16.
const DEFAULT_CONN_LIMIT: usize = 200;
/// More than the largest network that was tried has nodes: each connection costs two tasks and a queue.
const MAX_CONN_LIMIT: usize = 10_000;
/// Longest path of a unix socket: `sun_path` less the closing zero (`unix(7)`).
const MAX_SOCKET_PATH: usize = 107;

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

/// Reads every option, collecting all faults on top of those that are known already.
pub(super) fn validate(
    options: &Options,
    host_name: &str,
    problems: Vec<Problem>,
) -> Result<Settings, Vec<Problem>> {
    let mut v = Validator { problems };
    let control_port = v.read("control_port", &options.control_port, 6783, port);
    let vxlan_port = v.read("vxlan_port", &options.vxlan_port, vxlan::DEFAULT_PORT, port);
    let sleeve_port = v.read("sleeve_port", &options.sleeve_port, control_port, port);
    let default_metrics = Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 6782));
    let metrics_address = v.read(
        "metrics_address",
        &options.metrics_address,
        default_metrics,
        metrics,
    );
    let kubernetes = v.read("kubernetes", &options.kubernetes, false, switch);
    let undecided = IpamInit {
        cluster: kubernetes,
        ..IpamInit::default()
    };
    let init = v.read("ipam_init", &options.ipam_init, undecided, ipam_init);
    let IpamInit {
        seeds,
        consensus,
        cluster: cluster_divides,
    } = init;
    let settings = Settings {
        name: v.name(&options.name, host_name),
        state_dir: v.read(
            "state_dir",
            &options.state_dir,
            "/var/lib/weft".into(),
            directory,
        ),
        socket: v.read(
            "socket",
            &options.socket,
            control::DEFAULT_SOCKET.into(),
            socket,
        ),
        bridge: v.read("bridge", &options.bridge, "weft".to_owned(), ifname),
        tap: v.read("tap", &options.tap, "weft-tap".to_owned(), ifname),
        peers: v.endpoints("peer", &options.peer, control_port),
        vteps: v.endpoints("vtep", &options.vtep, vxlan_port),
        vxlan_port,
        sleeve_port,
        vni: v.read("vni", &options.vni, Vni::DEFAULT, parsed),
        control_port,
        listen: v.read("listen", &options.listen, None, listen),
        metrics_address,
        range: v.read("range", &options.range, default_range(), range),
        default_subnet: v.read(
            "ipam_default_subnet",
            &options.ipam_default_subnet,
            None,
            subnet,
        ),
        seeds,
        consensus,
        cluster_divides,
        password_file: v.read("password_file", &options.password_file, None, file),
        allow_identity: v.fingerprints("allow_identity", &options.allow_identity),
        rekey_interval: v.read(
            "rekey_interval",
            &options.rekey_interval,
            REKEY,
            rekey_interval,
        ),
        ipam_hold_down: v.read(
            "ipam_hold_down",
            &options.ipam_hold_down,
            Duration::from_secs(60),
            duration,
        ),
        mtu: v.read("mtu", &options.mtu, None, mtu),
        mac_age: v.read(
            "mac_age",
            &options.mac_age,
            Duration::from_secs(600),
            duration,
        ),
        queues: v.read("queues", &options.queues, None, queues),
        offloads: v.read("offloads", &options.offloads, true, switch),
        spin: v.read("spin", &options.spin, SpinPolicy::OFF, spin),
        pin_workers: v.read("pin_workers", &options.pin_workers, false, switch),
        masquerade: v.read("masquerade", &options.masquerade, true, switch),
        spoof_guard: v.read("spoof_guard", &options.spoof_guard, kubernetes, switch),
        cni_dirs: v.cni_dirs(options),
        kubernetes,
        node_address: v.read("node_address", &options.node_address, None, node_address),
        discovery: !v.read("no_discovery", &options.no_discovery, false, switch),
        conn_limit: v.read(
            "conn_limit",
            &options.conn_limit,
            DEFAULT_CONN_LIMIT,
            conn_limit,
        ),
        log_level: v.read(
            "log_level",
            &options.log_level,
            "info".to_owned(),
            log_level,
        ),
    };
    v.together(options, &settings);
    if v.problems.is_empty() {
        Ok(settings)
    } else {
        Err(v.problems)
    }
}

struct Validator {
    problems: Vec<Problem>,
}

impl Validator {
    fn problem(&mut self, key: &str, given: Option<&Given>, message: impl Display) {
        self.problems.push(Problem {
            key: key.to_owned(),
            value: given.map(|given| given.text.clone()),
            source: given.map_or(Source::Default, |given| given.source),
            message: message.to_string(),
        });
    }

    /// Reads a value; a faulty one is noted and stands as its default until the end.
    fn read<T, E: Display>(
        &mut self,
        key: &str,
        given: &Option<Given>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> T {
        let Some(given) = given else { return default };
        match parse(given.text.trim()) {
            Ok(value) => value,
            Err(error) => {
                self.problem(key, Some(given), error);
                default
            }
        }
    }

    fn name(&mut self, given: &Option<Given>, host_name: &str) -> PeerName {
        let (text, source) = match given {
            Some(given) => (given.text.trim(), given.source),
            None => (host_name, Source::Default),
        };
        text.parse().unwrap_or_else(|error| {
            let message = match source {
                Source::Default => format!("the host name will not do, set --name: {error}"),
                Source::Flag | Source::File => format!("{error}"),
            };
            let given = Given {
                text: text.to_owned(),
                source,
            };
            self.problem("name", Some(&given), message);
            "invalid".parse().expect("a node name by wire's rules")
        })
    }

    fn endpoints(&mut self, key: &str, given: &Option<Vec<Given>>, port: u16) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for given in given.iter().flatten() {
            match Endpoint::parse(&given.text, port) {
                Ok(endpoint) if endpoints.contains(&endpoint) => {
                    self.problem(key, Some(given), "listed twice: name it once");
                }
                Ok(endpoint) => endpoints.push(endpoint),
                Err(error) => self.problem(key, Some(given), error),
            }
        }
        endpoints
    }

    fn cni_dirs(&mut self, options: &Options) -> Option<CniDirs> {
        let (bin, conf) = (&options.cni_bin_dir, &options.cni_conf_dir);
        let some = |text: &str| directory(text).map(Some);
        let bin_dir = self.read("cni_bin_dir", bin, None, some);
        let conf_dir = self.read("cni_conf_dir", conf, None, some);
        if bin.is_some() != conf.is_some() {
            let (key, given) = match bin {
                Some(_) => ("cni_bin_dir", bin.as_ref()),
                None => ("cni_conf_dir", conf.as_ref()),
            };
            let both = "a plugin without its configuration does nothing, nor does a configuration \
                        without its plugin: set cni_bin_dir and cni_conf_dir";
            self.problem(key, given, both);
        }
        Some(CniDirs {
            bin: bin_dir?,
            conf: conf_dir?,
        })
    }

    fn fingerprints(&mut self, key: &str, given: &Option<Vec<Given>>) -> BTreeSet<Fingerprint> {
        let mut all = BTreeSet::new();
        for given in given.iter().flatten() {
            match given.text.trim().parse() {
                Ok(fingerprint) => {
                    all.insert(fingerprint);
                }
                Err(error) => self.problem(key, Some(given), error),
            }
        }
        all
    }

    /// What single values cannot show: names and ports that must differ.
    fn together(&mut self, options: &Options, settings: &Settings) {
        if settings.bridge == settings.tap {
            self.problem(
                "tap",
                options.tap.as_ref(),
                format_args!(
                    "the bridge has the name {:?}: the two must differ",
                    settings.bridge
                ),
            );
        }
        if settings.vxlan_port == settings.sleeve_port {
            self.problem(
                "vxlan_port",
                options.vxlan_port.as_ref(),
                format_args!(
                    "sleeve_port is {} too, which is control_port's unless it is set: the two must \
                     differ",
                    settings.sleeve_port
                ),
            );
        }
        if settings
            .metrics_address
            .is_some_and(|address| address.port() == settings.control_port)
        {
            self.problem(
                "metrics_address",
                options.metrics_address.as_ref(),
                format_args!(
                    "control_port is {} too: the two must differ",
                    settings.control_port
                ),
            );
        }
        if settings.cluster_divides && !settings.kubernetes {
            self.problem(
                "ipam_init",
                options.ipam_init.as_ref(),
                "there is no cluster to ask: set --kubernetes too",
            );
        }
        if settings.node_address.is_some() && !settings.kubernetes {
            self.problem(
                "node_address",
                options.node_address.as_ref(),
                "only nodes of a cluster have addresses to choose from: set --kubernetes, or leave \
                 it out",
            );
        }
        if let Some(subnet) = settings
            .default_subnet
            .filter(|subnet| !settings.range.contains(subnet))
        {
            self.problem(
                "ipam_default_subnet",
                options.ipam_default_subnet.as_ref(),
                format_args!(
                    "{subnet} is no part of the range: use a subnet of {}",
                    settings.range
                ),
            );
        }
        let addresses = range_size(settings.range);
        if addresses / 4 < settings.seeds.len() as u128 {
            self.problem(
                "ipam_init",
                options.ipam_init.as_ref(),
                format_args!(
                    "{} seeds are too many for the {addresses} addresses of {}: each starts with \
                     at least 4",
                    settings.seeds.len(),
                    settings.range
                ),
            );
        }
    }
}

fn parsed<T>(text: &str) -> Result<T, T::Err>
where
    T: std::str::FromStr,
{
    text.parse()
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a port: use a number from 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
    }
}

fn directory(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err(
            "a relative path depends on where the router is started: use an absolute one"
                .to_owned(),
        )
    }
}

fn socket(text: &str) -> Result<PathBuf, String> {
    if text.len() > MAX_SOCKET_PATH {
        return Err(format!(
            "{} bytes are too long for a socket's path: use at most {MAX_SOCKET_PATH}",
            text.len()
        ));
    }
    if text.ends_with('/') {
        return Err("a directory: name the socket in it".to_owned());
    }
    directory(text)
}

/// The kernel's rule (`dev_valid_name`), and no `%`, which it would take for a pattern to fill in.
fn ifname(text: &str) -> Result<String, String> {
    let good = (1..=MAX_IFNAME).contains(&text.len())
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"/:%\"'\\".contains(&b));
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "not a device name: use 1 to {MAX_IFNAME} letters, digits, '-', '_' or '.'"
        ))
    }
}

fn file(text: &str) -> Result<Option<PathBuf>, String> {
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

fn listen(text: &str) -> Result<Option<IpAddr>, String> {
    if text == "all" {
        return Ok(None);
    }
    let address: IpAddr = text.parse().map_err(|_| {
        "not an IP address: use one of this machine's, or all; the port is control_port".to_owned()
    })?;
    if address.is_multicast() {
        return Err(
            "a multicast address takes no connections: use one of this machine's".to_owned(),
        );
    }
    Ok((!address.is_unspecified()).then_some(address))
}

fn metrics(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(Some(address)),
        _ => Err("write ADDRESS:PORT as in 127.0.0.1:6782 or [::]:6782, or off".to_owned()),
    }
}

fn default_range() -> IpNet {
    "10.32.0.0/12".parse().expect("a CIDR literal")
}

/// Prefix lengths that make sense for an overlay: large enough for a node's bridge and a few pods,
/// and for IPv4 no larger than the largest private block (RFC 1918 §3).
fn range(text: &str) -> Result<IpNet, String> {
    let range: IpNet = text.parse().map_err(|_| {
        "not a CIDR: write a network and prefix length as in 10.32.0.0/12".to_owned()
    })?;
    let (min, max) = match range {
        IpNet::V4(_) => (8, 29),
        IpNet::V6(_) => (32, 120),
    };
    if !(min..=max).contains(&range.prefix_len()) {
        return Err(format!(
            "prefix length {} is not from {min} to {max}",
            range.prefix_len()
        ));
    }
    if range.trunc() != range {
        return Err(format!(
            "has bits set behind the prefix: write {}",
            range.trunc()
        ));
    }
    let address = range.addr();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_multicast() || address.is_loopback() || address.is_unspecified() || link_local {
        return Err(
            "pods need ordinary unicast addresses: use a private block such as \
                    10.32.0.0/12 or fd00:32::/64"
                .to_owned(),
        );
    }
    Ok(range)
}

/// Number of addresses, less one so that `::/0` would fit.
fn range_size(range: IpNet) -> u128 {
    let bits = range.max_prefix_len() - range.prefix_len();
    1u128.checked_shl(bits.into()).unwrap_or(u128::MAX)
}

/// Seeds, or the number of nodes that agree, or that the cluster decides.
#[derive(Default)]
struct IpamInit {
    seeds: Vec<PeerName>,
    consensus: Option<u32>,
    cluster: bool,
}

fn node_address(text: &str) -> Result<Option<NodeAddressChoice>, String> {
    if text.contains('/') {
        let net: IpNet = text
            .parse()
            .map_err(|_| "not a CIDR: write a network as in 192.0.2.0/24".to_owned())?;
        return Ok(Some(NodeAddressChoice::Within(net.trunc())));
    }
    match ifname(text) {
        Ok(name) => Ok(Some(NodeAddressChoice::Interface(name))),
        Err(_) => Err("write a network as in 192.0.2.0/24, or an interface's name".to_owned()),
    }
}
fn subnet(text: &str) -> Result<Option<IpNet>, String> {
    let subnet: IpNet = text
        .parse()
        .map_err(|_| "not a subnet in CIDR form: write it as 10.32.64.0/20".to_owned())?;
    if subnet.trunc() != subnet {
        let network = subnet.trunc();
        return Err(format!("has bits set behind the prefix: write {network}"));
    }
    let longest = subnet.max_prefix_len() - 2;
    if subnet.prefix_len() > longest {
        return Err(format!(
            "has no room for pods: use a prefix of /{longest} or shorter"
        ));
    }
    Ok(Some(subnet))
}

fn ipam_init(text: &str) -> Result<IpamInit, String> {
    if text == "cluster" {
        return Ok(IpamInit {
            cluster: true,
            ..IpamInit::default()
        });
    }
    if let Some(count) = text.strip_prefix("consensus=") {
        let count = count.trim().parse().ok().filter(|count| *count > 0);
        return match count {
            Some(count) => Ok(IpamInit {
                consensus: Some(count),
                ..IpamInit::default()
            }),
            None => Err("write the number of nodes that agree, as in consensus=3".to_owned()),
        };
    }
    if text == "cluster" {
        return Err("the router does not ask an orchestrator yet: write seed= and the names of the first nodes, \
                    as in seed=a,b,c"
            .to_owned());
    }
    let Some(list) = text.strip_prefix("seed=") else {
        return Err("write seed= and the names of the first nodes, as in seed=a,b,c, or consensus= and the number of \
                    nodes that agree on the first split, as in consensus=3"
            .to_owned());
    };
    let mut seeds: Vec<PeerName> = Vec::new();
    for name in list.split(',') {
        let name: PeerName = name.trim().parse().map_err(|error| format!("{error}"))?;
        if seeds.contains(&name) {
            return Err(format!("{name} is listed twice: name it once"));
        }
        seeds.push(name);
    }
    Ok(IpamInit {
        seeds,
        ..IpamInit::default()
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);
    match humantime::parse_duration(text) {
        Ok(duration) if range.contains(&duration) => Ok(duration),
        _ => Err("write a duration from 1s to 7days, as in 90s or 10m".to_owned()),
    }
}

fn rekey_interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if (Duration::from_secs(1)..=REKEY).contains(&interval) => Ok(interval),
        _ => Err("write a duration from 1s to 2m, as in 30s".to_owned()),
    }
}

fn mtu(text: &str) -> Result<Option<u16>, String> {
    if text == "auto" {
        return Ok(None);
    }
    match text.parse() {
        Ok(mtu) if (MIN_MTU..=MAX_MTU).contains(&mtu) => Ok(Some(mtu)),
        _ => Err(format!("use a number from {MIN_MTU} to {MAX_MTU}, or auto")),
    }
}

fn queues(text: &str) -> Result<Option<usize>, String> {
    if text == "auto" {
        return Ok(None);
    }
    match text.parse() {
        Ok(queues) if (1..=MAX_QUEUES).contains(&queues) => Ok(Some(queues)),
        _ => Err(format!("use a number from 1 to {MAX_QUEUES}, or auto")),
    }
}

fn conn_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=MAX_CONN_LIMIT).contains(&limit) => Ok(limit),
        _ => Err(format!("use a number from 1 to {MAX_CONN_LIMIT}")),
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err("use on or off (true and false do as well)".to_owned()),
    }
}

fn spin(text: &str) -> Result<SpinPolicy, String> {
    match text {
        "off" => return Ok(SpinPolicy::OFF),
        "auto" => return Ok(SpinPolicy::AUTO),
        _ => {}
    }
    match humantime::parse_duration(text) {
        Ok(window) if window <= MAX_SPIN => Ok(SpinPolicy { window }),
        _ => Err("use off, auto, or a duration such as 20us, at most 10ms".to_owned()),
    }
}

fn log_level(text: &str) -> Result<String, String> {
    // A lone word that is no level would be taken for a module's name, and silence the rest.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let lone_word = !text.contains(['=', ',', '[']);
    if (lone_word && !levels.contains(&text)) || EnvFilter::try_new(text).is_err() {
        return Err(format!(
            "use one of {}, or directives as in mesh=debug,info",
            levels.join(", ")
        ));
    }
    Ok(text.to_owned())
}
