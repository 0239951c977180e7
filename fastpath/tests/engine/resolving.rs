//! Who is asked for an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fastpath::{Counters, OwnedRange, Owner, OwnerMap, Questions, Resolver, VnetHdr};
use proptest::prelude::*;
use wire::arp::Arp;
use wire::{Mac, ndp, vxlan};

use crate::frames::{Node, OWN, POD_A, POD_B, endpoint, forwarding, peer, read};

const ASKER: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 7);
const ASKER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);

/// An address of node `n`: node 0 is the one under test.
fn of(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 32, n, 9)
}

fn of6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, n, 0, 0, 0, 9)
}

fn range(first: impl Into<IpAddr>, last: impl Into<IpAddr>, n: u8) -> OwnedRange {
    OwnedRange {
        first: first.into(),
        last: last.into(),
        owner: match n {
            0 => Owner::Me,
            n => Owner::Peer(peer(n)),
        },
    }
}

/// A node with links to the nodes 1 to 3, and a plan that gives each a network, also to node 4 whose
/// link is down. Its pod A is known to it.
fn node() -> Node {
    let plan = (0..=4).flat_map(|n| {
        let first = Ipv6Addr::new(0xfd00, 0, 0, n.into(), 0, 0, 0, 0);
        let last = Ipv6Addr::from_bits(first.to_bits() + u128::from(u64::MAX));
        [
            range(
                Ipv4Addr::new(10, 32, n, 0),
                Ipv4Addr::new(10, 32, n, 255),
                n,
            ),
            range(first, last, n),
        ]
    });
    let resolver = Resolver::new(
        Arc::new(OwnerMap::new(plan)),
        Arc::new(Questions::default()),
    );
    let mut node = Node::new(forwarding(1450, &[1, 2, 3]).with_resolver(resolver));
    node.read_tap([read(VnetHdr::PLAIN, &wire::arp::announcement(POD_A, ASKER))]);
    node
}

/// The nodes that a frame from the TAP goes to, in order.
fn goes_to(node: &mut Node, frame: &[u8]) -> Vec<u8> {
    let sent = node.read_tap([read(VnetHdr::PLAIN, frame)]);
    let number = |at: std::net::SocketAddr| (1..=3).find(|&n| endpoint(n) == at).unwrap();
    let mut to: Vec<_> = sent.iter().map(|sent| number(sent.endpoint)).collect();
    to.sort_unstable();
    to
}

const ALL: [u8; 3] = [1, 2, 3];

fn asks(target: Ipv4Addr) -> Vec<u8> {
    Arp::request(POD_A, ASKER, target)
        .frame(Mac::BROADCAST)
        .to_vec()
}

fn answer(target: Ipv4Addr) -> Vec<u8> {
    let reply = Arp::request(POD_A, ASKER, target).reply(POD_B);
    reply.frame(POD_A).to_vec()
}

/// A neighbour solicitation or advertisement about `target`.
fn neighbour(kind: u8, (dst, src): (Mac, Mac), source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut frame = ndp::unsolicited_na(src, source).to_vec();
    frame[..6].copy_from_slice(&dst.0);
    frame[54] = kind;
    frame[62..78].copy_from_slice(&target.octets());
    frame
}

fn asks6(target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Mac([0x33, 0x33, 0xff, a, b, c]);
    neighbour(135, (group, POD_A), ASKER6, target)
}

fn answer6(target: Ipv6Addr) -> Vec<u8> {
    neighbour(136, (POD_A, POD_B), target, target)
}

fn arrives(node: &mut Node, from: u8, frame: &[u8]) {
    let datagram = [&vxlan::header(1.try_into().unwrap())[..], frame].concat();
    node.receive(endpoint(from), &[vec![datagram]]);
}

fn count(counters: &Counters, wanted: &str) -> u64 {
    let mut found = None;
    counters.each(|name, _, value| {
        if name == wanted {
            found = Some(value);
        }
    });
    found.unwrap()
}

