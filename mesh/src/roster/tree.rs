//! Which peers can be reached over control connections, and over which of them.
//!
//! Two nodes are joined if each lists the other; this node is joined to those that it has a
//! connection with, whatever they list. A tree that begins at this node spans all that can be
//! reached: each has a parent, one step nearer. A change mends the tree where it is broken and
//! touches nothing else, so that it costs the same in a large network as in a small one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use wire::PeerId;

use super::Roster;

/// Which peers were touched by a change, and whether they could be reached before it.
type Touched = BTreeMap<PeerId, bool>;

impl Roster {
    /// A connection with this peer is in use.
    pub(crate) fn connect(&mut self, id: PeerId, now: Duration) {
        let mut touched = Touched::new();
        if self.direct.insert(id) {
            self.join(self.own.id, id, &mut touched);
        }
        self.conclude(touched, now);
    }

    /// There is none with it any more.
    pub(crate) fn disconnect(&mut self, id: PeerId, now: Duration) {
        let mut touched = Touched::new();
        if self.direct.remove(&id) && self.parent(id) == Some(self.own.id) {
            self.set_parent(id, None, &mut touched);
            self.mend(VecDeque::from([id]), &mut touched);
        }
        self.conclude(touched, now);
    }

    /// The peer that messages for this one are handed to.
    pub(crate) fn next_hop(&self, id: PeerId) -> Option<PeerId> {
        self.path(id).last()
    }

    /// Connections on the way to this peer; None if there is no way.
    pub(crate) fn hops(&self, id: PeerId) -> Option<usize> {
        if id == self.own.id {
            return Some(0);
        }
        let path = self.path(id);
        // A broken path has an end that is not joined to this node.
        let (count, last) = path.fold((0, None), |(count, _), step| (count + 1, Some(step)));
        (self.parent(last?)? == self.own.id).then_some(count)
    }

    /// Whether this peer could be reached without the connection that there is with it.
    pub(crate) fn is_spare(&self, id: PeerId) -> bool {
        let mut seen = BTreeSet::from([id, self.own.id]);
        let mut queue = VecDeque::from([id]);
        while let Some(at) = queue.pop_front() {
            for next in self.listed(at) {
                if seen.contains(&next) || !self.are_joined(at, next) {
                    continue;
                }
                seen.insert(next);
                if self.hops(next).is_some() && self.next_hop(next) != Some(id) {
                    return true;
                }
                queue.push_back(next);
            }
        }
        false
    }

    /// A peer's entry has changed, or the peer is gone: `before` are the neighbours that it listed.
    /// What it lists now as before changes nothing.
    pub(super) fn edges_changed(&mut self, id: PeerId, before: &[PeerId], now: Duration) {
        let mut touched = Touched::new();
        let (me, parent) = (self.own.id, self.parent(id));
        let living = self.peers.get(id).filter(|peer| peer.gone.is_none());
        let entry = living.map(|peer| Arc::clone(&peer.entry));
        let now_listed = entry.as_ref().map_or(&[][..], |entry| &entry.neighbours);
        let mut cut = VecDeque::new();
        for other in only_in(before, now_listed) {
            if self.parent(other) == Some(id) {
                self.set_parent(other, None, &mut touched);
                cut.push_back(other);
            }
        }
        if parent.is_some_and(|parent| !self.are_joined(parent, id)) {
            self.set_parent(id, None, &mut touched);
            cut.push_back(id);
        }
        self.mend(cut, &mut touched);
        for other in only_in(now_listed, before).chain([me]) {
            self.join(other, id, &mut touched);
        }
        self.conclude(touched, now);
    }

    /// Two nodes are joined that were not.
    fn join(&mut self, a: PeerId, b: PeerId, touched: &mut Touched) {
        let (near, far, reached) = match (self.hops(a), self.hops(b)) {
            (Some(one), Some(two)) if one + 1 < two => (a, b, true),
            (Some(two), Some(one)) if one + 1 < two => (b, a, true),
            (Some(_), None) => (a, b, false),
            (None, Some(_)) => (b, a, false),
            (Some(_), Some(_)) | (None, None) => return,
        };
        // Last, for it costs most, and is seldom what decides.
        if !self.are_joined(near, far) {
            return;
        }
        if reached {
            self.set_parent(far, Some(near), touched);
        } else {
            self.attach(far, near, touched);
        }
    }

