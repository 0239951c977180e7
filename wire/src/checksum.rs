//! The internet checksum (RFC 1071): the one's complement of the one's complement sum of a
//! packet's 16-bit words.
//!
//! A partial sum is a `u64` of which only [`fold`] is meaningful; it is congruent modulo 0xffff to
//! the sum of the words as big-endian numbers. So a number that a field of the packet holds (a
//! length, a protocol) can be added to it, and the sum of one piece can be the initial value of the
//! next, as long as each piece but the last has an even length.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Protocol numbers (IANA) whose packets carry this checksum.
pub const PROTOCOL_ICMP: u8 = 1;
/// TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// Bytes of a step of the main loop: 8 independent 64-bit sums, which the compiler keeps in vector
/// registers.
const STEP: usize = 64;

/// The sum of `bytes`, added to `initial`: 0, or the sum of what precedes.
///
/// An odd last byte counts as if a zero byte followed it.
#[inline]
pub fn sum(initial: u64, bytes: &[u8]) -> u64 {
    // In host byte order and as wide as the machine adds; RFC 1071 §2 shows that the order of the
    // bytes and the width make no difference once the result is folded and swapped.
    let mut total = 0;
    let (steps, rest) = bytes.as_chunks::<STEP>();
    if !steps.is_empty() {
        let mut lanes = [0u64; STEP / 8];
        for step in steps {
            let (words, _) = step.as_chunks::<8>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                // Halves of 32 bits leave room for 2^31 steps. Taken apart in the register, where it
                // costs less than to load them apart.
                let word = u64::from_ne_bytes(*word);
                *lane += (word & 0xffff_ffff) + (word >> 32);
            }
        }
        total = lanes.into_iter().fold(0, add);
    }
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        total = add(total, u64::from_ne_bytes(*word));
    }
    let (words, rest) = rest.as_chunks::<2>();
    for word in words {
        total = add(total, u64::from(u16::from_ne_bytes(*word)));
    }
    if let [last] = rest {
        total = add(total, u64::from(u16::from_ne_bytes([*last, 0])));
    }
    add(initial, u64::from(u16::from_be(fold(total))))
}

/// The one's complement addition: the carry comes back in at the bottom.
#[inline]
const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// A sum in 16 bits, as a number: its big-endian bytes are what a packet holds. Not complemented.
#[inline]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let [low, high, ..] = sum.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// The checksum of `bytes`: what their checksum field, zero until then, is to hold.
///
/// Over bytes that include their checksum it is 0 if they are intact.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(0, bytes))
}

/// The sum of the pseudo header that TCP and UDP add over IPv4 (RFC 9293 §3.1, RFC 768).
///
/// `len` is the length of the transport header and its payload, in bytes.
#[inline]
pub fn pseudo_header_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u16) -> u64 {
    let [src, dst] = [src.octets(), dst.octets()];
    sum(sum(u64::from(protocol) + u64::from(len), &src), &dst)
}

/// The sum of the pseudo header that TCP, UDP and ICMPv6 add over IPv6 (RFC 8200 §8.1).
///
/// `len` is the length of the upper-layer header and its payload, in bytes; `next_header` is the
/// upper layer's protocol, whatever extension headers precede it.
#[inline]
pub fn pseudo_header_v6(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, len: u32) -> u64 {
    let [src, dst] = [src.octets(), dst.octets()];
    sum(sum(u64::from(next_header) + u64::from(len), &src), &dst)
}

/// Completes a checksum that the kernel left to the device (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
///
/// The field at `csum_start + csum_offset` holds the folded sum of the pseudo header; it gets the
/// checksum over the bytes from `csum_start` to the end of the packet. A result of 0 is written as
/// 0xffff, which means the same to TCP, and which UDP needs because its 0 says "no checksum" (RFC
/// 768); Linux's `skb_checksum_help` does so for all protocols.
///
/// Returns `false`, and leaves the packet as it was, if the field is not within it.
#[inline]
#[must_use]
pub fn complete(packet: &mut [u8], csum_start: usize, csum_offset: usize) -> bool {
    let Some(covered) = packet.get_mut(csum_start..) else {
        return false;
    };
    let checksum = nonzero(!fold(sum(0, covered)));
    match covered
        .get_mut(csum_offset..)
        .and_then(|rest| rest.first_chunk_mut::<2>())
    {
        Some(field) => {
            *field = checksum.to_be_bytes();
            true
        }
        None => false,
    }
}

