//! What the runtime says in the environment (CNI 1.1.0 §2, "Parameters").

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use control::{AttachmentRef, PodRef};
use wire::Mac;

use crate::error::{CniError, Code};

/// The operation that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Check,
    Del,
    Gc,
    Status,
    Version,
}

impl Verb {
    /// Reads `CNI_COMMAND`.
    pub(crate) fn read(env: &Env<'_>) -> Result<Self, CniError> {
        let text = env.required("CNI_COMMAND")?;
        let all = [
            Self::Add,
            Self::Check,
            Self::Del,
            Self::Gc,
            Self::Status,
            Self::Version,
        ];
        all.into_iter()
            .find(|verb| verb.as_str() == text)
            .ok_or_else(|| {
                invalid(
                    "CNI_COMMAND",
                    &text,
                    "use ADD, DEL, CHECK, GC, STATUS or VERSION",
                )
            })
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// Access to environment variables, wherever they come from.
pub(crate) struct Env<'a>(pub(crate) &'a dyn Fn(&str) -> Option<OsString>);

impl Env<'_> {
    /// A variable that is set and not empty.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<String>, CniError> {
        match (self.0)(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(Err(raw)) => Err(invalid(name, &raw.to_string_lossy(), "it is not UTF-8")),
        }
    }

    fn required(&self, name: &str) -> Result<String, CniError> {
        self.optional(name)?.ok_or_else(|| {
            CniError::new(
                Code::InvalidEnvironment,
                format!("{name} is not set"),
                "weft-cni is called by a container runtime, which sets it",
            )
        })
    }
}

/// The attachment that `ADD`, `CHECK` and `DEL` are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// `CNI_CONTAINERID` and `CNI_IFNAME`.
    pub(crate) attachment: AttachmentRef,
    /// `CNI_NETNS`; only `DEL` may come without.
    pub(crate) netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub(crate) args: Args,
}

impl Parameters {
    pub(crate) fn read(env: &Env<'_>, verb: Verb) -> Result<Self, CniError> {
        let container_id = env.required("CNI_CONTAINERID")?;
        check_container_id(&container_id)?;
        let ifname = env.required("CNI_IFNAME")?;
        check_ifname(&ifname)?;
        let netns = match verb {
            Verb::Del => env.optional("CNI_NETNS")?,
            _ => Some(env.required("CNI_NETNS")?),
        };
        let args = match env.optional("CNI_ARGS") {
            Ok(None) => Ok(Args::default()),
            Ok(Some(text)) => Args::parse(&text),
            Err(error) => Err(error),
        };
        let args = match verb {
            // What is to be removed is removed, whoever it was for.
            Verb::Del => args.unwrap_or_default(),
            _ => args?,
        };
        Ok(Self {
            attachment: AttachmentRef::new(container_id, ifname),
            netns: netns.map(PathBuf::from),
            args,
        })
    }
}

/// `CNI_ARGS`: pairs `NAME=value` with `;` between them, in any order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Args {
    /// `K8S_POD_NAMESPACE`, `K8S_POD_NAME` and `K8S_POD_UID`.
    pub(crate) pod: Option<PodRef>,
    /// `IP`: the address to use.
    pub(crate) address: Option<IpAddr>,
    /// `MAC`: the address of the pod's interface.
    pub(crate) mac: Option<Mac>,
}

