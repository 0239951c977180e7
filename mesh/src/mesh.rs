//! The state machine: inputs in, outputs out.
//!
//! The rules are in the modules below it, by what they are about: `neighbours` (whom to be connected
//! with), `dialling` (whom to dial when), `handshake` (from an open connection to one in use),
//! `connections` (what is said on them, and their end), `membership` (the entries of all nodes, and
//! how they get about), `presence` (what follows from who can be reached), `transport` (what is
//! carried for others) and `leaving`.

mod connections;
mod dialling;
mod handshake;
mod judged;
mod leaving;
mod membership;
mod neighbours;
mod presence;
mod transport;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use wire::{PeerId, PeerName};

use crate::asked::Asked;
use crate::backoff::Backoff;
use crate::choice::Nearest;
use crate::condition::{Condition, ConditionKind, Conditions};
use crate::config::Config;
use crate::connection::{ConnId, Connection};
use crate::counters::Counters;
use crate::dial::{Candidate, DialError, Dialling, TargetEntry, TargetState, TargetView};
use crate::entry::{Entry, Sealed};
use crate::groups::Groups;
use crate::link::{LinkChange, LinkInput, Links, ProbeToSend};
use crate::myself::Myself;
use crate::pace::Pace;
use crate::peer::PeerView;
use crate::rng::SplitMix64;
use crate::roster::Roster;
use crate::route::Reach;
use crate::seen::Seen;
use crate::sightings::Sightings;
use crate::target::Target;
use crate::timers::Timers;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A connection came in. The driver numbers these.
    Accepted {
        /// Its number, [`ConnId::Accepted`], never used before.
        conn: ConnId,
        /// The other end.
        remote: SocketAddr,
    },
    /// A dial succeeded.
    Dialled {
        /// The connection of [`Output::Dial`].
        conn: ConnId,
        /// The other end.
        remote: SocketAddr,
    },
    /// A dial failed. Every [`Output::Dial`] is answered by this or [`Input::Dialled`] in bounded
    /// time, unless it is closed first.
    DialFailed {
        /// The connection of [`Output::Dial`].
        conn: ConnId,
        /// Why.
        error: DialError,
    },
    /// A handshake below the messages has proven the other side's key. Told before the connection's
    /// first bytes.
    Proven {
        /// On this connection.
        conn: ConnId,
        /// The static public key.
        public: [u8; 32],
    },
    /// A handshake below the messages failed, so that only an operator can mend it.
    Unproven {
        /// The other end.
        remote: SocketAddr,
        /// Why, in words.
        reason: String,
    },
    /// Bytes arrived, cut anywhere.
    Received {
        /// On this connection.
        conn: ConnId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A connection ended, by the other side or by the driver's own limits.
    Closed {
        /// This one.
        conn: ConnId,
        /// Why, in words.
        reason: String,
    },
    /// The operator names a target.
    Connect(Target),
    /// The operator takes a target back. A connection that it led to stays.
    Forget(Target),
    /// The multicast groups that this node's pods listen to.
    Groups(Groups),
    /// What concerns the links, where probes judge them.
    Link(LinkInput),
    /// Sends bytes to one peer, or to all that can be reached.
    SendGossip {
        /// To whom; None: all.
        to: Option<PeerId>,
        /// Which part of the program they are for.
        channel: u8,
        /// The bytes, at most [`MAX_GOSSIP`](crate::MAX_GOSSIP).
        payload: Vec<u8>,
    },
    /// This node leaves: all peers are told, all connections closed, none accepted, and the targets
    /// forgotten. [`Input::Connect`] brings it back.
    Leave,
    /// Time has passed: [`Mesh::poll_timeout`] has come.
    Timeout,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a connection. A name is resolved now, not earlier.
    Dial {
        /// Its number.
        conn: ConnId,
        /// Where to.
        target: Target,
        /// Addresses of this node itself, to be left out of what the name stands for.
        avoid: Vec<SocketAddr>,
    },
    /// Send bytes.
    Send {
        /// On this connection.
        conn: ConnId,
        /// Whole messages.
        bytes: Vec<u8>,
        /// They are carried for others, who repair what is lost: they may be dropped if much waits
        /// for this connection already.
        cargo: bool,
    },
    /// Close a connection after what was to be sent on it. Nothing is said about it afterwards.
    Close {
        /// This one.
        conn: ConnId,
        /// Why, in words.
        reason: String,
    },
    /// A data link changed.
    Link(LinkChange),
    /// The multicast frames that a peer wants have changed. Who was not told of wants all, and so does
    /// one whose words do not get here any more.
    Groups {
        /// Identity.
        id: PeerId,
        /// What it wants.
        groups: Groups,
    },
    /// Send a probe in the encapsulation that frames have.
    Probe(ProbeToSend),
    /// Messages get to this peer from now on, straight or through others. What was sent before may
    /// be lost. Of two nodes with one name only the first is told of.
    Reachable {
        /// Identity.
        id: PeerId,
        /// Name.
        name: PeerName,
    },
    /// Messages to this peer are lost from now on.
    Unreachable {
        /// Identity.
        id: PeerId,
        /// The name with which it was [`Output::Reachable`].
        name: PeerName,
    },
    /// A control connection with this peer is in use: the first, or a new one after a loss.
    Connected {
        /// Identity.
        id: PeerId,
        /// Name.
        name: PeerName,
    },
    /// Bytes from a peer for another part of the program.
    Gossip {
        /// Identity of the sender.
        from: PeerId,
        /// Its name.
        name: PeerName,
        /// Which part they are for.
        channel: u8,
        /// The bytes.
        payload: Vec<u8>,
    },
    /// The public key of a peer that frames are to be sealed for, or none: it is no more. Told only
    /// where links are sealed, and then before any probe for that peer.
    Key {
        /// Identity, which is not checked to follow from the key.
        id: PeerId,
        /// The static public key.
        public: Option<[u8; 32]>,
    },
    /// A condition for the operator.
    Condition(ConditionChange),
}

