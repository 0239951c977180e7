//! What is to happen, in the order of its time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Things to come. Of two at the same time the one that was put in first comes first.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    /// Nanoseconds, a number that grows, and a place: millions of these are moved about, so they are
    /// small and compared as numbers.
    order: BinaryHeap<Reverse<(u64, u64, u32)>>,
    sequence: u64,
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Agenda<T> {
    pub(crate) const fn new() -> Self {
        Self {
            order: BinaryHeap::new(),
            sequence: 0,
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn put(&mut self, at: Duration, thing: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).expect("fewer than four thousand million")
        });
        self.places[place as usize] = Some(thing);
        let at = u64::try_from(at.as_nanos()).expect("less than five hundred years");
        self.order.push(Reverse((at, self.sequence, place)));
        self.sequence += 1;
    }

    /// Takes the next thing that comes until `end`, and its time.
    pub(crate) fn take(&mut self, end: Duration) -> Option<(Duration, T)> {
        let Reverse((at, _, place)) = *self.order.peek()?;
        let at = Duration::from_nanos(at);
        if at > end {
            return None;
        }
        self.order.pop();
        self.free.push(place);
        Some((at, self.places[place as usize].take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_first_comes_first_at_the_same_time() {
        let s = Duration::from_secs;
        let mut agenda = Agenda::new();
        for (at, thing) in [(2, 'c'), (1, 'a'), (2, 'd'), (1, 'b'), (3, 'e')] {
            agenda.put(s(at), thing);
        }
        let mut taken = Vec::new();
        while let Some((_, thing)) = agenda.take(s(2)) {
            taken.push(thing);
        }
        assert_eq!(taken, ['a', 'b', 'c', 'd']);
        agenda.put(s(2), 'f');
        assert_eq!(agenda.take(s(9)), Some((s(2), 'f')));
        assert_eq!(agenda.take(s(9)), Some((s(3), 'e')));
        assert_eq!(agenda.take(s(9)), None);
    }
}
