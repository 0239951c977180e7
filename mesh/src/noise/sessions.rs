//! Sessions with all peers, as a state machine: handshake messages and time in, handshake messages and
//! keys out.
//!
//! A session is made when a frame wants it, or when the other side begins one, and is replaced while
//! it is in use. Messages get lost, overtake each other and arrive twice: an initiation is sent again,
//! each time anew, until it is answered; one that is not newer than the last is dropped (its number
//! only grows, over restarts too). When both sides begin at once, the one with the larger identity
//! gives way. Nothing that fails changes anything but a counter.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use snow::HandshakeState;
use wire::PeerId;
use zeroize::Zeroize as _;

use super::cookie::{Addressee, Admission, COOKIE_LIFE, Cookie, Gate};
use super::datagram::{
    CHOICE_LEN, INITIATION, INITIATION_LEN, Macs, OFFER_LEN, Offer, Parsed, RESPONSE, RESPONSE_LEN,
    head, parse,
};
use super::keys::{CipherChoice, DirectionKey, SessionKeys};
use super::random::Entropy;
use super::secret::{Fingerprint, Psk, Secrets, identity};
use super::slots::{Session, Slots};
use crate::timers::Timers;

/// The handshake (Noise §9.4): IK, with the pre-shared key at the end of the first message.
const PATTERN: &str = "Noise_IKpsk1_25519_ChaChaPoly_BLAKE2s";
const PSK_PLACE: u8 = 1;
/// Begins what both sides hash before anything else, the identities after it.
const PROLOGUE: &[u8] = b"weft session 1";

/// What [`Sessions`] needs to begin.
#[derive(Debug)]
pub struct SessionConfig {
    /// This node.
    pub id: PeerId,
    /// Its keys and passwords.
    pub secrets: Secrets,
    /// Number of this start of the node. It must be larger than at any earlier start with the same
    /// keys, or peers take what this node begins for a replay.
    pub start: u64,
    /// The ciphers that are fast here. ChaCha20-Poly1305 is taken in any case.
    pub ciphers: Vec<CipherChoice>,
    /// The peers that are spoken to; none: all who have the password.
    pub allowed: Option<BTreeSet<Fingerprint>>,
    /// Random bytes from the kernel.
    pub seed: [u8; 32],
    /// Times and rates.
    pub timing: SessionTiming,
    /// Peers remembered. One more that only an initiation tells of is not answered.
    pub peers: usize,
}

/// Times and rates of sessions.
#[derive(Debug, Clone)]
pub struct SessionTiming {
    /// Age at which a session in use is replaced, by the side that began it.
    pub renew: Duration,
    /// How much later the other side does it, should the first not.
    pub renew_other: Duration,
    /// Age from which nothing is sealed with it.
    pub seal: Duration,
    /// Age from which nothing is opened with it.
    pub open: Duration,
    /// Datagrams sealed after which it is replaced.
    pub datagrams: u64,
    /// First wait for an answer; doubled each time.
    pub retry: Duration,
    /// Longest wait for an answer.
    pub retry_max: Duration,
    /// How long an answer is waited for after the last frame that wanted a session.
    pub patience: Duration,
    /// A session is in use if something crossed it within this time.
    pub idle: Duration,
    /// At least so long between sessions that are begun because what a peer sealed cannot be opened.
    pub mend: Duration,
    /// Initiations a second that are looked at without a cookie.
    pub initiations: u32,
}

impl Default for SessionTiming {
    fn default() -> Self {
        Self {
            renew: Duration::from_secs(120),
            renew_other: Duration::from_secs(15),
            seal: Duration::from_secs(170),
            open: Duration::from_secs(190),
            // Of the 2^36 that a key may seal.
            datagrams: 1 << 35,
            retry: Duration::from_millis(250),
            retry_max: Duration::from_secs(5),
            // WireGuard's REKEY_ATTEMPT_TIME.
            patience: Duration::from_secs(90),
            idle: Duration::from_secs(60),
            mend: Duration::from_secs(2),
            // Half a millisecond each: a tenth of a core.
            initiations: 200,
        }
    }
}

