//! What becomes of an IP packet that is longer than its link takes: it is fragmented where its
//! sender allows that (RFC 791 §3.2), and otherwise the sender is told the size that fits, with
//! ICMP "fragmentation needed" (RFC 1191 §4) or ICMPv6 "packet too big" (RFC 4443 §3.2), from the
//! overlay's own address. Nothing is lost silently.

use std::net::{Ipv4Addr, Ipv6Addr};

use wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, HEADER_LEN, header};
use wire::{Mac, checksum};

use crate::dissect::{be16, put_ipv4_checksum, put16};

/// Who tells a sender that its packet is too big.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnAddress {
    /// The bridge's MAC.
    pub mac: Mac,
    /// The bridge's IPv4 address in the overlay, once it has one.
    pub v4: Option<Ipv4Addr>,
}

impl OwnAddress {
    /// The bridge's link-local IPv6 address, which follows from its MAC (RFC 4291 appendix A).
    fn v6(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac.0;
        let pair = |high, low| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            pair(a ^ 2, b),
            pair(c, 0xff),
            pair(0xfe, d),
            pair(e, f),
        )
    }
}

/// Bytes of the offending packet that ICMP quotes: so many that the error fits 576 bytes (RFC 1812
/// §4.3.2.3).
const QUOTE_V4: usize = 576 - 20 - 8;
/// The same for ICMPv6, whose errors fit the smallest IPv6 MTU, 1280 bytes (RFC 4443 §3.1).
const QUOTE_V6: usize = 1280 - 40 - 8;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// The frame that tells the sender of `frame` to send at most `mtu` bytes, if one may be sent:
/// never about a group's frame, a later fragment or an ICMP error (RFC 1122 §3.2.2).
pub(crate) fn report(frame: &[u8], mtu: u16, own: &OwnAddress) -> Option<Vec<u8>> {
    let to = wire::ethernet::src(frame)?;
    let (ethertype, packet) = (be16(frame, 12)?, &frame[HEADER_LEN..]);
    if !wire::ethernet::dst(frame)?.is_unicast() {
        return None;
    }
    match ethertype {
        ETHERTYPE_IPV4 => {
            let ip = packet.first_chunk::<20>()?;
            let header_len = usize::from(ip[0] & 0x0f) * 4;
            let source = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
            let later_fragment = u16::from_be_bytes([ip[6], ip[7]]) & OFFSET != 0;
            let error = ip[9] == 1 && !matches!(packet.get(header_len), Some(0 | 8));
            let own_v4 = own.v4?;
            if later_fragment || error || source.is_unspecified() || source.is_multicast() {
                return None;
            }
            let mut icmp = vec![3, 4, 0, 0, 0, 0];
            icmp.extend(mtu.to_be_bytes());
            icmp.extend(&packet[..packet.len().min(QUOTE_V4)]);
            let sum = checksum::checksum(&icmp);
            put16(&mut icmp, 2, sum);
            let mut reply = header(to, own.mac, ETHERTYPE_IPV4).to_vec();
            reply.extend([0x45, 0xc0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0]);
            reply.extend(own_v4.octets());
            reply.extend(source.octets());
            put16(
                &mut reply,
                HEADER_LEN + 2,
                u16::try_from(20 + icmp.len()).ok()?,
            );
            put_ipv4_checksum(&mut reply, HEADER_LEN, 20);
            reply.extend(icmp);
            Some(reply)
        }
        ETHERTYPE_IPV6 => {
            let ip = packet.first_chunk::<40>()?;
            let source = Ipv6Addr::from(*ip[8..].first_chunk::<16>()?);
            let error = ip[6] == 58 && packet.get(40).is_none_or(|kind| kind & 0x80 == 0);
            if error || source.is_unspecified() || source.is_multicast() {
                return None;
            }
            let mut icmp = vec![2, 0, 0, 0, 0, 0];
            icmp.extend(mtu.to_be_bytes());
            icmp.extend(&packet[..packet.len().min(QUOTE_V6)]);
            let len = u32::try_from(icmp.len()).ok()?;
            let pseudo = checksum::pseudo_header_v6(own.v6(), source, 58, len);
            let sum = !checksum::fold(checksum::sum(pseudo, &icmp));
            put16(&mut icmp, 2, sum);
            let mut reply = header(to, own.mac, ETHERTYPE_IPV6).to_vec();
            reply.extend([0x60, 0, 0, 0, 0, 0, 58, 64]);
            reply.extend(own.v6().octets());
            reply.extend(source.octets());
            put16(&mut reply, HEADER_LEN + 4, u16::try_from(icmp.len()).ok()?);
            reply.extend(icmp);
            Some(reply)
        }
        _ => None,
    }
}

/// An IPv4 packet that may be fragmented.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fragments<'a> {
    frame: &'a [u8],
    header_len: usize,
    /// Offset in the frame behind the packet.
    end: usize,
    /// Payload of each fragment but the last, a multiple of eight bytes.
    step: usize,
}

impl<'a> Fragments<'a> {
    /// Takes the frame apart for a link of this MTU. `None` unless it is IPv4 with DF clear.
    ///
    /// IP options are copied to every fragment, also those that need not be: rare, and harmless.
    pub(crate) fn new(frame: &'a [u8], mtu: u16) -> Option<Self> {
        let ip = frame.get(HEADER_LEN..HEADER_LEN + 20)?;
        let header_len = usize::from(ip[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let may = be16(frame, 12) == Some(ETHERTYPE_IPV4)
            && ip[0] >> 4 == 4
            && u16::from_be_bytes([ip[6], ip[7]]) & DONT_FRAGMENT == 0
            && (20..=total).contains(&header_len)
            && HEADER_LEN + total <= frame.len();
        let step = usize::from(mtu).checked_sub(header_len)? & !7;
        (may && step > 0).then_some(Self {
            frame,
            header_len,
            end: HEADER_LEN + total,
            step,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        (self.end - HEADER_LEN - self.header_len)
            .div_ceil(self.step)
            .max(1)
    }

    /// Bytes of the frame of the `i`-th.
    pub(crate) fn len(&self, i: usize) -> usize {
        let rest = self.end - HEADER_LEN - self.header_len - i * self.step;
        HEADER_LEN + self.header_len + rest.min(self.step)
    }

    /// Writes the frame of the `i`-th to `out`, which has [`Fragments::len`] bytes.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an IPv4 packet has at most 65,535 bytes"
    )]
    pub(crate) fn write(&self, i: usize, out: &mut [u8]) {
        let headers = HEADER_LEN + self.header_len;
        let payload_len = out.len() - headers;
        let from = headers + i * self.step;
        out[..headers].copy_from_slice(&self.frame[..headers]);
        out[headers..].copy_from_slice(&self.frame[from..from + payload_len]);
        put16(out, HEADER_LEN + 2, (self.header_len + payload_len) as u16);
        // The packet may be a fragment itself: its own offset and MF carry over.
        let field = u16::from_be_bytes([self.frame[HEADER_LEN + 6], self.frame[HEADER_LEN + 7]]);
        let offset = (field & OFFSET) + (i * self.step / 8) as u16;
        let more = if i + 1 < self.count() {
            MORE_FRAGMENTS
        } else {
            field & MORE_FRAGMENTS
        };
        put16(out, HEADER_LEN + 6, offset | more);
        put_ipv4_checksum(out, HEADER_LEN, self.header_len);
    }
}
