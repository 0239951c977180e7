//! How many probes leave: each sort has a rate for the whole node, whatever the number of peers.

use std::time::Duration;

/// Sorts of probes, by how soon they are wanted. Each has its own rate, so that the lesser sorts
/// cannot hold up the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// On idle links, in turn.
    Idle,
    /// On links with traffic, and searches for the path's MTU.
    Busy,
    /// Something is wrong, or new.
    Urgent,
}

/// A rate with a burst, by the generic cell rate algorithm (ITU-T I.371 §A): one number.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    interval: Duration,
    burst: Duration,
    /// When the next one would be due if none had ever been early.
    due: Duration,
}

impl Bucket {
    /// `rate` a second, up to `burst` of them at once.
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self {
            interval,
            burst: interval * burst.saturating_sub(1),
            due: Duration::ZERO,
        }
    }

    /// Takes the next place, and says when it comes: now or later. Those who wait are served in the
    /// order in which they asked.
    pub(super) fn reserve(&mut self, count: u32, now: Duration) -> Duration {
        let at = self.due.saturating_sub(self.burst).max(now);
        self.due = self.due.max(now) + self.interval * count;
        at
    }

    /// Takes a place if there is one now.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let free = self.due <= now + self.burst;
        if free {
            self.reserve(1, now);
        }
        free
    }
}

/// The rates of all sorts.
#[derive(Debug)]
pub(super) struct Budget {
    idle: Bucket,
    busy: Bucket,
    urgent: Bucket,
}

impl Budget {
    pub(super) fn new(idle_rate: u32, busy_rate: u32, urgent_rate: u32) -> Self {
        Self {
            idle: Bucket::new(idle_rate, idle_rate),
            busy: Bucket::new(busy_rate, busy_rate),
            urgent: Bucket::new(urgent_rate, urgent_rate),
        }
    }

    pub(super) fn of(&mut self, urgency: Urgency) -> &mut Bucket {
        match urgency {
            Urgency::Idle => &mut self.idle,
            Urgency::Busy => &mut self.busy,
            Urgency::Urgent => &mut self.urgent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_wait_are_served_at_the_rate_and_in_order() {
        let mut bucket = Bucket::new(10, 3);
        let now = Duration::from_secs(100);
        let places: Vec<_> = (0..6).map(|_| bucket.reserve(1, now) - now).collect();
        assert_eq!(places.map_millis(), [0, 0, 0, 100, 200, 300]);
        // After a rest the burst is there again, and no more than the burst.
        let later = now + Duration::from_secs(60);
        let places: Vec<_> = (0..4).map(|_| bucket.reserve(1, later) - later).collect();
        assert_eq!(places.map_millis(), [0, 0, 0, 100]);
    }

    #[test]
    fn what_is_not_free_is_not_taken() {
        let mut bucket = Bucket::new(10, 2);
        let ms = Duration::from_millis;
        let taken: Vec<_> = [0, 0, 0, 50, 100, 150, 200]
            .map(|at| bucket.take(ms(at)))
            .into();
        assert_eq!(taken, [true, true, false, false, true, false, true]);
    }

    trait MapMillis {
        fn map_millis(&self) -> Vec<u128>;
    }

    impl MapMillis for Vec<Duration> {
        fn map_millis(&self) -> Vec<u128> {
            self.iter().map(Duration::as_millis).collect()
        }
    }
}
