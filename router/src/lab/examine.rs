//! Tries everything that the page shows, in a world that stands.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use anyhow::bail;
use ipnet::Ipv4Net;

use super::interrupt::Interrupt;
use super::layout::{IFNAME, UNDERLAY_PREFIX};
use super::probe::ping::{self, Pinger};
use super::probe::{capture, neighbours, throughput};
use super::progress::Progress;
use super::report::{
    FrameReport, FullSizeReport, LayerReport, MtuReport, NodeReport, PeerReport, PingPair,
    PingReport, PodReport, Report, RouterReport, ThroughputReport, UnderlayReport, median,
};
use super::world::{Node, Pod, World};

/// How often a silent pod is asked, and how long each time: a lost first frame is normal while
/// addresses are being resolved, three in a row are not.
const REACH_ATTEMPTS: u32 = 3;
const REACH_PATIENCE: Duration = Duration::from_secs(1);
/// How long one timed round trip may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Timed round trips per pair, and the number of pairs from which on one must do.
const SAMPLES: usize = 5;
const MANY_PAIRS: usize = 1000;
/// How long TCP is measured.
const THROUGHPUT_TIME: Duration = Duration::from_secs(2);

/// What to leave out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Examination {
    /// Do not measure TCP throughput.
    pub skip_throughput: bool,
}

/// Tries everything. What fails becomes part of the report; an error is only what keeps the lab
/// from trying, an interruption included.
pub fn examine(
    world: &World,
    what: Examination,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> anyhow::Result<Report> {
    progress.step("asking the routers what they see");
    let mut failures = Vec::new();
    let nodes = world
        .nodes
        .iter()
        .map(|node| node_report(node, &mut failures))
        .collect();
    let pods = world
        .pods
        .iter()
        .map(|pod| pod_report(world, pod))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        ok: false,
        failures,
        underlay: UnderlayReport {
            netns: world.layout().underlay_netns(),
            range: Ipv4Net::new(world.layout().node(1).address, UNDERLAY_PREFIX)?
                .trunc()
                .into(),
            mtu: world.layout().underlay_mtu,
        },
        mtu: MtuReport {
            pod: pods.iter().map(|pod| pod.mtu).min().unwrap_or(0),
            underlay: world.layout().underlay_mtu,
            full_size: None,
        },
        nodes,
        pods,
        pings: PingReport {
            payload: ping::PAYLOAD,
            samples: SAMPLES,
            pairs: Vec::new(),
        },
        neighbours: Vec::new(),
        throughput: None,
        frame: None,
    };

    progress.step("every pod pings every other pod");
    let mut pingers = world
        .pods
        .iter()
        .zip(1..)
        .map(|(pod, identifier)| Pinger::open(&pod.netns, identifier))
        .collect::<anyhow::Result<Vec<_>>>()?;
    report.pings = ping_all(world, &mut pingers, interrupt, progress)?;
    for pair in report.pings.pairs.iter().filter(|pair| !pair.reached) {
        report
            .failures
            .push(format!("{} did not reach {}", pair.from, pair.to));
    }

    progress.step("reading the pods' neighbour tables");
    for pod in &world.pods {
        interrupt.check()?;
        report.neighbours.extend(neighbours::of(pod, world)?);
    }
    for entry in report.neighbours.iter().filter(|entry| !entry.is_own) {
        report.failures.push(format!(
            "{} has {} for {}, which is not the MAC of {}",
            entry.pod, entry.mac, entry.address, entry.neighbour
        ));
    }

    if let Some((from, to)) = across(world) {
        across_nodes(world, from, to, &mut pingers[0], &mut report, progress)?;
        interrupt.check()?;
        if !what.skip_throughput {
            measure(from, to, &mut report, interrupt, progress);
        }
    }
    interrupt.check()?;
    progress.finish();
    report.ok = report.failures.is_empty();
    Ok(report)
}

/// The first pod, and the first pod on another node.
fn across(world: &World) -> Option<(&Pod, &Pod)> {
    let from = world.pods.first()?;
    Some((
        from,
        world
            .pods
            .iter()
            .find(|pod| pod.layout.node != from.layout.node)?,
    ))
}

/// What is seen between two pods on different nodes: a packet of the full size, and a frame.
fn across_nodes(
    world: &World,
    from: &Pod,
    to: &Pod,
    pinger: &mut Pinger,
    report: &mut Report,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let names = || (from.layout.name.clone(), to.layout.name.clone());
    let target = ipv4(to)?;

    progress.step("sending a packet as large as the MTU");
    let headers = ping::IPV4_HEADER + ping::ICMP_HEADER;
    let payload = usize::from(report.mtu.pod).saturating_sub(headers);
    report.mtu.full_size = pinger
        .ping(target, payload, PATIENCE)
        .ok()
        .flatten()
        .map(|rtt| {
            let (from, to) = names();
            FullSizeReport {
                from,
                to,
                bytes: report.mtu.pod,
                rtt_us: microseconds(rtt),
            }
        });
    if report.mtu.full_size.is_none() {
        report.failures.push(format!(
            "a packet of {} bytes, the pods' MTU, from {} was not answered by {}",
            report.mtu.pod, from.layout.name, to.layout.name
        ));
    }

    progress.step("capturing a frame between two nodes");
    let node = world.node_of(from);
    let port = report
        .nodes
        .iter()
        .find(|report| report.name == node.layout.name)
        .and_then(|report| report.router.as_ref())
        .map_or(wire::vxlan::DEFAULT_PORT, |router| router.vxlan_port);
    report.frame = capture::echo_request(&node.netns, port, pinger, target)?.map(|captured| {
        let (from, to) = names();
        FrameReport {
            from,
            to,
            node: node.layout.name.clone(),
            interface: IFNAME.to_owned(),
            len: captured.frame.len(),
            hex: captured
                .frame
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            layers: captured
                .layers
                .into_iter()
                .map(|layer| LayerReport {
                    name: layer.name.to_owned(),
                    offset: layer.offset,
                    len: layer.len,
                    fields: layer
                        .fields
                        .into_iter()
                        .map(|(n, v)| (n.to_owned(), v))
                        .collect(),
                })
                .collect(),
        }
    });
    if report.frame.is_none() {
        report.failures.push(format!(
            "no ping in VXLAN to UDP port {port} was seen on {} of {}",
            IFNAME, node.layout.name
        ));
    }
    Ok(())
}

