//! What an operator can set, in three places that agree.
//!
//! [`Options`] is the one list: clap makes flags and `WEFT_*` variables of it, serde the keys of
//! the TOML file. A flag beats its variable, both beat the file, the file beats the default.
//! [`Settings`] is what the router runs with, made of it by one validation that reports every
//! fault at once.

mod endpoint;
mod given;
mod resolved;
mod validate;
mod values;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

pub use endpoint::{Endpoint, ParseEndpointError};
pub use given::{Given, Source};
pub use resolved::{NodeAddressChoice, Settings};

/// The configuration file that is read if it is there, unless `--config` names another.
pub const DEFAULT_FILE: &str = "/etc/weft/weft.toml";

/// Everything that can be set, as given. An empty text means "not set", so that a manifest can
/// leave a variable blank.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(default)]
pub struct Options {
    /// This node's name, unique in the cluster [default: the host name]
    #[arg(long, env = "WEFT_NAME", value_name = "NAME")]
    pub name: Option<Given>,

    /// Directory of what survives a restart: identity, addresses [default: /var/lib/weft]
    #[arg(long, env = "WEFT_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<Given>,

    /// Control socket [default: /run/weft/weft.sock]
    #[arg(long, env = "WEFT_SOCKET", value_name = "PATH")]
    pub socket: Option<Given>,

    /// Bridge that the pods join [default: weft]
    #[arg(long, env = "WEFT_BRIDGE", value_name = "NAME")]
    pub bridge: Option<Given>,

    /// TAP device, the router's port on the bridge [default: weft-tap]
    #[arg(long, env = "WEFT_TAP", value_name = "NAME")]
    pub tap: Option<Given>,

