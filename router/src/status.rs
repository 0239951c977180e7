//! What the node says of itself: the parts' own accounts put together. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use control::{
    Condition, Encapsulation, IpamStatus, MacStatus, NodeStatus, OverlayStatus, PeerKind,
    PeerState, PeerStatus, Status, TargetStatus, WayStatus,
};
use fastpath::LinkTotals;
use mesh::link::{LinkState, LinkView, WayView};
use mesh::{PeerView, TargetState, TargetView};
use wire::PeerId;

use crate::io::datapath::{LinkKey, LinkTarget, MacView};
use crate::switch::{Switch, Vtep, VtepUse};
use crate::targets::TargetBook;

/// What a status is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The node itself.
    pub node: NodeStatus,
    /// The overlay as this node forms it.
    pub overlay: OverlayStatus,
    /// The mesh's peers.
    pub peers: &'a [PeerView],
    /// What probes say of the links.
    pub judged: &'a [LinkView],
    /// What becomes of the addresses that the operator named.
    pub targets: &'a [TargetView],
    /// Who named them.
    pub book: &'a TargetBook,
    /// The composition of links.
    pub switch: &'a Switch,
    /// The data path's links and what crossed them.
    pub links: &'a [(LinkTarget, LinkTotals)],
    /// The MAC table.
    pub macs: &'a [MacView],
    /// The address pool.
    pub ipam: IpamStatus,
    /// The data path's counters, and others'.
    pub counters: BTreeMap<String, u64>,
    /// What an operator should look at.
    pub conditions: Vec<Condition>,
    /// The caller's monotonic time.
    pub now: Duration,
}

/// Puts a status together.
pub fn assemble(parts: Parts<'_>) -> Status {
    let links: HashMap<_, _> = parts
        .links
        .iter()
        .map(|(target, totals)| (target.key, (target, *totals)))
        .collect();
    let relay = |id: PeerId| {
        let name = parts.switch.peer_name(id);
        name.map_or_else(|| id.to_string(), ToString::to_string)
    };
    let judged: HashMap<_, _> = parts.judged.iter().map(|view| (view.id, view)).collect();
    let mut peers: Vec<_> = parts
        .peers
        .iter()
        .map(|view| peer(view, &links, judged.get(&view.id).copied(), relay))
        .collect();
    peers.extend(parts.targets.iter().filter_map(nobody_yet));
    let vteps = parts.switch.vteps();
    peers.extend(
        vteps
            .iter()
            .map(|(vtep, used)| foreign(vtep, used, &links, parts.now)),
    );
    peers.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));

    let mut names: HashMap<LinkKey, String> = parts
        .peers
        .iter()
        .map(|view| (LinkKey::Peer(view.id), view.name.to_string()))
        .collect();
    for (vtep, used) in &vteps {
        if let VtepUse::Link(link) = used {
            names.insert(link.key, vtep.endpoint.to_string());
        }
    }
    let mut macs: Vec<_> = parts.macs.iter().map(|view| mac(view, &names)).collect();
    macs.sort_by(|a, b| (&a.port, a.mac).cmp(&(&b.port, b.mac)));

    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: parts.node,
        overlay: parts.overlay,
        targets: parts
            .targets
            .iter()
            .map(|view| target(view, parts.book, parts.peers))
            .collect(),
        peers,
        sessions: Vec::new(),
        macs,
        ipam: parts.ipam,
        counters: parts.counters,
        conditions: parts.conditions,
    }
}

type LinkMap<'a> = HashMap<LinkKey, (&'a LinkTarget, LinkTotals)>;

