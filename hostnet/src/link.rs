//! Network interfaces: look up, make, change, delete.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use nix::errno::Errno;
use nix::libc;
use wire::{Mac, Vni};

use crate::netlink::{Answer, Netlink, NetlinkError, attributes, check_name, int, text};
use crate::netns::NetNs;
use crate::sockaddr::field;

mod change;

/// A network interface as it was when the kernel was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Ethernet address; zero for an interface without one.
    pub mac: Mac,
    /// Largest layer 3 packet, in bytes.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Up and with a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// Index of the bridge, bond or VRF that the interface is a port of.
    pub master: Option<u32>,
    /// What made the interface; `None` for hardware and loopback.
    pub kind: Option<LinkKind>,
    /// Free text (`ip link set … alias`), by which weft marks what it made.
    pub alias: Option<String>,
    /// The other end of a veth, as an index in that end's namespace.
    pub peer_index: Option<u32>,
    /// Length of the transmit queue, in packets.
    pub tx_queue_len: u32,
    /// The kernel gives the interface an IPv6 link-local address when it comes up; false also where
    /// there is no IPv6.
    pub link_local: bool,
    /// Traffic since the interface was made.
    pub stats: LinkStats,
}

/// The driver of an interface (`IFLA_INFO_KIND`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A software switch.
    Bridge,
    /// One end of a virtual cable.
    Veth,
    /// A kernel VXLAN endpoint.
    Vxlan,
    /// A TUN or TAP.
    Tun,
    /// Any other, by the kernel's name for it.
    Other(String),
}

/// Traffic counters of an interface (`struct rtnl_link_stats64`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    missing_docs,
    reason = "the kernel's names, explained in linux/if_link.h"
)]
pub struct LinkStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
}

/// How a bridge is to be. All are without spanning tree, without a forwarding delay and without
/// multicast snooping, so that every frame goes to every port at once.
#[derive(Debug, Clone, Default)]
pub struct BridgeOptions {
    /// Its own address; a given one stays when ports come and go, a random one does not.
    pub mac: Option<Mac>,
    /// Largest layer 3 packet of the bridge's own interface, in bytes; 0 leaves it to the kernel,
    /// which follows the ports.
    pub mtu: u16,
    /// Mark of who made it.
    pub alias: Option<String>,
}

/// A virtual cable between this namespace and another.
#[derive(Debug, Clone, Copy)]
pub struct VethRequest<'a> {
    /// Name of the end that stays in the socket's namespace.
    pub host: &'a str,
    /// Largest layer 3 packet of both ends, in bytes.
    pub mtu: u16,
    /// Address of the host end; random if it is not given.
    pub host_mac: Option<Mac>,
    /// Index of the bridge that the host end is put on.
    pub master: Option<u32>,
    /// Let the bridge send frames back to where they came from. Needs a master.
    pub hairpin: bool,
    /// Bring the host end up. The other end starts down.
    pub host_up: bool,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Where the other end goes; `None` keeps it in the socket's namespace.
    pub peer_ns: Option<&'a NetNs>,
    /// Address of the other end; random if it is not given.
    pub peer_mac: Option<Mac>,
    /// Mark of who made it, on the host end.
    pub alias: Option<&'a str>,
}

impl<'a> VethRequest<'a> {
    /// A cable between two ends in the socket's namespace, both down and on no bridge.
    pub const fn new(host: &'a str, peer_name: &'a str, mtu: u16) -> Self {
        Self {
            host,
            mtu,
            host_mac: None,
            master: None,
            hairpin: false,
            host_up: false,
            peer_name,
            peer_ns: None,
            peer_mac: None,
            alias: None,
        }
    }
}

/// Interface indexes of both ends of a new veth, each in its own namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VethPair {
    /// The end in the socket's namespace.
    pub host: u32,
    /// The end in `peer_ns`.
    pub peer: u32,
}

/// A kernel VXLAN endpoint (RFC 7348).
#[derive(Debug, Clone, Copy)]
pub struct VxlanOptions {
    /// Network identifier.
    pub vni: Vni,
    /// UDP port, for both directions.
    pub port: u16,
    /// Source address of the outer packet.
    pub local: Option<IpAddr>,
    /// Where frames go that no entry of the forwarding database sends elsewhere: a remote VTEP or a
    /// multicast group (which needs `dev`).
    pub remote: Option<IpAddr>,
    /// Index of the interface that the tunnel goes through.
    pub dev: Option<u32>,
    /// Time to live of the outer packet; 0 is the kernel's default.
    pub ttl: u8,
    /// Learn remote addresses from what is received.
    pub learning: bool,
    /// Fill in the outer UDP checksum. Over IPv6 a false value also accepts datagrams without.
    pub udp_csum: bool,
    /// Largest inner packet, in bytes; 0 leaves it to the kernel.
    pub mtu: u16,
}