impl Args {
    fn parse(text: &str) -> Result<Self, CniError> {
        let bad = |why: &str| invalid("CNI_ARGS", text, why);
        let mut args = Self::default();
        let mut pod = PodRef::default();
        let mut unknown = None;
        let mut ignore_unknown = false;
        for pair in text
            .split(';')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| bad(&format!("{pair:?} is not of the form NAME=value")))?;
            match name.trim() {
                "IgnoreUnknown" => {
                    ignore_unknown = parse_bool(value)
                        .ok_or_else(|| bad("IgnoreUnknown is 1, 0, true or false"))?;
                }
                "K8S_POD_NAMESPACE" => pod.namespace = value.to_owned(),
                "K8S_POD_NAME" => pod.name = value.to_owned(),
                "K8S_POD_UID" => pod.uid = Some(value.to_owned()).filter(|uid| !uid.is_empty()),
                // Always the container's own, which CNI_CONTAINERID says too.
                "K8S_POD_INFRA_CONTAINER_ID" => {}
                "IP" => args.address = Some(parse_address(value).map_err(|why| bad(&why))?),
                "MAC" => args.mac = Some(parse_mac(value).map_err(|why| bad(&why))?),
                name => unknown = unknown.or(Some(name)),
            }
        }
        if let Some(name) = unknown.filter(|_| !ignore_unknown) {
            return Err(bad(&format!(
                "{name} is not known, and IgnoreUnknown=1 is not given"
            )));
        }
        args.pod = Some(pod).filter(|pod| !pod.namespace.is_empty() && !pod.name.is_empty());
        Ok(args)
    }
}

/// An address, with or without a prefix length, which the range decides.
pub(crate) fn parse_address(text: &str) -> Result<IpAddr, String> {
    let (address, prefix) = text
        .split_once('/')
        .map_or((text, None), |(a, p)| (a, Some(p)));
    let address = IpAddr::from_str(address)
        .map_err(|_| format!("{text:?} is not an IP address such as 10.32.0.7"))?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match prefix.map(u8::from_str) {
        None => Ok(address),
        Some(Ok(length)) if length <= longest => Ok(address),
        Some(_) => Err(format!(
            "{text:?} has a prefix length that is not 0 to {longest}"
        )),
    }
}

/// A MAC address that an interface can have.
pub(crate) fn parse_mac(text: &str) -> Result<Mac, String> {
    let mac = text.parse::<Mac>().map_err(|error| error.to_string())?;
    match mac.is_unicast() {
        true => Ok(mac),
        false => Err(format!("{mac} is not the address of a single station")),
    }
}

/// A name of letters, digits, `_`, `.` and `-` that starts with a letter or digit: container
/// identifiers and network names.
pub(crate) fn is_plain_name(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric())
}

fn check_container_id(id: &str) -> Result<(), CniError> {
    if !is_plain_name(id) {
        let rule = "use letters, digits, '_', '.' and '-', starting with a letter or digit";
        return Err(invalid("CNI_CONTAINERID", id, rule));
    }
    if id.len() > AttachmentRef::MAX_CONTAINER_ID {
        let rule = format!("it has at most {} bytes", AttachmentRef::MAX_CONTAINER_ID);
        return Err(invalid("CNI_CONTAINERID", id, &rule));
    }
    Ok(())
}

/// The kernel's rules (`dev_valid_name` in net/core/dev.c), and `%`, by which it would make up a
/// name of its own.
fn check_ifname(name: &str) -> Result<(), CniError> {
    let fits = name.len() <= MAX_IFNAME && !matches!(name, "." | "..");
    let plain = |c: char| !matches!(c, '/' | ':' | '%') && !c.is_whitespace() && !c.is_control();
    match fits && name.chars().all(plain) {
        true => Ok(()),
        false => Err(invalid(
            "CNI_IFNAME",
            name,
            "use 1 to 15 bytes, without '/', ':', '%' or white space, and not '.' or '..'",
        )),
    }
}

/// `IFNAMSIZ` without the byte that ends it.
const MAX_IFNAME: usize = 15;

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

