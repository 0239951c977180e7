//! Giving all away before this node leaves.
//!
//! What nobody uses here goes to nodes that can be reached, run by run to the owner beside it, so that
//! claims coalesce. What containers hold stays with this node, since they go on using it. A node that
//! leaves asks for nothing more until it has been out of reach of all others.

use std::time::Duration;

use wire::PeerName;

use super::Agent;
use crate::range::Range;

/// What a node that leaves has given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HandedOver {
    /// Addresses that other nodes own now.
    pub given: u128,
    /// Addresses that this node owns still: in use, held by other nodes' containers, waiting for
    /// confirmation, or with nobody there to take them.
    pub kept: u128,
}

impl Agent {
    /// Gives all space that nobody uses to nodes that can be reached. To be called before this node
    /// leaves them.
    pub fn hand_over(&mut self, now: Duration) -> HandedOver {
        self.leaving = true;
        self.wants = super::Wants::default();
        let mut given = 0;
        if self.is_admitted() {
            let mut idle = self.ring().owned_by(&self.me);
            for (_, net) in self.allocator.allocations() {
                if let Some(at) = self.allocator.universe().number(net.addr()) {
                    idle.remove(Range::single(at));
                }
            }
            idle.remove_all(&self.round.ranges);
            for held in self.blocked.values() {
                idle.remove_all(held);
            }
            let runs: Vec<Range> = idle.iter().collect();
            for run in runs {
                let Some(to) = self.successor(run) else {
                    break;
                };
                let mut ring = self.ring().clone();
                let Ok(gift) = ring.give(run, &self.me, &to) else {
                    continue;
                };
                given += run.size();
                self.set_ring(ring, now);
                self.tell(None, &gift);
            }
        }
        let kept = self.ring().owned_by(&self.me).size();
        HandedOver { given, kept }
    }

    /// Who gets a run of a node that leaves: the owner beside it, or whoever is known to have least.
    fn successor(&self, run: Range) -> Option<PeerName> {
        let ring = self.ring();
        let able = |name: &PeerName| self.is_reachable(name) && ring.roster().is_alive(name);
        let beside = [run.first().checked_sub(1), run.last().checked_add(1)];
        let beside = beside.into_iter().flatten();
        let mut beside = beside.filter_map(|at| ring.owner_of(at));
        if let Some(owner) = beside.find(|owner| able(owner)) {
            return Some(owner.clone());
        }
        let able = self.peers.iter().filter(|(name, _)| able(name));
        able.min_by_key(|(_, peer)| peer.free.unwrap_or(0))
            .map(|(name, _)| name.clone())
    }
}