/// A change of the conditions that hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConditionChange {
    /// It holds, or its message is another.
    Raised(Condition),
    /// It is over: not seen for a while.
    Over(Condition),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A handshake or a connection in use wants attention.
    Connection(ConnId),
    /// A peer has been out of reach for so long that something follows from it.
    Peer(PeerId),
    Dial(Candidate),
    /// It may be others that this node should be connected with.
    Choose,
    /// News are to be told.
    Flush,
    /// What others have asked for is to be sent.
    Answer,
    /// What this node has asked for has not come.
    Asked,
    /// The own entry has changed.
    Publish,
    /// The table is to be compared with a neighbour's.
    Digest,
    /// A peer that is out of reach is to be tried.
    Revive,
    /// What is old is to be thrown away.
    Sweep,
}

/// Room for so many outputs is kept.
const MANY_OUTPUTS: usize = 64;
/// Between looks for what is old.
const SWEEP: Duration = Duration::from_secs(60);

/// The mesh as one node sees it.
///
/// After each [`Mesh::handle`], [`Mesh::poll_output`] is called until it says None.
#[derive(Debug)]
pub struct Mesh {
    config: Config,
    rng: SplitMix64,
    timers: Timers<Timer>,
    connections: BTreeMap<ConnId, Connection>,
    /// The connection in use with each neighbour.
    control: BTreeMap<PeerId, ConnId>,
    roster: Roster,
    nearest: Nearest,
    /// Whom this node wants to be connected with.
    wanted: BTreeSet<PeerId>,
    /// Peers that are dialled, or were not long ago.
    dialled: BTreeMap<PeerId, Dialling>,
    /// Peers out of reach that are being tried.
    reviving: BTreeSet<PeerId>,
    revival: Backoff,
    /// The one that was tried last.
    revived: PeerId,
    targets: BTreeMap<Target, TargetEntry>,
    /// Candidates whose time has come while too many dials were under way.
    waiting: VecDeque<Candidate>,
    myself: Myself,
    sightings: Sightings,
    own: Own,
    seen: Seen,
    /// Whose entries are to be announced, and the connections on which that was heard.
    news: BTreeMap<PeerId, Vec<ConnId>>,
    asked: Asked,
    /// None: a link is up as long as the control path is.
    links: Option<Box<Links>>,
    conditions: Conditions,
    counters: Counters,
    outputs: VecDeque<Output>,
    next_dial: u64,
    /// Dials under way.
    dials: usize,
    /// Accepted connections in their handshake.
    handshakes: usize,
    left: bool,
}

/// What goes into the own entry and what is known of its publication.
#[derive(Debug)]
struct Own {
    groups: Groups,
    reach: Reach,
    sleeve_seen: Option<SocketAddr>,
    pace: Pace,
    /// The version that was spread last.
    spread: u64,
    /// Times that another life of this node was heard of.
    refuted: u32,
    /// Number of the next broadcast.
    sequence: u64,
    /// Another node that comes first has this node's name: its words are not to be taken for those
    /// of the other.
    muted: bool,
    /// The last doubt that was spread, and when.
    doubted: Option<(PeerId, Duration)>,
}