#[test]
fn a_question_goes_to_the_owner_of_the_address_alone() {
    let mut node = node();
    for n in 1..=3 {
        assert_eq!(goes_to(&mut node, &asks(of(n))), [n]);
        assert_eq!(goes_to(&mut node, &asks6(of6(n.into()))), [n]);
    }
    assert_eq!(count(&node.counters, "asked_owner"), 6);
    // The announcement at the beginning.
    assert_eq!(count(&node.counters, "flooded"), 1);
}

#[test]
fn a_question_for_an_own_address_goes_nowhere_until_it_is_asked_again() {
    let mut node = node();
    for frame in [asks(of(0)), asks6(of6(0))] {
        assert_eq!(goes_to(&mut node, &frame), []);
    }
    assert_eq!(count(&node.counters, "asked_here"), 2);
    node.now += 1;
    for frame in [asks(of(0)), asks6(of6(0))] {
        assert_eq!(goes_to(&mut node, &frame), ALL);
    }
    // The bridge's own address is here for certain.
    for _ in 0..3 {
        node.now += 1;
        assert_eq!(goes_to(&mut node, &asks(OWN.v4.unwrap())), []);
    }
}

#[test]
fn what_is_not_answered_is_flooded_when_it_is_asked_again() {
    let mut node = node();
    assert_eq!(goes_to(&mut node, &asks(of(2))), [2]);
    // Another pod, or a burst: too early to tell.
    assert_eq!(goes_to(&mut node, &asks(of(2))), [2]);
    for _ in 0..10 {
        node.now += 1;
        assert_eq!(goes_to(&mut node, &asks(of(2))), ALL);
    }
    assert_eq!(count(&node.counters, "asked_all"), 10);
    // A new row begins with the owner.
    node.now += 1;
    assert_eq!(goes_to(&mut node, &asks(of(2))), [2]);
}

#[test]
fn what_is_answered_by_its_owner_is_never_flooded() {
    let mut node = node();
    for _ in 0..20 {
        assert_eq!(goes_to(&mut node, &asks(of(2))), [2]);
        assert_eq!(goes_to(&mut node, &asks6(of6(2))), [2]);
        arrives(&mut node, 2, &answer(of(2)));
        arrives(&mut node, 2, &answer6(of6(2)));
        node.now += 1;
    }
    assert_eq!(count(&node.counters, "asked_all"), 0);
}

/// An address given by hand on node 3, out of node 2's range.
#[test]
fn an_address_that_is_elsewhere_is_asked_of_all_until_its_owner_answers() {
    for (asks, answer) in [
        (asks(of(2)), answer(of(2))),
        (asks6(of6(2)), answer6(of6(2))),
    ] {
        let mut node = node();
        assert_eq!(goes_to(&mut node, &asks), [2]);
        node.now += 1;
        assert_eq!(goes_to(&mut node, &asks), ALL);
        arrives(&mut node, 3, &answer);
        // From now on at once, as long as it is asked for, by whomever.
        for _ in 0..5 {
            node.now += 500;
            assert_eq!(goes_to(&mut node, &asks), ALL);
            arrives(&mut node, 3, &answer);
        }
        arrives(&mut node, 2, &answer);
        assert_eq!(goes_to(&mut node, &asks), [2]);
    }
}

#[test]
fn an_own_address_that_is_elsewhere_is_found_there() {
    let mut node = node();
    assert_eq!(goes_to(&mut node, &asks(of(0))), []);
    node.now += 1;
    assert_eq!(goes_to(&mut node, &asks(of(0))), ALL);
    arrives(&mut node, 1, &answer(of(0)));
    node.now += 300;
    assert_eq!(goes_to(&mut node, &asks(of(0))), ALL);
    node.now += 700;
    assert_eq!(goes_to(&mut node, &asks(of(0))), []);
}

