//! The source of jitter: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
//! generators", OOPSLA 2014). Not for secrets.

use std::time::Duration;

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// One step of the generator from this state: a permutation of 64 bits that leaves no pattern.
pub(crate) const fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A small seeded generator: the same seed gives the same sequence, so that a simulated run can be
/// repeated.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator that starts from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        let z = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        z
    }

    /// A number below `bound`, or 0 when `bound` is 0. The bias of the remainder is below 2^-32
    /// for the bounds that are used here.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            self.next_u64() % bound
        }
    }

    /// A time in `[0, span)`, in steps of a microsecond.
    pub fn up_to(&mut self, span: Duration) -> Duration {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros))
    }

    /// `span` with a jitter of plus or minus half of it.
    pub fn around(&mut self, span: Duration) -> Duration {
        span / 2 + self.up_to(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First outputs of the published reference code for seed 1234567.
    #[test]
    fn reference_sequence() {
        let mut rng = SplitMix64::new(1_234_567);
        let first = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn jitter_stays_within_half() {
        let mut rng = SplitMix64::new(1);
        let span = Duration::from_secs(10);
        for _ in 0..1000 {
            let t = rng.around(span);
            assert!(t >= span / 2 && t < span * 3 / 2, "{t:?}");
        }
        assert_eq!(rng.around(Duration::ZERO), Duration::ZERO);
    }
}
