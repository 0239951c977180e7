//! Percentiles of a set of durations.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What a set of durations looks like, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) min_ns: u64,
    pub(crate) max_ns: u64,
}

impl Latency {
    /// `None` of no durations at all.
    pub(crate) fn of(durations: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut sorted: Vec<_> = durations
            .into_iter()
            .map(|duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
            .collect();
        sorted.sort_unstable();
        Some(Self {
            p50_ns: percentile(&sorted, 500)?,
            p99_ns: percentile(&sorted, 990)?,
            p999_ns: percentile(&sorted, 999)?,
            min_ns: *sorted.first()?,
            max_ns: *sorted.last()?,
        })
    }

    /// The median in terms of another's.
    #[expect(clippy::cast_precision_loss, reason = "2^52 nanoseconds are 52 days")]
    pub(crate) fn ratio_to(&self, other: &Self) -> f64 {
        self.p50_ns as f64 / other.p50_ns.max(1) as f64
    }
}

/// By nearest rank: the smallest value that `per_mille` of all do not exceed.
fn percentile(sorted: &[u64], per_mille: usize) -> Option<u64> {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Nanoseconds, shown as microseconds.
pub(crate) struct Micros(pub(crate) u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:02} us", self.0 / 1000, self.0 / 10 % 100);
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        let of = |values: &[u64]| {
            let latency = Latency::of(values.iter().copied().map(Duration::from_nanos)).unwrap();
            [
                latency.p50_ns,
                latency.p99_ns,
                latency.p999_ns,
                latency.min_ns,
                latency.max_ns,
            ]
        };
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(of(&hundred), [50, 99, 100, 1, 100]);
        assert_eq!(of(&[7]), [7, 7, 7, 7, 7]);
        assert_eq!(of(&[1, 9, 4]), [4, 9, 9, 1, 9]);
        let thousands: Vec<u64> = (1..=10_000).collect();
        assert_eq!(of(&thousands), [5000, 9900, 9990, 1, 10_000]);
        assert_eq!(Latency::of([]), None);
    }

    #[test]
    fn units_are_padded() {
        assert_eq!(format!("{:>10}", Micros(12_345)), "  12.34 us");
        assert_eq!(Micros(1_005).to_string(), "1.00 us");
    }
}
