//! The ring: for every address of the universe, who owns it. A CRDT.
//!
//! # State
//!
//! A ring is a function from addresses to claims, kept as sorted *tokens*: a token's claim holds
//! from its start up to the next token. The first token stands at the universe's first address,
//! so the ring covers the universe exactly once by construction. Neighbouring tokens differ, so
//! that equal rings are equal values and runs of one claim are always coalesced.
//!
//! # Merge
//!
//! Claims are totally ordered (epoch, then version, then owner), undecided below all. Merging
//! takes the greater claim address by address: the join of a product of total orders, hence
//! commutative, associative and idempotent whatever the two rings hold, also after a fault.
//! Nothing is ever deleted, so there are no tombstones: a range that went elsewhere is a range
//! with a greater claim.
//!
//! # Who may write
//!
//! Within an epoch only the owner of a range writes a claim over it (with a higher version): it
//! gives it away or coalesces it. Only a take-over raises the epoch. `edit` keeps that.

mod digest;
mod edit;
mod seed;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use wire::PeerName;

pub use self::digest::Digest;
pub use self::edit::EditError;
pub use self::seed::{SeedError, Seeding};
use crate::range::{Range, Universe};
use crate::range_set::RangeSet;
use crate::roster::{MAX_MEMBERS, Member, Roster};

/// Most tokens that a ring takes in. A cluster of 1,000 nodes whose space is in blocks of 256
/// addresses has 4,096 in a /12; what is beyond 64 Ki comes from a fault or from malice, and would
/// cost memory on every node.
pub(crate) const MAX_TOKENS: usize = 1 << 16;

/// Most seedings that a ring remembers (the lowest ones, so that merging stays associative): one
/// is normal, two mean that rings seeded apart have met.
const MAX_SEEDINGS: usize = 4;

/// Who owns a range since when. The order of fields is the order of claims.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// Raised by each take-over of the range from an owner that is gone.
    pub epoch: u32,
    /// Raised by each change that an owner makes to its range. 1 is the first.
    pub version: u64,
    /// The peer that may allocate from the range.
    pub owner: PeerName,
}

/// Start of a range with one claim on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Token {
    start: u128,
    /// Nothing: nobody has decided yet.
    claim: Option<Claim>,
}

/// A part of a ring: this range has this claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The addresses.
    pub range: Range,
    /// The claim on all of them.
    pub claim: Claim,
}

/// A range that changed its claim in a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassigned {
    /// The addresses.
    pub range: Range,
    /// What this ring said before.
    pub before: Option<Claim>,
    /// What it says now.
    pub after: Claim,
}

/// Some of a ring's claims, as one node sends them to another: all of them, those that an edit
/// changed, or those where two digests differ.
///
/// Segments are sorted, disjoint and inside the universe. A delta is a ring that says nothing
/// about the rest, so that merging it has the same laws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    pub(crate) universe: Universe,
    pub(crate) segments: Vec<Segment>,
    pub(crate) seedings: BTreeSet<Seeding>,
    pub(crate) roster: Roster,
}

impl Delta {
    /// The universe whose ring this is a part of.
    pub fn universe(&self) -> Universe {
        self.universe
    }

    /// The lists in it that the universe was first divided among.
    pub fn seedings(&self) -> &BTreeSet<Seeding> {
        &self.seedings
    }

    /// What it says of nodes.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The claims in it, in the order of addresses.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.seedings.is_empty() && self.roster.is_empty()
    }
}

/// Why a delta was not merged. The ring is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Their ring divides another range.
    #[error(
        "peer divides the range {theirs}, this node {mine}: start all nodes with the same --range"
    )]
    OtherUniverse {
        /// This ring's.
        mine: Universe,
        /// The delta's.
        theirs: Universe,
    },
    /// The merged ring would have more than 65,536 tokens.
    #[error(
        "merged ring would have {tokens} tokens, more than {MAX_TOKENS}: the update is ignored"
    )]
    TooFragmented {
        /// How many there would be.
        tokens: usize,
    },
    /// The merged roster would have more than 16,384 nodes.
    #[error(
        "merged roster would have {members} nodes, more than {MAX_MEMBERS}: the update is ignored"
    )]
    TooManyMembers {
        /// How many there would be.
        members: usize,
    },
}

/// Who owns which part of a universe.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Ring {
    universe: Universe,
    tokens: Vec<Token>,
    /// The lists that the universe was divided among at first.
    seedings: BTreeSet<Seeding>,
    roster: Roster,
}

impl Ring {
    /// A ring in which nothing is decided.
    pub fn undecided(universe: Universe) -> Self {
        let start = universe.range().first();
        Self {
            universe,
            tokens: vec![Token { start, claim: None }],
            seedings: BTreeSet::new(),
            roster: Roster::new(),
        }
    }

    /// The range that it divides.
    pub fn universe(&self) -> Universe {
        self.universe
    }

    /// Whether nobody owns anything.
    pub fn is_undecided(&self) -> bool {
        self.tokens.iter().all(|token| token.claim.is_none())
    }

    /// The lists of peers that the universe was divided among at first. More than one: rings
    /// that were seeded apart have met.
    pub fn seedings(&self) -> &BTreeSet<Seeding> {
        &self.seedings
    }

    /// Who takes part.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Notes a node's life or end; returns whether that is news.
    pub(crate) fn note(&mut self, name: &PeerName, member: Member) -> bool {
        self.roster.note(name, member)
    }

