//! Addresses that a container holds here while another node owns them.
//!
//! That happens when space was taken over from a node whose containers live, or when rings that
//! were seeded apart have met. The container keeps its address and its traffic. Its node tells the
//! owner, which does not hand the address out until it is told that it is free; if it has handed
//! it out already, both nodes name their container to the operator.

use wire::PeerName;

use super::Agent;
use super::contact::next_after;
use super::message::Message;
use crate::range::Range;
use crate::range_set::RangeSet;

/// Most nodes whose held addresses are remembered.
const MAX_HOLDERS: usize = 1 << 14;

impl Agent {
    /// What containers hold here of other nodes' space.
    pub(super) fn held(&self) -> RangeSet {
        let held = self.allocator.estranged();
        held.map(|(at, _)| Range::single(at)).collect()
    }

    /// Tells all, because owners change, what is held of other nodes' space. Nothing is said of
    /// nothing, unless something was said before.
    pub(super) fn tell_held(&mut self) {
        let held = self.held();
        if held.is_empty() && self.told_held.as_ref().is_none_or(RangeSet::is_empty) {
            return;
        }
        self.told_held = Some(held.clone());
        let life = self.life();
        self.send(None, &Message::Held { held, life });
    }

    /// Tells one.
    pub(super) fn say_held(&mut self, to: &PeerName) {
        let (held, life) = (self.held(), self.life());
        self.send(Some(to), &Message::Held { held, life });
    }

    /// A node can be reached again: each may have missed what the other had to say about addresses
    /// held.
    pub(super) fn compare_held(&mut self, peer: &PeerName) {
        let theirs = self.ring().owned_by(peer);
        let held = self.held();
        if held.iter().any(|run| theirs.size_within(run) > 0) {
            self.say_held(peer);
        }
        if self.blocked.contains_key(peer) {
            self.send(Some(peer), &Message::Recall);
        }
    }

    /// Asks one after the other of those who are said to hold addresses whether they still do.
    pub(super) fn recall_next(&mut self) {
        let Some(next) = next_after(self.blocked.keys(), self.recalled.as_ref()).cloned() else {
            return;
        };
        self.send(Some(&next), &Message::Recall);
        self.recalled = Some(next);
    }

    /// Containers of a node that was declared gone are gone with it, and hold nothing.
    pub(super) fn forget_gone_holders(&mut self) {
        let before = self.blocked.len();
        let roster = self.allocator.ring().roster();
        self.blocked.retain(|holder, _| roster.is_alive(holder));
        self.doubles.retain(|_, holder| roster.is_alive(holder));
        self.unsaved |= self.blocked.len() < before;
    }

    /// Tells it if it is another than before.
    pub(super) fn held_changed(&mut self) {
        let held = self.held();
        let told = self.told_held.as_ref();
        if told.map_or(!held.is_empty(), |told| *told != held) {
            self.tell_held();
        }
    }

    /// A peer's containers hold these addresses of other nodes, and no others.
    pub(super) fn block(&mut self, from: &PeerName, held: RangeSet) {
        let before = self.blocked.get(from);
        if before == Some(&held) || (before.is_none() && held.is_empty()) {
            return;
        }
        if before.is_none() && self.blocked.len() >= MAX_HOLDERS {
            return;
        }
        self.doubles.retain(|_, with| with != from);
        let mine = self.ring().owned_by(&self.me);
        for (_, net) in self.allocator.allocations() {
            if let Some(at) = self.allocator.universe().number(net.addr())
                && held.contains(at)
                && mine.contains(at)
            {
                self.doubles.insert(at, from.clone());
            }
        }
        if held.is_empty() {
            self.blocked.remove(from);
        } else {
            self.blocked.insert(from.clone(), held);
        }
        self.unsaved = true;
        self.withhold();
    }
}
