//! Whom a node keeps a control connection with.
//!
//! While there are few nodes, everybody. From then on two neighbours on each side in the circle of
//! identities, which holds the network together, and some others that a hash of both identities
//! chooses, which makes it a random graph: its diameter and the number of connections of a node grow
//! with the logarithm of the number of nodes.
//!
//! Identities are hashes of keys, so their order is random, and a node that comes or goes concerns
//! those few alone that choose it.

use std::collections::BTreeSet;

use wire::PeerId;

use crate::rng::mix;
use crate::roster::Roster;

/// Nodes up to which everybody is connected with everybody.
pub const FULL_MESH: usize = 8;
/// Neighbours on each side of the circle.
const SIDE: usize = 2;
/// Nearest peers that are kept in mind: several times as many as are connected with, so that those
/// that cannot be dialled have others in their place.
const KEPT: usize = 48;
/// As few of them are left, they are looked for again.
const FEW: usize = 24;

/// The reachable peers whose hash with this node is smallest.
#[derive(Debug, Default)]
pub(crate) struct Nearest {
    kept: BTreeSet<(u64, PeerId)>,
    /// All reachable peers are among them.
    complete: bool,
}

impl Nearest {
    /// A peer has become reachable.
    pub(crate) fn insert(&mut self, me: PeerId, id: PeerId) {
        let rank = rank(me, id);
        // One behind the last kept belongs to them only if nobody was left out before.
        if self.complete || self.kept.last().is_some_and(|last| (rank, id) < *last) {
            self.kept.insert((rank, id));
        }
        while self.kept.len() > KEPT {
            self.kept.pop_last();
            self.complete = false;
        }
    }

    /// A peer was lost.
    pub(crate) fn remove(&mut self, me: PeerId, id: PeerId) {
        self.kept.remove(&(rank(me, id), id));
    }

    fn refresh(&mut self, roster: &Roster) {
        let me = roster.own().id;
        if self.complete || self.kept.len() >= FEW {
            return;
        }
        *self = Self::new();
        for (id, _) in roster.iter().filter(|(_, peer)| peer.is_reachable()) {
            self.insert(me, id);
        }
    }

    /// None yet of a network of one.
    pub(crate) const fn new() -> Self {
        Self {
            kept: BTreeSet::new(),
            complete: true,
        }
    }

    /// The peers to be connected with. Those that `avoid` says have failed are passed over for
    /// others.
    pub(crate) fn choose(
        &mut self,
        roster: &Roster,
        avoid: impl Fn(PeerId) -> bool,
    ) -> BTreeSet<PeerId> {
        let me = roster.own().id;
        let reachable =
            |(id, peer): (PeerId, &crate::peer::Peer)| peer.is_reachable().then_some(id);
        if roster.size() <= FULL_MESH {
            return roster.iter().filter_map(reachable).collect();
        }
        self.refresh(roster);
        let good = |id: &PeerId| !avoid(*id);
        let after = roster.after(me).filter_map(reachable).filter(good);
        let before = roster.before(me).filter_map(reachable).filter(good);
        let mut chosen: BTreeSet<PeerId> = after.take(SIDE).chain(before.take(SIDE)).collect();
        let wanted = chosen.len() + random(roster.size());
        for (_, id) in &self.kept {
            if chosen.len() >= wanted {
                break;
            }
            if good(id) {
                chosen.insert(*id);
            }
        }
        chosen
    }
}

/// How many a node chooses at random in a network of this size: half the logarithm, since as many
/// choose it, and one less, since four are in the circle.
fn random(size: usize) -> usize {
    let log2 = usize::BITS - size.saturating_sub(1).leading_zeros();
    (log2.div_ceil(2) as usize).saturating_sub(1).max(1)
}

