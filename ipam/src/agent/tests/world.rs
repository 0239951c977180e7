//! A cluster of agents: disks, links that break, and a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ipnet::IpNet;
use wire::PeerName;

use crate::ring::tests::{name, universe};
use crate::{
    Agent, AgentSettings, AllocateError, Allocation, AllocationKey, Allocator, Input, Ring, Seeding,
};

pub(super) const HOLD_DOWN: Duration = Duration::from_secs(60);

/// What survives a crash.
#[derive(Debug, Clone)]
struct Disk {
    ring: Ring,
    state: Vec<u8>,
    allocations: Vec<Allocation>,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) net: &'static str,
    settings: BTreeMap<PeerName, AgentSettings>,
    agents: BTreeMap<PeerName, Agent>,
    disks: BTreeMap<PeerName, Disk>,
    cut: BTreeSet<(PeerName, PeerName)>,
    queue: VecDeque<(PeerName, PeerName, Vec<u8>)>,
    pub(super) now: Duration,
    /// What is taken out.
    without: Option<super::Without>,
    /// Nodes that all can reach and that say nothing; what they are sent counts.
    pub(super) phantoms: BTreeSet<PeerName>,
    /// Sent by all together, once for each receiver.
    pub(super) bytes: usize,
}

pub(super) fn seeds(names: &[&str]) -> AgentSettings {
    AgentSettings {
        seeding: Some(Seeding::new(names.iter().map(|n| name(n))).unwrap()),
        ..AgentSettings::default()
    }
}

pub(super) fn key(text: &str) -> AllocationKey {
    AllocationKey::new(text, "eth0").unwrap()
}

impl World {
    pub(super) fn new(net: &'static str) -> Self {
        Self {
            net,
            settings: BTreeMap::new(),
            agents: BTreeMap::new(),
            disks: BTreeMap::new(),
            cut: BTreeSet::new(),
            queue: VecDeque::new(),
            now: Duration::ZERO,
            without: None,
            phantoms: BTreeSet::new(),
            bytes: 0,
        }
    }

    /// A cluster that has settled.
    pub(super) fn of(net: &'static str, names: &[&str], seeded: &[&str]) -> Self {
        let mut world = Self::new(net);
        for node in names {
            world.start(node, seeds(seeded));
        }
        world.settle();
        world
    }

    pub(super) fn start(&mut self, node: &str, settings: AgentSettings) {
        self.settings.insert(name(node), settings);
        self.restart(node);
    }

    /// Starts a node from its disk.
    pub(super) fn restart(&mut self, node: &str) {
        let me = name(node);
        let disk = self.disks.get(&me).cloned().unwrap_or_else(|| Disk {
            ring: Ring::undecided(universe(self.net)),
            state: Vec::new(),
            allocations: Vec::new(),
        });
        let allocator =
            Allocator::restore(me.clone(), disk.ring, HOLD_DOWN, disk.allocations, []).unwrap();
        let settings = self.settings[&me].clone();
        let mut agent = Agent::start(allocator, &disk.state, settings, self.now).unwrap();
        agent.without = self.without;
        self.agents.insert(me.clone(), agent);
        self.save(&me);
        for other in self.names() {
            if other != me && self.linked(&me, &other) {
                self.connect(&me, &other);
            }
        }
        for phantom in self.phantoms.clone() {
            self.handle(&me, Input::Reachable(phantom));
        }
    }

    fn names(&self) -> Vec<PeerName> {
        self.agents.keys().cloned().collect()
    }

    fn linked(&self, a: &PeerName, b: &PeerName) -> bool {
        let pair = (a.min(b).clone(), a.max(b).clone());
        self.agents.contains_key(a) && self.agents.contains_key(b) && !self.cut.contains(&pair)
    }

    fn connect(&mut self, a: &PeerName, b: &PeerName) {
        for (me, other) in [(a, b), (b, a)] {
            self.handle(me, Input::Neighbour(other.clone()));
        }
    }

