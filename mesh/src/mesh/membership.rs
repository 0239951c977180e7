//! The entries of all nodes, and how they get about.
//!
//! A node sends its own entry to its neighbours. What it hears of others it announces to all
//! neighbours but the one that it came from, by identity and version, those of a short time in one
//! message; who lacks it asks one of those that announced it. A neighbour that announces the same
//! meanwhile is not told, nor is one whose connection is about to be closed because nobody needs it.
//! So each node gets an entry once, and from its other neighbours 16 bytes.
//!
//! What is lost on the way is found by comparing the table with a neighbour's: one number if they are
//! equal, and in two steps just what differs if they are not.

use std::sync::Arc;
use std::time::Duration;

use wire::PeerId;

use super::{ConditionKind, Mesh, Timer, first_broadcast};
use crate::connection::{ConnId, Connection};
use crate::entry::{Entry, MAX_NEIGHBOURS, Sealed, Stamp};
use crate::message::{MAX_IDS, Message, Told};
use crate::peer::Why;
use crate::roster::{Applied, BUCKETS, bucket};

/// Entries in one message, in bytes; the last may be longer.
const PART: usize = 64 << 10;
/// Bytes sent at a time on one connection, a part of what may wait there; the rest follows.
const BURST: usize = 512 << 10;
/// Other lives of this node that are heard of after a restart at most; more are another node.
const LIVES: u32 = 3;

impl Mesh {
    /// A neighbour tells of nodes.
    pub(super) fn learn(&mut self, conn: ConnId, told: Vec<Told>, now: Duration) {
        for Told { idle, bytes } in told {
            let Some(stamp) = Stamp::peek(&bytes) else {
                self.counters.malformed_entries += 1;
                continue;
            };
            if stamp.id == self.me() {
                self.asked.arrived(stamp.id, stamp.version);
                self.heard_of_myself(conn, stamp, now);
                continue;
            }
            match self.roster.judge(stamp) {
                Applied::Same => {
                    self.is_known_to(conn, stamp.id);
                    self.counters.entries_known += 1;
                    self.introduced(conn, stamp.id, now);
                }
                Applied::Stale => {
                    // The sender is behind.
                    self.counters.entries_known += 1;
                    self.is_known_to(conn, stamp.id);
                    self.send_entry(conn, stamp.id, now);
                }
                Applied::New => {
                    let read = match &self.config.shelf {
                        Some(shelf) => shelf.read(stamp, &bytes),
                        None => Sealed::read(&bytes),
                    };
                    match read {
                        Ok(entry) => {
                            let idle = Duration::from_secs(idle.into());
                            self.take(conn, entry, idle, now);
                            self.introduced(conn, stamp.id, now);
                        }
                        Err(_) => {
                            // Others may have it as it was written.
                            self.counters.malformed_entries += 1;
                            continue;
                        }
                    }
                }
            }
            self.asked.arrived(stamp.id, stamp.version);
        }
    }

    /// News of a peer.
    fn take(&mut self, conn: ConnId, entry: Arc<Sealed>, idle: Duration, now: Duration) {
        let id = entry.id;
        let known = self.roster.get(id);
        let before = known.map(|peer| Arc::clone(&peer.entry));
        match &before {
            Some(before) if before.public_key != entry.public_key => {
                // An identity is made of its key. Nobody but a liar says this.
                self.counters.entries_refused += 1;
                return;
            }
            Some(_) => {}
            // Nothing is to be known of one that is gone.
            None if entry.left || idle >= self.config.timing.forget => return,
            None => {
                if !self.make_room(now) {
                    self.counters.peers_full += 1;
                    return;
                }
            }
        }
        self.counters.entries_taken += 1;
        self.roster.apply(entry, idle, now);
        self.spread(id, Some(conn), now);
        self.vouch(id, now);
        self.entry_changed(id, before.as_deref().map(|before| &**before), now);
    }

