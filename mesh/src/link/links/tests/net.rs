//! Nodes, the underlay between them, and what would be their data path.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use wire::{PeerId, ethernet, sleeve};

use super::super::Links;
use crate::link::change::{Encapsulation, LinkChange, Path};
use crate::link::config::LinkConfig;
use crate::link::facts::{Activity, PeerFacts};
use crate::link::input::{Arrived, LinkInput, SendError};
use crate::link::output::{LinkOutput, ProbeToSend};
use crate::rng::SplitMix64;
use crate::route::Reach;

/// How long news of a node take to the others.
const GOSSIP: Duration = Duration::from_millis(50);
/// Between frames of a flow.
const FLOW: Duration = Duration::from_millis(50);
/// Between reports of traffic.
const REPORT: Duration = Duration::from_secs(1);
/// How long a NAT remembers.
const MAPPING: Duration = Duration::from_secs(30);

/// What becomes of datagrams from one node to another.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) vxlan: bool,
    pub(super) sleeve: bool,
    /// Lost ones of a thousand.
    pub(super) lost: u64,
    pub(super) delay: Duration,
    /// Added at random, so that they overtake each other.
    pub(super) jitter: Duration,
    /// Larger IP packets vanish.
    pub(super) mtu: u16,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            vxlan: true,
            sleeve: true,
            lost: 0,
            delay: Duration::from_micros(500),
            jitter: Duration::ZERO,
            mtu: 1500,
        }
    }
}

/// Translates addresses and ports of the node behind it.
#[derive(Debug, Default)]
pub(super) struct Nat {
    outside: Option<IpAddr>,
    /// Outer port of an inner one, and to whom it is open until when.
    mappings: BTreeMap<u16, Mapping>,
    next: u16,
}

#[derive(Debug, Default)]
struct Mapping {
    port: u16,
    open: BTreeMap<SocketAddr, Duration>,
}

pub(super) struct Node {
    pub(super) id: PeerId,
    pub(super) links: Links,
    pub(super) facts: PeerFacts,
    ip: IpAddr,
    nat: Nat,
    running: bool,
    /// Arrived while it did not run.
    waiting: Vec<Datagram>,
    /// What the data path was told.
    pub(super) table: BTreeMap<PeerId, Told>,
    pub(super) changes: Vec<(Duration, LinkChange)>,
    /// Requests and answers sent, by second.
    pub(super) probes: BTreeMap<u64, u64>,
    pub(super) probe_bytes: u64,
    crossed: BTreeMap<PeerId, (u64, u64)>,
}

/// The way to a peer, where sleeve reaches it, and where it may be in the clear.
type Told = (Path, Option<SocketAddr>, Option<IpAddr>);

#[derive(Debug, Clone)]
struct Datagram {
    encapsulation: Encapsulation,
    from: SocketAddr,
    to: SocketAddr,
    source: PeerId,
    destination: PeerId,
    hop_limit: u8,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    Probe(Vec<u8>),
    /// A frame of a flow: its number, the inner packet's length, whether it is to be echoed.
    Frame(u64, u16, bool),
}

enum Event {
    Datagram(usize, Datagram),
    News(usize, PeerId, Arc<PeerFacts>),
    Flow(usize, usize),
    Report(usize),
}

pub(super) struct Net {
    pub(super) now: Duration,
    pub(super) nodes: Vec<Node>,
    rng: SplitMix64,
    events: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    rules: BTreeMap<(usize, usize), Rule>,
    default_rule: Rule,
    flows: BTreeSet<(usize, usize)>,
    next_frame: u64,
    /// Frames sent and not arrived, and when they were sent.
    pub(super) pending: BTreeMap<u64, Duration>,
    /// How often each frame arrived.
    arrivals: BTreeMap<u64, u32>,
    /// Datagrams that were relayed, by frame.
    hops: BTreeMap<u64, u32>,
    pub(super) relayed: u64,
    /// Largest packet that a flow sends, if the path takes it.
    pub(super) flow_size: u16,
    /// Datagrams in the clear that nodes with a password sent, and those of them that one of the two
    /// sides did not trust.
    pub(super) plain: u64,
    pub(super) exposed: Vec<String>,
}

