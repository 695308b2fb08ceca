//! How fresh a replica is: up to which moment it has replayed every write that was acknowledged.
//!
//! A position of the primary whose probe was *sent* at a moment lies behind every commit that was
//! acknowledged before. A replica that has replayed that position has all of them. Only the
//! process's monotonic clock counts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::moment::LatestMoment;
use super::position::Lsn;
use super::report::{Report, Role};
use super::view::Epoch;

/// Positions kept at most: with one each 20 ms, those of 20 s. A replica that is further behind is
/// taken for a little less fresh than it is.
const MAX_POSITIONS: usize = 1024;

/// How fresh one replica is, while the primary and the replica are the servers that they were when
/// it was made. The prober writes it and every worker reads it, without a lock. After a change of
/// primary or timeline, or a restart of either server, the next view has another one, and this one
/// changes no more. Two are equal if they are the same one.
#[derive(Clone, Debug)]
pub struct Freshness(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started_at_micros: i64,
    until: LatestMoment,
    bytes_behind: AtomicU64,
}

impl PartialEq for Freshness {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Freshness {}

impl Freshness {
    fn new(started_at_micros: i64) -> Self {
        let bytes_behind = AtomicU64::new(u64::MAX);
        Self(Arc::new(Shared { started_at_micros, until: LatestMoment::default(), bytes_behind }))
    }

    /// Returns the moment up to which every acknowledged write is replayed: the replica shows each
    /// that was acknowledged at or before it. `None` while it has replayed no known position.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.0.until.get()
    }

    /// Returns how many bytes of the write-ahead log the replica had still to replay, up to the
    /// primary's insert position, when either was last asked.
    #[must_use]
    pub fn bytes_behind(&self) -> u64 {
        self.0.bytes_behind.load(Relaxed)
    }

    /// Returns when the replica's server was started ([`Report::started_at_micros`]): a connection
    /// to one that was started at another time may lead to older data.
    #[must_use]
    pub fn started_at_micros(&self) -> i64 {
        self.0.started_at_micros
    }
}

/// The primary whose positions are compared: that node on that timeline, as long as it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) epoch: Epoch,
    /// When its server was started.
    pub(super) started_at_micros: i64,
}

/// Which servers a [`Freshness`] compares.
#[derive(Debug)]
pub(super) struct Compared {
    source: Source,
    /// What the replica has replayed, by its last report.
    replayed: Lsn,
    freshness: Freshness,
}

impl Compared {
    /// How fresh the replica is.
    pub(super) const fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Whether the primary and the replica, which has replayed `replay`, are still those that it
    /// compares. Recovery that begins anew after a crash, under the same postmaster, goes back.
    fn is_of(&self, source: Source, report: &Report, replay: Lsn) -> bool {
        self.source == source
            && self.freshness.started_at_micros() == report.started_at_micros
            && self.replayed <= replay
    }
}

/// The insert positions of one primary, each with the time at which its probe was sent.
#[derive(Debug, Default)]
pub(super) struct Positions {
    source: Option<Source>,
    /// Positions and times grow from front to back.
    taken: VecDeque<(Instant, Lsn)>,
}

impl Positions {
    /// Adds a position. One of another source replaces all.
    pub(super) fn take(&mut self, source: Source, sent_at: Instant, insert: Lsn) {
        if self.source != Some(source) {
            self.source = Some(source);
            self.taken.clear();
        }
        match self.taken.back_mut() {
            Some((last, _)) if *last >= sent_at => return,
            // Nothing was written since: a replica that has that position is as fresh as this one.
            Some((last, position)) if *position == insert => {
                *last = sent_at;
                return;
            }
            // A running server's position does not go back; nothing can be said of one that does.
            Some((_, position)) if *position > insert => self.taken.clear(),
            _ => {}
        }
        if self.taken.len() == MAX_POSITIONS {
            self.thin_out();
        }
        self.taken.push_back((sent_at, insert));
    }

