//! What `ADD` answers, and what comes back of it as `prevResult` (CNI 1.1.0 §5, "ADD Success").

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wire::Mac;

use crate::config::{Config, Dns, Route};
use crate::error::{CniError, Code};
use crate::version::SpecVersion;

/// An attachment as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wired {
    pub(crate) host: Interface,
    pub(crate) pod: Interface,
    pub(crate) addresses: Vec<IpNet>,
    /// One of each family, where there is one.
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) routes: Vec<Route>,
    /// What the plugin that gave the addresses says of names.
    pub(crate) dns: Dns,
}

/// An interface in a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<Mac>,
    /// In bytes of IP packet; since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    /// `CNI_NETNS` as it was given; empty on the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
}

/// The result of the plugins that ran before.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PrevResult {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) ips: Vec<PrevIp>,
    pub(crate) routes: Vec<Route>,
    dns: Dns,
    /// As it came, to be handed on with whatever else is in it.
    raw: Map<String, Value>,
}

/// An address in a result.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct PrevIp {
    pub(crate) address: IpNet,
    /// Place in `interfaces`.
    #[serde(default)]
    pub(crate) interface: Option<usize>,
}

impl PrevResult {
    /// Checks what this plugin needs to understand of a `prevResult`.
    pub(crate) fn parse(raw: Map<String, Value>) -> Result<Self, CniError> {
        #[derive(Deserialize)]
        struct Known {
            interfaces: Option<Vec<Interface>>,
            ips: Option<Vec<PrevIp>>,
            routes: Option<Vec<Route>>,
            dns: Option<Dns>,
        }
        let bad = |why: String| CniError::new(Code::InvalidConfig, "prevResult is not valid", why);
        let known = Known::deserialize(&raw).map_err(|error| bad(error.to_string()))?;
        let interfaces = known.interfaces.unwrap_or_default();
        let ips = known.ips.unwrap_or_default();
        for ip in &ips {
            if let Some(place) = ip.interface.filter(|&place| place >= interfaces.len()) {
                let count = interfaces.len();
                let address = ip.address;
                return Err(bad(format!("{address} is on interface {place} of {count}")));
            }
        }
        Ok(Self {
            interfaces,
            ips,
            routes: known.routes.unwrap_or_default(),
            dns: known.dns.unwrap_or_default(),
            raw,
        })
    }

    fn list(&self, key: &str) -> Vec<Value> {
        self.raw
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    }
}

/// The result of `ADD`, in the words of the configuration's version. What earlier plugins made
/// stays in front, as it came.
pub(crate) fn add_result(config: &Config, prev: Option<&PrevResult>, wired: &Wired) -> Value {
    let list = |key| prev.map(|prev| prev.list(key)).unwrap_or_default();
    let version = config.version;

    let mut interfaces = list("interfaces");
    let pod_place = interfaces.len() + 1;
    for interface in [&wired.host, &wired.pod] {
        let mtu = interface.mtu.filter(|_| version >= SpecVersion::V1_1_0);
        interfaces.push(json!(Interface {
            mtu,
            ..interface.clone()
        }));
    }

    let mut ips = list("ips");
    for address in &wired.addresses {
        let mut ip = ip_entry(version, *address, &wired.gateways);
        ip["interface"] = json!(pod_place);
        ips.push(ip);
    }

    let mut routes = list("routes");
    routes.extend(wired.routes.iter().map(|route| json!(route)));

    let mut dns = prev.map(|prev| prev.dns.clone()).unwrap_or_default();
    let ours = match config.dns == Dns::default() {
        true => &wired.dns,
        false => &config.dns,
    };
    dns.nameservers.extend(ours.nameservers.iter().cloned());
    dns.domain = ours.domain.clone().or(dns.domain);
    dns.search.extend(ours.search.iter().cloned());
    dns.options.extend(ours.options.iter().cloned());

    json!({
        "cniVersion": version.as_str(),
        "interfaces": interfaces,
        "ips": ips,
        "routes": routes,
        "dns": dns,
    })
}

