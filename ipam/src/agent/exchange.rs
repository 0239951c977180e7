//! Keeping rings equal: news to all, digests for what was lost, and what follows from a merge.

use std::time::Duration;

use wire::PeerName;

use super::message::Message;
use super::{Agent, PART};
use crate::range_set::RangeSet;
use crate::ring::{Claim, Delta, Digest, Reassigned, Ring, Segment};
use crate::roster::{Member, Roster};

impl Agent {
    /// Asks a peer for all that this node does not know.
    pub(super) fn sync(&mut self, peer: &PeerName) {
        let message = Message::Sync {
            digest: self.ring().digest(),
            life: self.life(),
            electors: self.settings.consensus.unwrap_or(0),
            free: self.free(),
        };
        self.send(Some(peer), &message);
    }

    /// A peer asks what it does not know. Its life is noted first: from then on whoever takes
    /// something over hears of it.
    pub(super) fn answer(&mut self, from: &PeerName, digest: &Digest, life: u32, now: Duration) {
        self.note_life(from, life, now);
        let delta = match self.ring().answer(digest) {
            Ok(delta) => delta,
            Err(error) => return self.refuse(from, error.to_string()),
        };
        let mut parts = parts(&delta);
        let last = parts.pop().unwrap_or(delta);
        let free = self.free();
        for part in parts {
            self.send(Some(from), &Message::Update { delta: part, free });
        }
        let message = Message::Answer {
            delta: last,
            digest: self.ring().digest(),
            life: self.ring().roster().get(from).life,
            fresh: self.is_fresh(),
            admitted: self.is_admitted(),
            electors: self.settings.consensus.unwrap_or(0),
            free,
        };
        self.send(Some(from), &message);
    }

    /// Records the life that a node says it is in. If that is news, others are told before it is
    /// answered: whoever takes something over then asks it, even if this node is gone by that time.
    pub(super) fn note_life(&mut self, of: &PeerName, life: u32, now: Duration) {
        let mut ring = self.ring().clone();
        if life > 0 && ring.note(of, Member { life, gone: 0 }) {
            self.set_ring(ring, now);
            let news = self.life_of(of);
            self.tell(None, &news);
        }
    }

    /// Tells a peer what its digest lacks.
    pub(super) fn repair(&mut self, to: &PeerName, theirs: &Digest) {
        if let Ok(delta) = self.ring().answer(theirs)
            && !delta.is_empty()
        {
            self.tell(Some(to), &delta);
        }
    }

    /// Takes in what a peer says; false if it cannot be merged.
    pub(super) fn merge(&mut self, from: &PeerName, delta: &Delta, now: Duration) -> bool {
        let mut ring = self.ring().clone();
        let reassigned = match ring.merge(delta) {
            Ok(reassigned) => reassigned,
            Err(error) => {
                self.refuse(from, error.to_string());
                return false;
            }
        };
        if ring == *self.ring() {
            return true;
        }
        // Two first divisions: what both gave away may be in use twice.
        if ring.seedings().len() > 1 && ring.seedings().len() > self.ring().seedings().len() {
            self.contested = true;
        }
        let defence = self.defence(&ring, &reassigned);
        if !defence.segments().is_empty() && ring.merge(&defence).is_ok() {
            self.set_ring(ring, now);
            self.tell(None, &defence);
        } else {
            self.set_ring(ring, now);
        }
        true
    }

    /// A take-over that nobody has confirmed, of space that this node owns and uses: whoever took
    /// over did not know. This node claims it back, and by that is heard before the take-over is
    /// used. Not so if this node itself was declared gone, or does not know whether it was.
    fn defence(&self, merged: &Ring, reassigned: &[Reassigned]) -> Delta {
        let declared_gone = merged.roster().get(&self.me).gone >= self.life();
        let mut segments = Vec::new();
        for Reassigned {
            range,
            before,
            after,
        } in reassigned
        {
            let mine = before.as_ref().filter(|before| before.owner == self.me);
            let Some(before) = mine.filter(|_| after.owner != self.me) else {
                continue;
            };
            let unconfirmed = after.epoch > before.epoch && after.is_unconfirmed();
            if unconfirmed
                && !before.is_unconfirmed()
                && self.is_admitted()
                && !declared_gone
                && let Some(epoch) = after.epoch.checked_add(1)
            {
                segments.push(Segment {
                    range: *range,
                    claim: Claim {
                        epoch,
                        // It is in use already, and needs no confirmation.
                        version: 2,
                        owner: self.me.clone(),
                    },
                });
            }
        }
        self.only(segments)
    }

    /// A delta of these claims and nothing else.
    pub(super) fn only(&self, segments: Vec<Segment>) -> Delta {
        Delta {
            universe: self.ring().universe(),
            segments,
            seedings: std::collections::BTreeSet::new(),
            roster: Roster::new(),
        }
    }

    /// What this ring says of one node's life.
    pub(super) fn life_of(&self, name: &PeerName) -> Delta {
        let mut delta = self.only(Vec::new());
        delta.roster.note(name, self.ring().roster().get(name));
        delta
    }

    pub(super) fn set_ring(&mut self, ring: Ring, now: Duration) {
        self.allocator.set_ring(ring);
        self.unsaved = true;
        self.ring_changed(now);
    }

    /// What follows from a changed ring.
    pub(super) fn ring_changed(&mut self, now: Duration) {
        self.check_life(now);
        self.check_alone(now);
        self.reclaim_contested(now);
        self.check_round(now);
        self.forget_gone_holders();
        self.withhold();
        self.held_changed();
        self.check_wants(now);
        // A take-over by another node can leave this one with nothing.
        self.look_ahead(now);
        self.schedule(now);
    }

    /// Owned addresses that must not be handed out now.
    pub(super) fn withhold(&mut self) {
        let mut withheld: RangeSet = self.round.ranges.clone();
        for held in self.blocked.values() {
            for range in held.iter() {
                withheld.insert(range);
            }
        }
        self.allocator.set_withheld(withheld);
    }
}

/// A delta in parts that fit a message each; at least one.
pub(super) fn parts(delta: &Delta) -> Vec<Delta> {
    let mut parts: Vec<Delta> = delta
        .segments
        .chunks(PART)
        .map(|segments| Delta {
            universe: delta.universe,
            segments: segments.to_vec(),
            seedings: delta.seedings.clone(),
            roster: Roster::new(),
        })
        .collect();
    match parts.last_mut() {
        Some(last) => last.roster = delta.roster.clone(),
        None => parts.push(delta.clone()),
    }
    parts
}