    /// Another node; the rest of the cluster is learned from it. Repeat or separate with commas
    #[arg(
        long,
        env = "WEFT_PEER",
        value_name = "HOST[:PORT]",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "given::list")]
    pub peer: Option<Vec<Given>>,

    /// An endpoint that speaks VXLAN but not weft, such as a Linux vxlan device. Repeat or
    /// separate with commas
    #[arg(
        long,
        env = "WEFT_VTEP",
        value_name = "HOST[:PORT]",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "given::list")]
    pub vtep: Option<Vec<Given>>,

    /// UDP port of VXLAN, the same on all nodes; 8472 for Linux and flannel
    /// [default: 6784]
    #[arg(long, env = "WEFT_VXLAN_PORT", value_name = "PORT")]
    pub vxlan_port: Option<Given>,

    /// UDP port of relayed and NAT-crossing data, and of probes [default: the control port's number]
    #[arg(long, env = "WEFT_SLEEVE_PORT", value_name = "PORT")]
    pub sleeve_port: Option<Given>,

    /// VXLAN network identifier [default: 1]
    #[arg(long, env = "WEFT_VNI", value_name = "NUMBER")]
    pub vni: Option<Given>,

    /// TCP port of the connections between routers [default: 6783]
    #[arg(long, env = "WEFT_CONTROL_PORT", value_name = "PORT")]
    pub control_port: Option<Given>,

    /// Address on which other routers' connections are accepted [default: all]
    #[arg(long, env = "WEFT_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<Given>,

    /// Where metrics and health are served, or off [default: 0.0.0.0:6782]
    #[arg(long, env = "WEFT_METRICS_ADDRESS", value_name = "ADDRESS:PORT|off")]
    pub metrics_address: Option<Given>,

    /// Addresses of the overlay, the same on all nodes [default: 10.32.0.0/12]
    #[arg(long, env = "WEFT_RANGE", value_name = "CIDR")]
    pub range: Option<Given>,

    /// Nodes among which the range is first split, the same list on all nodes; or how many nodes
    /// agree on it; or that the cluster's API server decides [default: cluster with --kubernetes]
    #[arg(
        long,
        env = "WEFT_IPAM_INIT",
        value_name = "seed=NAME,NAME..|consensus=NUMBER|cluster"
    )]
    pub ipam_init: Option<Given>,

    /// Part of the range from which addresses are taken unless a network names another
    /// [default: the whole range]
    #[arg(long, env = "WEFT_IPAM_DEFAULT_SUBNET", value_name = "CIDR")]
    pub ipam_default_subnet: Option<Given>,
    /// File with the cluster's password, the same on all nodes: all control and data between nodes is
    /// then encrypted. A second line is accepted from others too. WEFT_PASSWORD holds the password
    /// itself instead [default: none, everything is in the clear]
    #[arg(long, env = "WEFT_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<Given>,

    /// Fingerprint of a node that is spoken to, as `weft status` shows it there; with any, no other
    /// node is, whatever password it has. Repeat or separate with commas
    #[arg(
        long,
        env = "WEFT_ALLOW_IDENTITY",
        value_name = "FINGERPRINT",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "given::list")]
    pub allow_identity: Option<Vec<Given>>,

    /// Network of the underlay in which nodes with a password send frames in the clear to those that
    /// trust them too; control stays encrypted. Repeat or separate with commas [default: none]
    #[arg(
        long,
        env = "WEFT_TRUSTED_SUBNETS",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "given::list")]
    pub trusted_subnets: Option<Vec<Given>>,

    /// How long a session's keys are in use, 1s to 2m [default: 2m]
    #[arg(long, env = "WEFT_REKEY_INTERVAL", value_name = "DURATION")]
    pub rekey_interval: Option<Given>,

    /// How long a released address rests before it is handed out again [default: 60s]
    #[arg(long, env = "WEFT_IPAM_HOLD_DOWN", value_name = "DURATION")]
    pub ipam_hold_down: Option<Given>,

    /// The pods' MTU [default: auto, the underlay's less the encapsulation]
    #[arg(long, env = "WEFT_MTU", value_name = "BYTES|auto")]
    pub mtu: Option<Given>,

    /// A station that is silent for so long is forgotten [default: 10m]
    #[arg(long, env = "WEFT_MAC_AGE", value_name = "DURATION")]
    pub mac_age: Option<Given>,

    /// TAP queues, each with a thread of its own [default: auto, by the number of CPUs]
    #[arg(long, env = "WEFT_QUEUES", value_name = "NUMBER|auto")]
    pub queues: Option<Given>,

    /// Whether the kernel's segmentation offloads are used where it has them [default: on]
    #[arg(long, env = "WEFT_OFFLOADS", value_name = "on|off")]
    pub offloads: Option<Given>,

    /// For how long after its last work a thread of the data path looks for more before it sleeps,
    /// while the machine has a core to spare [default: auto]
    #[arg(long, env = "WEFT_SPIN", value_name = "off|auto|DURATION")]
    pub spin: Option<Given>,

    /// Nice value of the threads of the data path, from -20, the largest share of a processor, to 19; off
    /// leaves them as the router was started [default: -10]
    #[arg(
        long,
        env = "WEFT_WORKER_NICE",
        value_name = "NUMBER|off",
        allow_negative_numbers = true
    )]
    pub worker_nice: Option<Given>,

    /// Whether each thread of the data path stays on a processor of its own [default: off]
    #[arg(long, env = "WEFT_PIN_WORKERS", value_name = "on|off")]
    pub pin_workers: Option<Given>,

    /// Whether what pods send out of the overlay's range carries the node's address [default: on]
    #[arg(long, env = "WEFT_MASQUERADE", value_name = "on|off")]
    pub masquerade: Option<Given>,

    /// Whether frames with another Ethernet or IP address than the pod's are dropped; not for pods
    /// that carry machines of their own [default: on with --kubernetes]
    #[arg(long, env = "WEFT_SPOOF_GUARD", value_name = "on|off")]
    pub spoof_guard: Option<Given>,

    /// Where the plugin is installed once pods can be attached, as /opt/cni/bin [default: nowhere]
    #[arg(long, env = "WEFT_CNI_BIN_DIR", value_name = "DIR")]
    pub cni_bin_dir: Option<Given>,

    /// Where the network's configuration is installed then, as /etc/cni/net.d [default: nowhere]
    #[arg(long, env = "WEFT_CNI_CONF_DIR", value_name = "DIR")]
    pub cni_conf_dir: Option<Given>,

    /// Take peers from the nodes of the Kubernetes cluster that this router runs in, and give back
    /// the addresses of those that are deleted; the name must be the Node's
    #[arg(
        long,
        env = "WEFT_KUBERNETES",
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub kubernetes: Option<Given>,

    /// Which address of the cluster's nodes is used: the one in this network, or in that of this
    /// interface here [default: the InternalIP]
    #[arg(long, env = "WEFT_NODE_ADDRESS", value_name = "CIDR|INTERFACE")]
    pub node_address: Option<Given>,

    /// Connect to the peers that are named and to no others
    #[arg(
        long,
        env = "WEFT_NO_DISCOVERY",
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub no_discovery: Option<Given>,

    /// Most connections of other routers that are accepted; those that this node needs itself are made
    /// all the same [default: 200]
    #[arg(long, env = "WEFT_CONN_LIMIT", value_name = "NUMBER")]
    pub conn_limit: Option<Given>,

    /// What is logged: error, warn, info, debug, trace, or directives as in mesh=debug,info
    /// [default: info]
    #[arg(long, env = "WEFT_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<Given>,
}

