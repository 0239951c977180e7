//! The network configuration on standard input (CNI 1.1.0 §1, and §3 "Deriving request
//! configuration").
//!
//! Keys that are not known are left alone, as the specification wants. Keys that another plugin
//! gives a meaning which weft does not carry out are refused rather than ignored.
//!
//! The object `ipam` says who gives addresses, and with that who is called: weft, which is the
//! default; another IPAM plugin under `weft-cni`; or `weft-cni` as the IPAM plugin under another
//! one, whose top-level keys are then none of ours.

use std::net::IpAddr;
use std::path::PathBuf;

use control::AttachmentRef;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wire::Mac;

use crate::env::{is_plain_name, parse_address, parse_mac};
use crate::error::{CniError, Code};
use crate::version::SpecVersion;

/// Standard input as JSON, before any key but `cniVersion` is looked at.
pub(crate) struct Document {
    pub(crate) version: SpecVersion,
    keys: Map<String, Value>,
}

/// A configuration whose every known key was checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) version: SpecVersion,
    /// `name`: the network's.
    pub(crate) name: String,
    /// Who makes the interface, and who gives the addresses.
    pub(crate) role: Role,
    /// `socket`: the router's control socket.
    pub(crate) socket: Option<PathBuf>,
    /// `bridge`: must be the router's if it is given.
    pub(crate) bridge: Option<String>,
    /// `mtu` in bytes of IP packet; the router's if it is not given, or 0.
    pub(crate) mtu: Option<u16>,
    /// `hairpinMode`: the bridge may send a frame back to the pod, which reaches itself through
    /// its own Service by that. On unless switched off.
    pub(crate) hairpin: bool,
    /// `subnet` or `ipam.subnet`: the part of the range that addresses are taken from.
    pub(crate) subnet: Option<IpNet>,
    /// `gateway` or `ipam.gateway`: instead of the node's address on the bridge.
    pub(crate) gateway: Option<IpAddr>,
    /// `routes` or `ipam.routes`: instead of a default route for each family.
    pub(crate) routes: Option<Vec<Route>>,
    /// `dns`: passed through to the result.
    pub(crate) dns: Dns,
    /// The one address that the runtime asks for, in `runtimeConfig.ips` or `args.cni.ips`.
    pub(crate) address: Option<IpAddr>,
    /// `runtimeConfig.mac`.
    pub(crate) mac: Option<Mac>,
    /// `prevResult`: of the plugins before this one, or, but for `ADD`, of the whole chain.
    pub(crate) prev_result: Option<Map<String, Value>>,
    /// `cni.dev/valid-attachments`, for `GC`.
    pub(crate) valid_attachments: Option<Vec<AttachmentRef>>,
}

/// What the plugin is in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// It makes the interface, and the router gives the addresses.
    Network,
    /// It makes the interface, and this other plugin (`ipam.type`) gives the addresses.
    Delegating(String),
    /// Another plugin makes the interface and asks this one for addresses.
    Ipam,
}

/// A route in the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) dst: IpNet,
    /// The node's address on the bridge if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gw: Option<IpAddr>,
}

/// Resolver settings, which the plugin only hands on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Dns {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) nameservers: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) search: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) options: Vec<String>,
}

impl Document {
    /// Reads standard input up to the version.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, CniError> {
        let decode = |details: String| {
            CniError::new(
                Code::Decode,
                "the network configuration cannot be decoded",
                details,
            )
        };
        let keys = match serde_json::from_slice(bytes) {
            Ok(Value::Object(keys)) => keys,
            Ok(_) => return Err(decode("it is not a JSON object".into())),
            Err(error) => return Err(decode(error.to_string())),
        };
        let text = match keys.get("cniVersion") {
            // As the reference implementation takes it.
            None => "0.1.0",
            Some(Value::String(text)) => text,
            Some(other) => return Err(decode(format!("cniVersion is {other}, not a string"))),
        };
        let version = SpecVersion::parse(text).ok_or_else(|| {
            CniError::new(
                Code::IncompatibleVersion,
                format!("cniVersion {text:?} is not supported"),
                format!("weft-cni speaks {}", SpecVersion::supported().join(", ")),
            )
        })?;
        Ok(Self { version, keys })
    }
}

