//! What becomes of an IP packet that is longer than its link takes: it is fragmented where its
//! sender allows that (RFC 791 §3.2), and otherwise the sender is told the size that fits, with
//! ICMP "fragmentation needed" (RFC 1191 §4) or ICMPv6 "packet too big" (RFC 4443 §3.2), from the
//! overlay's own address. Nothing is lost silently.

use std::net::{Ipv4Addr, Ipv6Addr};

use wire::{Mac, checksum};

use crate::dissect::{Version, network, put_ipv4_checksum, put16};

/// Who tells a sender that its packet is too big.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnAddress {
    /// The bridge's MAC.
    pub mac: Mac,
    /// The bridge's IPv4 address in the overlay, once it has one.
    pub v4: Option<Ipv4Addr>,
}

impl OwnAddress {
    /// The Ethernet address that reports come from: not the bridge's own, for the kernel takes a
    /// frame with its own address as the sign of a loop, and says so in its log.
    fn reporter(&self) -> Mac {
        let [a, b, c, d, e, f] = self.mac.0;
        Mac::local([a, b, c ^ 0x80, d, e, f])
    }

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

/// The frame that tells the sender of `frame` that its link takes `longest` bytes of Ethernet frame,
/// if one may be sent: never about a group's frame, a later fragment or an ICMP error (RFC 1122
/// §3.2.2), nor about a packet that may be fragmented.
pub(crate) fn report(frame: &[u8], longest: usize, own: &OwnAddress) -> Option<Vec<u8>> {
    let (to, network) = (wire::ethernet::src(frame)?, network(frame)?);
    if !wire::ethernet::dst(frame)?.is_unicast() {
        return None;
    }
    let packet = &frame[network.at..];
    let mtu = u16::try_from(longest.checked_sub(network.at)?).ok()?;
    // The sender's VLAN tags, if any, and its ethertype.
    let mut reply = [&to.0[..], &own.reporter().0[..], &frame[12..network.at]].concat();
    // A packet from the node itself is reported as if by its destination: the kernel takes nothing
    // that claims to come from its own address.
    let from_node = to == own.mac;
    match network.version {
        Version::V4 => {
            let ip = packet.first_chunk::<20>()?;
            let header_len = usize::from(ip[0] & 0x0f) * 4;
            let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
            let (source, destination) = (address(12), address(16));
            let field = u16::from_be_bytes([ip[6], ip[7]]);
            let error = ip[9] == 1 && !matches!(packet.get(header_len), Some(0 | 8));
            if field & DONT_FRAGMENT == 0
                || field & OFFSET != 0
                || error
                || source.is_unspecified()
                || source.is_multicast()
            {
                return None;
            }
            let reporter = if from_node { destination } else { own.v4? };
            let mut icmp = vec![3, 4, 0, 0, 0, 0];
            icmp.extend(mtu.to_be_bytes());
            icmp.extend(&packet[..packet.len().min(QUOTE_V4)]);
            let sum = checksum::checksum(&icmp);
            put16(&mut icmp, 2, sum);
            let at = reply.len();
            reply.extend([0x45, 0xc0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0]);
            reply.extend(reporter.octets());
            reply.extend(source.octets());
            put16(&mut reply, at + 2, u16::try_from(20 + icmp.len()).ok()?);
            put_ipv4_checksum(&mut reply, at, 20);
            reply.extend(icmp);
        }
        Version::V6 => {
            let ip = packet.first_chunk::<40>()?;
            let address = |at: usize| ip[at..].first_chunk::<16>().copied().map(Ipv6Addr::from);
            let (source, destination) = (address(8)?, address(24)?);
            let error = ip[6] == 58 && packet.get(40).is_none_or(|kind| kind & 0x80 == 0);
            if error || source.is_unspecified() || source.is_multicast() {
                return None;
            }
            let reporter = if from_node { destination } else { own.v6() };
            let mut icmp = vec![2, 0, 0, 0, 0, 0];
            icmp.extend(mtu.to_be_bytes());
            icmp.extend(&packet[..packet.len().min(QUOTE_V6)]);
            let len = u32::try_from(icmp.len()).ok()?;
            let pseudo = checksum::pseudo_header_v6(reporter, source, 58, len);
            let sum = !checksum::fold(checksum::sum(pseudo, &icmp));
            put16(&mut icmp, 2, sum);
            let at = reply.len();
            reply.extend([0x60, 0, 0, 0, 0, 0, 58, 64]);
            reply.extend(reporter.octets());
            reply.extend(source.octets());
            put16(&mut reply, at + 4, u16::try_from(icmp.len()).ok()?);
            reply.extend(icmp);
        }
    }
    Some(reply)
}

/// An IPv4 packet that may be fragmented.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fragments<'a> {
    frame: &'a [u8],
    /// Offset in the frame of the IP header, and of what follows it.
    ip: usize,
    headers: usize,
    /// Offset in the frame behind the packet.
    end: usize,
    /// Payload of each fragment but the last, a multiple of eight bytes.
    step: usize,
}

impl<'a> Fragments<'a> {
    /// Takes a frame apart so that no part is longer than `longest` bytes of Ethernet frame. `None`
    /// unless it is IPv4 with DF clear.
    ///
    /// IP options are copied to every fragment, also those that need not be: rare, and harmless.
    pub(crate) fn new(frame: &'a [u8], longest: usize) -> Option<Self> {
        let network = network(frame).filter(|network| network.version == Version::V4)?;
        let ip = &frame[network.at..];
        let header_len = usize::from(ip[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let may = ip[0] >> 4 == 4
            && u16::from_be_bytes([ip[6], ip[7]]) & DONT_FRAGMENT == 0
            && (20..=total).contains(&header_len)
            && total <= ip.len();
        let headers = network.at + header_len;
        let step = longest.checked_sub(headers)? & !7;
        let (ip, end) = (network.at, network.at + total);
        (may && step > 0).then_some(Self {
            frame,
            ip,
            headers,
            end,
            step,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        (self.end - self.headers).div_ceil(self.step).max(1)
    }

    /// Bytes of the frame of the `i`-th.
    pub(crate) fn len(&self, i: usize) -> usize {
        self.headers + (self.end - self.headers - i * self.step).min(self.step)
    }

    /// Writes the frame of the `i`-th to `out`, which has [`Fragments::len`] bytes.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an IPv4 packet has at most 65,535 bytes"
    )]
    pub(crate) fn write(&self, i: usize, out: &mut [u8]) {
        let (ip, headers) = (self.ip, self.headers);
        let from = headers + i * self.step;
        let payload_len = out.len() - headers;
        out[..headers].copy_from_slice(&self.frame[..headers]);
        out[headers..].copy_from_slice(&self.frame[from..from + payload_len]);
        let packet_len = out.len() - ip;
        put16(out, ip + 2, packet_len as u16);
        // The packet may be a fragment itself: its own offset and MF carry over.
        let field = u16::from_be_bytes([self.frame[ip + 6], self.frame[ip + 7]]);
        let offset = (field & OFFSET) + (i * self.step / 8) as u16;
        let more = if i + 1 < self.count() {
            MORE_FRAGMENTS
        } else {
            field & MORE_FRAGMENTS
        };
        put16(out, ip + 6, offset | more);
        put_ipv4_checksum(out, ip, headers - ip);
    }
}
