//! The rows of the table.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeBounds;

use foldhash::fast::RandomState;
use wire::PeerId;

use crate::peer::Peer;

/// Peers by identity. One is looked up at each step along the tree, so that this is a hash; the order
/// is needed where a few neighbours in the circle are looked for, or all peers are gone through.
#[derive(Debug, Default)]
pub(super) struct Table {
    peers: HashMap<PeerId, Peer, RandomState>,
    order: BTreeSet<PeerId>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(&id)
    }

    pub(super) fn insert(&mut self, id: PeerId, peer: Peer) {
        self.order.insert(id);
        self.peers.insert(id, peer);
    }

    pub(super) fn remove(&mut self, id: PeerId) -> Option<Peer> {
        self.order.remove(&id);
        self.peers.remove(&id)
    }

    /// Those in a range of identities, in ascending order.
    pub(super) fn range(
        &self,
        range: impl RangeBounds<PeerId>,
    ) -> impl DoubleEndedIterator<Item = (PeerId, &Peer)> {
        let row = |id: &PeerId| Some((*id, self.peers.get(id)?));
        self.order.range(range).filter_map(row)
    }
}