    /// Another life of this node is heard of: an earlier one, mostly. Its entry must not count for
    /// more than this one's.
    fn heard_of_myself(&mut self, conn: ConnId, stamp: Stamp, now: Duration) {
        let own = self.roster.own().stamp();
        if stamp == own {
            return;
        }
        if stamp.version < own.version {
            return self.send_entry(conn, stamp.id, now);
        }
        self.own.refuted = self.own.refuted.saturating_add(1);
        if self.own.refuted > LIVES {
            let id = self.me();
            let text = format!(
                "another node runs with the identity {id} of this one: one state directory is a copy of the other; delete the copy and restart that node"
            );
            self.raise(ConditionKind::DuplicateIdentity, id.to_string(), text, now);
        }
        // If it lives, both would outbid each other for ever: slower and slower.
        let patience = self.config.timing.publish * 2u32.saturating_pow(self.own.refuted.min(9));
        let wait = if self.own.refuted <= LIVES {
            Duration::ZERO
        } else {
            patience.min(self.config.timing.retry_max)
        };
        let mut entry = Entry::clone(self.roster.own());
        entry.version = stamp.version.saturating_add(1);
        self.own.sequence = self.own.sequence.max(first_broadcast(entry.version));
        self.roster.set_own(Sealed::new(entry));
        self.timers.set(Timer::Publish, now + wait);
    }

    /// Something that the own entry says has changed.
    pub(super) fn own_changed(&mut self, now: Duration) {
        let publish = self.config.timing.publish;
        let pace = &self.own.pace;
        let at = pace.in_turn(self.scaled(publish), self.shared(publish));
        self.publish_at(at, now);
    }

    /// Something has changed on which it depends whom messages or frames get to.
    pub(super) fn own_changed_much(&mut self, now: Duration) {
        let least = self.scaled(self.config.timing.publish);
        self.publish_at(self.own.pace.soon(least), now);
    }

    /// A neighbour that others reach through this node alone, as its entry says, is not to wait until it
    /// is listed here.
    pub(super) fn vouch(&mut self, id: PeerId, now: Duration) {
        let Some(peer) = self.roster.get(id) else {
            return;
        };
        if !self.control.contains_key(&id) || self.roster.own().lists(id) {
            return;
        }
        let me = self.me();
        let mut others = peer.entry.neighbours.iter().filter(|other| **other != me);
        if !others.any(|other| self.is_reachable(*other)) {
            self.own_changed_much(now);
        }
    }

    fn publish_at(&mut self, at: Duration, now: Duration) {
        let soon = now + self.scaled(self.config.timing.flush);
        self.timers.bring_forward(Timer::Publish, at.max(soon));
    }

    /// Tells all what the own entry says now.
    pub(super) fn publish(&mut self, now: Duration) {
        let mut entry = Entry::clone(self.roster.own());
        entry.left = self.left;
        entry.addresses = self.sightings.list();
        entry.neighbours = self.control.keys().copied().take(MAX_NEIGHBOURS).collect();
        entry.reach = self.own.reach.clone();
        entry.sleeve_seen = self.own.sleeve_seen;
        entry.groups = self.own.groups.clone();
        if entry != ***self.roster.own() {
            entry.version = entry.version.saturating_add(1);
            self.roster.set_own(Sealed::new(entry));
            self.counters.published += 1;
            let interval = self.shared(self.config.timing.publish);
            self.own.pace.written(interval, now);
        }
        // Changed and changed back, all have heard of it.
        let version = self.roster.own().version;
        if std::mem::replace(&mut self.own.spread, version) != version {
            self.spread(self.me(), None, now);
        }
    }

    /// Tells all neighbours, but the one that it came from, of an entry: of the own one all of it,
    /// since they cannot have it.
    pub(super) fn spread(&mut self, id: PeerId, from: Option<ConnId>, now: Duration) {
        if id == self.me() {
            for conn in self.neighbours_with(|connection| !connection.quiet) {
                self.send_entry(conn, id, now);
            }
        } else {
            self.news.insert(id, from.into_iter().collect());
            let wait = self.a_moment();
            self.timers.bring_forward(Timer::Flush, now + wait);
        }
    }

