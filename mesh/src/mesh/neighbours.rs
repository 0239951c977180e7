//! Whom a node is connected with, and which connections it can do without.

use std::time::Duration;

use wire::PeerId;

use super::{Mesh, Timer};
use crate::connection::{ConnId, Phase};
use crate::dial::Candidate;
use crate::message::Message;
use crate::peer::Peer;
use crate::refusal::{Refusal, RefusalCode};

/// As long as a node has fewer connections that it wants, it needs those that it has.
const FOOTHOLD: usize = 3;
/// Peers out of reach that are tried at a time at most.
const TURN: usize = 8;

impl Mesh {
    /// Something has changed by which the choice of neighbours may be another.
    pub(super) fn rethink(&mut self, now: Duration) {
        let wait = self.scaled(self.config.timing.flush);
        self.timers.bring_forward(Timer::Choose, now + wait);
    }

    /// Chooses neighbours, dials those that are missing, and sees which connections nobody needs.
    pub(super) fn choose(&mut self, now: Duration) {
        if self.left {
            return;
        }
        let failed = |id: PeerId| {
            let dialling = self.dialled.get(&id);
            dialling.is_some_and(|dialling| dialling.has_failed())
                && !self.control.contains_key(&id)
        };
        let mut wanted = self.nearest.choose(&self.roster, failed);
        // Those that failed are tried again, ever more rarely, and have their place when they answer.
        wanted.extend(self.nearest.choose(&self.roster, |_| false));
        if !self.config.discovery {
            let named = |id: &PeerId| self.is_named(*id);
            wanted = wanted.into_iter().filter(named).collect();
            let others = self.targets.values().filter_map(|entry| entry.peer);
            wanted.extend(others.filter(|id| self.is_reachable(*id)));
        }
        self.wanted = wanted;
        for id in self.wanted.clone() {
            self.schedule_peer(id, now);
        }
        self.weigh(now);
    }

    /// Tells neighbours whether their connections are needed, where that has changed.
    fn weigh(&mut self, now: Duration) {
        let held = self
            .wanted
            .iter()
            .filter(|id| self.control.contains_key(id));
        let foothold = held.count() >= FOOTHOLD.min(self.wanted.len());
        let conns: Vec<(PeerId, ConnId)> = self.control.iter().map(|(id, c)| (*id, *c)).collect();
        for (id, conn) in conns {
            let need = !foothold || self.wanted.contains(&id);
            let Some(connection) = self.connections.get_mut(&conn) else {
                continue;
            };
            if connection.needed != need {
                connection.needed = need;
                self.send(conn, &Message::Need(need));
            }
            self.schedule_spare(conn, now);
        }
    }

