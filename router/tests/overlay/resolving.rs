//! Who hears the question for an address: its owner's node, and all others only if that does not
//! answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hostnet::netlink::Netlink;
use router::lab::interrupt::Interrupt;
use router::lab::layout::IFNAME;
use router::lab::probe::throughput;
use router::lab::world::{Node, Pod};
use wire::arp::{self, Arp};
use wire::{Mac, ndp};

use crate::cluster::{cluster, counter, eventually, packets, pings, receive, v4};
use crate::encrypted::Password;

const SOON: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(500);

/// A pod's question for an address.
fn question(pod: &Pod, target: IpAddr) -> Vec<u8> {
    match (pod.address.addr(), target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => Arp::request(pod.mac, source, target)
            .frame(Mac::BROADCAST)
            .to_vec(),
        (IpAddr::V6(source), IpAddr::V6(target)) => solicitation(pod.mac, source, target),
        mixed => panic!("{mixed:?} are of two families"),
    }
}

/// An advertisement made into a question (RFC 4861 §4.3).
fn solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group: Ipv6Addr = {
        let [high, low] = [u16::from_be_bytes([0xff, a]), u16::from_be_bytes([b, c])];
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low)
    };
    let mut frame = ndp::unsolicited_na(mac, source).to_vec();
    frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, a, b, c]);
    frame[38..54].copy_from_slice(&group.octets());
    let icmp = &mut frame[54..];
    icmp[..8].copy_from_slice(&[135, 0, 0, 0, 0, 0, 0, 0]);
    icmp[8..24].copy_from_slice(&target.octets());
    // The source's link-layer address.
    icmp[24] = 1;
    let pseudo = wire::checksum::pseudo_header_v6(source, group, 58, 32);
    let sum = !wire::checksum::fold(wire::checksum::sum(pseudo, icmp));
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Whether a frame tells this pod's address.
fn answers(frame: &[u8], pod: &Pod) -> bool {
    let told = match arp::parse(frame) {
        Ok(told) if told.operation == arp::Operation::Reply => Some(IpAddr::from(told.sender_ip)),
        Ok(_) => None,
        Err(_) => ndp::advertisement(frame).map(IpAddr::from),
    };
    told == Some(pod.address.addr())
}

fn count(node: &Node, name: &str) -> u64 {
    counter(&node.status().unwrap(), name)
}

/// An address that a node owns and has not given to anybody.
fn unused(node: &Node) -> Ipv4Addr {
    let owned = node.status().unwrap().ipam.owned;
    let (_, last) = owned.last().unwrap().range.split_once('-').unwrap();
    let last: Ipv4Addr = last.parse().unwrap();
    Ipv4Addr::from_bits(last.to_bits() - 5)
}

#[test]
fn a_question_reaches_the_owner_of_the_address_alone() {
    let password = Password::new("a long password for tests\n");
    for (range, sealed) in [
        ("10.32.0.0/12", false),
        ("fd00:77::/64", false),
        ("10.32.0.0/12", true),
    ] {
        let mut args = vec!["--range", range];
        if sealed {
            args.extend(password.args());
        }
        let world = cluster(3, 1, &args);
        let [asker, asked, _] = &world.pods[..] else {
            panic!("three pods were asked for")
        };
        let pod = packets(&asker.netns, IFNAME);
        let asks = question(asker, asked.address.addr());
        eventually("the plan is known and the asker too", || {
            pod.send(&asks).unwrap();
            count(&world.nodes[0], "asked_owner") > 0
        });
        std::thread::sleep(QUIET);
        let mut taps = [1, 2].map(|n: usize| packets(&world.nodes[n].netns, "weft-tap"));
        let mut pod = packets(&asker.netns, IFNAME);
        for _ in 0..3 {
            let before = count(&world.nodes[0], "asked_all");
            pod.send(&asks).unwrap();
            assert!(
                receive(&mut taps[0], SOON, |frame| frame == asks).is_some(),
                "{range}: the owner does not hear it"
            );
            assert!(
                receive(&mut pod, SOON, |frame| answers(frame, asked)).is_some(),
                "{range}: no answer"
            );
            assert!(
                receive(&mut taps[1], QUIET, |frame| frame == asks).is_none(),
                "{range}: another node hears it"
            );
            assert_eq!(count(&world.nodes[0], "asked_all"), before);
        }
        // A pod's own gateway is asked for on its node alone.
        let before = count(&world.nodes[0], "asked_here");
        let asks = question(asker, asker.gateway.unwrap());
        pod.send(&asks).unwrap();
        eventually("it was noticed", || {
            count(&world.nodes[0], "asked_here") > before
        });
        for tap in &mut taps {
            assert!(receive(tap, QUIET, |frame| frame == asks).is_none());
        }
    }
}

/// An address out of the second node's range was given by hand to a pod on the third.
#[test]
fn an_address_that_is_elsewhere_is_found() {
    let world = cluster(3, 1, &[]);
    let target = unused(&world.nodes[1]);
    let mut third = Netlink::open_in(&world.pods[2].netns).unwrap();
    let eth0 = third.link(IFNAME).unwrap().unwrap().index;
    let address = format!("{target}/12").parse().unwrap();
    third.add_address(eth0, address).unwrap();
    // By hand: a pod that was answered before the plan is known does not ask again.
    let pod = packets(&world.pods[0].netns, IFNAME);
    let asks = question(&world.pods[0], world.pods[1].address.addr());
    eventually("the first node asks the second", || {
        pod.send(&asks).unwrap();
        count(&world.nodes[0], "asked_owner") > 0
    });
    assert!(pings(&world.pods[0].netns, target, 56));
    assert!(count(&world.nodes[0], "asked_all") > 0);
    // From the node that owns the address, too.
    assert!(pings(&world.pods[1].netns, target, 56));
}

/// Nobody but the two nodes sees what two pods say to each other.
#[test]
fn known_unicast_is_never_flooded() {
    let world = cluster(3, 1, &[]);
    let (a, b) = (&world.pods[0], &world.pods[1]);
    assert!(pings(&a.netns, v4(b), 56));
    let mut tap = packets(&world.nodes[2].netns, "weft-tap");
    let half = Duration::from_millis(500);
    let sent = throughput::tcp(
        &a.netns,
        &b.netns,
        b.address.addr(),
        half,
        &Interrupt::default(),
    );
    assert!(sent.unwrap().bytes > 1_000_000);
    let between = |frame: &[u8]| {
        let pair = [a.mac.0, b.mac.0];
        frame.len() > 12
            && pair
                .iter()
                .all(|mac| frame[..12].chunks(6).any(|at| at == mac))
    };
    assert!(receive(&mut tap, QUIET, between).is_none());
}
