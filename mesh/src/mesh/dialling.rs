//! Whom to dial, and when.
//!
//! Two kinds of candidates: targets that nobody has answered yet, and peers. Once a peer has
//! answered at a target, the target counts as one of its addresses, so that a pair is dialled once.

use std::net::SocketAddr;
use std::time::Duration;

use wire::PeerId;

use super::{Mesh, Output, Timer, canonical};
use crate::connection::{ConnId, Connection, Phase};
use crate::dial::{Candidate, DialError, Dialling, TargetEntry};
use crate::peer::PeerState;
use crate::refusal::printable;
use crate::target::Target;

/// Longest reason of a failed dial that is kept, in bytes.
const MAX_REASON: usize = 300;

impl Mesh {
    pub(super) fn connect(&mut self, target: Target, now: Duration) {
        if self.left {
            return;
        }
        let known = self.targets.contains_key(&target);
        if !known && self.targets.len() >= self.config.limits.targets {
            self.counters.targets_full += 1;
            return;
        }
        // Naming a known target again means: try now.
        let entry = self.targets.entry(target.clone()).or_default();
        entry.dialling.backoff.reset();
        entry.myself = false;
        let peer = entry.peer;
        let wait = self.moment();
        self.timers
            .bring_forward(Timer::Dial(Candidate::Target(target)), now + wait);
        if let Some(id) = peer.filter(|id| self.peers.contains_key(id)) {
            self.retry_soon(id, now);
        }
    }

    pub(super) fn forget(&mut self, target: &Target) {
        let candidate = Candidate::Target(target.clone());
        if let Some(entry) = self.targets.remove(target) {
            self.waiting.retain(|waiting| *waiting != candidate);
            // A dial under way goes on for the peer that it may reach, not for the target.
            if let Some(conn) = entry
                .dialling
                .conn
                .and_then(|conn| self.connections.get_mut(&conn))
            {
                conn.candidate = None;
            }
        }
        self.timers.cancel(&Timer::Dial(candidate));
    }

    /// A candidate's time has come.
    pub(super) fn due(&mut self, candidate: Candidate, now: Duration) {
        if !self.is_wanted(&candidate) {
            return;
        }
        let limits = &self.config.limits;
        if self.dials >= limits.dials || self.connections.len() >= limits.connections {
            if let Some(dialling) = self.dialling(&candidate) {
                dialling.queued = true;
                self.waiting.push_back(candidate);
            }
            return;
        }
        self.dial(candidate, now);
    }

    /// Gives the next ones their turn.
    pub(super) fn dial_waiting(&mut self, now: Duration) {
        let limits = &self.config.limits;
        let (dials, connections) = (limits.dials, limits.connections);
        while self.dials < dials && self.connections.len() < connections {
            let Some(candidate) = self.waiting.pop_front() else {
                return;
            };
            if let Some(dialling) = self.dialling(&candidate) {
                dialling.queued = false;
            }
            if self.is_wanted(&candidate) {
                self.dial(candidate, now);
            }
        }
    }

    fn dial(&mut self, candidate: Candidate, now: Duration) {
        let target = match &candidate {
            Candidate::Target(target) => target.clone(),
            Candidate::Peer(id) => match self.next_address(*id, now) {
                Some(target) => target,
                None => return,
            },
        };
        let conn = ConnId::Dialled(self.next_dial);
        self.next_dial += 1;
        self.dials += 1;
        self.counters.dials += 1;
        if let Some(dialling) = self.dialling(&candidate) {
            dialling.conn = Some(conn);
        }
        let dial = Some((candidate, target.clone()));
        self.connections
            .insert(conn, Connection::new(Phase::Dialling, dial, None, now));
        let avoid = self.myself.list(now, self.config.timing.retry_rarely);
        self.outputs.push_back(Output::Dial {
            conn,
            target,
            avoid,
        });
    }

    /// A peer's addresses and targets, one after the other.
    fn next_address(&mut self, id: PeerId, now: Duration) -> Option<Target> {
        let lasts = self.config.timing.retry_rarely;
        let myself = &self.myself;
        let peer = self.peers.get_mut(&id)?;
        let known = peer.addresses.iter().map(|known| known.address);
        let known = known.filter(|address| !myself.contains(*address, now, lasts));
        let mut all: Vec<Target> = known.map(Target::from).collect();
        let named = self
            .targets
            .iter()
            .filter(|(_, entry)| entry.peer == Some(id));
        all.extend(named.map(|(target, _)| target.clone()));
        all.dedup();
        let attempt = peer.attempts;
        peer.attempts = attempt.wrapping_add(1);
        let index = attempt.checked_rem(all.len())?;
        Some(all.swap_remove(index))
    }