/// Who makes sure that an address is free, who announces one, and who has just turned up, has to be
/// heard by all; and what the plan does not know is asked of all.
#[test]
fn what_all_have_to_hear_is_flooded() {
    let mut node = node();
    let probe = Arp::request(POD_A, Ipv4Addr::UNSPECIFIED, of(2)).frame(Mac::BROADCAST);
    let announcement = wire::arp::announcement(POD_A, of(2));
    let told = Arp::request(POD_A, of(2), of(2)).reply(POD_A);
    let dad = neighbour(
        135,
        (Mac([0x33, 0x33, 0xff, 0, 0, 9]), POD_A),
        Ipv6Addr::UNSPECIFIED,
        of6(2),
    );
    let unsolicited = ndp::unsolicited_na(POD_A, of6(2));
    let mut tagged = asks(of(2));
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let mut on_behalf = asks(of(2));
    on_behalf[22..28].copy_from_slice(&POD_B.0);
    let mut wrong_kind = asks(of(2));
    wrong_kind[15] = 6;
    let newcomer = Arp::request(POD_B, ASKER, of(2)).frame(Mac::BROADCAST);
    for frame in [
        &probe[..],
        &announcement,
        &told.frame(Mac::BROADCAST),
        &dad,
        &unsolicited,
        &tagged,
        &on_behalf,
        &wrong_kind,
        &asks(of(2))[..41],
        &asks6(of6(2))[..77],
        &newcomer,
        // A node whose link is down, and addresses outside of the plan.
        &asks(of(4)),
        &asks6(of6(4)),
        &asks(of(5)),
        &asks6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    ] {
        assert_eq!(goes_to(&mut node, frame), ALL, "{frame:02x?}");
    }
    assert_eq!(count(&node.counters, "asked_owner"), 0);
    // The newcomer is known now.
    assert_eq!(goes_to(&mut node, &newcomer), [2]);
}

#[test]
fn a_pod_that_moved_here_is_heard_by_all_once() {
    let mut node = node();
    arrives(
        &mut node,
        3,
        &Arp::request(POD_A, ASKER, of(1)).frame(Mac::BROADCAST),
    );
    assert_eq!(goes_to(&mut node, &asks(of(2))), ALL);
    assert_eq!(goes_to(&mut node, &asks(of(2))), [2]);
}

#[test]
fn without_a_plan_every_question_is_flooded() {
    let mut node = Node::new(forwarding(1450, &[1, 2, 3]));
    for _ in 0..2 {
        assert_eq!(goes_to(&mut node, &asks(of(2))), ALL);
    }
}

/// I6: a pod that asks for more than can be remembered gets what it got without the table, and
/// nobody's question is lost.
#[test]
fn i6_a_full_table_floods() {
    let mut node = node();
    let target = |n: u32| Ipv4Addr::from_bits(of(1).to_bits() & !0xff | n);
    let mut flooded = 0;
    for n in 0..200 {
        for asker in 0..200u8 {
            let mac = Mac([2, 0, 0, 1, 0, asker]);
            let asks = Arp::request(mac, ASKER, target(n)).frame(Mac::BROADCAST);
            match &goes_to(&mut node, &asks)[..] {
                [1] => {}
                to => {
                    assert_eq!(to, ALL);
                    flooded += 1;
                }
            }
        }
    }
    assert!(flooded > 30_000, "{flooded}");
    node.now += 60;
    assert_eq!(goes_to(&mut node, &asks(of(2))), [2]);
}

proptest! {
    /// I3 and I6: whatever is asked, answered and waited for, a question goes to its owner or to all,
    /// once each; and asked thrice in three seconds without an answer, to all.
    #[test]
    fn a_question_is_never_lost(steps in proptest::collection::vec((0u8..5, 0u8..4, 0u32..4), 1..60)) {
        let mut node = node();
        for (target, event, wait) in steps {
            let to = goes_to(&mut node, &asks(of(target)));
            let owner = match target {
                0 => vec![],
                4 => ALL.to_vec(),
                n => vec![n],
            };
            prop_assert!(to == ALL || to == owner, "{:?}", to);
            if event > 0 {
                arrives(&mut node, event, &answer(of(target)));
            }
            node.now += wait;
        }
        for target in 0..5 {
            let mut reached = false;
            for _ in 0..3 {
                reached |= goes_to(&mut node, &asks(of(target))) == ALL;
                node.now += 1;
            }
            prop_assert!(reached);
        }
    }
}
