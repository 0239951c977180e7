//! A frame read layer by layer, for people: `weft lab` shows one, error reports quote one.
//!
//! Reads Ethernet, VLAN tags, ARP, IPv4, IPv6 with its extension headers, ICMP, ICMPv6, UDP, TCP
//! and VXLAN with the frame inside. Any bytes give layers; what cannot be read ends them with a
//! layer named `malformed` that says why.

mod ip;

use std::fmt::Display;

use etherparse::{Ethernet2HeaderSlice, SingleVlanHeaderSlice};

use crate::checksum;
use crate::ethernet::{
    self, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN,
};
use crate::{Mac, arp, vxlan};

/// A header (or what follows the last one) and where it is in the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// `Ethernet`, `VLAN`, `ARP`, `IPv4`, `IPv6`, `IPv6 extension`, `ICMP`, `ICMPv6`, `UDP`, `TCP`,
    /// `VXLAN`, `data`, `padding` or `malformed`.
    pub name: &'static str,
    /// Its first byte's offset in the frame.
    pub offset: usize,
    /// Its bytes, without the layers within it.
    pub len: usize,
    /// Its fields by the names that their standards give, in the order of the header.
    pub fields: Vec<(&'static str, String)>,
}

impl Layer {
    /// The text of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| *field == name)
            .map(|(_, text)| text.as_str())
    }
}

/// Layers after which the rest is shown as data: several times what an encapsulated packet has, and
/// a bound for a frame made of nothing but tags.
const MAX_LAYERS: usize = 32;

/// Bytes of data that are shown.
const SHOWN_DATA: usize = 16;

/// The layers of an Ethernet frame, outermost first. UDP to one of `vxlan_ports` is opened.
///
/// The layers are in the order of their offsets, adjacent, and cover the frame.
pub fn decode(frame: &[u8], vxlan_ports: &[u16]) -> Vec<Layer> {
    let mut reader = Reader {
        frame,
        vxlan_ports,
        at: 0,
        end: frame.len(),
        packet: None,
        layers: Vec::with_capacity(8),
    };
    let mut next = Next::Ethernet;
    while reader.layers.len() < MAX_LAYERS {
        next = match next {
            Next::Ethernet => reader.ethernet(),
            Next::Ethertype(ethertype) => reader.ethertype(ethertype),
            Next::Protocol(protocol) => reader.protocol(protocol),
            Next::Vxlan => reader.vxlan(),
            Next::Data | Next::Malformed(_) => break,
        };
    }
    reader.rest(next);
    reader.layers
}

/// What the bytes from the cursor on are.
enum Next {
    Ethernet,
    Ethertype(u16),
    /// An IP protocol number.
    Protocol(u8),
    Vxlan,
    Data,
    /// Not what they should be, for this reason.
    Malformed(String),
}

struct Reader<'a> {
    frame: &'a [u8],
    vxlan_ports: &'a [u16],
    /// The cursor: everything before is in `layers`.
    at: usize,
    /// Where the innermost length field says that the packet ends; what follows is padding.
    end: usize,
    /// The innermost IP packet.
    packet: Option<ip::Packet>,
    layers: Vec<Layer>,
}