    /// A neighbour has the version that this node has: it need not be told.
    fn is_known_to(&mut self, conn: ConnId, id: PeerId) {
        if let Some(conns) = self.news.get_mut(&id)
            && !conns.contains(&conn)
        {
            conns.push(conn);
        }
    }

    /// Sends an entry on one connection within a moment.
    fn send_entry(&mut self, conn: ConnId, id: PeerId, now: Duration) {
        let wait = self.a_moment();
        self.owe(conn, id, now + wait);
    }

    fn owe(&mut self, conn: ConnId, id: PeerId, at: Duration) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.owed.insert(id);
            self.timers.bring_forward(Timer::Answer, at);
        }
    }

    /// For how long news are gathered.
    fn a_moment(&mut self) -> Duration {
        let span = self.scaled(self.config.timing.flush);
        span / 2 + self.rng.up_to(span / 2)
    }

    /// Announces what has changed.
    pub(super) fn flush(&mut self, now: Duration) {
        let news = std::mem::take(&mut self.news);
        let stamp = |(id, conns)| Some((id, self.roster.entry(id)?.version, conns));
        let news: Vec<(PeerId, u64, Vec<ConnId>)> = news.into_iter().filter_map(stamp).collect();
        let connections = self.control.iter().map(|(peer, conn)| (*peer, *conn));
        for (peer, conn) in connections.collect::<Vec<_>>() {
            if self.connections.get(&conn).is_none_or(|c| c.quiet) {
                continue;
            }
            let unheard = news
                .iter()
                .filter(|(id, _, conns)| *id != peer && !conns.contains(&conn));
            let known: Vec<_> = unheard.map(|(id, version, _)| (*id, *version)).collect();
            for part in known.chunks(MAX_IDS) {
                let (buckets, known) = (0, part.to_vec());
                self.send(conn, &Message::Versions { buckets, known });
            }
        }
        self.pay(now);
    }

    /// Connections with neighbours for which something waits.
    fn neighbours_with(&self, waiting: impl Fn(&Connection) -> bool) -> Vec<ConnId> {
        let waits = |conn: &&ConnId| self.connections.get(*conn).is_some_and(&waiting);
        self.control.values().filter(waits).copied().collect()
    }

    /// Sends the entries that neighbours have asked for, or lack.
    pub(super) fn pay(&mut self, now: Duration) {
        let mut rest = false;
        for conn in self.neighbours_with(|connection| !connection.owed.is_empty()) {
            let Some(connection) = self.connections.get_mut(&conn) else {
                continue;
            };
            let mut owed = std::mem::take(&mut connection.owed);
            let mut sent = 0;
            let mut part = Vec::new();
            let mut parts = Vec::new();
            let mut size = 0;
            while sent < BURST {
                let Some(id) = owed.pop_first() else {
                    break;
                };
                let Some(told) = self.told(id, now) else {
                    continue;
                };
                size += told.bytes.len();
                sent += told.bytes.len();
                part.push(told);
                if size >= PART {
                    parts.push(std::mem::take(&mut part));
                    size = 0;
                }
            }
            if !part.is_empty() {
                parts.push(part);
            }
            rest |= !owed.is_empty();
            if let Some(connection) = self.connections.get_mut(&conn) {
                connection.owed = owed;
            }
            for part in parts {
                self.counters.entries_sent += part.len() as u64;
                self.send(conn, &Message::Entries(part));
            }
        }
        if rest {
            let wait = self.config.timing.flush;
            self.timers.bring_forward(Timer::Answer, now + wait);
        }
    }

    /// An entry as it is told on.
    fn told(&self, id: PeerId, now: Duration) -> Option<Told> {
        let entry = self.roster.entry(id)?;
        let idle = self
            .roster
            .get(id)
            .map_or(Duration::ZERO, |peer| peer.idle(now));
        Some(Told {
            idle: u32::try_from(idle.as_secs()).unwrap_or(u32::MAX),
            bytes: entry.bytes().to_vec(),
        })
    }

    pub(super) fn schedule_digest(&mut self, now: Duration) {
        let wait = self.rng.around(self.config.timing.digest);
        self.timers.set(Timer::Digest, now + wait);
    }

    /// Compares the table with that of a neighbour chosen at random.
    pub(super) fn compare(&mut self, now: Duration) {
        let chosen = self.rng.below(self.control.len() as u64);
        let chosen = usize::try_from(chosen).unwrap_or(0);
        if let Some(conn) = self.control.values().nth(chosen).copied() {
            self.send_digest(conn);
        }
        self.schedule_digest(now);
    }

    pub(super) fn send_digest(&mut self, conn: ConnId) {
        self.send(conn, &Message::Digest(self.roster.total()));
    }

    /// A neighbour's table as one number.
    pub(super) fn digest(&mut self, conn: ConnId, total: u64) {
        if total != self.roster.total() {
            self.counters.repairs += 1;
            let sums = Box::new(*self.roster.buckets());
            self.send(conn, &Message::Buckets(sums));
        }
    }

    /// A neighbour's table as one number for each part.
    pub(super) fn buckets(&mut self, conn: ConnId, sums: &[u64; BUCKETS]) {
        let mine = self.roster.buckets();
        let differ = (0..BUCKETS).filter(|at| mine[*at] != sums[*at]);
        let mask = differ.fold(0u64, |mask, at| mask | 1 << at);
        // As many parts in one message as it holds.
        let mut sorted = self.roster.versions(mask);
        sorted.sort_unstable_by_key(|(id, _)| bucket(*id));
        let mut parts = vec![(0u64, Vec::new())];
        let mut rest = sorted.as_slice();
        for at in (0..BUCKETS).filter(|at| mask & (1 << at) != 0) {
            let count = rest.iter().take_while(|(id, _)| bucket(*id) == at).count();
            let (known, others) = rest.split_at(count);
            rest = others;
            if parts
                .last()
                .is_some_and(|(_, list)| list.len() + count > MAX_IDS)
            {
                parts.push((0, Vec::new()));
            }
            if let Some((buckets, list)) = parts.last_mut() {
                *buckets |= 1 << at;
                list.extend(known.iter().copied().take(MAX_IDS));
            }
        }
        for (buckets, known) in parts.into_iter().filter(|(buckets, _)| *buckets != 0) {
            self.send(conn, &Message::Versions { buckets, known });
        }
    }

    /// What a neighbour has in some parts of its table; of no part: what is new to it.
    pub(super) fn versions(
        &mut self,
        conn: ConnId,
        buckets: u64,
        mut known: Vec<(PeerId, u64)>,
        now: Duration,
    ) {
        if buckets != 0 {
            known.sort_unstable();
            self.send_what_is_older(conn, buckets, &known, now);
        }
        let mut wanted = Vec::new();
        for (id, version) in known {
            let mine = self.roster.entry(id).map(|entry| entry.version);
            if mine.is_none_or(|mine| mine < version) {
                if self.asked.announced(conn, id, version, now) {
                    wanted.push(id);
                }
                continue;
            }
            if buckets == 0 {
                self.counters.announced_known += 1;
            }
            if mine == Some(version) {
                self.is_known_to(conn, id);
            }
        }
        if !wanted.is_empty() {
            self.send(conn, &Message::Ask(wanted));
            self.wait_for_answers();
        }
    }

    /// Sends what a neighbour has older versions of, or lacks, in some parts of its table. What it has
    /// there is in ascending order.
    fn send_what_is_older(
        &mut self,
        conn: ConnId,
        buckets: u64,
        known: &[(PeerId, u64)],
        now: Duration,
    ) {
        let theirs = |id: PeerId| {
            let at = known.binary_search_by_key(&id, |(id, _)| *id).ok()?;
            known.get(at).map(|(_, version)| *version)
        };
        // One that is gone is not told to those who do not know it.
        let gone = |id: PeerId| self.roster.get(id).is_some_and(|peer| peer.gone.is_some());
        let mine = self.roster.versions(buckets);
        let older: Vec<PeerId> = mine
            .iter()
            .filter(|(id, version)| match theirs(*id) {
                Some(theirs) => theirs < *version,
                None => !gone(*id),
            })
            .map(|(id, _)| *id)
            .collect();
        for id in older {
            self.send_entry(conn, id, now);
        }
    }

    /// A neighbour wants these entries.
    pub(super) fn asked(&mut self, conn: ConnId, ids: Vec<PeerId>, now: Duration) {
        let at = now + self.scaled(self.config.timing.answer);
        for id in ids {
            if self.roster.entry(id).is_some() {
                self.owe(conn, id, at);
            }
        }
    }

    /// Looks again when what was asked for should have come.
    pub(super) fn wait_for_answers(&mut self) {
        match self.asked.next() {
            Some(at) => self.timers.set(Timer::Asked, at),
            None => self.timers.cancel(&Timer::Asked),
        }
    }

    /// What has not come is asked for elsewhere.
    pub(super) fn ask_others(&mut self, now: Duration) {
        for (conn, ids) in self.asked.overdue(now) {
            self.counters.entries_late += ids.len() as u64;
            for part in ids.chunks(MAX_IDS) {
                self.send(conn, &Message::Ask(part.to_vec()));
            }
        }
        self.wait_for_answers();
    }

    /// Begins with a new neighbour: each says what it is, and one of them how it sees the others.
    pub(super) fn begin_exchange(&mut self, conn: ConnId, i_choose: bool, now: Duration) {
        if let Some(told) = self.told(self.me(), now) {
            self.send(conn, &Message::Entries(vec![told]));
        }
        if i_choose {
            self.send_digest(conn);
        }
    }

    /// Makes room for one more peer, at the cost of the one that has been out of reach longest.
    pub(super) fn make_room(&mut self, now: Duration) -> bool {
        if self.roster.len() < self.config.limits.peers {
            return true;
        }
        let idle = self.roster.iter().filter(|(id, peer)| {
            !peer.is_reachable() && !peer.is_up() && !self.control.contains_key(id)
        });
        let Some(id) = idle
            .max_by_key(|(_, peer)| (peer.gone.is_some(), peer.idle(now)))
            .map(|(id, _)| id)
        else {
            return false;
        };
        self.counters.peers_evicted += 1;
        self.roster.bury(id, Why::Forgotten, now);
        self.farewell(id, now);
        self.roster.remove(id);
        true
    }

    /// Forgets peers that have been out of reach or gone for too long.
    pub(super) fn sweep_roster(&mut self, now: Duration) {
        let timing = &self.config.timing;
        let (forget, departed, settle) = (timing.forget, timing.departed, timing.settle);
        let (mut buried, mut removed, mut rivals) = (Vec::new(), Vec::new(), Vec::new());
        for (id, peer) in self.roster.iter() {
            match &peer.gone {
                Some(gone) if now >= gone.at + departed => removed.push(id),
                Some(_) => {}
                None if peer.is_reachable() && peer.rival => {
                    rivals.push(peer.entry.name.clone());
                }
                None if peer.is_reachable() => {}
                None if peer.is_up() => {}
                None if peer.idle(now) >= forget => buried.push((id, Why::Forgotten)),
                None if peer.idle(now) >= settle && self.holder(&peer.entry.name, id).is_some() => {
                    buried.push((id, Why::Superseded));
                }
                None => {}
            }
        }
        for (id, why) in buried {
            self.roster.bury(id, why, now);
            self.farewell(id, now);
        }
        for id in removed {
            self.roster.remove(id);
        }
        // Named to the operator for as long as it is so.
        for name in rivals {
            self.settle_name(&name, now);
        }
    }
}
