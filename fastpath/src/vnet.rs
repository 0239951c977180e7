//! `struct virtio_net_hdr` (linux/virtio_net.h): what the kernel left undone in a frame that it
//! hands to a TAP, and what it may leave undone in one that it is handed.

/// How a frame longer than the MTU is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GsoType {
    /// Not at all: the frame is what goes on the wire.
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP, each segment a datagram of its own (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    Udp,
}

/// The header that precedes each frame on a TAP with `IFF_VNET_HDR`, ten bytes in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VnetHdr {
    /// The checksum at `csum_start + csum_offset` holds the pseudo header's sum, and is to be
    /// completed over the bytes from `csum_start` on.
    pub needs_csum: bool,
    /// How to cut.
    pub gso: GsoType,
    /// The first segment carries CWR (RFC 3168 §6.1.2), the others not.
    pub ecn: bool,
    /// Bytes of headers up to the payload; a hint, which is never trusted.
    pub hdr_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    /// Offset in the frame of the transport header.
    pub csum_start: u16,
    /// Offset of the checksum field from there.
    pub csum_offset: u16,
}

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_*`.
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

impl VnetHdr {
    /// Bytes of the header; the TAP must be set to this size (`TUNSETVNETHDRSZ`).
    pub const LEN: usize = 10;

    /// A frame with nothing left undone.
    pub const PLAIN: Self = Self {
        needs_csum: false,
        gso: GsoType::None,
        ecn: false,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// Reads the header in front of a frame. `None` if there are fewer than ten bytes, or if the
    /// kernel asks for a kind of cutting that it was never told we can do.
    pub fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&[flags, gso, h0, h1, g0, g1, s0, s1, o0, o1], frame) =
            bytes.split_first_chunk::<{ Self::LEN }>()?;
        let kind = match gso & !GSO_ECN {
            0 => GsoType::None,
            GSO_TCPV4 => GsoType::TcpV4,
            GSO_TCPV6 => GsoType::TcpV6,
            GSO_UDP_L4 => GsoType::Udp,
            _ => return None,
        };
        let header = Self {
            needs_csum: flags & NEEDS_CSUM != 0,
            gso: kind,
            ecn: gso & GSO_ECN != 0,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        };
        Some((header, frame))
    }

    /// The header's bytes.
    pub fn bytes(&self) -> [u8; Self::LEN] {
        let gso = match self.gso {
            GsoType::None => 0,
            GsoType::TcpV4 => GSO_TCPV4,
            GsoType::TcpV6 => GSO_TCPV6,
            GsoType::Udp => GSO_UDP_L4,
        };
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        let flags = if self.needs_csum { NEEDS_CSUM } else { 0 };
        let ecn = if self.ecn { GSO_ECN } else { 0 };
        [flags, gso | ecn, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for gso in [GsoType::None, GsoType::TcpV4, GsoType::TcpV6, GsoType::Udp] {
            let header = VnetHdr {
                needs_csum: true,
                gso,
                ecn: gso == GsoType::TcpV4,
                hdr_len: 54,
                gso_size: 1396,
                csum_start: 34,
                csum_offset: 16,
            };
            assert_eq!(VnetHdr::parse(&header.bytes()), Some((header, &[][..])));
        }
    }

    #[test]
    fn fragmentation_offload_and_short_reads_are_refused() {
        let mut ufo = VnetHdr::PLAIN.bytes();
        ufo[1] = 3;
        assert_eq!(VnetHdr::parse(&ufo), None);
        assert_eq!(VnetHdr::parse(&[0; 9]), None);
    }
}
