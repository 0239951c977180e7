//! ARP for IPv4 over Ethernet (RFC 826), and announcements of an address (RFC 5227 §2.3).
//!
//! ```text
//! +----------+----------+------+------+----------+
//! | hardware | protocol | hlen | plen | operation|   1, 0x0800, 6, 4, 1 or 2
//! +----------+----------+------+------+----------+
//! | sender MAC 6, sender IP 4, target MAC 6, target IP 4 |
//! +------------------------------------------------------+
//! ```

use std::net::Ipv4Addr;

use crate::Mac;
use crate::ethernet::{self, ETHERTYPE_ARP, ETHERTYPE_IPV4};

/// Bytes of the packet, without the Ethernet header.
pub const PACKET_LEN: usize = 28;
/// Bytes of an untagged frame that carries it, unpadded.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + PACKET_LEN;

/// Hardware type, protocol type and the two address lengths: Ethernet and IPv4.
const IPV4_OVER_ETHERNET: [u8; 6] = {
    let [p0, p1] = ETHERTYPE_IPV4.to_be_bytes();
    [0, 1, p0, p1, 6, 4]
};

/// What a packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target's address?
    Request,
    /// The sender has its address.
    Reply,
    /// Reverse ARP and others (IANA's registry of ARP operation codes).
    Other(u16),
}

impl Operation {
    /// The number in the packet.
    pub const fn code(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
            Self::Other(code) => code,
        }
    }
}

impl From<u16> for Operation {
    fn from(code: u16) -> Self {
        match code {
            1 => Self::Request,
            2 => Self::Reply,
            other => Self::Other(other),
        }
    }
}

/// An ARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// What it says.
    pub operation: Operation,
    /// The sender's MAC.
    pub sender_mac: Mac,
    /// The sender's IP address; 0.0.0.0 in a probe (RFC 5227 §2.1.1).
    pub sender_ip: Ipv4Addr,
    /// The target's MAC; zero in a request.
    pub target_mac: Mac,
    /// The target's IP address.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// The question of `mac`, which has the address `ip`, who has `target`.
    pub const fn request(mac: Mac, ip: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender_ip: ip,
            target_mac: Mac::ZERO,
            target_ip: target,
        }
    }

    /// The answer to this request by the station that has its target address.
    pub const fn reply(&self, mac: Mac) -> Self {
        Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// The sender tells its address to all, with nothing asked (RFC 5227 §3).
    pub fn is_announcement(&self) -> bool {
        self.sender_ip == self.target_ip && !self.sender_ip.is_unspecified()
    }

    /// The frame that carries the packet from its sender to `dst`.
    pub fn frame(&self, dst: Mac) -> [u8; FRAME_LEN] {
        let mut frame = [0; FRAME_LEN];
        frame[..14].copy_from_slice(&ethernet::header(dst, self.sender_mac, ETHERTYPE_ARP));
        frame[14..20].copy_from_slice(&IPV4_OVER_ETHERNET);
        frame[20..22].copy_from_slice(&self.operation.code().to_be_bytes());
        frame[22..28].copy_from_slice(&self.sender_mac.0);
        frame[28..32].copy_from_slice(&self.sender_ip.octets());
        frame[32..38].copy_from_slice(&self.target_mac.0);
        frame[38..42].copy_from_slice(&self.target_ip.octets());
        frame
    }
}

/// The broadcast with which `mac` announces that it has `ip`: the request form, which RFC 5227 §3
/// prefers to the reply because every neighbour cache takes it.
pub fn announcement(mac: Mac, ip: Ipv4Addr) -> [u8; FRAME_LEN] {
    Arp::request(mac, ip, ip).frame(Mac::BROADCAST)
}

/// Why a frame is not ARP for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArpError {
    /// The bytes end within the Ethernet header or within the packet.
    #[error("{0} bytes end before the ARP packet does")]
    Truncated(usize),
    /// Another ethertype.
    #[error("ethertype {0:#06x} is not ARP")]
    NotArp(u16),
    /// Another hardware or protocol.
    #[error(
        "ARP for hardware type {hardware} and protocol {protocol:#06x} is not IPv4 over Ethernet"
    )]
    Foreign {
        /// The hardware type.
        hardware: u16,
        /// The protocol, an ethertype.
        protocol: u16,
    },
}

/// Reads an Ethernet frame, VLAN-tagged or not. Padding behind the packet is ignored.
///
/// # Errors
/// The frame is truncated, or carries something else than ARP for IPv4 over Ethernet.
pub fn parse(frame: &[u8]) -> Result<Arp, ArpError> {
    let truncated = ArpError::Truncated(frame.len());
    let (ethertype, payload) = ethernet::ethertype(frame).ok_or(truncated)?;
    if ethertype != ETHERTYPE_ARP {
        return Err(ArpError::NotArp(ethertype));
    }
    parse_packet(frame.get(payload..).ok_or(truncated)?).map_err(|error| match error {
        ArpError::Truncated(_) => truncated,
        other => other,
    })
}

/// Reads the packet behind the Ethernet header.
///
/// # Errors
/// It is truncated, or not for IPv4 over Ethernet.
pub fn parse_packet(bytes: &[u8]) -> Result<Arp, ArpError> {
    let (packet, _) = bytes
        .split_first_chunk::<PACKET_LEN>()
        .ok_or(ArpError::Truncated(bytes.len()))?;
    let &[h0, h1, p0, p1, _, _, o0, o1, ref addresses @ ..] = packet;
    if packet[..6] != IPV4_OVER_ETHERNET {
        let (hardware, protocol) = (u16::from_be_bytes([h0, h1]), u16::from_be_bytes([p0, p1]));
        return Err(ArpError::Foreign { hardware, protocol });
    }
    let mac = |at: usize| {
        let mut bytes = [0; 6];
        bytes.copy_from_slice(&addresses[at..at + 6]);
        Mac(bytes)
    };
    let ip = |at: usize| {
        Ipv4Addr::new(
            addresses[at],
            addresses[at + 1],
            addresses[at + 2],
            addresses[at + 3],
        )
    };
    Ok(Arp {
        operation: u16::from_be_bytes([o0, o1]).into(),
        sender_mac: mac(0),
        sender_ip: ip(6),
        target_mac: mac(10),
        target_ip: ip(16),
    })
}

