//! How far a standby is behind: positions that the primary has reported, each with its time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::position::{Lsn, TimelineId};

/// Positions kept at most: with one each second, a lag of more than a quarter of an hour is
/// measured less exactly.
const MAX_SAMPLES: usize = 1024;

/// The primary's flush positions on one timeline, each with the time at which its probe was sent.
#[derive(Debug, Default)]
pub(super) struct Samples {
    timeline: Option<TimelineId>,
    /// Positions grow from front to back.
    taken: VecDeque<(Instant, Lsn)>,
}

impl Samples {
    /// Adds a position. One of another timeline replaces all, one that is not beyond the last is
    /// ignored.
    pub(super) fn take(&mut self, timeline: TimelineId, sent_at: Instant, position: Lsn) {
        if self.timeline != Some(timeline) {
            self.timeline = Some(timeline);
            self.taken.clear();
        }
        // Of equal positions, a standby may be behind since the first.
        if self.taken.back().is_some_and(|(_, last)| *last >= position) {
            return;
        }
        if self.taken.len() == MAX_SAMPLES {
            self.thin_out();
        }
        self.taken.push_back((sent_at, position));
    }

    /// Drops every second sample of the older half, but not the oldest.
    fn thin_out(&mut self) {
        let mut index = 0;
        self.taken.retain(|_| {
            index += 1;
            index % 2 == 1 || index > MAX_SAMPLES / 2
        });
    }

    /// Drops all samples.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Drops the samples up to `slowest`, the lowest replay position of the standbys; the newest
    /// stays.
    pub(super) fn forget_until(&mut self, slowest: Lsn) {
        while self.taken.len() > 1 && self.taken.front().is_some_and(|(_, at)| *at <= slowest) {
            self.taken.pop_front();
        }
    }

    /// Whether the positions are comparable to those of a standby on `timeline`.
    pub(super) fn are_of(&self, timeline: TimelineId) -> bool {
        self.timeline == Some(timeline)
    }

    /// How many bytes `replay` is before the newest position; `None` without samples.
    pub(super) fn bytes_behind(&self, replay: Lsn) -> Option<u64> {
        self.taken.back().map(|(_, newest)| replay.behind(*newest))
    }

    /// The age of the oldest position beyond `replay`, zero if there is none; `None` without
    /// samples.
    pub(super) fn time_behind(&self, replay: Lsn, now: Instant) -> Option<Duration> {
        self.taken.back()?;
        let first = self.taken.partition_point(|(_, position)| *position <= replay);
        let missing = self.taken.get(first);
        Some(missing.map_or(Duration::ZERO, |(sent, _)| now.saturating_duration_since(*sent)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_age_of_the_oldest_position_not_replayed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut samples = Samples::default();
        assert_eq!(samples.time_behind(Lsn(0), at(0)), None);
        for (second, position) in [(0, 100), (1, 100), (2, 150), (3, 200)] {
            samples.take(TimelineId(1), at(second), Lsn(position));
        }
        assert_eq!(samples.time_behind(Lsn(50), at(4)), Some(Duration::from_secs(4)));
        assert_eq!(samples.time_behind(Lsn(100), at(4)), Some(Duration::from_secs(2)));
        assert_eq!(samples.time_behind(Lsn(200), at(4)), Some(Duration::ZERO));
        assert_eq!(samples.bytes_behind(Lsn(120)), Some(80));
        assert_eq!(samples.bytes_behind(Lsn(300)), Some(0));
        samples.forget_until(Lsn(150));
        assert_eq!(samples.time_behind(Lsn(150), at(4)), Some(Duration::from_secs(1)));
        samples.take(TimelineId(2), at(5), Lsn(180));
        assert!(samples.are_of(TimelineId(2)));
        assert_eq!(samples.bytes_behind(Lsn(100)), Some(80));
    }

    #[test]
    fn a_standby_that_stands_still_is_told_about_right_with_few_samples() {
        let start = Instant::now();
        let mut samples = Samples::default();
        for second in 0..10_000 {
            samples.take(TimelineId(1), start + Duration::from_secs(second), Lsn(second + 1));
        }
        assert!(samples.taken.len() <= MAX_SAMPLES);
        let now = start + Duration::from_secs(10_000);
        assert_eq!(samples.time_behind(Lsn(0), now), Some(Duration::from_secs(10_000)));
        let recent = samples.time_behind(Lsn(9_900), now);
        assert_eq!(recent, Some(Duration::from_secs(100)));
    }
}
