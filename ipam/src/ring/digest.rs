//! What two nodes compare to find out where their rings differ: a hash for each 64th of the
//! universe and for each 16th of the roster, 0.7 KB for a ring of any size, and then only the claims in those parts.

use wire::PeerName;

use super::{Delta, MergeError, Ring};
use crate::range::{Range, Universe};

/// Parts that a universe is cut into. More find differences more finely and cost 8 bytes each.
const PARTS: u128 = 64;

/// Parts of the roster, by a hash of the name: one node's new life costs a 16th of the roster.
const ROSTER_PARTS: usize = 16;

/// Hashes of the parts of a ring. Rings with equal digests are equal, but for a chance of 2^-64
/// for each part; that would only delay a repair until the next change there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    pub(crate) universe: Universe,
    pub(crate) seedings: u64,
    pub(crate) roster: Vec<u64>,
    pub(crate) parts: Vec<u64>,
}

impl Ring {
    /// This ring's digest.
    pub fn digest(&self) -> Digest {
        let windows = windows(self.universe);
        let mut hashes = vec![Hash::new(); windows.len()];
        let mut at = 0;
        for (range, claim) in self.ranges() {
            while let Some(window) = windows.get(at) {
                if let (Some(part), Some(claim)) = (range.overlap(window), claim) {
                    hashes[at]
                        .add(&part.first().to_be_bytes())
                        .add(&part.last().to_be_bytes())
                        .add(&claim.epoch.to_be_bytes())
                        .add(&claim.version.to_be_bytes())
                        .add_text(claim.owner.as_str());
                }
                if window.last() > range.last() {
                    break;
                }
                at += 1;
            }
        }
        let mut seedings = Hash::new();
        for seeding in &self.seedings {
            seedings.add_text(&seeding.to_string());
        }
        let mut roster = vec![Hash::new(); ROSTER_PARTS];
        for (name, member) in self.roster.iter() {
            roster[part_of(name)]
                .add_text(name.as_str())
                .add(&member.life.to_be_bytes())
                .add(&member.gone.to_be_bytes());
        }
        Digest {
            universe: self.universe,
            seedings: seedings.0,
            roster: roster.into_iter().map(|hash| hash.0).collect(),
            parts: hashes.into_iter().map(|hash| hash.0).collect(),
        }
    }

    /// What this ring says in the parts where `theirs` differs from it: the answer to a digest.
    /// Empty if they are equal.
    pub fn answer(&self, theirs: &Digest) -> Result<Delta, MergeError> {
        if theirs.universe != self.universe {
            return Err(MergeError::OtherUniverse {
                mine: self.universe,
                theirs: theirs.universe,
            });
        }
        let mine = self.digest();
        let differing: Vec<Range> = windows(self.universe)
            .into_iter()
            .zip(mine.parts)
            .enumerate()
            .filter(|(i, (_, hash))| theirs.parts.get(*i) != Some(hash))
            .map(|(_, (window, _))| window)
            .collect();
        let mut delta = self.delta_within(&differing);
        if mine.seedings == theirs.seedings {
            delta.seedings.clear();
        }
        let differs = |part: usize| theirs.roster.get(part) != mine.roster.get(part);
        delta.roster.retain(|name| differs(part_of(name)));
        Ok(delta)
    }
}

/// The part of the roster in which a node is.
fn part_of(name: &PeerName) -> usize {
    let hash = Hash::new().add_text(name.as_str()).0 % ROSTER_PARTS as u64;
    usize::try_from(hash).expect("below 16")
}

/// The parts, in order: 64, or one for each address of a smaller universe.
fn windows(universe: Universe) -> Vec<Range> {
    let whole = universe.range();
    // A universe is a network, so its size is a power of two, and so is PARTS.
    let parts = whole.size().min(PARTS);
    let width = whole.size() / parts;
    (0..parts)
        .map(|i| {
            let first = whole.first() + i * width;
            Range::new(first, first + (width - 1)).expect("a part has at least one address")
        })
        .collect()
}

/// FNV-1a, 64 bits: the same on every machine and in every release, which the standard library's
/// hashers do not promise. (Fowler, Noll, Vo; draft-eastlake-fnv §2.)
#[derive(Clone)]
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) -> &mut Self {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self
    }

    /// Text with an end mark, so that "ab","c" and "a","bc" differ.
    fn add_text(&mut self, text: &str) -> &mut Self {
        self.add(text.as_bytes()).add(&[0xff])
    }
}