/// What happens to sessions.
#[derive(Debug)]
pub enum SessionInput<'a> {
    /// A peer exists, and this is its key.
    Peer {
        /// Identity.
        id: PeerId,
        /// Public key, which the identity follows from.
        public: [u8; 32],
    },
    /// A peer is no more.
    Gone(PeerId),
    /// A frame waits for a session.
    Want(PeerId),
    /// A peer sealed something with a key that is not known here: one side has lost a session.
    Lost(PeerId),
    /// A datagram was opened, the first with the key of this epoch.
    Used {
        /// Whose.
        id: PeerId,
        /// The key.
        epoch: u16,
    },
    /// Datagrams crossed the session of a peer.
    Active {
        /// Whose.
        id: PeerId,
        /// How many were sealed with the present key so far.
        sealed: u64,
    },
    /// A handshake message came.
    Received {
        /// Who made it, as the sleeve header says: not proven yet.
        from: PeerId,
        /// Where it came from on the underlay: the peer, or the last relay.
        origin: SocketAddr,
        /// What follows the sleeve header.
        message: &'a [u8],
    },
    /// The passwords are others now. Sessions that rest on none of them end.
    Passwords(Vec<Psk>),
    /// The time of [`Sessions::poll_timeout`] has come.
    Timeout,
}

/// Which way a handshake message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// As frames for the peer do; while it has no link, to wherever the peer may be.
    Link,
    /// Back to where that came from which it answers.
    Back(SocketAddr),
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum SessionOutput {
    /// Send a handshake message, sleeve kind 3.
    Send {
        /// For whom.
        to: PeerId,
        /// Which way.
        route: Route,
        /// What follows the sleeve header.
        message: Vec<u8>,
    },
    /// The keys for a peer are these now.
    Keys {
        /// Whose.
        id: PeerId,
        /// All that are in use.
        keys: SessionKeys,
    },
    /// Send an empty sealed frame, by which the peer learns that this node has the key.
    Confirm(PeerId),
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Initiations sent, repeated ones included.
    pub initiations_sent: u64,
    /// Initiations answered.
    pub answered: u64,
    /// Sessions that this node began and the other side answered.
    pub completed: u64,
    /// Messages that are none.
    pub malformed: u64,
    /// Messages whose sender does not know this node's key, or that were damaged.
    pub unsigned: u64,
    /// Messages made without one of the passwords, or that were damaged.
    pub other_password: u64,
    /// Initiations of nodes that are not allowed.
    pub not_allowed: u64,
    /// Initiations seen before, or overtaken by a newer one.
    pub replayed: u64,
    /// Initiations that gave way to this node's own.
    pub crossed: u64,
    /// Answers that nothing waits for.
    pub unexpected: u64,
    /// Initiations that were answered by a cookie.
    pub cookies_sent: u64,
    /// Initiations that were one too many.
    pub overload: u64,
    /// Initiations of peers that there was no room for.
    pub table_full: u64,
    /// Handshakes that were given up.
    pub given_up: u64,
}

impl SessionCounters {
    /// All, with their names.
    pub fn each(&self) -> [(&'static str, u64); 14] {
        [
            ("handshake_initiations_sent", self.initiations_sent),
            ("handshake_answered", self.answered),
            ("handshake_completed", self.completed),
            ("handshake_malformed", self.malformed),
            ("handshake_unsigned", self.unsigned),
            ("handshake_other_password", self.other_password),
            ("handshake_not_allowed", self.not_allowed),
            ("handshake_replayed", self.replayed),
            ("handshake_crossed", self.crossed),
            ("handshake_unexpected", self.unexpected),
            ("handshake_cookies_sent", self.cookies_sent),
            ("handshake_overload", self.overload),
            ("handshake_table_full", self.table_full),
            ("handshake_given_up", self.given_up),
        ]
    }
}

/// A session, for the status page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionView {
    /// Cipher of what this node seals.
    pub cipher: CipherChoice,
    /// Since the handshake.
    pub age: Duration,
}

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

/// Attempts for which the side with the smaller identity waits before it gives way after all: the
/// other side may not hear it.
const STUBBORN: u32 = 3;

