//! Sessions with all peers, as a state machine: handshake messages and time in, handshake messages and
//! keys out.
//!
//! A session is made when a frame wants it, or when the other side begins one, and is replaced while
//! it is in use. Messages get lost, overtake each other and arrive twice: an initiation is sent again,
//! each time anew, until it is answered; one that is not newer than the last is dropped (its number
//! only grows, over restarts too). When both sides begin at once, the one with the larger identity
//! gives way. Nothing that fails changes anything but a counter.

mod config;
mod counters;
mod exchange;
mod handshake;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use snow::HandshakeState;
use wire::PeerId;

use super::cookie::{Addressee, Cookie, Gate};
use super::keys::{AGGREGATES, CipherChoice, SessionKeys};
use super::random::Entropy;
use super::secret::{Fingerprint, Psk, identity};
use super::slots::Slots;
use crate::timers::Timers;
pub use config::{SessionConfig, SessionTiming};
pub use counters::SessionCounters;
pub use exchange::{Route, SessionInput, SessionOutput, SessionView};

/// The state machine.
#[derive(Debug)]
pub struct Sessions {
    config: SessionConfig,
    me: Addressee,
    offered: u8,
    peers: HashMap<PeerId, Peer>,
    gate: Gate,
    entropy: Entropy,
    /// Number of the last initiation.
    number: u64,
    timers: Timers<PeerId>,
    outputs: VecDeque<SessionOutput>,
    counters: SessionCounters,
}

#[derive(Debug)]
struct Peer {
    public: [u8; 32],
    addressee: Addressee,
    slots: Slots,
    /// The last epoch given to a key to open with.
    epoch: u16,
    /// Start and number of the newest initiation seen.
    newest: Option<(u64, u64)>,
    pending: Option<Box<Pending>>,
    cookie: Option<(Cookie, Duration)>,
    active: Option<Duration>,
    /// When something was last opened, as far as it was told.
    heard: Option<Duration>,
    mended: Option<Duration>,
}

/// An initiation that waits for its answer.
#[derive(Debug)]
struct Pending {
    index: u32,
    epoch: u16,
    state: HandshakeState,
    mac1: [u8; 16],
    attempt: u32,
    again: Duration,
    until: Duration,
}

/// For so long after something was opened a peer has lost nothing: it is told once a second.
const HEARD: Duration = Duration::from_secs(5);

impl Sessions {
    /// No sessions yet.
    pub fn new(config: SessionConfig, now: Duration) -> Self {
        let mut entropy = Entropy::new(config.seed);
        let ciphers = config.ciphers.iter().copied();
        let offered = ciphers
            .chain([CipherChoice::ChaCha20Poly1305])
            .fold(0, |set, cipher| set | cipher.bit());
        let offered = if config.aggregates {
            offered | AGGREGATES
        } else {
            offered
        };
        Self {
            me: Addressee::new(&config.secrets.public),
            offered,
            peers: HashMap::new(),
            gate: Gate::new(config.timing.initiations, &mut entropy, now),
            entropy,
            number: 0,
            timers: Timers::new(),
            outputs: VecDeque::new(),
            counters: SessionCounters::default(),
            config,
        }
    }