/// What the mesh says of a peer, with what the data path does (I8): a peer that the mesh takes for
/// up and that has no link is not up.
fn peer(
    view: &PeerView,
    links: &LinkMap<'_>,
    judged: Option<&LinkView>,
    relay: impl Fn(PeerId) -> String,
) -> PeerStatus {
    let link = links.get(&LinkKey::Peer(view.id));
    let (state, reason) = match judged {
        Some(judged) => (state(judged.state), told(judged)),
        None => (
            match view.state {
                mesh::PeerState::Up => PeerState::Up,
                mesh::PeerState::Connecting => PeerState::Connecting,
                mesh::PeerState::Down => PeerState::Down,
            },
            view.reason.clone(),
        ),
    };
    let (state, reason) = if state.is_open() && link.is_none() {
        let reason = "the data path has no link to it yet".to_owned();
        (PeerState::Connecting, Some(reason))
    } else {
        (state, reason)
    };
    let totals = link.map(|(_, totals)| *totals).unwrap_or_default();
    let quality = judged.map(|judged| judged.quality).unwrap_or_default();
    PeerStatus {
        name: view.name.to_string(),
        id: Some(view.id),
        kind: PeerKind::Peer,
        address: link.map(|(target, _)| target.endpoint).or(view.endpoint),
        via: link.and_then(|(target, _)| target.via).map(&relay),
        hops: judged
            .and_then(|judged| judged.path.as_ref())
            .map(|path| path.hops)
            .filter(|_| link.is_some()),
        control: view.control,
        control_via: view.via.as_ref().map(ToString::to_string),
        control_hops: view.hops.map(|hops| hops.try_into().unwrap_or(u32::MAX)),
        version: view.version.clone(),
        state,
        reason,
        since_secs: judged.map_or(view.since, |judged| judged.since).as_secs(),
        encapsulation: link.map_or(Encapsulation::Vxlan, |(target, _)| {
            match target.encapsulation {
                fastpath::Encapsulation::Vxlan => Encapsulation::Vxlan,
                fastpath::Encapsulation::Sleeve => Encapsulation::Sleeve,
            }
        }),
        plain: link
            .filter(|(target, _)| {
                target.encapsulation == fastpath::Encapsulation::Vxlan && target.plain.is_some()
            })
            .and_then(|_| judged?.ways.iter().find_map(|way| way.plain)),
        mtu: link
            .map(|(target, _)| target.mtu)
            .or(view.mtu)
            .unwrap_or_default(),
        rtt_us: quality.rtt.or(view.rtt).map(micros),
        loss_percent: quality.loss,
        ways: judged
            .iter()
            .flat_map(|judged| &judged.ways)
            .map(|view| way(view, &relay))
            .collect(),
        tx_frames: totals.tx_frames,
        rx_frames: totals.rx_frames,
        tx_bytes: totals.tx_bytes,
        rx_bytes: totals.rx_bytes,
    }
}

fn way(view: &WayView, relay: impl Fn(PeerId) -> String) -> WayStatus {
    WayStatus {
        encapsulation: match view.encapsulation {
            mesh::Encapsulation::Vxlan => Encapsulation::Vxlan,
            mesh::Encapsulation::Sleeve => Encapsulation::Sleeve,
        },
        via: view.relay.map(relay),
        in_use: view.chosen,
        plain: view.plain,
        address: view.endpoint,
        state: state(view.state),
        reason: view.reason.clone(),
        since_secs: view.since.as_secs(),
        mtu: view.quality.mtu,
        rtt_us: view.quality.rtt.map(micros),
        loss_percent: view.quality.loss,
    }
}

/// Why a link is not up, or why it is not the best there could be.
fn told(judged: &LinkView) -> Option<String> {
    let path = judged.path.as_ref();
    judged
        .reason
        .clone()
        .or_else(|| path.and_then(|path| path.reason.clone()))
}

fn state(of: LinkState) -> PeerState {
    match of {
        LinkState::Connecting => PeerState::Connecting,
        LinkState::Up => PeerState::Up,
        LinkState::Degraded => PeerState::Degraded,
        LinkState::Down => PeerState::Down,
    }
}

fn micros(span: Duration) -> u64 {
    span.as_micros().try_into().unwrap_or(u64::MAX)
}

