//! The fence behind which a node starts: what it owned may have been taken over while it was
//! away, so it hands out nothing before it has heard from another node.
//!
//! A node that starts chooses a new life and tells it to others with its digest. Whoever answers
//! has recorded this life durably, and has told all that it knows. The node is admitted by the
//! answer of one that is admitted itself: a take-over either was known to that peer and is known
//! now, or will not be confirmed without asking this node (`removal`). Where nobody is admitted,
//! as after a power cut, the answers of all living nodes are needed: any one of them may have taken
//! over from all the others. A node that stays away holds them up until it is declared gone.
//!
//! A node with an empty disk first listens: it may have lived before, and learns its lives from
//! the others. If so it re-claims what it owns by a take-over from itself, because it does not
//! remember what it gave away. At the very beginning, when all are so, the word of one seed is
//! enough.
//!
//! A node is alone, and admits itself, if its roster has no other living node.

use std::time::Duration;

use wire::PeerName;

use super::Agent;
use crate::allocator::AllocateError;
use crate::roster::{Member, NAMED};

/// How far a node has come since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Admission {
    /// It has an empty disk, and has heard from nobody.
    Listening,
    /// It has chosen a life, and has not been answered.
    Asking {
        life: u32,
        /// The disk was empty.
        fresh: bool,
        /// It has lived before, and does not remember.
        amnesiac: bool,
    },
    /// It may allocate.
    Admitted { life: u32 },
}

/// What a peer says of itself with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// It knows nothing from before its start.
    pub(super) fresh: bool,
    /// It may allocate.
    pub(super) admitted: bool,
}

impl Agent {
    /// Whether this node may allocate.
    pub fn is_admitted(&self) -> bool {
        matches!(self.admission, Admission::Admitted { .. })
    }

    /// The life that this node says it is in; 0 before it has chosen.
    pub(super) fn life(&self) -> u32 {
        match self.admission {
            Admission::Listening => 0,
            Admission::Asking { life, .. } | Admission::Admitted { life } => life,
        }
    }

    pub(super) fn is_fresh(&self) -> bool {
        matches!(
            self.admission,
            Admission::Listening | Admission::Asking { fresh: true, .. }
        )
    }

    pub(super) fn admitted(&self) -> Result<(), AllocateError> {
        if self.is_admitted() {
            return Ok(());
        }
        if self.ring().is_undecided() {
            return Err(self.undivided());
        }
        Err(AllocateError::NotAdmitted {
            me: self.me.clone(),
            waiting: self.unheard(),
        })
    }

    /// At the start.
    pub(super) fn begin_life(&mut self) {
        let mut ring = self.ring().clone();
        let before = ring.roster().get(&self.me);
        if ring.is_undecided()
            && let Some(seeding) = &self.settings.seeding
            && let Ok(seeded) = crate::Ring::seeded(ring.universe(), seeding)
            && ring.merge(&seeded.delta()).is_ok()
        {
            self.unsaved = true;
        }
        if before.life > NAMED {
            let life = before.life.max(before.gone).saturating_add(1);
            ring.note(&self.me, Member { life, gone: 0 });
            self.unsaved = true;
            self.told_held = None;
            self.admission = Admission::Asking {
                life,
                fresh: false,
                amnesiac: false,
            };
        }
        self.allocator.set_ring(ring);
    }

    /// A peer has told all that it knows; `life` is the one of this node that it has recorded.
    pub(super) fn heard(&mut self, from: &PeerName, life: u32, of: Standing, now: Duration) {
        match self.admission {
            Admission::Listening => {
                if self.ring().is_undecided() {
                    return;
                }
                let known = self.ring().roster().get(&self.me);
                let latest = known.life.max(known.gone);
                self.choose(latest.max(NAMED) + 1, true, latest > NAMED, now);
            }
            Admission::Asking {
                life: mine, fresh, ..
            } if life == mine => {
                self.inquiry.heard(from);
                let seeds = self.ring().seedings().first();
                let seed = seeds.is_some_and(|seeding| seeding.peers().contains(from));
                if of.admitted || (fresh && of.fresh && seed) || self.unheard().is_empty() {
                    self.admit(now);
                }
            }
            Admission::Asking { .. } | Admission::Admitted { .. } => {}
        }
    }

    /// Living nodes that have not answered in this life.
    pub(super) fn unheard(&self) -> Vec<PeerName> {
        let alive = self.ring().roster().alive_but(&self.me);
        alive
            .filter(|name| !self.inquiry.has_heard(name))
            .cloned()
            .collect()
    }

    fn choose(&mut self, life: u32, fresh: bool, amnesiac: bool, now: Duration) {
        self.admission = Admission::Asking {
            life,
            fresh,
            amnesiac,
        };
        let mut ring = self.ring().clone();
        ring.note(&self.me, Member { life, gone: 0 });
        self.set_ring(ring, now);
        // What was asked before named another life.
        self.inquiry.start_over();
        self.pursue(now);
    }

    fn admit(&mut self, now: Duration) {
        let Admission::Asking { life, amnesiac, .. } = self.admission else {
            return;
        };
        self.admission = Admission::Admitted { life };
        let news = self.life_of(&self.me.clone());
        self.tell(None, &news);
        self.contested |= amnesiac;
        self.ring_changed(now);
        self.take_over_removed(now);
        self.look_ahead(now);
    }

    /// Others may know more of this node's lives than it does: it was declared gone while it ran,
    /// or its disk is older than its last life. Both are as a return.
    pub(super) fn check_life(&mut self, now: Duration) {
        let life = self.life();
        let known = self.ring().roster().get(&self.me);
        if life == 0 || (known.life <= life && known.gone < life) {
            return;
        }
        let amnesiac =
            known.life > life || matches!(self.admission, Admission::Asking { amnesiac: true, .. });
        let next = known.life.max(known.gone).saturating_add(1);
        if next > life {
            self.choose(next, false, amnesiac, now);
        }
    }

    /// A node that knows of no other living one has nobody to hear from.
    pub(super) fn check_alone(&mut self, now: Duration) {
        if self.is_admitted() || self.ring().is_undecided() {
            return;
        }
        // Who has answered may be all that are left when another is declared gone.
        let others = !self.unheard().is_empty();
        #[cfg(test)]
        let others = others && self.without != Some(super::tests::Without::Admission);
        if others || (self.admission == Admission::Listening && self.settings.expects_peers) {
            return;
        }
        if self.admission == Admission::Listening {
            let life = NAMED + 1;
            self.admission = Admission::Asking {
                life,
                fresh: true,
                amnesiac: false,
            };
            let mut ring = self.ring().clone();
            ring.note(&self.me, Member { life, gone: 0 });
            self.allocator.set_ring(ring);
            self.unsaved = true;
        }
        self.admit(now);
    }
}