impl<'a> Reader<'a> {
    /// What is left of the innermost packet.
    fn left(&self) -> &'a [u8] {
        self.frame.get(self.at..self.end).unwrap_or_default()
    }

    /// Notes a layer of `len` bytes at the cursor, which passes it.
    fn layer(&mut self, name: &'static str, len: usize, fields: Vec<(&'static str, String)>) {
        self.layers.push(Layer {
            name,
            offset: self.at,
            len,
            fields,
        });
        self.at += len;
    }

    /// Lets the innermost packet end `len` bytes behind the cursor, if there are so many.
    fn narrow(&mut self, len: usize) {
        self.end = self.end.min(self.at.saturating_add(len));
    }

    fn ethernet(&mut self) -> Next {
        let header = match Ethernet2HeaderSlice::from_slice(self.left()) {
            Ok(header) => header,
            Err(error) => return malformed(error),
        };
        let ethertype = header.ether_type().0;
        self.layer(
            "Ethernet",
            ethernet::HEADER_LEN,
            vec![
                ("destination", Mac(header.destination()).to_string()),
                ("source", Mac(header.source()).to_string()),
                type_or_length(ethertype),
            ],
        );
        Next::Ethertype(ethertype)
    }

    fn ethertype(&mut self, ethertype: u16) -> Next {
        match ethertype {
            ETHERTYPE_IPV4 => self.ipv4(),
            ETHERTYPE_IPV6 => self.ipv6(),
            ETHERTYPE_ARP => self.arp(),
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => self.vlan(),
            _ => Next::Data,
        }
    }

    fn vlan(&mut self) -> Next {
        let tag = match SingleVlanHeaderSlice::from_slice(self.left()) {
            Ok(tag) => tag,
            Err(error) => return malformed(error),
        };
        let ethertype = tag.ether_type().0;
        self.layer(
            "VLAN",
            ethernet::VLAN_TAG_LEN,
            vec![
                ("id", tag.vlan_identifier().value().to_string()),
                ("priority", tag.priority_code_point().value().to_string()),
                ("drop eligible", yes_no(tag.drop_eligible_indicator())),
                type_or_length(ethertype),
            ],
        );
        Next::Ethertype(ethertype)
    }

    fn arp(&mut self) -> Next {
        let packet = match arp::parse_packet(self.left()) {
            Ok(packet) => packet,
            Err(error) => return malformed(error),
        };
        let operation = match packet.operation {
            arp::Operation::Request if packet.is_announcement() => "request (announcement)".into(),
            arp::Operation::Request => "request".into(),
            arp::Operation::Reply => "reply".into(),
            arp::Operation::Other(code) => code.to_string(),
        };
        self.narrow(arp::PACKET_LEN);
        self.layer(
            "ARP",
            arp::PACKET_LEN,
            vec![
                ("operation", operation),
                ("sender MAC", packet.sender_mac.to_string()),
                ("sender IP", packet.sender_ip.to_string()),
                ("target MAC", packet.target_mac.to_string()),
                ("target IP", packet.target_ip.to_string()),
            ],
        );
        Next::Data
    }

    fn vxlan(&mut self) -> Next {
        let left = self.left();
        let vni = match vxlan::parse(left) {
            Ok((vni, _)) => vni,
            Err(error) => return malformed(error),
        };
        let flags = format!("{:#04x} (VNI valid)", left[0]);
        self.layer(
            "VXLAN",
            vxlan::HEADER_LEN,
            vec![("flags", flags), ("VNI", vni.to_string())],
        );
        self.packet = None;
        Next::Ethernet
    }

    /// What no layer has claimed.
    fn rest(&mut self, next: Next) {
        let left = self.left();
        if let Next::Malformed(reason) = next {
            self.layer("malformed", left.len(), vec![("reason", reason)]);
        } else if !left.is_empty() {
            let shown: Vec<_> = left
                .iter()
                .take(SHOWN_DATA)
                .map(|b| format!("{b:02x}"))
                .collect();
            let more = if left.len() > SHOWN_DATA { " ..." } else { "" };
            self.layer(
                "data",
                left.len(),
                vec![
                    ("length", left.len().to_string()),
                    ("bytes", shown.join(" ") + more),
                ],
            );
        }
        let padding = self.frame.len() - self.at;
        if padding > 0 {
            self.layer("padding", padding, vec![("length", padding.to_string())]);
        }
    }
}

fn malformed(reason: impl Display) -> Next {
    Next::Malformed(reason.to_string())
}

/// The field behind the addresses: an ethertype, or in an IEEE 802.3 frame the length.
fn type_or_length(value: u16) -> (&'static str, String) {
    let name = match value {
        0..0x0600 => return ("length", value.to_string()),
        ETHERTYPE_IPV4 => " (IPv4)",
        ETHERTYPE_ARP => " (ARP)",
        ETHERTYPE_IPV6 => " (IPv6)",
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => " (VLAN tag)",
        _ => "",
    };
    ("type", format!("{value:#06x}{name}"))
}

fn yes_no(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

/// A checksum and whether it is right. `pseudo` is the sum of what precedes `covered`; `None` if
/// not all that it covers is at hand.
fn checksum_text(field: u16, pseudo: Option<u64>, covered: &[u8]) -> String {
    let verdict = match pseudo {
        None => "not checked, the packet is not whole",
        Some(pseudo) if checksum::fold(checksum::sum(pseudo, covered)) == 0xffff => "correct",
        // A sender that expects its device to complete it leaves the pseudo header's sum.
        Some(pseudo) if pseudo != 0 && checksum::fold(pseudo) == field => "left to the device",
        Some(_) => "wrong",
    };
    format!("{field:#06x} ({verdict})")
}

#[cfg(test)]
mod tests;
