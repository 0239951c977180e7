//! Machines, the network between them, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mesh::link::LinkConfig;
use mesh::{Config, ConnId, Hello, Input, LinkChange, Mesh, Output, Shelf, SplitMix64, Target};
use wire::{PeerId, PeerName};

use crate::agenda::Agenda;
use crate::data::Datagrams;
use crate::frames::Frames;
use crate::network::{Arrival, Network, Pipe, Side};
use crate::node::{Node, hello};
use crate::sealing::{self, Sealing};
use crate::trace::Trace;
use crate::traffic::Peak;
use crate::underlay::{Rule, Underlay};

/// Data that waited for a partition to heal are sent again within this time.
const RETRANSMIT: Duration = Duration::from_secs(2);
/// More outputs than this for one input would be a loop.
const MAX_OUTPUTS: usize = 100_000;

/// How long a scenario may take. What takes longer does not end.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Virtual time.
    pub time: Duration,
    /// Events.
    pub steps: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            // Nodes are forgotten after a day.
            time: Duration::from_secs(4 * 24 * 3600),
            // Ten times what the longest test needs.
            steps: 20_000_000,
        }
    }
}

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    now: Duration,
    /// How long it may run; beyond it panics.
    pub budget: Budget,
    steps: u64,
    /// For what a scenario leaves to chance.
    pub rng: SplitMix64,
    agenda: Agenda<Event>,
    pub(crate) network: Network,
    pub(crate) underlay: Underlay,
    pub(crate) datagrams: Datagrams,
    nodes: Vec<Node>,
    /// The machine that has an identity now.
    pub(crate) identities: BTreeMap<PeerId, usize>,
    /// Frames of pods.
    pub frames: Frames,
    /// The busiest second.
    pub peak: Peak,
    /// Identities and runs given so far.
    given: u64,
    pub(crate) trace: Trace,
    /// Where routers keep entries together; none: each has its own.
    pub shelf: Option<Arc<Shelf>>,
    /// Whether probes of this machine's own are simulated. Others only answer, and their links follow
    /// the control path.
    pub judges: fn(usize) -> bool,
    /// Whether all changes of links are kept, also of links that follow the control path, and TCP
    /// hands over what is sent in pieces. A large cluster can do without.
    pub thorough: bool,
    /// The password of routers that start from now on; none: nothing is sealed. Machines that are added
    /// have real keys if there is one.
    pub password: Option<u8>,
    /// Changes to the configuration of routers that start from now on.
    pub configure: fn(&mut Config),
}

#[derive(Debug)]
pub(crate) enum Event {
    /// A node's timer.
    Wake { node: usize },
    /// A dial reaches the other machine.
    Knock {
        node: usize,
        run: u64,
        conn: ConnId,
        to: usize,
    },
    /// A dial comes to its end at the one who dialled.
    Dialled {
        node: usize,
        run: u64,
        conn: ConnId,
        outcome: Result<u64, String>,
    },
    /// The next thing on its way to an end of a connection gets there.
    Arrive { pipe: u64, acceptor: bool },
    /// A datagram gets to a machine.
    Datagram { to: usize, slot: usize },
    /// A timer of a node's sessions.
    SessionWake { node: usize },
    /// A data path reports traffic.
    Report { node: usize },
}

