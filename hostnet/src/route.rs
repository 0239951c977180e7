//! Routes of the main table, and the kernel's choice of one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::libc;

use crate::addr::ip;
use crate::link::ignore;
use crate::netlink::{Answer, Netlink, NetlinkError, attributes, int};
use crate::sockaddr::field;

/// A unicast route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to; a prefix of length 0 is the default route.
    pub dst: IpNet,
    /// Next hop; `None` means that the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Index of the interface to go out of.
    pub oif: Option<u32>,
    /// Source address for packets that do not have one yet.
    pub src: Option<IpAddr>,
    /// Take the gateway for reachable although no address of the interface covers it.
    pub onlink: bool,
}

/// How a packet to some address would leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteTo {
    /// Index of the interface.
    pub oif: u32,
    /// Next hop, if the destination is not on the link.
    pub gateway: Option<IpAddr>,
    /// Source address that the kernel would choose.
    pub src: Option<IpAddr>,
    /// The route's own MTU, in bytes; `None` means the interface's. What ICMP has told of the path does
    /// not count: anybody can send that.
    pub mtu: Option<u32>,
}

impl Route {
    /// The default route of the gateway's family.
    pub fn default_via(gateway: IpAddr, oif: u32) -> Self {
        let dst = match gateway {
            IpAddr::V4(_) => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
            IpAddr::V6(_) => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        Self {
            dst,
            gateway: Some(gateway),
            oif: Some(oif),
            src: None,
            onlink: false,
        }
    }
}

impl Netlink {
    /// Adds a route. The same one again is fine; another one to the same destination is an error, so
    /// that no route of somebody else is replaced.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let dst = route.dst;
        let message = RouteNetlinkMessage::NewRoute(message(route));
        match self.request(
            format_args!("add route to {dst}"),
            message,
            NLM_F_CREATE | NLM_F_EXCL,
            ignore,
        ) {
            Err(e) if e.is_exists() && self.has_route(route)? => Ok(()),
            result => result,
        }
    }

    /// Deletes a route. One that does not exist is fine.
    pub fn del_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let dst = route.dst;
        let message = RouteNetlinkMessage::DelRoute(message(route));
        match self.request(format_args!("delete route to {dst}"), message, 0, ignore) {
            Err(e) if e.errno() == Some(Errno::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// The unicast routes of the main table, both families; with `oif` only those of one interface.
    pub fn routes(&mut self, oif: Option<u32>) -> Result<Vec<Route>, NetlinkError> {
        let message = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        self.dump(format_args!("list routes"), &message, |answer| {
            let found = read(answer)?;
            Ok(found.filter(|route| oif.is_none() || route.oif == oif))
        })
    }

    /// The kernel's choice for a destination; `None` if it has no way there.
    pub fn route_to(&mut self, destination: IpAddr) -> Result<Option<RouteTo>, NetlinkError> {
        let mut message = RouteMessage::default();
        let (family, bits) = match destination {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = bits;
        message
            .attributes
            .push(RouteAttribute::Destination(destination.into()));
        let message = RouteNetlinkMessage::GetRoute(message);
        let mut found = None;
        match self.request(
            format_args!("find the route to {destination}"),
            message,
            0,
            |answer| {
                found = read_choice(answer)?;
                Ok(())
            },
        ) {
            Err(e) if matches!(e.errno(), Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH)) => {
                Ok(None)
            }
            result => result.map(|()| found),
        }
    }

    fn has_route(&mut self, wanted: &Route) -> Result<bool, NetlinkError> {
        Ok(self.routes(wanted.oif)?.iter().any(|route| {
            route.dst == wanted.dst.trunc()
                && route.gateway == wanted.gateway
                && (wanted.src.is_none() || route.src == wanted.src)
        }))
    }
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: match route.dst {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        },
        destination_prefix_length: route.dst.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        // IPv4 wants to know whether the next hop is the destination itself; IPv6 does not care.
        scope: if route.gateway.is_none() {
            RouteScope::Link
        } else {
            RouteScope::Universe
        },
        kind: RouteType::Unicast,
        flags: if route.onlink {
            RouteFlags::Onlink
        } else {
            RouteFlags::empty()
        },
        ..RouteHeader::default()
    };
    if route.dst.prefix_len() != 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(route.dst.network().into()));
    }
    message
        .attributes
        .extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    message
        .attributes
        .extend(route.oif.map(RouteAttribute::Oif));
    message
        .attributes
        .extend(route.src.map(|ip| RouteAttribute::PrefSource(ip.into())));
    message
}