/// An address that the operator named, and at which no peer is known yet.
fn nobody_yet(view: &TargetView) -> Option<PeerStatus> {
    let state = match view.state {
        TargetState::Peer(_) | TargetState::Myself => return None,
        TargetState::Waiting if view.reason.is_some() => PeerState::Down,
        TargetState::Waiting | TargetState::Connecting => PeerState::Connecting,
    };
    Some(PeerStatus {
        name: view.target.to_string(),
        id: None,
        kind: PeerKind::Peer,
        address: None,
        via: None,
        hops: None,
        control: view.target.literal(),
        control_via: None,
        control_hops: None,
        version: None,
        state,
        reason: view.reason.clone(),
        since_secs: 0,
        encapsulation: Encapsulation::Vxlan,
        plain: None,
        mtu: 0,
        rtt_us: None,
        loss_percent: None,
        ways: Vec::new(),
        tx_frames: 0,
        rx_frames: 0,
        tx_bytes: 0,
        rx_bytes: 0,
    })
}

/// A target, by whom it was named and who was found there.
fn target(view: &TargetView, book: &TargetBook, peers: &[PeerView]) -> TargetStatus {
    let (state, id) = match view.state {
        TargetState::Waiting => (control::TargetState::Waiting, None),
        TargetState::Connecting => (control::TargetState::Connecting, None),
        TargetState::Peer(id) => (control::TargetState::Found, Some(id)),
        TargetState::Myself => (control::TargetState::Myself, None),
    };
    let peer = id.and_then(|id| peers.iter().find(|peer| peer.id == id));
    TargetStatus {
        target: view.target.to_string(),
        source: book.source(&view.target),
        state,
        peer: peer.map(|peer| peer.name.to_string()),
        id,
        retry_secs: view.retry_in.map(|span| span.as_secs()),
        reason: view.reason.clone(),
    }
}

/// A VTEP is never asked how it is, so a link to it is up as soon as it is there.
fn foreign(vtep: &Vtep, used: &VtepUse, links: &LinkMap<'_>, now: Duration) -> PeerStatus {
    let (link, reason) = match used {
        VtepUse::Link(target) => (links.get(&target.key), None),
        VtepUse::LeftOut(reason) => (None, Some(reason.clone())),
    };
    let totals = link.map(|(_, totals)| *totals).unwrap_or_default();
    PeerStatus {
        name: vtep.endpoint.to_string(),
        id: None,
        kind: PeerKind::Vtep,
        address: vtep.resolved.as_ref().ok().copied(),
        via: None,
        hops: link.map(|_| 1),
        control: None,
        control_via: None,
        control_hops: None,
        version: None,
        state: if link.is_some() {
            PeerState::Up
        } else {
            PeerState::Down
        },
        reason,
        since_secs: now.saturating_sub(vtep.since).as_secs(),
        encapsulation: Encapsulation::Vxlan,
        plain: None,
        mtu: link.map(|(target, _)| target.mtu).unwrap_or_default(),
        rtt_us: None,
        loss_percent: None,
        ways: Vec::new(),
        tx_frames: totals.tx_frames,
        rx_frames: totals.rx_frames,
        tx_bytes: totals.tx_bytes,
        rx_bytes: totals.rx_bytes,
    }
}

fn mac(view: &MacView, names: &HashMap<LinkKey, String>) -> MacStatus {
    let port = match view.link {
        None => "local".to_owned(),
        Some(key) => names.get(&key).cloned().unwrap_or_else(|| match key {
            LinkKey::Peer(id) => id.to_string(),
            LinkKey::Vtep(address) => address.to_string(),
        }),
    };
    MacStatus {
        mac: view.mac,
        port,
        age_secs: view.age.as_secs(),
    }
}

/// A status for the tests of whoever shows one.
#[cfg(test)]
pub(crate) mod sample {
    use mesh::link::Quality;

    use super::*;