impl Cluster {
    /// An empty cluster.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            budget: Budget::default(),
            steps: 0,
            rng: SplitMix64::new(seed),
            agenda: Agenda::new(),
            network: Network::default(),
            underlay: Underlay::new(),
            datagrams: Datagrams::default(),
            nodes: Vec::new(),
            identities: BTreeMap::new(),
            frames: Frames::default(),
            peak: Peak::default(),
            given: 0,
            trace: Trace::default(),
            shelf: Some(Arc::default()),
            judges: |_| true,
            thorough: true,
            password: None,
            configure: |_| (),
        }
    }

    /// Virtual time since the start.
    pub const fn now(&self) -> Duration {
        self.now
    }

    /// All machines.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One machine.
    pub fn node(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[number]
    }

    /// Numbers of the machines whose routers are part of the network.
    pub fn inside(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|number| self.nodes[*number].is_in())
            .collect()
    }

    /// The pairs of machines whose routers hold a connection with each other, once for each.
    pub fn held(&self) -> Vec<(usize, usize)> {
        let pipes = self.network.pipes.values();
        let pipes = pipes.filter(|pipe: &&Pipe| self.is_held(pipe));
        pipes
            .map(|pipe| (pipe.dialler.node, pipe.acceptor.node))
            .collect()
    }

    /// Most bytes that wait to be read on one connection.
    pub fn most_waiting(&self) -> usize {
        let pipes = self.network.pipes.values();
        let ends = pipes.flat_map(|pipe| [&pipe.dialler, &pipe.acceptor]);
        ends.map(|end| end.coming().1).max().unwrap_or(0)
    }

    pub(crate) fn write_trace(&mut self) {
        self.trace.begin();
    }

    pub(crate) fn trace_end(&self) -> String {
        self.trace.end()
    }

    // What a scenario does.

    /// Adds machines; no router runs on them yet.
    pub fn add(&mut self, count: usize) -> Range<usize> {
        let first = self.nodes.len();
        for number in first..first + count {
            let identity = self.fresh();
            let hello = self.introduction(number, identity);
            self.identities.insert(hello.id, number);
            let key = identity;
            self.nodes.push(Node {
                key,
                ..Node::new(number, hello)
            });
        }
        first..self.nodes.len()
    }

    fn introduction(&self, number: usize, identity: u64) -> Hello {
        let mut hello = hello(number, identity);
        if self.password.is_some() {
            let (_, public) = sealing::key_pair(identity);
            sealing::identify(&mut hello, public);
        }
        hello
    }

    /// Names one machine to the operator of another.
    pub fn target(&mut self, number: usize, at: usize) {
        let target = Target::from(self.nodes[at].control());
        self.nodes[number].targets.push(target);
    }

    /// Starts a router.
    pub fn start(&mut self, number: usize) {
        let run = self.fresh();
        let seed = self.rng.next_u64();
        let node = &mut self.nodes[number];
        node.powered = true;
        node.hello.run = run;
        let mut config = Config::new(node.hello.clone(), seed);
        config.targets.clone_from(&node.targets);
        config.remembered.clone_from(&node.remembered);
        config.born = node.clock + u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX);
        config.shelf.clone_from(&self.shelf);
        node.judges = (self.judges)(number);
        if node.judges {
            let me = &node.hello;
            let mut links = LinkConfig::new(me.id, me.run, seed ^ 1);
            links.addresses = vec![node.address.into()];
            links.sealed = self.password.is_some();
            config.links = Some(links);
        }
        (self.configure)(&mut config);
        node.mesh = Some(Mesh::new(config, self.now));
        // What was given last is more than at any earlier start.
        let (id, key, start) = (node.hello.id, node.key, self.given);
        let sealing = |password| Sealing::new(id, key, password, start, self.now);
        node.sealing = self.password.map(sealing);
        self.trace
            .note(self.now, || format!("{number} starts, run {run}"));
        self.act(number);
    }

    /// Kills a router. Its machine closes its connections.
    pub fn crash(&mut self, number: usize) {
        self.trace.note(self.now, || format!("{number} crashes"));
        let conns = self.drop_process(number);
        for (pipe, side) in conns {
            self.post(pipe, side.other(), Arrival::End("reset by peer"));
        }
    }

    /// Cuts a machine's power: nobody is told.
    pub fn power_off(&mut self, number: usize) {
        self.trace
            .note(self.now, || format!("{number} loses power"));
        self.drop_process(number);
        self.nodes[number].powered = false;
    }

    /// A new identity at the next start, as after the loss of the state directory.
    pub fn lose_state(&mut self, number: usize) {
        let identity = self.fresh();
        let name = self.nodes[number].hello.name.clone();
        let hello = self.introduction(number, identity);
        self.identities.insert(hello.id, number);
        self.nodes[number].hello = hello;
        self.nodes[number].key = identity;
        self.nodes[number].hello.name = name;
    }

    /// The operator gives the node another name at its next start.
    pub fn rename(&mut self, number: usize, name: &str) {
        self.nodes[number].hello.name = name.parse().expect("a node's name");
    }

    /// Leaves cleanly.
    pub fn leave(&mut self, number: usize) {
        self.trace.note(self.now, || format!("{number} leaves"));
        self.input(number, Input::Leave);
    }

    /// Stops a process, as SIGSTOP does: its machine keeps its connections.
    pub fn stop(&mut self, number: usize) {
        self.trace.note(self.now, || format!("{number} is stopped"));
        self.nodes[number].stopped = true;
    }

    /// Lets a stopped process go on.
    pub fn go_on(&mut self, number: usize) {
        self.trace.note(self.now, || format!("{number} goes on"));
        if !std::mem::take(&mut self.nodes[number].stopped) {
            return;
        }
        self.input(number, Input::Timeout);
        self.sessions_go_on(number);
        while let Some(input) = self.nodes[number].inbox.pop_front() {
            self.input(number, input);
        }
        while let Some(datagram) = self.nodes[number].buffer.pop_front() {
            self.received(number, datagram);
        }
        let conns: Vec<(u64, Side)> = self.nodes[number].conns.values().copied().collect();
        for (pipe, side) in conns {
            self.read_on(pipe, side, self.now);
        }
    }

    /// Lets a router read no faster than this of each connection, in bytes per second.
    pub fn slow_down(&mut self, number: usize, rate: Option<u32>) {
        self.trace
            .note(self.now, || format!("{number} reads {rate:?} bytes/s"));
        self.nodes[number].reads = rate;
    }

    /// Changes what becomes of packets from one machine to another.
    pub fn one_way(&mut self, from: usize, to: usize, change: impl FnOnce(&mut Rule)) {
        self.underlay.change(from, to, change);
        self.trace.note(self.now, || {
            format!("{from} to {to}: {:?}", self.underlay.rule(from, to))
        });
    }

    /// Changes it both ways.
    pub fn rule(&mut self, a: usize, b: usize, change: impl Fn(&mut Rule)) {
        self.one_way(a, b, &change);
        self.one_way(b, a, &change);
    }

    /// Changes it between all machines for which there is no rule of their own.
    pub fn everywhere(&mut self, change: impl FnOnce(&mut Rule)) {
        change(&mut self.underlay.default);
    }

    /// What becomes of packets from one machine to another.
    pub fn rule_of(&self, from: usize, to: usize) -> Rule {
        self.underlay.rule(from, to)
    }

    /// Cuts the network between two machines.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.rule(a, b, cut);
    }

    /// Puts machines behind one NAT; a symmetric one has another port for each destination.
    pub fn translate(&mut self, nodes: &[usize], symmetric: bool) {
        self.trace
            .note(self.now, || format!("{nodes:?} are behind a NAT"));
        self.underlay.translate(nodes, symmetric);
    }

    /// All NATs forget what they know.
    pub fn restart_nats(&mut self) {
        self.trace.note(self.now, || "NATs restart".to_owned());
        self.underlay.forget_mappings();
    }

    /// Whether a machine is behind a NAT.
    pub fn is_translated(&self, number: usize) -> bool {
        self.underlay.is_translated(number)
    }

    /// Whether any machine is behind a NAT.
    pub fn has_nat(&self) -> bool {
        self.underlay.has_nat()
    }

    /// Cuts the network between those machines and all others.
    pub fn partition(&mut self, apart: &[usize]) {
        self.trace
            .note(self.now, || format!("{apart:?} are cut off"));
        for a in apart {
            for b in 0..self.nodes.len() {
                if !apart.contains(&b) {
                    self.underlay.change(*a, b, cut);
                    self.underlay.change(b, *a, cut);
                }
            }
        }
    }

    /// Cuts all machines into two halves that do not reach each other.
    pub fn halve(&mut self, half: BTreeSet<usize>) {
        self.trace
            .note(self.now, || format!("{half:?} are cut off"));
        self.underlay.halve(half);
    }

    /// All machines reach each other again.
    pub fn heal(&mut self) {
        self.trace.note(self.now, || "the network heals".to_owned());
        self.underlay.clear();
        self.underlay.default = Rule::OPEN;
        let pipes: Vec<u64> = self.network.pipes.keys().copied().collect();
        for number in pipes {
            let at = self.now + self.rng.up_to(RETRANSMIT);
            for side in [Side::Dialler, Side::Acceptor] {
                self.read_on(number, side, at);
            }
        }
    }

    /// Something between two machines resets one of their connections, chosen at random; both ends
    /// get to know, or only one of them.
    pub fn reset_any(&mut self) {
        let open: Vec<u64> = self.network.pipes.keys().copied().collect();
        let Some(number) = self.pick(&open) else {
            return;
        };
        let who = self.rng.below(3);
        self.trace.note(self.now, || {
            format!("connection {number} is reset, way {who}")
        });
        for (way, side) in [(1, Side::Dialler), (2, Side::Acceptor)] {
            if who != way {
                if let Some(pipe) = self.network.pipes.get_mut(&number) {
                    pipe.end_mut(side).clear();
                }
                self.post(number, side, Arrival::Lost);
            }
        }
    }

    /// Router and machine do as an operator would who sets the machine's clock: the next run of the
    /// router begins with other versions.
    pub fn set_clock(&mut self, number: usize, clock: u64) {
        self.nodes[number].clock = clock;
    }

    /// Puts bytes into a connection that is chosen at random, as a faulty peer would.
    pub fn corrupt_any(&mut self, bytes: &[u8]) {
        let open: Vec<u64> = self.network.pipes.keys().copied().collect();
        let Some(number) = self.pick(&open) else {
            return;
        };
        self.trace
            .note(self.now, || format!("connection {number} is corrupted"));
        let side = if self.rng.below(2) == 0 {
            Side::Dialler
        } else {
            Side::Acceptor
        };
        self.post(number, side, Arrival::Bytes(bytes.to_vec()));
    }

    /// Hands an input to a router, as its operator or another part of the program would.
    pub fn input(&mut self, number: usize, input: Input) {
        let node = &mut self.nodes[number];
        if node.stopped {
            node.inbox.push_back(input);
            return;
        }
        if let Some(mesh) = &mut node.mesh {
            mesh.handle(input, self.now);
            self.act(number);
        }
    }

    /// A number below this one, chosen at random.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).expect("below a usize")
    }

    /// One of these, chosen at random.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let index = self.below(from.len());
        from.get(index).copied()
    }

    /// Lets time pass.
    ///
    /// # Panics
    /// The budget is used up.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some((at, event)) = self.agenda.take(end) {
            self.now = at;
            self.steps += 1;
            assert!(
                self.steps <= self.budget.steps,
                "does not end: {} steps until {:?}",
                self.steps,
                self.now
            );
            self.happen(event);
        }
        self.now = end;
        assert!(
            self.now <= self.budget.time,
            "does not end: {:?} have passed",
            self.now
        );
    }

    /// Events so far.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Lets time pass until something holds, at most for `span`; returns whether it does.
    pub fn run_until(&mut self, span: Duration, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + span;
        while !holds(self) {
            if self.now >= end {
                return false;
            }
            self.run_for(Duration::from_millis(100));
        }
        true
    }

    // What happens.

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { node } => self.wake(node),
            Event::Knock {
                node,
                run,
                conn,
                to,
            } => self.knock(node, run, conn, to),
            Event::Dialled {
                node,
                run,
                conn,
                outcome,
            } => {
                if self.nodes[node].hello.run == run && self.nodes[node].mesh.is_some() {
                    self.dialled(node, conn, outcome);
                }
            }
            Event::Datagram { to, slot } => self.datagram(to, slot),
            Event::Report { node } => self.report(node),
            Event::SessionWake { node } => self.session_wake(node),
            Event::Arrive { pipe, acceptor } => {
                self.arrive(
                    pipe,
                    if acceptor {
                        Side::Acceptor
                    } else {
                        Side::Dialler
                    },
                );
            }
        }
    }

    fn wake(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        // One that an earlier one has taken the place of would be there for ever: each wakes the next.
        if node.wake != Some(self.now) {
            return;
        }
        node.wake = None;
        if !node.stopped {
            self.input(number, Input::Timeout);
        }
    }

    /// Does what a router wants done, and sees to its next wake-up.
    fn act(&mut self, number: usize) {
        for _ in 0..MAX_OUTPUTS {
            let Some(output) = self.nodes[number].mesh.as_mut().and_then(Mesh::poll_output) else {
                return self.schedule_wake(number);
            };
            self.output(number, output);
        }
        panic!("node {number} does not come to an end of its outputs");
    }

    fn output(&mut self, number: usize, output: Output) {
        match output {
            Output::Dial {
                conn,
                target,
                avoid,
            } => self.dial(number, conn, &target, &avoid),
            Output::Send { conn, bytes, cargo } => self.send(number, conn, &bytes, cargo),
            Output::Close { conn, reason } => self.close(number, conn, &reason),
            Output::Probe(probe) => self.send_probe(number, probe),
            // Frames for groups are not simulated.
            Output::Groups { .. } => {}
            Output::Link(change) => {
                self.trace
                    .note(self.now, || format!("{number}: {}", describe(&change)));
                let now = self.now;
                let node = &mut self.nodes[number];
                if self.thorough {
                    node.changes.push((now, change.clone()));
                }
                if self.thorough || node.judges {
                    node.apply(change);
                }
            }
            Output::Reachable { id, name } => {
                let node = &mut self.nodes[number];
                let before = node.reachable.insert(id, hash(&name));
                assert!(before.is_none(), "{number} is told twice of {id}");
            }
            Output::Unreachable { id, name } => {
                let node = &mut self.nodes[number];
                let before = node.reachable.remove(&id);
                assert_eq!(before, Some(hash(&name)), "{number} was not told of {id}");
            }
            Output::Connected { name, .. } => {
                self.trace
                    .note(self.now, || format!("{number}: control with {name}"));
            }
            Output::Gossip {
                name,
                channel,
                payload,
                ..
            } => {
                self.nodes[number].gossip.push((name, channel, payload));
            }
            Output::Key { id, public } => self.peer_key(number, id, public),
            Output::Condition(change) => {
                self.trace
                    .note(self.now, || format!("{number}: {change:?}"));
                self.nodes[number].conditions.push(change);
            }
        }
    }

    fn schedule_wake(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let Some(at) = node.mesh.as_ref().and_then(Mesh::poll_timeout) else {
            return;
        };
        let at = at.max(self.now);
        if !node.stopped && node.wake.is_none_or(|wake| wake > at) {
            node.wake = Some(at);
            self.schedule(at, Event::Wake { node: number });
        }
    }

    pub(crate) fn schedule(&mut self, at: Duration, event: Event) {
        self.agenda.put(at, event);
    }

    /// Takes a process away; returns its connections.
    fn drop_process(&mut self, number: usize) -> Vec<(u64, Side)> {
        let node = &mut self.nodes[number];
        node.mesh = None;
        node.sealing = None;
        node.stopped = false;
        node.inbox.clear();
        node.buffer.clear();
        node.crossed.clear();
        node.links.clear();
        node.reachable.clear();
        node.wake = None;
        std::mem::take(&mut node.conns).into_values().collect()
    }

    /// A number that was never given before.
    fn fresh(&mut self) -> u64 {
        self.given += 1;
        // In no order, so that who is the smaller of two is chance.
        (self.rng.next_u64() & !0xffff_ffff) | self.given
    }
}

/// Thousands of nodes are told of thousands of names.
fn hash(name: &PeerName) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Nothing passes.
const fn cut(rule: &mut Rule) {
    (rule.tcp, rule.vxlan, rule.sleeve) = (false, false, false);
}

fn describe(change: &LinkChange) -> String {
    match change {
        LinkChange::Up { name, path, .. } => format!(
            "link to {name} is up: {} at {}, {} hops, {} bytes",
            path.encapsulation, path.endpoint, path.hops, path.mtu
        ),
        LinkChange::Down { name, reason, .. } => format!("link to {name} is down: {reason}"),
        LinkChange::Left { name, .. } => format!("{name} left"),
    }
}