/// The attributes of an `RTM_NEWROUTE` that are used here.
#[derive(Default)]
struct Attributes {
    dst: Option<IpAddr>,
    gateway: Option<IpAddr>,
    oif: Option<u32>,
    src: Option<IpAddr>,
    table: Option<u32>,
    mtu: Option<u32>,
    /// Whether the kernel will forget it: it was not configured, but learned.
    expires: bool,
}

impl Attributes {
    fn of(answer: &Answer<'_>) -> Self {
        let mut this = Self::default();
        for (kind, value) in answer.attributes(HEADER_LEN) {
            match kind {
                libc::RTA_DST => this.dst = ip(value),
                libc::RTA_GATEWAY => this.gateway = ip(value),
                libc::RTA_OIF => this.oif = int(value),
                libc::RTA_PREFSRC => this.src = ip(value),
                libc::RTA_CACHEINFO => {
                    let expires = value.get(EXPIRES..EXPIRES + 4).and_then(int);
                    this.expires = expires.is_some_and(|expires| expires != 0);
                }
                libc::RTA_TABLE => this.table = int(value),
                libc::RTA_METRICS => {
                    this.mtu = attributes(value)
                        .find(|(kind, _)| *kind == RTAX_MTU)
                        .and_then(|(_, value)| int(value));
                }
                _ => {}
            }
        }
        this
    }
}

/// Reads an `RTM_NEWROUTE` (`struct rtmsg`, then attributes), if it is unicast and of the main table.
fn read(answer: &Answer<'_>) -> Result<Option<Route>, &'static str> {
    if answer.kind != libc::RTM_NEWROUTE {
        return Err("message type");
    }
    let header: [u8; HEADER_LEN] = field(answer.payload, 0).ok_or("route header")?;
    let [family, prefix_len, _, _, table, _, _, kind, ..] = header;
    let attributes = Attributes::of(answer);
    let unspecified: IpAddr = match libc::c_int::from(family) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Ok(None),
    };
    let table = attributes.table.unwrap_or(table.into());
    if table != libc::RT_TABLE_MAIN.into() || kind != libc::RTN_UNICAST {
        return Ok(None);
    }
    let flags = field(&header, 8).map_or(0, u32::from_ne_bytes);
    Ok(Some(Route {
        dst: IpNet::new(attributes.dst.unwrap_or(unspecified), prefix_len)
            .map_err(|_| "prefix length")?,
        gateway: attributes.gateway,
        oif: attributes.oif,
        src: attributes.src,
        onlink: RouteFlags::from_bits_retain(flags).contains(RouteFlags::Onlink),
    }))
}

/// Reads the answer to a look-up. A local, broadcast or multicast destination has an interface too;
/// one that is unreachable by a route of that type has none.
fn read_choice(answer: &Answer<'_>) -> Result<Option<RouteTo>, &'static str> {
    if answer.kind != libc::RTM_NEWROUTE {
        return Err("message type");
    }
    let Attributes {
        oif,
        gateway,
        src,
        mtu,
        expires,
        ..
    } = Attributes::of(answer);
    Ok(oif.map(|oif| RouteTo {
        oif,
        gateway,
        src,
        mtu: mtu.filter(|_| !expires),
    }))
}

/// `struct rtmsg`.
const HEADER_LEN: usize = 12;
/// linux/rtnetlink.h.
const RTAX_MTU: u16 = 2;
/// Of `rta_expires` in `struct rta_cacheinfo` (linux/rtnetlink.h), behind two other words.
const EXPIRES: usize = 8;
