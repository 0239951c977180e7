//! Making, changing and deleting interfaces.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoBridgePort,
    InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use nix::errno::Errno;
use wire::Mac;

use super::{BridgeOptions, Link, VethPair, VethRequest, VxlanOptions, ignore, of, read};
use crate::netlink::{Netlink, NetlinkError, check_name};
use crate::netns::NetNs;

impl Netlink {
    /// Makes a bridge, down, and returns its index.
    pub fn add_bridge(&mut self, name: &str, options: &BridgeOptions) -> Result<u32, NetlinkError> {
        let settings = InfoData::Bridge(vec![
            InfoBridge::ForwardDelay(0),
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::MulticastSnooping(false),
        ]);
        let mut message = new(name, InfoKind::Bridge, Some(settings))?;
        message.attributes.extend(options.mac.map(address));
        let index = self
            .create(format_args!("add bridge {name}"), name, message)?
            .index;
        // Not in the first request: there the kernel takes the MTU for its own choice, and lowers it
        // to a port's (`br_mtu_auto_adjust`); and it ignores an alias.
        let mut rest = of(index);
        if options.mtu != 0 {
            rest.attributes.push(LinkAttribute::Mtu(options.mtu.into()));
        }
        rest.attributes
            .extend(options.alias.clone().map(LinkAttribute::IfAlias));
        self.finish(format_args!("set up bridge {name}"), index, rest)
    }

    /// Makes a veth: with its bridge, addresses and MTU in one request, and a second one for what the
    /// kernel does not take at creation: alias, hairpin mode, and that a port of a bridge has no
    /// link-local address. A failure leaves nothing.
    pub fn add_veth(&mut self, request: &VethRequest<'_>) -> Result<VethPair, NetlinkError> {
        check_name(request.peer_name)?;
        let mut peer = LinkMessage::default();
        peer.attributes
            .push(LinkAttribute::IfName(request.peer_name.to_owned()));
        peer.attributes.push(LinkAttribute::Mtu(request.mtu.into()));
        peer.attributes.extend(request.peer_mac.map(address));
        peer.attributes.extend(request.peer_ns.map(namespace));
        let mut message = new(
            request.host,
            InfoKind::Veth,
            Some(InfoData::Veth(InfoVeth::Peer(peer))),
        )?;
        message
            .attributes
            .push(LinkAttribute::Mtu(request.mtu.into()));
        message.attributes.extend(request.host_mac.map(address));
        message
            .attributes
            .extend(request.master.map(LinkAttribute::Controller));
        if request.host_up {
            set_flag_up(&mut message, true);
        }
        let (name, other) = (request.host, request.peer_name);
        let link = self.create(format_args!("add veth {name} to {other}"), name, message)?;

        let mut rest = of(link.index);
        rest.attributes.extend(
            request
                .alias
                .map(|text| LinkAttribute::IfAlias(text.to_owned())),
        );
        if request.hairpin {
            rest.attributes.push(hairpin(true));
        }
        // The kernel knows whether it has IPv6; without, this is refused.
        if link.link_local && request.master.is_some() {
            rest.attributes.push(no_link_local());
        }
        self.finish(format_args!("set up veth {name}"), link.index, rest)?;
        let peer = link.peer_index.ok_or_else(|| NetlinkError::Malformed {
            operation: format!("add veth {name} to {other}"),
            field: "index of the other end",
        })?;
        Ok(VethPair {
            host: link.index,
            peer,
        })
    }

    /// Makes a kernel VXLAN endpoint, down, and returns its index.
    pub fn add_vxlan(&mut self, name: &str, options: &VxlanOptions) -> Result<u32, NetlinkError> {
        let mut info = vec![
            InfoVxlan::Id(options.vni.get()),
            InfoVxlan::Port(options.port),
            InfoVxlan::Ttl(options.ttl),
            InfoVxlan::Learning(options.learning),
            InfoVxlan::UDPCsum(options.udp_csum),
            InfoVxlan::UDPZeroCsumTX(!options.udp_csum),
            InfoVxlan::UDPZeroCsumRX(!options.udp_csum),
        ];
        info.extend(options.local.map(|ip| match ip {
            IpAddr::V4(ip) => InfoVxlan::Local(ip),
            IpAddr::V6(ip) => InfoVxlan::Local6(ip),
        }));
        info.extend(options.remote.map(|ip| match ip {
            IpAddr::V4(ip) => InfoVxlan::Group(ip),
            IpAddr::V6(ip) => InfoVxlan::Group6(ip),
        }));
        info.extend(options.dev.map(InfoVxlan::Link));
        let mut message = new(name, InfoKind::Vxlan, Some(InfoData::Vxlan(info)))?;
        if options.mtu != 0 {
            message
                .attributes
                .push(LinkAttribute::Mtu(options.mtu.into()));
        }
        Ok(self
            .create(format_args!("add vxlan {name}"), name, message)?
            .index)
    }

