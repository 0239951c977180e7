//! Sealed links: what a router's driver does for the sessions, and its data path with their keys.
//!
//! Nothing is encrypted here, the key travels with the datagram: who has the same may read it. The
//! handshakes are real ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh::{
    DirectionKey, Encapsulation, Fingerprint, Hello, Psk, Route, Secrets, SessionConfig,
    SessionCounters, SessionInput, SessionKeys, SessionOutput, SessionTiming, Sessions, SplitMix64,
    Whereabouts,
};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use wire::{PeerId, sleeve};

use crate::Cluster;
use crate::cluster::Event;
use crate::data::{Body, Datagram};

/// Frames that wait for a session with one peer; more are dropped.
const WAITING: usize = 64;

/// The sessions of one router.
#[derive(Debug)]
pub(crate) struct Sealing {
    sessions: Sessions,
    peers: BTreeMap<PeerId, Peer>,
    whereabouts: Whereabouts,
    /// The wake-up that is on its way.
    wake: Option<Duration>,
}

#[derive(Debug, Default)]
struct Peer {
    keys: SessionKeys,
    /// Datagrams sealed with the present key.
    sealed: u64,
    /// Whether anything crossed since the last report, and whether anything was opened.
    crossed: bool,
    opened: bool,
    /// Keys that were used already.
    used: BTreeSet<[u8; 32]>,
    waiting: VecDeque<(SocketAddr, Datagram)>,
}

/// The key pair that belongs to a number.
pub(crate) fn key_pair(number: u64) -> ([u8; 32], [u8; 32]) {
    let mut rng = SplitMix64::new(number);
    let private: Vec<u8> = (0..4).flat_map(|_| rng.next_u64().to_be_bytes()).collect();
    let mut dh = DefaultResolver
        .resolve_dh(&DHChoice::Curve25519)
        .expect("snow has Curve25519");
    dh.set(&private);
    let public = dh.pubkey().try_into().expect("32 bytes");
    (private.try_into().expect("four times 8 bytes"), public)
}

/// Gives a node the identity of a key.
pub(crate) fn identify(hello: &mut Hello, public: [u8; 32]) {
    hello.public_key = public;
    hello.id = Fingerprint::of(&public).id();
}

impl Sealing {
    /// The sessions of a router; `start` is more than at any earlier start.
    pub(crate) fn new(id: PeerId, number: u64, password: u8, start: u64, now: Duration) -> Self {
        let (private, public) = key_pair(number);
        let mut rng = SplitMix64::new(start);
        let seed: Vec<u8> = (0..4).flat_map(|_| rng.next_u64().to_be_bytes()).collect();
        let config = SessionConfig {
            id,
            secrets: Secrets {
                private,
                public,
                passwords: vec![Psk::new([password; 32])],
            },
            start,
            ciphers: Vec::new(),
            aggregates: true,
            allowed: None,
            seed: seed.try_into().expect("four times 8 bytes"),
            timing: SessionTiming::default(),
            peers: 64,
        };
        Self {
            sessions: Sessions::new(config, now),
            peers: BTreeMap::new(),
            whereabouts: Whereabouts::default(),
            wake: None,
        }
    }

    pub(crate) fn counters(&self) -> SessionCounters {
        self.sessions.counters()
    }
}

impl Cluster {
    /// Whether what a node sends is sealed.
    pub(crate) fn seals(&self, number: usize) -> bool {
        self.nodes()[number].sealing.is_some()
    }

    /// Tells a node's sessions something, and does what they want.
    fn session(&mut self, number: usize, input: SessionInput<'_>) {
        let now = self.now();
        let Some(sealing) = &mut self.node(number).sealing else {
            return;
        };
        sealing.sessions.handle(input, now);
        while let Some(output) = self
            .node(number)
            .sealing
            .as_mut()
            .and_then(|sealing| sealing.sessions.poll_output())
        {
            self.session_output(number, output);
        }
        let Some(sealing) = &mut self.node(number).sealing else {
            return;
        };
        let due = sealing.sessions.poll_timeout().map(|at| at.max(now));
        if let Some(at) = due.filter(|at| sealing.wake.is_none_or(|wake| wake > *at)) {
            sealing.wake = Some(at);
            self.schedule(at, Event::SessionWake { node: number });
        }
    }

    fn session_output(&mut self, number: usize, output: SessionOutput) {
        match output {
            SessionOutput::Send { to, route, message } => {
                for at in self.ways(number, to, route) {
                    let datagram = self.datagram_for(number, to, Body::Handshake(message.clone()));
                    self.transmit(number, at, datagram);
                }
            }
            SessionOutput::Keys { id, keys } => self.set_keys(number, id, keys),
            SessionOutput::Confirm(id) => {
                for at in self.ways(number, id, Route::Link) {
                    let mut empty = self.datagram_for(number, id, Body::Empty);
                    empty.sealed = self.key_for(number, id);
                    self.transmit(number, at, empty);
                }
            }
        }
    }

    fn set_keys(&mut self, number: usize, id: PeerId, keys: SessionKeys) {
        let Some(sealing) = &mut self.node(number).sealing else {
            return;
        };
        let peer = sealing.peers.entry(id).or_default();
        if keys.sealing != peer.keys.sealing {
            peer.sealed = 0;
        }
        let in_use = |key: &[u8; 32]| keys.opening.iter().any(|open| open.key == *key);
        peer.used.retain(in_use);
        peer.keys = keys;
        if peer.keys.sealing.is_some() {
            for (at, datagram) in std::mem::take(&mut peer.waiting) {
                self.transmit_sealed(number, at, datagram);
            }
        }
    }