    /// The other side of a dial is there.
    pub(super) fn dialled(&mut self, conn: ConnId, remote: SocketAddr, now: Duration) {
        let Some(connection) = self
            .connections
            .get_mut(&conn)
            .filter(|c| c.phase == Phase::Dialling)
        else {
            // Closed meanwhile: the driver may have crossed it.
            let reason = "no longer wanted".to_owned();
            self.outputs.push_back(Output::Close { conn, reason });
            return;
        };
        connection.phase = Phase::Hello;
        connection.remote = Some(remote);
        self.dials -= 1;
        self.timers
            .set(Timer::Connection(conn), now + self.config.timing.handshake);
        self.introduce(conn);
        self.dial_waiting(now);
    }

    /// Nobody is there.
    pub(super) fn dial_failed(&mut self, conn: ConnId, error: &DialError, now: Duration) {
        self.counters.dials_failed += 1;
        let candidate = self
            .connections
            .get(&conn)
            .and_then(|c| c.candidate.clone());
        let myself = *error == DialError::OnlyMyself;
        if let Some(Candidate::Target(target)) = candidate
            && let Some(entry) = self.targets.get_mut(&target)
        {
            entry.myself = myself;
        }
        self.gone(conn, &error.to_string(), false, now);
    }

    /// A dial or the handshake after it came to nothing.
    pub(super) fn attempt_failed(
        &mut self,
        candidate: &Candidate,
        reason: &str,
        lasting: bool,
        now: Duration,
    ) {
        if let Some(dialling) = self.dialling(candidate) {
            dialling.conn = None;
            dialling.failure = Some(printable(reason, MAX_REASON));
        }
        let myself = match candidate {
            Candidate::Target(target) => self.targets.get(target).is_some_and(|entry| entry.myself),
            Candidate::Peer(_) => false,
        };
        let wait = if myself {
            self.rng.around(self.config.timing.retry_rarely)
        } else if lasting {
            self.rng.around(self.config.timing.retry_max)
        } else {
            self.next_wait(candidate, now)
        };
        if self.may_dial(candidate) {
            self.timers.set(Timer::Dial(candidate.clone()), now + wait);
        }
    }

