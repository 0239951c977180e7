use proptest::prelude::*;
use wire::Mac;

use super::*;

/// An entry of a node of this number, as a node writes it at its start.
pub(crate) fn entry(number: u8) -> Entry {
    Entry {
        id: PeerId([number; 8]),
        version: 1,
        run: 1,
        left: false,
        name: format!("n{number}").parse().unwrap(),
        public_key: [number; 32],
        addresses: vec![SocketAddr::from(([10, 0, 0, number], 6783))],
        vxlan_port: 6784,
        sleeve_port: 6783,
        sleeve_seen: None,
        mtu: 1450,
        software: "test".to_owned(),
        neighbours: Vec::new(),
        reach: Reach::default(),
        groups: Groups::All,
    }
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let ids = || prop::collection::btree_set(any::<[u8; 8]>().prop_map(PeerId), 0..20);
    let sorted = |set: std::collections::BTreeSet<PeerId>| set.into_iter().collect::<Vec<_>>();
    let address = (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(SocketAddr::from);
    let address = address.prop_filter("an address of one node", |a| {
        !a.ip().is_unspecified() && !a.ip().is_multicast()
    });
    let lists = (
        prop::collection::vec(address.clone(), 0..8),
        prop::option::of(address),
        ids(),
        ids(),
        any::<bool>(),
        prop::option::of(prop::collection::vec(any::<[u8; 6]>().prop_map(Mac), 0..9)),
    );
    let numbers = (any::<(u64, u64, bool)>(), any::<(u16, u16, u16)>());
    let names = (
        any::<[u8; 8]>(),
        any::<[u8; 32]>(),
        "[a-z0-9][a-zA-Z0-9._-]{0,62}",
        "[ -~]{0,64}",
    );
    (names, numbers, lists).prop_map(move |(names, numbers, lists)| {
        let (id, public_key, name, software) = names;
        let ((version, run, left), (vxlan_port, sleeve_port, mtu)) = numbers;
        let (addresses, sleeve_seen, neighbours, reach, only, groups) = lists;
        Entry {
            id: PeerId(id),
            version,
            run,
            left,
            name: name.parse().unwrap(),
            public_key,
            addresses,
            vxlan_port,
            sleeve_port,
            sleeve_seen,
            mtu,
            software,
            neighbours: sorted(neighbours),
            reach: if only {
                Reach::Only(sorted(reach))
            } else {
                Reach::AllExcept(sorted(reach))
            },
            groups: groups.map_or(Groups::All, Groups::new),
        }
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read(entry in any_entry()) {
        let written = Sealed::new(entry.clone());
        let read = Sealed::read(written.bytes()).unwrap();
        prop_assert_eq!(&**read, &entry);
        prop_assert_eq!(read.bytes(), written.bytes());
        prop_assert_eq!(Stamp::peek(written.bytes()), Some(written.stamp()));
    }

    /// I6: no bytes make it panic.
    #[test]
    fn i6_any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Sealed::read(&bytes);
    }

    #[test]
    fn i6_a_damaged_entry_is_read_or_refused(entry in any_entry(), at: usize, to: u8) {
        let mut bytes = Sealed::new(entry).bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        let _ = Sealed::read(&bytes);
    }
}

#[test]
fn fields_of_later_versions_are_carried_on() {
    let mut bytes = Sealed::new(entry(7)).bytes().to_vec();
    // Field 1000, a text.
    bytes.extend_from_slice(&[0xc2, 0x3e, 3, b'n', b'e', b'w']);
    let read = Sealed::read(&bytes).unwrap();
    assert_eq!(read.bytes(), bytes);
    assert_eq!(**read, entry(7));
}

#[test]
fn i6_the_largest_entry_that_is_written_is_read() {
    let mut largest = entry(7);
    let ids = |count: u64| {
        (0..count)
            .map(|n| PeerId(n.to_be_bytes()))
            .collect::<Vec<_>>()
    };
    largest.neighbours = ids(1000);
    largest.reach = Reach::AllExcept(ids(crate::route::MAX_REACH as u64));
    largest.groups = Groups::new((0..=255).map(|n| Mac([1, 0, 0x5e, 0, 0, n])));
    largest.addresses = (0..20).map(|n| SocketAddr::from(([n; 16], 6783))).collect();
    largest.name = "x".repeat(63).parse().unwrap();
    largest.software = "x".repeat(200);
    let written = Sealed::new(largest);
    assert!(
        written.bytes().len() <= MAX_ENTRY,
        "{}",
        written.bytes().len()
    );
    let read = Sealed::read(written.bytes()).unwrap();
    assert_eq!(read.neighbours.len(), MAX_NEIGHBOURS);
    assert!(Sealed::read(&vec![0; MAX_ENTRY + 1]).is_err());
}

#[test]
fn the_greater_version_counts_and_then_the_run() {
    let stamp = |version, run| Stamp {
        id: PeerId([1; 8]),
        version,
        run,
    };
    assert!(stamp(2, 1).replaces(&stamp(1, 9)));
    assert!(stamp(2, 9).replaces(&stamp(2, 1)));
    assert!(!stamp(2, 1).replaces(&stamp(2, 1)));
    assert!(!stamp(1, 9).replaces(&stamp(2, 1)));
}
