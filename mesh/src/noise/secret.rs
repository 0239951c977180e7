//! What a node must not let out.

use std::fmt;

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

/// The identity that belongs to a public key.
pub(crate) fn identity(public: &[u8; 32]) -> PeerId {
    let digest = digest(&SHA256, public);
    PeerId::from_digest(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}
