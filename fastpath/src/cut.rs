//! Cutting a super-frame into frames of the inner MTU, as the kernel would have done
//! (`tcp_gso_segment`, `__udp_gso_segment`): each gets the headers of the whole, with lengths,
//! IPv4 identification, TCP sequence number and flags, and checksums of its own.

use wire::checksum;

use crate::dissect::{
    CWR, FIN, PSH, TCP, TCP_FLAGS, UDP, UDP_LENGTH, Version, be32, checksum_offset, network,
    pseudo_sum, put_ipv4_checksum, put16,
};
use crate::vnet::{GsoType, VnetHdr};

/// What is written for transport checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sums {
    /// The sum over pseudo header, header and payload.
    Complete,
    /// That of the pseudo header alone, as the kernel leaves it to a device: for a way on which
    /// something stronger protects the frame.
    Partial,
}

/// A super-frame whose headers have been found to agree with the kernel's description.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SuperFrame<'a> {
    frame: &'a [u8],
    version: Version,
    protocol: u8,
    /// Offset of the IP header, the transport header, the payload.
    ip: usize,
    at: usize,
    payload: usize,
    /// Payload bytes of each segment but the last.
    mss: usize,
}

impl<'a> SuperFrame<'a> {
    /// Takes the frame apart. `None` if headers and description contradict each other, or if a
    /// length would not fit its field.
    pub(crate) fn new(header: &VnetHdr, frame: &'a [u8]) -> Option<Self> {
        let network = network(frame)?;
        let (version, protocol) = match header.gso {
            GsoType::TcpV4 => (Version::V4, TCP),
            GsoType::TcpV6 => (Version::V6, TCP),
            GsoType::Udp => (network.version, UDP),
            GsoType::None => return None,
        };
        let (ip, at) = (network.at, usize::from(header.csum_start));
        // IPv6 extension headers may lie between; the kernel's description says where they end.
        let shortest = match version {
            Version::V4 => usize::from(frame[ip] & 0x0f) * 4,
            Version::V6 => 40,
        };
        let fits = network.version == version
            && header.needs_csum
            && usize::from(header.csum_offset) == checksum_offset(protocol)
            && at >= ip + shortest
            && (version == Version::V6 || at == ip + shortest)
            && shortest >= 20;
        if !fits {
            return None;
        }
        let header_len = match protocol {
            TCP => usize::from(frame.get(at + 12)? >> 4) * 4,
            _ => 8,
        };
        let payload = at + header_len;
        let mss = usize::from(header.gso_size);
        let good = header_len >= if protocol == TCP { 20 } else { 8 }
            && mss > 0
            && payload < frame.len()
            && payload - ip + mss <= usize::from(u16::MAX);
        good.then_some(Self {
            frame,
            version,
            protocol,
            ip,
            at,
            payload,
            mss,
        })
    }

    /// How many frames it makes.
    pub(crate) fn count(&self) -> usize {
        (self.frame.len() - self.payload).div_ceil(self.mss)
    }

    /// Bytes of the `i`-th frame.
    pub(crate) fn len(&self, i: usize) -> usize {
        let rest = self.frame.len() - self.payload - i * self.mss;
        self.payload + rest.min(self.mss)
    }

    /// Writes the `i`-th frame to `out`, which has exactly [`SuperFrame::len`] bytes.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "new() bounds a segment to 65,535 bytes, and identification and sequence wrap"
    )]
    pub(crate) fn write(&self, i: usize, out: &mut [u8], sums: Sums) {
        let from = self.payload + i * self.mss;
        let payload_len = out.len() - self.payload;
        out[..self.payload].copy_from_slice(&self.frame[..self.payload]);
        out[self.payload..].copy_from_slice(&self.frame[from..from + payload_len]);

        let (ip, at) = (self.ip, self.at);
        match self.version {
            Version::V4 => {
                put16(out, ip + 2, (out.len() - ip) as u16);
                let id = u16::from_be_bytes([out[ip + 4], out[ip + 5]]).wrapping_add(i as u16);
                put16(out, ip + 4, id);
                put_ipv4_checksum(out, ip, at - ip);
            }
            Version::V6 => put16(out, ip + 4, (out.len() - ip - 40) as u16),
        }
        if self.protocol == TCP {
            let sequence = be32(out, at + 4).wrapping_add((i * self.mss) as u32);
            out[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
            if i > 0 {
                out[at + TCP_FLAGS] &= !CWR;
            }
            if i + 1 < self.count() {
                out[at + TCP_FLAGS] &= !(FIN | PSH);
            }
        } else {
            put16(out, at + UDP_LENGTH, (out.len() - at) as u16);
        }

        let field = at + checksum_offset(self.protocol);
        let pseudo = pseudo_sum(out, self.version, ip, self.protocol, out.len() - at);
        let sum = match sums {
            Sums::Partial => checksum::fold(pseudo),
            Sums::Complete => {
                put16(out, field, 0);
                let sum = !checksum::fold(checksum::sum(pseudo, &out[at..]));
                if self.protocol == UDP {
                    checksum::nonzero(sum)
                } else {
                    sum
                }
            }
        };
        put16(out, field, sum);
    }
}