    /// A neighbour says whether it needs the connection.
    pub(super) fn needed(&mut self, conn: ConnId, need: bool, now: Duration) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.needed_there = need;
            self.schedule_spare(conn, now);
        }
    }

    fn schedule_spare(&mut self, conn: ConnId, now: Duration) {
        let linger = self.config.timing.linger;
        let wait = linger + self.rng.up_to(linger);
        let connection = self.connections.get(&conn);
        let spare = connection.filter(|connection| !connection.is_needed());
        let id = spare.and_then(|connection| Some(connection.hello.as_ref()?.id));
        let quiet = id.is_some_and(|id| self.roster.is_spare(id));
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let woken = std::mem::replace(&mut connection.quiet, quiet) && !quiet;
        if connection.is_needed() {
            connection.spare_at = None;
        } else if connection.spare_at.is_none() {
            connection.spare_at = Some(now + wait);
            self.schedule_attention(conn);
        }
        if woken {
            // What was not said on it meanwhile.
            self.send_digest(conn);
        }
    }

    /// Closes a connection that nobody has needed for a while, unless it is the only way to somebody.
    pub(super) fn look_at_spare(&mut self, conn: ConnId, now: Duration) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        if connection.spare_at.is_none_or(|spare| now < spare) {
            return;
        }
        connection.spare_at = None;
        let peer = connection.hello.as_ref().map(|hello| hello.id);
        if peer.is_some_and(|id| self.roster.is_spare(id)) {
            self.counters.spared += 1;
            let text = "neither side needs this connection any more";
            self.end(conn, &Refusal::new(RefusalCode::Spare, text), now);
        } else {
            self.schedule_spare(conn, now);
        }
    }

    /// Makes room for one more connection, at the cost of one that nobody needs.
    pub(super) fn make_way(&mut self, now: Duration) -> bool {
        if self.control.len() < self.config.limits.connections {
            return true;
        }
        let spare = self.control.iter().find(|(id, conn)| {
            let connection = self.connections.get(conn);
            connection.is_some_and(|connection| !connection.is_needed())
                && self.roster.is_spare(**id)
        });
        let Some(conn) = spare.map(|(_, conn)| *conn) else {
            return false;
        };
        self.counters.spared += 1;
        let text = "others need the place of this connection";
        self.end(conn, &Refusal::new(RefusalCode::Spare, text), now);
        true
    }

    /// Addresses of some others, for one that this node has no place for.
    pub(super) fn instead(&mut self) -> Vec<std::net::SocketAddr> {
        let all: Vec<_> = self
            .roster
            .iter()
            .filter(|(_, peer)| peer.is_reachable())
            .filter_map(|(_, peer)| peer.entry.addresses.first().copied())
            .collect();
        let most = crate::refusal::MAX_INSTEAD.min(all.len());
        let from = self.rng.below(all.len() as u64);
        let from = usize::try_from(from).unwrap_or(0);
        all.iter().cycle().skip(from).take(most).copied().collect()
    }

    /// The connection in use with a peer is gone.
    pub(super) fn control_lost(
        &mut self,
        id: PeerId,
        reason: &str,
        lived: Duration,
        spare: bool,
        now: Duration,
    ) {
        self.control.remove(&id);
        if lived >= self.config.timing.settled
            && let Some(dialling) = self.dialled.get_mut(&id)
        {
            dialling.backoff.reset();
        }
        self.roster.disconnect(id, now);
        if let Some(peer) = self.roster.get_mut(id).filter(|peer| !peer.is_reachable()) {
            peer.reason = Some(reason.into());
        }
        if spare && self.is_reachable(id) {
            self.own_changed(now);
        } else {
            self.own_changed_much(now);
        }
        self.rethink(now);
        self.follow(now);
        self.schedule_peer(id, now);
        self.retry_targets(id, now);
    }

    /// Sees to it that those who are out of reach are tried.
    pub(super) fn schedule_revival(&mut self, now: Duration) {
        if self.left || !self.config.discovery {
            return;
        }
        let timing = &self.config.timing;
        // All nodes that this one can reach do the same: together as often as if there were one.
        let share = timing.revive * u32::try_from(self.roster.size()).unwrap_or(u32::MAX);
        let mut backoff = self.revival.clone();
        let wait = backoff.next(timing, timing.retry_max, &mut self.rng);
        let wait = wait.max(self.rng.around(share));
        self.timers.bring_forward(Timer::Revive, now + wait);
    }

    /// Tries the next of those who are out of reach: one, or some if most are.
    pub(super) fn revive(&mut self, now: Duration) {
        let timing = &self.config.timing;
        let _ = self.revival.next(timing, timing.retry_max, &mut self.rng);
        let lost = |(id, peer): (PeerId, &Peer)| {
            (peer.gone.is_none() && !peer.is_reachable()).then_some(id)
        };
        let count = self.roster.iter().filter_map(lost).count();
        // Nobody is out of reach: the next who is begins this anew.
        if count == 0 {
            return;
        }
        let turn = (count / self.roster.size()).clamp(1, TURN);
        let next = self.roster.after(self.revived).filter_map(lost);
        let next: Vec<PeerId> = next.take(turn).collect();
        for id in next {
            self.revived = id;
            self.reviving.insert(id);
            self.dialled.entry(id).or_default();
            self.due(Candidate::Peer(id), now);
        }
        self.schedule_revival(now);
    }

    /// Connections in their handshake with this peer.
    pub(super) fn is_pending(&self, id: PeerId) -> bool {
        self.connections.values().any(|connection| {
            connection.phase != Phase::Established
                && connection
                    .hello
                    .as_ref()
                    .is_some_and(|hello| hello.id == id)
        })
    }
}
