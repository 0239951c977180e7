//! IP and what it carries.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, TcpOptionElement, UdpHeaderSlice,
};

use super::{Next, Reader, checksum_text, malformed};
use crate::checksum::{
    PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, pseudo_header_v4, pseudo_header_v6,
};

/// What the transport's checksum needs of the IP header.
#[derive(Clone, Copy)]
pub(super) struct Packet {
    addresses: Addresses,
    /// Neither a fragment nor cut short by the capture.
    whole: bool,
}

#[derive(Clone, Copy)]
enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

/// IPv6 extension headers (RFC 8200 §4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// Bytes of an ICMP header, whatever its type.
const ICMP_LEN: usize = 8;

impl Reader<'_> {
    pub(super) fn ipv4(&mut self) -> Next {
        let header = match Ipv4HeaderSlice::from_slice(self.left()) {
            Ok(header) => header,
            Err(error) => return malformed(error),
        };
        let len = header.slice().len();
        // The kernel leaves 0 in a super-frame larger than the field.
        let total = match usize::from(header.total_len()) {
            0 => self.left().len(),
            total => total,
        };
        if total < len {
            return malformed(format!(
                "total length {total} is less than the header's {len} bytes"
            ));
        }
        let offset = header.fragments_offset().value() * 8;
        let flags = match (header.dont_fragment(), header.more_fragments()) {
            (false, false) => "none",
            (true, false) => "DF",
            (false, true) => "MF",
            (true, true) => "DF, MF",
        };
        let mut fields = vec![("DSCP", header.dcp().value().to_string())];
        fields.push(("ECN", header.ecn().value().to_string()));
        fields.push(("total length", header.total_len().to_string()));
        fields.push(("identification", header.identification().to_string()));
        fields.push(("flags", flags.to_owned()));
        fields.push(("fragment offset", offset.to_string()));
        fields.push(("TTL", header.ttl().to_string()));
        fields.push(("protocol", protocol_text(header.protocol().0)));
        fields.push((
            "checksum",
            checksum_text(header.header_checksum(), Some(0), header.slice()),
        ));
        fields.push(("source", header.source_addr().to_string()));
        fields.push(("destination", header.destination_addr().to_string()));
        if !header.options().is_empty() {
            fields.push(("options", format!("{} bytes", header.options().len())));
        }
        self.packet = Some(Packet {
            addresses: Addresses::V4(header.source_addr(), header.destination_addr()),
            whole: total <= self.left().len() && !header.is_fragmenting_payload(),
        });
        self.narrow(total);
        self.layer("IPv4", len, fields);
        if offset > 0 {
            Next::Data
        } else {
            Next::Protocol(header.protocol().0)
        }
    }

    pub(super) fn ipv6(&mut self) -> Next {
        let header = match Ipv6HeaderSlice::from_slice(self.left()) {
            Ok(header) => header,
            Err(error) => return malformed(error),
        };
        let len = header.slice().len();
        let payload = match usize::from(header.payload_length()) {
            0 if header.next_header().0 != NO_NEXT_HEADER => self.left().len() - len,
            payload => payload,
        };
        self.packet = Some(Packet {
            addresses: Addresses::V6(header.source_addr(), header.destination_addr()),
            whole: len + payload <= self.left().len(),
        });
        self.narrow(len + payload);
        self.layer(
            "IPv6",
            len,
            vec![
                ("traffic class", format!("{:#04x}", header.traffic_class())),
                (
                    "flow label",
                    format!("{:#07x}", header.flow_label().value()),
                ),
                ("payload length", header.payload_length().to_string()),
                ("next header", protocol_text(header.next_header().0)),
                ("hop limit", header.hop_limit().to_string()),
                ("source", header.source_addr().to_string()),
                ("destination", header.destination_addr().to_string()),
            ],
        );
        Next::Protocol(header.next_header().0)
    }

    pub(super) fn protocol(&mut self, protocol: u8) -> Next {
        let v6 = matches!(
            self.packet,
            Some(Packet {
                addresses: Addresses::V6(..),
                ..
            })
        );
        match protocol {
            PROTOCOL_ICMP if !v6 => self.icmp(),
            PROTOCOL_ICMPV6 if v6 => self.icmpv6(),
            PROTOCOL_TCP => self.tcp(),
            PROTOCOL_UDP => self.udp(),
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS if v6 => self.extension(protocol),
            _ => Next::Data,
        }
    }

    fn extension(&mut self, kind: u8) -> Next {
        let Some((&[next, units, f0, f1], _)) = self.left().split_first_chunk::<4>() else {
            return malformed("the packet ends within an extension header");
        };
        let len = if kind == FRAGMENT {
            8
        } else {
            (usize::from(units) + 1) * 8
        };
        if len > self.left().len() {
            return malformed("an extension header is longer than the packet");
        }
        let mut fields = vec![
            ("kind", protocol_text(kind)),
            ("next header", protocol_text(next)),
        ];
        let mut later_fragment = false;
        if kind == FRAGMENT {
            let word = u16::from_be_bytes([f0, f1]);
            let (offset, more) = (word & 0xfff8, word & 1 == 1);
            fields.push(("fragment offset", offset.to_string()));
            fields.push(("flags", if more { "MF" } else { "none" }.to_owned()));
            later_fragment = offset > 0;
            if let Some(packet) = &mut self.packet {
                packet.whole &= offset == 0 && !more;
            }
        }
        self.layer("IPv6 extension", len, fields);
        if later_fragment || next == NO_NEXT_HEADER {
            Next::Data
        } else {
            Next::Protocol(next)
        }
    }

    fn udp(&mut self) -> Next {
        let header = match UdpHeaderSlice::from_slice(self.left()) {
            Ok(header) => header,
            Err(error) => return malformed(error),
        };
        let len = header.slice().len();
        let length = match usize::from(header.length()) {
            0 => self.left().len(), // a super-frame larger than the field, or a jumbogram
            length => length,
        };
        if length < len {
            return malformed(format!(
                "UDP length {length} is less than the header's {len} bytes"
            ));
        }
        self.narrow(length);
        let checksum = match header.checksum() {
            0 => "0x0000 (none)".to_owned(),
            field => checksum_text(field, self.pseudo(PROTOCOL_UDP), self.left()),
        };
        self.layer(
            "UDP",
            len,
            vec![
                ("source port", header.source_port().to_string()),
                ("destination port", header.destination_port().to_string()),
                ("length", header.length().to_string()),
                ("checksum", checksum),
            ],
        );
        let vxlan = self.vxlan_ports.contains(&header.destination_port());
        if vxlan { Next::Vxlan } else { Next::Data }
    }

    fn tcp(&mut self) -> Next {
        let header = match TcpHeaderSlice::from_slice(self.left()) {
            Ok(header) => header,
            Err(error) => return malformed(error),
        };
        let flags = [
            ("SYN", header.syn()),
            ("FIN", header.fin()),
            ("RST", header.rst()),
            ("PSH", header.psh()),
            ("ACK", header.ack()),
            ("URG", header.urg()),
            ("ECE", header.ece()),
            ("CWR", header.cwr()),
        ];
        let flags: Vec<_> = flags
            .iter()
            .filter(|flag| flag.1)
            .map(|flag| flag.0)
            .collect();
        let checksum = checksum_text(header.checksum(), self.pseudo(PROTOCOL_TCP), self.left());
        let mut fields = vec![
            ("source port", header.source_port().to_string()),
            ("destination port", header.destination_port().to_string()),
            ("sequence", header.sequence_number().to_string()),
            ("acknowledgment", header.acknowledgment_number().to_string()),
            (
                "flags",
                if flags.is_empty() {
                    "none".to_owned()
                } else {
                    flags.join(", ")
                },
            ),
            ("window", header.window_size().to_string()),
            ("checksum", checksum),
        ];
        let options: Vec<_> = header
            .options_iterator()
            .map_while(Result::ok)
            .filter_map(|option| match option {
                TcpOptionElement::Noop => None,
                TcpOptionElement::MaximumSegmentSize(size) => Some(format!("MSS {size}")),
                TcpOptionElement::WindowScale(shift) => Some(format!("window scale {shift}")),
                TcpOptionElement::SelectiveAcknowledgementPermitted => {
                    Some("SACK permitted".into())
                }
                TcpOptionElement::SelectiveAcknowledgement(..) => Some("SACK".into()),
                TcpOptionElement::Timestamp(..) => Some("timestamps".into()),
            })
            .collect();
        if !options.is_empty() {
            fields.push(("options", options.join(", ")));
        }
        self.layer("TCP", header.slice().len(), fields);
        Next::Data
    }

    fn icmp(&mut self) -> Next {
        let Some((&[kind, code, c0, c1, a0, a1, b0, b1], _)) =
            self.left().split_first_chunk::<ICMP_LEN>()
        else {
            return malformed("the packet ends within the ICMP header");
        };
        let whole = self.packet.is_some_and(|packet| packet.whole).then_some(0);
        let name = match kind {
            0 => "echo reply",
            3 => "destination unreachable",
            5 => "redirect",
            8 => "echo request",
            11 => "time exceeded",
            12 => "parameter problem",
            _ => "other",
        };
        let [a, b] = [u16::from_be_bytes([a0, a1]), u16::from_be_bytes([b0, b1])];
        let mut fields = icmp_fields(kind, name, code);
        fields.push((
            "checksum",
            checksum_text(u16::from_be_bytes([c0, c1]), whole, self.left()),
        ));
        match (kind, code) {
            (0 | 8, _) => {
                fields.extend([("identifier", a.to_string()), ("sequence", b.to_string())])
            }
            (3, 4) => fields.push(("next-hop MTU", b.to_string())), // fragmentation needed
            _ => {}
        }
        self.layer("ICMP", ICMP_LEN, fields);
        Next::Data
    }

    fn icmpv6(&mut self) -> Next {
        let left = self.left();
        let Some((&[kind, code, c0, c1, a0, a1, b0, b1], body)) =
            left.split_first_chunk::<ICMP_LEN>()
        else {
            return malformed("the packet ends within the ICMPv6 header");
        };
        let name = match kind {
            1 => "destination unreachable",
            2 => "packet too big",
            3 => "time exceeded",
            4 => "parameter problem",
            128 => "echo request",
            129 => "echo reply",
            133 => "router solicitation",
            134 => "router advertisement",
            135 => "neighbour solicitation",
            136 => "neighbour advertisement",
            143 => "multicast listener report",
            _ => "other",
        };
        let checksum = u16::from_be_bytes([c0, c1]);
        let mut fields = icmp_fields(kind, name, code);
        fields.push((
            "checksum",
            checksum_text(checksum, self.pseudo(PROTOCOL_ICMPV6), left),
        ));
        let [a, b] = [u16::from_be_bytes([a0, a1]), u16::from_be_bytes([b0, b1])];
        let mut len = ICMP_LEN;
        match (kind, body.first_chunk::<16>()) {
            (128 | 129, _) => {
                fields.extend([("identifier", a.to_string()), ("sequence", b.to_string())]);
            }
            (2, _) => fields.push(("MTU", u32::from_be_bytes([a0, a1, b0, b1]).to_string())),
            (135 | 136, Some(&target)) => {
                fields.push(("target", Ipv6Addr::from(target).to_string()));
                len += target.len();
            }
            _ => {}
        }
        self.layer("ICMPv6", len, fields);
        Next::Data
    }

    /// The pseudo header's sum for what is left; `None` if that is not the whole of it.
    fn pseudo(&self, protocol: u8) -> Option<u64> {
        let packet = self.packet.filter(|packet| packet.whole)?;
        let len = u32::try_from(self.left().len()).ok()?;
        Some(match packet.addresses {
            // A super-frame's length does not fit 16 bits, and its checksum says nothing.
            Addresses::V4(src, dst) => {
                pseudo_header_v4(src, dst, protocol, u16::try_from(len).ok()?)
            }
            Addresses::V6(src, dst) => pseudo_header_v6(src, dst, protocol, len),
        })
    }
}

fn icmp_fields(kind: u8, name: &str, code: u8) -> Vec<(&'static str, String)> {
    vec![
        ("type", format!("{kind} ({name})")),
        ("code", code.to_string()),
    ]
}

fn protocol_text(protocol: u8) -> String {
    match IpNumber(protocol).keyword_str() {
        Some(keyword) => format!("{protocol} ({keyword})"),
        None => protocol.to_string(),
    }
}