impl Options {
    /// The keys of the configuration file: the flags' names with `_` for `-`.
    pub fn keys() -> Vec<String> {
        Self::augment_args(clap::Command::new("weft"))
            .get_arguments()
            .map(|arg| arg.get_id().to_string())
            .collect()
    }

    /// These options, and for what they leave open, those.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        Self {
            name: text(self.name, lower.name),
            state_dir: text(self.state_dir, lower.state_dir),
            socket: text(self.socket, lower.socket),
            bridge: text(self.bridge, lower.bridge),
            tap: text(self.tap, lower.tap),
            peer: list(self.peer, lower.peer),
            vtep: list(self.vtep, lower.vtep),
            vxlan_port: text(self.vxlan_port, lower.vxlan_port),
            sleeve_port: text(self.sleeve_port, lower.sleeve_port),
            vni: text(self.vni, lower.vni),
            control_port: text(self.control_port, lower.control_port),
            listen: text(self.listen, lower.listen),
            metrics_address: text(self.metrics_address, lower.metrics_address),
            range: text(self.range, lower.range),
            ipam_init: text(self.ipam_init, lower.ipam_init),
            ipam_default_subnet: text(self.ipam_default_subnet, lower.ipam_default_subnet),
            password_file: text(self.password_file, lower.password_file),
            allow_identity: list(self.allow_identity, lower.allow_identity),
            trusted_subnets: list(self.trusted_subnets, lower.trusted_subnets),
            rekey_interval: text(self.rekey_interval, lower.rekey_interval),
            ipam_hold_down: text(self.ipam_hold_down, lower.ipam_hold_down),
            mtu: text(self.mtu, lower.mtu),
            mac_age: text(self.mac_age, lower.mac_age),
            queues: text(self.queues, lower.queues),
            offloads: text(self.offloads, lower.offloads),
            spin: text(self.spin, lower.spin),
            worker_nice: text(self.worker_nice, lower.worker_nice),
            pin_workers: text(self.pin_workers, lower.pin_workers),
            masquerade: text(self.masquerade, lower.masquerade),
            spoof_guard: text(self.spoof_guard, lower.spoof_guard),
            cni_bin_dir: text(self.cni_bin_dir, lower.cni_bin_dir),
            cni_conf_dir: text(self.cni_conf_dir, lower.cni_conf_dir),
            kubernetes: text(self.kubernetes, lower.kubernetes),
            node_address: text(self.node_address, lower.node_address),
            no_discovery: text(self.no_discovery, lower.no_discovery),
            conn_limit: text(self.conn_limit, lower.conn_limit),
            log_level: text(self.log_level, lower.log_level),
        }
    }
}

fn text(upper: Option<Given>, lower: Option<Given>) -> Option<Given> {
    let set = |given: &Given| !given.text.trim().is_empty();
    upper.filter(set).or_else(|| lower.filter(set))
}

