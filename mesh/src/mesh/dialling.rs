//! Whom to dial, and when.
//!
//! Two kinds of candidates: targets, and peers. Once a peer has answered at a target, the target
//! counts as one of its addresses, and is dialled only while the peer is out of reach.

use std::net::SocketAddr;
use std::time::Duration;

use wire::PeerId;

use super::{Mesh, Output, Timer, canonical, is_local};
use crate::choice::FULL_MESH;
use crate::connection::{ConnId, Connection, Phase};
use crate::dial::{Candidate, DialError, Dialling, TargetEntry};
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
        entry.remembered = false;
        entry.once_more = false;
        let peer = entry.peer;
        let wait = self.moment();
        self.timers
            .bring_forward(Timer::Dial(Candidate::Target(target)), now + wait);
        if let Some(id) = peer.filter(|id| self.is_known(*id)) {
            self.retry_soon(id, now);
        }
    }

    /// Dials an address of which it is only known that there was a node, unless there is a
    /// connection already.
    pub(super) fn remember(&mut self, address: SocketAddr, now: Duration) {
        let remembered = self.targets.values().filter(|entry| entry.remembered);
        let before = remembered.count();
        let target = Target::from(address);
        let full = before >= self.config.limits.remembered;
        if self.left || full || !self.control.is_empty() || self.targets.contains_key(&target) {
            return;
        }
        let entry = TargetEntry {
            remembered: true,
            ..TargetEntry::default()
        };
        self.targets.insert(target.clone(), entry);
        // One after the other: the first that answers is enough.
        let turn = u32::try_from(before).unwrap_or(u32::MAX);
        let wait = self.rng.around(self.config.timing.flush) * 2 * turn.min(100);
        let timer = Timer::Dial(Candidate::Target(target));
        self.timers.bring_forward(timer, now + wait);
    }

    /// There is a connection. Where all nodes have started together it leads to some of them only, each
    /// part of the network has such a one, and nobody knows of another part but by addresses from an
    /// earlier run. So these are dialled once more, but for those of nodes that can be reached by then.
    pub(super) fn dial_remembered_once_more(&mut self, now: Duration) {
        let remembered = self.targets.iter_mut();
        let remembered = remembered.filter(|(_, entry)| entry.remembered && !entry.once_more);
        let remembered = remembered.map(|(target, entry)| {
            entry.once_more = true;
            target.clone()
        });
        let remembered: Vec<Target> = remembered.collect();
        for (turn, target) in (0..).zip(remembered) {
            // By then this node has the entries of those whom the connection leads to.
            let wait = self.rng.around(self.config.timing.linger);
            let wait = wait + self.config.timing.flush * 2 * turn;
            let timer = Timer::Dial(Candidate::Target(target));
            self.timers.set(timer, now + wait);
        }
    }

    /// Whether this is the address of a node that can be reached.
    fn leads_to_known(&self, target: &Target) -> bool {
        let of_known = |address: SocketAddr| {
            let mut peers = self.roster.after(self.me());
            peers.any(|(_, peer)| peer.is_reachable() && peer.entry.addresses.contains(&address))
        };
        target.literal().is_some_and(of_known)
    }

    /// The last dial of a remembered address is over, or not needed; false for any other candidate.
    fn forget_if_last(&mut self, candidate: &Candidate) -> bool {
        let Candidate::Target(target) = candidate else {
            return false;
        };
        let last = self
            .targets
            .get(target)
            .is_some_and(|entry| entry.once_more);
        if last {
            self.forget(target);
        }
        last
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
        let known = matches!(&candidate, Candidate::Target(target) if self.leads_to_known(target));
        let wanted = self.is_wanted(&candidate);
        if known || !wanted {
            let last = self.forget_if_last(&candidate);
            if last || !wanted {
                return;
            }
        }
        if self.dials >= self.config.limits.dials {
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
        while self.dials < self.config.limits.dials {
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
                // It says nowhere to dial it. It counts as one that does not answer.
                None => return self.attempt_failed(&candidate, "no address is known", false, now),
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
        let mut all: Vec<Target> = self.usable(id, now).map(Target::from).collect();
        let named = self.targets.iter();
        let named = named.filter(|(_, entry)| entry.peer == Some(id) && !entry.remembered);
        all.extend(named.map(|(target, _)| target.clone()));
        let dialling = self.dialled.get_mut(&id)?;
        let attempt = dialling.attempts;
        dialling.attempts = attempt.wrapping_add(1);
        let index = attempt.checked_rem(all.len())?;
        Some(all.swap_remove(index))
    }

    /// The addresses of a peer's entry at which it may be dialled from here.
    fn usable(&self, id: PeerId, now: Duration) -> impl Iterator<Item = SocketAddr> {
        let lasts = self.config.timing.retry_rarely;
        let here = self.sightings.any_local();
        let peer = self.roster.get(id).filter(|peer| peer.gone.is_none());
        let addresses = peer.into_iter().flat_map(|peer| &peer.entry.addresses);
        addresses.copied().filter(move |address| {
            (here || !is_local(address.ip())) && !self.myself.contains(*address, now, lasts)
        })
    }

    /// The other side of a dial is there.
    pub(super) fn reached(&mut self, conn: ConnId, remote: SocketAddr, now: Duration) {
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
        self.introduce(conn, remote);
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
        if self.forget_if_last(candidate) {
            return;
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
            self.next_wait(candidate)
        };
        if let Candidate::Peer(id) = candidate {
            self.reviving.remove(id);
            // Others may take its place.
            self.rethink(now);
        }
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
        if let Some(Candidate::Peer(meant)) = &candidate {
            self.reviving.remove(meant);
        }
        if let Some(entry) = dialled.and_then(|target| self.targets.get_mut(&target)) {
            entry.peer = Some(id);
            entry.myself = false;
        }
        match candidate {
            None => {}
            Some(candidate @ Candidate::Peer(meant)) if meant != id => {
                // Another node lives at that address now.
                self.attempt_failed(&candidate, "another node answers there", false, now);
            }
            Some(candidate) => {
                if let Some(dialling) = self.dialling(&candidate) {
                    dialling.conn = None;
                    dialling.failure = None;
                }
                self.forget_if_last(&candidate);
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
            Some(Candidate::Peer(_)) => {}
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

    /// Sees to it that a peer that is wanted and has no connection will be dialled.
    pub(super) fn schedule_peer(&mut self, id: PeerId, now: Duration) {
        let candidate = Candidate::Peer(id);
        if !self.may_dial(&candidate) {
            return;
        }
        let dialling = self.dialled.entry(id).or_default();
        let (busy, first) = (dialling.is_busy(), dialling.attempts == 0);
        let timer = Timer::Dial(candidate.clone());
        if busy || self.timers.get(&timer).is_some() {
            return;
        }
        let wait = if first {
            self.moment()
        } else {
            self.next_wait(&candidate)
        };
        self.timers.set(timer, now + wait + self.politeness(id));
    }

    /// Dials a peer within moments, whatever it has waited for: there is news of it.
    pub(super) fn retry_soon(&mut self, id: PeerId, now: Duration) {
        let candidate = Candidate::Peer(id);
        if let Some(dialling) = self.dialled.get_mut(&id) {
            dialling.backoff.reset();
            if self.is_wanted(&candidate) {
                let wait = self.moment();
                self.timers
                    .bring_forward(Timer::Dial(candidate), now + wait);
            }
        }
    }

    /// A peer is gone: targets that led to it are dialled on their own again.
    pub(super) fn orphan_targets(&mut self, id: PeerId, now: Duration) {
        let orphans = self.targets.iter_mut();
        let orphans = orphans.filter(|(_, entry)| entry.peer == Some(id));
        let mut due = Vec::new();
        for (target, entry) in orphans {
            entry.peer = None;
            due.push(target.clone());
        }
        for target in due {
            let wait = self.rng.around(self.config.timing.retry);
            self.timers
                .bring_forward(Timer::Dial(Candidate::Target(target)), now + wait);
        }
    }

    /// A peer that the operator named is out of reach: its targets are dialled.
    pub(super) fn retry_targets(&mut self, id: PeerId, now: Duration) {
        let named = self.targets.iter();
        let named = named.filter(|(_, entry)| entry.peer == Some(id));
        let named: Vec<Target> = named.map(|(target, _)| target.clone()).collect();
        for target in named {
            let candidate = Candidate::Target(target);
            if self.is_wanted(&candidate)
                && self.timers.get(&Timer::Dial(candidate.clone())).is_none()
            {
                let wait = self.next_wait(&candidate);
                self.timers.set(Timer::Dial(candidate), now + wait);
            }
        }
    }

    /// A moment within [`Timing::spread`](crate::Timing::spread).
    fn moment(&mut self) -> Duration {
        let span = self.scaled(self.config.timing.spread);
        self.rng.up_to(span)
    }

    /// How much longer this node waits than the peer would.
    fn politeness(&self, id: PeerId) -> Duration {
        // Where everybody is connected with everybody, both sides want to dial.
        if self.config.me.id > id && self.roster.size() <= FULL_MESH {
            self.config.timing.yield_to_smaller
        } else {
            Duration::ZERO
        }
    }

    /// The next wait of a candidate's back-off. Those whom the operator named are never given up: one
    /// of them is enough to find the way back to all.
    fn next_wait(&mut self, candidate: &Candidate) -> Duration {
        let timing = &self.config.timing;
        let dialling = match candidate {
            Candidate::Target(target) => self
                .targets
                .get_mut(target)
                .map(|entry| &mut entry.dialling),
            Candidate::Peer(id) => self.dialled.get_mut(id),
        };
        match dialling {
            Some(dialling) => dialling
                .backoff
                .next(timing, timing.retry_max, &mut self.rng),
            None => timing.retry_max,
        }
    }

    /// Whether a candidate is to be dialled at this moment.
    fn is_wanted(&self, candidate: &Candidate) -> bool {
        let idle = match candidate {
            Candidate::Target(target) => self.targets.get(target).map(|entry| &entry.dialling),
            Candidate::Peer(id) => self.dialled.get(id),
        };
        idle.is_some_and(|dialling| !dialling.is_busy()) && self.may_dial(candidate)
    }

    /// As [`Self::is_wanted`], whether or not a dial is under way.
    fn may_dial(&self, candidate: &Candidate) -> bool {
        if self.left {
            return false;
        }
        match candidate {
            Candidate::Target(target) => self.targets.get(target).is_some_and(|entry| {
                let found = |id| {
                    let near = self.control.contains_key(&id) || self.is_pending(id);
                    near || (self.config.discovery && self.is_reachable(id))
                };
                !entry.peer.is_some_and(found)
            }),
            Candidate::Peer(id) => {
                !self.control.contains_key(id)
                    && !self.is_pending(*id)
                    && (self.wanted.contains(id) || self.reviving.contains(id))
                    && self.is_known(*id)
            }
        }
    }

    /// Whether the operator named an address of this peer.
    pub(super) fn is_named(&self, id: PeerId) -> bool {
        let named = |entry: &TargetEntry| entry.peer == Some(id) && !entry.remembered;
        self.targets.values().any(named)
    }

    fn dialling(&mut self, candidate: &Candidate) -> Option<&mut Dialling> {
        match candidate {
            Candidate::Target(target) => self
                .targets
                .get_mut(target)
                .map(|entry| &mut entry.dialling),
            Candidate::Peer(id) => self.dialled.get_mut(id),
        }
    }
}
