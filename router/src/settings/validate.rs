//! Every option read, and all faults told at once.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use mesh::Fingerprint;
use wire::{PeerName, Vni, vxlan};

use super::resolved::Settings;
use super::values::{
    DEFAULT_CONN_LIMIT, IpamInit, REKEY, absolute_path, conn_limit, default_range, duration,
    ifname, ipam_init, listen, log_level, metrics, mtu, node_address, parsed, port, queues, range,
    range_size, rekey_interval, socket, spin, subnet, switch, trusted_subnet, worker_nice,
};
use super::{Endpoint, Given, Options, Problem, Source};
use crate::install::CniDirs;
use crate::io::datapath::{SpinPolicy, WORKER_NICE};

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
            absolute_path,
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
        password_file: v.read("password_file", &options.password_file, None, some_path),
        allow_identity: v.fingerprints("allow_identity", &options.allow_identity),
        trusted_subnets: v.subnets("trusted_subnets", &options.trusted_subnets),
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
        spin: v.read("spin", &options.spin, SpinPolicy::AUTO, spin),
        worker_nice: v.read(
            "worker_nice",
            &options.worker_nice,
            Some(WORKER_NICE),
            worker_nice,
        ),
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
        let bin_dir = self.read("cni_bin_dir", bin, None, some_path);
        let conf_dir = self.read("cni_conf_dir", conf, None, some_path);
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

    fn subnets(&mut self, key: &str, given: &Option<Vec<Given>>) -> Vec<IpNet> {
        let mut subnets = Vec::new();
        for given in given.iter().flatten() {
            match trusted_subnet(given.text.trim()) {
                Ok(subnet) if subnets.contains(&subnet) => {
                    self.problem(key, Some(given), "listed twice: name it once");
                }
                Ok(subnet) => subnets.push(subnet),
                Err(error) => self.problem(key, Some(given), error),
            }
        }
        subnets
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

fn some_path(text: &str) -> Result<Option<PathBuf>, String> {
    absolute_path(text).map(Some)
}