fn rank(me: PeerId, id: PeerId) -> u64 {
    let [me, id] = [me, id].map(|id| u64::from_be_bytes(id.0));
    mix(me ^ mix(id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::entry::Sealed;
    use crate::entry::tests::entry;

    fn id(number: u64) -> PeerId {
        PeerId(mix(number).to_be_bytes())
    }

    /// Everybody reachable, through the first one.
    fn network(me: u64, count: u64) -> (Roster, Nearest) {
        let sealed = |number: u64, neighbours: Vec<PeerId>| {
            let mut entry = entry(1);
            entry.id = id(number);
            entry.name = format!("n{number}").parse().unwrap();
            entry.neighbours = neighbours;
            entry.neighbours.sort_unstable();
            Sealed::new(entry)
        };
        let mut roster = Roster::new(sealed(me, Vec::new()));
        let mut nearest = Nearest::new();
        let others: Vec<u64> = (0..count).filter(|number| *number != me).collect();
        for number in &others {
            // A path through all of them.
            let beside = [
                number.wrapping_sub(1),
                number + 1,
                number.wrapping_sub(2),
                number + 2,
            ];
            let list = beside.into_iter().filter(|n| *n < count).map(id);
            roster.apply(
                sealed(*number, list.collect()),
                Duration::ZERO,
                Duration::ZERO,
            );
        }
        roster.connect(id(others[0]), Duration::ZERO);
        for (id, reachable) in roster.take_changes() {
            assert!(reachable);
            nearest.insert(roster.own().id, id);
        }
        assert_eq!(roster.size() as u64, count);
        (roster, nearest)
    }

    #[test]
    fn few_nodes_are_all_connected() {
        for count in 2..=FULL_MESH as u64 {
            let (roster, mut nearest) = network(0, count);
            assert_eq!(nearest.choose(&roster, |_| true).len() as u64, count - 1);
        }
    }

    /// Connections per node and their greatest number grow as the logarithm; all hang together.
    #[test]
    fn many_nodes_have_few_connections_and_one_network() {
        for (count, most) in [(20_u64, 13), (100, 19), (500, 24)] {
            let mut edges: BTreeMap<PeerId, BTreeSet<PeerId>> = BTreeMap::new();
            for me in 0..count {
                let (roster, mut nearest) = network(me, count);
                for other in nearest.choose(&roster, |_| false) {
                    edges.entry(id(me)).or_default().insert(other);
                    edges.entry(other).or_default().insert(id(me));
                }
            }
            let degrees = edges.values().map(BTreeSet::len);
            let log2 = (count as f64).log2();
            let mean = degrees.clone().sum::<usize>() as f64 / count as f64;
            assert!(mean <= log2 + 4.0, "{count} nodes: {mean} connections");
            assert!(degrees.max().unwrap() <= most, "{count} nodes");
            let mut found = BTreeSet::from([id(0)]);
            let mut queue = vec![id(0)];
            while let Some(at) = queue.pop() {
                queue.extend(edges[&at].iter().filter(|other| found.insert(**other)));
            }
            assert_eq!(found.len() as u64, count);
        }
    }

    #[test]
    fn those_that_fail_have_others_in_their_place() {
        let (roster, mut nearest) = network(0, 200);
        let first = nearest.choose(&roster, |_| false);
        let second = nearest.choose(&roster, |id| first.contains(&id));
        assert_eq!(first.len(), second.len());
        assert!(first.is_disjoint(&second));
    }

    /// A node that comes or goes changes the choice of few.
    #[test]
    fn a_lost_peer_is_replaced_by_one_other() {
        let (mut roster, mut nearest) = network(0, 300);
        let before = nearest.choose(&roster, |_| false);
        let lost = *before.first().unwrap();
        roster.bury(lost, crate::peer::Why::Left, Duration::ZERO);
        for (id, reachable) in roster.take_changes() {
            assert!(!reachable);
            nearest.remove(roster.own().id, id);
        }
        let after = nearest.choose(&roster, |_| false);
        assert!(before.difference(&after).eq([&lost]));
        assert_eq!(after.difference(&before).count(), 1);
    }
}