fn invalid(name: &str, value: &str, why: &str) -> CniError {
    CniError::new(
        Code::InvalidEnvironment,
        format!("{name}={value:?} is not valid"),
        why,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    fn parameters(verb: Verb, pairs: &[(&str, &str)]) -> Result<Parameters, CniError> {
        let map: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        Parameters::read(&Env(&|name| map.get(name).map(OsString::from)), verb)
    }

    const GOOD: [(&str, &str); 3] = [
        ("CNI_CONTAINERID", "c-1.a_b"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/x"),
    ];

    #[test]
    fn every_required_variable_is_named_when_it_is_missing() {
        for (missing, _) in GOOD {
            let left: Vec<_> = GOOD
                .into_iter()
                .filter(|(name, _)| *name != missing)
                .collect();
            for verb in [Verb::Add, Verb::Check, Verb::Del] {
                let result = parameters(verb, &left);
                if verb == Verb::Del && missing == "CNI_NETNS" {
                    assert_eq!(result.unwrap().netns, None);
                    continue;
                }
                let error = result.unwrap_err();
                assert_eq!(error.code, Code::InvalidEnvironment);
                assert!(error.msg.contains(missing), "{error}");
            }
        }
        assert!(parameters(Verb::Add, &GOOD).is_ok());
    }

    #[test]
    fn values_are_checked() {
        let long_id = "x".repeat(201);
        for (name, value) in [
            ("CNI_CONTAINERID", "-a"),
            ("CNI_CONTAINERID", "a/b"),
            ("CNI_CONTAINERID", "a b"),
            ("CNI_CONTAINERID", "é"),
            ("CNI_CONTAINERID", &long_id),
            ("CNI_IFNAME", "sixteen-bytes-xx"),
            ("CNI_IFNAME", "."),
            ("CNI_IFNAME", ".."),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", "a:b"),
            ("CNI_IFNAME", "a b"),
            ("CNI_IFNAME", "eth%d"),
            ("CNI_ARGS", "K8S_POD_NAME"),
            ("CNI_ARGS", "IgnoreUnknown=maybe"),
            ("CNI_ARGS", "IP=10.32.0.300"),
            ("CNI_ARGS", "IP=10.32.0.3/33"),
            ("CNI_ARGS", "MAC=ff:ff:ff:ff:ff:ff"),
            ("CNI_ARGS", "SOMETHING=else"),
        ] {
            let mut pairs = GOOD.to_vec();
            pairs.push((name, value));
            let error = parameters(Verb::Add, &pairs).unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment, "{name}={value}");
            assert!(error.msg.contains(name), "{error}");
        }
        let raw = Env(&|_| Some(OsString::from_vec(vec![0xff])));
        assert_eq!(Verb::read(&raw).unwrap_err().code, Code::InvalidEnvironment);
        let lower = Env(&|_| Some("add".into()));
        assert!(Verb::read(&lower).unwrap_err().msg.contains("CNI_COMMAND"));
    }

    #[test]
    fn args_in_any_order() {
        let pairs = [
            "K8S_POD_NAMESPACE=web",
            "IgnoreUnknown=1",
            "K8S_POD_NAME=nginx-0",
            "K8S_POD_UID=8e1c",
            "K8S_POD_INFRA_CONTAINER_ID=c1",
            "FUTURE=x",
            "IP=10.32.0.9/12",
            "MAC=02:00:00:00:00:01",
        ];
        for turn in 0..pairs.len() {
            let mut turned = pairs;
            turned.rotate_left(turn);
            let args = Args::parse(&turned.join(";")).unwrap();
            let pod = args.pod.unwrap();
            assert_eq!(
                (pod.namespace.as_str(), pod.name.as_str()),
                ("web", "nginx-0")
            );
            assert_eq!(pod.uid.as_deref(), Some("8e1c"));
            assert_eq!(args.address, Some("10.32.0.9".parse().unwrap()));
            assert_eq!(args.mac, Some(Mac([2, 0, 0, 0, 0, 1])));
        }
        assert_eq!(Args::parse(";;").unwrap(), Args::default());
    }

    #[test]
    fn del_ignores_bad_args() {
        let mut pairs = GOOD.to_vec();
        pairs.push(("CNI_ARGS", "what is this"));
        assert_eq!(parameters(Verb::Del, &pairs).unwrap().args, Args::default());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = Args::parse(&text);
            let mut pairs = GOOD.to_vec();
            pairs.push(("CNI_CONTAINERID", &text));
            if !text.is_empty() && parameters(Verb::Add, &pairs).is_ok() {
                prop_assert!(is_plain_name(&text));
            }
        }
    }
}
