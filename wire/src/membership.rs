//! What stations and multicast routers say of groups: IGMP (RFC 1112, RFC 2236, RFC 3376) for IPv4, MLD
//! (RFC 2710, RFC 3810) for IPv6.
//!
//! Read as a switch reads it that listens along (RFC 4541): which groups a station wants or leaves,
//! whatever the version, and where a multicast router is. Sources that are filtered are not looked at.
//! Written: the general queries that make stations repeat what they want.

mod igmp;
mod mld;

use std::net::IpAddr;

pub use igmp::general_query as igmp_general_query;
pub use mld::general_query as mld_general_query;

use crate::Mac;
use crate::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6};

/// Protocol number of PIM (RFC 7761 §4.9), by which multicast routers are known as well.
const PROTOCOL_PIM: u8 = 103;

/// A message about groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// Its sender wants groups, or wants them no more.
    Report(Report<'a>),
    /// Its sender is a multicast router: it asks who wants what, or speaks PIM.
    Router,
}

/// What a station says of groups: an iterator over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report<'a>(Records<'a>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Records<'a> {
    /// One group, in the older versions.
    One(Option<Interest>),
    Igmp(igmp::Records<'a>),
    Mld(mld::Records<'a>),
}

/// A group, and whether its sender wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// The group.
    pub group: IpAddr,
    /// Whether it is wanted.
    pub wanted: bool,
}

/// Reads a frame, VLAN-tagged or not. None if it is no such message, or one that is damaged or cut
/// short.
pub fn parse(frame: &[u8]) -> Option<Message<'_>> {
    let (ethertype, at) = ethernet::ethertype(frame)?;
    let packet = frame.get(at..)?;
    match ethertype {
        ETHERTYPE_IPV4 => igmp::parse(packet),
        ETHERTYPE_IPV6 => mld::parse(packet),
        _ => None,
    }
}

/// The Ethernet address of a group (RFC 1112 §6.4, RFC 2464 §7); none if the address is no group's.
/// Other groups may share it.
pub fn group_mac(group: IpAddr) -> Option<Mac> {
    if !group.is_multicast() {
        return None;
    }
    Some(match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            Mac([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            Mac([0x33, 0x33, a, b, c, d])
        }
    })
}

impl Iterator for Report<'_> {
    type Item = Interest;

    fn next(&mut self) -> Option<Interest> {
        match &mut self.0 {
            Records::One(interest) => interest.take(),
            Records::Igmp(records) => records.next(),
            Records::Mld(records) => records.next(),
        }
    }
}

impl<'a> Message<'a> {
    fn one(group: impl Into<IpAddr>, wanted: bool) -> Option<Self> {
        let group = group.into();
        let interest = Interest { group, wanted };
        group
            .is_multicast()
            .then_some(Self::Report(Report(Records::One(Some(interest)))))
    }

    fn igmp(records: igmp::Records<'a>) -> Self {
        Self::Report(Report(Records::Igmp(records)))
    }

    fn mld(records: mld::Records<'a>) -> Self {
        Self::Report(Report(Records::Mld(records)))
    }
}

/// Whether a record of IGMPv3 or MLDv2 of this type and with so many sources says that its sender wants
/// the group (RFC 3376 §4.2.12, RFC 3810 §5.2.12). None: nothing follows from it.
fn wanted(kind: u8, sources: u16) -> Option<bool> {
    match (kind, sources) {
        // Is or becomes INCLUDE of nothing.
        (1 | 3, 0) => Some(false),
        // INCLUDE, EXCLUDE, or more sources.
        (1..=5, _) => Some(true),
        // Fewer sources, and what nobody knows.
        _ => None,
    }
}

#[cfg(test)]
mod tests;
