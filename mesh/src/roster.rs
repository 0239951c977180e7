//! All nodes that this one knows of: the newest entry of each, and which of them can be reached.
//!
//! Two tables that have heard the same entries are equal, in whatever order those came. Sums over
//! the entries ([`Roster::total`], [`Roster::buckets`]) tell whether they are, so that what was lost
//! on the way is found without listing it.

mod names;
mod table;
mod tree;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use wire::{PeerId, PeerName};

use crate::entry::{Sealed, Stamp, fingerprint};
use crate::peer::{Gone, Peer, Why};
use names::Names;
use table::Table;

/// Parts of the table that are summed up apart.
pub(crate) const BUCKETS: usize = 64;

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It is in the table now.
    New,
    /// The table had it.
    Same,
    /// The table has a newer one.
    Stale,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Roster {
    own: Arc<Sealed>,
    peers: Table,
    names: Names,
    sums: Box<[u64; BUCKETS]>,
    /// Peers that this node has a connection with.
    direct: BTreeSet<PeerId>,
    reachable: usize,
    /// Peers that have become reachable, or have been lost.
    changes: Vec<(PeerId, bool)>,
}

impl Roster {
    pub(crate) fn new(own: Arc<Sealed>) -> Self {
        let mut roster = Self {
            peers: Table::default(),
            names: Names::default(),
            sums: Box::new([0; BUCKETS]),
            direct: BTreeSet::new(),
            reachable: 0,
            changes: Vec::new(),
            own,
        };
        roster.count(roster.own.stamp(), u64::wrapping_add);
        roster
    }

    /// This node's own entry.
    pub(crate) const fn own(&self) -> &Arc<Sealed> {
        &self.own
    }

    pub(crate) fn set_own(&mut self, own: Arc<Sealed>) {
        self.count(self.own.stamp(), u64::wrapping_sub);
        self.count(own.stamp(), u64::wrapping_add);
        self.own = own;
    }

    /// Peers known, those that are gone among them.
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Nodes in this node's part of the network, itself included.
    pub(crate) const fn size(&self) -> usize {
        self.reachable + 1
    }

    pub(crate) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (PeerId, &Peer)> {
        self.peers.range(..)
    }

    /// Peers after this one in a circle, nearest first; itself, if it is a peer, comes last.
    pub(crate) fn after(&self, id: PeerId) -> impl Iterator<Item = (PeerId, &Peer)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let behind = self.peers.range((Excluded(id), Unbounded));
        let around = self.peers.range(..=id);
        behind.chain(around)
    }

    /// Peers before this one in a circle, nearest first.
    pub(crate) fn before(&self, id: PeerId) -> impl Iterator<Item = (PeerId, &Peer)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let behind = self.peers.range(..id).rev();
        let around = self.peers.range((Excluded(id), Unbounded)).rev();
        behind.chain(around)
    }

    /// The entry of any node, this one included.
    pub(crate) fn entry(&self, id: PeerId) -> Option<&Arc<Sealed>> {
        if id == self.own.id {
            return Some(&self.own);
        }
        self.peers.get(id).map(|peer| &peer.entry)
    }

    /// Peers that are not gone and have this name.
    pub(crate) fn namesakes(&self, name: &PeerName) -> Vec<PeerId> {
        let living = |id: &PeerId| {
            self.peers
                .get(*id)
                .is_some_and(|peer| peer.gone.is_none() && peer.entry.name == *name)
        };
        self.names.get(name).filter(living).collect()
    }

    /// What would become of an entry.
    pub(crate) fn judge(&self, stamp: Stamp) -> Applied {
        match self.entry(stamp.id).map(|known| known.stamp()) {
            Some(known) if known == stamp => Applied::Same,
            Some(known) if !stamp.replaces(&known) => Applied::Stale,
            _ => Applied::New,
        }
    }

    /// Takes the entry of a peer, which was out of reach for `idle` as others know.
    pub(crate) fn apply(&mut self, entry: Arc<Sealed>, idle: Duration, now: Duration) -> Applied {
        let stamp = entry.stamp();
        let judged = self.judge(stamp);
        if judged != Applied::New {
            return judged;
        }
        let (why, at) = (Why::Left, now);
        let gone = entry.left.then(|| Box::new(Gone { why, at }));
        let known = self.peers.get(stamp.id);
        let before = known.filter(|peer| peer.gone.is_none());
        let before = before.map(|peer| Arc::clone(&peer.entry));
        let name = known.map(|peer| peer.entry.name.clone());
        if let Some(before) = &before {
            self.count(before.stamp(), u64::wrapping_sub);
        }
        if gone.is_none() {
            self.count(stamp, u64::wrapping_add);
        }
        if name.as_ref() != Some(&entry.name) {
            if let Some(name) = name {
                self.names.remove(&name, stamp.id);
            }
            self.names.insert(&entry.name, stamp.id);
        }
        match self.peers.get_mut(stamp.id) {
            Some(peer) => (peer.entry, peer.gone) = (entry, gone),
            None => {
                let peer = Peer::new(entry, idle, now);
                self.peers.insert(stamp.id, Peer { gone, ..peer });
            }
        }
        let before = before.as_ref().map_or(&[][..], |before| &before.neighbours);
        self.edges_changed(stamp.id, before, now);
        Applied::New
    }

    /// A peer is gone, whatever its entry says; a newer entry brings it back.
    pub(crate) fn bury(&mut self, id: PeerId, why: Why, now: Duration) {
        let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.gone.is_none()) else {
            return;
        };
        peer.gone = Some(Box::new(Gone { why, at: now }));
        let (stamp, before) = (peer.entry.stamp(), peer.entry.neighbours.clone());
        self.count(stamp, u64::wrapping_sub);
        self.edges_changed(id, &before, now);
    }

    /// Forgets a peer that is gone.
    pub(crate) fn remove(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.remove(id) {
            self.names.remove(&peer.entry.name, id);
        }
    }

    /// Peers that have become reachable (true) or were lost (false) since this was last asked.
    pub(crate) fn take_changes(&mut self) -> Vec<(PeerId, bool)> {
        std::mem::take(&mut self.changes)
    }

    /// The sum over the whole table.
    pub(crate) fn total(&self) -> u64 {
        self.sums
            .iter()
            .fold(0, |sum, part| sum.wrapping_add(*part))
    }

    /// The sums of its parts.
    pub(crate) const fn buckets(&self) -> &[u64; BUCKETS] {
        &self.sums
    }

    /// Identities and versions in these parts of the table, a bit for each, with those that are
    /// gone: who does not know yet is to be told.
    pub(crate) fn versions(&self, buckets: u64) -> Vec<(PeerId, u64)> {
        let peers = self.peers.range(..).map(|(_, peer)| &peer.entry);
        let all = std::iter::once(&self.own).chain(peers);
        all.filter(|entry| buckets & (1 << bucket(entry.id)) != 0)
            .map(|entry| (entry.id, entry.version))
            .collect()
    }

    fn count(&mut self, stamp: Stamp, operation: fn(u64, u64) -> u64) {
        let sum = &mut self.sums[bucket(stamp.id)];
        *sum = operation(*sum, fingerprint(stamp.id, stamp.version));
    }
}

/// The part of the table that an identity belongs to: its first six bits.
pub(crate) fn bucket(id: PeerId) -> usize {
    usize::from(id.0[0] >> 2)
}

#[cfg(test)]
mod tests;
