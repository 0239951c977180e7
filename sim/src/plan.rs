//! The address plan of a cluster: each node's agent with its disk, talking over the real mesh.
//!
//! As in the router, what an agent says and answers leaves only after its state is on the disk, and
//! a crash loses all that is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipam::{
    Agent, AgentSettings, AllocateError, Allocation, AllocationKey, Allocator, Input, Ring,
    Seeding, Universe,
};
use ipnet::IpNet;
use wire::{PeerId, PeerName};

use crate::{Cluster, Node};

/// The mesh's channel for what agents say, as in the router.
const CHANNEL: u8 = 1;
/// How long a released address rests.
const HOLD_DOWN: Duration = Duration::from_secs(5);
/// Between looks at what the mesh has to say: below its latencies.
const LOOK: Duration = Duration::from_millis(10);

/// What survives a crash.
#[derive(Debug, Clone)]
struct Disk {
    ring: Ring,
    state: Vec<u8>,
    allocations: Vec<Allocation>,
}

/// An agent and what it was last told of the mesh.
#[derive(Debug)]
struct Member {
    agent: Agent,
    /// The router's run: another one has another agent.
    run: u64,
    contacts: Contacts,
}

/// Whom a router can send to, and with whom it has a control connection.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contacts {
    reachable: BTreeMap<PeerName, PeerId>,
    neighbours: BTreeSet<PeerName>,
}

impl Contacts {
    fn of(node: &Node, now: Duration) -> Self {
        let mut contacts = Self::default();
        for peer in node.mesh.iter().flat_map(|mesh| mesh.peers(now)) {
            if peer.connected {
                contacts.reachable.insert(peer.name.clone(), peer.id);
                contacts.neighbours.insert(peer.name);
            }
        }
        contacts
    }
}

/// The agents of a cluster.
#[derive(Debug)]
pub struct Plan {
    universe: Universe,
    settings: AgentSettings,
    members: BTreeMap<usize, Member>,
    disks: BTreeMap<usize, Disk>,
}

impl Plan {
    /// A plan for this range, first divided among the machines of these numbers.
    ///
    /// # Errors
    /// There is no such range, or nobody to divide it among.
    pub fn new(range: &str, seeds: &[PeerName]) -> Result<Self, String> {
        let net: IpNet = range.parse().map_err(|error| format!("{error}"))?;
        let seeding = Seeding::new(seeds.iter().cloned()).map_err(|error| error.to_string())?;
        Ok(Self {
            universe: Universe::new(net).map_err(|error| error.to_string())?,
            settings: AgentSettings {
                seeding: Some(seeding),
                consensus: None,
                expects_peers: true,
                default_subnet: None,
            },
            members: BTreeMap::new(),
            disks: BTreeMap::new(),
        })
    }

    /// A node's agent, while its router runs.
    pub fn agent(&self, number: usize) -> Option<&Agent> {
        self.members.get(&number).map(|member| &member.agent)
    }

    /// All agents that run.
    pub fn agents(&self) -> impl Iterator<Item = (usize, &Agent)> {
        self.members
            .iter()
            .map(|(number, member)| (*number, &member.agent))
    }

    /// The node's disk is gone. To be called while its router does not run.
    pub fn lose_disk(&mut self, number: usize) {
        self.disks.remove(&number);
    }

    /// An address for a container, if it can be had now.
    ///
    /// # Errors
    /// As the agent says; or none if no router runs.
    pub fn allocate(
        &mut self,
        cluster: &mut Cluster,
        number: usize,
        key: &AllocationKey,
    ) -> Option<Result<IpNet, AllocateError>> {
        self.ask(cluster, number, |agent, now| agent.allocate(key, None, now))
    }

    /// Lets an agent do something, makes it durable and sends what it has to say; nothing if no
    /// router runs.
    pub fn ask<T>(
        &mut self,
        cluster: &mut Cluster,
        number: usize,
        question: impl FnOnce(&mut Agent, Duration) -> T,
    ) -> Option<T> {
        let member = self.members.get_mut(&number)?;
        let answer = question(&mut member.agent, cluster.now());
        self.flush(cluster, number);
        Some(answer)
    }

