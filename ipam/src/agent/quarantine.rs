//! Addresses that a container holds here while another node owns them.
//!
//! That happens when space was taken over from a node whose containers live, or when rings that
//! were seeded apart have met. The container keeps its address and its traffic. Its node tells the
//! owner, which does not hand the address out until it is told that it is free; if it has handed
//! it out already, both nodes name their container to the operator.

use wire::PeerName;

use super::Agent;
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

    /// Tells a peer, or all because owners change, what is held of other nodes' space. Nothing is
    /// said of nothing, unless something was said before.
    pub(super) fn tell_held(&mut self, to: Option<&PeerName>) {
        let held = self.held();
        if held.is_empty() && self.told_held.as_ref().is_some_and(RangeSet::is_empty) {
            return;
        }
        if to.is_none() {
            self.told_held = Some(held.clone());
        }
        self.send(to, &Message::Held { held });
    }

    /// Tells it if it is another than before.
    pub(super) fn held_changed(&mut self) {
        let held = self.held();
        let told = self.told_held.as_ref();
        if told.map_or(!held.is_empty(), |told| *told != held) {
            self.tell_held(None);
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
