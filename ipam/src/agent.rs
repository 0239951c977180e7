//! What one node does about addresses: the ring, its allocator, and the talk with other nodes.
//!
//! A state machine without clock, socket or disk. Messages and time come in through
//! [`Agent::handle`]; what is to be sent comes out of [`Agent::poll_output`], and has to be sent
//! only after the state is durable ([`Agent::take_unsaved`], [`Agent::drain_changes`]). Messages
//! may be lost, repeated and reordered.
//!
//! # Who may allocate
//!
//! A node allocates from what its ring says it owns, without asking anybody, once it is
//! *admitted*: it has heard from another node since it started (`admission`). Space comes to it as
//! gifts of their owners (`donation`), or because it took over what a gone node owned; the latter
//! it uses only when all other living nodes have said that they know (`removal`). Addresses that
//! containers of another node still hold are not handed out (`quarantine`). The first division
//! can be agreed upon (`election`). Whom a node asks what it does not know is in `contact`, and what it
//! does with its space before it leaves in `leave`.

mod admission;
mod contact;
mod donation;
mod election;
mod exchange;
mod leave;
mod message;
mod quarantine;
mod removal;
mod state;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use wire::PeerName;

use self::admission::{Admission, Standing};
use self::contact::{Inquiry, Peer};
use self::donation::Wants;
use self::election::Election;
pub use self::leave::HandedOver;
use self::message::Message;
use self::removal::Round;
pub use self::removal::{RemoveError, Removed};
pub use self::view::{AgentView, Notice, PeerSpace};
use crate::allocator::{AllocateError, Allocation, AllocationKey, Allocator, Change};
use crate::range::Range;
use crate::range_set::RangeSet;
use crate::ring::{Delta, Ring, SeedError, Seeding};

/// Between repeats of what was not answered.
const REPEAT: Duration = Duration::from_secs(1);

/// Between digests to one neighbour after the other: finds what a lost message left different. Each
/// costs 1.5 KB with its answer, whatever the size of the cluster.
const REPAIR: Duration = Duration::from_secs(30);

/// Segments in one message, which keeps it within the mesh's 128 KiB.
const PART: usize = 4096;

/// What an agent is told by the settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct AgentSettings {
    /// The nodes among which the range is first divided, if the settings name them.
    pub seeding: Option<Seeding>,
    /// The number of nodes that agree on the first division, if the settings say so.
    pub consensus: Option<u32>,
    /// Whether other nodes are named to connect to: a node that starts with nothing then waits
    /// for one of them.
    pub expects_peers: bool,
    /// The part of the range from which addresses are taken unless another is asked for; none: the
    /// whole. Has to be a subnet that [`Agent::allocate`] takes.
    pub default_subnet: Option<IpNet>,
}

/// What comes to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Messages get to this node from now on, straight or through others; earlier ones may be lost.
    Reachable(PeerName),
    /// Messages to this node are lost from now on.
    Unreachable(PeerName),
    /// A control connection with this node has begun, the first or a new one; it is reachable.
    Neighbour(PeerName),
    /// A message came.
    Gossip {
        /// Whose.
        from: PeerName,
        /// Its bytes.
        payload: Vec<u8>,
    },
    /// Time has passed.
    Timeout,
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Outgoing {
    /// To whom; none: to all that can be reached.
    pub to: Option<PeerName>,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// The node's part in the address plan. See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Agent {
    me: PeerName,
    settings: AgentSettings,
    allocator: Allocator,
    admission: Admission,
    peers: BTreeMap<PeerName, Peer>,
    /// Nodes that this node was asked to remove, and whose space it takes over.
    removing: BTreeSet<PeerName>,
    /// Space taken over and not confirmed.
    round: Round,
    /// Addresses that other nodes' containers hold of this node's space, by node.
    blocked: BTreeMap<PeerName, RangeSet>,
    /// Addresses held here and there, as others have told.
    doubles: BTreeMap<u128, PeerName>,
    /// What others were last told that containers here hold of theirs; none: not known.
    told_held: Option<RangeSet>,
    /// Whether rings that were seeded apart have met, and the own space is still to be re-claimed.
    contested: bool,
    /// The latest life of this node that was declared gone and after which it has re-claimed what it
    /// owns.
    answered_gone: u32,
    wants: Wants,
    /// Whether all was given away and this node is about to leave.
    leaving: bool,
    election: Election,
    outputs: VecDeque<Outgoing>,
    unsaved: bool,
    /// What a test has taken out, to see that it is missed.
    #[cfg(test)]
    without: Option<tests::Without>,
    repeat_at: Option<Duration>,
    repair_at: Duration,
    inquiry: Inquiry,
    /// Who was last asked whether it still holds addresses of this node.
    recalled: Option<PeerName>,
    /// The last message that was refused, and why.
    refusal: Option<(PeerName, String)>,
    /// How many were refused.
    refused: u64,
}

