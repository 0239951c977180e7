//! Multicast goes to those who want it.

use std::sync::Arc;

use fastpath::{GroupTable, VnetHdr};
use wire::Mac;
use wire::membership::{igmp_general_query, mld_general_query};

use crate::frames::{Node, POD_A, endpoint, forwarding, read};

const GROUP: Mac = Mac([0x01, 0, 0x5e, 1, 2, 3]);
const GROUP6: Mac = Mac([0x33, 0x33, 0, 1, 2, 3]);
const OTHER: Mac = Mac([0x01, 0, 0x5e, 9, 9, 9]);
const MINE: Mac = Mac([0x01, 0, 0x5e, 7, 7, 7]);

/// A node with links to 1, which wants two groups, 2, which wants one of them, 3, which wants none,
/// and 4, which wants all. A pod of its own wants another.
fn node() -> Node {
    let (one, two) = ([GROUP, GROUP6], [GROUP]);
    let links = [
        (0, Some(&one[..])),
        (1, Some(&two[..])),
        (2, Some(&[][..])),
        (3, None),
    ];
    let table = Arc::new(GroupTable::new([MINE], links));
    Node::new(forwarding(1450, &[1, 2, 3, 4]).with_groups(table))
}

fn goes_to(node: &mut Node, frame: &[u8]) -> Vec<u8> {
    let sent = node.read_tap([read(VnetHdr::PLAIN, frame)]);
    let number = |at: std::net::SocketAddr| (1..=4).find(|&n| endpoint(n) == at).unwrap();
    let mut to: Vec<_> = sent.iter().map(|sent| number(sent.endpoint)).collect();
    to.sort_unstable();
    to
}

/// A datagram to a group.
fn to(group: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = wire::ethernet::header(group, POD_A, ethertype).to_vec();
    frame.resize(80, 0);
    frame[14] = if ethertype == 0x86dd { 0x60 } else { 0x45 };
    (frame[20], frame[23]) = (17, 17);
    frame
}

/// A report or a leave of IGMPv2.
fn says(kind: u8, group: Mac) -> Vec<u8> {
    let mut igmp = vec![kind, 0, 0, 0, 239, group.0[3], group.0[4], group.0[5]];
    let sum = wire::checksum::checksum(&igmp);
    igmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = to(group, 0x0800);
    frame.truncate(34);
    (frame[17], frame[20], frame[23]) = (28, 0, 2);
    frame.extend(igmp);
    frame
}

fn count(node: &Node, wanted: &str) -> u64 {
    let mut found = 0;
    node.counters.each(|name, _, value| {
        if name == wanted {
            found = value;
        }
    });
    found
}

#[test]
fn a_group_that_somebody_wants_goes_to_those_who_do() {
    let mut node = node();
    assert_eq!(goes_to(&mut node, &to(GROUP, 0x0800)), [1, 2, 4]);
    assert_eq!(goes_to(&mut node, &to(GROUP6, 0x86dd)), [1, 4]);
    // Nobody but a pod of this node.
    assert_eq!(goes_to(&mut node, &to(MINE, 0x0800)), [4]);
    let mut tagged = to(GROUP, 0x0800);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    assert_eq!(goes_to(&mut node, &tagged), [1, 2, 4]);
    assert_eq!(count(&node, "multicast_selected"), 4);
    assert_eq!(count(&node, "flooded"), 0);
}

#[test]
fn what_nobody_told_of_goes_to_all() {
    let mut node = node();
    for (dst, ethertype) in [
        (OTHER, 0x0800),
        (Mac::BROADCAST, 0x0800),
        // Not IP, whatever the address looks like.
        (GROUP, 0x88b5),
        (GROUP, 0x86dd),
        (Mac([0x01, 0, 0x5e, 0, 0, 251]), 0x0800),
        (Mac([0x33, 0x33, 0, 0, 0, 1]), 0x86dd),
        (Mac([0x33, 0x33, 0xff, 0, 0, 1]), 0x86dd),
        (Mac([0x01, 0x1b, 0x19, 0, 0, 0]), 0x88f7),
    ] {
        assert_eq!(
            goes_to(&mut node, &to(dst, ethertype)),
            [1, 2, 3, 4],
            "{dst}"
        );
    }
    let mut bare = Node::new(forwarding(1450, &[1, 2]));
    assert_eq!(goes_to(&mut bare, &to(GROUP, 0x0800)), [1, 2]);
}

/// A report goes to nobody who would be silenced by it, a query to everybody; the router gets both.
#[test]
fn reports_go_to_those_who_want_all_and_queries_to_all() {
    let mut node = node();
    let reports = [says(0x16, GROUP), says(0x17, OTHER)];
    for report in &reports {
        assert_eq!(goes_to(&mut node, report), [4]);
        assert_eq!(node.egress.said().collect::<Vec<_>>(), [&report[..]]);
    }
    let mut damaged = says(0x16, GROUP);
    damaged[41] ^= 1;
    assert_eq!(goes_to(&mut node, &damaged), [1, 2, 4]);
    assert_eq!(node.egress.said().count(), 0);
    for query in [
        igmp_general_query(POD_A, 10, 125).to_vec(),
        mld_general_query(POD_A, 1000, 125).to_vec(),
    ] {
        assert_eq!(goes_to(&mut node, &query), [1, 2, 3, 4]);
        assert_eq!(node.egress.said().collect::<Vec<_>>(), [&query[..]]);
    }
    // Also without anybody to send to.
    let mut alone = Node::new(forwarding(1450, &[]));
    assert_eq!(goes_to(&mut alone, &reports[0]), []);
    assert_eq!(alone.egress.said().count(), 1);
}

/// I6: what pods say beyond what can be looked at is counted, and forwarded like the rest.
#[test]
fn i6_too_many_reports_are_counted() {
    let mut node = node();
    let reads = (0..100).map(|_| read(VnetHdr::PLAIN, &says(0x16, GROUP)));
    let sent = node.read_tap(reads);
    assert_eq!(
        sent.iter().map(|sent| sent.datagrams.len()).sum::<usize>(),
        100
    );
    assert_eq!(node.egress.said().count(), 64);
    assert_eq!(count(&node, "group_messages"), 100);
    assert_eq!(count(&node, "group_messages_lost"), 36);
}
