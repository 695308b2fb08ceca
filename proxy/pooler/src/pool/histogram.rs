//! How long things took, in buckets: what percentiles are computed from.

use std::time::Duration;

/// The upper bounds of the buckets, each included in its bucket; one more bucket behind them counts
/// what took longer.
///
/// They are the same for all histograms, so that a wait can be set beside its query. Below 100 us
/// lies nothing that a user would notice, and an answer over loopback takes about that long. Up to
/// 100 ms, where the statements of most applications lie, three bounds in each power of ten keep a
/// percentile right within a factor of 2.5. Above there are the times at which people and time-outs
/// lose patience. 15 series for each pool and histogram are what a page of 1,000 pools can carry.
pub const BOUNDS: [Duration; 14] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// How many times something took how long. The default has counted nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BOUNDS.len() + 1],
    sum_nanos: u64,
}

impl Histogram {
    /// Counts one that took `time`, in its bucket and in the sum. It neither allocates nor reads a
    /// clock: it is called for each query.
    #[inline]
    pub fn record(&mut self, time: Duration) {
        self.buckets[BOUNDS.partition_point(|bound| *bound < time)] += 1;
        self.sum_nanos += time.as_nanos() as u64;
    }

    /// Adds what `other` has counted, of another worker or another pool.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.sum_nanos += other.sum_nanos;
    }

    /// Returns how many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the sum of the times that were counted, in nanoseconds; 0 if there was none.
    #[must_use]
    pub const fn sum_nanos(&self) -> u64 {
        self.sum_nanos
    }

    /// Returns each bound of [`BOUNDS`] with the number of times that took up to it, as Prometheus
    /// has its buckets: each number includes the one before. What took longer than the last bound
    /// is in [`Self::count`] alone.
    pub fn cumulated(&self) -> impl Iterator<Item = (Duration, u64)> {
        let below = self.buckets.iter().scan(0, |below, count| {
            *below += count;
            Some(*below)
        });
        BOUNDS.into_iter().zip(below)
    }

    /// Returns the time that this share of all (0.0 to 1.0) did not exceed: 0.5 for the median. It
    /// is an estimate, as Prometheus' `histogram_quantile` makes it: inside a bucket the times are
    /// taken to lie evenly, and what took longer than the last bound counts as that bound. `None`
    /// if nothing was counted.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = share.clamp(0.0, 1.0) * count as f64;
        let (mut lower, mut below) = (Duration::ZERO, 0);
        for (bound, cumulated) in self.cumulated() {
            let inside = cumulated - below;
            if inside > 0 && cumulated as f64 >= rank {
                let part = ((rank - below as f64) / inside as f64).clamp(0.0, 1.0);
                return Some(lower + (bound - lower).mul_f64(part));
            }
            (lower, below) = (bound, cumulated);
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        micros.iter().for_each(|micros| histogram.record(Duration::from_micros(*micros)));
        histogram
    }

    #[test]
    fn a_time_falls_into_the_bucket_whose_bound_it_does_not_pass() {
        let mut histogram = of(&[0, 100, 101, 31_000_000]);
        histogram.record(Duration::from_nanos(100_001));
        let cumulated: Vec<u64> = histogram.cumulated().map(|(_, count)| count).collect();
        assert_eq!((cumulated[0], cumulated[1], cumulated[13]), (2, 4, 4));
        assert_eq!((histogram.count(), histogram.sum_nanos()), (5, 31_000_301_001));
    }

    #[test]
    fn two_are_added_bucket_by_bucket() {
        let mut one = of(&[50, 700]);
        one.add(&of(&[60, 40_000_000]));
        assert_eq!(one, of(&[50, 60, 700, 40_000_000]));
    }

    #[test]
    fn a_quantile_lies_where_its_bucket_has_it() {
        assert_eq!(of(&[]).quantile(0.5), None);
        // 10 of 20 up to 1 ms, 9 more up to 100 ms, one beyond all bounds.
        let times = [vec![900; 10], vec![90_000; 9], vec![60_000_000]].concat();
        let histogram = of(&times);
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_millis(1)));
        assert_eq!(histogram.quantile(0.25), Some(Duration::from_micros(750)));
        assert_eq!(histogram.quantile(0.95), Some(Duration::from_millis(100)));
        assert_eq!(histogram.quantile(0.99), Some(Duration::from_secs(30)));
        assert_eq!(of(&[60_000_000]).quantile(0.5), Some(Duration::from_secs(30)));
    }
}