    /// A dial led to a peer, be it the one that was meant or another.
    pub(super) fn attempt_succeeded(&mut self, conn: ConnId, id: PeerId, now: Duration) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let (candidate, dialled) = (connection.candidate.take(), connection.dialled.take());
        let remote = connection.remote;
        if let Some(entry) = dialled.and_then(|target| self.targets.get_mut(&target)) {
            entry.peer = Some(id);
            entry.myself = false;
        }
        match candidate {
            None => {}
            Some(candidate @ Candidate::Peer(meant)) if meant != id => {
                // Another node lives at that address now.
                if let (Some(peer), Some(remote)) = (self.peers.get_mut(&meant), remote) {
                    peer.forget_address(remote);
                }
                self.attempt_failed(&candidate, "another node answers there", false, now);
            }
            Some(candidate) => {
                if let Some(dialling) = self.dialling(&candidate) {
                    dialling.conn = None;
                    dialling.failure = None;
                }
            }
        }
    }

    /// The address of a dial is this node itself.
    pub(super) fn met_myself(&mut self, conn: ConnId, now: Duration) {
        let Some(connection) = self.connections.get(&conn) else {
            return;
        };
        let Some(remote) = connection.remote else {
            return;
        };
        match &connection.candidate {
            // Somebody else dialled and came out here: there is nothing to note.
            None => return,
            Some(Candidate::Peer(id)) => {
                if let Some(peer) = self.peers.get_mut(id) {
                    peer.forget_address(remote);
                }
            }
            Some(Candidate::Target(target)) => {
                // A name may stand for other nodes as well, so it is tried again without this
                // address; then the driver says if nothing else is left of it.
                if let Some(entry) = self.targets.get_mut(target) {
                    entry.myself = target.literal().map(canonical) == Some(remote);
                }
            }
        }
        self.counters.dialled_myself += 1;
        self.myself.note(remote, now);
    }

    /// Sees to it that a peer without a connection will be dialled.
    pub(super) fn schedule_peer(&mut self, id: PeerId, now: Duration) {
        let candidate = Candidate::Peer(id);
        let timer = Timer::Dial(candidate.clone());
        if self.is_wanted(&candidate) && self.timers.get(&timer).is_none() {
            let wait = self.next_wait(&candidate, now) + self.politeness(id);
            self.timers.set(timer, now + wait);
        }
    }

    /// Dials a peer within moments, whatever it has waited for: there is news of it.
    pub(super) fn retry_soon(&mut self, id: PeerId, now: Duration) {
        let candidate = Candidate::Peer(id);
        if let Some(dialling) = self.dialling(&candidate) {
            dialling.backoff.reset();
        }
        if self.is_wanted(&candidate) {
            let wait = self.moment() + self.politeness(id);
            self.timers
                .bring_forward(Timer::Dial(candidate), now + wait);
        }
    }

    /// The network is back: peers that were lost are tried again, spread over some time.
    pub(super) fn retry_all_down(&mut self, now: Duration) {
        let down = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.state == PeerState::Down);
        let down: Vec<_> = down.map(|(id, _)| *id).collect();
        for id in down {
            let candidate = Candidate::Peer(id);
            if let Some(dialling) = self.dialling(&candidate) {
                dialling.backoff.reset();
            }
            if self.is_wanted(&candidate) {
                let wait = self.rng.up_to(self.config.timing.spread * 10);
                self.timers
                    .bring_forward(Timer::Dial(candidate), now + wait);
            }
        }
    }

    /// A moment within [`Timing::spread`](crate::Timing::spread), the whole of it in a network of
    /// a hundred nodes: a small one has no storm to fear and should come up at once.
    fn moment(&mut self) -> Duration {
        let percent = u32::try_from(self.peers.len().clamp(1, 100)).unwrap_or(100);
        self.rng.up_to(self.config.timing.spread * percent / 100)
    }

    /// How much longer this node waits than the peer would.
    fn politeness(&self, id: PeerId) -> Duration {
        if self.config.me.id > id {
            self.config.timing.yield_to_smaller
        } else {
            Duration::ZERO
        }
    }

    /// The next wait of a candidate's back-off.
    fn next_wait(&mut self, candidate: &Candidate, now: Duration) -> Duration {
        // Those whom the operator named are never given up: one of them is enough to find the way
        // back to all.
        let named = matches!(candidate, Candidate::Peer(id) if self.is_named(*id));
        let timing = &self.config.timing;
        let dialling = match candidate {
            Candidate::Target(target) => self
                .targets
                .get_mut(target)
                .map(|e| (&mut e.dialling, timing.retry_max)),
            Candidate::Peer(id) => self.peers.get_mut(id).map(|peer| {
                let lost = now.saturating_sub(peer.known) >= timing.retry_rarely && !named;
                let ceiling = if peer.state == PeerState::Up {
                    // Several attempts within the grace, so that trouble on the control
                    // connection alone, however lasting, does not cost the data link (I5).
                    timing.grace / 4
                } else if lost {
                    timing.retry_rarely
                } else {
                    timing.retry_max
                };
                (&mut peer.dialling, ceiling)
            }),
        };
        let Some((dialling, ceiling)) = dialling else {
            return timing.retry_max;
        };
        dialling.backoff.next(timing, ceiling, &mut self.rng)
    }

    /// Whether a candidate is to be dialled at this moment.
    fn is_wanted(&self, candidate: &Candidate) -> bool {
        let idle = match candidate {
            Candidate::Target(target) => self.targets.get(target).map(|entry| &entry.dialling),
            Candidate::Peer(id) => self.peers.get(id).map(|peer| &peer.dialling),
        };
        idle.is_some_and(|dialling| dialling.conn.is_none() && !dialling.queued)
            && self.may_dial(candidate)
    }

    /// As [`Self::is_wanted`], whether or not a dial is under way.
    fn may_dial(&self, candidate: &Candidate) -> bool {
        if self.left {
            return false;
        }
        match candidate {
            Candidate::Target(target) => {
                self.targets
                    .get(target)
                    .is_some_and(|TargetEntry { peer, .. }| {
                        peer.is_none_or(|id| !self.peers.contains_key(&id))
                    })
            }
            Candidate::Peer(id) => self.peers.get(id).is_some_and(|peer| {
                peer.control.is_none()
                    && peer.pending.is_empty()
                    && ((self.config.discovery && !peer.addresses.is_empty()) || self.is_named(*id))
            }),
        }
    }

    /// Whether the operator named an address of this peer.
    fn is_named(&self, id: PeerId) -> bool {
        self.targets.values().any(|entry| entry.peer == Some(id))
    }

    fn dialling(&mut self, candidate: &Candidate) -> Option<&mut Dialling> {
        match candidate {
            Candidate::Target(target) => self
                .targets
                .get_mut(target)
                .map(|entry| &mut entry.dialling),
            Candidate::Peer(id) => self.peers.get_mut(id).map(|peer| &mut peer.dialling),
        }
    }
}
