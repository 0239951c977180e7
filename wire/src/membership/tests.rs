use std::net::{Ipv4Addr, Ipv6Addr};

use pnet_packet::Packet;
use pnet_packet::ethernet::EthernetPacket;
use pnet_packet::icmpv6::{self, Icmpv6Packet};
use pnet_packet::ipv4::{self, Ipv4Packet};
use proptest::prelude::*;

use super::*;
use crate::checksum::{checksum, fold, pseudo_header_v6, sum};

const MAC: Mac = Mac([0xfe, 0x42, 0, 0, 0, 7]);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 129, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x1234, 0x5678);

/// A frame with an IGMP message.
fn igmp(mut message: Vec<u8>) -> Vec<u8> {
    message[2..4].fill(0);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet::header(Mac([1, 0, 0x5e, 0, 0, 22]), MAC, ETHERTYPE_IPV4).to_vec();
    let total = u16::try_from(20 + message.len()).unwrap().to_be_bytes();
    frame.extend([0x45, 0xc0, total[0], total[1], 0, 0, 0x40, 0, 1, 2, 0, 0]);
    frame.extend([10, 32, 0, 7, 224, 0, 0, 22]);
    frame.extend(message);
    // Ethernet's padding is none of it.
    frame.resize(frame.len().max(60), 0xaa);
    frame
}

