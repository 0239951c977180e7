use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::{ipv4 as pnet_ipv4, tcp as pnet_tcp};
use proptest::prelude::*;

use super::*;

/// A ping of 56 bytes from 10.32.0.7 to 10.40.0.9, in VXLAN from 192.168.77.1 to 192.168.77.2: the
/// 148 bytes that `docs/wire-format.md` draws.
#[rustfmt::skip]
const PING: [u8; 148] = [
    // Ethernet
    0x02, 0x00, 0x00, 0x00, 0x77, 0x02, 0x02, 0x00, 0x00, 0x00, 0x77, 0x01, 0x08, 0x00,
    // IPv4: 134 bytes, DF, TTL 64, UDP
    0x45, 0x00, 0x00, 0x86, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x1f, 0x13,
    192, 168, 77, 1, 192, 168, 77, 2,
    // UDP: 51966 to 6784, 114 bytes
    0xca, 0xfe, 0x1a, 0x80, 0x00, 0x72, 0xd4, 0x5a,
    // VXLAN: VNI 1
    0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00,
    // the pod's frame of 98 bytes: Ethernet
    0x02, 0x42, 0x0a, 0x28, 0x00, 0x09, 0x02, 0x42, 0x0a, 0x20, 0x00, 0x07, 0x08, 0x00,
    // IPv4: 84 bytes, DF, TTL 64, ICMP
    0x45, 0x00, 0x00, 0x54, 0x12, 0x34, 0x40, 0x00, 0x40, 0x01, 0x14, 0x1e,
    10, 32, 0, 7, 10, 40, 0, 9,
    // ICMP: echo request, identifier 7, sequence 1
    0x08, 0x00, 0x00, 0xe5, 0x00, 0x07, 0x00, 0x01,
    // 56 bytes of data
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27,
    28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55,
];

const PORTS: &[u16] = &[6784];

fn shape(layers: &[Layer]) -> Vec<(&'static str, usize, usize)> {
    layers
        .iter()
        .map(|layer| (layer.name, layer.offset, layer.len))
        .collect()
}

fn names(layers: &[Layer]) -> Vec<&'static str> {
    layers.iter().map(|layer| layer.name).collect()
}

/// An Ethernet frame around a packet.
fn frame(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = ethernet::header(Mac([2; 6]), Mac([4; 6]), ethertype).to_vec();
    frame.extend(packet);
    frame
}

/// An IPv4 packet around a payload, its checksum in place.
fn ipv4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    let total = u16::try_from(packet.len() + payload.len()).unwrap();
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    let sum = checksum::checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    let mut packet = vec![0x60, 0, 0, 0, 0, len, next, 64];
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(payload);
    packet
}

#[test]
fn a_ping_in_vxlan_is_98_bytes_in_148() {
    let layers = decode(&PING, PORTS);
    assert_eq!(
        shape(&layers),
        [
            ("Ethernet", 0, 14),
            ("IPv4", 14, 20),
            ("UDP", 34, 8),
            ("VXLAN", 42, 8),
            ("Ethernet", 50, 14),
            ("IPv4", 64, 20),
            ("ICMP", 84, 8),
            ("data", 92, 56),
        ]
    );
    let field = |layer: usize, name| layers[layer].field(name).unwrap();
    assert_eq!(field(1, "checksum"), "0x1f13 (correct)");
    assert_eq!(field(2, "destination port"), "6784");
    assert_eq!(field(2, "checksum"), "0xd45a (correct)");
    assert_eq!(field(3, "VNI"), "1");
    assert_eq!(field(4, "source"), "02:42:0a:20:00:07");
    assert_eq!(field(5, "destination"), "10.40.0.9");
    assert_eq!(field(5, "checksum"), "0x141e (correct)");
    assert_eq!(field(6, "type"), "8 (echo request)");
    assert_eq!(field(6, "checksum"), "0x00e5 (correct)");
    assert_eq!(field(6, "sequence"), "1");
}

#[test]
fn a_udp_checksum_may_be_absent() {
    let mut bytes = PING;
    bytes[40..42].fill(0);
    assert_eq!(
        decode(&bytes, PORTS)[2].field("checksum"),
        Some("0x0000 (none)")
    );
}

/// `docs/wire-format.md` draws these bytes.
#[test]
fn the_documented_dump_is_this_frame() {
    let page = include_str!("../../../docs/wire-format.md");
    let dump = page.split("<!-- frame -->").nth(1).unwrap();
    let bytes: Vec<u8> = dump
        .lines()
        .filter_map(|line| line.split_once("  "))
        .filter(|(offset, _)| offset.len() == 4 && offset.parse::<usize>().is_ok())
        .flat_map(|(_, rest)| {
            rest.split_once("  ")
                .map_or(rest, |(bytes, _)| bytes)
                .split(' ')
        })
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    assert_eq!(bytes, PING);
}

