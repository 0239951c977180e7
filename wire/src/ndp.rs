//! The announcement of an IPv6 address: an unsolicited neighbour advertisement (RFC 4861 §7.2.6).
//!
//! ```text
//! +--------------------------+  Ethernet to 33:33:00:00:00:01
//! | IPv6, hop limit 255      |  from the address to ff02::1, all nodes
//! +------+------+------------+
//! | 136  |  0   | checksum   |  ICMPv6 (RFC 4861 §4.4)
//! +------+------+------------+
//! | R S O, reserved          |  O alone: replace what you have cached
//! | target address, 16 bytes |
//! | 2 | 1 | MAC, 6 bytes     |  target link-layer address option (§4.6.1)
//! +--------------------------+
//! ```

use std::net::Ipv6Addr;

use crate::Mac;
use crate::checksum::{self, PROTOCOL_ICMPV6};
use crate::ethernet::{self, ETHERTYPE_IPV6};

/// Bytes of the frame: Ethernet 14, IPv6 40, advertisement 24, option 8.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + 40 + ICMP_LEN;

const ICMP_LEN: usize = 32;
/// [`ICMP_LEN`], as the IPv6 header's payload length.
const PAYLOAD_LEN: u16 = 32;

/// `ff02::1`, all nodes of the link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The group of [`ALL_NODES`] on Ethernet (RFC 2464 §7).
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
/// What routers never pass on arrives with this hop limit (RFC 4861 §7.1.2).
const HOP_LIMIT: u8 = 255;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// The multicast with which `mac` announces that it has `ip`.
pub fn unsolicited_na(mac: Mac, ip: Ipv6Addr) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..14].copy_from_slice(&ethernet::header(ALL_NODES_MAC, mac, ETHERTYPE_IPV6));
    frame[14] = 0x60;
    frame[18..20].copy_from_slice(&PAYLOAD_LEN.to_be_bytes());
    frame[20] = PROTOCOL_ICMPV6;
    frame[21] = HOP_LIMIT;
    frame[22..38].copy_from_slice(&ip.octets());
    frame[38..54].copy_from_slice(&ALL_NODES.octets());

    let icmp = &mut frame[54..];
    icmp[0] = NEIGHBOUR_ADVERTISEMENT;
    icmp[4] = FLAG_OVERRIDE;
    icmp[8..24].copy_from_slice(&ip.octets());
    icmp[24] = OPTION_TARGET_LINK_LAYER_ADDRESS;
    icmp[25] = 1; // units of eight bytes
    icmp[26..32].copy_from_slice(&mac.0);
    let pseudo = checksum::pseudo_header_v6(ip, ALL_NODES, PROTOCOL_ICMPV6, u32::from(PAYLOAD_LEN));
    let sum = !checksum::fold(checksum::sum(pseudo, icmp));
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use pnet_packet::Packet;
    use pnet_packet::ethernet::EthernetPacket;
    use pnet_packet::icmpv6::ndp::{NdpOptionTypes, NeighborAdvertPacket};
    use pnet_packet::icmpv6::{self, Icmpv6Packet};
    use pnet_packet::ipv6::Ipv6Packet;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_of_an_advertisement() {
        let mac = Mac([0x02, 0x42, 0, 0, 0, 7]);
        let frame = unsolicited_na(mac, "fd00::7".parse().unwrap());
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame[12..22], [0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(frame[38..42], [0xff, 0x02, 0, 0]);
        assert_eq!(frame[54..56], [136, 0]);
        assert_eq!(frame[58..62], [0x20, 0, 0, 0]);
        assert_eq!(frame[62..78], frame[22..38]);
        assert_eq!(frame[78..], [2, 1, 0x02, 0x42, 0, 0, 0, 7]);
    }

    proptest! {
        #[test]
        fn pnet_reads_what_we_write(mac: [u8; 6], ip: [u8; 16]) {
            let (mac, ip) = (Mac(mac), Ipv6Addr::from(ip));
            let frame = unsolicited_na(mac, ip);
            let ethernet = EthernetPacket::new(&frame).unwrap();
            prop_assert_eq!(ethernet.get_source().octets(), mac.0);
            let packet = Ipv6Packet::new(ethernet.payload()).unwrap();
            prop_assert_eq!((packet.get_source(), packet.get_destination()), (ip, ALL_NODES));
            prop_assert_eq!(packet.payload().len(), ICMP_LEN);
            let icmp = Icmpv6Packet::new(packet.payload()).unwrap();
            prop_assert_eq!(icmp.get_checksum(), icmpv6::checksum(&icmp, &ip, &ALL_NODES));
            let judge = NeighborAdvertPacket::new(packet.payload()).unwrap();
            prop_assert_eq!((judge.get_flags(), judge.get_target_addr()), (FLAG_OVERRIDE, ip));
            let options = judge.get_options();
            prop_assert_eq!(options.len(), 1);
            prop_assert_eq!(options[0].option_type, NdpOptionTypes::TargetLLAddr);
            prop_assert_eq!(&options[0].data[..], &mac.0[..]);
        }
    }
}