    fn disconnect(&mut self, a: &PeerName, b: &PeerName) {
        self.queue
            .retain(|(from, to, _)| !((from == a && to == b) || (from == b && to == a)));
        for (me, other) in [(a, b), (b, a)] {
            if self.agents.contains_key(me) {
                self.handle(me, Input::Unreachable(other.clone()));
            }
        }
    }

    pub(super) fn cut(&mut self, a: &str, b: &str) {
        let (a, b) = (name(a.min(b)), name(a.max(b)));
        self.cut.insert((a.clone(), b.clone()));
        self.disconnect(&a, &b);
    }

    /// The link of two nodes is cut and mended while nothing was said over it: both are heard of
    /// again through others, but are neighbours no more.
    pub(super) fn reach_again(&mut self, a: &str, b: &str) {
        let (a, b) = (name(a.min(b)), name(a.max(b)));
        self.cut.remove(&(a.clone(), b.clone()));
        for (me, other) in [(&a, &b), (&b, &a)] {
            self.handle(me, Input::Reachable(other.clone()));
        }
    }

    pub(super) fn heal(&mut self, a: &str, b: &str) {
        let (a, b) = (name(a.min(b)), name(a.max(b)));
        self.cut.remove(&(a.clone(), b.clone()));
        if self.linked(&a, &b) {
            self.connect(&a, &b);
        }
    }

    pub(super) fn crash(&mut self, node: &str) {
        let me = name(node);
        self.agents.remove(&me);
        for other in self.names() {
            self.disconnect(&other, &me);
        }
    }

    pub(super) fn lose_disk(&mut self, node: &str) {
        self.disks.remove(&name(node));
    }

    pub(super) fn agent(&self, node: &str) -> &Agent {
        &self.agents[&name(node)]
    }

    pub(super) fn ask(&mut self, node: &str, f: impl FnOnce(&mut Agent, Duration)) {
        let me = name(node);
        f(self.agents.get_mut(&me).unwrap(), self.now);
        self.flush(&me);
    }

    pub(super) fn handle(&mut self, me: &PeerName, input: Input) {
        let now = self.now;
        if let Some(agent) = self.agents.get_mut(me) {
            agent.handle(input, now);
            self.flush(me);
        }
    }

    /// Makes durable, then sends.
    fn flush(&mut self, me: &PeerName) {
        self.save(me);
        let mut sent = Vec::new();
        if let Some(agent) = self.agents.get_mut(me) {
            while let Some(message) = agent.poll_output() {
                sent.push(message);
            }
        }
        for message in sent {
            let phantoms = match &message.to {
                Some(to) => usize::from(self.phantoms.contains(to)),
                None => self.phantoms.len(),
            };
            self.bytes += phantoms * message.payload.len();
            let to = match message.to {
                Some(to) => vec![to],
                None => self.names().into_iter().filter(|to| to != me).collect(),
            };
            for to in to {
                if self.linked(me, &to) {
                    self.bytes += message.payload.len();
                    self.queue
                        .push_back((me.clone(), to, message.payload.clone()));
                }
            }
        }
    }

    fn save(&mut self, me: &PeerName) {
        let Some(agent) = self.agents.get_mut(me) else {
            return;
        };
        agent.drain_changes();
        agent.take_unsaved();
        let disk = Disk {
            ring: Ring::decode(&agent.ring().encode()).unwrap(),
            state: agent.state(),
            allocations: agent.allocations(),
        };
        self.disks.insert(me.clone(), disk);
    }

    /// Delivers one message; false if there is none.
    pub(super) fn deliver(&mut self) -> bool {
        let Some((from, to, payload)) = self.queue.pop_front() else {
            return false;
        };
        self.handle(&to, Input::Gossip { from, payload });
        true
    }

    /// Takes something out of all nodes, now and when they restart.
    pub(super) fn without(&mut self, without: Option<super::Without>) {
        self.without = without;
        for agent in self.agents.values_mut() {
            agent.without = without;
        }
    }

    pub(super) fn is_up(&self, node: &str) -> bool {
        self.agents.contains_key(&name(node))
    }