impl Mesh {
    /// A mesh that begins to dial its targets at `now`.
    pub fn new(mut config: Config, now: Duration) -> Self {
        let own = Sealed::new(first_entry(&config));
        let mut mesh = Self {
            rng: SplitMix64::new(config.seed),
            timers: Timers::new(),
            connections: BTreeMap::new(),
            control: BTreeMap::new(),
            roster: Roster::new(own),
            nearest: Nearest::new(),
            wanted: BTreeSet::new(),
            dialled: BTreeMap::new(),
            reviving: BTreeSet::new(),
            revival: Backoff::default(),
            revived: config.me.id,
            targets: BTreeMap::new(),
            waiting: VecDeque::new(),
            myself: Myself::default(),
            sightings: Sightings::default(),
            own: Own {
                groups: Groups::All,
                reach: Reach::default(),
                sleeve_seen: None,
                pace: Pace::new(now),
                spread: 0,
                refuted: 0,
                sequence: first_broadcast(config.born),
                muted: false,
                doubted: None,
            },
            seen: Seen::default(),
            news: BTreeMap::new(),
            asked: Asked::new(config.limits.peers, config.timing.ask),
            links: config.links.take().map(|links| Box::new(Links::new(links))),
            conditions: Conditions::new(config.limits.conditions, config.timing.condition),
            counters: Counters::default(),
            outputs: VecDeque::new(),
            next_dial: 0,
            dials: 0,
            handshakes: 0,
            left: false,
            config,
        };
        for target in std::mem::take(&mut mesh.config.targets) {
            mesh.connect(target, now);
        }
        for address in std::mem::take(&mut mesh.config.remembered) {
            mesh.remember(address, now);
        }
        mesh.schedule_digest(now);
        mesh.timers.set(Timer::Sweep, now + SWEEP);
        if mesh.config.away {
            mesh.leave(now);
        }
        mesh
    }