#[test]
fn vxlan_is_opened_on_its_ports_only() {
    assert_eq!(
        names(&decode(&PING, &[8472])),
        ["Ethernet", "IPv4", "UDP", "data"]
    );
}

#[test]
fn vlan_arp_and_padding() {
    let mut bytes = arp::announcement(Mac([2; 6]), "10.32.0.7".parse().unwrap()).to_vec();
    bytes.splice(12..12, [0x81, 0x00, 0x20, 0x64]);
    bytes.resize(64, 0);
    let layers = decode(&bytes, PORTS);
    assert_eq!(
        shape(&layers),
        [
            ("Ethernet", 0, 14),
            ("VLAN", 14, 4),
            ("ARP", 18, 28),
            ("padding", 46, 18)
        ]
    );
    assert_eq!(
        (layers[1].field("id"), layers[1].field("priority")),
        (Some("100"), Some("1"))
    );
    assert_eq!(layers[2].field("operation"), Some("request (announcement)"));
    assert_eq!(layers[2].field("sender IP"), Some("10.32.0.7"));
}

#[test]
fn tcp_with_options_and_each_state_of_a_checksum() {
    let mut syn = vec![
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x80, 0x02, 1, 0, 0, 0, 0, 0,
    ];
    syn.extend([2, 4, 0x05, 0x74, 1, 3, 3, 7, 4, 2, 0, 0]);
    let pseudo = checksum::pseudo_header_v4(
        "10.0.0.1".parse().unwrap(),
        "10.0.0.2".parse().unwrap(),
        6,
        32,
    );
    let text = |checksum: u16| {
        let mut syn = syn.clone();
        syn[16..18].copy_from_slice(&checksum.to_be_bytes());
        let layers = decode(&frame(ETHERTYPE_IPV4, &ipv4(6, 0x4000, &syn)), PORTS);
        assert_eq!(names(&layers), ["Ethernet", "IPv4", "TCP"]);
        assert_eq!(layers[1].field("flags"), Some("DF"));
        assert_eq!(layers[2].field("flags"), Some("SYN"));
        assert_eq!(
            layers[2].field("options"),
            Some("MSS 1396, window scale 7, SACK permitted")
        );
        layers[2].field("checksum").unwrap().to_owned()
    };
    let good = !checksum::fold(checksum::sum(pseudo, &syn));
    assert_eq!(text(good), format!("{good:#06x} (correct)"));
    assert!(text(good ^ 1).ends_with("(wrong)"));
    assert!(text(checksum::fold(pseudo)).ends_with("(left to the device)"));
}

#[test]
fn fragments_show_a_transport_header_only_where_there_is_one() {
    let udp = [0x14, 0xe9, 0, 53, 0, 100, 0x12, 0x34, 1, 2, 3, 4];
    let first = decode(&frame(ETHERTYPE_IPV4, &ipv4(17, 0x2000, &udp)), PORTS);
    assert_eq!(names(&first), ["Ethernet", "IPv4", "UDP", "data"]);
    assert_eq!(
        first[2].field("checksum"),
        Some("0x1234 (not checked, the packet is not whole)")
    );
    let later = decode(&frame(ETHERTYPE_IPV4, &ipv4(17, 0x0010, &udp)), PORTS);
    assert_eq!(names(&later), ["Ethernet", "IPv4", "data"]);
    assert_eq!(later[1].field("fragment offset"), Some("128"));

    let mut six = vec![17, 0, 0, 0x10, 0, 0, 0, 9];
    six.extend(udp);
    let later = decode(&frame(ETHERTYPE_IPV6, &ipv6(44, &six)), PORTS);
    assert_eq!(
        names(&later),
        ["Ethernet", "IPv6", "IPv6 extension", "data"]
    );
}

#[test]
fn ipv6_neighbour_advertisement_behind_ours() {
    let bytes = crate::ndp::unsolicited_na(Mac([2; 6]), "fd00::7".parse().unwrap());
    let layers = decode(&bytes, PORTS);
    assert_eq!(
        shape(&layers),
        [
            ("Ethernet", 0, 14),
            ("IPv6", 14, 40),
            ("ICMPv6", 54, 24),
            ("data", 78, 8)
        ]
    );
    assert_eq!(
        layers[2].field("type"),
        Some("136 (neighbour advertisement)")
    );
    assert_eq!(layers[2].field("target"), Some("fd00::7"));
    assert!(layers[2].field("checksum").unwrap().ends_with("(correct)"));
}

#[test]
fn extension_headers_are_walked_to_the_transport() {
    let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0];
    payload.extend([0x14, 0xe9, 0, 53, 0, 8, 0, 0]);
    let layers = decode(&frame(ETHERTYPE_IPV6, &ipv6(0, &payload)), PORTS);
    assert_eq!(
        names(&layers),
        [
            "Ethernet",
            "IPv6",
            "IPv6 extension",
            "IPv6 extension",
            "UDP"
        ]
    );
}

