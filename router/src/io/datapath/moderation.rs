//! How long a worker waits for more small frames before it sends those that it has.
//!
//! A worker is faster than a pod that sends small packets: it would find a few at a time, and pay for
//! a wakeup, a send and the receiver's wakeup each time. When many come it waits for a moment before
//! it sends, as a network card does with its interrupts; then a train carries more of them. What
//! comes slowly, and bulk data, which comes in super-frames, is not kept.

use std::time::{Duration, Instant};

/// Frames in [`SPAN`] from which on they are kept: 50,000 a second. The wait then adds less to a
/// packet's way than the queues in front of it.
const FAST: u32 = 50;
/// Over how long frames are counted.
const SPAN: Duration = Duration::from_millis(1);
/// How long frames are kept.
const HOLD: Duration = Duration::from_micros(40);

/// The rate of one worker's TAP queue.
#[derive(Debug)]
pub(super) struct Moderation {
    since: Instant,
    frames: u32,
    fast: bool,
}

impl Moderation {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            frames: 0,
            fast: false,
        }
    }

    /// Counts frames that were read by now.
    pub(super) fn count(&mut self, frames: u32, now: Instant) {
        self.frames = self.frames.saturating_add(frames);
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= SPAN {
            // After a pause the frames are few for the time that has passed.
            self.fast =
                u128::from(self.frames) * SPAN.as_nanos() >= u128::from(FAST) * elapsed.as_nanos();
            self.frames = 0;
            self.since = now;
        }
    }

    /// How long to wait before what was read is sent, if at all.
    pub(super) fn hold(&self) -> Option<Duration> {
        self.fast.then_some(HOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_fast_is_kept() {
        let start = Instant::now();
        let mut moderation = Moderation::new(start);
        // Three frames in each of a hundred turns of 10 us: 300,000 a second.
        for turn in 1..=100 {
            moderation.count(3, start + Duration::from_micros(10) * turn);
        }
        assert_eq!(moderation.hold(), Some(HOLD));
        // A super-frame each 50 us.
        let start = start + SPAN;
        for turn in 1..=20 {
            moderation.count(1, start + Duration::from_micros(50) * turn);
        }
        assert_eq!(moderation.hold(), None);
    }

    #[test]
    fn a_pause_ends_it() {
        let start = Instant::now();
        let mut moderation = Moderation::new(start);
        moderation.count(FAST, start + SPAN);
        assert!(moderation.hold().is_some());
        moderation.count(FAST, start + SPAN + Duration::from_secs(1));
        assert!(moderation.hold().is_none());
    }
}
