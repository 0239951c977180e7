//! The keys that a handshake ends with.

use std::fmt;
use std::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// An AEAD, by its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CipherChoice {
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
}

impl CipherChoice {
    /// What the operator reads.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// Its bit in the set that an initiator offers, and its number in the answer.
    pub(crate) const fn bit(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    pub(crate) const fn of_bit(bit: u8) -> Option<Self> {
        match bit {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}

/// Beside the ciphers in an offer and beside the chosen one in its answer: whether its sender takes several
/// frames in one datagram. Who does not know the bit does not look at it.
pub(crate) const AGGREGATES: u8 = 4;

/// A key for one direction.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct DirectionKey {
    /// What the header calls it; never 0.
    pub epoch: u16,
    /// Its cipher.
    #[zeroize(skip)]
    pub cipher: CipherChoice,
    /// Whether who opens with it takes several frames in one datagram.
    #[zeroize(skip)]
    pub aggregates: bool,
    /// The key.
    pub key: [u8; 32],
}

impl fmt::Debug for DirectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectionKey")
            .field("epoch", &self.epoch)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// The keys for one peer at a moment. A key keeps its place in memory for as long as it is in use, so
/// that two readings can be compared by pointer.
#[derive(Debug, Clone, Default)]
pub struct SessionKeys {
    /// To seal with; none while there is no session.
    pub sealing: Option<Arc<DirectionKey>>,
    /// To open with: at most three.
    pub opening: Vec<Arc<DirectionKey>>,
}