impl Config {
    /// Checks every key that weft knows.
    pub(crate) fn read(document: Document) -> Result<Self, CniError> {
        let Document { version, mut keys } = document;
        let role = role(&keys)?;
        if role == Role::Ipam {
            // They are the plugin's above, which also hands our `dns` on.
            for key in ABOVE {
                keys.remove(key);
            }
        } else {
            refuse_foreign_keys(&keys, &role)?;
        }
        if !matches!(role, Role::Delegating(_)) {
            adopt_ipam_keys(&mut keys)?;
        }
        let runtime: RuntimeConfig = field(&keys, "runtimeConfig")?.unwrap_or_default();
        let args: ArgsConfig = field(&keys, "args")?.unwrap_or_default();
        Ok(Self {
            version,
            name: network_name(&keys)?,
            role,
            socket: socket(&keys)?,
            bridge: field::<String>(&keys, "bridge")?.filter(|name| !name.is_empty()),
            mtu: mtu(&keys)?,
            hairpin: field(&keys, "hairpinMode")?.unwrap_or(true),
            subnet: field(&keys, "subnet")?,
            gateway: field(&keys, "gateway")?,
            routes: routes(&keys)?,
            dns: field(&keys, "dns")?.unwrap_or_default(),
            address: match runtime.ips {
                Some(ips) => one_address("runtimeConfig.ips", &ips)?,
                None => one_address("args.cni.ips", &args.cni.ips)?,
            },
            mac: match runtime.mac {
                Some(text) => Some(
                    parse_mac(&text).map_err(|why| invalid("runtimeConfig.mac", &text, &why))?,
                ),
                None => None,
            },
            prev_result: field(&keys, "prevResult")?,
            valid_attachments: field::<Vec<ValidAttachment>>(&keys, VALID_ATTACHMENTS)?
                .map(|list| list.into_iter().map(AttachmentRef::from).collect()),
        })
    }
}

const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";

/// Capability arguments. Others than these are for other plugins of the chain.
#[derive(Default, Deserialize)]
struct RuntimeConfig {
    ips: Option<Vec<String>>,
    mac: Option<String>,
}

#[derive(Default, Deserialize)]
struct ArgsConfig {
    #[serde(default)]
    cni: CniArgs,
}

#[derive(Default, Deserialize)]
struct CniArgs {
    #[serde(default)]
    ips: Vec<String>,
}

#[derive(Deserialize)]
struct ValidAttachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

impl From<ValidAttachment> for AttachmentRef {
    fn from(valid: ValidAttachment) -> Self {
        Self::new(valid.container_id, valid.ifname)
    }
}

/// `ipam.type` and `type` of this plugin.
const OWN_TYPE: &str = "weft-cni";
/// Keys whose meaning is the calling plugin's when `weft-cni` is its IPAM plugin.
const ABOVE: [&str; 6] = ["bridge", "mtu", "hairpinMode", "gateway", "routes", "dns"];

fn role(keys: &Map<String, Value>) -> Result<Role, CniError> {
    let given = match keys.get("ipam") {
        None | Some(Value::Null) => None,
        Some(Value::Object(ipam)) => field::<String>(ipam, "type")
            .map_err(|error| error.below("ipam"))?
            .filter(|name| !name.is_empty()),
        Some(other) => return Err(invalid("ipam", &other.to_string(), "it is not an object")),
    };
    let called = field::<String>(keys, "type")?;
    match given {
        None => Ok(Role::Network),
        Some(name) if name == OWN_TYPE => match called {
            Some(called) if called != OWN_TYPE => Ok(Role::Ipam),
            _ => Ok(Role::Network),
        },
        Some(name) if is_plain_name(&name) => Ok(Role::Delegating(name)),
        Some(name) => Err(invalid(
            "ipam.type",
            &name,
            "it is not the name of a plugin",
        )),
    }
}

/// Takes what `ipam` says for what the top level would say.
fn adopt_ipam_keys(keys: &mut Map<String, Value>) -> Result<(), CniError> {
    let Some(Value::Object(ipam)) = keys.get("ipam").cloned() else {
        return Ok(());
    };
    for key in ["socket", "subnet", "gateway", "routes"] {
        let Some(value) = ipam.get(key).filter(|value| !value.is_null()) else {
            continue;
        };
        match keys.get(key).filter(|above| !above.is_null()) {
            Some(above) if above != value => {
                let text = value.to_string();
                return Err(invalid(
                    &format!("ipam.{key}"),
                    &text,
                    &format!("{key} at the top level is another: give it once"),
                ));
            }
            _ => keys.insert(key.to_owned(), value.clone()),
        };
    }
    Ok(())
}