    /// A node with one peer up, one down, a VTEP, and something to say about each part.
    pub(crate) fn status() -> Status {
        let id = PeerId([0xab; 8]);
        let node = NodeStatus {
            name: "node-1".parse().unwrap(),
            id: PeerId([1; 8]),
            fingerprint: "01".repeat(32),
            started_unix: 1_000_000,
            underlay: vec!["192.0.2.1:6784".parse().unwrap()],
            control: Some("[::]:6783".parse().unwrap()),
            left: false,
            discovery: true,
            connections: 1,
            conn_limit: 200,
            socket: "/run/weft/weft.sock".to_owned(),
            state_dir: "/var/lib/weft".to_owned(),
        };
        let overlay = OverlayStatus {
            bridge: "weft".to_owned(),
            bridge_mac: wire::Mac([2, 0, 0, 0, 0, 1]),
            bridge_addresses: vec!["10.32.0.1/12".parse().unwrap()],
            tap: "weft-tap".to_owned(),
            queues: 2,
            mtu: 1450,
            underlay_mtu: 1500,
            vni: 1,
            vxlan_port: 6784,
            sleeve_port: 6783,
            offloads: vec!["tso".to_owned(), "udp-gso".to_owned()],
            encrypted: false,
            trusted_subnets: Vec::new(),
        };
        let view = |n: u8, name: &str, state, reason: Option<&str>| PeerView {
            name: name.parse().unwrap(),
            id: PeerId([n; 8]),
            endpoint: Some(([192, 0, 2, n], 6784).into()),
            control: Some(([192, 0, 2, n], 6783).into()),
            connected: state == mesh::PeerState::Up,
            hops: (state == mesh::PeerState::Up).then_some(1),
            via: None,
            state,
            reason: reason.map(str::to_owned),
            since: Duration::from_secs(75),
            mtu: Some(1450),
            rtt: (state == mesh::PeerState::Up).then_some(Duration::from_micros(312)),
            version: Some("0.1.0".to_owned()),
        };
        let peers = [
            view(0xab, "node-2", mesh::PeerState::Up, None),
            view(
                0xac,
                "node-3",
                mesh::PeerState::Down,
                Some("no answer for 60 s"),
            ),
        ];
        let vtep = crate::settings::Endpoint::parse("192.0.2.7", 8472).unwrap();
        let switch = Switch::new(1500, 6784, [], [vtep], Duration::ZERO);
        let endpoint = ([192, 0, 2, 0xab], 6784).into();
        let peer_link = LinkTarget::vxlan(LinkKey::Peer(id), endpoint, 1450);
        let totals = LinkTotals {
            tx_frames: 10,
            tx_bytes: 1000,
            rx_frames: 8,
            rx_bytes: 900,
            too_big: 0,
        };
        let mut links = vec![(peer_link, totals)];
        links.extend(
            switch
                .links()
                .into_iter()
                .map(|link| (link, LinkTotals::default())),
        );
        let macs = [
            MacView {
                mac: wire::Mac([2, 0, 0, 0, 0, 7]),
                link: None,
                age: Duration::from_secs(3),
            },
            MacView {
                mac: wire::Mac([2, 0, 0, 0, 0, 9]),
                link: Some(LinkKey::Peer(id)),
                age: Duration::from_secs(1),
            },
        ];
        let ipam = IpamStatus {
            range: "10.32.0.0/12".parse().unwrap(),
            ready: true,
            reason: None,
            seeds: vec!["node-1".parse().unwrap(), "node-2".parse().unwrap()],
            owned: vec![control::OwnedRange {
                range: "10.32.0.0-10.39.255.255".to_owned(),
                size: 524_288,
            }],
            used: 2,
            free: 524_286,
            allocations: vec![],
            peers: Vec::new(),
            unconfirmed: 0,
            waiting: Vec::new(),
            blocked: Vec::new(),
            estranged: Vec::new(),
            pending: 0,
            gossip_messages: 0,
            gossip_bytes: 0,
            conditions: Vec::new(),
        };
        let counters = [
            ("asked_all", 1),
            ("asked_owner", 5),
            ("drop_no_peer", 3),
            ("drop_too_big", 0),
            ("flooded", 7),
            ("multicast_selected", 3),
            ("tap_rx_frames", 21),
        ];
        let quality = |mtu| Quality {
            rtt: Some(Duration::from_micros(312)),
            rtt_min: None,
            loss: Some(0),
            mtu: Some(mtu),
        };
        let way = |n: u8, encapsulation, port: u16, good: Option<u16>| WayView {
            encapsulation,
            relay: None,
            chosen: good.is_some() && port == 6784,
            plain: None,
            endpoint: Some(([192, 0, 2, n], port).into()),
            state: good.map_or(LinkState::Down, |_| LinkState::Up),
            reason: good.is_none().then(|| format!("no reply on UDP {port}")),
            since: Duration::from_secs(75),
            quality: good.map_or_else(Quality::default, quality),
        };
        let link = |n: u8, name: &str, up: bool, reason: Option<&str>| LinkView {
            id: PeerId([n; 8]),
            name: name.parse().unwrap(),
            path: up.then(|| {
                let endpoint = ([192, 0, 2, n], 6784).into();
                mesh::Path::vxlan(PeerId([n; 8]), endpoint, 1450)
            }),
            state: if up { LinkState::Up } else { LinkState::Down },
            reason: reason.map(str::to_owned),
            since: Duration::from_secs(75),
            quality: if up {
                quality(1450)
            } else {
                Quality::default()
            },
            ways: vec![
                way(n, mesh::Encapsulation::Vxlan, 6784, up.then_some(1450)),
                way(n, mesh::Encapsulation::Sleeve, 6783, up.then_some(1438)),
            ],
        };
        let judged = [
            link(0xab, "node-2", true, None),
            link(0xac, "node-3", false, Some("no reply on UDP 6784 and 6783")),
        ];
        let targets = [TargetView {
            target: "192.0.2.171:6783".parse().unwrap(),
            state: TargetState::Peer(id),
            reason: None,
            retry_in: None,
        }];
        let named = targets.iter().map(|view| view.target.clone());
        let book = TargetBook::load(std::path::Path::new("/nowhere"), named);
        assemble(Parts {
            node,
            overlay,
            peers: &peers,
            targets: &targets,
            book: &book,
            judged: &judged,
            switch: &switch,
            links: &links,
            macs: &macs,
            ipam,
            counters: counters
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            conditions: vec![Condition {
                name: "duplicate_name".to_owned(),
                message: "192.0.2.9 is called node-1 too: rename one of them".to_owned(),
                since: 1_000_030,
            }],
            now: Duration::from_secs(90),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_and_vteps_are_listed_with_what_the_data_path_does() {
        let status = sample::status();
        let shown: Vec<_> = status
            .peers
            .iter()
            .map(|peer| {
                (
                    peer.name.as_str(),
                    peer.kind,
                    peer.state,
                    peer.tx_frames,
                    peer.since_secs,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("192.0.2.7:8472", PeerKind::Vtep, PeerState::Up, 0, 90),
                ("node-2", PeerKind::Peer, PeerState::Up, 10, 75),
                ("node-3", PeerKind::Peer, PeerState::Down, 0, 75),
            ]
        );
        let ports: Vec<_> = status.macs.iter().map(|mac| mac.port.as_str()).collect();
        assert_eq!(ports, ["local", "node-2"]);
    }

    #[test]
    fn a_target_is_listed_until_a_peer_is_known_there() {
        let view = |state, reason: Option<&str>| TargetView {
            target: "b.example:6783".parse().unwrap(),
            state,
            reason: reason.map(str::to_owned),
            retry_in: None,
        };
        assert_eq!(
            nobody_yet(&view(TargetState::Peer(PeerId([2; 8])), None)),
            None
        );
        assert_eq!(nobody_yet(&view(TargetState::Myself, None)), None);
        let trying = nobody_yet(&view(TargetState::Connecting, Some("refused"))).unwrap();
        assert_eq!(
            (trying.name.as_str(), trying.state),
            ("b.example:6783", PeerState::Connecting)
        );
        let failed = nobody_yet(&view(TargetState::Waiting, Some("refused"))).unwrap();
        assert_eq!(
            (failed.state, failed.reason.as_deref()),
            (PeerState::Down, Some("refused"))
        );
    }

    #[test]
    fn i8_a_peer_without_a_link_is_not_up() {
        let view = PeerView {
            name: "b".parse().unwrap(),
            id: PeerId([2; 8]),
            endpoint: None,
            control: None,
            connected: true,
            hops: Some(1),
            via: None,
            state: mesh::PeerState::Up,
            reason: None,
            since: Duration::ZERO,
            mtu: None,
            rtt: None,
            version: None,
        };
        let status = peer(&view, &HashMap::new(), None, |id| id.to_string());
        assert_eq!(status.state, PeerState::Connecting);
        assert!(status.reason.unwrap().contains("no link"));
    }
}