/// A frame with an MLD message behind a router alert.
fn mld(mut message: Vec<u8>) -> Vec<u8> {
    let (source, group) = ("fe80::7".parse().unwrap(), "ff02::16".parse().unwrap());
    message[2..4].fill(0);
    let len = u16::try_from(message.len()).unwrap();
    let pseudo = pseudo_header_v6(source, group, 58, len.into());
    let checksum = !fold(sum(pseudo, &message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame =
        ethernet::header(Mac([0x33, 0x33, 0, 0, 0, 0x16]), MAC, ETHERTYPE_IPV6).to_vec();
    let payload = (8 + len).to_be_bytes();
    frame.extend([0x60, 0, 0, 0, payload[0], payload[1], 0, 1]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend([58, 0, 5, 2, 0, 0, 1, 0]);
    frame.extend(message);
    frame
}

fn v2(kind: u8, group: Ipv4Addr) -> Vec<u8> {
    igmp([&[kind, 0, 0, 0][..], &group.octets()].concat())
}

fn v1_mld(kind: u8, group: Ipv6Addr) -> Vec<u8> {
    mld([&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group.octets()].concat())
}

fn v3(records: &[(u8, u8, u16, Ipv4Addr)]) -> Vec<u8> {
    let [n0, n1] = u16::try_from(records.len()).unwrap().to_be_bytes();
    let mut message = vec![0x22, 0, 0, 0, 0, 0, n0, n1];
    for (kind, aux, sources, group) in records {
        message.extend([*kind, *aux]);
        message.extend(sources.to_be_bytes());
        message.extend(group.octets());
        message.resize(
            message.len() + (usize::from(*sources) + usize::from(*aux)) * 4,
            9,
        );
    }
    igmp(message)
}

fn v2_mld(records: &[(u8, u8, u16, Ipv6Addr)]) -> Vec<u8> {
    let [n0, n1] = u16::try_from(records.len()).unwrap().to_be_bytes();
    let mut message = vec![143, 0, 0, 0, 0, 0, n0, n1];
    for (kind, aux, sources, group) in records {
        message.extend([*kind, *aux]);
        message.extend(sources.to_be_bytes());
        message.extend(group.octets());
        let more = usize::from(*sources) * 16 + usize::from(*aux) * 4;
        message.resize(message.len() + more, 9);
    }
    mld(message)
}

fn interests(frame: &[u8]) -> Vec<(IpAddr, bool)> {
    match parse(frame) {
        Some(Message::Report(report)) => report.map(|i| (i.group, i.wanted)).collect(),
        other => panic!("{other:?} is no report"),
    }
}

#[test]
fn the_older_versions_name_one_group() {
    for kind in [0x12, 0x16] {
        assert_eq!(interests(&v2(kind, GROUP)), [(GROUP.into(), true)]);
    }
    assert_eq!(interests(&v2(0x17, GROUP)), [(GROUP.into(), false)]);
    assert_eq!(interests(&v1_mld(131, GROUP6)), [(GROUP6.into(), true)]);
    assert_eq!(interests(&v1_mld(132, GROUP6)), [(GROUP6.into(), false)]);
    assert_eq!(parse(&v2(0x16, Ipv4Addr::LOCALHOST)), None);
    assert_eq!(parse(&v1_mld(131, Ipv6Addr::LOCALHOST)), None);
}

#[test]
fn the_newer_versions_name_many() {
    let group = |n| Ipv4Addr::new(239, 0, 0, n);
    let frame = v3(&[
        (1, 0, 0, group(1)),
        (1, 0, 2, group(2)),
        (2, 3, 0, group(3)),
        (3, 0, 0, group(4)),
        (4, 0, 1, group(5)),
        (5, 0, 1, group(6)),
        (6, 0, 1, group(7)),
        (9, 0, 0, group(8)),
        (4, 0, 0, Ipv4Addr::new(10, 0, 0, 9)),
        (4, 1, 1, group(10)),
    ]);
    let wanted = [
        (group(1), false),
        (group(2), true),
        (group(3), true),
        (group(4), false),
        (group(5), true),
        (group(6), true),
        (group(10), true),
    ];
    assert_eq!(
        interests(&frame),
        wanted.map(|(group, wanted)| (group.into(), wanted))
    );
    let frame = v2_mld(&[(4, 2, 3, GROUP6), (3, 0, 0, GROUP6), (6, 0, 1, GROUP6)]);
    assert_eq!(
        interests(&frame),
        [(GROUP6.into(), true), (GROUP6.into(), false)]
    );
}

#[test]
fn a_report_that_says_more_than_it_has_ends_where_it_ends() {
    let mut frame = v3(&[(4, 0, 0, GROUP)]);
    frame[14 + 20 + 6] = 0xff;
    let mut message = frame[34..50].to_vec();
    assert_eq!(interests(&igmp(message.clone())), [(GROUP.into(), true)]);
    // Sources beyond the packet: the record is not whole.
    message[10] = 0xff;
    assert_eq!(interests(&igmp(message)), []);
}

#[test]
fn routers_are_known_by_their_queries_and_by_pim() {
    let router = Some(Message::Router);
    assert_eq!(parse(&igmp_general_query(MAC, 20, 125)), router);
    assert_eq!(parse(&mld_general_query(MAC, 2000, 125)), router);
    assert_eq!(parse(&v2(0x11, Ipv4Addr::UNSPECIFIED)), router);
    assert_eq!(parse(&v1_mld(130, Ipv6Addr::UNSPECIFIED)), router);
    let mut pim = v2(0x11, GROUP);
    pim[23] = 103;
    assert_eq!(parse(&pim), router);
}

#[test]
fn queries_are_what_hosts_take() {
    let frame = igmp_general_query(MAC, 20, 125);
    let ethernet = EthernetPacket::new(&frame).unwrap();
    assert_eq!(ethernet.get_destination().octets(), [1, 0, 0x5e, 0, 0, 1]);
    let ip = Ipv4Packet::new(ethernet.payload()).unwrap();
    assert_eq!(ip.get_checksum(), ipv4::checksum(&ip));
    assert_eq!((ip.get_ttl(), ip.get_header_length()), (1, 6));
    assert_eq!(ip.get_destination(), Ipv4Addr::new(224, 0, 0, 1));
    assert_eq!(ip.get_source(), Ipv4Addr::UNSPECIFIED);
    assert_eq!(usize::from(ip.get_total_length()), ethernet.payload().len());
    assert_eq!(frame[34..38], [0x94, 4, 0, 0]);
    let igmp = &frame[38..];
    assert_eq!((igmp[0], igmp[1]), (0x11, 20));
    assert_eq!(igmp[4..], [0, 0, 0, 0, 2, 125, 0, 0]);
    assert_eq!(checksum(igmp), 0);

    let frame = mld_general_query(MAC, 2000, 125);
    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
    let ip = pnet_packet::ipv6::Ipv6Packet::new(&frame[14..]).unwrap();
    let source: Ipv6Addr = "fe80::fc42:ff:fe00:7".parse().unwrap();
    assert_eq!((ip.get_hop_limit(), ip.get_source()), (1, source));
    assert_eq!(ip.get_payload_length(), 36);
    assert_eq!(frame[54..62], [58, 0, 5, 2, 0, 0, 1, 0]);
    let mld = Icmpv6Packet::new(&frame[62..]).unwrap();
    let sum = icmpv6::checksum(&mld, &source, &ip.get_destination());
    assert_eq!(mld.get_checksum(), sum);
    assert_eq!(frame[62], 130);
    assert_eq!(frame[66..70], [0x07, 0xd0, 0, 0]);
    assert_eq!(frame[86..], [2, 125, 0, 0]);
}

#[test]
fn groups_have_ethernet_addresses() {
    let mac = |group: IpAddr| group_mac(group).map(|mac| mac.to_string());
    assert_eq!(mac(GROUP.into()).unwrap(), "01:00:5e:01:02:03");
    assert_eq!(mac(GROUP6.into()).unwrap(), "33:33:12:34:56:78");
    assert_eq!(mac(Ipv4Addr::LOCALHOST.into()), None);
    assert_eq!(mac(Ipv6Addr::LOCALHOST.into()), None);
}

/// A message of every kind.
fn all() -> Vec<Vec<u8>> {
    vec![
        v2(0x12, GROUP),
        v2(0x17, GROUP),
        v3(&[(4, 1, 2, GROUP), (3, 0, 0, GROUP), (2, 0, 0, GROUP)]),
        v1_mld(131, GROUP6),
        v2_mld(&[(4, 1, 2, GROUP6), (3, 0, 0, GROUP6)]),
        igmp_general_query(MAC, 20, 125).to_vec(),
        mld_general_query(MAC, 2000, 125).to_vec(),
    ]
}

#[test]
fn a_damaged_message_is_none() {
    for frame in all() {
        let len = match frame[12..14] {
            [0x08, 0x00] => 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]])),
            _ => frame.len(),
        };
        // The last bit of what the checksum covers, and every truncation.
        let mut damaged = frame.clone();
        damaged[len - 1] ^= 1;
        assert_eq!(parse(&damaged), None, "{frame:02x?}");
        for short in 0..len {
            assert_eq!(parse(&frame[..short]), None, "{short} of {frame:02x?}");
        }
        let mut tagged = frame.clone();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(parse(&tagged).is_some(), parse(&frame).is_some());
    }
}

proptest! {
    /// I6: whatever a pod sends, it is read or not, in bounded time; checksums are made right, so
    /// that the parts behind them are reached.
    #[test]
    fn any_bytes_are_read_or_refused(
        which in 0usize..7,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        cut in any::<prop::sample::Index>(),
    ) {
        let good = all().swap_remove(which);
        let (head, message) = match good[12..14] {
            [0x08, 0x00] => good.split_at(14 + usize::from(good[14] & 0xf) * 4),
            _ => good.split_at(62),
        };
        let mut message = [message, &tail].concat();
        for (at, value) in edits {
            let at = at.index(message.len());
            message[at] = value;
        }
        message.truncate(cut.index(message.len()).max(8));
        let repaired = if head[12] == 8 { igmp(message.clone()) } else { mld(message.clone()) };
        for frame in [repaired, [head, &message].concat(), tail] {
            if let Some(Message::Report(report)) = parse(&frame) {
                let count = report.inspect(|i| assert!(i.group.is_multicast())).count();
                prop_assert!(count <= frame.len() / 8 + 1);
            }
        }
    }
}
