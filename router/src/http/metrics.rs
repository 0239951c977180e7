//! Metrics and health on TCP.
//!
//! The metrics are made of a [`Status`] at each scrape, so that they never say anything else than
//! `weft status` (I8).

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use control::{PeerState, Status};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::health::Health;

/// Connections at once. Anyone who reaches the port can open one; a scraper and two probes need
/// three.
pub const MAX_CONNECTIONS: usize = 64;
/// How long a connection may live. Each carries one request.
pub const CONNECTION_LIFETIME: Duration = Duration::from_secs(10);

/// What the metrics server asks of the node.
pub trait Observed: Send + Sync + 'static {
    /// What the node knows about itself.
    fn status(&self) -> impl Future<Output = Result<Status, control::ApiError>> + Send;

    /// Whether the router's loops turn.
    fn health(&self) -> impl Future<Output = Health> + Send;

    /// Whether pods can be attached and their frames are carried.
    fn readiness(&self) -> impl Future<Output = Health> + Send;
}

/// The server's routes.
pub fn router<O: Observed>(node: Arc<O>) -> Router {
    Router::new()
        .route("/metrics", get(metrics::<O>))
        .route("/healthz", get(healthz::<O>))
        .route("/readyz", get(readyz::<O>))
        .layer(axum::middleware::map_response(close))
        .with_state(node)
}

