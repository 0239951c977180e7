//! Neighbour discovery: the announcement of an IPv6 address, an unsolicited neighbour advertisement
//! (RFC 4861 §7.2.6), and reading the questions who has an address and their answers (§7.2.2, §7.2.4).
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
const NEIGHBOUR_SOLICITATION: u8 = 135;
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

/// The question of a node with an address who has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicitation {
    /// The asker's address; `::` while it makes sure that its own is free (RFC 4862 §5.4.2).
    pub source: Ipv6Addr,
    /// The address that is asked for.
    pub target: Ipv6Addr,
}

/// Reads a neighbour solicitation in an untagged frame. None for anything else and for what every
/// receiver throws away (RFC 4861 §7.1.1), its checksum apart, which the receiver is left to judge.
pub fn solicitation(frame: &[u8]) -> Option<Solicitation> {
    let (source, target) = message(frame, NEIGHBOUR_SOLICITATION)?;
    Some(Solicitation { source, target })
}

/// Reads a neighbour advertisement in an untagged frame: the address that is told of. None as for
/// [`solicitation`] (RFC 4861 §7.1.2).
pub fn advertisement(frame: &[u8]) -> Option<Ipv6Addr> {
    message(frame, NEIGHBOUR_ADVERTISEMENT).map(|(_, target)| target)
}

/// Source and target of a message of this type.
fn message(frame: &[u8], kind: u8) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let (head, _) = frame.split_first_chunk::<{ ethernet::HEADER_LEN + 40 + 24 }>()?;
    let (ip, icmp) = head[ethernet::HEADER_LEN..].split_at(40);
    let payload = u16::from_be_bytes([ip[4], ip[5]]);
    let sound = head[12..14] == ETHERTYPE_IPV6.to_be_bytes()
        && ip[0] >> 4 == 6
        && ip[6] == PROTOCOL_ICMPV6
        && ip[7] == HOP_LIMIT
        && payload >= 24
        && icmp[..2] == [kind, 0];
    let address = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from);
    let (source, target) = (address(&ip[8..24])?, address(&icmp[8..24])?);
    (sound && !source.is_multicast() && !target.is_multicast()).then_some((source, target))
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

    proptest! {
        #[test]
        fn questions_and_answers_are_read(source: [u8; 16], target: [u8; 16], kind in 134u8..138) {
            let mut frame = unsolicited_na(Mac([2; 6]), Ipv6Addr::from(source));
            frame[54] = kind;
            frame[62..78].copy_from_slice(&target);
            let (source, target) = (Ipv6Addr::from(source), Ipv6Addr::from(target));
            let unicast = !source.is_multicast() && !target.is_multicast();
            let asked = (kind == 135 && unicast).then_some(Solicitation { source, target });
            prop_assert_eq!(solicitation(&frame), asked);
            prop_assert_eq!(advertisement(&frame), (kind == 136 && unicast).then_some(target));
            // From beyond the link, or with a code that nobody knows.
            for (at, value) in [(21, 254), (55, 1), (20, 17), (12, 8), (14, 0x40), (19, 23)] {
                let mut other = frame;
                other[at] = value;
                prop_assert_eq!((solicitation(&other), advertisement(&other)), (None, None));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            let good = unsolicited_na(Mac([2; 6]), Ipv6Addr::LOCALHOST);
            let known = bytes.len().min(62);
            bytes[..known].copy_from_slice(&good[..known]);
            prop_assert!(solicitation(&bytes).is_none());
            prop_assert!(advertisement(&bytes).is_none() || bytes.len() >= 78);
        }
    }
}