    /// Lets time pass.
    ///
    /// # Panics
    /// The cluster's budget is used up.
    pub fn run_for(&mut self, cluster: &mut Cluster, span: Duration) {
        let end = cluster.now() + span;
        self.look(cluster);
        while cluster.now() < end {
            cluster.run_for(LOOK.min(end - cluster.now()));
            self.look(cluster);
        }
    }

    /// Brings to all agents what their routers have for them.
    fn look(&mut self, cluster: &mut Cluster) {
        let now = cluster.now();
        for number in 0..cluster.nodes().len() {
            let runs = cluster.nodes()[number].is_in();
            let run = cluster.nodes()[number].hello.run;
            if self
                .members
                .get(&number)
                .is_some_and(|m| !runs || m.run != run)
            {
                self.members.remove(&number);
            }
            if !runs {
                continue;
            }
            if !self.members.contains_key(&number) {
                self.start(cluster, number, run);
            }
            self.meet(cluster, number);
            for (from, channel, payload) in std::mem::take(&mut cluster.node(number).gossip) {
                if channel == CHANNEL {
                    self.ask(cluster, number, |agent, now| {
                        agent.handle(Input::Gossip { from, payload }, now);
                    });
                }
            }
            if self
                .agent(number)
                .is_some_and(|agent| agent.poll_timeout() <= now)
            {
                self.ask(cluster, number, |agent, now| {
                    agent.handle(Input::Timeout, now)
                });
            }
        }
    }

    fn start(&mut self, cluster: &mut Cluster, number: usize, run: u64) {
        let node = cluster.node(number);
        // What an earlier run was sent and did not take.
        node.gossip.clear();
        let me = node.hello.name.clone();
        let disk = self.disks.get(&number).cloned().unwrap_or_else(|| Disk {
            ring: Ring::undecided(self.universe),
            state: Vec::new(),
            allocations: Vec::new(),
        });
        let allocator = Allocator::restore(me, disk.ring, HOLD_DOWN, disk.allocations, [])
            .expect("the disk has what the agent wrote");
        let agent = Agent::start(allocator, &disk.state, self.settings.clone(), cluster.now())
            .expect("the disk has what the agent wrote");
        let member = Member {
            agent,
            run,
            contacts: Contacts::default(),
        };
        self.members.insert(number, member);
        self.flush(cluster, number);
    }

    /// Tells an agent what has changed about whom it can talk to.
    fn meet(&mut self, cluster: &mut Cluster, number: usize) {
        let contacts = Contacts::of(&cluster.nodes()[number], cluster.now());
        let Some(member) = self.members.get_mut(&number) else {
            return;
        };
        if member.contacts == contacts {
            return;
        }
        let before = std::mem::take(&mut member.contacts);
        let mut inputs = Vec::new();
        for (name, id) in &before.reachable {
            if contacts.reachable.get(name) != Some(id) {
                inputs.push(Input::Unreachable(name.clone()));
            }
        }
        for (name, id) in &contacts.reachable {
            if before.reachable.get(name) != Some(id) {
                inputs.push(Input::Reachable(name.clone()));
            }
        }
        for name in contacts.neighbours.difference(&before.neighbours) {
            inputs.push(Input::Neighbour(name.clone()));
        }
        member.contacts = contacts;
        for input in inputs {
            self.ask(cluster, number, |agent, now| agent.handle(input, now));
        }
    }

    /// First the disk, then the network.
    fn flush(&mut self, cluster: &mut Cluster, number: usize) {
        let Some(member) = self.members.get_mut(&number) else {
            return;
        };
        let changed = !member.agent.drain_changes().is_empty();
        if member.agent.take_unsaved() || changed || !self.disks.contains_key(&number) {
            let disk = Disk {
                ring: member.agent.ring().clone(),
                state: member.agent.state(),
                allocations: member.agent.allocations(),
            };
            self.disks.insert(number, disk);
        }
        while let Some(message) = member.agent.poll_output() {
            let to = match &message.to {
                None => None,
                Some(name) => match member.contacts.reachable.get(name) {
                    Some(id) => Some(*id),
                    None => continue,
                },
            };
            let payload = message.payload;
            let channel = CHANNEL;
            cluster.input(
                number,
                mesh::Input::SendGossip {
                    to,
                    channel,
                    payload,
                },
            );
        }
    }
}
