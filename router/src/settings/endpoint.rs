//! `HOST[:PORT]`: where another node is, as an operator writes it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

/// Why a text is not `HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseEndpointError {
    /// Nothing before the port.
    #[error("the host is missing: write HOST or HOST:PORT, an IPv6 address as [2001:db8::1]:PORT")]
    NoHost,
    /// More than 253 bytes, which no DNS name has (RFC 1035 §2.3.4).
    #[error("the host has {0} bytes: a DNS name has at most 253")]
    LongHost(usize),
    /// A character that neither a name nor an address has.
    #[error("{0:?} cannot be in a host name: write a DNS name or an IP address")]
    BadHost(char),
    /// Not a number from 1 to 65535.
    #[error("port {0:?} is not a number from 1 to 65535")]
    BadPort(String),
    /// An opening bracket without its partner, or something other than a port behind it.
    #[error("brackets enclose an IPv6 address, as in [2001:db8::1] or [2001:db8::1]:6783")]
    BadBrackets,
}

impl Endpoint {
    /// Reads `HOST`, `HOST:PORT`, a bare IPv6 address, `[IPv6]` or `[IPv6]:PORT`.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, ParseEndpointError> {
        let text = text.trim();
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self {
                host: text.to_owned(),
                port: default_port,
            });
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest
                .split_once(']')
                .ok_or(ParseEndpointError::BadBrackets)?;
            host.parse::<Ipv6Addr>()
                .map_err(|_| ParseEndpointError::BadBrackets)?;
            let port = match rest.strip_prefix(':') {
                Some(port) => parse_port(port)?,
                None if rest.is_empty() => default_port,
                None => return Err(ParseEndpointError::BadBrackets),
            };
            return Ok(Self {
                host: host.to_owned(),
                port,
            });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, parse_port(port)?),
            None => (text, default_port),
        };
        if host.is_empty() {
            return Err(ParseEndpointError::NoHost);
        }
        if host.len() > 253 {
            return Err(ParseEndpointError::LongHost(host.len()));
        }
        let bad = |c: &char| !c.is_ascii_alphanumeric() && !"-_.".contains(*c);
        if let Some(c) = host.chars().find(bad) {
            return Err(ParseEndpointError::BadHost(c));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }

    /// The endpoint's address, if the host is one already.
    pub fn address(&self) -> Option<SocketAddr> {
        self.host
            .parse::<IpAddr>()
            .ok()
            .map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn parse_port(text: &str) -> Result<u16, ParseEndpointError> {
    match text.parse() {
        Ok(port) if port != 0 && !text.starts_with('+') => Ok(port),
        _ => Err(ParseEndpointError::BadPort(text.to_owned())),
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
            ("10.0.0.1", "10.0.0.1:6783"),
            ("10.0.0.1:7000", "10.0.0.1:7000"),
            ("2001:db8::1", "[2001:db8::1]:6783"),
            ("[2001:db8::1]", "[2001:db8::1]:6783"),
            ("[2001:db8::1]:7000", "[2001:db8::1]:7000"),
            (" b.example.org:1 ", "b.example.org:1"),
        ] {
            assert_eq!(Endpoint::parse(text, 6783).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn faults_are_named() {
        use ParseEndpointError::*;
        for (text, error) in [
            ("", NoHost),
            (":6783", NoHost),
            ("a b", BadHost(' ')),
            ("http://a", BadPort("//a".to_owned())),
            ("a:0", BadPort("0".to_owned())),
            ("a:+1", BadPort("+1".to_owned())),
            ("a:65536", BadPort("65536".to_owned())),
            ("[2001:db8::1", BadBrackets),
            ("[::1]x", BadBrackets),
            ("[10.0.0.1]:1", BadBrackets),
        ] {
            assert_eq!(Endpoint::parse(text, 6783), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_host_has_a_length() {
        let long = "a".repeat(254);
        assert_eq!(
            Endpoint::parse(&long, 1),
            Err(ParseEndpointError::LongHost(254))
        );
        assert!(Endpoint::parse(&long[1..], 1).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            if let Ok(endpoint) = Endpoint::parse(&text, 1) {
                prop_assert_eq!(Endpoint::parse(&endpoint.to_string(), 2), Ok(endpoint));
            }
        }
    }
}