    /// Where a message for a peer goes: back, or as frames do, and to wherever probes look for it.
    fn ways(&self, number: usize, to: PeerId, route: Route) -> Vec<SocketAddr> {
        if let Route::Back(origin) = route {
            return vec![origin];
        }
        let node = &self.nodes()[number];
        let looked_for = node.sealing.as_ref();
        let mut ways = looked_for.map_or_else(Vec::new, |s| s.whereabouts.of(to, self.now()));
        let link = node.links.get(&to).map(|link| link.path.endpoint);
        ways.extend(link.filter(|link| !ways.contains(link)));
        ways
    }

    fn datagram_for(&self, number: usize, to: PeerId, body: Body) -> Datagram {
        Datagram {
            encapsulation: Encapsulation::Sleeve,
            from: self.nodes()[number].control(),
            source: self.nodes()[number].hello.id,
            destination: to,
            hop_limit: sleeve::HOP_LIMIT,
            double: false,
            sealed: None,
            body,
        }
    }

    /// The key that a node seals with for a peer.
    pub(crate) fn key_for(&self, number: usize, to: PeerId) -> Option<Arc<DirectionKey>> {
        let sealing = self.nodes()[number].sealing.as_ref()?;
        sealing.peers.get(&to)?.keys.sealing.clone()
    }

    /// Seals and sends a frame; without a session it waits for one.
    pub(crate) fn transmit_sealed(&mut self, from: usize, to: SocketAddr, mut datagram: Datagram) {
        let id = datagram.destination;
        let Some(sealing) = &mut self.node(from).sealing else {
            return self.transmit(from, to, datagram);
        };
        let peer = sealing.peers.entry(id).or_default();
        if let Some(key) = &peer.keys.sealing {
            datagram.sealed = Some(Arc::clone(key));
            peer.sealed += 1;
            peer.crossed = true;
            self.report_soon(from);
            return self.transmit(from, to, datagram);
        }
        if peer.waiting.len() < WAITING {
            peer.waiting.push_back((to, datagram));
        }
        self.session(from, SessionInput::Want(id));
    }

    /// A probe cannot be sent without a session: one is made with whoever is there.
    pub(crate) fn want_session(&mut self, from: usize, to: PeerId, at: SocketAddr) {
        let now = self.now();
        if let Some(sealing) = &mut self.node(from).sealing {
            sealing.whereabouts.note(to, at, now);
        }
        self.session(from, SessionInput::Want(to));
    }

    /// What becomes of a datagram at a node that seals: None, nothing more; else what was in it.
    pub(crate) fn open(&mut self, at: usize, datagram: Datagram) -> Option<Datagram> {
        let source = datagram.source;
        if let Body::Handshake(message) = &datagram.body {
            let (from, origin) = (source, datagram.from);
            self.session(
                at,
                SessionInput::Received {
                    from,
                    origin,
                    message,
                },
            );
            return None;
        }
        let Some(key) = &datagram.sealed else {
            let now = self.now();
            self.frames.come_in_the_clear(now, at);
            return None;
        };
        let sealing = self.node(at).sealing.as_mut()?;
        let peer = sealing.peers.entry(source).or_default();
        if !peer.keys.opening.iter().any(|open| **open == **key) {
            self.session(at, SessionInput::Lost(source));
            return None;
        }
        if datagram.double {
            // The window of its key has seen it.
            return None;
        }
        (peer.crossed, peer.opened) = (true, true);
        if peer.used.insert(key.key) {
            let (id, epoch) = (source, key.epoch);
            self.session(at, SessionInput::Used { id, epoch });
        }
        self.report_soon(at);
        Some(datagram)
    }

    /// Tells a node's sessions which of them are in use.
    pub(crate) fn report_sessions(&mut self, at: usize) {
        let Some(sealing) = &mut self.node(at).sealing else {
            return;
        };
        let mut active = Vec::new();
        for (id, peer) in &mut sealing.peers {
            if std::mem::take(&mut peer.crossed) {
                active.push((*id, peer.sealed, std::mem::take(&mut peer.opened)));
            }
        }
        for (id, sealed, opened) in active {
            self.session(at, SessionInput::Active { id, sealed, opened });
        }
    }

    /// The key of a peer is known, or the peer is no more.
    pub(crate) fn peer_key(&mut self, number: usize, id: PeerId, public: Option<[u8; 32]>) {
        match public {
            Some(public) => {
                self.session(number, SessionInput::Peer { id, public });
                // A probe may have been faster than the news of whom it was for.
                if !self.ways(number, id, Route::Link).is_empty() {
                    self.session(number, SessionInput::Want(id));
                }
            }
            None => {
                if let Some(sealing) = &mut self.node(number).sealing {
                    sealing.whereabouts.forget(id);
                }
                self.session(number, SessionInput::Gone(id));
            }
        }
    }

    pub(crate) fn session_wake(&mut self, number: usize) {
        let now = self.now();
        let node = self.node(number);
        let Some(sealing) = node.sealing.as_mut().filter(|s| s.wake == Some(now)) else {
            return;
        };
        sealing.wake = None;
        if !node.stopped {
            self.session(number, SessionInput::Timeout);
        }
    }

    /// A process goes on that was stopped.
    pub(crate) fn sessions_go_on(&mut self, number: usize) {
        self.session(number, SessionInput::Timeout);
    }

    /// What a node's sessions have counted since it started; none if it does not seal.
    pub fn session_counters(&self, number: usize) -> Option<SessionCounters> {
        self.nodes()[number].sealing.as_ref().map(Sealing::counters)
    }
}
