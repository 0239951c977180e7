//! What a node must not let out.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use wire::PeerId;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A password, stretched: the pre-shared key of every handshake.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Psk([u8; 32]);

impl Psk {
    /// A key that the caller has derived from a password by a slow function.
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(..)")
    }
}

/// A node's key pair (Curve25519) and the passwords that it accepts.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secrets {
    /// The private half.
    pub private: [u8; 32],
    /// The public half.
    pub public: [u8; 32],
    /// The first is used for what this node begins; any is accepted from others. At least one.
    pub passwords: Vec<Psk>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// A public key as operators compare it: its SHA-256 digest, written as 64 hexadecimal digits of which
/// the first 16 are the identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 hexadecimal digits, as `weft status` shows it")]
pub struct ParseFingerprintError;

impl Fingerprint {
    /// The fingerprint of a public key.
    pub fn of(public: &[u8; 32]) -> Self {
        let digest = digest(&SHA256, public);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The identity that belongs to the key.
    pub fn id(&self) -> PeerId {
        PeerId::from_digest(&self.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseFingerprintError);
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| ParseFingerprintError)?;
        }
        Ok(Self(bytes))
    }
}

/// The identity that belongs to a public key.
pub(crate) fn identity(public: &[u8; 32]) -> PeerId {
    Fingerprint::of(public).id()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_written_and_read() {
        let fingerprint = Fingerprint::of(&[1; 32]);
        let text = fingerprint.to_string();
        assert_eq!(text.parse(), Ok(fingerprint));
        assert_eq!(text[..16], fingerprint.id().to_string());
        for wrong in [
            "",
            &text[1..],
            &format!("{text}0"),
            &text.replace(&text[..1], "g"),
            &"é".repeat(32),
        ] {
            assert_eq!(
                wrong.parse::<Fingerprint>(),
                Err(ParseFingerprintError),
                "{wrong}"
            );
        }
    }
}