#[test]
fn what_cannot_be_read_says_why() {
    let reason = |bytes: &[u8]| {
        let layers = decode(bytes, PORTS);
        let last = layers.last().unwrap();
        assert_eq!(last.name, "malformed", "{layers:?}");
        last.field("reason").unwrap().to_owned()
    };
    assert!(!reason(&[]).is_empty());
    assert!(!reason(&PING[..20]).is_empty());
    assert!(reason(&PING[..45]).contains("shorter than the VXLAN header"));
    let mut flags = PING;
    flags[42] = 0;
    assert!(reason(&flags).contains("VXLAN flags 0x00"));
    let mut short = PING;
    short[38..40].copy_from_slice(&[0, 7]);
    assert!(reason(&short).contains("UDP length 7"));
}

#[test]
fn a_frame_of_nothing_but_tags_has_a_bounded_page() {
    let tags: Vec<u8> = [0x81, 0x00, 0x00, 0x01].repeat(16_000);
    let mut bytes = vec![0; 12];
    bytes.extend(tags);
    assert!(decode(&bytes, PORTS).len() <= MAX_LAYERS + 2);
}

/// Layers are adjacent and cover the frame, whatever it holds.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut at = 0;
    for layer in decode(bytes, PORTS) {
        prop_assert_eq!(layer.offset, at);
        at += layer.len;
    }
    prop_assert_eq!(at, bytes.len());
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_covered_by_layers(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes)?;
        for ethertype in [ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_ARP, ETHERTYPE_VLAN] {
            check(&frame(ethertype, &bytes))?;
        }
    }

    #[test]
    fn any_payload_of_ip_is_covered(
        payload in proptest::collection::vec(any::<u8>(), 0..120),
        protocol in prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 58, 59, 60, 255]),
        fragment: u16,
    ) {
        check(&frame(ETHERTYPE_IPV4, &ipv4(protocol, fragment, &payload)))?;
        check(&frame(ETHERTYPE_IPV4, &ipv4(protocol, 0, &payload)))?;
        check(&frame(ETHERTYPE_IPV6, &ipv6(protocol, &payload)))?;
    }

    #[test]
    fn a_damaged_or_cut_frame_is_covered(at in 0usize..148, value: u8, cut in 0usize..=148) {
        let mut bytes = PING;
        bytes[at] = value;
        check(&bytes[..cut])?;
    }

    #[test]
    fn what_pnet_builds_is_read_field_by_field(
        a: [u8; 4], b: [u8; 4], ttl: u8, id: u16, ports: (u16, u16), seq: u32, window: u16,
        payload in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut packet = vec![0; 40];
        packet.extend(&payload);
        let total = u16::try_from(packet.len()).unwrap();
        let mut ip = pnet_ipv4::MutableIpv4Packet::new(&mut packet).unwrap();
        ip.set_version(4);
        ip.set_header_length(5);
        ip.set_total_length(total);
        ip.set_identification(id);
        ip.set_flags(pnet_ipv4::Ipv4Flags::DontFragment);
        ip.set_ttl(ttl);
        ip.set_next_level_protocol(IpNextHeaderProtocols::Tcp);
        ip.set_source(a.into());
        ip.set_destination(b.into());
        let sum = pnet_ipv4::checksum(&ip.to_immutable());
        ip.set_checksum(sum);
        let mut tcp = pnet_tcp::MutableTcpPacket::new(&mut packet[20..]).unwrap();
        tcp.set_source(ports.0);
        tcp.set_destination(ports.1);
        tcp.set_sequence(seq);
        tcp.set_data_offset(5);
        tcp.set_flags(pnet_tcp::TcpFlags::ACK | pnet_tcp::TcpFlags::PSH);
        tcp.set_window(window);
        let tcp_sum = pnet_tcp::ipv4_checksum(&tcp.to_immutable(), &a.into(), &b.into());
        tcp.set_checksum(tcp_sum);

        let layers = decode(&frame(ETHERTYPE_IPV4, &packet), PORTS);
        let (ip, tcp) = (&layers[1], &layers[2]);
        for (layer, name, expected) in [
            (ip, "source", std::net::Ipv4Addr::from(a).to_string()),
            (ip, "destination", std::net::Ipv4Addr::from(b).to_string()),
            (ip, "TTL", ttl.to_string()),
            (ip, "identification", id.to_string()),
            (ip, "flags", "DF".into()),
            (ip, "protocol", "6 (TCP)".into()),
            (ip, "checksum", format!("{sum:#06x} (correct)")),
            (tcp, "source port", ports.0.to_string()),
            (tcp, "destination port", ports.1.to_string()),
            (tcp, "sequence", seq.to_string()),
            (tcp, "flags", "PSH, ACK".into()),
            (tcp, "window", window.to_string()),
            (tcp, "checksum", format!("{tcp_sum:#06x} (correct)")),
        ] {
            prop_assert_eq!(layer.field(name), Some(expected.as_str()), "{}", name);
        }
    }
}