impl Agent {
    /// Begins a run with what an earlier one left: the allocator with its ring, and
    /// [`Agent::state`]; or, on a first start, with an undecided ring and no bytes.
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn start(
        allocator: Allocator,
        state: &[u8],
        settings: AgentSettings,
        now: Duration,
    ) -> Result<Self, crate::DecodeError> {
        let mut agent = Self {
            me: allocator.me().clone(),
            election: Election::default(),
            settings,
            allocator,
            admission: Admission::Listening,
            peers: BTreeMap::new(),
            removing: BTreeSet::new(),
            round: Round::default(),
            blocked: BTreeMap::new(),
            doubles: BTreeMap::new(),
            told_held: Some(RangeSet::new()),
            contested: false,
            answered_gone: 0,
            wants: Wants::default(),
            leaving: false,
            outputs: VecDeque::new(),
            unsaved: false,
            #[cfg(test)]
            without: None,
            repeat_at: Some(now + REPEAT),
            repair_at: now + REPAIR,
            inquiry: Inquiry::default(),
            recalled: None,
            refusal: None,
            refused: 0,
        };
        agent.restore(state)?;
        agent.begin_life();
        agent.ring_changed(now);
        Ok(agent)
    }

    /// Takes an input. Look at the outputs afterwards.
    pub fn handle(&mut self, input: Input, now: Duration) {
        match input {
            Input::Reachable(peer) => self.reachable(&peer, now),
            Input::Unreachable(peer) => self.unreachable(peer, now),
            Input::Neighbour(peer) => self.neighbour(&peer, now),
            Input::Gossip { from, payload } => match Message::decode(&payload) {
                Ok(message) => self.take(&from, message, now),
                Err(error) => self.refuse(&from, error.to_string()),
            },
            Input::Timeout => self.tick(now),
        }
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Duration {
        self.repeat_at
            .map_or(self.repair_at, |at| at.min(self.repair_at))
    }

    /// The next message to send, once everything is durable.
    pub fn poll_output(&mut self) -> Option<Outgoing> {
        self.outputs.pop_front()
    }

    /// Whether [`Agent::ring`] or [`Agent::state`] changed since this was last asked: both have to
    /// be made durable before outputs are sent or answers given.
    pub fn take_unsaved(&mut self) -> bool {
        std::mem::take(&mut self.unsaved)
    }

    /// See [`Allocator::allocate`]; without a subnet, the settings' default is meant. Space that is
    /// missing is asked for; try again when messages have come.
    ///
    /// # Errors
    /// Those of the allocator, and what is waited for.
    pub fn allocate(
        &mut self,
        key: &AllocationKey,
        subnet: Option<IpNet>,
        now: Duration,
    ) -> Result<IpNet, AllocateError> {
        if let Some(held) = self.lookup_in(key, subnet) {
            return Ok(held);
        }
        self.admitted()?;
        let subnet = subnet.unwrap_or(self.home());
        let allocated = self.allocator.allocate(key, Some(subnet), now);
        match &allocated {
            Ok(_) => self.look_ahead(now),
            Err(
                AllocateError::Full { .. }
                | AllocateError::NothingOwned { .. }
                | AllocateError::SubnetOfPeers { .. },
            ) => {
                self.want(Range::of(subnet), now);
            }
            Err(_) => {}
        }
        allocated.map_err(|error| self.explained(error))
    }

    /// What a key has in a subnet; without one, in the default subnet or in the whole range.
    pub fn lookup_in(&self, key: &AllocationKey, subnet: Option<IpNet>) -> Option<IpNet> {
        let home = subnet.unwrap_or(self.home());
        let held = self.allocator.lookup_in(key, Some(home));
        // What was given before there was a default.
        held.or_else(|| self.allocator.lookup_in(key, subnet))
    }

    /// See [`Allocator::claim`]. An address of another node is asked for; try again when messages
    /// have come.
    ///
    /// # Errors
    /// Those of the allocator, and what is waited for.
    pub fn claim(
        &mut self,
        key: &AllocationKey,
        subnet: Option<IpNet>,
        address: IpAddr,
        now: Duration,
    ) -> Result<IpNet, AllocateError> {
        if self.lookup_in(key, subnet).is_none() {
            self.admitted()?;
        }
        let claimed = self.allocator.claim(key, subnet, address, now);
        if let (Err(AllocateError::AddressOfPeer { .. }), Some(at)) =
            (&claimed, self.allocator.universe().number(address))
        {
            // Its owner is asked for this one address; try again when it has answered.
            self.want(Range::single(at), now);
        }
        claimed.map_err(|error| self.explained(error))
    }

    /// See [`Allocator::release`].
    pub fn release(&mut self, key: &AllocationKey, now: Duration) -> Vec<IpNet> {
        let estranged = self.allocator.estranged().next().is_some();
        let released = self.allocator.release(key, now);
        if estranged {
            self.held_changed();
            self.doubles
                .retain(|at, _| self.allocator.user_of(*at).is_some());
        }
        released
    }

    /// See [`Allocator::drain_changes`].
    pub fn drain_changes(&mut self) -> Vec<Change> {
        self.allocator.drain_changes()
    }

    /// See [`Allocator::undo`].
    pub fn undo(&mut self, changes: &[Change]) {
        self.allocator.undo(changes);
    }

    /// This node.
    pub fn me(&self) -> &PeerName {
        &self.me
    }

    /// The ring as this node knows it.
    pub fn ring(&self) -> &Ring {
        self.allocator.ring()
    }

    /// The allocator, to look at.
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// What may be handed out or given away now: nothing before the node is admitted.
    pub fn usable(&self) -> RangeSet {
        if self.is_admitted() {
            self.allocator.free().clone()
        } else {
            RangeSet::new()
        }
    }

    /// Everything in use on this node.
    pub fn allocations(&self) -> Vec<Allocation> {
        let all = self.allocator.allocations();
        all.map(|(key, address)| Allocation {
            key: key.clone(),
            address,
        })
        .collect()
    }

    /// How many messages could not be understood or merged.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Why the next allocation without a subnet would have to wait, if it would.
    ///
    /// # Errors
    /// That is the answer.
    pub fn available(&self) -> Result<(), AllocateError> {
        self.admitted()?;
        let available = self.allocator.available(self.home());
        available.map_err(|error| self.explained(error))
    }

    /// An authority has said among whom the range is first divided. It says the same to all who
    /// ask; what is divided already stays.
    ///
    /// # Errors
    /// The range has no room for so many.
    pub fn divide(&mut self, among: &Seeding, now: Duration) -> Result<(), SeedError> {
        let seeded = Ring::seeded(self.ring().universe(), among)?;
        let mut ring = self.ring().clone();
        if ring.is_undecided() && ring.merge(&seeded.delta()).is_ok() {
            self.set_ring(ring, now);
            self.inquiry.start_over();
            self.pursue(now);
        }
        Ok(())
    }

    /// From where addresses are taken unless a subnet is asked for.
    fn home(&self) -> IpNet {
        let universe = self.allocator.universe();
        self.settings.default_subnet.unwrap_or(universe.net())
    }

    fn take(&mut self, from: &PeerName, message: Message, now: Duration) {
        match message {
            Message::Sync {
                digest,
                life,
                electors,
                free,
            } => {
                self.note_peer(from, free, electors);
                self.answer(from, &digest, life, now);
            }
            Message::Answer {
                delta,
                digest,
                life,
                fresh,
                admitted,
                electors,
                free,
            } => {
                self.note_peer(from, free, electors);
                self.inquiry.answered(from);
                if self.merge(from, &delta, now) {
                    self.heard(from, life, Standing { fresh, admitted }, now);
                    // Who knows nothing yet asks by itself, and not everybody at once.
                    if !fresh {
                        self.repair(from, &digest);
                    }
                }
                self.pursue(now);
            }
            Message::Update { delta, free } => {
                self.peers.entry(from.clone()).or_default().free = Some(free);
                self.merge(from, &delta, now);
            }
            Message::Request {
                window,
                size,
                urgent,
                life,
            } => self.donate(from, window, size, urgent, life, now),
            Message::Denied { free, .. } => self.denied(from, free, now),
            Message::Confirm { round, delta } => self.acknowledge(from, round, &delta, now),
            Message::Ack { round, delta, held } => {
                self.acknowledged(from, round, &delta, held, now);
            }
            Message::Held { held, life } => {
                self.note_life(from, life, now);
                self.block(from, held);
            }
            Message::Recall => self.say_held(from),
            Message::Elect { electors, step } => self.elect(from, electors, step, now),
        }
        self.ask(now);
    }

    fn tick(&mut self, now: Duration) {
        if self.repeat_at.is_some_and(|at| at <= now) {
            self.repeat_at = None;
            self.allocator.expire(now);
            self.take_over_removed(now);
            self.pursue(now);
            self.look_for_electors();
            for peer in self.unacknowledged() {
                self.ask_to_confirm(&peer);
            }
            self.tidy(now);
            self.look_ahead(now);
            self.propose(now);
        }
        if self.repair_at <= now {
            self.repair_at = now + REPAIR;
            self.sync_next();
            self.tidy(now);
            self.recall_next();
            if !self.held().is_empty() {
                self.tell_held();
            }
        }
        self.ask(now);
        self.schedule(now);
    }

    /// Repeats only while something is outstanding, so that a settled cluster is silent.
    fn schedule(&mut self, now: Duration) {
        let busy = !self.is_admitted()
            || !self.round.ranges.is_empty()
            || !self.removing.is_empty()
            || !self.wants.is_empty()
            || self.is_electing()
            || self.is_idle();
        if busy && self.repeat_at.is_none() {
            self.repeat_at = Some(now + REPEAT);
        }
    }

    fn send(&mut self, to: Option<&PeerName>, message: &Message) {
        let payload = message.encode();
        let to = to.cloned();
        self.outputs.push_back(Outgoing { to, payload });
    }

    fn tell(&mut self, to: Option<&PeerName>, delta: &Delta) {
        let free = self.free();
        for part in exchange::parts(delta) {
            self.send(to, &Message::Update { delta: part, free });
        }
    }

    fn refuse(&mut self, from: &PeerName, why: String) {
        self.refused += 1;
        self.refusal = Some((from.clone(), why));
    }

    fn note_peer(&mut self, from: &PeerName, free: u64, electors: u32) {
        let peer = self.peers.entry(from.clone()).or_default();
        peer.free = Some(free);
        peer.electors = electors;
    }

    /// Free addresses, for others; 2^64 - 1 stands for more.
    fn free(&self) -> u64 {
        let free = if self.is_admitted() {
            self.allocator.free().size()
        } else {
            0
        };
        u64::try_from(free).unwrap_or(u64::MAX)
    }
}
