//! Who has a name, found without looking at everybody.

use std::collections::BTreeSet;

use wire::{PeerId, PeerName};

use crate::rng::mix;

/// Hashes of names and who has them: 16 bytes per peer. Different names may meet in one hash, so
/// that what is found is looked at again.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<(u64, PeerId)>);

impl Names {
    pub(super) fn insert(&mut self, name: &PeerName, id: PeerId) {
        self.0.insert((hash(name), id));
    }

    pub(super) fn remove(&mut self, name: &PeerName, id: PeerId) {
        self.0.remove(&(hash(name), id));
    }

    pub(super) fn get(&self, name: &PeerName) -> impl Iterator<Item = PeerId> {
        let hash = hash(name);
        let range = (hash, PeerId([0; 8]))..=(hash, PeerId([0xff; 8]));
        self.0.range(range).map(|(_, id)| *id)
    }
}

fn hash(name: &PeerName) -> u64 {
    let bytes = name.as_str().bytes();
    bytes.fold(0, |hash, byte| mix(hash ^ u64::from(byte)))
}
