//! Taking over what a gone node owned, and confirming it.
//!
//! An operator or an orchestrator says to one node that another is gone. That node, the *heir*,
//! writes claims of a new epoch over all that the gone node owns. Claims of a raised epoch begin at
//! version 1, *unconfirmed*: nobody may allocate under them. The heir asks every other living node
//! of the roster to acknowledge them. An acknowledgement says that the node has recorded the
//! claims, and carries what it knows of these ranges and of who lives: a gift of the gone node that
//! the heir had not heard of comes back as its new owner's defence, a node that has returned comes
//! back as one more that has to be asked. When all have acknowledged the same claims, the heir
//! writes them again with version 2 and uses the space. When one of them is declared gone before
//! it has, the heir claims all anew in an epoch above what that one may have written in its defence.

use std::collections::BTreeSet;
use std::time::Duration;

use wire::PeerName;

use super::Agent;
use super::message::Message;
use crate::range_set::RangeSet;
use crate::ring::{Claim, Delta};
use crate::roster::Member;

/// Why a node was not removed. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoveError {
    /// That is this node.
    #[error("node {name} is this one: ask another node to remove it")]
    Myself {
        /// Its name.
        name: PeerName,
    },
    /// It runs, and is connected.
    #[error("node {name} is connected: stop it first, its containers use its addresses")]
    Connected {
        /// Its name.
        name: PeerName,
    },
    /// Nobody has heard of it.
    #[error("node {name} is not known here: the name may be misspelt (weft status ipam)")]
    Unknown {
        /// Its name.
        name: PeerName,
    },
}

/// What removing a node did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Addresses of it that this node has taken over and that are not confirmed yet.
    pub taken: u128,
    /// Nodes that have to confirm it first.
    pub waiting: Vec<PeerName>,
    /// Nodes that were removed before, and of which the one removed now has not been heard since:
    /// it may have let them in again, and have told nobody. They have to be down still.
    pub unheard: Vec<PeerName>,
}

/// Claims that wait for confirmation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Round {
    /// On which addresses.
    pub(super) ranges: RangeSet,
    /// Raised whenever they change.
    number: u64,
    acknowledged: BTreeSet<PeerName>,
    /// Who has to.
    asked: BTreeSet<PeerName>,
}

impl Claim {
    /// Whether this is a take-over that others have not acknowledged.
    pub fn is_unconfirmed(&self) -> bool {
        self.epoch > 0 && self.version == 1
    }
}

impl Agent {
    /// `name` is gone for good: this node takes over what it owns. Can be repeated, on any node.
    ///
    /// # Errors
    /// See [`RemoveError`].
    pub fn remove(&mut self, name: &PeerName, now: Duration) -> Result<Removed, RemoveError> {
        let name = name.clone();
        if name == self.me {
            return Err(RemoveError::Myself { name });
        }
        if self.is_reachable(&name) {
            return Err(RemoveError::Connected { name });
        }
        let owns = !self.ring().owned_by(&name).is_empty();
        let member = self.ring().roster().get(&name);
        if !owns && member == Member::default() {
            return Err(RemoveError::Unknown { name });
        }
        let open = !self.round.ranges.is_empty() && !self.round.acknowledged.contains(&name);
        let unheard = self.removing.iter().filter(|gone| open && **gone != name);
        let unheard = unheard.cloned().collect();
        let mut ring = self.ring().clone();
        let gone = member.life.max(1);
        if ring.note(&name, Member { life: 0, gone }) {
            self.set_ring(ring, now);
            let news = self.life_of(&name);
            self.tell(None, &news);
        }
        self.removing.insert(name);
        let before = self.round.ranges.size();
        self.take_over_removed(now);
        self.schedule(now);
        Ok(Removed {
            taken: self.round.ranges.size().saturating_sub(before),
            waiting: self.unacknowledged(),
            unheard,
        })
    }

    /// Takes over what the removed nodes are known to own: at once, and again when more of it
    /// comes to light.
    pub(super) fn take_over_removed(&mut self, now: Duration) {
        if !self.is_admitted() {
            return;
        }
        let roster = self.ring().roster();
        let back: Vec<PeerName> = self.removing.iter().cloned().collect();
        let back = back.into_iter().filter(|name| roster.is_alive(name));
        for name in back.collect::<Vec<_>>() {
            self.removing.remove(&name);
        }
        let mut ring = self.ring().clone();
        for name in &self.removing {
            #[cfg(test)]
            if self.without == Some(super::tests::Without::Epochs) {
                for range in ring.owned_by(name).iter() {
                    let _ = ring.give(range, name, &self.me);
                }
            }
            // A limit of the ring is reached: what is left stays with the gone node, as shown.
            let _ = ring.take_over(name, &self.me);
        }
        if ring != *self.ring() {
            self.set_ring(ring, now);
        }
    }

