//! Carries sessions: handshake messages between the mesh's state machine and the data path, and the
//! keys that come of them to the workers' sealers.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastpath::{Cipher, KeyNews, OPEN_KEYS, OpenKey, SealKey};
use mesh::{
    CipherChoice, DirectionKey, Psk, Route, SessionConfig, SessionCounters, SessionInput,
    SessionKeys, SessionOutput, SessionView, Sessions, Whereabouts,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};
use wire::PeerId;

use super::datapath::{SealEvent, SealHandle};

/// Questions that wait; who asks more waits too.
const ASKS: usize = 256;
/// Between looks at what crossed each session.
const TURN: Duration = Duration::from_secs(1);
/// Bytes that each cipher seals to show how fast it is.
const TRIAL: usize = 1 << 20;

/// Speaks to the running sessions.
#[derive(Debug, Clone)]
pub struct SessionsHandle {
    asks: mpsc::Sender<Ask>,
}

#[derive(Debug)]
enum Ask {
    Peer(PeerId, [u8; 32]),
    Gone(PeerId),
    Passwords(Vec<Psk>),
    View(oneshot::Sender<SessionsView>),
    Turn(oneshot::Sender<()>),
}

/// What is known of sessions, at one moment.
#[derive(Debug, Clone, Default)]
pub struct SessionsView {
    /// The session with each peer that has one.
    pub sessions: BTreeMap<PeerId, SessionView>,
    /// Counts since the start.
    pub counters: SessionCounters,
}

/// Starts in the calling task's runtime.
pub fn start(
    config: SessionConfig,
    handle: SealHandle,
    events: mpsc::Receiver<SealEvent>,
) -> SessionsHandle {
    let (asks, inbox) = mpsc::channel(ASKS);
    let driver = Driver {
        sessions: Sessions::new(config, Duration::ZERO),
        started: Instant::now(),
        handle,
        peers: HashMap::new(),
        whereabouts: Whereabouts::default(),
    };
    tokio::spawn(driver.run(inbox, events));
    SessionsHandle { asks }
}

/// The ciphers that are fast on this machine: AES where it is faster than ChaCha20, which is taken
/// everywhere.
pub fn fast_ciphers() -> Vec<CipherChoice> {
    let time = |cipher| {
        let key = SealKey::new(cipher, &[1; 32], 1);
        let mut datagram = vec![0; 1500];
        let mut claim = key.claim(2000).expect("the key is new");
        // The first round warms up.
        let mut took = Duration::ZERO;
        for _ in 0..2 {
            let began = Instant::now();
            for _ in 0..TRIAL / datagram.len() {
                key.seal(&mut datagram, &mut claim);
            }
            took = began.elapsed();
        }
        took
    };
    let aes_is_faster = time(Cipher::Aes256Gcm) <= time(Cipher::ChaCha20Poly1305);
    aes_is_faster
        .then_some(CipherChoice::Aes256Gcm)
        .into_iter()
        .collect()
}

impl SessionsHandle {
    /// A peer exists, and this is its key.
    pub async fn peer(&self, id: PeerId, public: [u8; 32]) {
        self.tell(Ask::Peer(id, public)).await;
    }

    /// A peer is no more.
    pub async fn gone(&self, id: PeerId) {
        self.tell(Ask::Gone(id)).await;
    }

    /// The passwords are others now.
    pub async fn set_passwords(&self, passwords: Vec<Psk>) {
        self.tell(Ask::Passwords(passwords)).await;
    }

    /// What is known of sessions.
    pub async fn view(&self) -> SessionsView {
        let (answer, asked) = oneshot::channel();
        self.tell(Ask::View(answer)).await;
        asked.await.unwrap_or_default()
    }

    /// Waits until the task has turned its loop once. False: it has ended, which it never should.
    pub async fn turns(&self) -> bool {
        let (answer, asked) = oneshot::channel();
        self.asks.send(Ask::Turn(answer)).await.is_ok() && asked.await.is_ok()
    }

    async fn tell(&self, ask: Ask) {
        // The task ends only with the router.
        let _ = self.asks.send(ask).await;
    }
}

struct Driver {
    sessions: Sessions,
    started: Instant,
    handle: SealHandle,
    peers: HashMap<PeerId, Keys>,
    whereabouts: Whereabouts,
}

/// A key of the mesh's and what the workers have of it, which keeps counters and replay windows for as
/// long as the key is the same.
type Pair<K> = (Arc<DirectionKey>, Arc<K>);

#[derive(Default)]
struct Keys {
    sealing: Option<Pair<SealKey>>,
    opening: Vec<Pair<OpenKey>>,
    /// Datagrams sealed and opened at the last look.
    seen: (u64, u64),
}

