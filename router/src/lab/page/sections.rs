//! The parts of the page, each empty if there is nothing to show.

use wire::vxlan;

use crate::lab::cleanup::counted;
use crate::lab::layout::IFNAME;
use crate::lab::report::{PodReport, Report};
use crate::lab::table::{Align, Table, WIDTH, wrap};

/// Spaces before every line of a section.
const INDENT: usize = 3;
/// More pods than this, and the matrix shows nodes instead: its columns would not fit.
const MATRIX_PODS: usize = 9;
/// More lines than this of one neighbour table say nothing new.
const NEIGHBOURS: usize = 6;
/// Width of the left half of the picture of a frame's way.
const HALF: usize = 24;
/// Width of the arrow between the halves.
const ARROW: usize = 30;

pub(super) fn heading(report: &Report) -> String {
    format!(
        "weft {}: {} on {}, joined to one Ethernet\n\n\
         Every node and every pod here is a network namespace of this machine. On each\n\
         node runs a router, `weft run`. The nodes reach each other only over the\n\
         underlay; the pods were attached by the CNI plugin, weft-cni, as kubelet does.\n",
        report.version,
        counted(report.pods.len(), "pod"),
        counted(report.nodes.len(), "node"),
    )
}

pub(super) fn network(report: &Report) -> String {
    let underlay = &report.underlay;
    let mut text = format!("   underlay {}, MTU {}\n", underlay.range, underlay.mtu);
    for (node, last) in with_last(&report.nodes) {
        let trunk = if last { "  " } else { "│ " };
        let bridge = match &node.router {
            Some(router) => format!(
                "bridge {} {}",
                router.bridge,
                join(&router.bridge_addresses)
            ),
            None => "its router does not answer".to_owned(),
        };
        text.push_str(&format!(
            "   {} {}, {}\n",
            branch(last),
            node.name,
            node.address
        ));
        text.push_str(&format!("   {trunk}   {bridge}\n"));
        let pods: Vec<_> = report
            .pods
            .iter()
            .filter(|pod| pod.node == node.name)
            .collect();
        for (pod, last) in with_last(&pods) {
            let branch = branch(last);
            text.push_str(&format!(
                "   {trunk}   {branch} {}, {}\n",
                pod.name, pod.address
            ));
        }
    }
    if let Some((from, to)) = report.first_pair() {
        text.push_str(&way(report, from, to));
    }
    text
}

/// Each item, and whether it is the last.
fn with_last<T>(items: &[T]) -> impl Iterator<Item = (&T, bool)> {
    items
        .iter()
        .enumerate()
        .map(|(index, item)| (item, index + 1 == items.len()))
}

const fn branch(last: bool) -> &'static str {
    if last { "└─" } else { "├─" }
}