    /// Brings an interface up.
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = of(index);
        set_flag_up(&mut message, true);
        self.set(format_args!("bring up interface {index}"), message)
    }

    /// Brings an interface down.
    pub fn set_down(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = of(index);
        set_flag_up(&mut message, false);
        self.set(format_args!("bring down interface {index}"), message)
    }

    /// Makes an interface a port of a bridge, or of nothing.
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<(), NetlinkError> {
        let message = with(index, LinkAttribute::Controller(master.unwrap_or(0)));
        match master {
            Some(master) => self.set(
                format_args!("put interface {index} on bridge {master}"),
                message,
            ),
            None => self.set(
                format_args!("take interface {index} off its bridge"),
                message,
            ),
        }
    }

    /// Sets the largest layer 3 packet, in bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u16) -> Result<(), NetlinkError> {
        let message = with(index, LinkAttribute::Mtu(mtu.into()));
        self.set(
            format_args!("set the MTU of interface {index} to {mtu}"),
            message,
        )
    }

    /// Sets the Ethernet address.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), NetlinkError> {
        let message = with(index, address(mac));
        self.set(
            format_args!("set the address of interface {index} to {mac}"),
            message,
        )
    }

    /// Sets the alias; an empty one takes it away.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> Result<(), NetlinkError> {
        let message = with(index, LinkAttribute::IfAlias(alias.to_owned()));
        self.set(
            format_args!("set the alias of interface {index} to {alias:?}"),
            message,
        )
    }

    /// Gives an interface another name.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        check_name(name)?;
        let message = with(index, LinkAttribute::IfName(name.to_owned()));
        self.set(format_args!("rename interface {index} to {name}"), message)
    }

    /// Moves an interface to another namespace, where it may get another index.
    pub fn move_to_ns(&mut self, index: u32, ns: &NetNs) -> Result<(), NetlinkError> {
        let message = with(index, namespace(ns));
        self.set(
            format_args!("move interface {index} to another namespace"),
            message,
        )
    }

    /// Lets the bridge send frames back to this port, or not.
    pub fn set_hairpin(&mut self, index: u32, on: bool) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewLink(with(index, hairpin(on)));
        self.request(
            format_args!("set hairpin mode of interface {index}"),
            message,
            0,
            ignore,
        )
    }

    /// Sets the length of the transmit queue, in packets.
    pub fn set_txqlen(&mut self, index: u32, packets: u32) -> Result<(), NetlinkError> {
        let message = with(index, LinkAttribute::TxQueueLen(packets));
        self.set(
            format_args!("set the queue length of interface {index} to {packets}"),
            message,
        )
    }

    /// Keeps the kernel from giving the interface an IPv6 link-local address, without which it sends
    /// nothing by itself. EAFNOSUPPORT where there is no IPv6.
    pub fn set_no_link_local(&mut self, index: u32) -> Result<(), NetlinkError> {
        let message = with(index, no_link_local());
        self.set(
            format_args!("keep interface {index} without a link-local address"),
            message,
        )
    }

    /// Deletes an interface, and with it the other end of a veth. One that is gone is fine.
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelLink(of(index));
        match self.request(format_args!("delete interface {index}"), message, 0, ignore) {
            Err(e) if e.errno() == Some(Errno::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Makes an interface. Since Linux 6.2 the kernel tells it back with the acknowledgement; an
    /// older one is asked.
    fn create(
        &mut self,
        operation: std::fmt::Arguments<'_>,
        name: &str,
        message: LinkMessage,
    ) -> Result<Link, NetlinkError> {
        let mut found = None;
        let message = RouteNetlinkMessage::NewLink(message);
        self.request(
            operation,
            message,
            NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO,
            |answer| {
                found = Some(read(answer)?)
                    .filter(|link| link.name == name)
                    .or(found.take());
                Ok(())
            },
        )?;
        match found {
            Some(link) => Ok(link),
            None => self.link(name)?.ok_or_else(|| NetlinkError::Malformed {
                operation: operation.to_string(),
                field: "the new interface is not there",
            }),
        }
    }

    /// Gives a new interface what its creation did not take; deletes it if that fails.
    fn finish(
        &mut self,
        operation: std::fmt::Arguments<'_>,
        index: u32,
        rest: LinkMessage,
    ) -> Result<u32, NetlinkError> {
        if rest.attributes.is_empty() {
            return Ok(index);
        }
        match self.request(operation, RouteNetlinkMessage::NewLink(rest), 0, ignore) {
            Ok(()) => Ok(index),
            Err(e) => {
                // The first error is the one to tell.
                let _ = self.delete_link(index);
                Err(e)
            }
        }
    }

    fn set(
        &mut self,
        operation: std::fmt::Arguments<'_>,
        message: LinkMessage,
    ) -> Result<(), NetlinkError> {
        self.request(operation, RouteNetlinkMessage::SetLink(message), 0, ignore)
    }
}

fn new(name: &str, kind: InfoKind, data: Option<InfoData>) -> Result<LinkMessage, NetlinkError> {
    check_name(name)?;
    let mut info = vec![LinkInfo::Kind(kind)];
    info.extend(data.map(LinkInfo::Data));
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::LinkInfo(info));
    Ok(message)
}

fn with(index: u32, attribute: LinkAttribute) -> LinkMessage {
    let mut message = of(index);
    message.attributes.push(attribute);
    message
}

fn address(mac: Mac) -> LinkAttribute {
    LinkAttribute::Address(mac.0.to_vec())
}

fn namespace(ns: &NetNs) -> LinkAttribute {
    LinkAttribute::NetNsFd(ns.as_fd().as_raw_fd())
}

fn no_link_local() -> LinkAttribute {
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
        In6AddrGenMode::None,
    )])])
}

fn hairpin(on: bool) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(
            on,
        )])),
    ])
}

fn set_flag_up(message: &mut LinkMessage, up: bool) {
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = if up {
        LinkFlags::Up
    } else {
        LinkFlags::empty()
    };
}