    /// Delivers the oldest message of some connection.
    pub(super) fn deliver_any(&mut self, choice: usize) {
        if self.queue.is_empty() {
            return;
        }
        let (from, to, _) = &self.queue[choice % self.queue.len()];
        let same = |other: &(PeerName, PeerName, Vec<u8>)| other.0 == *from && other.1 == *to;
        let oldest = self.queue.iter().position(same).unwrap();
        let (from, to, payload) = self.queue.remove(oldest).unwrap();
        self.handle(&to, Input::Gossip { from, payload });
    }

    /// As [`World::pass`], while two nodes are known to use the same addresses.
    pub(super) fn pass_unchecked(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.settle_unchecked();
            self.advance(Duration::from_secs(1));
        }
        self.settle_unchecked();
    }

    /// As [`World::settle`], while two nodes are known to use the same addresses.
    pub(super) fn settle_unchecked(&mut self) {
        while self.deliver() {}
    }

    /// As [`World::allocate`], while two nodes are known to use the same addresses.
    pub(super) fn allocate_unchecked(
        &mut self,
        node: &str,
        text: &str,
    ) -> Result<IpNet, AllocateError> {
        let mut result = None;
        self.ask(node, |agent, now| {
            result = Some(agent.allocate(&key(text), None, now));
        });
        result.unwrap()
    }

    /// Lets time pass without delivering anything.
    pub(super) fn advance(&mut self, time: Duration) {
        self.now += time;
        for me in self.names() {
            self.handle(&me, Input::Timeout);
        }
    }

    /// Delivers all messages.
    pub(super) fn settle(&mut self) {
        for step in 0.. {
            assert!(step < 100_000, "the agents never fall silent");
            if !self.deliver() {
                break;
            }
        }
        self.check();
    }

    /// Lets time pass, with all that is due in it.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let due = self.agents.values().map(Agent::poll_timeout).min();
            match due.filter(|due| *due <= end) {
                Some(due) => self.now = self.now.max(due),
                None => break,
            }
            for me in self.names() {
                self.handle(&me, Input::Timeout);
            }
        }
        self.now = end;
    }

    pub(super) fn allocate(&mut self, node: &str, text: &str) -> Result<IpNet, AllocateError> {
        let mut result = None;
        self.ask(node, |agent, now| {
            result = Some(agent.allocate(&key(text), None, now));
        });
        self.check();
        result.unwrap()
    }

    /// As an ADD does: asks again until it has an address.
    pub(super) fn allocate_within(
        &mut self,
        node: &str,
        text: &str,
        time: Duration,
    ) -> Result<IpNet, AllocateError> {
        let end = self.now + time;
        loop {
            let result = self.allocate(node, text);
            if result.is_ok() || self.now >= end {
                return result;
            }
            self.pass(Duration::from_millis(100));
        }
    }

    pub(super) fn remove(&mut self, node: &str, gone: &str) {
        self.ask(node, |agent, now| {
            agent.remove(&name(gone), now).unwrap();
        });
    }

    /// What no two nodes may hand out (I1), and that nothing is lost (I2).
    pub(super) fn check(&self) {
        let agents: Vec<&Agent> = self.agents.values().collect();
        for (i, a) in agents.iter().enumerate() {
            for b in &agents[i + 1..] {
                let theirs = b.usable();
                for range in a.usable().iter() {
                    assert_eq!(
                        theirs.size_within(range),
                        0,
                        "{} and {} may both use {range:?}\n{:?}{:?}",
                        a.me(),
                        b.me(),
                        a.ring(),
                        b.ring()
                    );
                }
            }
        }
    }

    /// All nodes that run have the same ring.
    pub(super) fn assert_agreed(&self) {
        let mut rings = self.agents.values().map(Agent::ring);
        let first = rings.next().unwrap();
        for ring in rings {
            assert_eq!(first, ring);
        }
    }
}

impl Agent {
    pub(super) fn lookup_text(&self, text: &str) -> Option<IpNet> {
        self.allocator.lookup(&key(text)).first().copied()
    }
}
