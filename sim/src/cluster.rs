//! Machines, the network between them, and what happens to them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mesh::{Config, ConnId, DialError, Input, LinkChange, Mesh, Output, Shelf, SplitMix64, Target};

use crate::network::{Arrival, End, Network, Pipe, Side, latency};
use crate::node::{Node, hello, machine};
use crate::trace::Trace;

/// After this time the driver gives up a dial that nobody answers.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// Data that waited for a partition to heal are sent again within this time.
const RETRANSMIT: Duration = Duration::from_secs(2);
/// More outputs than this for one input would be a loop.
const MAX_OUTPUTS: usize = 100_000;

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    now: Duration,
    /// For what a scenario leaves to chance.
    pub rng: SplitMix64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    network: Network,
    nodes: Vec<Node>,
    /// Identities and runs given so far.
    given: u64,
    trace: Trace,
    shelf: Arc<Shelf>,
    /// Changes to the configuration of routers that start from now on.
    pub configure: fn(&mut Config),
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Scheduled {
    at: Duration,
    /// What is scheduled first happens first.
    sequence: u64,
    event: Event,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
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
}

impl Cluster {
    /// An empty cluster.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            rng: SplitMix64::new(seed),
            queue: BinaryHeap::new(),
            sequence: 0,
            network: Network::default(),
            nodes: Vec::new(),
            given: 0,
            trace: Trace::default(),
            shelf: Arc::default(),
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
        let held = |pipe: &&Pipe| self.holds(&pipe.dialler) && self.holds(&pipe.acceptor);
        let pipes = self.network.pipes.values().filter(held);
        pipes
            .map(|pipe| (pipe.dialler.node, pipe.acceptor.node))
            .collect()
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
            self.nodes.push(Node::new(number, hello(number, identity)));
        }
        first..self.nodes.len()
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
        config.born = node.clock + u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX);
        config.shelf = Some(Arc::clone(&self.shelf));
        (self.configure)(&mut config);
        node.mesh = Some(Mesh::new(config, self.now));
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
        self.nodes[number].hello = hello(number, identity);
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
        self.nodes[number].stopped = false;
        while let Some(input) = self.nodes[number].inbox.pop_front() {
            self.input(number, input);
        }
        self.input(number, Input::Timeout);
    }

    /// Cuts the network between two machines.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.network.block(a, b);
    }

    /// Cuts the network between those machines and all others.
    pub fn partition(&mut self, apart: &[usize]) {
        self.trace
            .note(self.now, || format!("{apart:?} are cut off"));
        for a in apart {
            for b in 0..self.nodes.len() {
                if !apart.contains(&b) {
                    self.network.block(*a, b);
                }
            }
        }
    }

    /// All machines reach each other again.
    pub fn heal(&mut self) {
        self.trace.note(self.now, || "the network heals".to_owned());
        self.network.unblock_all();
        let pipes: Vec<u64> = self.network.pipes.keys().copied().collect();
        for number in pipes {
            let at = self.now + self.rng.up_to(RETRANSMIT);
            for side in [Side::Dialler, Side::Acceptor] {
                let pipe = self.network.pipes.get(&number);
                for _ in 0..pipe.map_or(0, |pipe| pipe.end(side).coming.len()) {
                    self.schedule(
                        at,
                        Event::Arrive {
                            pipe: number,
                            acceptor: is_acceptor(side),
                        },
                    );
                }
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
                    pipe.end_mut(side).coming.clear();
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
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(Reverse(next)) = self.queue.peek().filter(|next| next.0.at <= end) {
            self.now = next.at;
            if let Some(Reverse(next)) = self.queue.pop() {
                self.happen(next.event);
            }
        }
        self.now = end;
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
        node.wake = None;
        if !node.stopped {
            self.input(number, Input::Timeout);
        }
    }

    fn knock(&mut self, number: usize, run: u64, conn: ConnId, to: usize) {
        let alive = self.nodes.get(to).is_some_and(|node| node.powered);
        if !alive || !self.network.reaches(number, to) {
            let at = self.now + DIAL_DEADLINE;
            let outcome = Err("no answer in time".to_owned());
            return self.schedule(
                at,
                Event::Dialled {
                    node: number,
                    run,
                    conn,
                    outcome,
                },
            );
        }
        let back = self.now + latency(&mut self.rng);
        if self.nodes[to].mesh.is_none() {
            let outcome = Err("connection refused".to_owned());
            return self.schedule(
                back,
                Event::Dialled {
                    node: number,
                    run,
                    conn,
                    outcome,
                },
            );
        }
        // A process that is stopped does not accept, but its machine completes connections.
        let remote = self.nodes[number].address;
        let node = &mut self.nodes[to];
        let accepted = ConnId::Accepted(node.accepted);
        node.accepted += 1;
        let dialler = End::new(number, run, conn, back);
        let acceptor = End::new(to, node.hello.run, accepted, self.now);
        let pipe = self.network.open(dialler, acceptor);
        node.conns.insert(accepted, (pipe, Side::Acceptor));
        self.schedule(
            back,
            Event::Dialled {
                node: number,
                run,
                conn,
                outcome: Ok(pipe),
            },
        );
        let port = 40_000 + u16::try_from(pipe % 20_000).unwrap_or(0);
        let remote = SocketAddr::from((remote, port));
        self.input(
            to,
            Input::Accepted {
                conn: accepted,
                remote,
            },
        );
    }

    fn dialled(&mut self, number: usize, conn: ConnId, outcome: Result<u64, String>) {
        match outcome {
            Ok(pipe) => {
                let Some(to) = self.network.pipes.get(&pipe).map(|pipe| pipe.acceptor.node) else {
                    let error = DialError::Failed("reset by peer".to_owned());
                    return self.input(number, Input::DialFailed { conn, error });
                };
                self.nodes[number].conns.insert(conn, (pipe, Side::Dialler));
                let remote = self.nodes[to].control();
                self.input(number, Input::Dialled { conn, remote });
            }
            Err(error) => {
                let error = DialError::Failed(error);
                self.input(number, Input::DialFailed { conn, error });
            }
        }
    }

    fn arrive(&mut self, number: u64, side: Side) {
        let Some(pipe) = self.network.pipes.get(&number) else {
            return;
        };
        let (from, to) = (pipe.end(side.other()).node, pipe.end(side).node);
        if !self.network.reaches(from, to) {
            // It stays where it is, and is sent again when the network heals.
            return;
        }
        let Some(pipe) = self.network.pipes.get_mut(&number) else {
            return;
        };
        let Some(arrival) = pipe.end_mut(side).coming.pop_front() else {
            return;
        };
        let end = self.network.pipes.get(&number).map(|pipe| pipe.end(side));
        let held = end.filter(|end| self.holds(end)).map(|end| end.conn);
        match (arrival, held) {
            (Arrival::Bytes(bytes), Some(conn)) => {
                self.input(to, Input::Received { conn, bytes });
            }
            // Nobody holds this end any more: its machine says so, if it runs.
            (Arrival::Bytes(_), None) => {
                if self.nodes[to].powered {
                    self.post(number, side.other(), Arrival::End("reset by peer"));
                }
            }
            (Arrival::End(reason), _) => {
                self.network.pipes.remove(&number);
                self.lose(to, held, reason);
            }
            (Arrival::Lost, _) => {
                self.lose(to, held, "reset on the way");
                let other = self
                    .network
                    .pipes
                    .get(&number)
                    .map(|pipe| pipe.end(side.other()));
                if !other.is_some_and(|other| self.holds(other)) {
                    self.network.pipes.remove(&number);
                }
            }
        }
    }

    /// Whether the router that opened this end still holds it.
    fn holds(&self, end: &End) -> bool {
        let node = &self.nodes[end.node];
        node.mesh.is_some() && node.hello.run == end.run && node.conns.contains_key(&end.conn)
    }

    /// A connection is over for the router that holds it.
    fn lose(&mut self, number: usize, held: Option<ConnId>, reason: &str) {
        let Some(conn) = held else { return };
        self.nodes[number].conns.remove(&conn);
        self.trace
            .note(self.now, || format!("{number}: {conn} ends: {reason}"));
        self.input(
            number,
            Input::Closed {
                conn,
                reason: reason.to_owned(),
            },
        );
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
            } => {
                self.trace
                    .note(self.now, || format!("{number}: {conn} to {target}"));
                let address = target.literal();
                if address.is_some_and(|address| avoid.contains(&address)) {
                    let error = DialError::OnlyMyself;
                    return self.input(number, Input::DialFailed { conn, error });
                }
                let run = self.nodes[number].hello.run;
                // An address that no machine has is one that does not answer.
                let to = address.and_then(machine).unwrap_or(usize::MAX);
                let at = self.now + latency(&mut self.rng);
                self.schedule(
                    at,
                    Event::Knock {
                        node: number,
                        run,
                        conn,
                        to,
                    },
                );
            }
            Output::Send { conn, bytes, .. } => {
                let Some((pipe, side)) = self.nodes[number].conns.get(&conn).copied() else {
                    return;
                };
                // TCP keeps no borders between what is sent.
                let cut = self.rng.below(2 * bytes.len() as u64);
                let cut = usize::try_from(cut).unwrap_or(0).min(bytes.len());
                let (first, second) = bytes.split_at(cut);
                for part in [first, second] {
                    if !part.is_empty() {
                        self.post(pipe, side.other(), Arrival::Bytes(part.to_vec()));
                    }
                }
            }
            Output::Close { conn, reason } => {
                self.trace
                    .note(self.now, || format!("{number}: closes {conn}: {reason}"));
                if let Some((pipe, side)) = self.nodes[number].conns.remove(&conn) {
                    self.post(pipe, side.other(), Arrival::End("end of stream"));
                }
            }
            // Links follow the control path here: nothing in the simulation carries datagrams or
            // frames.
            Output::Probe(_) | Output::Groups { .. } => {}
            Output::Link(change) => {
                self.trace
                    .note(self.now, || format!("{number}: {}", describe(&change)));
                let now = self.now;
                self.nodes[number].apply(change, now);
            }
            Output::Reachable { id, name } => {
                let node = &mut self.nodes[number];
                assert!(
                    node.reachable.insert(id, name).is_none(),
                    "told twice of {id}"
                );
            }
            Output::Unreachable { id, name } => {
                let node = &mut self.nodes[number];
                assert_eq!(node.reachable.remove(&id), Some(name), "not told of {id}");
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
            // Nothing is sealed here.
            Output::Key { .. } => {}
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

    /// Sends something to an end of a connection.
    fn post(&mut self, pipe: u64, to: Side, arrival: Arrival) {
        let latency = latency(&mut self.rng);
        let Some(open) = self.network.pipes.get_mut(&pipe) else {
            return;
        };
        let at = open.arrival(to, self.now, latency);
        open.end_mut(to).coming.push_back(arrival);
        self.schedule(
            at,
            Event::Arrive {
                pipe,
                acceptor: is_acceptor(to),
            },
        );
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        let sequence = self.sequence;
        self.sequence += 1;
        self.queue.push(Reverse(Scheduled {
            at,
            sequence,
            event,
        }));
    }

    /// Takes a process away; returns its connections.
    fn drop_process(&mut self, number: usize) -> Vec<(u64, Side)> {
        let node = &mut self.nodes[number];
        node.mesh = None;
        node.stopped = false;
        node.inbox.clear();
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

const fn is_acceptor(side: Side) -> bool {
    matches!(side, Side::Acceptor)
}

fn describe(change: &LinkChange) -> String {
    match change {
        LinkChange::Up { name, path, .. } => format!("link to {name} is up at {}", path.endpoint),
        LinkChange::Down { name, reason, .. } => format!("link to {name} is down: {reason}"),
        LinkChange::Left { name, .. } => format!("{name} left"),
    }
}
