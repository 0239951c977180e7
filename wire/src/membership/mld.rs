//! MLD, which is part of ICMPv6.
//!
//! ```text
//! +----------------------------------+  IPv6, hop limit 1, from a link-local address
//! | hop-by-hop header, router alert  |  8 bytes (RFC 2711)
//! +------+------+--------------------+
//! | type | code | checksum           |  ICMPv6
//! +------+------+--------------------+
//! | max delay 2, reserved 2, group 16|  types 130, 131, 132 (RFC 2710 §3)
//! +----------------------------------+
//! | resv S QRV 1, QQIC 1, n 2        |  behind a query of version 2 (RFC 3810 §5.1)
//!
//! | reserved 2, records n 2          |  type 143 (RFC 3810 §5.2), then n times
//! | type 1, aux 1, sources 2, group 16, sources of 16, aux words of 4 |
//! ```

use std::net::Ipv6Addr;

use super::{Interest, Message, PROTOCOL_PIM, wanted};
use crate::Mac;
use crate::checksum::{PROTOCOL_ICMPV6, fold, pseudo_header_v6, sum};
use crate::ethernet::{self, ETHERTYPE_IPV6};

const HEADER_LEN: usize = 40;
const HOP_BY_HOP: u8 = 0;
const QUERY: u8 = 130;
const V1_REPORT: u8 = 131;
const V1_DONE: u8 = 132;
const V2_REPORT: u8 = 143;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Router alert for MLD, padded (RFC 2711 §2.1); receivers insist on it.
const OPTIONS: [u8; 6] = [5, 2, 0, 0, 1, 0];

/// Bytes of a query: version 2, without sources.
const MESSAGE_LEN: u8 = 28;
/// Bytes of its frame: Ethernet 14, IPv6 40, hop-by-hop header 8, and the query.
const QUERY_LEN: usize = ethernet::HEADER_LEN + HEADER_LEN + 8 + MESSAGE_LEN as usize;

/// The frame by which `mac`, at the link-local address that follows from it, asks all stations for all
/// their groups, to be answered within so many milliseconds, less than 32768. `interval` is that between
/// queries, in seconds, less than 128.
pub fn general_query(mac: Mac, milliseconds: u16, interval: u8) -> [u8; QUERY_LEN] {
    let mut frame = [0; QUERY_LEN];
    let group = Mac([0x33, 0x33, 0, 0, 0, 1]);
    frame[..14].copy_from_slice(&ethernet::header(group, mac, ETHERTYPE_IPV6));
    let source = link_local(mac);
    let (ip, rest) = frame[14..].split_at_mut(HEADER_LEN);
    (ip[0], ip[5], ip[6], ip[7]) = (0x60, 8 + MESSAGE_LEN, HOP_BY_HOP, 1);
    ip[8..24].copy_from_slice(&source.octets());
    ip[24..40].copy_from_slice(&ALL_NODES.octets());
    let (options, mld) = rest.split_at_mut(8);
    options[0] = PROTOCOL_ICMPV6;
    options[2..].copy_from_slice(&OPTIONS);
    mld[0] = QUERY;
    mld[4..6].copy_from_slice(&(milliseconds & 0x7fff).to_be_bytes());
    // Robustness 2 (RFC 3810 §9.1).
    (mld[24], mld[25]) = (2, interval & 0x7f);
    let pseudo = pseudo_header_v6(source, ALL_NODES, PROTOCOL_ICMPV6, MESSAGE_LEN.into());
    let checksum = !fold(sum(pseudo, mld));
    mld[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The modified EUI-64 of a MAC in `fe80::/64` (RFC 4291 appendix A).
fn link_local(Mac([a, b, c, d, e, f]): Mac) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    octets.into()
}

/// Reads an IPv6 packet.
pub(super) fn parse(packet: &[u8]) -> Option<Message<'_>> {
    let (header, rest) = packet.split_first_chunk::<HEADER_LEN>()?;
    let rest = rest.get(..usize::from(u16::from_be_bytes([header[4], header[5]])))?;
    let (protocol, message) = match header[6] {
        HOP_BY_HOP => {
            let &[next, units] = rest.first_chunk::<2>()?;
            (next, rest.get((usize::from(units) + 1) * 8..)?)
        }
        protocol => (protocol, rest),
    };
    if header[0] >> 4 != 6 {
        return None;
    }
    if protocol == PROTOCOL_PIM {
        return Some(Message::Router);
    }
    let (&[kind, _, _, _, _, _, n0, n1], body) = message.split_first_chunk::<8>()?;
    let known = matches!(kind, QUERY | V1_REPORT | V1_DONE | V2_REPORT);
    if protocol != PROTOCOL_ICMPV6 || !known || !is_intact(header, message) {
        return None;
    }
    if kind == V2_REPORT {
        return Some(Message::mld(Records {
            left: u16::from_be_bytes([n0, n1]),
            bytes: body,
        }));
    }
    let group = Ipv6Addr::from(*body.first_chunk::<16>()?);
    match kind {
        QUERY => Some(Message::Router),
        _ => Message::one(group, kind == V1_REPORT),
    }
}

fn is_intact(header: &[u8; HEADER_LEN], message: &[u8]) -> bool {
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    let Ok(len) = u32::try_from(message.len()) else {
        return false;
    };
    let pseudo = pseudo_header_v6(address(8), address(24), PROTOCOL_ICMPV6, len);
    fold(sum(pseudo, message)) == 0xffff
}

/// The records of a version 2 report. They end with the bytes, whatever their number is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Records<'a> {
    left: u16,
    bytes: &'a [u8],
}

impl Iterator for Records<'_> {
    type Item = Interest;

    fn next(&mut self) -> Option<Interest> {
        loop {
            self.left = self.left.checked_sub(1)?;
            let (&[kind, aux, n0, n1], rest) = self.bytes.split_first_chunk::<4>()?;
            let (group, rest) = rest.split_first_chunk::<16>()?;
            let sources = u16::from_be_bytes([n0, n1]);
            self.bytes = rest.get(usize::from(sources) * 16 + usize::from(aux) * 4..)?;
            let group = Ipv6Addr::from(*group);
            if let Some(wanted) = wanted(kind, sources)
                && group.is_multicast()
            {
                let group = group.into();
                return Some(Interest { group, wanted });
            }
        }
    }
}
