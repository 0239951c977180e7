use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// An IPv4 TCP segment's first 58 bytes, 10.32.0.7:40000 to 10.40.0.9:80.
const TCP4: [u8; 58] = [
    0x02, 0, 0, 0, 0, 0x09, 0x02, 0, 0, 0, 0, 0x07, 0x08, 0x00, // Ethernet
    0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 32, 0, 7, 10, 40, 0, 9, // IPv4, DF
    0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0, // TCP
    1, 2, 3, 4,
];

/// fd00::7 to fd00::9, UDP 5353 to 53, behind `extensions` (the first of type `next`).
fn udp6(next: u8, extensions: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 0x09, 0x02, 0, 0, 0, 0, 0x07, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0, 0, 0, next, 64]);
    frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    frame.extend(extensions);
    frame.extend([0x14, 0xe9, 0, 53, 0, 8, 0, 0]);
    frame
}

fn with(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    assert_ne!(frame[at], value, "the test changes nothing");
    frame[at] = value;
    frame
}

/// Other nodes and later versions must agree: these values never change.
#[test]
fn values_are_fixed() {
    assert_eq!(hash(&TCP4), 0x7302_c122);
    assert_eq!(hash(&udp6(17, &[])), 0x663d_cc88);
    assert_eq!(hash(&[0xff; 14]), 0x6405_1637);
    assert_eq!(hash(&[]), 0xe087_f629);
}

#[test]
fn all_that_names_the_flow_counts_and_nothing_else() {
    let same = [15, 17, 19, 22, 24, 39, 46, 48, 50, 57]; // TOS, length, id, TTL, checksums, sequence, flags, data
    for at in same {
        assert_eq!(
            hash(&with(TCP4.to_vec(), at, 0xa5)),
            hash(&TCP4),
            "byte {at}"
        );
    }
    let differs = [0, 5, 6, 11, 23, 26, 29, 30, 33, 34, 35, 36, 37]; // MACs, protocol, addresses, ports
    for at in differs {
        assert_ne!(
            hash(&with(TCP4.to_vec(), at, 0xa5)),
            hash(&TCP4),
            "byte {at}"
        );
    }
}

#[test]
fn the_vlan_counts_but_not_its_priority() {
    let tagged = |tag: [u8; 2]| {
        let mut frame = TCP4.to_vec();
        frame.splice(12..12, [0x81, 0x00, tag[0], tag[1]]);
        hash(&frame)
    };
    assert_eq!(tagged([0x00, 5]), tagged([0xe0, 5]));
    assert_ne!(tagged([0x00, 5]), tagged([0x00, 6]));
    assert_ne!(tagged([0x00, 0]), hash(&TCP4));
}

#[test]
fn all_fragments_of_a_packet_go_one_way() {
    let first = with(TCP4.to_vec(), 20, 0x20);
    let later = with(with(TCP4.to_vec(), 20, 0x00), 21, 100);
    let later = with(later, 35, 0xff); // what stands where the ports were
    assert_eq!(hash(&first), hash(&later));
    assert_ne!(hash(&first), hash(&TCP4));

    let first = udp6(FRAGMENT, &[17, 0, 0, 1, 0, 0, 0, 9]);
    let later = udp6(FRAGMENT, &[17, 0, 0x05, 0xa8, 0, 0, 0, 9]);
    assert_eq!(hash(&first), hash(&with(later, 62, 0xaa)));
}

#[test]
fn ipv6_ports_are_found_behind_extension_headers() {
    let plain = udp6(17, &[]);
    let padded = udp6(
        HOP_BY_HOP,
        &[DESTINATION, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0],
    );
    let atomic = udp6(FRAGMENT, &[17, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!((hash(&padded), hash(&atomic)), (hash(&plain), hash(&plain)));
    assert_ne!(hash(&with(plain.clone(), 55, 0xea)), hash(&plain));
}

#[test]
fn frames_that_are_not_ip_go_by_macs_and_ethertype() {
    let arp = with(TCP4.to_vec(), 13, 0x06);
    assert_eq!(hash(&arp), hash(&with(arp.clone(), 30, 0xa5)));
    assert_ne!(hash(&arp), hash(&with(arp.clone(), 13, 0x07)));
    assert_ne!(hash(&arp), hash(&with(arp.clone(), 11, 0xa5)));
}

#[test]
fn consecutive_ports_spread_over_few_buckets() {
    let mut buckets = [0; 16];
    let mut seen = HashSet::new();
    for port in 32768u16..48768 {
        let mut frame = TCP4;
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        seen.insert(hash(&frame));
        buckets[(hash(&frame) % 16) as usize] += 1;
    }
    // 1000 expected in each; six standard deviations are 184.
    assert!(
        buckets.iter().all(|count| (816..1184).contains(count)),
        "{buckets:?}"
    );
    assert!(
        seen.len() > 15_990,
        "{} different hashes of 16000",
        seen.len()
    );
}

proptest! {
    #[test]
    fn any_bytes_have_a_hash(bytes in proptest::collection::vec(any::<u8>(), 0..120), ip in 0usize..4) {
        let mut bytes = bytes;
        if let (Some(ethertype), Some(kind)) = (bytes.get_mut(12..14), [[8, 0], [0x86, 0xdd], [0x81, 0]].get(ip)) {
            ethertype.copy_from_slice(kind);
        }
        prop_assert_eq!(hash(&bytes), hash(&bytes));
    }

    #[test]
    fn every_truncation_has_a_hash(cut in 0usize..90) {
        let long = udp6(HOP_BY_HOP, &[DESTINATION, 1, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]);
        hash(&long[..cut.min(long.len())]);
        hash(&TCP4[..cut.min(TCP4.len())]);
    }
}

/// Swaps MACs, addresses and ports.
fn reversed(frame: &[u8], address: usize, len: usize, ports: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..12].rotate_left(6);
    frame[address..address + 2 * len].rotate_left(len);
    frame[ports..ports + 4].rotate_left(2);
    frame
}

#[test]
fn both_directions_share_the_symmetric_hash_and_flows_do_not() {
    let six = udp6(17, &[]);
    for (frame, back) in [
        (TCP4.to_vec(), reversed(&TCP4, 26, 4, 34)),
        (six.clone(), reversed(&six, 22, 16, 54)),
    ] {
        assert_eq!(symmetric(&frame), symmetric(&back));
        assert_ne!(hash(&frame), hash(&back));
    }
    let flows: HashSet<_> = (1024u16..2048)
        .map(|port| {
            let mut frame = TCP4.to_vec();
            frame[34..36].copy_from_slice(&port.to_be_bytes());
            symmetric(&frame) % 512
        })
        .collect();
    assert!(flows.len() > 350, "{} of 512", flows.len());
    // Either port may be the one that changes.
    assert_ne!(symmetric(&TCP4), symmetric(&with(TCP4.to_vec(), 37, 81)));
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 7], &[8, 6]].concat();
    let mut answer = arp.clone();
    answer[..12].rotate_left(6);
    assert_eq!(symmetric(&arp), symmetric(&answer));
}

proptest! {
    #[test]
    fn any_bytes_have_a_symmetric_hash(bytes: Vec<u8>) {
        symmetric(&bytes);
    }
}
