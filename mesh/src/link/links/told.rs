//! What others are told in this node's entry: whom it reaches, and how it is seen.

use std::collections::BTreeSet;
use std::time::Duration;

use wire::PeerId;

use super::{Links, Timer};
use crate::link::output::LinkOutput;
use crate::link::peer::Peer;
use crate::link::view::LinkState;
use crate::route::Reach;

/// Changes within this time are told together.
const GATHER: Duration = Duration::from_millis(200);
/// Between two tellings: a node that loses many at once says so a few times, not once for each.
const APART: Duration = Duration::from_secs(2);
/// A peer that is not heard on any way is most likely dead, and everybody finds that out: only
/// after this long is it said that it is not reached from here.
const DEAD: Duration = Duration::from_secs(90);

impl Links {
    /// A peer's sleeve began or ceased to be reached.
    pub(super) fn reach_changed(&mut self, now: Duration) {
        let apart = self.reach_told.map(|told| told + APART);
        let at = apart.map_or(now + GATHER, |apart| apart.max(now + GATHER));
        self.timers.bring_forward(Timer::Reach, at);
    }

    pub(super) fn tell_reach(&mut self, now: Duration) {
        let (mut reached, mut missed) = (BTreeSet::new(), BTreeSet::<PeerId>::new());
        let mut later = None;
        for (id, peer) in &self.peers {
            match misses(peer, now) {
                Some(from) if from > now => {
                    reached.insert(*id);
                    later = Some(later.map_or(from, |later: Duration| later.min(from)));
                }
                Some(_) => {
                    missed.insert(*id);
                }
                None => {
                    reached.insert(*id);
                }
            }
        }
        if let Some(later) = later {
            self.timers.bring_forward(Timer::Reach, later);
        }
        let reach = Reach::new(&reached, &missed);
        if reach != self.reach {
            self.reach = reach.clone();
            self.reach_told = Some(now);
            self.outputs.push_back(LinkOutput::Reach(reach));
        }
    }

    pub(super) fn tell_seen(&mut self) {
        let seen = self
            .seen
            .translated(&self.config.addresses, self.config.sleeve_port);
        if seen != self.translated {
            self.translated = seen;
            self.outputs.push_back(LinkOutput::SleeveSeen(seen));
        }
    }
}

/// From when on a peer is said not to be reached over sleeve. None: it is, or that is not known.
fn misses(peer: &Peer, now: Duration) -> Option<Duration> {
    if peer.sleeve.state() != LinkState::Down {
        return None;
    }
    match (peer.chosen, peer.doubted) {
        // It is there, in other ways.
        (Some(_), _) => Some(now),
        (None, true) => None,
        (None, false) => Some(peer.sleeve.since() + DEAD),
    }
}
