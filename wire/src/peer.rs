//! Who a peer is: its identity, which follows from a key, and its name, which an operator gave.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A peer's identity: the first eight bytes of the SHA-256 of its public key.
///
/// It survives restarts with the same state directory and changes when the key is lost. Shown as
/// 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerId(pub [u8; 8]);

impl PeerId {
    /// The identity that belongs to a public key with this SHA-256 digest.
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        Self(id)
    }
}

// As derived, and several times as fast: tables of thousands of peers are ordered by it.
impl Ord for PeerId {
    fn cmp(&self, other: &Self) -> Ordering {
        u64::from_be_bytes(self.0).cmp(&u64::from_be_bytes(other.0))
    }
}

impl PartialOrd for PeerId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a peer identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a peer identity: it has 16 hexadecimal digits, as `weft status` shows them")]
pub struct ParsePeerIdError(String);

impl FromStr for PeerId {
    type Err = ParsePeerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParsePeerIdError(text.to_owned());
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let value = u64::from_str_radix(text, 16).map_err(|_| bad())?;
        Ok(Self(value.to_be_bytes()))
    }
}

impl TryFrom<String> for PeerId {
    type Error = ParsePeerIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PeerId> for String {
    fn from(id: PeerId) -> Self {
        id.to_string()
    }
}

/// A node's name, as the operator knows it: the host name unless `--name` says otherwise.
///
/// 1 to 63 ASCII letters, digits, `-`, `_` and `.`, the first of them a letter or digit, so that
/// it can stand in a list, a file name and a metric's label without quoting.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerName(String);

impl PeerName {
    /// Longest name, in bytes: a DNS label's length (RFC 1035 §2.3.4), which host names keep to.
    pub const MAX_LEN: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A text that cannot be a node's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be a node name: use 1 to {max} letters, digits, '-', '_' or '.', starting with a letter or digit",
    max = PeerName::MAX_LEN
)]
pub struct ParsePeerNameError(String);

impl FromStr for PeerName {
    type Err = ParsePeerNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = (1..=Self::MAX_LEN).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParsePeerNameError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for PeerName {
    type Error = ParsePeerNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PeerName> for String {
    fn from(name: PeerName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn identity_round_trips(bytes: [u8; 8]) {
            prop_assert_eq!(PeerId(bytes).to_string().parse::<PeerId>().unwrap(), PeerId(bytes));
        }

        #[test]
        fn any_name_is_read_or_refused(text in ".{0,70}") {
            if let Ok(name) = text.parse::<PeerName>() {
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }

    #[test]
    fn names() {
        for good in ["a", "node-1", "ip-10-0-0-7.eu-west-1.compute", "N_2"] {
            assert!(good.parse::<PeerName>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", ".", "a b", "ä", long.as_str(), "a/b"] {
            assert!(bad.parse::<PeerName>().is_err(), "{bad}");
        }
    }
}