/// Keys of other plugins that would change what a pod can reach.
fn refuse_foreign_keys(keys: &Map<String, Value>, role: &Role) -> Result<(), CniError> {
    let unsupported = |key: &str, value: &Value, remedy: &str| {
        Err(CniError::new(
            Code::UnsupportedField,
            format!("unsupported field in the network configuration: {key}={value}"),
            remedy,
        ))
    };
    for key in ["isGateway", "ipMasq"] {
        if let Some(value @ Value::Bool(true)) = keys.get(key) {
            return unsupported(key, value, "leave it out: the router sees to it");
        }
    }
    if let Role::Delegating(name) = role {
        for key in ["subnet", "gateway"] {
            if let Some(value) = keys.get(key).filter(|value| !value.is_null()) {
                return unsupported(key, value, &format!("{name} gives the addresses: tell it"));
            }
        }
    }
    Ok(())
}

fn network_name(keys: &Map<String, Value>) -> Result<String, CniError> {
    let name: String = field(keys, "name")?.ok_or_else(|| {
        CniError::new(
            Code::InvalidConfig,
            "name is missing",
            "give the network a name",
        )
    })?;
    match is_plain_name(&name) {
        true => Ok(name),
        false => Err(invalid(
            "name",
            &name,
            "use letters, digits, '_', '.' and '-', starting with a letter or digit",
        )),
    }
}

fn socket(keys: &Map<String, Value>) -> Result<Option<PathBuf>, CniError> {
    let path = field::<PathBuf>(keys, "socket")?.filter(|path| !path.as_os_str().is_empty());
    match path {
        Some(path) if !path.is_absolute() => Err(invalid(
            "socket",
            &path.to_string_lossy(),
            "give an absolute path",
        )),
        path => Ok(path),
    }
}

fn mtu(keys: &Map<String, Value>) -> Result<Option<u16>, CniError> {
    match field::<u16>(keys, "mtu")?.filter(|&mtu| mtu != 0) {
        Some(mtu) if mtu < MIN_MTU => Err(invalid(
            "mtu",
            &mtu.to_string(),
            &format!("it is at least {MIN_MTU}"),
        )),
        mtu => Ok(mtu),
    }
}

/// Smallest MTU that IPv4 works over (RFC 791 §3.2), and that the kernel takes.
const MIN_MTU: u16 = 68;

fn routes(keys: &Map<String, Value>) -> Result<Option<Vec<Route>>, CniError> {
    let routes: Option<Vec<Route>> = field(keys, "routes")?;
    for route in routes.iter().flatten() {
        if let Some(gw) = route.gw
            && gw.is_ipv4() != route.dst.addr().is_ipv4()
        {
            let text = format!("{} via {gw}", route.dst);
            return Err(invalid("routes", &text, "dst and gw are of one family"));
        }
    }
    // The kernel refuses a destination with bits set beyond its prefix length.
    let trunc = |route: Route| Route {
        dst: route.dst.trunc(),
        ..route
    };
    Ok(routes.map(|routes| routes.into_iter().map(trunc).collect()))
}

fn one_address(key: &str, ips: &[String]) -> Result<Option<IpAddr>, CniError> {
    match ips {
        [] => Ok(None),
        [text] => parse_address(text)
            .map(Some)
            .map_err(|why| invalid(key, text, &why)),
        more => Err(CniError::new(
            Code::UnsupportedField,
            format!("unsupported field in the network configuration: {key}={more:?}"),
            "ask for one address",
        )),
    }
}

/// A key's value, or nothing if it is absent or null.
fn field<T: DeserializeOwned>(keys: &Map<String, Value>, key: &str) -> Result<Option<T>, CniError> {
    match keys.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value).map(Some).map_err(|error| {
            CniError::new(
                Code::InvalidConfig,
                format!("{key} is not valid"),
                error.to_string(),
            )
        }),
    }
}

