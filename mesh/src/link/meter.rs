//! What is measured of a way: round trip and loss.

use std::time::Duration;

/// Probes that the loss is measured over.
const WINDOW: u32 = 32;
/// Below this number the share says nothing.
const ENOUGH: u32 = 8;

/// Round trip and loss.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter {
    smoothed: Option<Duration>,
    min: Option<Duration>,
    /// The last probes, the latest in bit 0; 1: lost.
    lost: u32,
    seen: u32,
}

impl Meter {
    pub(super) fn answered(&mut self, rtt: Duration) {
        self.push(0);
        self.round_trip(rtt);
    }

    /// A round trip, smoothed as RFC 6298 §2 does.
    pub(super) fn round_trip(&mut self, rtt: Duration) {
        self.smoothed = Some(self.smoothed.map_or(rtt, |old| (old * 7 + rtt) / 8));
        self.min = Some(self.min.map_or(rtt, |old| old.min(rtt)));
    }

    pub(super) fn lost(&mut self) {
        self.push(1);
    }

    /// The way is another, or was down: what was lost before says nothing of it.
    pub(super) fn forget_loss(&mut self) {
        (self.lost, self.seen) = (0, 0);
    }

    /// The way is another.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    pub(super) const fn min(&self) -> Option<Duration> {
        self.min
    }

    /// Lost probes in percent, once there were enough.
    pub(super) fn loss(&self) -> Option<u8> {
        let share = (self.lost.count_ones() * 100).checked_div(self.seen)?;
        (self.seen >= ENOUGH).then(|| u8::try_from(share).unwrap_or(100))
    }

    const fn push(&mut self, lost: u32) {
        self.lost = self.lost << 1 | lost;
        if self.seen < WINDOW {
            self.seen += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_that_of_the_last_probes() {
        let mut meter = Meter::default();
        let rtt = Duration::from_millis(8);
        (0..7).for_each(|_| meter.lost());
        assert_eq!(meter.loss(), None);
        meter.lost();
        assert_eq!(meter.loss(), Some(100));
        (0..24).for_each(|_| meter.answered(rtt));
        assert_eq!(meter.loss(), Some(25));
        (0..8).for_each(|_| meter.answered(rtt));
        assert_eq!(meter.loss(), Some(0));
    }

    #[test]
    fn round_trips_are_smoothed() {
        let mut meter = Meter::default();
        let ms = Duration::from_millis;
        meter.answered(ms(8));
        meter.answered(ms(16));
        assert_eq!((meter.smoothed(), meter.min()), (Some(ms(9)), Some(ms(8))));
    }
}
