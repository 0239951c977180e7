use wire::Mac;

use super::*;
use crate::lab::report::{
    FrameReport, FullSizeReport, LayerReport, MtuReport, NeighbourReport, NodeReport, PeerReport,
    PingPair, PingReport, PodReport, RouterReport, ThroughputReport, UnderlayReport,
};

/// Two nodes with two pods each, all well.
fn report() -> Report {
    let pods: Vec<_> = [
        (1, 1, "10.32.0.2"),
        (1, 2, "10.32.0.3"),
        (2, 1, "10.40.0.2"),
        (2, 2, "10.40.0.3"),
    ]
    .into_iter()
    .map(|(node, pod, address)| PodReport {
        name: format!("node{node}-pod{pod}"),
        node: format!("node{node}"),
        netns: format!("weft-lab-node{node}-pod{pod}"),
        address: format!("{address}/12").parse().unwrap(),
        gateway: Some(format!("10.{}.0.1", 24 + 8 * node).parse().unwrap()),
        mac: Mac([2, 0, 0, 0, node, pod]),
        mtu: 1450,
    })
    .collect();
    let node = |number: u8, other: u8, owned: &str| NodeReport {
        name: format!("node{number}"),
        netns: format!("weft-lab-node{number}"),
        address: format!("10.99.0.{number}").parse().unwrap(),
        router: Some(RouterReport {
            id: "0011223344556677".to_owned(),
            bridge: "weft".to_owned(),
            bridge_addresses: vec![format!("10.{}.0.1/12", 24 + 8 * number).parse().unwrap()],
            tap: "weft-tap".to_owned(),
            vxlan_port: 6784,
            vni: 1,
            owned: vec![owned.to_owned()],
            peers: vec![PeerReport {
                name: format!("node{other}"),
                state: "up".to_owned(),
            }],
        }),
    };
    let pairs = pods
        .iter()
        .flat_map(|from| pods.iter().map(move |to| (from, to)))
        .filter(|(from, to)| from.name != to.name)
        .map(|(from, to)| {
            let same_node = from.node == to.node;
            let rtt = if same_node { 52.0 } else { 231.4 };
            PingPair {
                from: from.name.clone(),
                to: to.name.clone(),
                same_node,
                reached: true,
                best_us: Some(rtt - 10.0),
                median_us: Some(rtt),
            }
        })
        .collect();
    let neighbours = pods[1..]
        .iter()
        .map(|other| NeighbourReport {
            pod: pods[0].name.clone(),
            neighbour: other.name.clone(),
            address: other.address.addr(),
            mac: other.mac,
            is_own: true,
        })
        .collect();
    let layer = |name: &str, offset, len, fields: &[(&str, &str)]| LayerReport {
        name: name.to_owned(),
        offset,
        len,
        fields: fields
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
    };
    let (from, to) = (|| "node1-pod1".to_owned(), || "node2-pod1".to_owned());
    Report {
        version: "0.1.0",
        ok: true,
        failures: Vec::new(),
        underlay: UnderlayReport {
            netns: "weft-lab-underlay".to_owned(),
            range: "10.99.0.0/24".parse().unwrap(),
            mtu: 1500,
        },
        nodes: vec![
            node(1, 2, "10.32.0.0-10.39.255.255"),
            node(2, 1, "10.40.0.0-10.47.255.255"),
        ],
        pods,
        pings: PingReport {
            payload: 56,
            samples: 5,
            pairs,
        },
        neighbours,
        mtu: MtuReport {
            pod: 1450,
            underlay: 1500,
            full_size: Some(FullSizeReport {
                from: from(),
                to: to(),
                bytes: 1450,
                rtt_us: 312.0,
            }),
        },
        throughput: Some(ThroughputReport {
            from: from(),
            to: to(),
            bytes: 1_500_000_000,
            seconds: 2.0,
            gbit_per_s: 6.0,
        }),
        frame: Some(FrameReport {
            from: from(),
            to: to(),
            node: "node1".to_owned(),
            interface: "eth0".to_owned(),
            len: 148,
            layers: vec![
                layer(
                    "Ethernet",
                    0,
                    14,
                    &[
                        ("destination", "02:00:00:00:99:02"),
                        ("source", "02:00:00:00:99:01"),
                        ("type", "0x0800 (IPv4)"),
                    ],
                ),
                layer(
                    "IPv4",
                    14,
                    20,
                    &[("source", "10.99.0.1"), ("destination", "10.99.0.2")],
                ),
                layer(
                    "UDP",
                    34,
                    8,
                    &[("source port", "51966"), ("destination port", "6784")],
                ),
                layer(
                    "VXLAN",
                    42,
                    8,
                    &[("flags", "0x08 (VNI valid)"), ("VNI", "1")],
                ),
                layer(
                    "Ethernet",
                    50,
                    14,
                    &[
                        ("destination", "02:00:00:00:02:01"),
                        ("source", "02:00:00:00:01:01"),
                        ("type", "0x0800 (IPv4)"),
                    ],
                ),
                layer(
                    "IPv4",
                    64,
                    20,
                    &[("source", "10.32.0.2"), ("destination", "10.40.0.2")],
                ),
                layer("ICMP", 84, 8, &[("type", "8 (echo request)")]),
                layer(
                    "data",
                    92,
                    56,
                    &[("length", "56"), ("bytes", "00 01 02 03 ...")],
                ),
            ],
            hex: String::new(),
        }),
    }
}