impl Sessions {
    /// No sessions yet.
    pub fn new(config: SessionConfig, now: Duration) -> Self {
        let mut entropy = Entropy::new(config.seed);
        let ciphers = config.ciphers.iter().copied();
        let offered = ciphers
            .chain([CipherChoice::ChaCha20Poly1305])
            .fold(0, |set, cipher| set | cipher.bit());
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
            SessionInput::Active { id, sealed } => self.active(id, sealed, now),
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
        if peer.pending.is_some() || peer.mended.is_some_and(|at| at + mend > now) {
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

    fn active(&mut self, id: PeerId, sealed: u64, now: Duration) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.active = Some(now);
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
                peer.slots.keep(passwords).then_some(*id)
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

    /// Sends an initiation in place of the one that waits, if any.
    fn initiate(&mut self, id: PeerId, attempt: u32, until: Duration, now: Duration) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.epoch = free_epoch(peer.epoch, &peer.slots);
        self.number += 1;
        let offer = Offer {
            start: self.config.start,
            number: self.number,
            epoch: peer.epoch,
            ciphers: self.offered,
        };
        let Secrets {
            private, passwords, ..
        } = &self.config.secrets;
        let Some(psk) = passwords.first() else {
            return;
        };
        let mut state = builder(&mut self.entropy)
            .local_private_key(private)
            .and_then(|b| b.remote_public_key(&peer.public))
            .and_then(|b| b.psk(PSK_PLACE, psk.bytes()))
            .and_then(|b| {
                b.prologue(&prologue(self.config.id, id))
                    .and_then(|b| b.build_initiator())
            })
            .expect("the pattern has these keys");
        let index = u32::from_be_bytes(self.entropy.bytes());
        let mut message = head(INITIATION, index).to_vec();
        let mut noise = [0; INITIATION_LEN];
        let written = state
            .write_message(&offer.bytes(), &mut noise)
            .expect("the first message is this node's, and the buffer is long enough");
        message.extend(&noise[..written]);
        let cookie = peer.cookie.filter(|(_, at)| *at + COOKIE_LIFE > now);
        peer.addressee
            .sign(&mut message, cookie.as_ref().map(|(cookie, _)| cookie));
        debug_assert_eq!(message.len(), INITIATION_LEN);
        let mut mac1 = [0; 16];
        mac1.copy_from_slice(Macs { whole: &message }.mac1());

        let timing = &self.config.timing;
        let wait = timing.retry * 2_u32.pow(attempt.min(10));
        // A little more, so that two that began at once do not go on so.
        let wait =
            wait.min(timing.retry_max) + timing.retry.mul_f64(fraction(&mut self.entropy)) / 4;
        peer.pending = Some(Box::new(Pending {
            index,
            epoch: offer.epoch,
            state,
            mac1,
            attempt,
            again: now + wait,
            until,
        }));
        self.counters.initiations_sent += 1;
        self.outputs.push_back(SessionOutput::Send {
            to: id,
            route: Route::Link,
            message,
        });
        self.schedule(id, now);
    }

    fn received(&mut self, from: PeerId, origin: SocketAddr, message: &[u8], now: Duration) {
        match parse(message) {
            Some(Parsed::Initiation { index, noise, macs }) => {
                self.initiation(from, origin, index, noise, macs, now);
            }
            Some(Parsed::Response { index, noise, macs }) => {
                self.response(from, index, noise, macs, now);
            }
            Some(Parsed::Cookie {
                index,
                nonce,
                sealed,
            }) => {
                self.cookie(from, index, nonce, sealed, now);
            }
            None => self.counters.malformed += 1,
        }
    }

    fn initiation(
        &mut self,
        from: PeerId,
        origin: SocketAddr,
        index: u32,
        noise: &[u8],
        macs: Macs<'_>,
        now: Duration,
    ) {
        if !self.me.is_signed(&macs) {
            self.counters.unsigned += 1;
            return;
        }
        match self.gate.admit(&macs, origin, &mut self.entropy, now) {
            Admission::Yes => {}
            Admission::AskCookie(cookie) => {
                self.counters.cookies_sent += 1;
                let message = self.me.reply(index, &macs, cookie, &mut self.entropy);
                return self.outputs.push_back(SessionOutput::Send {
                    to: from,
                    route: Route::Back(origin),
                    message,
                });
            }
            Admission::No => {
                self.counters.overload += 1;
                return;
            }
        }
        let Some((state, offer, psk)) = self.read_initiation(from, noise) else {
            self.counters.other_password += 1;
            return;
        };
        let public = state
            .get_remote_static()
            .and_then(|key| key.try_into().ok());
        let Some(public) = public.filter(|key| identity(key) == from && from != self.config.id)
        else {
            self.counters.unsigned += 1;
            return;
        };
        if !self.allows(&public) {
            self.counters.not_allowed += 1;
            return;
        }
        if !self.peers.contains_key(&from) {
            if self.peers.len() >= self.config.peers {
                self.counters.table_full += 1;
                return;
            }
            let peer = self.new_peer(public);
            self.peers.insert(from, peer);
        }
        let peer = self.peers.get_mut(&from).expect("it was just looked up");
        let newest = Some((offer.start, offer.number));
        if newest <= peer.newest {
            self.counters.replayed += 1;
            return;
        }
        peer.newest = newest;
        if self.config.id < from && peer.pending.as_ref().is_some_and(|p| p.attempt < STUBBORN) {
            self.counters.crossed += 1;
            return;
        }
        self.answer(from, origin, index, state, offer, psk, now);
    }

    /// Tries each password on an initiation.
    fn read_initiation(
        &mut self,
        from: PeerId,
        noise: &[u8],
    ) -> Option<(HandshakeState, Offer, Psk)> {
        let Secrets {
            private, passwords, ..
        } = &self.config.secrets;
        let prologue = prologue(from, self.config.id);
        passwords.iter().find_map(|psk| {
            let mut state = builder(&mut self.entropy)
                .local_private_key(private)
                .and_then(|b| b.psk(PSK_PLACE, psk.bytes()))
                .and_then(|b| b.prologue(&prologue).and_then(|b| b.build_responder()))
                .expect("the pattern has these keys");
            let mut offer = [0; OFFER_LEN];
            let read = state.read_message(noise, &mut offer).ok()?;
            (read == OFFER_LEN).then(|| (state, Offer::parse(&offer), psk.clone()))
        })
    }

    #[expect(clippy::too_many_arguments, reason = "what an initiation consists of")]
    fn answer(
        &mut self,
        id: PeerId,
        origin: SocketAddr,
        index: u32,
        mut state: HandshakeState,
        offer: Offer,
        psk: Psk,
        now: Duration,
    ) {
        let common = offer.ciphers & self.offered;
        let cipher = [CipherChoice::Aes256Gcm, CipherChoice::ChaCha20Poly1305]
            .into_iter()
            .find(|cipher| common & cipher.bit() != 0);
        let (Some(cipher), Some(peer)) = (cipher, self.peers.get_mut(&id)) else {
            return;
        };
        if offer.epoch == 0 {
            self.counters.malformed += 1;
            return;
        }
        // It gives way to the other side's.
        peer.pending = None;
        peer.epoch = free_epoch(peer.epoch, &peer.slots);
        let [high, low] = peer.epoch.to_be_bytes();
        let mut noise = [0; RESPONSE_LEN];
        let written = state
            .write_message(&[high, low, cipher.bit()], &mut noise)
            .expect("the second message is this node's, and the buffer is long enough");
        let mut message = head(RESPONSE, index).to_vec();
        message.extend(&noise[..written]);
        peer.addressee.sign(&mut message, None);
        debug_assert_eq!(message.len(), RESPONSE_LEN);
        let timing = &self.config.timing;
        let renew = timing.renew + timing.renew_other;
        let epochs = Epochs {
            sealing: offer.epoch,
            opening: peer.epoch,
        };
        let session = session(state, false, cipher, epochs, psk, renew, timing, now);
        peer.slots.answered(session);
        self.counters.answered += 1;
        // The keys first: what is sealed with them may follow the answer at once.
        self.tell(id, now);
        self.outputs.push_back(SessionOutput::Send {
            to: id,
            route: Route::Back(origin),
            message,
        });
    }

    fn response(&mut self, from: PeerId, index: u32, noise: &[u8], macs: Macs<'_>, now: Duration) {
        let peer = self.peers.get_mut(&from);
        let Some((peer, mut pending)) = peer.and_then(|peer| {
            let pending = peer.pending.take_if(|pending| pending.index == index)?;
            Some((peer, pending))
        }) else {
            self.counters.unexpected += 1;
            return;
        };
        let mut choice = [0; CHOICE_LEN];
        let read = if self.me.is_signed(&macs) {
            pending.state.read_message(noise, &mut choice).ok()
        } else {
            None
        };
        let [high, low, cipher] = choice;
        let epoch = u16::from_be_bytes([high, low]);
        let cipher = CipherChoice::of_bit(cipher & self.offered);
        let (Some(CHOICE_LEN), Some(cipher), 1..) = (read, cipher, epoch) else {
            // Forged, or damaged: the true answer may still come.
            peer.pending = Some(pending);
            self.counters.unsigned += 1;
            return;
        };
        let timing = &self.config.timing;
        let psk = self.config.secrets.passwords.first().cloned();
        let psk = psk.expect("a handshake was begun with it");
        // Not all at the same moment, however many began at once.
        let renew = timing
            .renew
            .mul_f64(0.05f64.mul_add(-fraction(&mut self.entropy), 1.0));
        let epochs = Epochs {
            sealing: epoch,
            opening: pending.epoch,
        };
        let session = session(pending.state, true, cipher, epochs, psk, renew, timing, now);
        peer.slots.completed(session);
        self.counters.completed += 1;
        self.tell(from, now);
        self.outputs.push_back(SessionOutput::Confirm(from));
    }

    fn cookie(&mut self, from: PeerId, index: u32, nonce: [u8; 12], sealed: &[u8], now: Duration) {
        let Some(peer) = self.peers.get_mut(&from) else {
            self.counters.unexpected += 1;
            return;
        };
        let Some(pending) = peer.pending.as_ref().filter(|p| p.index == index) else {
            self.counters.unexpected += 1;
            return;
        };
        let Some(cookie) = peer.addressee.read_reply(nonce, sealed, &pending.mac1) else {
            self.counters.unsigned += 1;
            return;
        };
        // With it, the next attempt is looked at. It keeps its time, or cookies would make haste.
        peer.cookie = Some((cookie, now));
    }

    fn allows(&self, public: &[u8; 32]) -> bool {
        let allowed = self.config.allowed.as_ref();
        allowed.is_none_or(|allowed| allowed.contains(&Fingerprint::of(public)))
    }
}

/// What the two keys of a session are called in headers.
#[derive(Clone, Copy)]
struct Epochs {
    sealing: u16,
    opening: u16,
}

#[expect(clippy::too_many_arguments, reason = "what a session consists of")]
fn session(
    mut state: HandshakeState,
    began_here: bool,
    cipher: CipherChoice,
    epochs: Epochs,
    psk: Psk,
    renew: Duration,
    timing: &SessionTiming,
    now: Duration,
) -> Session {
    let (mut of_initiator, mut of_responder) = state.dangerously_get_raw_split();
    let key = |epoch, key| Arc::new(DirectionKey { epoch, cipher, key });
    let (sealing, opening) = if began_here {
        (of_initiator, of_responder)
    } else {
        (of_responder, of_initiator)
    };
    let session = Session {
        sealing: key(epochs.sealing, sealing),
        opening: key(epochs.opening, opening),
        psk,
        began: now,
        renew: now + renew,
        sealed_until: now + timing.seal,
        opened_until: now + timing.open,
    };
    of_initiator.zeroize();
    of_responder.zeroize();
    session
}

fn builder(entropy: &mut Entropy) -> snow::Builder<'static> {
    let params = PATTERN.parse().expect("the pattern is one of Noise's");
    snow::Builder::with_resolver(params, entropy.resolver())
}

fn prologue(initiator: PeerId, responder: PeerId) -> Vec<u8> {
    [PROLOGUE, &initiator.0, &responder.0].concat()
}

/// The next epoch that no key in use has; 0 stands for none.
fn free_epoch(last: u16, slots: &Slots) -> u16 {
    let mut epoch = last;
    loop {
        epoch = epoch.wrapping_add(1);
        if epoch != 0 && !slots.has_epoch(epoch) {
            return epoch;
        }
    }
}

/// A number in [0, 1).
#[expect(
    clippy::cast_precision_loss,
    reason = "32 bits fit in the 53 of a float"
)]
fn fraction(entropy: &mut Entropy) -> f64 {
    (entropy.next_u64() >> 32) as f64 / (1_u64 << 32) as f64
}

#[cfg(test)]
mod tests;
