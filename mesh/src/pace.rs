//! How soon a node may write the next version of its entry.
//!
//! Each version goes to all nodes, so that what all write together grows as the square of their
//! number. A node whose neighbours change all the time, as while a network forms, therefore writes
//! ever more rarely the more nodes there are, and all that has changed goes in one version. What
//! decides whether somebody can be reached does not wait for that.

use std::time::Duration;

/// Versions that may come before their time, and how much: a node that comes has all its neighbours a
/// moment after the first, and one that goes is told of at once.
const BURST: u32 = 2;
const APART: u32 = 5;

/// The generic cell rate algorithm (ITU-T I.371 §A): one number, and the time of the last version.
#[derive(Debug)]
pub(crate) struct Pace {
    written: Duration,
    /// When the next version would be due if none had ever been early.
    due: Duration,
}

impl Pace {
    pub(crate) const fn new(now: Duration) -> Self {
        Self {
            written: now,
            due: now,
        }
    }

    /// The earliest time of a version that must not wait: `least` after the last one.
    pub(crate) fn soon(&self, least: Duration) -> Duration {
        self.written + least
    }

    /// The earliest time of any other, of which there is one each `interval` in the long run.
    pub(crate) fn in_turn(&self, least: Duration, interval: Duration) -> Duration {
        let early = interval * (BURST - 1);
        let least = least.max(interval / APART);
        self.soon(least).max(self.due.saturating_sub(early))
    }

    /// A version is written.
    pub(crate) fn written(&mut self, interval: Duration, now: Duration) {
        self.written = now;
        self.due = self.due.max(now) + interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_written_at_once_and_then_one_each_interval() {
        let (least, interval) = (Duration::from_secs(1), Duration::from_secs(10));
        let mut now = Duration::from_secs(100);
        let mut pace = Pace::new(Duration::ZERO);
        let mut times = Vec::new();
        for _ in 0..8 {
            now = now.max(pace.in_turn(least, interval));
            times.push(now.as_secs());
            pace.written(interval, now);
        }
        assert_eq!(times, [100, 102, 110, 120, 130, 140, 150, 160]);
        assert_eq!(
            pace.soon(least),
            now + least,
            "what is urgent does not wait"
        );
        // After a rest the burst is there again, and no more than the burst.
        now += Duration::from_secs(1000);
        let times = [(); 5].map(|()| {
            now = now.max(pace.in_turn(least, interval));
            pace.written(interval, now);
            now.as_secs()
        });
        assert_eq!(times, [1160, 1162, 1170, 1180, 1190]);
    }

    #[test]
    fn in_a_small_network_only_the_least_time_counts() {
        let span = Duration::from_secs(1);
        let mut pace = Pace::new(Duration::ZERO);
        for second in 1..20 {
            let now = Duration::from_secs(second);
            assert_eq!(pace.in_turn(span, span), now);
            pace.written(span, now);
        }
    }
}
