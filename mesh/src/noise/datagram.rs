//! The messages of the datagram handshake, behind the sleeve header (kind 3).
//!
//! ```text
//! initiation   1 | 0 0 0 | index 4 | e 32 | s 32+16 | start 8, number 8, epoch 2, ciphers 1, +16 | mac1 16 | mac2 16
//! response     2 | 0 0 0 | index 4 | e 32 | epoch 2, cipher 1, +16                               | mac1 16 | mac2 16
//! cookie       3 | 0 0 0 | index 4 | nonce 12 | cookie 16+16
//! ```
//!
//! Numbers are big-endian. The index is the initiator's, by which it knows its own handshake again.

/// Bytes of the longest message.
pub const MAX_DATAGRAM: usize = INITIATION_LEN;

pub(super) const INITIATION: u8 = 1;
pub(super) const RESPONSE: u8 = 2;
pub(super) const COOKIE: u8 = 3;

/// Type, three zeros and index.
pub(super) const HEAD_LEN: usize = 8;
pub(super) const MAC_LEN: usize = 16;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
pub(super) const OFFER_LEN: usize = 19;
pub(super) const CHOICE_LEN: usize = 3;
pub(super) const INITIATION_LEN: usize =
    HEAD_LEN + KEY_LEN + KEY_LEN + TAG_LEN + OFFER_LEN + TAG_LEN + 2 * MAC_LEN;
pub(super) const RESPONSE_LEN: usize = HEAD_LEN + KEY_LEN + CHOICE_LEN + TAG_LEN + 2 * MAC_LEN;
pub(super) const COOKIE_NONCE_LEN: usize = 12;
pub(super) const COOKIE_LEN: usize = HEAD_LEN + COOKIE_NONCE_LEN + MAC_LEN + TAG_LEN;

/// A message as far as it can be read without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    Initiation {
        index: u32,
        noise: &'a [u8],
        macs: Macs<'a>,
    },
    Response {
        index: u32,
        noise: &'a [u8],
        macs: Macs<'a>,
    },
    Cookie {
        index: u32,
        nonce: [u8; COOKIE_NONCE_LEN],
        sealed: &'a [u8],
    },
}

/// The two codes at a message's end, and what each covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Macs<'a> {
    pub(super) whole: &'a [u8],
}

impl<'a> Macs<'a> {
    /// What the first code covers.
    pub(super) fn before_mac1(&self) -> &'a [u8] {
        &self.whole[..self.whole.len() - 2 * MAC_LEN]
    }

    pub(super) fn mac1(&self) -> &'a [u8] {
        &self.whole[self.whole.len() - 2 * MAC_LEN..self.whole.len() - MAC_LEN]
    }

    /// What the second code covers.
    pub(super) fn before_mac2(&self) -> &'a [u8] {
        &self.whole[..self.whole.len() - MAC_LEN]
    }

    pub(super) fn mac2(&self) -> &'a [u8] {
        &self.whole[self.whole.len() - MAC_LEN..]
    }
}

/// Reads a message; none if it is of no known type or not as long as its type is.
pub(super) fn parse(bytes: &[u8]) -> Option<Parsed<'_>> {
    let (&[kind, 0, 0, 0, a, b, c, d], _) = bytes.split_first_chunk::<HEAD_LEN>()? else {
        return None;
    };
    let index = u32::from_be_bytes([a, b, c, d]);
    match (kind, bytes.len()) {
        (INITIATION, INITIATION_LEN) => Some(Parsed::Initiation {
            index,
            noise: &bytes[HEAD_LEN..INITIATION_LEN - 2 * MAC_LEN],
            macs: Macs { whole: bytes },
        }),
        (RESPONSE, RESPONSE_LEN) => Some(Parsed::Response {
            index,
            noise: &bytes[HEAD_LEN..RESPONSE_LEN - 2 * MAC_LEN],
            macs: Macs { whole: bytes },
        }),
        (COOKIE, COOKIE_LEN) => {
            let (nonce, sealed) = bytes[HEAD_LEN..].split_first_chunk()?;
            Some(Parsed::Cookie {
                index,
                nonce: *nonce,
                sealed,
            })
        }
        _ => None,
    }
}

/// Type, zeros and index.
pub(super) fn head(kind: u8, index: u32) -> [u8; HEAD_LEN] {
    let [a, b, c, d] = index.to_be_bytes();
    [kind, 0, 0, 0, a, b, c, d]
}

/// What an initiation says under its seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    /// Number of this start of the initiator; never falls.
    pub(super) start: u64,
    /// Number of the initiation within it.
    pub(super) number: u64,
    /// By which the initiator will know what is sealed for it.
    pub(super) epoch: u16,
    /// Set of ciphers.
    pub(super) ciphers: u8,
}

impl Offer {
    pub(super) fn bytes(&self) -> [u8; OFFER_LEN] {
        let mut bytes = [0; OFFER_LEN];
        bytes[..8].copy_from_slice(&self.start.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_be_bytes());
        bytes[16..18].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[18] = self.ciphers;
        bytes
    }

    pub(super) fn parse(bytes: &[u8; OFFER_LEN]) -> Self {
        let number = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(eight)
        };
        Self {
            start: number(0),
            number: number(8),
            epoch: u16::from_be_bytes([bytes[16], bytes[17]]),
            ciphers: bytes[18],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_as_documented() {
        assert_eq!((INITIATION_LEN, RESPONSE_LEN, COOKIE_LEN), (155, 91, 52));
    }

    proptest! {
        #[test]
        fn i6_any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn every_length_but_the_right_one_is_refused(kind in 0..5_u8, len in HEAD_LEN..200_usize) {
            let mut bytes = vec![0; len];
            bytes[0] = kind;
            let right = matches!((kind, len), (1, INITIATION_LEN) | (2, RESPONSE_LEN) | (3, COOKIE_LEN));
            prop_assert_eq!(parse(&bytes).is_some(), right);
        }

        #[test]
        fn an_offer_round_trips(start: u64, number: u64, epoch: u16, ciphers: u8) {
            let offer = Offer { start, number, epoch, ciphers };
            prop_assert_eq!(Offer::parse(&offer.bytes()), offer);
        }
    }
}
