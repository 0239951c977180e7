//! The first division of a universe, which needs no message: every node that is given the same
//! list of seeds works out the same ring.

use std::fmt;

use wire::PeerName;

use super::{Claim, Ring, Segment};
use crate::range::{Range, Universe};
use crate::roster::{Member, NAMED};

/// The peers that a universe is divided among at first: sorted, each once, at least one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seeding(Vec<PeerName>);

impl Seeding {
    /// Sorts the names and drops repetitions, so that every way to write a list means the same.
    pub fn new(peers: impl IntoIterator<Item = PeerName>) -> Result<Self, SeedError> {
        let mut peers: Vec<PeerName> = peers.into_iter().collect();
        peers.sort();
        peers.dedup();
        if peers.is_empty() {
            Err(SeedError::Empty)
        } else {
            Ok(Self(peers))
        }
    }

    /// The names, sorted.
    pub fn peers(&self) -> &[PeerName] {
        &self.0
    }
}

impl fmt::Display for Seeding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, peer) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{peer}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Seeding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a universe cannot be divided among a list of seeds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// No name in the list.
    #[error("list of seeds is empty: name the first nodes, as in --ipam-init seed=node1,node2")]
    Empty,
    /// Some seed would own nothing.
    #[error(
        "range {universe} has {size} addresses, too few for {seeds} seeds: use a larger --range or fewer seeds"
    )]
    TooMany {
        /// The range.
        universe: Universe,
        /// Its addresses.
        size: u128,
        /// How many seeds there are.
        seeds: usize,
    },
}

impl Ring {
    /// Divides a universe among seeds: the list is halved as the block is halved, so that every
    /// seed gets one CIDR block. With 2^n seeds all blocks are equal; otherwise the blocks of some
    /// are twice as large as those of the others.
    pub fn seeded(universe: Universe, seeding: &Seeding) -> Result<Self, SeedError> {
        let mut segments = Vec::with_capacity(seeding.0.len());
        if !divide(universe.range(), &seeding.0, &mut segments) {
            return Err(SeedError::TooMany {
                universe,
                size: universe.range().size(),
                seeds: seeding.0.len(),
            });
        }
        let mut ring = Self::undecided(universe);
        (ring.tokens, _) = ring.overlaid(&segments);
        ring.seedings.insert(seeding.clone());
        for peer in seeding.peers() {
            let named = Member {
                life: NAMED,
                gone: 0,
            };
            ring.roster.note(peer, named);
        }
        Ok(ring)
    }
}

/// False if a peer would be left without an address.
fn divide(block: Range, peers: &[PeerName], segments: &mut Vec<Segment>) -> bool {
    if let [owner] = peers {
        let claim = Claim {
            epoch: 0,
            version: 1,
            owner: owner.clone(),
        };
        segments.push(Segment {
            range: block,
            claim,
        });
        return true;
    }
    let Some((lower, upper)) = block.halves() else {
        return false;
    };
    let (first, second) = peers.split_at(peers.len() / 2);
    divide(lower, first, segments) && divide(upper, second, segments)
}
