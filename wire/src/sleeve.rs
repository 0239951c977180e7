//! The sleeve header: what precedes a frame on UDP 6783, between peers that VXLAN does not serve.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     kind      |   hop limit   |           key epoch           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                                                               |
//! +                  source peer, the frame's origin              +
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                                                               |
//! +                       destination peer                        +
//! |                                                               |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! A datagram carries one frame from its origin to its destination, both of which stay as they are
//! on the way, so that a relay needs no state of its own and a receiver knows the peer whatever
//! address the datagram came from. There is no network identifier: peers of another one are refused
//! when they introduce themselves.

use crate::PeerId;

/// Bytes of the header.
pub const HEADER_LEN: usize = 20;
/// UDP port of sleeve unless `--sleeve-port` says otherwise.
pub const DEFAULT_PORT: u16 = 6783;
/// Bytes that sleeve takes from the underlay's MTU over IPv4: IP 20, UDP 8, sleeve 20 and the inner
/// Ethernet header 14.
pub const OVERHEAD_IPV4: u16 = 62;
/// As [`OVERHEAD_IPV4`], over IPv6: its header has 40 bytes.
pub const OVERHEAD_IPV6: u16 = 82;
/// Bytes of the counter between the header and a sealed frame.
pub const COUNTER_LEN: usize = 8;
/// Bytes of the tag behind a sealed frame.
pub const TAG_LEN: usize = 16;
/// Bytes that sealing adds to a frame in sleeve.
pub const SEAL_LEN: usize = COUNTER_LEN + TAG_LEN;
/// The hop limit that an origin writes: relays on the longest way, and some to spare.
pub const HOP_LIMIT: u8 = 16;

/// Offset of the hop limit, the one field that a relay changes.
const HOP_LIMIT_AT: usize = 1;

/// What follows the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// An Ethernet frame.
    pub const PLAIN: Self = Self(1);
    /// An Ethernet frame, sealed.
    pub const SEALED: Self = Self(2);
    /// A message of the handshake that makes the keys.
    pub const HANDSHAKE: Self = Self(3);
    /// Several Ethernet frames ([`aggregate`](crate::aggregate)), sealed as one.
    pub const AGGREGATE: Self = Self(4);
}

/// The header's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What follows. A relay passes on any kind; a destination drops what it does not know.
    pub kind: Kind,
    /// How many relays may still pass it on.
    pub hop_limit: u8,
    /// Which key sealed it; 0 when none did.
    pub epoch: u16,
    /// Who made it.
    pub source: PeerId,
    /// Whom it is for.
    pub destination: PeerId,
}

impl Header {
    /// The header of a plain frame as its origin writes it.
    pub const fn plain(source: PeerId, destination: PeerId) -> Self {
        Self {
            kind: Kind::PLAIN,
            hop_limit: HOP_LIMIT,
            epoch: 0,
            source,
            destination,
        }
    }

    /// The header's bytes.
    pub const fn bytes(&self) -> [u8; HEADER_LEN] {
        let [e0, e1] = self.epoch.to_be_bytes();
        let [s0, s1, s2, s3, s4, s5, s6, s7] = self.source.0;
        let [d0, d1, d2, d3, d4, d5, d6, d7] = self.destination.0;
        [
            self.kind.0,
            self.hop_limit,
            e0,
            e1,
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            s6,
            s7,
            d0,
            d1,
            d2,
            d3,
            d4,
            d5,
            d6,
            d7,
        ]
    }

    /// What a seal covers of the header: all but the hop limit, which changes on the way.
    pub const fn associated_data(&self) -> [u8; HEADER_LEN] {
        let mut bytes = self.bytes();
        bytes[HOP_LIMIT_AT] = 0;
        bytes
    }
}

/// A datagram that is shorter than the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("datagram of {0} bytes is shorter than the sleeve header of {HEADER_LEN}")]
pub struct TruncatedError(pub usize);

/// Reads the header at the start of a UDP payload, and what follows it.
///
/// # Errors
/// The datagram is shorter than the header.
pub fn parse(datagram: &[u8]) -> Result<(Header, &[u8]), TruncatedError> {
    let Some((
        &[
            kind,
            hop_limit,
            e0,
            e1,
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            s6,
            s7,
            d0,
            d1,
            d2,
            d3,
            d4,
            d5,
            d6,
            d7,
        ],
        payload,
    )) = datagram.split_first_chunk::<HEADER_LEN>()
    else {
        return Err(TruncatedError(datagram.len()));
    };
    let header = Header {
        kind: Kind(kind),
        hop_limit,
        epoch: u16::from_be_bytes([e0, e1]),
        source: PeerId([s0, s1, s2, s3, s4, s5, s6, s7]),
        destination: PeerId([d0, d1, d2, d3, d4, d5, d6, d7]),
    };
    Ok((header, payload))
}

/// Writes another hop limit into a datagram that [`parse`] has read.
///
/// # Panics
/// The datagram is shorter than a header.
pub fn set_hop_limit(datagram: &mut [u8], hop_limit: u8) {
    datagram[HOP_LIMIT_AT] = hop_limit;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FROM: PeerId = PeerId([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    const TO: PeerId = PeerId([0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28]);

    /// The bytes that `docs/wire-format.md` shows.
    #[rustfmt::skip]
    const PLAIN: [u8; HEADER_LEN] = [
        0x01, 0x10, 0x00, 0x00,
        0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
        0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
    ];

    #[test]
    fn bytes_match_the_documented_diagram() {
        assert_eq!(Header::plain(FROM, TO).bytes(), PLAIN);
        assert_eq!(parse(&PLAIN), Ok((Header::plain(FROM, TO), &[][..])));
        let sealed = Header {
            kind: Kind::SEALED,
            epoch: 0x0203,
            ..Header::plain(FROM, TO)
        };
        assert_eq!(sealed.bytes()[..4], [2, 16, 2, 3]);
        assert_eq!(sealed.associated_data()[..4], [2, 0, 2, 3]);
    }

    #[test]
    fn a_relay_changes_the_hop_limit_and_nothing_that_a_seal_covers() {
        let mut datagram = PLAIN;
        set_hop_limit(&mut datagram, 3);
        let (header, _) = parse(&datagram).unwrap();
        assert_eq!(header.hop_limit, 3);
        assert_eq!(
            header.associated_data(),
            Header::plain(FROM, TO).associated_data()
        );
    }

    #[test]
    fn a_short_datagram_is_refused() {
        assert_eq!(parse(&PLAIN[..19]), Err(TruncatedError(19)));
        assert_eq!(parse(&[]), Err(TruncatedError(0)));
    }

    proptest! {
        #[test]
        fn parse_after_emit_is_the_identity(
            kind: u8,
            hop_limit: u8,
            epoch: u16,
            source: [u8; 8],
            destination: [u8; 8],
            payload: Vec<u8>,
        ) {
            let header = Header {
                kind: Kind(kind),
                hop_limit,
                epoch,
                source: PeerId(source),
                destination: PeerId(destination),
            };
            let mut datagram = header.bytes().to_vec();
            datagram.extend(&payload);
            prop_assert_eq!(parse(&datagram), Ok((header, &payload[..])));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            match parse(&bytes) {
                Ok((header, payload)) => {
                    prop_assert_eq!(&header.bytes()[..], &bytes[..HEADER_LEN]);
                    prop_assert_eq!(payload, &bytes[HEADER_LEN..]);
                }
                Err(TruncatedError(len)) => prop_assert!(len == bytes.len() && len < HEADER_LEN),
            }
        }
    }
}