/// One request to a connection, so that idle ones do not use up the few there are.
async fn close(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn metrics<O: Observed>(State(node): State<Arc<O>>) -> Response {
    let status = match node.status().await {
        Ok(status) => status,
        Err(error) => {
            return (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response();
        }
    };
    match render(&status) {
        Ok(text) => {
            const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, TYPE)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn healthz<O: Observed>(State(node): State<Arc<O>>) -> Response {
    probe(&node.health().await)
}

async fn readyz<O: Observed>(State(node): State<Arc<O>>) -> Response {
    probe(&node.readiness().await)
}

fn probe(health: &Health) -> Response {
    let status = if health.is_well() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, health.text()).into_response()
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LinkLabels {
    peer: String,
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    peer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PathLabels {
    peer: String,
    encapsulation: &'static str,
    via: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    condition: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: String,
    node: String,
    id: String,
}

/// The OpenMetrics text of a status.
fn render(status: &Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("weft");
    about_node(&mut registry, status);
    about_links(&mut registry, status);
    about_pool(&mut registry, status);
    about_frames(&mut registry, status);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn about_node(registry: &mut Registry, status: &Status) {
    let build = Family::<BuildLabels, Gauge>::default();
    let labels = BuildLabels {
        version: status.version.clone(),
        node: status.node.name.to_string(),
        id: status.node.id.to_string(),
    };
    build.get_or_create(&labels).set(1);
    registry.register(
        "build_info",
        "Version and identity of the router, always 1",
        build,
    );
    let started = gauge(status.node.started_unix);
    registry.register_with_unit(
        "start_time",
        "When the router started, since 1970-01-01 UTC",
        Unit::Seconds,
        started,
    );
    let mtu = gauge(status.overlay.mtu.into());
    registry.register_with_unit("mtu", "The pods' MTU", Unit::Bytes, mtu);
    let underlay = gauge(status.overlay.underlay_mtu.into());
    registry.register_with_unit("underlay_mtu", "The underlay's MTU", Unit::Bytes, underlay);
    let conditions = Family::<ConditionLabels, Gauge>::default();
    for condition in &status.conditions {
        conditions
            .get_or_create(&ConditionLabels {
                condition: condition.name.clone(),
            })
            .inc();
    }
    registry.register(
        "conditions",
        "What an operator should look at, by kind",
        conditions,
    );
}

fn about_links(registry: &mut Registry, status: &Status) {
    let peers = Family::<StateLabels, Gauge>::default();
    for state in PeerState::ALL {
        let count = status
            .peers
            .iter()
            .filter(|peer| peer.state == state)
            .count();
        peers
            .get_or_create(&StateLabels {
                state: state.as_str(),
            })
            .set(signed(count as u64));
    }
    registry.register("peers", "Peers and VTEPs by the state of their link", peers);

    let frames = Family::<LinkLabels, Counter>::default();
    let bytes = Family::<LinkLabels, Counter>::default();
    let rtt = Family::<PeerLabels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    let mtu = Family::<PeerLabels, Gauge>::default();
    let loss = Family::<PeerLabels, Gauge>::default();
    let path = Family::<PathLabels, Gauge>::default();
    let encrypted = Family::<PeerLabels, Gauge>::default();
    for peer in &status.peers {
        for (direction, frame_count, byte_count) in [
            ("tx", peer.tx_frames, peer.tx_bytes),
            ("rx", peer.rx_frames, peer.rx_bytes),
        ] {
            let labels = LinkLabels {
                peer: peer.name.clone(),
                direction,
            };
            frames.get_or_create(&labels).inc_by(frame_count);
            bytes.get_or_create(&labels).inc_by(byte_count);
        }
        let labels = PeerLabels {
            peer: peer.name.clone(),
        };
        mtu.get_or_create(&labels).set(peer.mtu.into());
        if let Some(percent) = peer.loss_percent {
            loss.get_or_create(&labels).set(percent.into());
        }
        if peer.state.is_open() {
            let labels = PathLabels {
                peer: peer.name.clone(),
                encapsulation: peer.encapsulation.as_str(),
                via: peer.via.clone().unwrap_or_default(),
            };
            path.get_or_create(&labels).set(1);
            let sealed = status.overlay.encrypted && peer.plain.is_none();
            let labels = PeerLabels {
                peer: peer.name.clone(),
            };
            encrypted.get_or_create(&labels).set(sealed.into());
        }
        if let Some(micros) = peer.rtt_us {
            rtt.get_or_create(&labels)
                .set(Duration::from_micros(micros).as_secs_f64());
        }
    }
    registry.register("link_frames", "Frames that crossed a link", frames);
    registry.register_with_unit("link", "Bytes of these frames", Unit::Bytes, bytes);
    registry.register_with_unit("link_mtu", "Largest inner packet", Unit::Bytes, mtu);
    registry.register("link_loss_percent", "Probes lost of the last ones", loss);
    registry.register(
        "link_path",
        "How frames travel to a peer and by which relay, if any; always 1",
        path,
    );
    registry.register(
        "link_encrypted",
        "Whether frames for a peer are sealed",
        encrypted,
    );
    registry.register_with_unit("link_rtt", "Round-trip time to a peer", Unit::Seconds, rtt);
}

fn about_pool(registry: &mut Registry, status: &Status) {
    let ipam = &status.ipam;
    let addresses = Family::<StateLabels, Gauge>::default();
    for (state, count) in [("used", ipam.used), ("free", ipam.free)] {
        addresses
            .get_or_create(&StateLabels { state })
            .set(signed(count));
    }
    registry.register(
        "ipam_addresses",
        "Addresses of this node's part of the range",
        addresses,
    );
    let plan = Family::<StateLabels, Gauge>::default();
    let unreachable: u64 = ipam
        .peers
        .iter()
        .filter(|peer| !peer.connected)
        .map(|peer| peer.owned)
        .fold(0, u64::saturating_add);
    let blocked = ipam.blocked.len() as u64;
    for (state, count) in [
        ("unconfirmed", ipam.unconfirmed),
        ("blocked_ranges", blocked),
        ("estranged", ipam.estranged.len() as u64),
        ("unreachable", unreachable),
    ] {
        plan.get_or_create(&StateLabels { state })
            .set(signed(count));
    }
    registry.register(
        "ipam_plan",
        "Addresses that cannot be handed out as usual, and those of nodes out of reach",
        plan,
    );
    let pending = gauge(ipam.pending);
    registry.register("ipam_pending", "Requests that wait for an address", pending);
    for (name, help, value) in [
        (
            "ipam_gossip_messages",
            "Messages sent about addresses",
            ipam.gossip_messages,
        ),
        (
            "ipam_gossip_bytes",
            "Bytes sent about addresses",
            ipam.gossip_bytes,
        ),
    ] {
        registry.register(name, help, gauge(value));
    }
    let ready = gauge(ipam.ready.into());
    registry.register(
        "ipam_ready",
        "Whether this node can hand out an address",
        ready,
    );
    let macs = Family::<StateLabels, Gauge>::default();
    let local = status.macs.iter().filter(|mac| mac.port == "local").count();
    for (state, count) in [("local", local), ("remote", status.macs.len() - local)] {
        macs.get_or_create(&StateLabels { state })
            .set(signed(count as u64));
    }
    registry.register("macs", "Learned MAC addresses", macs);
}

/// Drops become one family with a label, every other counter its own.
fn about_frames(registry: &mut Registry, status: &Status) {
    let drops = Family::<ReasonLabels, Counter>::default();
    for (name, &value) in &status.counters {
        if let Some(reason) = name.strip_prefix("drop_") {
            drops
                .get_or_create(&ReasonLabels {
                    reason: reason.to_owned(),
                })
                .inc_by(value);
        } else {
            let counter: Counter = Counter::default();
            counter.inc_by(value);
            registry.register(
                name.clone(),
                format!("Total of {}", name.replace('_', " ")),
                counter,
            );
        }
    }
    registry.register("drops", "Frames and datagrams that went no further", drops);
}

fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(signed(value));
    gauge
}

/// A gauge is signed; the sizes of large IPv6 pools end at its limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_say_what_the_status_says() {
        let text = render(&crate::status::sample::status()).unwrap();
        for line in [
            "weft_build_info{version=\"0.1.0\",node=\"node-1\",id=\"0101010101010101\"} 1",
            "weft_peers{state=\"up\"} 2",
            "weft_peers{state=\"down\"} 1",
            "weft_peers{state=\"connecting\"} 0",
            "weft_link_frames_total{peer=\"node-2\",direction=\"tx\"} 10",
            "weft_link_bytes_total{peer=\"node-2\",direction=\"rx\"} 900",
            "weft_link_path{peer=\"node-2\",encapsulation=\"vxlan\",via=\"\"} 1",
            "weft_link_encrypted{peer=\"node-2\"} 0",
            "weft_link_rtt_seconds{peer=\"node-2\"} 0.000312",
            "weft_ipam_addresses{state=\"used\"} 2",
            "weft_ipam_ready 1",
            "weft_macs{state=\"local\"} 1",
            "weft_macs{state=\"remote\"} 1",
            "weft_drops_total{reason=\"no_peer\"} 3",
            "weft_drops_total{reason=\"too_big\"} 0",
            "weft_tap_rx_frames_total 21",
            "weft_mtu_bytes 1450",
            "weft_start_time_seconds 1000000",
            "weft_conditions{condition=\"duplicate_name\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
        }
    }

    #[test]
    fn i8_links_in_trusted_subnets_are_not_encrypted() {
        let mut status = crate::status::sample::status();
        status.overlay.encrypted = true;
        status.peers[1].plain = Some("192.0.2.0/24".parse().unwrap());
        status.peers[2].state = PeerState::Up;
        let text = render(&status).unwrap();
        let shown = |peer: &str, value: u8| {
            let line = format!("weft_link_encrypted{{peer=\"{peer}\"}} {value}\n");
            assert!(text.contains(&line), "{text}");
        };
        shown("node-2", 0);
        shown("node-3", 1);
    }
}
