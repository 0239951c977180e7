//! The state machine: inputs in, outputs out.
//!
//! The rules are in the modules below it, by what they are about: `dialling` (whom to dial when),
//! `handshake` (from an open connection to one in use), `links` (what a lost connection means for
//! the data link) and `exchange` (what nodes tell each other of others).

mod dialling;
mod exchange;
mod handshake;
mod links;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use wire::{PeerId, PeerName};

use crate::condition::{Condition, ConditionKind, Conditions};
use crate::config::Config;
use crate::connection::{ConnId, Connection, Phase};
use crate::counters::Counters;
use crate::departed::Departed;
use crate::dial::{Candidate, DialError, TargetEntry, TargetState, TargetView};
use crate::frame::{FrameError, emit, preamble};
use crate::link::LinkChange;
use crate::message::Message;
use crate::myself::Myself;
use crate::peer::{Peer, PeerView};
use crate::refusal::{Refusal, RefusalCode};
use crate::rng::SplitMix64;
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
    /// Sends bytes to one peer, or to all that have a control connection.
    SendGossip {
        /// To whom; None: all.
        to: Option<PeerId>,
        /// Which part of the program they are for.
        channel: u8,
        /// The bytes, at most [`MAX_GOSSIP`](crate::MAX_GOSSIP).
        payload: Vec<u8>,
    },
    /// This node leaves for good: all peers are told, all connections closed, none accepted.
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
    /// A control connection with this peer is in use: the first, or a new one after a loss. What
    /// was sent before may be lost, so that those who gossip begin anew.
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
    /// A handshake or an established connection wants attention.
    Connection(ConnId),
    /// The grace of a peer ends, or it is to be forgotten.
    Peer(PeerId),
    Dial(Candidate),
    Exchange,
}

