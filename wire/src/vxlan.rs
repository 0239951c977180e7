//! The VXLAN header (RFC 7348 §5).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |R|R|R|R|I|R|R|R|            Reserved                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                VXLAN Network Identifier (VNI) |   Reserved    |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// UDP port of weft's VXLAN unless `--vxlan-port` says otherwise.
pub const DEFAULT_PORT: u16 = 6784;
/// Bytes that VXLAN takes from the underlay's MTU over IPv4: IP 20, UDP 8, VXLAN 8 and the inner
/// Ethernet header 14.
pub const OVERHEAD_IPV4: u16 = 50;
/// As [`OVERHEAD_IPV4`], over IPv6: its header has 40 bytes.
pub const OVERHEAD_IPV6: u16 = 70;

/// The I flag: the VNI is valid.
const FLAG_VNI: u8 = 0x08;

/// A VXLAN Network Identifier, 24 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The network that weft uses unless `--vni` says otherwise.
    pub const DEFAULT: Self = Self(1);
    /// Largest identifier.
    pub const MAX: u32 = (1 << 24) - 1;

    /// The identifier as a number, at most [`Vni::MAX`].
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A number or text that is not a VNI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a VNI: use a number from 0 to {max}", max = Vni::MAX)]
pub struct ParseVniError(String);

impl TryFrom<u32> for Vni {
    type Error = ParseVniError;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        if number <= Self::MAX {
            Ok(Self(number))
        } else {
            Err(ParseVniError(number.to_string()))
        }
    }
}

impl FromStr for Vni {
    type Err = ParseVniError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number: u32 = text
            .parse()
            .map_err(|_| ParseVniError(format!("{text:?}")))?;
        number.try_into()
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

/// Why a datagram is not VXLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VxlanError {
    /// Fewer bytes than the header has.
    #[error("datagram of {0} bytes is shorter than the VXLAN header of 8")]
    Truncated(usize),
    /// The I flag is clear: the VNI is not valid, and the datagram is discarded.
    #[error("VXLAN flags {0:#04x} do not mark the VNI as valid")]
    NoVni(u8),
}

/// The header's bytes for a network.
pub const fn header(vni: Vni) -> [u8; HEADER_LEN] {
    let [_, a, b, c] = vni.0.to_be_bytes();
    [FLAG_VNI, 0, 0, 0, a, b, c, 0]
}

/// Reads the header at the start of a UDP payload: the network, and the inner Ethernet frame.
///
/// Reserved bits are ignored on receipt, as the RFC asks.
///
/// # Errors
/// The datagram is shorter than the header, or its I flag is clear.
pub fn parse(datagram: &[u8]) -> Result<(Vni, &[u8]), VxlanError> {
    let Some((&[flags, _, _, _, a, b, c, _], frame)) = datagram.split_first_chunk::<HEADER_LEN>()
    else {
        return Err(VxlanError::Truncated(datagram.len()));
    };
    if flags & FLAG_VNI == 0 {
        return Err(VxlanError::NoVni(flags));
    }
    Ok((Vni(u32::from_be_bytes([0, a, b, c])), frame))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bytes that `docs/wire-format.md` draws.
    #[test]
    fn bytes_match_the_documented_diagram() {
        assert_eq!(header(Vni(1)), [0x08, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(header(Vni(0x123456)), [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
    }

    #[test]
    fn refusals_name_the_fault() {
        assert_eq!(parse(&[8, 0, 0]), Err(VxlanError::Truncated(3)));
        assert_eq!(parse(&[0; 60]), Err(VxlanError::NoVni(0)));
        assert!("16777216".parse::<Vni>().is_err());
        assert!("-1".parse::<Vni>().is_err());
    }

    proptest! {
        #[test]
        fn parse_after_emit_is_the_identity(vni in 0..=Vni::MAX, frame: Vec<u8>) {
            let vni = Vni::try_from(vni).unwrap();
            let mut datagram = header(vni).to_vec();
            datagram.extend(&frame);
            prop_assert_eq!(parse(&datagram), Ok((vni, &frame[..])));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok((_, frame)) = parse(&bytes) {
                prop_assert_eq!(frame.len(), bytes.len() - HEADER_LEN);
            }
        }
    }
}
