//! The shortest way to a peer through others.

use std::collections::{BTreeMap, BTreeSet};

use wire::PeerId;

use super::Reach;

/// Relays that a way may have, so that the hop limit of sleeve is never what ends it.
const MAX_RELAYS: u8 = 8;

/// The first relay on the way to a peer, and the links that the way crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The relay.
    pub via: PeerId,
    /// Links, at least 2.
    pub hops: u8,
}

impl Route {
    /// The way through one of these relays, each of which is reached directly and reaches the peer.
    /// It is the one that [`Graph::route`] chooses, without a look at all nodes' neighbours.
    pub fn through_one(
        me: PeerId,
        to: PeerId,
        relays: impl IntoIterator<Item = PeerId>,
    ) -> Option<Self> {
        let via = relays
            .into_iter()
            .min_by_key(|relay| (rank(me, to, *relay), *relay))?;
        Some(Self { via, hops: 2 })
    }
}

/// What is known of who reaches whom.
#[derive(Debug, Clone)]
pub struct Graph<'a> {
    /// This node.
    pub me: PeerId,
    /// Peers that this node's own probes reach over sleeve.
    pub direct: &'a BTreeSet<PeerId>,
    /// What each peer says that it reaches.
    pub reach: &'a BTreeMap<PeerId, &'a Reach>,
}

impl Graph<'_> {
    /// Whether two other nodes say of each other that they reach one another.
    pub fn is_edge(&self, a: PeerId, b: PeerId) -> bool {
        let says = |from: PeerId, to| {
            self.reach
                .get(&from)
                .is_some_and(|reach| reach.contains(to))
        };
        says(a, b) && says(b, a)
    }

    /// The shortest way to a peer through others, but through none of `shunned` first.
    ///
    /// Of several first relays the choice is by a hash of the pair and the relay. Both ends choose
    /// alike where one relay is enough, and pairs spread over relays.
    pub fn route(&self, to: PeerId, shunned: &[PeerId]) -> Option<Route> {
        let mut unvisited: BTreeSet<PeerId> = self.reach.keys().copied().collect();
        unvisited.remove(&to);
        unvisited.remove(&self.me);
        let mut frontier = vec![to];
        for relays in 1..=MAX_RELAYS {
            let mut next = Vec::new();
            for node in frontier {
                let found = self.neighbours(node, &unvisited);
                for peer in &found {
                    unvisited.remove(peer);
                }
                next.extend(found);
            }
            let first = next
                .iter()
                .filter(|peer| self.direct.contains(peer) && !shunned.contains(peer))
                .min_by_key(|peer| (rank(self.me, to, **peer), **peer));
            if let Some(via) = first {
                return Some(Route {
                    via: *via,
                    hops: relays + 1,
                });
            }
            frontier = next;
        }
        None
    }

    /// Neighbours of a node among some.
    fn neighbours(&self, node: PeerId, among: &BTreeSet<PeerId>) -> Vec<PeerId> {
        let back = |peer: &PeerId| {
            let reach = self.reach.get(peer);
            reach.is_some_and(|reach| reach.contains(node))
        };
        match self.reach.get(&node) {
            None => Vec::new(),
            Some(Reach::Only(list)) => {
                let known = list.iter().filter(|peer| among.contains(peer));
                known.filter(|peer| back(peer)).copied().collect()
            }
            Some(reach) => {
                let reached = among.iter().filter(|peer| reach.contains(**peer));
                reached.filter(|peer| back(peer)).copied().collect()
            }
        }
    }
}

/// A number that is the same seen from both ends.
fn rank(a: PeerId, b: PeerId, via: PeerId) -> u64 {
    let number = |peer: PeerId| u64::from_be_bytes(peer.0);
    let (low, high) = (number(a.min(b)), number(a.max(b)));
    [low, high, number(via)]
        .into_iter()
        .fold(0, |hash, part| mix(hash ^ part))
}

/// SplitMix64's finaliser.
const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
