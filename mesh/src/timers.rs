//! A table of deadlines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// At most one deadline per key; the earliest is found at once.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    at: BTreeMap<K, Duration>,
    order: BTreeSet<(Duration, K)>,
}

impl<K: Ord + Clone> Timers<K> {
    pub(crate) const fn new() -> Self {
        Self {
            at: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// Sets the deadline of a key in place of the one it had.
    pub(crate) fn set(&mut self, key: K, at: Duration) {
        self.cancel(&key);
        self.at.insert(key.clone(), at);
        self.order.insert((at, key));
    }

    /// Sets the deadline unless the key has an earlier one.
    pub(crate) fn bring_forward(&mut self, key: K, at: Duration) {
        if self.at.get(&key).is_none_or(|old| *old > at) {
            self.set(key, at);
        }
    }

    pub(crate) fn cancel(&mut self, key: &K) {
        if let Some(old) = self.at.remove(key) {
            self.order.remove(&(old, key.clone()));
        }
    }

    /// The deadline of a key.
    pub(crate) fn get(&self, key: &K) -> Option<Duration> {
        self.at.get(key).copied()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes a key whose deadline has come.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_deadline_per_key_in_order() {
        let s = Duration::from_secs;
        let mut timers = Timers::new();
        timers.set('a', s(3));
        timers.set('b', s(2));
        timers.set('a', s(1));
        timers.bring_forward('b', s(5));
        timers.bring_forward('c', s(4));
        timers.bring_forward('c', s(3));
        assert_eq!((timers.next(), timers.get(&'c')), (Some(s(1)), Some(s(3))));
        assert_eq!(timers.pop_due(s(0)), None);
        let mut due = Vec::new();
        while let Some(key) = timers.pop_due(s(9)) {
            due.push(key);
        }
        assert_eq!(due, ['a', 'b', 'c']);
        timers.set('d', s(1));
        timers.cancel(&'d');
        assert_eq!(timers.next(), None);
    }
}