    /// Takes an input, and runs what is due.
    pub fn handle(&mut self, input: Input, now: Duration) {
        match input {
            Input::Accepted { conn, remote } => self.accepted(conn, canonical(remote), now),
            Input::Dialled { conn, remote } => self.reached(conn, canonical(remote), now),
            Input::DialFailed { conn, error } => self.dial_failed(conn, &error, now),
            Input::Proven { conn, public } => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.proven = Some(public);
                }
            }
            Input::Unproven { remote, reason } => {
                self.counters.refused += 1;
                let subject = canonical(remote).ip().to_string();
                let message = format!("{}: {reason}", canonical(remote));
                self.raise(ConditionKind::OtherPassword, subject, message, now);
            }
            Input::Received { conn, bytes } => self.received(conn, &bytes, now),
            Input::Closed { conn, reason } => self.gone(conn, &reason, false, now),
            Input::Connect(target) => {
                self.come_back(now);
                self.connect(target, now);
            }
            Input::Forget(target) => self.forget(&target),
            Input::Groups(groups) => {
                self.own.groups = groups;
                self.own_changed_much(now);
            }
            Input::Link(input) => self.link_input(input, now),
            Input::SendGossip {
                to,
                channel,
                payload,
            } => self.send_gossip(to, channel, payload, now),
            Input::Leave => self.leave(now),
            Input::Timeout => {}
        }
        self.follow(now);
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Connection(conn) => self.attend(conn, now),
                Timer::Peer(id) => self.attend_peer(id, now),
                Timer::Dial(candidate) => self.due(candidate, now),
                Timer::Choose => self.choose(now),
                Timer::Flush => self.flush(now),
                Timer::Answer => self.pay(now),
                Timer::Asked => self.ask_others(now),
                Timer::Publish => self.publish(now),
                Timer::Digest => self.compare(now),
                Timer::Revive => self.revive(now),
                Timer::Sweep => self.sweep(now),
            }
            self.follow(now);
        }
        self.links_due(now);
        while let Some(over) = self.conditions.take_over(now) {
            self.outputs
                .push_back(Output::Condition(ConditionChange::Over(over)));
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() && self.outputs.capacity() > MANY_OUTPUTS {
            // A newcomer is told of all others at once, and never of as many again.
            self.outputs = VecDeque::new();
        }
        output
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let links = self.links.as_ref().and_then(|links| links.poll_timeout());
        [self.timers.next(), self.conditions.next(), links]
            .into_iter()
            .flatten()
            .min()
    }

    /// All peers, by identity.
    pub fn peers(&self, now: Duration) -> Vec<PeerView> {
        let living = self.roster.iter().filter(|(_, peer)| peer.gone.is_none());
        living.map(|(id, peer)| self.view(id, peer, now)).collect()
    }

    /// All targets that the operator named.
    pub fn targets(&self, now: Duration) -> Vec<TargetView> {
        let view = |(target, entry): (&Target, &TargetEntry)| {
            let state = match entry.peer.filter(|id| self.is_known(*id)) {
                Some(id) => TargetState::Peer(id),
                None if entry.dialling.conn.is_some() => TargetState::Connecting,
                None if entry.myself => TargetState::Myself,
                None => TargetState::Waiting,
            };
            let due = self
                .timers
                .get(&Timer::Dial(Candidate::Target(target.clone())));
            TargetView {
                target: target.clone(),
                state,
                reason: entry.dialling.failure.clone(),
                retry_in: due.map(|at| at.saturating_sub(now)),
            }
        };
        let named = self.targets.iter().filter(|(_, entry)| !entry.remembered);
        named.map(view).collect()
    }

    /// Addresses of some peers, with which a later run finds the network again.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let reachable = self
            .roster
            .after(self.me())
            .filter(|(_, peer)| peer.is_reachable());
        let first = reachable.filter_map(|(_, peer)| peer.entry.addresses.first().copied());
        first.take(self.config.limits.remembered).collect()
    }

    /// The entries of all nodes that can be reached, this node's own first.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Sealed>> {
        let reachable = self.roster.iter().filter(|(_, peer)| peer.is_reachable());
        std::iter::once(self.roster.own()).chain(reachable.map(|(_, peer)| &peer.entry))
    }

    /// Neighbours: peers with a control connection in use.
    pub fn neighbours(&self) -> impl Iterator<Item = PeerId> {
        self.control.keys().copied()
    }

    /// The conditions that hold.
    pub fn conditions(&self, now: Duration) -> Vec<Condition> {
        self.conditions.list(now)
    }

    /// Counts since the start.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether this node has left.
    pub const fn has_left(&self) -> bool {
        self.left
    }

    fn me(&self) -> PeerId {
        self.config.me.id
    }

    /// Whether a peer is known and not gone.
    fn is_known(&self, id: PeerId) -> bool {
        self.roster.get(id).is_some_and(|peer| peer.gone.is_none())
    }

    fn is_reachable(&self, id: PeerId) -> bool {
        self.roster
            .get(id)
            .is_some_and(crate::peer::Peer::is_reachable)
    }

    /// A time, the whole of it in a network of a hundred nodes: a small one has no storm to fear and
    /// should come up at once.
    fn scaled(&self, span: Duration) -> Duration {
        let percent = u32::try_from(self.roster.len().clamp(1, 100)).unwrap_or(100);
        span * percent / 100
    }

    /// A time for what all nodes do and all get to hear: the whole of it in a network of a hundred
    /// nodes, and as many times as long as a larger one has more.
    fn shared(&self, span: Duration) -> Duration {
        let nodes = u32::try_from(self.roster.len().max(1)).unwrap_or(u32::MAX);
        span * nodes / 100
    }

    /// Throws away what is old.
    fn sweep(&mut self, now: Duration) {
        self.timers.set(Timer::Sweep, now + SWEEP);
        self.sweep_roster(now);
        let roster = &self.roster;
        self.seen.retain(|origin| roster.get(origin).is_some());
        let (wanted, timers) = (&self.wanted, &self.timers);
        self.dialled.retain(|id, dialling| {
            dialling.is_busy()
                || wanted.contains(id)
                || timers.get(&Timer::Dial(Candidate::Peer(*id))).is_some()
        });
    }

    fn raise(&mut self, kind: ConditionKind, subject: String, message: String, now: Duration) {
        let (raised, evicted) = self.conditions.raise(kind, subject, message, now);
        let evicted = evicted.map(ConditionChange::Over);
        let changes = evicted
            .into_iter()
            .chain(raised.map(ConditionChange::Raised));
        self.outputs.extend(changes.map(Output::Condition));
    }
}

/// The number of the first broadcast of a run whose first entry has this version: more than those of
/// earlier runs, which had no more than 65,536 of them for each version or millisecond.
const fn first_broadcast(version: u64) -> u64 {
    version.saturating_mul(1 << 16)
}

/// The entry with which a node begins.
fn first_entry(config: &Config) -> Entry {
    let me = &config.me;
    Entry {
        id: me.id,
        version: config.born,
        run: me.run,
        left: false,
        name: me.name.clone(),
        public_key: me.public_key,
        addresses: Vec::new(),
        vxlan_port: me.vxlan_port,
        sleeve_port: me.sleeve_port,
        sleeve_seen: None,
        mtu: me.mtu,
        software: me.version.clone(),
        neighbours: Vec::new(),
        reach: Reach::default(),
        groups: Groups::All,
    }
}

/// An IPv4 address that arrived on a socket of both families is one of IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// An address that means something on one machine or one wire only.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
