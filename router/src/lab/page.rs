//! A report as a page for somebody who has never seen an overlay network: what was built, what
//! was tried, what came out, in that order, in plain text.

mod sections;

#[cfg(test)]
mod tests;

use super::report::Report;

/// The whole page.
pub fn render(report: &Report) -> String {
    let sections = [
        ("The network", sections::network(report)),
        ("Addresses", sections::addresses(report)),
        ("Everyone reaches everyone", sections::pings(report)),
        ("One Ethernet", sections::neighbours(report)),
        ("Throughput", sections::throughput(report)),
        ("MTU", sections::mtu(report)),
        ("A frame on the wire", sections::frame(report)),
    ];
    let mut page = sections::heading(report);
    for (number, (title, body)) in
        (1..).zip(sections.into_iter().filter(|(_, body)| !body.is_empty()))
    {
        page.push_str(&format!("\n{number}. {title}\n\n{body}"));
    }
    page.push('\n');
    page.push_str(&verdict(report));
    page
}

/// The last line or lines: whether it all worked.
pub fn verdict(report: &Report) -> String {
    let pairs = report.pings.pairs.len();
    let reached = report
        .pings
        .pairs
        .iter()
        .filter(|pair| pair.reached)
        .count();
    if report.ok {
        return format!("OK: {reached} of {pairs} pairs of pods reached each other.\n");
    }
    let mut text = format!("FAILED: {reached} of {pairs} pairs of pods reached each other.\n");
    for failure in &report.failures {
        text.push_str(&format!("  - {failure}\n"));
    }
    text
}

/// What a person can do next, with a lab that stands or one that is gone.
pub fn farewell(first_pod: &str, second_pod_address: &str, stands: bool) -> String {
    let lead = if stands {
        "The lab stands. Look around in it:"
    } else {
        "The lab is gone again. To keep one and look around in it:"
    };
    let mut commands = Vec::new();
    if !stands {
        commands.push(("weft lab up".to_owned(), "build one"));
    }
    commands.extend([
        ("weft lab status".to_owned(), "nodes, links, pods"),
        (
            format!("weft lab exec {first_pod} -- ping {second_pod_address}"),
            "a command in a pod",
        ),
        (
            "weft lab exec node1 -- bash".to_owned(),
            "a shell on a node",
        ),
        (
            "weft status --socket /run/weft-lab/node1/weft.sock".to_owned(),
            "a router's own view",
        ),
        ("weft lab show".to_owned(), "this page again"),
        ("weft lab down".to_owned(), "remove it all"),
    ]);
    let mut table = super::table::Table::new(&[super::table::Align::Left; 2]);
    for (command, purpose) in commands {
        table.row([command, purpose.to_owned()]);
    }
    format!("{lead}\n\n{}", table.render(2))
}