impl Node {
    /// Its address as others see it.
    pub(super) fn seen_at(&self) -> IpAddr {
        self.nat.outside.unwrap_or(self.ip)
    }
}

impl Net {
    /// Nodes that know each other from the start.
    pub(super) fn new(count: usize, seed: u64) -> Self {
        Self::with(count, seed, |_, _| {})
    }

    pub(super) fn with(
        count: usize,
        seed: u64,
        mut configure: impl FnMut(usize, &mut LinkConfig),
    ) -> Self {
        let mut net = Self {
            now: Duration::from_secs(1000),
            nodes: Vec::new(),
            rng: SplitMix64::new(seed),
            events: BTreeMap::new(),
            sequence: 0,
            rules: BTreeMap::new(),
            default_rule: Rule::default(),
            flows: BTreeSet::new(),
            next_frame: 0,
            pending: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            hops: BTreeMap::new(),
            relayed: 0,
            flow_size: 1400,
            plain: 0,
            exposed: Vec::new(),
        };
        for number in 0..count {
            let id = PeerId(u64::try_from(number + 1).unwrap().to_be_bytes());
            let [.., high, low] = (number + 1).to_be_bytes();
            let ip = IpAddr::from([10, 0, high, low]);
            let mut config = LinkConfig::new(id, 7, seed ^ u64::from(low));
            config.addresses = vec![ip];
            configure(number, &mut config);
            let facts = PeerFacts {
                name: format!("n{}", number + 1).parse().unwrap(),
                run: config.run,
                addresses: vec![ip],
                vxlan_port: 6784,
                sleeve_port: 6783,
                sleeve_seen: None,
                mtu: config.mtu,
                reach: Reach::default(),
            };
            net.nodes.push(Node {
                id,
                links: Links::new(config),
                facts,
                ip,
                nat: Nat::default(),
                running: true,
                waiting: Vec::new(),
                table: BTreeMap::new(),
                changes: Vec::new(),
                probes: BTreeMap::new(),
                probe_bytes: 0,
                crossed: BTreeMap::new(),
            });
            let at = net.now + REPORT;
            net.at(at, Event::Report(number));
        }
        net
    }

    /// Lets all know each other.
    pub(super) fn join(&mut self) {
        for number in 0..self.nodes.len() {
            self.gossip(number);
        }
    }

    /// A rule for both directions.
    pub(super) fn rule(&mut self, a: usize, b: usize, change: impl Fn(&mut Rule)) {
        self.one_way(a, b, &change);
        self.one_way(b, a, &change);
    }

    pub(super) fn one_way(&mut self, a: usize, b: usize, change: impl Fn(&mut Rule)) {
        let default = self.default_rule.clone();
        change(self.rules.entry((a, b)).or_insert(default));
    }

    pub(super) fn all(&mut self, change: impl Fn(&mut Rule)) {
        change(&mut self.default_rule);
        self.rules.values_mut().for_each(change);
    }

    pub(super) fn cut(&mut self, a: usize, b: usize, cut: bool) {
        self.rule(a, b, |rule| (rule.vxlan, rule.sleeve) = (!cut, !cut));
    }

    /// One of four ways in which a path is blocked or works again: both directions or one, all or one of
    /// the two encapsulations.
    pub(super) fn disturb(&mut self, which: u64, a: usize, b: usize) {
        match which {
            0 => self.cut(a, b, true),
            1 => self.cut(a, b, false),
            2 => self.one_way(a, b, |rule| rule.sleeve = !rule.sleeve),
            _ => self.one_way(a, b, |rule| rule.vxlan = !rule.vxlan),
        }
    }

    /// Ends all trouble on paths.
    pub(super) fn calm(&mut self) {
        self.rules.clear();
    }

    /// Puts a node behind a NAT of its own, or one that others share.
    pub(super) fn behind_nat(&mut self, node: usize, outside: [u8; 4]) {
        let shared = self.nodes.iter().filter(|node| node.nat.outside.is_some());
        let first = 20_000 + 100 * u16::try_from(shared.count()).unwrap();
        let nat = &mut self.nodes[node].nat;
        nat.outside = Some(IpAddr::from(outside));
        nat.next = first;
    }