fn invalid(key: &str, value: &str, why: &str) -> CniError {
    CniError::new(
        Code::InvalidConfig,
        format!("{key}={value:?} is not valid"),
        why,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Config, CniError> {
        Document::parse(value.to_string().as_bytes()).and_then(Config::read)
    }

    fn with(key: &str, value: Value) -> Result<Config, CniError> {
        let mut config = json!({"cniVersion": "1.1.0", "name": "pods", "type": "weft-cni"});
        config[key] = value;
        read(&config)
    }

    #[test]
    fn defaults() {
        let config = with("type", json!("weft-cni")).unwrap();
        assert_eq!(config.version, SpecVersion::V1_1_0);
        assert_eq!(config.name, "pods");
        assert!(config.hairpin);
        assert_eq!(
            (config.mtu, config.routes, config.socket),
            (None, None, None)
        );
        assert_eq!(with("mtu", json!(0)).unwrap().mtu, None);
        assert_eq!(with("prevResult", Value::Null).unwrap().prev_result, None);
    }

    #[test]
    fn every_key_is_read() {
        let config = read(&json!({
            "cniVersion": "0.4.0", "name": "pods", "type": "weft-cni",
            "socket": "/run/w/weft.sock", "bridge": "weft", "mtu": 1376, "hairpinMode": false,
            "subnet": "10.33.0.0/16", "ipam": {}, "isGateway": false, "gateway": "10.33.0.1",
            "routes": [{"dst": "10.96.1.1/12"}, {"dst": "0.0.0.0/0", "gw": "10.32.0.254"}],
            "dns": {"nameservers": ["10.96.0.10"], "search": ["a.local"]},
            "capabilities": {"ips": true}, "unknown": {"x": [1]},
            "runtimeConfig": {"ips": ["10.33.0.5/16"], "mac": "02:00:00:00:00:07", "portMappings": []},
            "cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}],
        }))
        .unwrap();
        assert_eq!(config.socket, Some("/run/w/weft.sock".into()));
        assert_eq!(
            (config.bridge.as_deref(), config.mtu, config.hairpin),
            (Some("weft"), Some(1376), false)
        );
        assert_eq!(config.subnet, Some("10.33.0.0/16".parse().unwrap()));
        assert_eq!(config.gateway, Some("10.33.0.1".parse().unwrap()));
        assert_eq!(config.role, Role::Network);
        let routes = config.routes.unwrap();
        assert_eq!(
            routes[0],
            Route {
                dst: "10.96.0.0/12".parse().unwrap(),
                gw: None
            }
        );
        assert_eq!(routes[1].gw, Some("10.32.0.254".parse().unwrap()));
        assert_eq!(config.dns.search, ["a.local"]);
        assert_eq!(config.address, Some("10.33.0.5".parse().unwrap()));
        assert_eq!(config.mac, Some(Mac([2, 0, 0, 0, 0, 7])));
        assert_eq!(
            config.valid_attachments,
            Some(vec![AttachmentRef::new("c", "eth0")])
        );
    }

    #[test]
    fn bad_values_name_the_key_and_the_code() {
        for (key, value, code) in [
            ("name", json!(""), Code::InvalidConfig),
            ("name", json!("../pods"), Code::InvalidConfig),
            ("name", Value::Null, Code::InvalidConfig),
            ("name", json!(7), Code::InvalidConfig),
            ("socket", json!("run/weft.sock"), Code::InvalidConfig),
            ("mtu", json!(67), Code::InvalidConfig),
            ("mtu", json!(65536), Code::InvalidConfig),
            ("mtu", json!("1500"), Code::InvalidConfig),
            ("hairpinMode", json!("yes"), Code::InvalidConfig),
            ("subnet", json!("10.32.0.0/33"), Code::InvalidConfig),
            ("routes", json!([{"dst": "default"}]), Code::InvalidConfig),
            (
                "routes",
                json!([{"dst": "0.0.0.0/0", "gw": "fe80::1"}]),
                Code::InvalidConfig,
            ),
            ("dns", json!(["10.96.0.10"]), Code::InvalidConfig),
            ("prevResult", json!([]), Code::InvalidConfig),
            (
                "runtimeConfig",
                json!({"mac": "01:00:00:00:00:07"}),
                Code::InvalidConfig,
            ),
            (
                "runtimeConfig",
                json!({"ips": ["10.32.0.5", "10.32.0.6"]}),
                Code::UnsupportedField,
            ),
            (
                "args",
                json!({"cni": {"ips": ["ten"]}}),
                Code::InvalidConfig,
            ),
            (
                "cni.dev/valid-attachments",
                json!([{"ifname": "eth0"}]),
                Code::InvalidConfig,
            ),
            ("ipam", json!({"type": "../sh"}), Code::InvalidConfig),
            ("ipam", json!({"type": 7}), Code::InvalidConfig),
            ("ipam", json!([]), Code::InvalidConfig),
            ("gateway", json!("10.32.0.1/12"), Code::InvalidConfig),
            ("type", json!({}), Code::InvalidConfig),
            ("ipMasq", json!(true), Code::UnsupportedField),
            ("isGateway", json!(true), Code::UnsupportedField),
            ("cniVersion", json!("0.2.0"), Code::IncompatibleVersion),
            ("cniVersion", json!("1.2.0"), Code::IncompatibleVersion),
            ("cniVersion", json!(1.1), Code::Decode),
        ] {
            let error = with(key, value.clone()).expect_err(key);
            assert_eq!(error.code, code, "{key}={value}: {error}");
            assert!(error.to_string().contains(key), "{key}={value}: {error}");
        }
        assert_eq!(
            read(&json!({"name": "x"})).unwrap_err().code,
            Code::IncompatibleVersion
        );
    }

    #[test]
    fn unsupported_fields_are_named_with_their_value() {
        let error = with("ipMasq", json!(true)).unwrap_err();
        assert!(error.msg.contains("ipMasq=true"), "{error}");
    }

    #[test]
    fn the_role_follows_from_the_two_types() {
        let role = |kind: &str, ipam: Value| {
            read(&json!({"cniVersion": "1.1.0", "name": "pods", "type": kind, "ipam": ipam}))
                .unwrap()
                .role
        };
        assert_eq!(role("weft-cni", json!({})), Role::Network);
        assert_eq!(role("weft-cni", json!({"type": ""})), Role::Network);
        assert_eq!(role("weft-cni", json!({"type": "weft-cni"})), Role::Network);
        assert_eq!(role("bridge", json!({"type": "weft-cni"})), Role::Ipam);
        assert_eq!(
            role("weft-cni", json!({"type": "host-local"})),
            Role::Delegating("host-local".into())
        );
    }

    #[test]
    fn what_ipam_says_counts_like_the_top_level() {
        let ipam = json!({
            "subnet": "10.33.0.0/16", "gateway": "10.33.0.1", "routes": [{"dst": "10.96.0.0/12"}],
        });
        let config = with("ipam", ipam.clone()).unwrap();
        assert_eq!(config.subnet, Some("10.33.0.0/16".parse().unwrap()));
        assert_eq!(config.gateway, Some("10.33.0.1".parse().unwrap()));
        assert_eq!(config.routes.unwrap().len(), 1);
        let both = json!({
            "cniVersion": "1.1.0", "name": "pods", "subnet": "10.34.0.0/16", "ipam": ipam,
        });
        let error = read(&both).unwrap_err();
        assert!(error.msg.contains("ipam.subnet"), "{error}");
    }

    #[test]
    fn as_ipam_plugin_the_top_level_is_somebody_elses() {
        let config = read(&json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "bridge", "bridge": "cni0",
            "isGateway": true, "ipMasq": true, "mtu": 9000, "routes": "theirs", "dns": 7,
            "ipam": {"type": "weft-cni", "subnet": "10.33.0.0/16"},
        }))
        .unwrap();
        assert_eq!(
            (config.bridge, config.mtu, config.routes),
            (None, None, None)
        );
        assert_eq!(config.subnet, Some("10.33.0.0/16".parse().unwrap()));
    }

    #[test]
    fn a_delegate_is_told_where_addresses_come_from() {
        for key in ["subnet", "gateway"] {
            let mut config = json!({
                "cniVersion": "1.1.0", "name": "pods", "ipam": {"type": "host-local"},
            });
            config[key] = json!("10.33.0.0");
            let error = read(&config).unwrap_err();
            assert_eq!(error.code, Code::UnsupportedField, "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_configuration_or_an_error(bytes: Vec<u8>) {
            let _ = Document::parse(&bytes).and_then(Config::read);
        }

        #[test]
        fn any_value_of_a_key_is_taken_or_refused(
            key in prop::sample::select(vec![
                "cniVersion", "name", "socket", "bridge", "mtu", "hairpinMode", "subnet", "routes",
                "dns", "runtimeConfig", "args", "prevResult", "ipam", "type", "gateway", "cni.dev/valid-attachments",
            ]),
            value in json_value(),
        ) {
            let _ = with(key, value);
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("dst|gw|cni|ips|mac|ifname|type|subnet", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }
}
