//! Pseudo-random numbers from a seed, so that different roles ask their sources at different times.

use std::time::Duration;

/// A stream of pseudo-random numbers (SplitMix64). The same seed gives the same numbers, which
/// tests rely on. Not fit for secrets.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// Begins the stream of `seed`; any seed will do.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, at least 0 and below 1. It has 53 random bits and moves the stream on by
    /// one.
    pub fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // 53 bits are what a double holds.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A pseudo-random time between `span * low` and `span * high`. Takes one number of the stream.
    /// Panics when `low` or `high` makes it negative.
    pub fn between(&mut self, span: Duration, low: f64, high: f64) -> Duration {
        span.mul_f64(low + (high - low) * self.fraction())
    }
}
