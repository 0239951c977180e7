//! Neighbour tables (ARP and neighbour discovery), and the forwarding entries of a VXLAN device.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as WireState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use wire::Mac;

use crate::addr::ip;
use crate::link::ignore;
use crate::netlink::{Answer, Netlink, NetlinkError};
use crate::sockaddr::field;

/// What is known of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Its IP address.
    pub address: IpAddr,
    /// Its Ethernet address; zero while that is not known.
    pub mac: Mac,
    /// How far the kernel trusts the entry.
    pub state: NeighbourState,
}

/// State of a neighbour's entry (RFC 4861 §7.3.2; `NUD_*` in linux/neighbour.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourState {
    /// Asked for, not answered yet.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Not confirmed lately, and not used since.
    Stale,
    /// Used while stale; waits for a sign of life.
    Delay,
    /// Being asked again.
    Probe,
    /// Did not answer.
    Failed,
    /// Set by hand, never asked for.
    Permanent,
    /// Needs no resolution, as on loopback.
    NoArp,
    /// Something that this list does not know, or none.
    Other(u16),
}

impl Netlink {
    /// The neighbours of an interface, both families.
    pub fn neighbours(&mut self, index: u32) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.attributes.push(NeighbourAttribute::IfIndex(index));
        let message = RouteNetlinkMessage::GetNeighbour(message);
        self.dump(
            format_args!("list the neighbours of interface {index}"),
            &message,
            |answer| read(answer, index),
        )
    }

    /// Tells an interface a neighbour's Ethernet address for good, so that it is never asked for.
    pub fn add_neighbour(
        &mut self,
        index: u32,
        address: IpAddr,
        mac: Mac,
    ) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = index;
        message.header.state = WireState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::Destination(address.into()));
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let operation = format_args!("set neighbour {address} of interface {index} to {mac}");
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.request(operation, message, NLM_F_CREATE | NLM_F_REPLACE, ignore)
    }

    /// Tells a VXLAN device where frames to an address go; with [`Mac::ZERO`] adds a place for all
    /// frames that have no entry of their own.
    pub fn add_vxlan_destination(
        &mut self,
        index: u32,
        mac: Mac,
        remote: IpAddr,
    ) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = index;
        message.header.state = WireState::Permanent;
        message.header.flags = NeighbourFlags::Own;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        message
            .attributes
            .push(NeighbourAttribute::Destination(remote.into()));
        let operation = format_args!("send {mac} to {remote} on interface {index}");
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.request(operation, message, NLM_F_CREATE | NLM_F_APPEND, ignore)
    }
}

/// Reads an `RTM_NEWNEIGH` (`struct ndmsg`, then attributes), if it is of this interface.
fn read(answer: &Answer<'_>, index: u32) -> Result<Option<Neighbour>, &'static str> {
    if answer.kind != libc::RTM_NEWNEIGH {
        return Err("message type");
    }
    if field(answer.payload, 4)
        .map(u32::from_ne_bytes)
        .ok_or("interface index")?
        != index
    {
        return Ok(None);
    }
    let state = field(answer.payload, 8)
        .map(u16::from_ne_bytes)
        .ok_or("state")?;
    let (mut address, mut mac) = (None, Mac::ZERO);
    for (kind, value) in answer.attributes(12) {
        match kind {
            libc::NDA_DST => address = ip(value),
            libc::NDA_LLADDR => mac = value.try_into().map_or(Mac::ZERO, Mac),
            _ => {}
        }
    }
    Ok(address.map(|address| Neighbour {
        address,
        mac,
        state: NeighbourState::of(state),
    }))
}

impl NeighbourState {
    fn of(bits: u16) -> Self {
        match bits {
            libc::NUD_INCOMPLETE => Self::Incomplete,
            libc::NUD_REACHABLE => Self::Reachable,
            libc::NUD_STALE => Self::Stale,
            libc::NUD_DELAY => Self::Delay,
            libc::NUD_PROBE => Self::Probe,
            libc::NUD_FAILED => Self::Failed,
            libc::NUD_PERMANENT => Self::Permanent,
            libc::NUD_NOARP => Self::NoArp,
            other => Self::Other(other),
        }
    }
}
