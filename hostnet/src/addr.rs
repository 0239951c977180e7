//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::libc;

use crate::link::ignore;
use crate::netlink::{Answer, Netlink, NetlinkError};
use crate::sockaddr::field;

impl Netlink {
    /// The addresses of an interface, each with its prefix length, link-local ones included.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        let message = RouteNetlinkMessage::GetAddress(message);
        match self.dump(
            format_args!("list the addresses of interface {index}"),
            &message,
            |answer| read(answer, index),
        ) {
            Err(e) if e.errno() == Some(Errno::ENODEV) => Ok(Vec::new()),
            result => result,
        }
    }

    /// Gives an interface an address: IPv4 with the prefix's broadcast address, IPv6 without
    /// duplicate address detection, so that it can be used at once. One that it has already is fine.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewAddress(message(index, address));
        let operation = format_args!("add address {address} to interface {index}");
        match self.request(operation, message, NLM_F_CREATE | NLM_F_EXCL, ignore) {
            // IPv6 knows an address once, whatever its prefix length.
            Err(e) if e.is_exists() && self.addresses(index)?.contains(&address) => Ok(()),
            result => result,
        }
    }

    /// Takes an address from an interface. One that it does not have is fine.
    pub fn del_address(&mut self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelAddress(message(index, address));
        let operation = format_args!("delete address {address} of interface {index}");
        match self.request(operation, message, 0, ignore) {
            Err(e) if matches!(e.errno(), Some(Errno::EADDRNOTAVAIL | Errno::ENODEV)) => Ok(()),
            result => result,
        }
    }
}

fn message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message
        .attributes
        .push(AddressAttribute::Local(address.addr()));
    message
        .attributes
        .push(AddressAttribute::Address(address.addr()));
    match address {
        IpNet::V4(v4) => {
            message.header.family = AddressFamily::Inet;
            // RFC 3021: a prefix of two addresses has no broadcast address.
            if v4.prefix_len() < 31 {
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(v4.broadcast()));
            }
        }
        IpNet::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
        }
    }
    message
}

/// Reads an `RTM_NEWADDR` (`struct ifaddrmsg`, then attributes), if it is of this interface.
fn read(answer: &Answer<'_>, index: u32) -> Result<Option<IpNet>, &'static str> {
    let header = answer.payload;
    if answer.kind != libc::RTM_NEWADDR {
        return Err("message type");
    }
    if field(header, 4)
        .map(u32::from_ne_bytes)
        .ok_or("interface index")?
        != index
    {
        return Ok(None);
    }
    let prefix_len = *header.get(1).ok_or("prefix length")?;
    let (mut address, mut local) = (None, None);
    for (kind, value) in answer.attributes(8) {
        match kind {
            libc::IFA_ADDRESS => address = ip(value),
            libc::IFA_LOCAL => local = ip(value),
            _ => {}
        }
    }
    // On a point-to-point interface IFA_ADDRESS is the other side's.
    match local.or(address) {
        Some(ip) => IpNet::new(ip, prefix_len)
            .map(Some)
            .map_err(|_| "prefix length"),
        None => Ok(None),
    }
}

/// An address of four or sixteen bytes.
pub(crate) fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => field::<4>(value, 0).map(IpAddr::from),
        16 => field::<16>(value, 0).map(IpAddr::from),
        _ => None,
    }
}
