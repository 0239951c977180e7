//! Where a peer may be: addresses that its entry names, and those that its datagrams came from.
//!
//! Only an answer to a probe that was sent there makes an address the one that frames go to: a
//! datagram with a forged source moves nothing. An address that works is kept while it works, so
//! that a peer with several does not wander.

use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug, Clone, Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    /// The one in use.
    current: Option<SocketAddr>,
    /// Whose turn is next.
    turn: usize,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    address: SocketAddr,
    /// Whether the peer's entry names it.
    told: bool,
    answered: Option<Duration>,
}

impl Candidates {
    /// Takes over what the entry names, at most `capacity`. What was learned stays if there is room.
    pub(super) fn tell(
        &mut self,
        addresses: impl IntoIterator<Item = SocketAddr>,
        capacity: usize,
    ) {
        let old = std::mem::take(&mut self.list);
        let answered = |address: SocketAddr| {
            let known = old.iter().find(|candidate| candidate.address == address);
            known.and_then(|candidate| candidate.answered)
        };
        for address in addresses {
            let room = self.list.len() < capacity;
            if room
                && !self
                    .list
                    .iter()
                    .any(|candidate| candidate.address == address)
            {
                self.list.push(Candidate {
                    address,
                    told: true,
                    answered: answered(address),
                });
            }
        }
        for candidate in old {
            let known = self.list.iter().any(|new| new.address == candidate.address);
            let current = Some(candidate.address) == self.current;
            let worth = current || !candidate.told;
            if worth && !known && (current || self.list.len() < capacity) {
                self.list.push(Candidate {
                    told: false,
                    ..candidate
                });
            }
        }
    }

    /// A datagram came from this address. Returns whether it is new, and whether another made room.
    pub(super) fn learn(&mut self, address: SocketAddr, capacity: usize) -> (bool, bool) {
        if self
            .list
            .iter()
            .any(|candidate| candidate.address == address)
        {
            return (false, false);
        }
        let full = self.list.len() >= capacity;
        if full {
            // What the entry names was told by the peer itself: it goes last.
            let worst = (0..self.list.len())
                .filter(|at| Some(self.list[*at].address) != self.current)
                .min_by_key(|at| (self.list[*at].told, self.list[*at].answered));
            let Some(worst) = worst else {
                return (false, false);
            };
            self.list.remove(worst);
        }
        self.list.push(Candidate {
            address,
            told: false,
            answered: None,
        });
        (true, full)
    }

    pub(super) const fn current(&self) -> Option<SocketAddr> {
        self.current
    }

    /// Whether the one in use was learned, and the peer's entry does not name it: then a NAT shows it.
    pub(super) fn is_learned(&self) -> bool {
        let named =
            |candidate: &Candidate| Some(candidate.address) == self.current && candidate.told;
        self.current.is_some() && !self.list.iter().any(named)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn first(&self) -> Option<SocketAddr> {
        self.list.first().map(|candidate| candidate.address)
    }

    /// An answer to a probe that went there.
    pub(super) fn answered(&mut self, address: SocketAddr, now: Duration) {
        let known = self.list.iter_mut().find(|known| known.address == address);
        if let Some(candidate) = known {
            candidate.answered = Some(now);
        }
    }

    /// Takes an address into use.
    pub(super) const fn select(&mut self, address: SocketAddr) {
        self.current = Some(address);
    }

    /// None is in use any more.
    pub(super) const fn deselect(&mut self) {
        self.current = None;
    }

    /// Another than the one in use that was answered since `since`, the last one first.
    pub(super) fn alternative(&self, since: Duration) -> Option<SocketAddr> {
        let others = self.list.iter().filter(|candidate| {
            Some(candidate.address) != self.current
                && candidate.answered.is_some_and(|at| at >= since)
        });
        others
            .max_by_key(|candidate| candidate.answered)
            .map(|candidate| candidate.address)
    }

    /// The next ones to try, in turn; never the one in use.
    pub(super) fn next(&mut self, count: usize) -> Vec<SocketAddr> {
        let mut next = Vec::new();
        for _ in 0..self.list.len() {
            if next.len() >= count {
                break;
            }
            let address = self.list[self.turn % self.list.len()].address;
            self.turn = (self.turn + 1) % self.list.len();
            if Some(address) != self.current {
                next.push(address);
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 6783))
    }

    #[test]
    fn addresses_are_tried_in_turn() {
        let mut candidates = Candidates::default();
        candidates.tell((1..=3).map(address), 8);
        assert_eq!(candidates.next(2), [address(1), address(2)]);
        assert_eq!(candidates.next(2), [address(3), address(1)]);
        candidates.select(address(2));
        assert_eq!(candidates.next(9), [address(3), address(1)]);
    }

    #[test]
    fn what_is_in_use_stays_though_the_entry_names_others() {
        let mut candidates = Candidates::default();
        candidates.tell((1..=2).map(address), 2);
        candidates.select(address(1));
        candidates.tell((5..=9).map(address), 2);
        assert_eq!(candidates.current(), Some(address(1)));
        assert_eq!(candidates.next(9), [address(5), address(6)]);
    }

    #[test]
    fn i6_learned_addresses_push_out_each_other_and_what_never_answered() {
        let mut candidates = Candidates::default();
        candidates.tell((1..=2).map(address), 4);
        candidates.select(address(1));
        candidates.learn(address(10), 4);
        candidates.answered(address(10), Duration::from_secs(1));
        for n in 20..120 {
            assert_eq!(candidates.learn(address(n), 4), (true, n > 20));
            assert_eq!(candidates.learn(address(n), 4), (false, false));
        }
        assert_eq!(candidates.list.len(), 4);
        assert_eq!(candidates.alternative(Duration::ZERO), Some(address(10)));
        assert_eq!(candidates.alternative(Duration::from_secs(2)), None);
    }
}