    /// Finds other parents for those that have lost theirs, and for those behind them.
    fn mend(&mut self, mut cut: VecDeque<PeerId>, touched: &mut Touched) {
        while let Some(id) = cut.pop_front() {
            if self.parent(id).is_some() {
                continue;
            }
            let mut near: Vec<(usize, PeerId)> = self
                .listed(id)
                .filter_map(|other| Some((self.hops(other)?, other)))
                .collect();
            near.sort_unstable();
            if let Some((_, parent)) = near
                .into_iter()
                .find(|(_, other)| self.are_joined(id, *other))
            {
                self.attach(id, parent, touched);
                continue;
            }
            let behind: Vec<PeerId> = self
                .listed(id)
                .filter(|other| self.parent(*other) == Some(id) && self.are_joined(id, *other))
                .collect();
            for other in behind {
                self.set_parent(other, None, touched);
                cut.push_back(other);
            }
        }
    }

    /// Gives a peer a parent, and itself as the parent of those around it that have none.
    fn attach(&mut self, id: PeerId, parent: PeerId, touched: &mut Touched) {
        self.set_parent(id, Some(parent), touched);
        let mut queue = VecDeque::from([id]);
        while let Some(at) = queue.pop_front() {
            let waiting: Vec<PeerId> = self
                .listed(at)
                .filter(|other| *other != self.own.id && self.parent(*other).is_none())
                .filter(|other| self.are_joined(at, *other))
                .collect();
            for other in waiting {
                self.set_parent(other, Some(at), touched);
                queue.push_back(other);
            }
        }
    }

    /// Notes which peers have become reachable and which were lost.
    fn conclude(&mut self, touched: Touched, now: Duration) {
        for (id, before) in touched {
            let Some(peer) = self.peers.get_mut(id) else {
                continue;
            };
            let after = peer.parent.is_some();
            match (before, after) {
                (false, true) => {
                    self.reachable += 1;
                    peer.found();
                }
                (true, false) => {
                    self.reachable -= 1;
                    peer.lose(now);
                }
                (true, true) | (false, false) => continue,
            }
            self.changes.push((id, after));
        }
    }

    fn parent(&self, id: PeerId) -> Option<PeerId> {
        self.peers.get(id)?.parent
    }

    fn set_parent(&mut self, id: PeerId, parent: Option<PeerId>, touched: &mut Touched) {
        if let Some(peer) = self.peers.get_mut(id) {
            touched.entry(id).or_insert(peer.parent.is_some());
            peer.parent = parent;
        }
    }

    /// A peer and those before it on the way from this node, this node not among them.
    fn path(&self, id: PeerId) -> impl Iterator<Item = PeerId> {
        let me = self.own.id;
        let first = self.parent(id).map(|_| id);
        std::iter::successors(first, move |at| {
            self.parent(*at).filter(|parent| *parent != me)
        })
    }

    /// Those that a node may be joined to: all that it lists, and this node. Whether it is joined to
    /// them costs a look at each of them, so that callers ask it last.
    fn listed(&self, id: PeerId) -> impl Iterator<Item = PeerId> {
        let me = self.own.id;
        let (listed, direct) = if id == me {
            (None, Some(&self.direct))
        } else {
            (self.peers.get(id), None)
        };
        let listed = listed.into_iter().flat_map(|peer| &peer.entry.neighbours);
        let listed = listed.copied().filter(move |other| *other != me);
        let mine = (id != me).then_some(me);
        listed
            .chain(direct.into_iter().flatten().copied())
            .chain(mine)
    }

    fn are_joined(&self, a: PeerId, b: PeerId) -> bool {
        let living = |id| self.peers.get(id).filter(|peer| peer.gone.is_none());
        let me = self.own.id;
        if a == me || b == me {
            let other = if a == me { b } else { a };
            return a != b && self.direct.contains(&other) && living(other).is_some();
        }
        match (living(a), living(b)) {
            (Some(one), Some(two)) => one.entry.lists(b) && two.entry.lists(a),
            _ => false,
        }
    }
}

/// What is in the first list and not in the second. Both are in ascending order.
fn only_in<'a>(these: &'a [PeerId], others: &'a [PeerId]) -> impl Iterator<Item = PeerId> + 'a {
    let mut others = others.iter().peekable();
    these.iter().copied().filter(move |id| {
        while others.next_if(|other| *other < id).is_some() {}
        others.peek() != Some(&id)
    })
}
