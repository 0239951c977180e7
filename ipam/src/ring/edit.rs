//! Changes that a node makes to a ring. Each returns the delta to tell others, and is itself
//! that delta merged: the claims written are greater than those they replace.

use std::collections::BTreeSet;

use wire::PeerName;

use super::{Claim, Delta, Ring, Segment};
use crate::range::Range;
use crate::roster::Roster;

/// Why an edit was refused. The ring is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A part of the range is not the editor's to give.
    #[error("range {range} is not wholly owned by {by}: only an owner gives space away")]
    NotOwner {
        /// The range, as text.
        range: String,
        /// Who wanted to give it.
        by: PeerName,
    },
    /// Versions or epochs have run out, or the ring is too fragmented.
    #[error(
        "ring takes no further change to {range}: its claim or its number of tokens is at the limit"
    )]
    Exhausted {
        /// The range, as text.
        range: String,
    },
}

impl Ring {
    /// `from` gives a range that it owns to `to`. To be called on the node `from` alone.
    pub fn give(
        &mut self,
        range: Range,
        from: &PeerName,
        to: &PeerName,
    ) -> Result<Delta, EditError> {
        let text = range.text(self.universe.family());
        let mut segments = Vec::new();
        for (owned, claim) in self.ranges() {
            let Some(part) = owned.overlap(&range) else {
                continue;
            };
            match claim {
                Some(claim) if claim.owner == *from => segments.push(Segment {
                    range: part,
                    claim: raised(claim, to).ok_or_else(|| EditError::Exhausted {
                        range: text.clone(),
                    })?,
                }),
                _ => {
                    return Err(EditError::NotOwner {
                        range: text,
                        by: from.clone(),
                    });
                }
            }
        }
        let covered: u128 = segments.iter().map(|segment| segment.range.size()).sum();
        if covered != range.size() {
            return Err(EditError::NotOwner {
                range: text,
                by: from.clone(),
            });
        }
        self.apply(segments)
    }

    /// Makes one claim of each run of neighbouring ranges that `me` owns in one epoch, so that
    /// space given away and back does not leave a mosaic. To be called on the node `me` alone.
    ///
    /// Epochs stay as they are: one raised here could outbid a take-over that is under way.
    pub fn coalesce(&mut self, me: &PeerName) -> Result<Delta, EditError> {
        let mut runs: Vec<(Segment, usize)> = Vec::new();
        for (range, claim) in self.ranges() {
            // One raised version would confirm what was never confirmed.
            let mine = |claim: &&Claim| claim.owner == *me && !claim.is_unconfirmed();
            let Some(claim) = claim.filter(mine) else {
                continue;
            };
            match runs.last_mut() {
                Some((run, parts))
                    if run.range.last() + 1 == range.first() && run.claim.epoch == claim.epoch =>
                {
                    run.range = Range::new(run.range.first(), range.last()).expect("in order");
                    run.claim.version = run.claim.version.max(claim.version);
                    *parts += 1;
                }
                _ => runs.push((
                    Segment {
                        range,
                        claim: claim.clone(),
                    },
                    1,
                )),
            }
        }
        let mut segments = Vec::new();
        for (run, _) in runs.into_iter().filter(|(_, parts)| *parts > 1) {
            let claim = raised(&run.claim, me).ok_or_else(|| EditError::Exhausted {
                range: run.range.text(self.universe.family()),
            })?;
            segments.push(Segment {
                range: run.range,
                claim,
            });
        }
        self.apply(segments)
    }

    /// `heir` takes over all that `gone` owns, in a new epoch that fences every claim `gone` could
    /// still make. Somebody with authority has said that `gone` is gone, and named one heir.
    pub fn take_over(&mut self, gone: &PeerName, heir: &PeerName) -> Result<Delta, EditError> {
        let mut segments = Vec::new();
        for (range, claim) in self.ranges() {
            let Some(claim) = claim.filter(|claim| claim.owner == *gone) else {
                continue;
            };
            let epoch = claim
                .epoch
                .checked_add(1)
                .ok_or_else(|| EditError::Exhausted {
                    range: range.text(self.universe.family()),
                })?;
            let claim = Claim {
                epoch,
                version: 1,
                owner: heir.clone(),
            };
            segments.push(Segment { range, claim });
        }
        self.apply(segments)
    }

    /// `me` claims anew what it has taken over and nobody has confirmed, two epochs later: above
    /// whatever somebody who was asked to confirm it may have claimed against it, in the next one.
    pub fn outbid(&mut self, me: &PeerName) -> Result<Delta, EditError> {
        let mut segments = Vec::new();
        for (range, claim) in self.ranges() {
            let mine = |claim: &&Claim| claim.owner == *me && claim.is_unconfirmed();
            let Some(claim) = claim.filter(mine) else {
                continue;
            };
            let epoch = claim
                .epoch
                .checked_add(2)
                .ok_or_else(|| EditError::Exhausted {
                    range: range.text(self.universe.family()),
                })?;
            let claim = Claim {
                epoch,
                ..claim.clone()
            };
            segments.push(Segment { range, claim });
        }
        self.apply(segments)
    }

    fn apply(&mut self, segments: Vec<Segment>) -> Result<Delta, EditError> {
        let delta = Delta {
            universe: self.universe,
            segments,
            seedings: BTreeSet::new(),
            roster: Roster::new(),
        };
        match self.merge(&delta) {
            Ok(_) => Ok(delta),
            Err(_) => Err(EditError::Exhausted {
                range: self.universe.to_string(),
            }),
        }
    }
}

/// The next claim in the same epoch.
fn raised(claim: &Claim, owner: &PeerName) -> Option<Claim> {
    let version = claim.version.checked_add(1)?;
    Some(Claim {
        epoch: claim.epoch,
        version,
        owner: owner.clone(),
    })
}