    /// Claims this node's own space anew, after which all others have told what they know of it. So
    /// does a node that was declared gone: what of its space its heir did not know of, the heir or
    /// somebody else may have taken over as another's.
    pub(super) fn reclaim_contested(&mut self, now: Duration) {
        let gone = self.ring().roster().get(&self.me).gone;
        if !self.is_admitted() || !(self.contested || gone > self.answered_gone) {
            return;
        }
        self.contested = false;
        self.unsaved |= gone > self.answered_gone;
        self.answered_gone = gone;
        let mut ring = self.ring().clone();
        if ring.take_over(&self.me, &self.me).is_ok() && ring != *self.ring() {
            self.set_ring(ring, now);
        }
    }

    /// The unconfirmed claims follow from the ring, so they are durable with it.
    pub(super) fn check_round(&mut self, now: Duration) {
        if self.has_lost_a_voice() {
            let mut ring = self.ring().clone();
            // At the limit of epochs the claims stay as they are.
            let _ = ring.outbid(&self.me);
            self.round.ranges = RangeSet::new();
            return self.set_ring(ring, now);
        }
        let unconfirmed = |claim: &Claim| claim.owner == self.me && claim.is_unconfirmed();
        let ranges: RangeSet = self
            .ring()
            .ranges()
            .filter(|(_, claim)| claim.is_some_and(unconfirmed))
            .map(|(range, _)| range)
            .collect();
        if ranges != self.round.ranges {
            self.round.number += 1;
            self.round.acknowledged.clear();
            self.round.ranges = ranges;
            for peer in self.within_reach() {
                self.ask_to_confirm(&peer);
            }
        }
        self.finish_round(now);
    }

    /// Whether somebody who was asked to confirm was declared gone without an answer. It may have
    /// defended something, unheard, and would believe in that when it comes back. Notes who is
    /// asked from now on.
    fn has_lost_a_voice(&mut self) -> bool {
        let roster = self.ring().roster();
        let alive: BTreeSet<PeerName> = roster.alive_but(&self.me).cloned().collect();
        let mut silent = self.round.asked.difference(&alive);
        let lost = silent.any(|name| !self.round.acknowledged.contains(name));
        self.round.asked = alive;
        lost && !self.round.ranges.is_empty()
    }

    pub(super) fn ask_to_confirm(&mut self, peer: &PeerName) {
        if self.round.ranges.is_empty()
            || !self.is_admitted()
            || !self.is_reachable(peer)
            || self.round.acknowledged.contains(peer)
        {
            return;
        }
        let message = Message::Confirm {
            round: self.round_id(),
            delta: self.claims_on(&self.round.ranges.clone()),
        };
        self.send(Some(peer), &message);
    }

    /// Rounds of different lives differ, so that a late acknowledgement of an earlier life is none.
    fn round_id(&self) -> u64 {
        (u64::from(self.life()) << 32) | (self.round.number & 0xffff_ffff)
    }

    fn claims_on(&self, ranges: &RangeSet) -> Delta {
        let windows: Vec<_> = ranges.iter().collect();
        self.ring().delta_within(&windows)
    }

    /// Another node has taken something over. A node that does not know its own standing yet says
    /// nothing; it will be asked again.
    pub(super) fn acknowledge(
        &mut self,
        from: &PeerName,
        round: u64,
        delta: &Delta,
        now: Duration,
    ) {
        let ranges: RangeSet = delta.segments().iter().map(|s| s.range).collect();
        if !self.is_admitted() || !self.merge(from, delta, now) || !self.is_admitted() {
            return;
        }
        let held = self.held();
        let message = Message::Ack {
            round,
            delta: self.claims_on(&ranges),
            held,
        };
        self.send(Some(from), &message);
    }

    pub(super) fn acknowledged(
        &mut self,
        from: &PeerName,
        round: u64,
        delta: &Delta,
        held: RangeSet,
        now: Duration,
    ) {
        self.block(from, held);
        // The merge can change the claims, and with them the round.
        if self.merge(from, delta, now) && self.is_admitted() && round == self.round_id() {
            self.round.acknowledged.insert(from.clone());
            self.finish_round(now);
        }
    }

    /// Living nodes that have not acknowledged the unconfirmed claims.
    pub(super) fn unacknowledged(&self) -> Vec<PeerName> {
        if self.round.ranges.is_empty() {
            return Vec::new();
        }
        #[cfg(test)]
        if self.without == Some(super::tests::Without::Confirmation) {
            return Vec::new();
        }
        let alive = self.ring().roster().alive_but(&self.me);
        alive
            .filter(|name| !self.round.acknowledged.contains(*name))
            .cloned()
            .collect()
    }

    fn finish_round(&mut self, now: Duration) {
        if self.round.ranges.is_empty() || !self.is_admitted() || !self.unacknowledged().is_empty()
        {
            return;
        }
        let confirmed = std::mem::take(&mut self.round.ranges);
        let mut ring = self.ring().clone();
        for range in confirmed.iter() {
            // Version 2 of a claim of this node's own; it cannot be at its limit.
            let _ = ring.give(range, &self.me, &self.me);
        }
        let news = {
            let windows: Vec<_> = confirmed.iter().collect();
            ring.delta_within(&windows)
        };
        self.round.number += 1;
        self.round.acknowledged.clear();
        self.set_ring(ring, now);
        self.tell(None, &news);
    }
}