/// The mesh as one node sees it.
///
/// After each [`Mesh::handle`], [`Mesh::poll_output`] is called until it says None.
#[derive(Debug)]
pub struct Mesh {
    config: Config,
    rng: SplitMix64,
    timers: Timers<Timer>,
    connections: BTreeMap<ConnId, Connection>,
    peers: BTreeMap<PeerId, Peer>,
    targets: BTreeMap<Target, TargetEntry>,
    /// Candidates whose time has come while too many dials were under way.
    waiting: VecDeque<Candidate>,
    departed: Departed,
    myself: Myself,
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

impl Mesh {
    /// A mesh that begins to dial its targets at `now`.
    pub fn new(config: Config, now: Duration) -> Self {
        let mut mesh = Self {
            rng: SplitMix64::new(config.seed),
            timers: Timers::new(),
            connections: BTreeMap::new(),
            peers: BTreeMap::new(),
            targets: BTreeMap::new(),
            waiting: VecDeque::new(),
            departed: Departed::new(config.limits.departed, config.timing.departed),
            myself: Myself::default(),
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
        mesh.schedule_exchange(now);
        mesh
    }

    /// Takes an input, and runs what is due.
    pub fn handle(&mut self, input: Input, now: Duration) {
        match input {
            Input::Accepted { conn, remote } => self.accepted(conn, canonical(remote), now),
            Input::Dialled { conn, remote } => self.dialled(conn, canonical(remote), now),
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
            Input::Connect(target) => self.connect(target, now),
            Input::Forget(target) => self.forget(&target),
            Input::SendGossip {
                to,
                channel,
                payload,
            } => self.send_gossip(to, channel, payload),
            Input::Leave => self.leave(),
            Input::Timeout => {}
        }
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Connection(conn) => self.attend(conn, now),
                Timer::Peer(id) => self.attend_peer(id, now),
                Timer::Dial(candidate) => self.due(candidate, now),
                Timer::Exchange => self.exchange(now),
            }
        }
        while let Some(over) = self.conditions.take_over(now) {
            self.outputs
                .push_back(Output::Condition(ConditionChange::Over(over)));
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        [self.timers.next(), self.conditions.next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// All peers, by identity.
    pub fn peers(&self, now: Duration) -> Vec<PeerView> {
        let view = |(id, peer): (&PeerId, &Peer)| {
            let control = peer.control.and_then(|conn| self.connections.get(&conn));
            let mut view = peer.view(*id, control.and_then(|control| control.remote), now);
            view.rtt = control.and_then(|control| control.rtt);
            view
        };
        self.peers.iter().map(view).collect()
    }

    /// All targets.
    pub fn targets(&self, now: Duration) -> Vec<TargetView> {
        let view = |(target, entry): (&Target, &TargetEntry)| {
            let state = match entry.peer.filter(|id| self.peers.contains_key(id)) {
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
        self.targets.iter().map(view).collect()
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

    /// Bytes arrived.
    fn received(&mut self, conn: ConnId, bytes: &[u8], now: Duration) {
        // Bytes of a connection that has been closed meanwhile are of no interest.
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        connection.hear(now, &self.config.timing);
        connection.deframer.push(bytes);
        // A message may close its own connection, so each one looks it up again.
        while let Some(connection) = self.connections.get_mut(&conn) {
            match connection.deframer.next_message(connection.stage()) {
                Ok(Some(message)) => self.message(conn, message, now),
                Ok(None) => break,
                Err(error) => self.unreadable(conn, &error, now),
            }
        }
    }

    /// One message, in the phase that its connection is in.
    fn message(&mut self, conn: ConnId, message: Message, now: Duration) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        match (connection.phase, message) {
            (Phase::Hello, Message::Hello(hello)) => self.hello(conn, hello, now),
            (Phase::Ready, Message::Ready) => self.ready(conn, now),
            (Phase::Welcome, Message::Welcome) => self.establish(conn, now),
            (Phase::Established, Message::Peers { known, left }) => {
                self.learn(conn, known, &left, now);
            }
            (Phase::Established, Message::Ping(nonce)) => self.send(conn, &Message::Pong(nonce)),
            (Phase::Established, Message::Pong(nonce)) => {
                // The nonce is the time of the ping. A peer that makes one up shows a false time
                // for itself, no more.
                connection.rtt = now.checked_sub(Duration::from_micros(nonce));
            }
            (Phase::Established, Message::Gossip { channel, payload }) => {
                self.gossip(conn, channel, payload);
            }
            (_, Message::Leave) => self.told_to_leave(conn, now),
            (_, Message::Refuse(refusal)) => self.refused(conn, &refusal, now),
            (_, Message::Unknown(_)) => self.counters.unknown_messages += 1,
            (
                phase,
                message @ (Message::Hello(_)
                | Message::Ready
                | Message::Welcome
                | Message::Peers { .. }
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::Gossip { .. }),
            ) => {
                self.counters.malformed += 1;
                let text = format!("{} in phase {phase:?} is out of place", message.name());
                self.end(conn, &Refusal::new(RefusalCode::Malformed, &text), now);
            }
        }
    }

    /// The stream cannot be read any further: this connection ends, and nothing else does (I5).
    fn unreadable(&mut self, conn: ConnId, error: &FrameError, now: Duration) {
        let code = match error {
            FrameError::Version { .. } => {
                self.counters.refused += 1;
                if let Some(remote) = self.connections.get(&conn).and_then(|c| c.remote) {
                    let message = format!("{remote}: {error}");
                    let subject = remote.ip().to_string();
                    self.raise(ConditionKind::OtherVersion, subject, message, now);
                }
                RefusalCode::Version
            }
            FrameError::NotWeft(_)
            | FrameError::TooLarge { .. }
            | FrameError::Empty
            | FrameError::Message { .. } => {
                self.counters.malformed += 1;
                RefusalCode::Malformed
            }
        };
        self.end(conn, &Refusal::new(code, &error.to_string()), now);
    }

    /// A connection's time has come: its handshake took too long, it was silent for too long, or a
    /// ping is due.
    fn attend(&mut self, conn: ConnId, now: Duration) {
        let timing = &self.config.timing;
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        if connection.phase != Phase::Established {
            self.counters.silent += 1;
            let text = format!("no handshake within {} s", timing.handshake.as_secs());
            self.end(conn, &Refusal::new(RefusalCode::Silent, &text), now);
        } else if now >= connection.heard + connection.patience {
            self.counters.silent += 1;
            let silence = now.saturating_sub(connection.heard).as_secs();
            let text = format!("nothing heard on the control connection for {silence} s");
            self.end(conn, &Refusal::new(RefusalCode::Silent, &text), now);
        } else {
            if now >= connection.next_ping {
                connection.next_ping = now + timing.ping;
                let nonce = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
                self.send(conn, &Message::Ping(nonce));
            }
            self.schedule_attention(conn);
        }
    }

    fn schedule_attention(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get(&conn) {
            self.timers
                .set(Timer::Connection(conn), connection.deadline());
        }
    }

    /// Closes a connection and tells the other side why.
    fn end(&mut self, conn: ConnId, refusal: &Refusal, now: Duration) {
        self.send(conn, &Message::Refuse(refusal.clone()));
        self.outputs.push_back(Output::Close {
            conn,
            reason: refusal.text.clone(),
        });
        self.gone(conn, &refusal.text, refusal.code.is_lasting(), now);
    }

    /// A connection is no more. `lasting`: asking again soon is pointless.
    fn gone(&mut self, conn: ConnId, reason: &str, lasting: bool, now: Duration) {
        let Some(connection) = self.connections.remove(&conn) else {
            return;
        };
        self.timers.cancel(&Timer::Connection(conn));
        match (connection.phase, conn) {
            (Phase::Dialling, _) => self.dials -= 1,
            (Phase::Established, _) | (_, ConnId::Dialled(_)) => {}
            (Phase::Hello | Phase::Ready | Phase::Welcome, ConnId::Accepted(_)) => {
                self.handshakes -= 1;
            }
        }
        let peer = connection.hello.map(|hello| hello.id);
        let control = match peer.and_then(|id| self.peers.get_mut(&id)) {
            Some(peer) => {
                peer.pending.remove(&conn);
                peer.control == Some(conn)
            }
            None => false,
        };
        if let Some(candidate) = connection.candidate {
            self.attempt_failed(&candidate, reason, lasting, now);
        }
        if let Some(id) = peer {
            if control {
                let lived = now.saturating_sub(connection.since);
                self.control_lost(id, reason, lived, now);
            } else {
                self.schedule_peer(id, now);
            }
        }
        self.dial_waiting(now);
    }

    fn send(&mut self, conn: ConnId, message: &Message) {
        let mut bytes = Vec::new();
        emit(message, &mut bytes);
        self.outputs.push_back(Output::Send { conn, bytes });
    }

    /// Begins a connection: who we are.
    fn introduce(&mut self, conn: ConnId) {
        let mut bytes = preamble().to_vec();
        emit(
            &Message::Hello(Box::new(self.config.me.clone())),
            &mut bytes,
        );
        self.outputs.push_back(Output::Send { conn, bytes });
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

/// An IPv4 address that arrived on a socket of both families is one of IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

#[cfg(test)]
mod tests;