    /// Drops every second position of the older half, but not the oldest.
    fn thin_out(&mut self) {
        let mut index = 0;
        self.taken.retain(|_| {
            index += 1;
            index % 2 == 1 || index > MAX_POSITIONS / 2
        });
    }

    /// Drops them unless they are of this epoch.
    pub(super) fn keep_only(&mut self, epoch: Option<Epoch>) {
        if self.source.map(|source| source.epoch) != epoch {
            *self = Self::default();
        }
    }

    /// Whether these positions are those that `compared` compares.
    pub(super) fn is_of(&self, compared: &Compared) -> bool {
        self.source == Some(compared.source)
    }

    /// Says how fresh a node is by its report; `before` is what was said of it before. `None`
    /// unless the node is a standby that follows the source's timeline.
    pub(super) fn compare(&self, before: Option<Compared>, report: &Report) -> Option<Compared> {
        let source = self.source?;
        let followed = (source.epoch.system, source.epoch.timeline);
        let Role::Standby { replay, .. } = report.role else { return None };
        if (report.system, report.timeline) != followed {
            return None;
        }
        let known = before.filter(|known| known.is_of(source, report, replay));
        let freshness = match known {
            Some(known) => known.freshness,
            None => Freshness::new(report.started_at_micros),
        };
        if let Some(moment) = self.fresh_until(replay) {
            freshness.0.until.note(moment);
        }
        if let Some((_, newest)) = self.taken.back() {
            freshness.0.bytes_behind.store(replay.behind(*newest), Relaxed);
        }
        Some(Compared { source, replayed: replay, freshness })
    }

    /// Up to which moment a replica at `replay` has every write; `None` if it has no position.
    fn fresh_until(&self, replay: Lsn) -> Option<Instant> {
        let reached = self.taken.partition_point(|(_, position)| *position <= replay);
        self.taken.get(reached.checked_sub(1)?).map(|(sent_at, _)| *sent_at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::topology::{NodeId, SystemId, TimelineId};

    fn source(started_at_micros: i64) -> Source {
        let epoch = Epoch { system: SystemId(7), timeline: TimelineId(1), node: NodeId(0) };
        Source { epoch, started_at_micros }
    }

    #[test]
    fn a_replica_is_as_fresh_as_the_last_position_that_it_has_replayed() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut positions = Positions::default();
        assert_eq!(positions.fresh_until(Lsn(u64::MAX)), None);
        for (second, position) in [(0, 100), (1, 100), (2, 150), (3, 200)] {
            positions.take(source(1), at(second), Lsn(position));
        }
        assert_eq!(positions.fresh_until(Lsn(99)), None);
        assert_eq!(positions.fresh_until(Lsn(100)), Some(at(1)));
        assert_eq!(positions.fresh_until(Lsn(199)), Some(at(2)));
        assert_eq!(positions.fresh_until(Lsn(200)), Some(at(3)));
        // An answer that was overtaken says nothing new.
        positions.take(source(1), at(2), Lsn(50));
        assert_eq!(positions.fresh_until(Lsn(60)), None);
        // Another server's positions are not comparable.
        positions.take(source(2), at(4), Lsn(120));
        assert_eq!(positions.fresh_until(Lsn(110)), None);
        assert_eq!(positions.fresh_until(Lsn(120)), Some(at(4)));
    }

    #[test]
    fn few_positions_are_kept_and_the_newest_always() {
        let start = Instant::now();
        let mut positions = Positions::default();
        for second in 0..10_000 {
            let sent_at = start + Duration::from_secs(second);
            positions.take(source(1), sent_at, Lsn(second + 1));
            assert_eq!(positions.fresh_until(Lsn(second + 1)), Some(sent_at));
        }
        assert!(positions.taken.len() <= MAX_POSITIONS);
        let known = positions.fresh_until(Lsn(5_000)).expect("it has some");
        assert!(known <= start + Duration::from_secs(4_999));
    }
}