#[test]
fn the_page_of_a_lab_that_works() {
    let page = render(&report());
    let expected = include_str!("works.txt");
    for (line, expected) in page.lines().zip(expected.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(page.len(), expected.len());
}

#[test]
fn lines_fit_a_terminal() {
    for line in render(&report())
        .lines()
        .chain(farewell("node1-pod1", "10.40.0.3", false).lines())
    {
        assert!(line.chars().count() <= crate::lab::table::WIDTH, "{line}");
    }
}

#[test]
fn a_pair_that_failed_is_shown_in_its_cell_and_named_below() {
    let mut report = report();
    report.ok = false;
    report.pings.pairs[1].reached = false;
    report.pings.pairs[1].median_us = None;
    report
        .failures
        .push("node1-pod1 did not reach node2-pod1".to_owned());
    let page = render(&report);
    assert!(
        page.contains("1  node1-pod1      ·  0.052   FAIL  0.231"),
        "{page}"
    );
    assert!(page.ends_with(
        "FAILED: 11 of 12 pairs of pods reached each other.\n  - node1-pod1 did not reach node2-pod1\n"
    ));
}

#[test]
fn what_was_not_measured_is_not_shown_and_the_numbers_have_no_hole() {
    let mut report = report();
    report.throughput = None;
    report.frame = None;
    let page = render(&report);
    assert!(
        page.contains("5. MTU") && !page.contains("Throughput") && !page.contains("6. "),
        "{page}"
    );
}

#[test]
fn many_pods_are_shown_by_node() {
    let mut report = report();
    let more: Vec<_> = report
        .pods
        .iter()
        .flat_map(|pod| {
            (0..3).map(move |copy| PodReport {
                name: format!("{}{copy}", pod.name),
                ..pod.clone()
            })
        })
        .collect();
    report.pods.extend(more);
    let page = render(&report);
    assert!(page.contains("1  node1      0.052  0.231"), "{page}");
}

#[test]
fn a_router_that_does_not_answer_is_shown_in_its_place() {
    let mut report = report();
    report.nodes[1].router = None;
    let page = render(&report);
    assert!(
        page.contains("└─ node2, 10.99.0.2\n        its router does not answer\n"),
        "{page}"
    );
    assert!(!page.contains("The way of a frame"), "{page}");
}
