//! Where the headers of a frame lie, as far as cutting and joining need to know.

use wire::checksum;
use wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, HEADER_LEN};

use crate::vnet::VnetHdr;

/// IP protocol numbers.
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// TCP flags (RFC 9293 §3.1).
pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

/// Offset in the TCP header of the flags, and of the checksum.
pub(crate) const TCP_FLAGS: usize = 13;
pub(crate) const TCP_CHECKSUM: usize = 16;
/// Offset in the UDP header of the length, and of the checksum.
pub(crate) const UDP_LENGTH: usize = 4;
pub(crate) const UDP_CHECKSUM: usize = 6;

/// The IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

/// The network layer of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) version: Version,
    /// Offset of the IP header.
    pub(crate) at: usize,
}

/// Finds the IP header behind at most two VLAN tags.
pub(crate) fn network(frame: &[u8]) -> Option<Network> {
    let mut at = HEADER_LEN;
    for _ in 0..3 {
        let ethertype = be16(frame, at.checked_sub(2)?)?;
        match ethertype {
            ETHERTYPE_IPV4 if frame.len() >= at + 20 => {
                return Some(Network {
                    version: Version::V4,
                    at,
                });
            }
            ETHERTYPE_IPV6 if frame.len() >= at + 40 => {
                return Some(Network {
                    version: Version::V6,
                    at,
                });
            }
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => at += 4,
            _ => return None,
        }
    }
    None
}

/// A whole TCP segment or UDP datagram, not fragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transport {
    pub(crate) version: Version,
    /// [`TCP`] or [`UDP`].
    pub(crate) protocol: u8,
    /// Offset of the IP header.
    ip: usize,
    /// Offset of the transport header.
    pub(crate) at: usize,
    /// Offset of the payload.
    pub(crate) payload: usize,
    /// Offset behind the payload; bytes beyond it are Ethernet padding.
    pub(crate) end: usize,
}

impl Transport {
    /// Reads the headers of an untagged frame without IP options or extension headers: the kind that
    /// may be joined. `None` for anything else, or if a length contradicts another.
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let plain = match be16(frame, 12)? {
            ETHERTYPE_IPV4 => frame.get(HEADER_LEN) == Some(&0x45),
            ETHERTYPE_IPV6 => true,
            _ => false,
        };
        if plain { Self::find(frame) } else { None }
    }

    /// As [`Transport::parse`], also behind VLAN tags and IPv4 options.
    pub(crate) fn find(frame: &[u8]) -> Option<Self> {
        let Network { version, at: ip } = network(frame)?;
        let header = &frame[ip..];
        let (protocol, at, end) = match version {
            Version::V4 => {
                let header_len = usize::from(header[0] & 0x0f) * 4;
                // Neither MF nor an offset.
                let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
                if header[0] >> 4 != 4 || header_len < 20 || fragment {
                    return None;
                }
                let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
                (header[9], ip + header_len, ip + len)
            }
            Version::V6 => {
                if header[0] >> 4 != 6 {
                    return None;
                }
                let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
                (header[6], ip + 40, ip + 40 + len)
            }
        };
        let header_len = match protocol {
            TCP => usize::from(frame.get(at + 12)? >> 4) * 4,
            UDP => {
                if usize::from(be16(frame, at + UDP_LENGTH)?) != end.checked_sub(at)? {
                    return None;
                }
                8
            }
            _ => return None,
        };
        if header_len < if protocol == TCP { 20 } else { 8 } {
            return None;
        }
        let payload = at + header_len;
        (payload <= end && end <= frame.len()).then_some(Self {
            version,
            protocol,
            ip,
            at,
            payload,
            end,
        })
    }

    /// Says that the kernel is to complete the checksum if it must, as it would have to if the frame
    /// had come from a local socket.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "headers end within the first 200 bytes"
    )]
    pub(crate) fn partial_header(&self) -> VnetHdr {
        VnetHdr {
            needs_csum: true,
            csum_start: self.at as u16,
            csum_offset: checksum_offset(self.protocol) as u16,
            ..VnetHdr::PLAIN
        }
    }

    /// Bytes of payload.
    pub(crate) fn payload_len(&self) -> usize {
        self.end - self.payload
    }

    /// Offset in the frame of the checksum field.
    pub(crate) fn checksum_at(&self) -> usize {
        self.at + checksum_offset(self.protocol)
    }

    /// The sum of the pseudo header (RFC 9293 §3.1, RFC 8200 §8.1).
    pub(crate) fn pseudo_sum(&self, frame: &[u8]) -> u64 {
        pseudo_sum(
            frame,
            self.version,
            self.ip,
            self.protocol,
            self.end - self.at,
        )
    }

    /// What the checksum field tells.
    pub(crate) fn verify(&self, frame: &[u8]) -> Verified {
        let field_at = self.checksum_at();
        let field = u16::from_be_bytes([frame[field_at], frame[field_at + 1]]);
        if self.protocol == UDP && field == 0 {
            return Verified::Absent;
        }
        let pseudo = self.pseudo_sum(frame);
        // A kernel that expected its device to complete the sum leaves the pseudo header's there, and
        // so does the other side of a sealed link. That is one comparison, so it comes first: a
        // complete sum which happens to be the same comes out the same when it is completed again.
        if field == checksum::fold(pseudo) {
            return Verified::Partial;
        }
        if checksum::fold(checksum::sum(pseudo, &frame[self.at..self.end])) == 0xffff {
            Verified::Good
        } else {
            Verified::Bad
        }
    }
}

/// The outcome of checking a transport checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verified {
    /// It is right.
    Good,
    /// It holds the pseudo header's sum: the sender left it to its device, which did nothing, or to
    /// the receiver.
    Partial,
    /// UDP without a checksum.
    Absent,
    /// It is wrong.
    Bad,
}

/// Offset of the checksum in the transport header.
pub(crate) fn checksum_offset(protocol: u8) -> usize {
    if protocol == TCP {
        TCP_CHECKSUM
    } else {
        UDP_CHECKSUM
    }
}

/// The sum of the pseudo header for a transport header and payload of `len` bytes, of the IP
/// header at `ip`, which is complete.
pub(crate) fn pseudo_sum(
    frame: &[u8],
    version: Version,
    ip: usize,
    protocol: u8,
    len: usize,
) -> u64 {
    let addresses = match version {
        Version::V4 => &frame[ip + 12..ip + 20],
        Version::V6 => &frame[ip + 8..ip + 40],
    };
    checksum::sum(u64::from(protocol) + len as u64, addresses)
}

/// The 16 bits at an offset, if the frame has them.
pub(crate) fn be16(frame: &[u8], at: usize) -> Option<u16> {
    frame
        .get(at..at + 2)
        .map(|b| u16::from_be_bytes([b[0], b[1]]))
}

/// The 32 bits at an offset, which the frame has.
pub(crate) fn be32(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
}

/// Writes 16 bits at an offset, which the frame has.
pub(crate) fn put16(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Computes the checksum of the IPv4 header at `ip` anew.
pub(crate) fn put_ipv4_checksum(frame: &mut [u8], ip: usize, header_len: usize) {
    put16(frame, ip + 10, 0);
    let sum = !checksum::fold(checksum::sum(0, &frame[ip..ip + header_len]));
    put16(frame, ip + 10, sum);
}