impl Driver {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>, mut events: mpsc::Receiver<SealEvent>) {
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.carry_out();
            let due = self.sessions.poll_timeout();
            let wait = due.map_or(Duration::from_secs(3600), |due| {
                due.saturating_sub(self.started.elapsed())
            });
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(ask) => self.answer(ask),
                    None => return,
                },
                event = events.recv() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                () = sleep(wait) => self.handle(SessionInput::Timeout),
                _ = turns.tick() => self.look(),
            }
        }
    }

    fn handle(&mut self, input: SessionInput<'_>) {
        self.sessions.handle(input, self.started.elapsed());
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Peer(id, public) => {
                self.handle(SessionInput::Peer { id, public });
                // A probe may have been faster than the news of whom it was for.
                if self.whereabouts.knows(id, self.started.elapsed()) {
                    self.handle(SessionInput::Want(id));
                }
            }
            Ask::Gone(id) => {
                self.whereabouts.forget(id);
                self.handle(SessionInput::Gone(id));
            }
            Ask::Passwords(passwords) => self.handle(SessionInput::Passwords(passwords)),
            Ask::Turn(answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(());
            }
            Ask::View(answer) => {
                let now = self.started.elapsed();
                let view = |id: &PeerId| Some((*id, self.sessions.view(*id, now)?));
                // Whoever asked may have gone.
                let _ = answer.send(SessionsView {
                    sessions: self.peers.keys().filter_map(view).collect(),
                    counters: self.sessions.counters(),
                });
            }
        }
    }

    fn take(&mut self, event: SealEvent) {
        match event {
            SealEvent::Want(id) => self.handle(SessionInput::Want(id)),
            SealEvent::WantAt(id, at) => {
                let now = self.started.elapsed();
                self.whereabouts.note(id, at, now);
                self.handle(SessionInput::Want(id));
            }
            SealEvent::News(id, KeyNews::Lost) => self.handle(SessionInput::Lost(id)),
            SealEvent::News(id, KeyNews::Used(epoch)) => {
                self.handle(SessionInput::Used { id, epoch });
            }
            SealEvent::Handshake {
                from,
                origin,
                message,
            } => {
                let message = &message;
                self.handle(SessionInput::Received {
                    from,
                    origin,
                    message,
                });
            }
        }
    }

    /// Tells which sessions are in use.
    fn look(&mut self) {
        let mut active = Vec::new();
        for (id, keys) in &mut self.peers {
            let sealed = keys.sealing.as_ref().map_or(0, |(_, key)| key.sealed());
            let opened = keys.opening.iter().map(|(_, key)| key.opened()).sum();
            let seen = std::mem::replace(&mut keys.seen, (sealed, opened));
            if seen != (sealed, opened) {
                // With an old key goes what it opened: fewer are no news.
                active.push((*id, sealed, opened > seen.1));
            }
        }
        for (id, sealed, opened) in active {
            self.handle(SessionInput::Active { id, sealed, opened });
        }
        self.handle.tidy();
        self.whereabouts.tidy(self.started.elapsed());
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.sessions.poll_output() {
            match output {
                SessionOutput::Send { to, route, message } => {
                    for at in self.ways(to, route) {
                        self.handle.send_handshake(to, at, &message);
                    }
                }
                SessionOutput::Keys { id, keys } => self.set_keys(id, &keys),
                SessionOutput::Confirm(id) => {
                    for at in self.ways(id, Route::Link) {
                        self.handle.confirm(id, at);
                    }
                }
            }
        }
    }

    /// Where a message for a peer goes: back, or as frames do, and while no link is known to work to
    /// wherever probes look for the peer.
    fn ways(&self, to: PeerId, route: Route) -> Vec<SocketAddr> {
        match route {
            Route::Back(origin) => vec![origin],
            Route::Link => {
                let now = self.started.elapsed();
                let mut ways = self.whereabouts.of(to, now);
                if let Some(link) = self.handle.endpoint(to).filter(|link| !ways.contains(link)) {
                    ways.push(link);
                }
                ways
            }
        }
    }

    fn set_keys(&mut self, id: PeerId, keys: &SessionKeys) {
        let known = self.peers.remove(&id).unwrap_or_default();
        let sealing = keys.sealing.as_ref().map(|key| {
            let same = known.sealing.filter(|(known, _)| Arc::ptr_eq(known, key));
            same.unwrap_or_else(|| {
                let made = SealKey::new(cipher(key.cipher), &key.key, key.epoch)
                    .aggregating(key.aggregates);
                (Arc::clone(key), Arc::new(made))
            })
        });
        let opening = keys.opening.iter().map(|key| {
            let same = known
                .opening
                .iter()
                .find(|(known, _)| Arc::ptr_eq(known, key));
            same.cloned().unwrap_or_else(|| {
                let made = OpenKey::new(cipher(key.cipher), &key.key, key.epoch);
                (Arc::clone(key), Arc::new(made))
            })
        });
        let opening: Vec<Pair<OpenKey>> = opening.take(OPEN_KEYS).collect();
        let mut slots = [const { None }; OPEN_KEYS];
        for (slot, (_, key)) in slots.iter_mut().zip(&opening) {
            *slot = Some(Arc::clone(key));
        }
        let seals = sealing.is_some();
        let sealer = self.handle.sealer(id);
        sealer.set(sealing.as_ref().map(|(_, key)| Arc::clone(key)), slots);
        if seals || !opening.is_empty() {
            let seen = known.seen;
            self.peers.insert(
                id,
                Keys {
                    sealing,
                    opening,
                    seen,
                },
            );
        }
        if seals {
            self.handle.resume();
        }
    }
}

fn cipher(choice: CipherChoice) -> Cipher {
    match choice {
        CipherChoice::Aes256Gcm => Cipher::Aes256Gcm,
        CipherChoice::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The daemon ends when it is told so, as when any other of its tasks fails.
    #[tokio::test]
    async fn a_task_that_has_ended_is_noticed() {
        let (asks, mut inbox) = mpsc::channel(ASKS);
        let handle = SessionsHandle { asks };
        let task = tokio::spawn(async move {
            let Some(Ask::Turn(answer)) = inbox.recv().await else {
                panic!("another question");
            };
            answer.send(()).unwrap();
            let _held = inbox.recv().await;
            panic!("as a task may");
        });
        assert!(handle.turns().await);
        assert!(!handle.turns().await, "it has gone in the middle of it");
        assert!(!handle.turns().await, "and stays away");
        assert!(task.await.is_err());
    }
}