    /// How many tokens it has: its size in memory and on the wire.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// All ranges with their claims, in order; together they are the universe.
    pub fn ranges(&self) -> impl Iterator<Item = (Range, Option<&Claim>)> + '_ {
        let end = self.universe.range().last();
        let lasts = self
            .tokens
            .iter()
            .skip(1)
            .map(|next| next.start - 1)
            .chain([end]);
        self.tokens.iter().zip(lasts).map(|(token, last)| {
            let range = Range::new(token.start, last).expect("tokens are sorted and unique");
            (range, token.claim.as_ref())
        })
    }

    /// The claim on an address of the universe.
    pub fn claim(&self, address: u128) -> Option<&Claim> {
        if !self.universe.range().contains(address) {
            return None;
        }
        let behind = self.tokens.partition_point(|token| token.start <= address);
        self.tokens[behind - 1].claim.as_ref()
    }

    /// Who owns an address.
    pub fn owner_of(&self, address: u128) -> Option<&PeerName> {
        self.claim(address).map(|claim| &claim.owner)
    }

    /// Everything that a peer owns.
    pub fn owned_by(&self, peer: &PeerName) -> RangeSet {
        self.ranges()
            .filter(|(_, claim)| claim.is_some_and(|claim| claim.owner == *peer))
            .map(|(range, _)| range)
            .collect()
    }

    /// Every owner, with the number of addresses that it owns.
    pub fn owners(&self) -> BTreeMap<&PeerName, u128> {
        self.owners_within(self.universe.range())
    }

    /// Every owner in a window, with the number of addresses that it owns there.
    pub(crate) fn owners_within(&self, window: Range) -> BTreeMap<&PeerName, u128> {
        let mut owners = BTreeMap::new();
        for (range, claim) in self.ranges() {
            if let (Some(part), Some(claim)) = (range.overlap(&window), claim) {
                *owners.entry(&claim.owner).or_insert(0) += part.size();
            }
        }
        owners
    }

    /// All that this ring says, for a peer that knows nothing.
    pub fn delta(&self) -> Delta {
        self.delta_within(&[self.universe.range()])
    }

    /// What this ring says about some windows, which are in order.
    pub(crate) fn delta_within(&self, windows: &[Range]) -> Delta {
        let mut segments = Vec::new();
        let mut windows = windows.iter().peekable();
        for (range, claim) in self.ranges() {
            while let Some(window) = windows.peek() {
                if let (Some(range), Some(claim)) = (range.overlap(window), claim) {
                    segments.push(Segment {
                        range,
                        claim: claim.clone(),
                    });
                }
                if window.last() > range.last() {
                    break;
                }
                windows.next();
            }
        }
        Delta {
            universe: self.universe,
            segments,
            seedings: self.seedings.clone(),
            roster: self.roster.clone(),
        }
    }

    /// Takes in what another ring says: address by address the greater claim stays. Returns the
    /// ranges whose claim changed, in order. Costs one walk over both.
    pub fn merge(&mut self, delta: &Delta) -> Result<Vec<Reassigned>, MergeError> {
        if delta.universe != self.universe {
            return Err(MergeError::OtherUniverse {
                mine: self.universe,
                theirs: delta.universe,
            });
        }
        let (tokens, reassigned) = self.overlaid(&delta.segments);
        if tokens.len() > MAX_TOKENS && tokens.len() > self.tokens.len() {
            return Err(MergeError::TooFragmented {
                tokens: tokens.len(),
            });
        }
        let members = self.roster.len_with(&delta.roster);
        if members > MAX_MEMBERS && members > self.roster.len() {
            return Err(MergeError::TooManyMembers { members });
        }
        self.tokens = tokens;
        self.roster.merge(&delta.roster);
        self.seedings.extend(delta.seedings.iter().cloned());
        while self.seedings.len() > MAX_SEEDINGS {
            self.seedings.pop_last();
        }
        Ok(reassigned)
    }

    /// The tokens that follow when `segments` (sorted, disjoint, inside) are laid over this ring.
    fn overlaid(&self, segments: &[Segment]) -> (Vec<Token>, Vec<Reassigned>) {
        let mut tokens = Tokens(Vec::with_capacity(self.tokens.len()));
        let mut reassigned = Vec::new();
        let mut theirs = segments.iter().peekable();
        for (range, mine) in self.ranges() {
            tokens.push(range.first(), mine);
            while let Some(segment) = theirs.peek() {
                let Some(both) = range.overlap(&segment.range) else {
                    break; // it starts behind this range
                };
                if Some(&segment.claim) > mine {
                    tokens.push(both.first(), Some(&segment.claim));
                    if both.last() < range.last() {
                        tokens.push(both.last() + 1, mine);
                    }
                    reassigned.push(Reassigned {
                        range: both,
                        before: mine.cloned(),
                        after: segment.claim.clone(),
                    });
                }
                if segment.range.last() > range.last() {
                    break; // it goes on into the next range
                }
                theirs.next();
            }
        }
        (tokens.0, reassigned)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ring of {}, seeded {:?}", self.universe, self.seedings)?;
        let family = self.universe.family();
        for (range, claim) in self.ranges() {
            match claim {
                Some(Claim {
                    epoch,
                    version,
                    owner,
                }) => {
                    writeln!(
                        f,
                        "  {} {owner} epoch {epoch} version {version}",
                        range.text(family)
                    )?;
                }
                None => writeln!(f, "  {} undecided", range.text(family))?,
            }
        }
        Ok(())
    }
}

/// Tokens under construction, in order: one with the claim of its predecessor is not kept, and
/// one at the same address replaces it.
struct Tokens(Vec<Token>);

impl Tokens {
    fn push(&mut self, start: u128, claim: Option<&Claim>) {
        if self.0.last().is_some_and(|last| last.start == start) {
            self.0.pop();
        }
        if self
            .0
            .last()
            .is_none_or(|last| last.claim.as_ref() != claim)
        {
            self.0.push(Token {
                start,
                claim: claim.cloned(),
            });
        }
    }
}