/// A checksum as UDP sends it: 0, which would say that there is none, becomes 0xffff.
#[inline]
pub const fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use pnet_packet::util;
    use pnet_packet::{icmp, ipv4, tcp, udp};
    use proptest::prelude::*;

    use super::*;

    fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..max)
    }

    /// RFC 1071 §3's example.
    #[test]
    fn the_rfc_s_example() {
        assert_eq!(
            fold(sum(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])),
            0xddf2
        );
    }

    #[test]
    fn an_ipv4_header() {
        // 10.32.0.7 to 10.40.0.9, 84 bytes of ICMP, its checksum in place.
        let header = [
            0x45, 0, 0, 84, 0x12, 0x34, 0x40, 0, 64, 1, 0x14, 0x1e, 10, 32, 0, 7, 10, 40, 0, 9,
        ];
        assert_eq!(checksum(&header), 0);
        let judge = ipv4::Ipv4Packet::new(&header).unwrap();
        assert_eq!(ipv4::checksum(&judge), 0x141e);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let ones = vec![0xff; 1 << 20];
        assert_eq!(fold(sum(u64::MAX, &ones)), 0xffff);
        assert_eq!((fold(sum(0, &[])), checksum(&[])), (0, 0xffff));
        assert_eq!(fold(sum(0, &[0; 200])), 0);
    }

    #[test]
    fn a_udp_checksum_of_zero_becomes_ffff() {
        // Pseudo header's sum and payload cancel out: the sum is 0xffff, its complement 0.
        let mut packet = [0x12, 0x34, 0x56, 0x78, 0, 10, 0, 0, 0, 0];
        let rest = fold(sum(0, &packet));
        packet[6..8].copy_from_slice(&(!rest).to_be_bytes());
        assert!(complete(&mut packet, 0, 6));
        assert_eq!(packet[6..8], [0xff, 0xff]);
    }

    #[test]
    fn a_field_outside_the_packet_is_refused() {
        for (start, offset) in [
            (0, 9),
            (0, 10),
            (9, 0),
            (11, 0),
            (5, usize::MAX),
            (usize::MAX, 1),
        ] {
            let mut packet = [7; 10];
            assert!(!complete(&mut packet, start, offset), "{start} + {offset}");
            assert_eq!(packet, [7; 10]);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_pnet(bytes in bytes(3000)) {
            // Of nothing pnet says 0, and RFC 1071 the complement of 0.
            prop_assume!(!bytes.is_empty());
            // pnet skips one word of the caller's choice; here it is one behind the end.
            prop_assert_eq!(checksum(&bytes), util::checksum(&bytes, usize::MAX));
        }

        #[test]
        fn pieces_add_up(bytes in bytes(3000), cut in 0usize..1500) {
            let (a, b) = bytes.split_at((cut * 2).min(bytes.len() & !1));
            prop_assert_eq!(fold(sum(sum(0, a), b)), fold(sum(0, &bytes)));
            prop_assert_eq!(fold(sum(0, a) + sum(0, b)), fold(sum(0, &bytes)));
        }

        #[test]
        fn tcp_and_udp_over_ipv4_agree_with_pnet(a: [u8; 4], b: [u8; 4], mut packet in bytes(1500)) {
            prop_assume!(packet.len() >= 20);
            let (a, b) = (Ipv4Addr::from(a), Ipv4Addr::from(b));
            let len = u16::try_from(packet.len()).unwrap();
            packet[16..18].fill(0);
            let ours = !fold(sum(pseudo_header_v4(a, b, PROTOCOL_TCP, len), &packet));
            let judge = tcp::TcpPacket::new(&packet).unwrap();
            prop_assert_eq!(ours, tcp::ipv4_checksum(&judge, &a, &b));
            packet[6..8].fill(0);
            let ours = !fold(sum(pseudo_header_v4(a, b, PROTOCOL_UDP, len), &packet));
            let judge = udp::UdpPacket::new(&packet).unwrap();
            prop_assert_eq!(nonzero(ours), nonzero(udp::ipv4_checksum(&judge, &a, &b)));
        }

        #[test]
        fn tcp_and_udp_over_ipv6_agree_with_pnet(a: [u8; 16], b: [u8; 16], mut packet in bytes(1500)) {
            prop_assume!(packet.len() >= 20);
            let (a, b) = (Ipv6Addr::from(a), Ipv6Addr::from(b));
            let len = u32::try_from(packet.len()).unwrap();
            packet[16..18].fill(0);
            let ours = !fold(sum(pseudo_header_v6(a, b, PROTOCOL_TCP, len), &packet));
            let judge = tcp::TcpPacket::new(&packet).unwrap();
            prop_assert_eq!(ours, tcp::ipv6_checksum(&judge, &a, &b));
            packet[6..8].fill(0);
            let ours = !fold(sum(pseudo_header_v6(a, b, PROTOCOL_UDP, len), &packet));
            let judge = udp::UdpPacket::new(&packet).unwrap();
            prop_assert_eq!(nonzero(ours), nonzero(udp::ipv6_checksum(&judge, &a, &b)));
        }

        #[test]
        fn what_complete_finishes_verifies(a: [u8; 4], b: [u8; 4], mut packet in bytes(200)) {
            prop_assume!(packet.len() >= 8);
            let pseudo =
                pseudo_header_v4(a.into(), b.into(), PROTOCOL_UDP, u16::try_from(packet.len()).unwrap());
            packet[6..8].copy_from_slice(&fold(pseudo).to_be_bytes());
            let mut frame = vec![0xee; 34];
            frame.extend(&packet);
            assert!(complete(&mut frame, 34, 6));
            prop_assert_eq!(fold(sum(pseudo, &frame[34..])), 0xffff);
        }

        #[test]
        fn icmp_agrees_with_pnet(mut packet in bytes(200)) {
            prop_assume!(packet.len() >= 8);
            packet[2..4].fill(0);
            prop_assert_eq!(checksum(&packet), icmp::checksum(&icmp::IcmpPacket::new(&packet).unwrap()));
        }

        #[test]
        fn complete_takes_any_request(mut packet in bytes(100), start in 0usize..120, offset in 0usize..120) {
            let fits = start + offset + 2 <= packet.len();
            prop_assert_eq!(complete(&mut packet, start, offset), fits);
        }
    }
}
