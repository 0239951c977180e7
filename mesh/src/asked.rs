//! Entries that neighbours have announced, and which of them was asked for each.
//!
//! Several neighbours announce the same version at about the same time. One of them is asked for it;
//! the others are noted, and asked in turn if it does not come.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::PeerId;

use crate::connection::ConnId;
use crate::timers::Timers;

/// Neighbours noted for one entry besides the one that was asked. If none of them sends it, the
/// comparison of the tables finds it.
const OTHERS: usize = 3;

/// What was asked for and has not come yet.
#[derive(Debug)]
pub(crate) struct Asked {
    requests: BTreeMap<PeerId, Request>,
    deadlines: Timers<PeerId>,
    /// Requests that are noted at most. One more is made all the same, and not made again.
    limit: usize,
    /// Time for an answer.
    patience: Duration,
}

#[derive(Debug)]
struct Request {
    version: u64,
    /// The neighbour that was asked.
    of: ConnId,
    others: Vec<ConnId>,
}

impl Asked {
    pub(crate) const fn new(limit: usize, patience: Duration) -> Self {
        Self {
            requests: BTreeMap::new(),
            deadlines: Timers::new(),
            limit,
            patience,
        }
    }

    /// A neighbour has a version that this node lacks. Whether it is to be asked for it.
    pub(crate) fn announced(
        &mut self,
        conn: ConnId,
        id: PeerId,
        version: u64,
        now: Duration,
    ) -> bool {
        let full = self.requests.len() >= self.limit;
        match self.requests.get_mut(&id) {
            // An older version is news as well, if the one that was promised does not come.
            Some(request) if request.version >= version => {
                let known = request.of == conn || request.others.contains(&conn);
                if !known && request.others.len() < OTHERS {
                    request.others.push(conn);
                }
                return false;
            }
            None if full => return true,
            Some(_) | None => {}
        }
        let request = Request {
            version,
            of: conn,
            others: Vec::new(),
        };
        self.requests.insert(id, request);
        self.deadlines.set(id, now + self.patience);
        true
    }

    /// A version has come.
    pub(crate) fn arrived(&mut self, id: PeerId, version: u64) {
        let request = self.requests.get(&id);
        if request.is_some_and(|request| request.version <= version) {
            self.requests.remove(&id);
            self.deadlines.cancel(&id);
        }
    }

    /// Nothing more comes on this connection.
    pub(crate) fn closed(&mut self, conn: ConnId, now: Duration) {
        for (id, request) in &mut self.requests {
            request.others.retain(|other| *other != conn);
            if request.of == conn {
                self.deadlines.set(*id, now);
            }
        }
    }

    /// Whom to ask for what else, since it has not come.
    pub(crate) fn overdue(&mut self, now: Duration) -> BTreeMap<ConnId, Vec<PeerId>> {
        let mut again: BTreeMap<ConnId, Vec<PeerId>> = BTreeMap::new();
        while let Some(id) = self.deadlines.pop_due(now) {
            let Some(request) = self.requests.get_mut(&id) else {
                continue;
            };
            if request.others.is_empty() {
                self.requests.remove(&id);
                continue;
            }
            request.of = request.others.remove(0);
            again.entry(request.of).or_default().push(id);
            self.deadlines.set(id, now + self.patience);
        }
        again
    }

    /// Nothing is wanted any more.
    pub(crate) fn clear(&mut self) {
        self.requests.clear();
        self.deadlines = Timers::new();
    }

    /// When [`Asked::overdue`] has something to say.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.deadlines.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    const fn id(number: u8) -> PeerId {
        PeerId([number; 8])
    }
    const A: ConnId = ConnId::Dialled(1);
    const B: ConnId = ConnId::Dialled(2);
    const C: ConnId = ConnId::Accepted(1);

    #[test]
    fn one_is_asked_and_the_next_when_it_does_not_answer() {
        let mut asked = Asked::new(10, S(2));
        assert!(asked.announced(A, id(1), 7, S(1)));
        assert!(!asked.announced(B, id(1), 7, S(1)));
        assert!(!asked.announced(B, id(1), 7, S(1)), "once is enough");
        assert!(!asked.announced(C, id(1), 6, S(1)));
        assert_eq!(asked.next(), Some(S(3)));
        assert!(asked.overdue(S(2)).is_empty());
        assert_eq!(asked.overdue(S(3)), [(B, vec![id(1)])].into());
        // Who promises what never comes keeps nobody from the version that there is.
        assert_eq!(asked.overdue(S(5)), [(C, vec![id(1)])].into());
        assert_eq!(asked.next(), Some(S(7)));
        assert!(asked.overdue(S(7)).is_empty(), "nobody is left");
        assert_eq!(asked.next(), None);
        assert!(
            asked.announced(C, id(1), 7, S(8)),
            "it can be asked for anew"
        );
    }

    #[test]
    fn what_has_come_is_not_asked_for_again() {
        let mut asked = Asked::new(10, S(2));
        assert!(asked.announced(A, id(1), 7, S(1)));
        assert!(asked.announced(B, id(1), 8, S(1)), "a newer one is wanted");
        asked.arrived(id(1), 7);
        assert_eq!(asked.next(), Some(S(3)), "that was the older one");
        asked.arrived(id(1), 9);
        assert_eq!(asked.next(), None);
    }

    #[test]
    fn the_next_is_asked_at_once_when_a_connection_ends() {
        let mut asked = Asked::new(10, S(2));
        for conn in [A, B, C] {
            asked.announced(conn, id(1), 7, S(1));
        }
        asked.announced(A, id(2), 7, S(1));
        asked.closed(B, S(1));
        assert!(asked.overdue(S(1)).is_empty());
        asked.closed(A, S(1));
        assert_eq!(asked.overdue(S(1)), [(C, vec![id(1)])].into());
        asked.closed(C, S(1));
        assert!(asked.overdue(S(1)).is_empty());
        assert_eq!(asked.next(), None);
    }

    #[test]
    fn what_is_noted_is_bounded() {
        let mut asked = Asked::new(2, S(2));
        for number in 0..9 {
            assert!(asked.announced(A, id(number), 1, S(1)));
        }
        assert_eq!(asked.requests.len(), 2);
        for number in 2..9 {
            asked.announced(ConnId::Dialled(number), id(0), 1, S(1));
        }
        assert_eq!(asked.requests[&id(0)].others.len(), OTHERS);
    }
}