#[cfg(test)]
mod tests {
    use pnet_packet::Packet;
    use pnet_packet::arp::{ArpHardwareTypes, ArpOperation, ArpPacket, MutableArpPacket};
    use pnet_packet::ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket};
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = Mac([0x02, 0x42, 0x0a, 0x20, 0x00, 0x07]);
    const IP: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 7);

    /// The bytes that `docs/wire-format.md` draws.
    #[test]
    fn announcement_bytes() {
        let frame = announcement(MAC, IP);
        #[rustfmt::skip]
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // to all
            0x02, 0x42, 0x0a, 0x20, 0x00, 0x07, // from the pod
            0x08, 0x06, // ARP
            0x00, 0x01, 0x08, 0x00, 6, 4, // IPv4 over Ethernet
            0x00, 0x01, // request
            0x02, 0x42, 0x0a, 0x20, 0x00, 0x07, 10, 32, 0, 7, // sender
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 10, 32, 0, 7, // target
        ];
        assert_eq!(frame, expected);
        assert!(parse(&frame).unwrap().is_announcement());
    }

    #[test]
    fn a_reply_answers_its_request() {
        let asked = Ipv4Addr::new(10, 32, 0, 9);
        let reply = Arp::request(MAC, IP, asked).reply(Mac([2; 6]));
        assert_eq!(
            (reply.operation, reply.sender_mac),
            (Operation::Reply, Mac([2; 6]))
        );
        assert_eq!(
            (reply.sender_ip, reply.target_mac, reply.target_ip),
            (asked, MAC, IP)
        );
        assert_eq!(parse(&reply.frame(MAC)), Ok(reply));
    }

    #[test]
    fn a_tagged_frame_is_read_and_refusals_name_the_fault() {
        let frame = announcement(MAC, IP);
        let mut tagged = frame.to_vec();
        tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
        assert_eq!(parse(&tagged), parse(&frame));

        assert_eq!(parse(&frame[..41]), Err(ArpError::Truncated(41)));
        let mut other = frame;
        other[13] = 0;
        assert_eq!(parse(&other), Err(ArpError::NotArp(0x0800)));
        let mut other = frame;
        other[15] = 6;
        assert_eq!(
            parse(&other),
            Err(ArpError::Foreign {
                hardware: 6,
                protocol: 0x0800
            })
        );
    }

    proptest! {
        #[test]
        fn pnet_reads_what_we_write(mac: [u8; 6], ip: [u8; 4], target: [u8; 4]) {
            let frame = Arp::request(Mac(mac), ip.into(), target.into()).frame(Mac::BROADCAST);
            let ethernet = EthernetPacket::new(&frame).unwrap();
            prop_assert_eq!(ethernet.get_ethertype(), EtherTypes::Arp);
            let judge = ArpPacket::new(ethernet.payload()).unwrap();
            prop_assert_eq!(judge.get_hardware_type(), ArpHardwareTypes::Ethernet);
            prop_assert_eq!(judge.get_protocol_type(), EtherTypes::Ipv4);
            prop_assert_eq!((judge.get_hw_addr_len(), judge.get_proto_addr_len()), (6, 4));
            prop_assert_eq!(judge.get_operation().0, 1);
            prop_assert_eq!(judge.get_sender_hw_addr().octets(), mac);
            prop_assert_eq!(judge.get_sender_proto_addr().octets(), ip);
            prop_assert_eq!(judge.get_target_hw_addr().octets(), [0; 6]);
            prop_assert_eq!(judge.get_target_proto_addr().octets(), target);
        }

        #[test]
        fn we_read_what_pnet_writes(operation: u16, a: [u8; 6], b: [u8; 6], x: [u8; 4], y: [u8; 4]) {
            let mut frame = [0; 60];
            MutableEthernetPacket::new(&mut frame).unwrap().set_ethertype(EtherTypes::Arp);
            let mut arp = MutableArpPacket::new(&mut frame[14..]).unwrap();
            arp.set_hardware_type(ArpHardwareTypes::Ethernet);
            arp.set_protocol_type(EtherTypes::Ipv4);
            arp.set_hw_addr_len(6);
            arp.set_proto_addr_len(4);
            arp.set_operation(ArpOperation(operation));
            arp.set_sender_hw_addr(a.into());
            arp.set_sender_proto_addr(x.into());
            arp.set_target_hw_addr(b.into());
            arp.set_target_proto_addr(y.into());
            prop_assert_eq!(parse(&frame), Ok(Arp {
                operation: operation.into(),
                sender_mac: Mac(a),
                sender_ip: x.into(),
                target_mac: Mac(b),
                target_ip: y.into(),
            }));
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            let _ = parse(&bytes);
            // Most random bytes are no ARP at all; these are, up to their addresses.
            let good = announcement(MAC, IP);
            let known = bytes.len().min(20);
            bytes[..known].copy_from_slice(&good[..known]);
            prop_assert_eq!(parse(&bytes).is_ok(), bytes.len() >= FRAME_LEN);
        }
    }
}
