//! IGMP.
//!
//! ```text
//! +------+----------+----------+
//! | type | max resp | checksum |  IPv4 protocol 2, TTL 1
//! +------+----------+----------+
//! | group, 4                   |  types 0x11, 0x12, 0x16, 0x17 (RFC 2236 §2)
//! +----------------------------+
//! | resv S QRV 1, QQIC 1, n 2  |  behind a query of version 3 (RFC 3376 §4.1)
//!
//! | reserved 2, records n 2    |  type 0x22 (RFC 3376 §4.2), then n times
//! | type 1, aux 1, sources 2, group 4, sources of 4, aux words of 4 |
//! ```

use std::net::Ipv4Addr;

use super::{Interest, Message, PROTOCOL_PIM, wanted};
use crate::Mac;
use crate::checksum::checksum;
use crate::ethernet::{self, ETHERTYPE_IPV4};

const PROTOCOL_IGMP: u8 = 2;
const QUERY: u8 = 0x11;
const V1_REPORT: u8 = 0x12;
const V2_REPORT: u8 = 0x16;
const V2_LEAVE: u8 = 0x17;
const V3_REPORT: u8 = 0x22;
/// All systems of the link.
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// Router alert (RFC 2113 §2.1), an IPv4 option that these messages have.
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
/// Internetwork control, as routing protocols are marked (RFC 3376 §4).
const TOS: u8 = 0xc0;

/// Bytes of a query's frame: Ethernet 14, IPv4 with router alert 24, version 3 query 12.
const QUERY_LEN: usize = ethernet::HEADER_LEN + 24 + 12;

/// The frame by which `mac` asks all stations for all their groups, to be answered within `tenths` of a
/// second, less than 128. From 0.0.0.0, for who only listens along is no router (RFC 4541 §2.1.1).
/// `interval` is that between queries, in seconds, less than 128.
pub fn general_query(mac: Mac, tenths: u8, interval: u8) -> [u8; QUERY_LEN] {
    let mut frame = [0; QUERY_LEN];
    let group = Mac([0x01, 0x00, 0x5e, 0, 0, 1]);
    frame[..14].copy_from_slice(&ethernet::header(group, mac, ETHERTYPE_IPV4));
    let ip = &mut frame[14..];
    (ip[0], ip[1], ip[3], ip[8], ip[9]) = (0x46, TOS, 36, 1, PROTOCOL_IGMP);
    ip[16..20].copy_from_slice(&ALL_SYSTEMS.octets());
    ip[20..24].copy_from_slice(&ROUTER_ALERT);
    let sum = checksum(&ip[..24]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let igmp = &mut ip[24..];
    // Robustness 2 (RFC 3376 §8.1).
    (igmp[0], igmp[1], igmp[8], igmp[9]) = (QUERY, tenths & 0x7f, 2, interval & 0x7f);
    let sum = checksum(igmp);
    igmp[2..4].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Reads an IPv4 packet.
pub(super) fn parse(packet: &[u8]) -> Option<Message<'_>> {
    let header = packet.first_chunk::<20>()?;
    if header[9] != PROTOCOL_IGMP && header[9] != PROTOCOL_PIM {
        return None;
    }
    let len = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    if header[0] >> 4 != 4 || len < 20 || fragment {
        return None;
    }
    let message = packet.get(len..total)?;
    if header[9] == PROTOCOL_PIM {
        return Some(Message::Router);
    }
    let (&[kind, _, _, _, a, b, c, d], rest) = message.split_first_chunk::<8>()?;
    if checksum(message) != 0 {
        return None;
    }
    let group = Ipv4Addr::new(a, b, c, d);
    match kind {
        QUERY => Some(Message::Router),
        V1_REPORT | V2_REPORT => Message::one(group, true),
        V2_LEAVE => Message::one(group, false),
        V3_REPORT => Some(Message::igmp(Records {
            left: u16::from_be_bytes([c, d]),
            bytes: rest,
        })),
        _ => None,
    }
}

/// The records of a version 3 report. They end with the bytes, whatever their number is said to be.
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
            let (&[kind, aux, n0, n1, a, b, c, d], rest) = self.bytes.split_first_chunk::<8>()?;
            let sources = u16::from_be_bytes([n0, n1]);
            self.bytes = rest.get((usize::from(sources) + usize::from(aux)) * 4..)?;
            let group = Ipv4Addr::new(a, b, c, d);
            if let Some(wanted) = wanted(kind, sources)
                && group.is_multicast()
            {
                let group = group.into();
                return Some(Interest { group, wanted });
            }
        }
    }
}