/// An entry of `ips` in the words of a version, without the place of its interface.
pub(crate) fn ip_entry(version: SpecVersion, address: IpNet, gateways: &[IpAddr]) -> Value {
    let is_ipv4 = address.addr().is_ipv4();
    let mut ip = json!({ "address": address });
    if let Some(gateway) = gateways.iter().find(|gw| gw.is_ipv4() == is_ipv4) {
        ip["gateway"] = json!(gateway);
    }
    if version < SpecVersion::V1_0_0 {
        ip["version"] = json!(if is_ipv4 { "4" } else { "6" });
    }
    ip
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Document;

    fn config(version: &str, more: &Value) -> Config {
        let mut document = json!({"cniVersion": version, "name": "pods"});
        for (key, value) in more.as_object().unwrap() {
            document[key] = value.clone();
        }
        Document::parse(document.to_string().as_bytes())
            .and_then(Config::read)
            .unwrap()
    }

    fn wired() -> Wired {
        let interface = |name: &str, last, sandbox: &str| Interface {
            name: name.into(),
            mac: Some(Mac([2, 0, 0, 0, 0, last])),
            mtu: Some(1450),
            sandbox: sandbox.into(),
        };
        Wired {
            host: interface("vw1", 1, ""),
            pod: interface("eth0", 2, "/run/netns/p"),
            addresses: vec![
                "10.32.0.7/12".parse().unwrap(),
                "fd00::7/64".parse().unwrap(),
            ],
            gateways: vec!["10.32.0.1".parse().unwrap()],
            routes: vec![Route {
                dst: "0.0.0.0/0".parse().unwrap(),
                gw: Some("10.32.0.1".parse().unwrap()),
            }],
            dns: Dns::default(),
        }
    }

    #[test]
    fn each_version_has_its_fields() {
        for version in SpecVersion::ALL {
            let result = add_result(&config(version.as_str(), &json!({})), None, &wired());
            let mut host = json!({"name": "vw1", "mac": "02:00:00:00:00:01"});
            let mut pod =
                json!({"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/p"});
            let mut v4 = json!({"address": "10.32.0.7/12", "gateway": "10.32.0.1", "interface": 1});
            let mut v6 = json!({"address": "fd00::7/64", "interface": 1});
            if version == SpecVersion::V1_1_0 {
                host["mtu"] = json!(1450);
                pod["mtu"] = json!(1450);
            }
            if version < SpecVersion::V1_0_0 {
                v4["version"] = json!("4");
                v6["version"] = json!("6");
            }
            assert_eq!(
                result,
                json!({
                    "cniVersion": version.as_str(),
                    "interfaces": [host, pod],
                    "ips": [v4, v6],
                    "routes": [{"dst": "0.0.0.0/0", "gw": "10.32.0.1"}],
                    "dns": {},
                })
            );
        }
    }

    #[test]
    fn earlier_results_stay_in_front() {
        let more = json!({
            "dns": {"nameservers": ["10.96.0.10"], "domain": "b"},
            "prevResult": {
                "interfaces": [{"name": "net1", "sandbox": "/run/netns/p", "pciID": "x"}],
                "ips": [{"address": "192.0.2.2/24", "interface": 0}],
                "routes": [{"dst": "198.51.100.0/24", "priority": 7}],
                "dns": {"nameservers": ["192.0.2.53"], "domain": "a"},
            },
        });
        let config = config("1.1.0", &more);
        let prev = PrevResult::parse(config.prev_result.clone().unwrap()).unwrap();
        let result = add_result(&config, Some(&prev), &wired());
        assert_eq!(result["interfaces"][0], more["prevResult"]["interfaces"][0]);
        assert_eq!(result["interfaces"][2]["name"], "eth0");
        assert_eq!(result["ips"][0], more["prevResult"]["ips"][0]);
        assert_eq!(result["ips"][1]["interface"], 2);
        assert_eq!(result["routes"][0], more["prevResult"]["routes"][0]);
        assert_eq!(
            result["dns"],
            json!({"nameservers": ["192.0.2.53", "10.96.0.10"], "domain": "b"})
        );
    }

    #[test]
    fn bad_prev_results_are_refused() {
        for bad in [
            json!({"interfaces": {}}),
            json!({"interfaces": [{"mac": "02:00:00:00:00:01"}]}),
            json!({"ips": [{"address": "10.32.0.7"}]}),
            json!({"ips": [{"address": "10.32.0.7/12", "interface": 0}]}),
            json!({"ips": [{"address": "10.32.0.7/12", "interface": -1}]}),
            json!({"routes": [{}]}),
        ] {
            let error = PrevResult::parse(bad.as_object().unwrap().clone()).unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig);
            assert!(error.msg.contains("prevResult"));
        }
    }
}
