//! Nodes that left, remembered for a while.
//!
//! News travel on several connections: a list of peers that was written before the leave may arrive
//! after it. A run that is noted here is not learned again from others; the node itself is of course
//! welcome back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use wire::PeerId;

use crate::message::Departure;

#[derive(Debug)]
pub(crate) struct Departed {
    runs: BTreeMap<PeerId, (u64, Duration)>,
    /// Oldest first; may name entries that have since been replaced or removed.
    order: VecDeque<(PeerId, Duration)>,
    capacity: usize,
    lasts: Duration,
}

impl Departed {
    pub(crate) const fn new(capacity: usize, lasts: Duration) -> Self {
        Self {
            runs: BTreeMap::new(),
            order: VecDeque::new(),
            capacity,
            lasts,
        }
    }

    /// Notes that a run has ended; says whether that is news.
    pub(crate) fn note(&mut self, id: PeerId, run: u64, now: Duration) -> bool {
        if self.contains(id, run, now) {
            return false;
        }
        while self.order.len() >= self.capacity
            || self
                .order
                .front()
                .is_some_and(|(_, at)| *at + self.lasts <= now)
        {
            let Some((id, at)) = self.order.pop_front() else {
                break;
            };
            if self.runs.get(&id).is_some_and(|(_, noted)| *noted == at) {
                self.runs.remove(&id);
            }
        }
        self.runs.insert(id, (run, now));
        self.order.push_back((id, now));
        true
    }

    pub(crate) fn contains(&self, id: PeerId, run: u64, now: Duration) -> bool {
        self.runs
            .get(&id)
            .is_some_and(|(noted, at)| *noted == run && *at + self.lasts > now)
    }

    /// The latest of those that are remembered.
    pub(crate) fn latest(&self, count: usize, now: Duration) -> Vec<Departure> {
        let remembered = self.order.iter().rev().filter_map(|(id, at)| {
            let (run, noted) = self.runs.get(id)?;
            (noted == at && *at + self.lasts > now).then_some(Departure { id: *id, run: *run })
        });
        remembered.take(count).collect()
    }

    /// The node is back.
    pub(crate) fn clear(&mut self, id: PeerId) {
        self.runs.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_forgetful() {
        let s = Duration::from_secs;
        let id = |n| PeerId([n; 8]);
        let mut departed = Departed::new(2, s(10));
        assert!(departed.note(id(1), 7, s(0)));
        assert!(!departed.note(id(1), 7, s(1)));
        assert!(departed.note(id(2), 7, s(1)));
        assert!(departed.note(id(3), 7, s(2)));
        assert!(!departed.contains(id(1), 7, s(2)), "the oldest made room");
        assert!(departed.contains(id(3), 7, s(11)) && !departed.contains(id(3), 7, s(12)));
        assert!(
            !departed.contains(id(3), 8, s(3)),
            "another run is another matter"
        );
        let latest = departed.latest(1, s(3));
        assert_eq!(latest, [Departure { id: id(3), run: 7 }]);
        departed.clear(id(3));
        assert_eq!(departed.latest(9, s(3)), [Departure { id: id(2), run: 7 }]);
        assert!(departed.note(id(3), 7, s(4)));
    }
}