    /// Takes what happened.
    pub fn handle(&mut self, input: SessionInput<'_>, now: Duration) {
        match input {
            SessionInput::Peer { id, public } => self.peer(id, public),
            SessionInput::Gone(id) => self.gone(id),
            SessionInput::Want(id) => self.want(id, now),
            SessionInput::Lost(id) => self.lost(id, now),
            SessionInput::Used { id, epoch } => self.used(id, epoch, now),
            SessionInput::Active { id, sealed, opened } => self.active(id, sealed, opened, now),
            SessionInput::Received {
                from,
                origin,
                message,
            } => {
                self.received(from, origin, message, now);
            }
            SessionInput::Passwords(passwords) => self.passwords(passwords, now),
            SessionInput::Timeout => {
                while let Some(id) = self.timers.pop_due(now) {
                    self.due(id, now);
                }
            }
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<SessionOutput> {
        self.outputs.pop_front()
    }

    /// When [`SessionInput::Timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Counts since the start.
    pub fn counters(&self) -> SessionCounters {
        self.counters
    }

    /// The session that is used for what goes to a peer.
    pub fn view(&self, id: PeerId, now: Duration) -> Option<SessionView> {
        let session = self.peers.get(&id)?.slots.sealing(now)?;
        Some(SessionView {
            cipher: session.sealing.cipher,
            age: now.saturating_sub(session.began),
        })
    }

    fn peer(&mut self, id: PeerId, public: [u8; 32]) {
        // A key that the identity does not follow from is another node's, or nobody's.
        if identity(&public) != id || id == self.config.id || !self.allows(&public) {
            return;
        }
        if !self.peers.contains_key(&id) && self.peers.len() < self.config.peers {
            let peer = self.new_peer(public);
            self.peers.insert(id, peer);
        }
    }

    fn new_peer(&mut self, public: [u8; 32]) -> Peer {
        Peer {
            public,
            addressee: Addressee::new(&public),
            slots: Slots::default(),
            epoch: u16::from_be_bytes(self.entropy.bytes()),
            newest: None,
            pending: None,
            cookie: None,
            active: None,
            heard: None,
            mended: None,
        }
    }

    fn gone(&mut self, id: PeerId) {
        self.timers.cancel(&id);
        if self.peers.remove(&id).is_some() {
            let keys = SessionKeys::default();
            self.outputs.push_back(SessionOutput::Keys { id, keys });
        }
    }

    fn want(&mut self, id: PeerId, now: Duration) {
        let until = now + self.config.timing.patience;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.active = Some(now);
        if let Some(pending) = &mut peer.pending {
            pending.until = until;
        } else if peer.slots.sealing(now).is_none() {
            self.initiate(id, 0, until, now);
        }
    }

    fn lost(&mut self, id: PeerId, now: Duration) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let mend = self.config.timing.mend;
        let within = |at: Option<Duration>, span| at.is_some_and(|at| at + span > now);
        // What is forged says the same; a peer that is heard has lost nothing.
        if peer.pending.is_some() || within(peer.mended, mend) || within(peer.heard, HEARD) {
            return;
        }
        peer.mended = Some(now);
        self.initiate(id, 0, now + self.config.timing.patience, now);
    }

    fn used(&mut self, id: PeerId, epoch: u16, now: Duration) {
        if self
            .peers
            .get_mut(&id)
            .is_some_and(|peer| peer.slots.used(epoch))
        {
            self.tell(id, now);
        }
    }

    fn active(&mut self, id: PeerId, sealed: u64, opened: bool, now: Duration) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.active = Some(now);
        if opened {
            peer.heard = Some(now);
            // It is heard again: what did not get through to it for a while need not wait any longer,
            // or the present session might end meanwhile.
            let retry = self.config.timing.retry;
            let slow = peer.pending.as_ref();
            if let Some(slow) = slow.filter(|p| p.attempt > 0 && p.again > now + retry) {
                let until = slow.until;
                return self.initiate(id, 0, until, now);
            }
        }
        let renew = peer
            .slots
            .sealing(now)
            .is_some_and(|session| session.renew <= now || sealed >= self.config.timing.datagrams);
        if renew && peer.pending.is_none() {
            self.initiate(id, 0, now + self.config.timing.patience, now);
        }
    }

    fn passwords(&mut self, passwords: Vec<Psk>, now: Duration) {
        self.config.secrets.passwords = passwords;
        let passwords = &self.config.secrets.passwords;
        let mut ended: Vec<PeerId> = self
            .peers
            .iter_mut()
            .filter_map(|(id, peer)| {
                // What waits for an answer was made with a password that may be gone.
                peer.pending = None;
                peer.slots.keep(passwords).then(|| {
                    // What it seals with a key that is gone is no forgery.
                    peer.heard = None;
                    *id
                })
            })
            .collect();
        ended.sort_unstable();
        for id in ended {
            self.tell(id, now);
        }
    }

    fn due(&mut self, id: PeerId, now: Duration) {
        let idle = self.config.timing.idle;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some((attempt, until)) = peer
            .pending
            .as_ref()
            .filter(|pending| pending.again <= now)
            .map(|pending| (pending.attempt + 1, pending.until))
        {
            if until > now {
                return self.initiate(id, attempt, until, now);
            }
            peer.pending = None;
            self.counters.given_up += 1;
        }
        let in_use = peer.active.is_some_and(|at| at + idle > now);
        let renew = peer.slots.sealing(now).is_some_and(|s| s.renew <= now);
        if renew && in_use && peer.pending.is_none() {
            self.initiate(id, 0, now + self.config.timing.patience, now);
        }
        self.tell(id, now);
    }

    /// Says which keys a peer has, and when they are to be looked at again.
    fn tell(&mut self, id: PeerId, now: Duration) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.slots.expire(now);
            let keys = peer.slots.keys(now);
            self.outputs.push_back(SessionOutput::Keys { id, keys });
        }
        self.schedule(id, now);
    }

    fn schedule(&mut self, id: PeerId, now: Duration) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let again = peer.pending.iter().map(|pending| pending.again);
        match again.chain(peer.slots.deadline(now)).min() {
            Some(at) => self.timers.set(id, at),
            None => self.timers.cancel(&id),
        }
    }

    fn allows(&self, public: &[u8; 32]) -> bool {
        let allowed = self.config.allowed.as_ref();
        allowed.is_none_or(|allowed| allowed.contains(&Fingerprint::of(public)))
    }
}

#[cfg(test)]
mod tests;
