//! Where to dial: a host and a port as text.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// TCP port of the control connections unless the configuration says otherwise.
pub const DEFAULT_PORT: u16 = 6783;

/// Longest host: a DNS name has at most 253 characters (RFC 1035 §2.3.4), an address fewer.
const MAX_HOST: usize = 253;

/// `HOST:PORT`, where the host is a name or an address (IPv6 in brackets).
///
/// It stays text because a name means another address tomorrow: whoever dials resolves it at each
/// dial.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    host: String,
    port: u16,
}

impl Target {
    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The socket address, if the host is an address and needs no resolver.
    pub fn literal(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for Target {
    /// The scope of a link-local IPv6 address is not kept: it means nothing as text.
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an address of a peer: write HOST, HOST:PORT, an IPv4 address or [IPv6]:PORT, with a port from 1 to 65535"
)]
pub struct ParseTargetError(String);

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseTargetError(text.chars().take(300).collect());
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Ok(Self {
                host: ip.to_string(),
                port: DEFAULT_PORT,
            });
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (ip, port) = rest.split_once(']').ok_or_else(bad)?;
            let ip: Ipv6Addr = ip.parse().map_err(|_| bad())?;
            let port = match port {
                "" => None,
                _ => Some(port.strip_prefix(':').ok_or_else(bad)?),
            };
            (ip.to_string(), port)
        } else {
            let (host, port) = text
                .split_once(':')
                .map_or((text, None), |(host, port)| (host, Some(port)));
            let good = (1..=MAX_HOST).contains(&host.len())
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !good {
                return Err(bad());
            }
            (host.to_ascii_lowercase(), port)
        };
        let port = match port {
            None => DEFAULT_PORT,
            // u16's parser takes a sign, which a port never has.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(bad)?,
            Some(_) => return Err(bad()),
        };
        Ok(Self { host, port })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms() {
        for (text, shown) in [
            ("node-1", "node-1:6783"),
            ("Node-1.example.:7000", "node-1.example.:7000"),
            ("10.0.0.1", "10.0.0.1:6783"),
            ("10.0.0.1:65535", "10.0.0.1:65535"),
            ("fd00::1", "[fd00::1]:6783"),
            ("[fd00::1]", "[fd00::1]:6783"),
            ("[fd00:0::1]:99", "[fd00::1]:99"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            ":1",
            "a:0",
            "a:65536",
            "a:+1",
            "a:",
            "a b",
            "[fd00::1",
            "[a]:1",
            "[fd00::1]1",
            "a:1:2",
            "ä",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "[fd00::1]:99".parse::<Target>().unwrap().literal(),
            "[fd00::1]:99".parse().ok()
        );
        assert_eq!("a:99".parse::<Target>().unwrap().literal(), None);
    }

    proptest! {
        #[test]
        fn text_round_trips(text in "\\PC{0,40}|[a-f0-9.:\\[\\]]{0,24}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
            }
        }

        #[test]
        fn addresses_round_trip(address: SocketAddr) {
            prop_assume!(address.port() != 0);
            let target = Target::from(address);
            prop_assert_eq!(target.literal().map(|a| (a.ip(), a.port())), Some((address.ip(), address.port())));
            prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
        }
    }
}
