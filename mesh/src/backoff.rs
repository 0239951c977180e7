//! How long to wait before the next dial.

use std::time::Duration;

use crate::config::Timing;
use crate::rng::SplitMix64;

/// Grows by half with every failure, from [`Timing::retry`] to a ceiling, with a jitter of plus or
/// minus half: nodes that lost a peer together do not come back together.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub fn next(&mut self, timing: &Timing, ceiling: Duration, rng: &mut SplitMix64) -> Duration {
        let mut wait = timing.retry;
        for _ in 0..self.failures {
            wait = wait * 3 / 2;
            if wait >= ceiling {
                break;
            }
        }
        self.failures = self.failures.saturating_add(1);
        rng.around(wait.min(ceiling))
    }

    /// Dials that failed since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Back to the shortest wait.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_half_up_to_the_ceiling() {
        let timing = Timing::default();
        let mut rng = SplitMix64::new(7);
        let mut backoff = Backoff::default();
        let mut expected = timing.retry;
        for _ in 0..40 {
            let wait = backoff.next(&timing, timing.retry_max, &mut rng);
            assert!(
                wait >= expected / 2 && wait <= expected * 3 / 2,
                "{wait:?} of {expected:?}"
            );
            expected = (expected * 3 / 2).min(timing.retry_max);
        }
        assert_eq!(backoff.failures(), 40);
        backoff.reset();
        assert!(backoff.next(&timing, timing.retry_max, &mut rng) <= timing.retry * 3 / 2);
    }
}
