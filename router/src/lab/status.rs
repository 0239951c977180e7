//! `weft lab status`: the nodes, links and pods of a standing lab.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::table::{Align, Table};
use super::world::World;

#[derive(Debug, Serialize)]
struct LabStatus {
    nodes: Vec<NodeLine>,
    pods: Vec<PodLine>,
}

#[derive(Debug, Serialize)]
struct NodeLine {
    name: String,
    netns: String,
    address: String,
    socket: String,
    /// `running`, or why it does not answer.
    router: String,
    links: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PodLine {
    name: String,
    netns: String,
    address: String,
    mac: String,
}

/// Prints it; fails if a router does not answer.
pub(super) fn print(world: &World, json: bool) -> anyhow::Result<ExitCode> {
    let mut all_answer = true;
    let nodes = world
        .nodes
        .iter()
        .map(|node| {
            let (router, links) = match node.status() {
                Ok(status) => {
                    let link = |peer: &control::PeerStatus| {
                        format!("{} {}", peer.name, peer.state.as_str())
                    };
                    (
                        "running".to_owned(),
                        status.peers.iter().map(link).collect(),
                    )
                }
                Err(error) => {
                    all_answer = false;
                    (error.to_string(), Vec::new())
                }
            };
            NodeLine {
                name: node.layout.name.clone(),
                netns: node.layout.netns.clone(),
                address: node.layout.address.to_string(),
                socket: node.layout.socket.display().to_string(),
                router,
                links,
            }
        })
        .collect();
    let pods = world
        .pods
        .iter()
        .map(|pod| PodLine {
            name: pod.layout.name.clone(),
            netns: pod.layout.netns.clone(),
            address: pod.address.to_string(),
            mac: pod.mac.to_string(),
        })
        .collect();
    let status = LabStatus { nodes, pods };
    let text = if json {
        serde_json::to_string_pretty(&status)? + "\n"
    } else {
        render(&status)
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(if all_answer {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn render(status: &LabStatus) -> String {
    let mut nodes = Table::new(&[Align::Left; 4]);
    nodes.row(["NODE", "UNDERLAY", "ROUTER", "LINKS"]);
    for node in &status.nodes {
        nodes.row([
            &node.name,
            &node.address,
            &node.router,
            &node.links.join(", "),
        ]);
    }
    let mut pods = Table::new(&[Align::Left; 4]);
    pods.row(["POD", "ADDRESS", "MAC", "NAMESPACE"]);
    for pod in &status.pods {
        pods.row([&pod.name, &pod.address, &pod.mac, &pod.netns]);
    }
    format!("{}\n{}", nodes.render(0), pods.render(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_with_a_dead_router() {
        let node = |name: &str, router: &str, links: &[&str]| NodeLine {
            name: name.to_owned(),
            netns: format!("weft-lab-{name}"),
            address: "10.99.0.1".to_owned(),
            socket: "/run/weft-lab/node1/weft.sock".to_owned(),
            router: router.to_owned(),
            links: links.iter().map(|link| (*link).to_owned()).collect(),
        };
        let pod = PodLine {
            name: "node1-pod1".to_owned(),
            netns: "weft-lab-node1-pod1".to_owned(),
            address: "10.32.0.2/12".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
        };
        let status = LabStatus {
            nodes: vec![
                node("node1", "running", &["node2 up", "node3 up"]),
                node("node2", "gone", &[]),
            ],
            pods: vec![pod],
        };
        assert_eq!(
            render(&status),
            "\
NODE   UNDERLAY   ROUTER   LINKS
node1  10.99.0.1  running  node2 up, node3 up
node2  10.99.0.1  gone

POD         ADDRESS       MAC                NAMESPACE
node1-pod1  10.32.0.2/12  02:00:00:00:00:01  weft-lab-node1-pod1
"
        );
    }
}