    /// A node gets another address; its entry tells of it when it is gossiped.
    pub(super) fn renumber(&mut self, node: usize, ip: IpAddr) {
        self.move_silently(node, ip);
        self.nodes[node].facts.addresses = vec![ip];
        self.input(node, LinkInput::Addresses(vec![ip]));
    }

    pub(super) fn move_silently(&mut self, node: usize, ip: IpAddr) {
        self.nodes[node].ip = ip;
    }

    /// A node starts again, with another configuration.
    pub(super) fn restart(&mut self, node: usize, configure: impl Fn(&mut LinkConfig)) {
        let old = &mut self.nodes[node];
        let mut config = old.links.config.clone();
        config.run += 1;
        configure(&mut config);
        old.facts.run = config.run;
        old.facts.sleeve_seen = None;
        old.links = Links::new(config);
        old.table.clear();
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let facts = Arc::new(self.nodes[other].facts.clone());
            let id = self.nodes[other].id;
            self.at(self.now + GOSSIP, Event::News(node, id, facts));
        }
        self.gossip(node);
    }

    /// The NAT forgets, as when it restarts; new mappings have other ports.
    pub(super) fn restart_nat(&mut self, node: usize) {
        self.nodes[node].nat.mappings.clear();
    }

    /// Stops a node, as SIGSTOP does; or lets it go on.
    pub(super) fn run_node(&mut self, node: usize, running: bool) {
        self.nodes[node].running = running;
        if running {
            self.input(node, LinkInput::Timeout);
            for datagram in std::mem::take(&mut self.nodes[node].waiting) {
                self.receive(node, datagram);
            }
        }
    }

    pub(super) fn flow(&mut self, a: usize, b: usize) {
        self.flows.insert((a, b));
        self.at(self.now, Event::Flow(a, b));
    }

    pub(super) fn end_flow(&mut self, a: usize, b: usize) {
        self.flows.remove(&(a, b));
    }

    /// The way that frames take, in words.
    pub(super) fn path(&self, a: usize, b: usize) -> String {
        let to = self.nodes[b].id;
        let Some((path, ..)) = self.nodes[a].table.get(&to) else {
            let view = self.nodes[a].links.view(to, self.now);
            let state = view.map(|view| (view.state.as_str(), view.reason.unwrap_or_default()));
            return state.map_or_else(
                || "none".into(),
                |(state, reason)| format!("{state}: {reason}"),
            );
        };
        let via = self
            .nodes
            .iter()
            .find(|node| node.id == path.next_hop)
            .unwrap();
        let way = if path.next_hop == to {
            format!("direct {}", path.endpoint)
        } else {
            format!("via {}", via.facts.name)
        };
        format!("{} {way} {} {}", path.encapsulation, path.hops, path.mtu)
    }

    pub(super) fn reason(&self, a: usize, b: usize) -> Option<String> {
        let (path, ..) = self.nodes[a].table.get(&self.nodes[b].id)?;
        path.reason.clone()
    }

    pub(super) fn mtu(&self, a: usize, b: usize) -> Option<u16> {
        let (path, ..) = self.nodes[a].table.get(&self.nodes[b].id)?;
        Some(path.mtu)
    }

    /// Whether every node has a way to every other.
    pub(super) fn is_whole(&self) -> bool {
        let all = self.nodes.len() - 1;
        self.nodes.iter().all(|node| node.table.len() == all)
    }

    /// Frames that were lost of those sent within a time before now, not counting the last 200 ms.
    pub(super) fn lost_since(&self, since: Duration) -> usize {
        let settled = self.now.saturating_sub(Duration::from_millis(200));
        self.pending
            .values()
            .filter(|at| **at >= since && **at < settled)
            .count()
    }

    pub(super) fn input(&mut self, node: usize, input: LinkInput) {
        let now = self.now;
        self.nodes[node].links.handle(input, now);
        while let Some(output) = self.nodes[node].links.poll_output() {
            match output {
                LinkOutput::Probe(probe) => self.send_probe(node, probe),
                LinkOutput::Link(change) => {
                    let entry = &mut self.nodes[node];
                    match &change {
                        LinkChange::Up {
                            id,
                            path,
                            sleeve,
                            plain,
                            ..
                        } => {
                            let told = (path.clone(), *sleeve, *plain);
                            entry.table.insert(*id, told);
                        }
                        LinkChange::Down { id, .. } | LinkChange::Left { id, .. } => {
                            entry.table.remove(id);
                        }
                    }
                    entry.changes.push((now, change));
                }
                LinkOutput::Reach(reach) => {
                    self.nodes[node].facts.reach = reach;
                    self.gossip(node);
                }
                LinkOutput::SleeveSeen(seen) => {
                    self.nodes[node].facts.sleeve_seen = seen;
                    self.gossip(node);
                }
            }
        }
    }

    /// Runs until a time has passed.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.run_until(end, |_| false);
    }

    /// Runs until something holds. Returns how long that took; None: it does not within `span`.
    pub(super) fn until(
        &mut self,
        span: Duration,
        holds: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        self.run_until(start + span, &holds);
        holds(self).then(|| self.now - start)
    }

    fn run_until(&mut self, end: Duration, holds: impl Fn(&Self) -> bool) {
        let mut steps = 0_u64;
        while !holds(self) {
            steps += 1;
            assert!(steps < 20_000_000, "no end");
            let timers = self
                .nodes
                .iter()
                .enumerate()
                .filter(|(_, node)| node.running);
            let timers = timers.filter_map(|(n, node)| Some((node.links.poll_timeout()?, n)));
            let timer = timers.min();
            let event = self.events.first_key_value().map(|(key, _)| key.0);
            match (timer, event) {
                (Some((at, node)), event) if event.is_none_or(|event| at <= event) => {
                    if at > end {
                        break;
                    }
                    assert!(at + MAPPING > self.now, "a timer far in the past");
                    self.now = self.now.max(at);
                    self.input(node, LinkInput::Timeout);
                }
                (_, Some(at)) if at <= end => {
                    self.now = self.now.max(at);
                    let (_, event) = self.events.pop_first().unwrap();
                    self.happen(event);
                }
                _ => break,
            }
        }
        if !holds(self) {
            self.now = end;
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Datagram(node, datagram) => self.receive(node, datagram),
            Event::News(node, id, facts) => {
                if self.nodes[node].running {
                    self.input(node, LinkInput::Peer { id, facts });
                } else {
                    // Control messages wait in a socket.
                    self.at(self.now + GOSSIP, Event::News(node, id, facts));
                }
            }
            Event::Flow(a, b) => {
                if self.flows.contains(&(a, b)) {
                    self.send_frame(a, b, true);
                    self.at(self.now + FLOW, Event::Flow(a, b));
                }
            }
            Event::Report(node) => {
                let crossed = std::mem::take(&mut self.nodes[node].crossed);
                let list = crossed.into_iter().map(|(id, (sent, received))| Activity {
                    id,
                    sent,
                    received,
                });
                if self.nodes[node].running {
                    self.input(node, LinkInput::Activity(list.collect()));
                }
                self.at(self.now + REPORT, Event::Report(node));
            }
        }
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn gossip(&mut self, node: usize) {
        let facts = Arc::new(self.nodes[node].facts.clone());
        let id = self.nodes[node].id;
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.at(
                self.now + GOSSIP,
                Event::News(other, id, Arc::clone(&facts)),
            );
        }
    }

    /// One frame of a flow, by the data path's table.
    pub(super) fn send_frame(&mut self, a: usize, b: usize, echo: bool) {
        let number = self.next_frame;
        self.next_frame += 1;
        self.pending.insert(number, self.now);
        let to = self.nodes[b].id;
        let Some((path, ..)) = self.nodes[a].table.get(&to).cloned() else {
            return;
        };
        self.nodes[a].crossed.entry(to).or_default().0 += 1;
        let size = path.mtu.min(self.flow_size);
        let datagram = self.datagram(a, to, &path, Body::Frame(number, size, echo));
        self.transmit(a, datagram);
    }

    fn datagram(&self, a: usize, to: PeerId, path: &Path, body: Body) -> Datagram {
        Datagram {
            encapsulation: path.encapsulation,
            from: SocketAddr::new(self.nodes[a].ip, 6783),
            to: path.endpoint,
            source: self.nodes[a].id,
            destination: to,
            hop_limit: sleeve::HOP_LIMIT,
            body,
        }
    }

    fn send_probe(&mut self, node: usize, probe: ProbeToSend) {
        let second = self.now.as_secs();
        *self.nodes[node].probes.entry(second).or_default() += 1;
        self.nodes[node].probe_bytes += u64::try_from(probe.frame.len()).unwrap() + 50;
        let path = Path {
            encapsulation: probe.encapsulation,
            ..Path::vxlan(probe.to, probe.endpoint, 0)
        };
        let nonce = probe.nonce;
        let vxlan = probe.encapsulation == Encapsulation::Vxlan;
        if vxlan && !self.may_be_plain(node, probe.to, probe.endpoint.ip()) {
            return;
        }
        let datagram = self.datagram(node, probe.to, &path, Body::Probe(probe.frame));
        if self.packet_len(node, &datagram) > self.nodes[node].links.config.underlay_mtu {
            let mtu = self.nodes[node].links.config.underlay_mtu;
            let error = SendError::TooBig(Some(mtu));
            let id = probe.to;
            return self.input(node, LinkInput::SendFailed { id, nonce, error });
        }
        self.transmit(node, datagram);
    }

    /// What the data path thinks of VXLAN to or from an address of a peer.
    fn may_be_plain(&self, node: usize, peer: PeerId, at: IpAddr) -> bool {
        let plain = self.nodes[node].table.get(&peer).and_then(|told| told.2);
        !self.nodes[node].links.are_sealed() || plain == Some(at)
    }

    /// Notes a datagram in the clear.
    fn expose(&mut self, node: usize, to: Option<usize>, datagram: &Datagram) {
        let links = |node: usize| &self.nodes[node].links;
        if datagram.encapsulation == Encapsulation::Sleeve || !links(node).are_sealed() {
            return;
        }
        let sender = links(node).trusts(datagram.to.ip()).is_some();
        let receiver = to.is_none_or(|to| links(to).trusts(datagram.from.ip()).is_some());
        self.plain += 1;
        if !sender || !receiver {
            let Datagram { from, to, .. } = datagram;
            let at = self.now;
            self.exposed.push(format!("{from} to {to} at {at:?}"));
        }
    }

    fn packet_len(&self, node: usize, datagram: &Datagram) -> u16 {
        let inner = match &datagram.body {
            Body::Probe(frame) => u16::try_from(frame.len() - ethernet::HEADER_LEN).unwrap(),
            Body::Frame(_, size, _) => *size,
        };
        inner
            + self.nodes[node]
                .links
                .overhead(datagram.encapsulation, Some(datagram.to))
    }

    /// Takes a datagram through NATs and the underlay.
    fn transmit(&mut self, node: usize, mut datagram: Datagram) {
        let now = self.now;
        let vxlan = datagram.encapsulation == Encapsulation::Vxlan;
        let inner_port = if vxlan { 50_000 } else { 6783 };
        let len = self.packet_len(node, &datagram);
        let ip = self.nodes[node].ip;
        datagram.from = SocketAddr::new(ip, inner_port);
        // Nodes behind one NAT reach each other by their inner addresses.
        let neighbour = |other: &Node| {
            other.ip == datagram.to.ip()
                && (other.nat.outside.is_none()
                    || other.nat.outside == self.nodes[node].nat.outside)
        };
        let inside = self.nodes.iter().position(neighbour);
        let same = inside.is_some_and(|other| self.nodes[other].nat.outside.is_some());
        if let Some(outside) = self.nodes[node].nat.outside.filter(|_| !same) {
            let nat = &mut self.nodes[node].nat;
            let next = &mut nat.next;
            let mapping = nat.mappings.entry(inner_port).or_insert_with(|| {
                *next += 1;
                Mapping {
                    port: *next,
                    open: BTreeMap::new(),
                }
            });
            mapping.open.insert(datagram.to, now + MAPPING);
            datagram.from = SocketAddr::new(outside, mapping.port);
        }
        let to = inside.or_else(|| {
            self.nodes.iter().position(|other| {
                other.nat.outside == Some(datagram.to.ip())
                    && other.nat.mappings.get(&6783).is_some_and(|mapping| {
                        let open = mapping.open.get(&datagram.from);
                        mapping.port == datagram.to.port() && open.is_some_and(|until| *until > now)
                    })
            })
        });
        self.expose(node, to, &datagram);
        let Some(to) = to.filter(|to| *to != node) else {
            return;
        };
        let port = if vxlan { 6784 } else { 6783 };
        if self.nodes[to].nat.outside.is_none() && datagram.to.port() != port {
            return;
        }
        let rule = self
            .rules
            .get(&(node, to))
            .unwrap_or(&self.default_rule)
            .clone();
        let open = if vxlan { rule.vxlan } else { rule.sleeve };
        if !open || len > rule.mtu || self.rng.below(1000) < rule.lost {
            return;
        }
        let at = now + rule.delay + self.rng.up_to(rule.jitter);
        self.at(at, Event::Datagram(to, datagram));
    }

    /// A datagram that somebody made up arrives at a node.
    pub(super) fn forge(&mut self, node: usize, from: SocketAddr, frame: Vec<u8>) {
        let arrived = Arrived {
            encapsulation: Encapsulation::Sleeve,
            from,
            relayed: false,
            frame,
        };
        self.input(node, LinkInput::Probe(arrived));
    }

    fn receive(&mut self, node: usize, datagram: Datagram) {
        if !self.nodes[node].running {
            self.nodes[node].waiting.push(datagram);
            return;
        }
        if datagram.destination != self.nodes[node].id {
            return self.relay(node, datagram);
        }
        let (source, from) = (datagram.source, datagram.from.ip());
        if datagram.encapsulation == Encapsulation::Vxlan && !self.may_be_plain(node, source, from)
        {
            return;
        }
        match datagram.body {
            Body::Probe(frame) => {
                let arrived = Arrived {
                    encapsulation: datagram.encapsulation,
                    from: datagram.from,
                    relayed: datagram.hop_limit < sleeve::HOP_LIMIT,
                    frame,
                };
                self.input(node, LinkInput::Probe(arrived));
            }
            Body::Frame(number, _, echo) => {
                let source = datagram.source;
                self.nodes[node].crossed.entry(source).or_default().1 += 1;
                *self.arrivals.entry(number).or_default() += 1;
                self.pending.remove(&number);
                let sender = self.nodes.iter().position(|other| other.id == source);
                if let Some(sender) = sender.filter(|_| echo) {
                    self.send_frame(node, sender, false);
                }
            }
        }
    }

    /// What the engine does with a datagram for another.
    fn relay(&mut self, node: usize, mut datagram: Datagram) {
        if datagram.encapsulation == Encapsulation::Vxlan || datagram.hop_limit <= 1 {
            return;
        }
        let Some((path, sleeve, _)) = self.nodes[node].table.get(&datagram.destination) else {
            return;
        };
        let relay = (path.next_hop != datagram.destination).then_some(path.endpoint);
        let Some(to) = sleeve.or(relay).filter(|to| *to != datagram.from) else {
            return;
        };
        self.relayed += 1;
        if let Body::Frame(number, ..) = datagram.body {
            *self.hops.entry(number).or_default() += 1;
        }
        datagram.hop_limit -= 1;
        datagram.to = to;
        self.transmit(node, datagram);
    }

    /// I3: no frame arrived twice, and none was relayed more often than hops allow.
    pub(super) fn assert_i3(&self) {
        let twice: VecDeque<_> = self
            .arrivals
            .iter()
            .filter(|(_, times)| **times > 1)
            .collect();
        assert!(twice.is_empty(), "arrived twice: {twice:?}");
        let circling = self
            .hops
            .iter()
            .find(|(_, hops)| **hops > u32::from(sleeve::HOP_LIMIT));
        assert!(circling.is_none(), "circulates: {circling:?}");
    }

    /// Changes of the link from one node to another since a time, in words.
    pub(super) fn changes(&self, a: usize, b: usize, since: Duration) -> Vec<String> {
        let to = self.nodes[b].id;
        let changes = self.nodes[a].changes.iter();
        let changes = changes.filter(|(at, change)| *at >= since && change.id() == to);
        let words = changes.map(|(_, change)| match change {
            LinkChange::Up { path, .. } if path.next_hop == to => path.encapsulation.to_string(),
            LinkChange::Up { .. } => "relay".to_owned(),
            LinkChange::Down { reason, .. } => format!("down: {reason}"),
            LinkChange::Left { .. } => "left".to_owned(),
        });
        let mut words: Vec<String> = words.collect();
        words.dedup();
        words
    }
}
