//! What a handful of runs of the same measurement say: the middle, how far apart they lie, and
//! whether two such sets differ by more than that.

use std::fmt;

/// Least, median and most of some runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of these runs; `None` of none. What is not finite is not a measurement and left out.
    pub(crate) fn of(runs: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = runs.iter().copied().filter(|run| run.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (&least, &most) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self {
            least,
            median,
            most,
        })
    }

    /// In another unit, or in terms of something else.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self {
            least: self.least * factor,
            median: self.median * factor,
            most: self.most * factor,
        }
    }

    /// Whether some value lies in both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.least <= other.most && other.least <= self.most
    }
}

impl fmt::Display for Spread {
    /// `median [least .. most]`, each with three significant digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!(
            "{} [{} .. {}]",
            Short(self.median),
            Short(self.least),
            Short(self.most)
        );
        f.pad(&text)
    }
}

/// A number with about three significant digits, and no exponent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Short(pub(crate) f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        let text = if size == 0.0 || size >= 100.0 {
            format!("{:.0}", self.0)
        } else if size >= 10.0 {
            format!("{:.1}", self.0)
        } else if size >= 0.1 {
            format!("{:.2}", self.0)
        } else {
            format!("{:.3}", self.0)
        };
        f.pad(&text)
    }
}

/// How a measurement has moved from one set of runs to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    /// The sets overlap, or their medians differ by less than the noise that was stated.
    Noise {
        /// The new median in terms of the old one.
        ratio: f64,
    },
    /// Every new run lies on the same side of every old one, and the medians differ by more than the
    /// noise.
    Moved {
        /// The new median in terms of the old one.
        ratio: f64,
    },
}

impl Change {
    /// From `old` to `new`; `noise` is the relative difference of medians that is none. `None` if
    /// the old median is zero and the new one is not, for which there is no ratio.
    pub(crate) fn between(old: &Spread, new: &Spread, noise: f64) -> Option<Self> {
        if old.median == new.median {
            return Some(Self::Noise { ratio: 1.0 });
        }
        if old.median == 0.0 {
            return None;
        }
        let ratio = new.median / old.median;
        // The same factor up and down counts the same: 0.8 and 1.25 are equally far from 1.
        let far = ratio > 1.0 + noise || ratio < 1.0 / (1.0 + noise);
        Some(if far && !old.overlaps(new) {
            Self::Moved { ratio }
        } else {
            Self::Noise { ratio }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(runs: &[f64]) -> Spread {
        Spread::of(runs).unwrap()
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        let spread = of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.5, 4.0));
        assert_eq!(of(&[7.0]).median, 7.0);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[f64::NAN, f64::INFINITY]), None);
        assert_eq!(of(&[f64::NAN, 2.0]).most, 2.0);
    }

    #[test]
    fn three_digits_at_every_size() {
        let text = |value| Short(value).to_string();
        assert_eq!(text(12_345.6), "12346");
        assert_eq!(text(12.345), "12.3");
        assert_eq!(text(1.2345), "1.23");
        assert_eq!(text(0.012_345), "0.012");
        assert_eq!(text(0.0), "0");
        assert_eq!(format!("{:>8}", Short(1.5)), "    1.50");
        assert_eq!(of(&[1.0, 2.0, 3.0]).to_string(), "2.00 [1.00 .. 3.00]");
    }

    #[test]
    fn a_change_is_one_only_beyond_spread_and_noise() {
        let old = of(&[9.0, 10.0, 11.0]);
        let far = Change::between(&old, &of(&[12.0, 13.0, 14.0]), 0.1);
        assert_eq!(far, Some(Change::Moved { ratio: 1.3 }));
        // Far, but one of the runs was as before.
        let wide = Change::between(&old, &of(&[10.5, 13.0, 14.0]), 0.1);
        assert_eq!(wide, Some(Change::Noise { ratio: 1.3 }));
        // Apart, but nearer than what two runs on one day differ by.
        let near = Change::between(&of(&[10.0, 10.0]), &of(&[10.5, 10.5]), 0.1);
        assert_eq!(near, Some(Change::Noise { ratio: 1.05 }));
        assert_eq!(Change::between(&of(&[0.0]), &of(&[1.0]), 0.1), None);
        let nothing = Change::between(&of(&[0.0]), &of(&[0.0]), 0.1);
        assert_eq!(nothing, Some(Change::Noise { ratio: 1.0 }));
    }

    proptest! {
        #[test]
        fn a_spread_is_ordered_and_bounds_its_runs(runs in prop::collection::vec(-1e9..1e9f64, 1..20)) {
            let spread = of(&runs);
            prop_assert!(spread.least <= spread.median && spread.median <= spread.most);
            prop_assert!(runs.iter().all(|run| (spread.least..=spread.most).contains(run)));
        }

        #[test]
        fn a_change_and_its_reverse_agree(
            old in prop::collection::vec(0.1..1e3f64, 1..6),
            new in prop::collection::vec(0.1..1e3f64, 1..6),
        ) {
            let moved = |change| matches!(change, Some(Change::Moved { .. }));
            let (old, new) = (of(&old), of(&new));
            prop_assert_eq!(
                moved(Change::between(&old, &new, 0.1)),
                moved(Change::between(&new, &old, 0.1))
            );
        }
    }
}