fn join(items: &[impl ToString]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The picture of a frame's way between two nodes whose routers answer.
fn way(report: &Report, from: &PodReport, to: &PodReport) -> String {
    let side = |pod: &PodReport| {
        let node = report.nodes.iter().find(|node| node.name == pod.node)?;
        let router = node.router.as_ref()?;
        let lines = [
            pod.name.clone(),
            format!("   │ {IFNAME}"),
            format!("bridge {}", router.bridge),
            format!("   │ {}", router.tap),
            format!("router {}", node.name),
            format!("{}:{IFNAME}", node.address),
        ];
        Some((
            lines,
            format!(" UDP {}, VXLAN {} ", router.vxlan_port, router.vni),
        ))
    };
    let (Some((left, label)), Some((right, _))) = (side(from), side(to)) else {
        return String::new();
    };
    let dashes = ARROW.saturating_sub(label.chars().count() + 3);
    let (before, after) = ("─".repeat(dashes / 2), "─".repeat(dashes - dashes / 2));
    let arrow = format!("{before}{label}{after}▶");
    let mut text = format!(
        "\n   The way of a frame from {} to {}, and back likewise:\n\n",
        from.name, to.name
    );
    for (left, right) in left.iter().zip(&right) {
        let middle = if left.starts_with("router") {
            arrow.as_str()
        } else {
            ""
        };
        let line = format!("   {left:<HALF$}{middle:<ARROW$}{right}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(super) fn addresses(report: &Report) -> String {
    let mut table = Table::new(&[Align::Left; 5]);
    table.row(["pod", "address", "MAC", "gateway", "MTU"]);
    for pod in &report.pods {
        table.row([
            pod.name.clone(),
            pod.address.to_string(),
            pod.mac.to_string(),
            pod.gateway
                .map(|gateway| gateway.to_string())
                .unwrap_or_default(),
            pod.mtu.to_string(),
        ]);
    }
    let mut text = table.render(INDENT);
    let owned: Vec<_> = report
        .nodes
        .iter()
        .filter_map(|node| {
            let owned = &node.router.as_ref()?.owned;
            (!owned.is_empty()).then(|| format!("{} {}", node.name, owned.join(" ")))
        })
        .collect();
    if let (Some(pod), false) = (report.pods.first(), owned.is_empty()) {
        text.push_str(&format!(
            "\n   One range for all, {}, of which each node hands out a part of its\n   \
             own, so that no pod waits for another node:\n",
            pod.address.trunc()
        ));
        text.push_str(&wrap("   ", owned, ", "));
    }
    text
}

pub(super) fn pings(report: &Report) -> String {
    let pings = &report.pings;
    let mut text = if report.pods.len() <= MATRIX_PODS {
        pods_matrix(report)
    } else {
        nodes_matrix(report)
    };
    let reached = pings.pairs.iter().filter(|pair| pair.reached).count();
    text.push_str(&format!(
        "\n   {reached} of {} pairs reached each other with ping ({} bytes of data)",
        pings.pairs.len(),
        pings.payload
    ));
    let medians: Vec<_> = [("on one node", true), ("between nodes", false)]
        .into_iter()
        .filter_map(|(place, same)| {
            let median = pings.median_us(|pair| pair.same_node == same)?;
            Some(format!("{place} {} ms", milliseconds(median)))
        })
        .collect();
    if medians.is_empty() {
        text.push_str(".\n");
    } else {
        text.push_str(&format!(
            ".\n   Typical round trip: {}.\n",
            medians.join(", ")
        ));
    }
    text
}

fn pods_matrix(report: &Report) -> String {
    let columns = report.pods.len() + 2;
    let mut align = vec![Align::Right; columns];
    align[1] = Align::Left;
    let mut table = Table::new(&align);
    let numbers = (1..=report.pods.len()).map(|number| number.to_string());
    table.row(
        [String::new(), "from \\ to".to_owned()]
            .into_iter()
            .chain(numbers),
    );
    for (number, from) in (1..).zip(&report.pods) {
        let cells = report.pods.iter().map(|to| {
            if from.name == to.name {
                return "·".to_owned();
            }
            match report.pings.pair(&from.name, &to.name) {
                Some(pair) if pair.reached => pair
                    .median_us
                    .map_or_else(|| "lost".to_owned(), milliseconds),
                _ => "FAIL".to_owned(),
            }
        });
        table.row(
            [format!("{number}"), from.name.clone()]
                .into_iter()
                .chain(cells),
        );
    }
    format!(
        "{}   Milliseconds, the median of {}.\n",
        table.render(INDENT),
        report.pings.samples
    )
}

fn nodes_matrix(report: &Report) -> String {
    let node_of = |name: &str| {
        report
            .pods
            .iter()
            .find(|pod| pod.name == name)
            .map_or("", |pod| pod.node.as_str())
    };
    let mut align = vec![Align::Right; report.nodes.len() + 2];
    align[1] = Align::Left;
    let mut table = Table::new(&align);
    let numbers = (1..=report.nodes.len()).map(|number| number.to_string());
    table.row(
        [String::new(), "from \\ to".to_owned()]
            .into_iter()
            .chain(numbers),
    );
    for (number, from) in (1..).zip(&report.nodes) {
        let cells = report.nodes.iter().map(|to| {
            let between = |pair: &crate::lab::report::PingPair| {
                node_of(&pair.from) == from.name && node_of(&pair.to) == to.name
            };
            if report
                .pings
                .pairs
                .iter()
                .any(|pair| between(pair) && !pair.reached)
            {
                return "FAIL".to_owned();
            }
            report
                .pings
                .median_us(between)
                .map_or_else(|| "·".to_owned(), milliseconds)
        });
        table.row(
            [format!("{number}"), from.name.clone()]
                .into_iter()
                .chain(cells),
        );
    }
    format!(
        "{}   Milliseconds, the median over the nodes' pods.\n",
        table.render(INDENT)
    )
}

pub(super) fn neighbours(report: &Report) -> String {
    let Some(first) = report.neighbours.first() else {
        return String::new();
    };
    let mut table = Table::new(&[Align::Left; 3]);
    let of_first: Vec<_> = report
        .neighbours
        .iter()
        .filter(|entry| entry.pod == first.pod)
        .collect();
    for entry in of_first.iter().take(NEIGHBOURS) {
        let whose = if entry.is_own {
            format!("eth0 of {}", entry.neighbour)
        } else {
            format!("NOT the MAC of {}", entry.neighbour)
        };
        table.row([entry.address.to_string(), entry.mac.to_string(), whose]);
    }
    let more = of_first.len().saturating_sub(NEIGHBOURS);
    let own = report
        .neighbours
        .iter()
        .filter(|entry| entry.is_own)
        .count();
    format!(
        "   To {} all pods are neighbours on one Ethernet. Its kernel asked by\n   \
         ARP who has their addresses, and each pod answered for itself:\n\n{}{}\n   \
         Likewise in every pod: {own} of {} entries hold the MAC of the pod itself.\n",
        first.pod,
        table.render(INDENT),
        if more == 0 {
            String::new()
        } else {
            format!("   and {more} more\n")
        },
        report.neighbours.len(),
    )
}

pub(super) fn throughput(report: &Report) -> String {
    let Some(transfer) = &report.throughput else {
        return String::new();
    };
    format!(
        "   {:.2} Gbit/s from {} to {}: one TCP connection for {:.1} s,\n   \
         with all nodes and pods on the CPUs of this one machine.\n",
        transfer.gbit_per_s, transfer.from, transfer.to, transfer.seconds
    )
}

pub(super) fn mtu(report: &Report) -> String {
    let mtu = &report.mtu;
    let overhead = mtu.underlay.saturating_sub(mtu.pod);
    let mut text = format!(
        "   The pods have an MTU of {}: the underlay's {} less {overhead} for what a frame is\n   \
         packed in",
        mtu.pod, mtu.underlay
    );
    text.push_str(if overhead == vxlan::OVERHEAD_IPV4 {
        ": IP 20, UDP 8, VXLAN 8, and the pod's own Ethernet header 14.\n"
    } else {
        ".\n"
    });
    if let Some(full) = &mtu.full_size {
        text.push_str(&format!(
            "   A ping of {} bytes, the most that fits, went from {} to\n   {} and back in {} ms.\n",
            full.bytes,
            full.from,
            full.to,
            milliseconds(full.rtt_us)
        ));
    }
    text
}

pub(super) fn frame(report: &Report) -> String {
    let Some(frame) = &report.frame else {
        return String::new();
    };
    let mut text = format!(
        "   A ping from {} to {}, as it left {} on {}:\n\n   \
         offset  bytes  layer\n",
        frame.from, frame.to, frame.node, frame.interface
    );
    // The pod's own frame begins with the second Ethernet header.
    let inner = frame
        .layers
        .iter()
        .rposition(|layer| layer.name == "Ethernet")
        .unwrap_or(0);
    let outer_len = frame.layers.get(inner).map_or(0, |layer| layer.offset);
    for (index, layer) in frame.layers.iter().enumerate() {
        if index == 0 && inner > 0 {
            text.push_str(&rule(&format!("weft's envelope, {outer_len} bytes")));
        }
        if index == inner {
            text.push_str(&rule(&format!(
                "the pod's frame, {} bytes",
                frame.len - outer_len
            )));
        }
        let head = format!(
            "   {:>6}  {:>5}  {:<8}  ",
            layer.offset, layer.len, layer.name
        );
        let fields = layer
            .fields
            .iter()
            .map(|(name, value)| format!("{name} {value}"));
        text.push_str(&wrap(&head, fields, ", "));
    }
    let lengths: Vec<_> = frame
        .layers
        .iter()
        .map(|layer| layer.len.to_string())
        .collect();
    text.push_str(&format!(
        "\n   {} = {} bytes on the wire.\n",
        lengths.join(" + "),
        frame.len
    ));
    text
}

/// A line across the page with a word on what follows.
fn rule(label: &str) -> String {
    let start = format!("   ── {label} ");
    let dashes = WIDTH.saturating_sub(start.chars().count());
    format!("{start}{}\n", "─".repeat(dashes))
}

/// Microseconds as milliseconds, with as many digits as mean something.
fn milliseconds(us: f64) -> String {
    let ms = us / 1000.0;
    match ms {
        ..1.0 => format!("{ms:.3}"),
        ..10.0 => format!("{ms:.2}"),
        _ => format!("{ms:.0}"),
    }
}

impl Report {
    /// The first pod, and the first one on another node.
    pub fn first_pair(&self) -> Option<(&PodReport, &PodReport)> {
        let from = self.pods.first()?;
        Some((from, self.pods.iter().find(|pod| pod.node != from.node)?))
    }
}
