//! Each node's share of the reads within the last minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What counts as the last minute.
const WINDOW: Duration = Duration::from_secs(60);
/// Time between two samples.
const STEP: Duration = Duration::from_secs(5);

/// Counters of reads as they were within the last minute.
#[derive(Debug, Default)]
pub(super) struct ReadShares {
    /// The oldest first, each with one counter for each node; the first is a minute old or as old
    /// as the cluster.
    samples: VecDeque<(Instant, Vec<u64>)>,
}

impl ReadShares {
    /// Takes a sample of the counters if it is time for one.
    pub(super) fn sample(&mut self, now: Instant, counters: impl FnOnce() -> Vec<u64>) {
        if self.samples.back().is_some_and(|(at, _)| now < *at + STEP) {
            return;
        }
        self.samples.push_back((now, counters()));
        // The second one is old enough to begin the minute.
        while self.samples.get(1).is_some_and(|(at, _)| now >= *at + WINDOW) {
            self.samples.pop_front();
        }
    }

    /// The node's share in percent of the reads since the last minute began, where `counters` are
    /// what they are now; `None` if there were none.
    pub(super) fn percent(&self, node: usize, counters: &[u64]) -> Option<u64> {
        let then = self.samples.front().map_or(&[][..], |(_, counters)| counters);
        let since = |(index, now): (usize, &u64)| now - then.get(index).unwrap_or(&0);
        let all: u64 = counters.iter().enumerate().map(since).sum();
        let own = counters.get(node).map_or(0, |now| since((node, now)));
        (all > 0).then(|| (100 * own + all / 2) / all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_that_of_the_last_minute() {
        let (mut shares, start) = (ReadShares::default(), Instant::now());
        assert_eq!(shares.percent(0, &[]), None);
        assert_eq!(shares.percent(1, &[0, 1]), Some(100), "before the first sample");
        // Node 1 serves all within the first minute, and node 2 within the second.
        for second in 0..=120_u64 {
            let counters = vec![0, second.min(60), second.saturating_sub(60)];
            shares.sample(start + Duration::from_secs(second), || counters.clone());
            let percents = [0, 1, 2].map(|node| shares.percent(node, &counters));
            match second {
                0 => assert_eq!(percents, [None; 3]),
                1..=60 => assert_eq!(percents, [Some(0), Some(100), Some(0)], "{second}"),
                90 => assert_eq!(percents, [Some(0), Some(50), Some(50)]),
                120 => assert_eq!(percents, [Some(0), Some(0), Some(100)]),
                _ => {}
            }
        }
        assert_eq!(shares.samples.len(), 13);
    }
}