fn list(upper: Option<Vec<Given>>, lower: Option<Vec<Given>>) -> Option<Vec<Given>> {
    let set = |list: Vec<Given>| {
        let list: Vec<_> = list
            .into_iter()
            .filter(|item| !item.text.trim().is_empty())
            .collect();
        (!list.is_empty()).then_some(list)
    };
    upper.and_then(set).or_else(|| lower.and_then(set))
}

/// One fault in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting's key.
    pub key: String,
    /// Its text, where the fault lies in it.
    pub value: Option<String>,
    /// Who gave it.
    pub source: Source,
    /// What is wrong and what to do.
    pub message: String,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is there, or was asked for, and cannot be read.
    #[error("cannot read the configuration file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not TOML, or a value in it has the wrong shape.
    #[error("the configuration file {} cannot be understood: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// Values that cannot be, all of them.
    #[error("{}", Faults { file: file.as_deref(), problems })]
    Wrong {
        /// The file that was read, if any.
        file: Option<PathBuf>,
        /// What is wrong, in the order of [`Options`].
        problems: Vec<Problem>,
    },
}

struct Faults<'a> {
    file: Option<&'a Path>,
    problems: &'a [Problem],
}

impl fmt::Display for Faults<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("a setting is wrong:")?,
            n => write!(f, "{n} settings are wrong:")?,
        }
        for Problem {
            key,
            value,
            source,
            message,
        } in self.problems
        {
            write!(f, "\n  {key}")?;
            if let Some(value) = value {
                write!(f, " = {value:?}")?;
            }
            match (source, self.file) {
                (Source::Flag, _) => write!(
                    f,
                    " (--{} or WEFT_{})",
                    key.replace('_', "-"),
                    key.to_ascii_uppercase()
                )?,
                (Source::File, Some(file)) => write!(f, " ({})", file.display())?,
                (Source::File | Source::Default, _) => {}
            }
            write!(f, ": {message}")?;
        }
        Ok(())
    }
}

/// Makes the settings of the flags and environment, and of the file: the one that is named, which
/// must exist, or else [`DEFAULT_FILE`], which need not.
///
/// # Errors
/// The file cannot be read, or any value cannot be: all faults are reported together.
pub fn load(
    flags: Options,
    file: Option<&Path>,
    host_name: &str,
) -> Result<Settings, SettingsError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let (lower, unknown) = read_file(path, &text)?;
            validate::validate(&flags.or(lower), host_name, unknown).map_err(|problems| {
                SettingsError::Wrong {
                    file: Some(path.to_owned()),
                    problems,
                }
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_none() => {
            validate::validate(&flags.or(Options::default()), host_name, Vec::new()).map_err(
                |problems| SettingsError::Wrong {
                    file: None,
                    problems,
                },
            )
        }
        Err(error) => Err(SettingsError::Read {
            path: path.to_owned(),
            error,
        }),
    }
}

/// Reads the file's text: what it sets, and the keys that nobody knows.
fn read_file(path: &Path, text: &str) -> Result<(Options, Vec<Problem>), SettingsError> {
    let syntax = |error: toml::de::Error| SettingsError::Syntax {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    };
    let table: toml::Table = toml::from_str(text).map_err(syntax)?;
    let known = Options::keys();
    let unknown = table
        .keys()
        .filter(|key| !known.contains(key))
        .map(|key| unknown(key, &known));
    let unknown = unknown.collect();
    // From the text again, not from the table, so that an error shows the line.
    Ok((toml::from_str(text).map_err(syntax)?, unknown))
}

fn unknown(key: &str, known: &[String]) -> Problem {
    let nearest = known
        .iter()
        .min_by_key(|candidate| distance(key, candidate));
    let message = match nearest {
        // More than a third of the letters wrong is another word, not a slip.
        Some(near) if distance(key, near) <= key.chars().count().div_ceil(3) => {
            format!("there is no such key; did you mean {near}?")
        }
        _ => format!("there is no such key; the keys are {}", known.join(", ")),
    };
    Problem {
        key: key.to_owned(),
        value: None,
        source: Source::File,
        message,
    }
}

/// Levenshtein's distance: how many letters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