impl VxlanOptions {
    /// An endpoint with learning, outer checksums and the kernel's other defaults.
    pub fn new(vni: Vni, port: u16) -> Self {
        Self {
            vni,
            port,
            local: None,
            remote: None,
            dev: None,
            ttl: 0,
            learning: true,
            udp_csum: true,
            mtu: 0,
        }
    }
}

impl Netlink {
    /// The interface of this name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(format_args!("look up interface {name}"), message)
    }

    /// The interface of this index, if there is one.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        self.one_link(format_args!("look up interface {index}"), of(index))
    }

    /// All interfaces of the namespace, by index.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut links = self.dump(format_args!("list interfaces"), &message, |a| {
            read(a).map(Some)
        })?;
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    fn one_link(
        &mut self,
        operation: std::fmt::Arguments<'_>,
        message: LinkMessage,
    ) -> Result<Option<Link>, NetlinkError> {
        let mut found = None;
        let message = RouteNetlinkMessage::GetLink(message);
        match self.request(operation, message, 0, |answer| {
            found = Some(read(answer)?);
            Ok(())
        }) {
            Err(e) if e.errno() == Some(Errno::ENODEV) => Ok(None),
            result => result.map(|()| found),
        }
    }
}

/// Reads an `RTM_NEWLINK` (`struct ifinfomsg`, then attributes).
fn read(answer: &Answer<'_>) -> Result<Link, &'static str> {
    if answer.kind != libc::RTM_NEWLINK {
        return Err("message type");
    }
    let header = answer.payload;
    let index = field(header, 4)
        .map(u32::from_ne_bytes)
        .ok_or("interface index")?;
    let flags = field(header, 8)
        .map(u32::from_ne_bytes)
        .ok_or("interface flags")?;
    let flags = LinkFlags::from_bits_retain(flags);
    let mut link = Link {
        index,
        name: String::new(),
        mac: Mac::ZERO,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Running),
        master: None,
        kind: None,
        alias: None,
        peer_index: None,
        tx_queue_len: 0,
        link_local: false,
        stats: LinkStats::default(),
    };
    let mut lower = None;
    for (kind, value) in answer.attributes(16) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_ADDRESS => {
                link.mac = value.try_into().map_or(Mac::ZERO, Mac);
            }
            libc::IFLA_MTU => link.mtu = int(value).ok_or("MTU")?,
            libc::IFLA_MASTER => link.master = int(value),
            libc::IFLA_LINK => lower = int(value).filter(|index| *index != 0),
            libc::IFLA_IFALIAS => link.alias = Some(text(value)).filter(|alias| !alias.is_empty()),
            libc::IFLA_TXQLEN => link.tx_queue_len = int(value).unwrap_or(0),
            libc::IFLA_STATS64 => link.stats = stats(value).unwrap_or_default(),
            libc::IFLA_AF_SPEC => link.link_local = makes_link_local(value),
            libc::IFLA_LINKINFO => {
                link.kind = attributes(value)
                    .find(|(kind, _)| *kind == libc::IFLA_INFO_KIND)
                    .map(|(_, value)| LinkKind::of(&text(value)));
            }
            _ => {}
        }
    }
    if link.kind == Some(LinkKind::Veth) {
        link.peer_index = lower;
    }
    Ok(link)
}

/// Whether the address generation mode in an `IFLA_AF_SPEC` is other than none.
fn makes_link_local(value: &[u8]) -> bool {
    attributes(value)
        .filter(|(family, _)| libc::c_int::from(*family) == libc::AF_INET6)
        .flat_map(|(_, value)| attributes(value))
        .any(|(kind, value)| kind == IFLA_INET6_ADDR_GEN_MODE && value != [MODE_NONE])
}

/// linux/if_link.h.
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// `IN6_ADDR_GEN_MODE_NONE`.
const MODE_NONE: u8 = 1;

impl LinkKind {
    fn of(name: &str) -> Self {
        match name {
            "bridge" => Self::Bridge,
            "veth" => Self::Veth,
            "vxlan" => Self::Vxlan,
            "tun" => Self::Tun,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// The first eight counters of `struct rtnl_link_stats64`.
fn stats(value: &[u8]) -> Option<LinkStats> {
    let counter = |place: usize| field(value, place * 8).map(u64::from_ne_bytes);
    Some(LinkStats {
        rx_packets: counter(0)?,
        tx_packets: counter(1)?,
        rx_bytes: counter(2)?,
        tx_bytes: counter(3)?,
        rx_errors: counter(4)?,
        tx_errors: counter(5)?,
        rx_dropped: counter(6)?,
        tx_dropped: counter(7)?,
    })
}

fn of(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// For requests whose acknowledgement says all.
pub(crate) fn ignore(_: &Answer<'_>) -> Result<(), &'static str> {
    Ok(())
}
