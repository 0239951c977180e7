//! What each single value may be: its text read, or why it will not do and what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;
use wire::{PeerName, vxlan};

use super::resolved::NodeAddressChoice;
use crate::io::datapath::SpinPolicy;

/// Smallest MTU: what every IPv4 host must be able to receive (RFC 791 §3.1).
const MIN_MTU: u16 = 576;
/// Largest MTU: a frame with the VXLAN overhead of 50 must fit an IP packet of 65535 bytes.
const MAX_MTU: u16 = u16::MAX - vxlan::OVERHEAD_IPV4;
/// Kernel limit of a device's name: `IFNAMSIZ` less the closing zero.
const MAX_IFNAME: usize = 15;
/// Longest time, and the usual one, for which a session's keys are in use: WireGuard's.
pub(super) const REKEY: Duration = Duration::from_secs(120);
/// More queues than any machine's network card has use for.
const MAX_QUEUES: usize = 256;
/// Spinning for longer is a core given away.
const MAX_SPIN: Duration = Duration::from_millis(10);
/// Weave's value. A node in a network of 5,000 needs 16.
pub(super) const DEFAULT_CONN_LIMIT: usize = 200;
/// More than the largest network that was tried has nodes: each connection costs two tasks and a queue.
const MAX_CONN_LIMIT: usize = 10_000;
/// Longest path of a unix socket: `sun_path` less the closing zero (`unix(7)`).
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn parsed<T>(text: &str) -> Result<T, T::Err>
where
    T: std::str::FromStr,
{
    text.parse()
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a port: use a number from 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
    }
}

pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err(
            "a relative path depends on where the router is started: use an absolute one"
                .to_owned(),
        )
    }
}

pub(super) fn socket(text: &str) -> Result<PathBuf, String> {
    if text.len() > MAX_SOCKET_PATH {
        return Err(format!(
            "{} bytes are too long for a socket's path: use at most {MAX_SOCKET_PATH}",
            text.len()
        ));
    }
    if text.ends_with('/') {
        return Err("a directory: name the socket in it".to_owned());
    }
    absolute_path(text)
}

/// The kernel's rule (`dev_valid_name`), and no `%`, which it would take for a pattern to fill in.
pub(super) fn ifname(text: &str) -> Result<String, String> {
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

pub(super) fn listen(text: &str) -> Result<Option<IpAddr>, String> {
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

pub(super) fn metrics(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(Some(address)),
        _ => Err("write ADDRESS:PORT as in 127.0.0.1:6782 or [::]:6782, or off".to_owned()),
    }
}

pub(super) fn default_range() -> IpNet {
    "10.32.0.0/12".parse().expect("a CIDR literal")
}

/// Prefix lengths that make sense for an overlay: large enough for a node's bridge and a few pods,
/// and for IPv4 no larger than the largest private block (RFC 1918 §3).
pub(super) fn range(text: &str) -> Result<IpNet, String> {
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
pub(super) fn range_size(range: IpNet) -> u128 {
    let bits = range.max_prefix_len() - range.prefix_len();
    1u128.checked_shl(bits.into()).unwrap_or(u128::MAX)
}

/// Seeds, or the number of nodes that agree, or that the cluster decides.
#[derive(Default)]
pub(super) struct IpamInit {
    pub(super) seeds: Vec<PeerName>,
    pub(super) consensus: Option<u32>,
    pub(super) cluster: bool,
}

pub(super) fn node_address(text: &str) -> Result<Option<NodeAddressChoice>, String> {
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

pub(super) fn subnet(text: &str) -> Result<Option<IpNet>, String> {
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

/// A prefix of no bits would trust the whole world, on both sides of a mistake.
pub(super) fn trusted_subnet(text: &str) -> Result<IpNet, String> {
    let subnet: IpNet = text.parse().map_err(|_| {
        "not a network in CIDR form: write it as 10.0.0.0/8, one node as 192.0.2.7/32".to_owned()
    })?;
    if subnet.trunc() != subnet {
        let network = subnet.trunc();
        return Err(format!("has bits set behind the prefix: write {network}"));
    }
    if subnet.prefix_len() == 0 {
        return Err(
            "trusts every network: leave out the password if nothing is to be sealed".to_owned(),
        );
    }
    Ok(subnet)
}

pub(super) fn ipam_init(text: &str) -> Result<IpamInit, String> {
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
    let Some(list) = text.strip_prefix("seed=") else {
        return Err("write seed= and the names of the first nodes, as in seed=a,b,c; consensus= and the number of \
                    nodes that agree on the first split, as in consensus=3; or cluster, with --kubernetes"
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

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);
    match humantime::parse_duration(text) {
        Ok(duration) if range.contains(&duration) => Ok(duration),
        _ => Err("write a duration from 1s to 7days, as in 90s or 10m".to_owned()),
    }
}

pub(super) fn rekey_interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if (Duration::from_secs(1)..=REKEY).contains(&interval) => Ok(interval),
        _ => Err("write a duration from 1s to 2m, as in 30s".to_owned()),
    }
}

pub(super) fn mtu(text: &str) -> Result<Option<u16>, String> {
    if text == "auto" {
        return Ok(None);
    }
    match text.parse() {
        Ok(mtu) if (MIN_MTU..=MAX_MTU).contains(&mtu) => Ok(Some(mtu)),
        _ => Err(format!("use a number from {MIN_MTU} to {MAX_MTU}, or auto")),
    }
}

pub(super) fn queues(text: &str) -> Result<Option<usize>, String> {
    if text == "auto" {
        return Ok(None);
    }
    match text.parse() {
        Ok(queues) if (1..=MAX_QUEUES).contains(&queues) => Ok(Some(queues)),
        _ => Err(format!("use a number from 1 to {MAX_QUEUES}, or auto")),
    }
}

pub(super) fn conn_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=MAX_CONN_LIMIT).contains(&limit) => Ok(limit),
        _ => Err(format!("use a number from 1 to {MAX_CONN_LIMIT}")),
    }
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err("use on or off (true and false do as well)".to_owned()),
    }
}

pub(super) fn spin(text: &str) -> Result<SpinPolicy, String> {
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

pub(super) fn worker_nice(text: &str) -> Result<Option<i8>, String> {
    if text == "off" {
        return Ok(None);
    }
    match text.parse() {
        Ok(nice) if (-20..=19).contains(&nice) => Ok(Some(nice)),
        _ => Err("use off or a number from -20 to 19".to_owned()),
    }
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
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
