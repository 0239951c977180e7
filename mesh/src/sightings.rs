//! How others see this node: the addresses that it gives in its entry.
//!
//! A node does not know at which of its addresses others reach it, least of all behind NAT. A peer
//! that dialled it says where it reached it, which is proof; one that it dialled says whence it came,
//! which is a hint.

use std::net::SocketAddr;
use std::time::Duration;

use crate::entry::MAX_ADDRESSES;
use crate::mesh::is_local;

#[derive(Debug, Default)]
pub(crate) struct Sightings {
    /// In the order in which they were first seen.
    seen: Vec<Sighting>,
}

#[derive(Debug)]
struct Sighting {
    address: SocketAddr,
    /// Somebody reached this node there.
    reached: bool,
    last: Duration,
}

impl Sightings {
    /// Notes where this node was seen; says whether [`Self::list`] has changed.
    pub(crate) fn note(&mut self, address: SocketAddr, reached: bool, now: Duration) -> bool {
        let before = self.list();
        if let Some(known) = self.seen.iter_mut().find(|known| known.address == address) {
            known.last = now;
            known.reached |= reached;
        } else {
            if self.seen.len() >= MAX_ADDRESSES {
                // What was reached lately is worth more than what was only seen.
                let rank = |at: &usize| (self.seen[*at].reached, self.seen[*at].last);
                if let Some(least) = (0..self.seen.len()).min_by_key(rank) {
                    self.seen.remove(least);
                }
            }
            self.seen.push(Sighting {
                address,
                reached,
                last: now,
            });
        }
        before != self.list()
    }

    /// Best first: those where this node was reached, and last those that mean something on this
    /// machine alone.
    pub(crate) fn list(&self) -> Vec<SocketAddr> {
        let mut order: Vec<&Sighting> = self.seen.iter().collect();
        order.sort_by_key(|seen| (is_local(seen.address.ip()), !seen.reached));
        order.into_iter().map(|seen| seen.address).collect()
    }

    /// Whether somebody on this machine, or on one wire with it, has seen this node.
    pub(crate) fn any_local(&self) -> bool {
        self.seen.iter().any(|seen| is_local(seen.address.ip()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn at(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 6783))
    }

    #[test]
    fn where_it_was_reached_comes_first() {
        let mut sightings = Sightings::default();
        let local = SocketAddr::from(([127, 0, 0, 1], 6783));
        assert!(sightings.note(local, true, S(0)));
        assert!(sightings.note(at(1), false, S(1)));
        assert!(sightings.note(at(2), true, S(2)));
        assert_eq!(sightings.list(), [at(2), at(1), local]);
        assert!(!sightings.note(at(2), false, S(3)));
        assert!(sightings.note(at(1), true, S(4)));
        assert_eq!(sightings.list(), [at(1), at(2), local]);
        assert!(sightings.any_local());
    }

    #[test]
    fn i6_the_list_is_bounded_and_keeps_what_was_reached() {
        let mut sightings = Sightings::default();
        sightings.note(at(0), true, S(0));
        for number in 1..100 {
            sightings.note(at(number), false, S(number.into()));
        }
        let list = sightings.list();
        assert_eq!((list.len(), list[0]), (MAX_ADDRESSES, at(0)));
        assert!(list.contains(&at(99)));
    }
}