fn measure(
    from: &Pod,
    to: &Pod,
    report: &mut Report,
    interrupt: &Interrupt,
    progress: &mut Progress,
) {
    progress.step(format!("measuring TCP for {} s", THROUGHPUT_TIME.as_secs()));
    match throughput::tcp(
        &from.netns,
        &to.netns,
        to.address.addr(),
        THROUGHPUT_TIME,
        interrupt,
    ) {
        Ok(transfer) => {
            report.throughput = Some(ThroughputReport {
                from: from.layout.name.clone(),
                to: to.layout.name.clone(),
                bytes: transfer.bytes,
                seconds: transfer.elapsed.as_secs_f64(),
                gbit_per_s: transfer.gbit_per_s(),
            });
        }
        Err(error) => report.failures.push(format!(
            "TCP from {} to {}: {error:#}",
            from.layout.name, to.layout.name
        )),
    }
}

/// First whether each pod answers, all at once; then how long it takes, one after the other.
fn ping_all(
    world: &World,
    pingers: &mut [Pinger],
    interrupt: &Interrupt,
    progress: &Progress,
) -> anyhow::Result<PingReport> {
    let targets = world
        .pods
        .iter()
        .map(ipv4)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let reached: Vec<Vec<bool>> = thread::scope(|scope| {
        let threads: Vec<_> = pingers
            .iter_mut()
            .map(|pinger| scope.spawn(|| pinger.reach(&targets, REACH_ATTEMPTS, REACH_PATIENCE)))
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => Ok(result?),
                Err(_) => bail!("a pinging thread panicked"),
            })
            .collect::<anyhow::Result<_>>()
    })?;

    let count = targets.len() * targets.len().saturating_sub(1);
    let samples = if count > MANY_PAIRS { 1 } else { SAMPLES };
    let mut pairs = Vec::with_capacity(count);
    for ((from, pinger), reached) in world.pods.iter().zip(pingers).zip(reached) {
        progress.detail(&from.layout.name);
        for ((to, target), reached) in world.pods.iter().zip(&targets).zip(reached) {
            if from.layout == to.layout {
                continue;
            }
            interrupt.check()?;
            let times = if reached {
                round_trips(pinger, *target, samples)?
            } else {
                Vec::new()
            };
            pairs.push(PingPair {
                from: from.layout.name.clone(),
                to: to.layout.name.clone(),
                same_node: from.layout.node == to.layout.node,
                reached,
                best_us: times.iter().copied().min_by(f64::total_cmp),
                median_us: median(times),
            });
        }
    }
    Ok(PingReport {
        payload: ping::PAYLOAD,
        samples,
        pairs,
    })
}

fn round_trips(pinger: &mut Pinger, target: Ipv4Addr, samples: usize) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        if let Some(rtt) = pinger.ping(target, ping::PAYLOAD, PATIENCE)? {
            times.push(microseconds(rtt));
        }
    }
    Ok(times)
}

fn node_report(node: &Node, failures: &mut Vec<String>) -> NodeReport {
    let router = match node.status() {
        Ok(status) => Some(router_report(status)),
        Err(error) => {
            failures.push(format!(
                "the router of {} does not answer: {error}",
                node.layout.name
            ));
            None
        }
    };
    NodeReport {
        name: node.layout.name.clone(),
        netns: node.layout.netns.clone(),
        address: node.layout.address,
        router,
    }
}

fn router_report(status: control::Status) -> RouterReport {
    RouterReport {
        id: status.node.id.to_string(),
        bridge: status.overlay.bridge,
        bridge_addresses: status.overlay.bridge_addresses,
        tap: status.overlay.tap,
        vxlan_port: status.overlay.vxlan_port,
        vni: status.overlay.vni,
        owned: status
            .ipam
            .owned
            .into_iter()
            .map(|owned| owned.range)
            .collect(),
        peers: status
            .peers
            .into_iter()
            .map(|peer| PeerReport {
                name: peer.name,
                state: peer.state.as_str().to_owned(),
            })
            .collect(),
    }
}

fn pod_report(world: &World, pod: &Pod) -> anyhow::Result<PodReport> {
    Ok(PodReport {
        name: pod.layout.name.clone(),
        node: world.node_of(pod).layout.name.clone(),
        netns: pod.layout.netns.clone(),
        address: pod.address,
        gateway: pod.gateway,
        mac: pod.mac,
        mtu: neighbours::mtu(pod)?,
    })
}

/// The pod's address; the lab pings with ICMP for IPv4.
fn ipv4(pod: &Pod) -> anyhow::Result<Ipv4Addr> {
    match pod.address.addr() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => bail!(
            "{} has {address}, and the lab speaks IPv4 only",
            pod.layout.name
        ),
    }
}

#[expect(clippy::cast_precision_loss, reason = "no ping takes 2^53 nanoseconds")]
fn microseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}
