//! What the process ids at a server say about replicas that are silent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long every look at a server must have shown no process of a silent replica before its tokens
/// are free. It is three times [`GRACE`]: a replica that has lost its last connection opens none
/// with its tokens after [`GRACE`], and one that it began to open by then is seen within another.
pub const SWEEP_AFTER: Duration = Duration::from_secs(60);

/// How long a replica may open connections with its tokens after it was last sure that the server
/// shows one of its processes to the others. A restart of a server is shorter.
pub const GRACE: Duration = Duration::from_secs(20);

/// The longest pause between two looks that are one observation. A prober looks every second.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// How long an unclaimed process must have been there, while every holder of a slot was heard, to
/// be somebody else's for good: a replica tells a new process of its own within a second.
const FOREIGN_AFTER: Duration = Duration::from_secs(5);

/// The looks at one server.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Since when no look has shown an unclaimed process.
    clean_since: Option<Instant>,
    last: Option<Instant>,
    /// Unclaimed processes, with the time since when every look has shown them while all holders
    /// were heard.
    unclaimed: BTreeMap<u32, Instant>,
    /// Processes that are no replica's.
    foreign: BTreeSet<u32>,
}

impl Evidence {
    /// Notes a look that was begun at `at` and showed `pids`, of which the living replicas claim
    /// `claimed`. `all_heard`: no holder of a slot is silent.
    pub(super) fn look(
        &mut self,
        at: Instant,
        pids: &BTreeSet<u32>,
        claimed: &BTreeSet<u32>,
        all_heard: bool,
    ) {
        if self.last.is_some_and(|last| at.saturating_duration_since(last) > LONGEST_GAP) {
            self.clean_since = None;
            self.unclaimed.clear();
            self.foreign.clear();
        }
        self.last = Some(at);
        self.foreign.retain(|pid| pids.contains(pid) && !claimed.contains(pid));
        let is_unclaimed = |pid: &u32| !claimed.contains(pid) && !self.foreign.contains(pid);
        let unclaimed: BTreeSet<u32> = pids.iter().copied().filter(is_unclaimed).collect();
        if unclaimed.is_empty() {
            self.clean_since.get_or_insert(at);
        } else {
            self.clean_since = None;
        }
        self.unclaimed.retain(|pid, _| all_heard && unclaimed.contains(pid));
        if all_heard {
            for pid in unclaimed {
                let since = *self.unclaimed.entry(pid).or_insert(at);
                if at.saturating_duration_since(since) >= FOREIGN_AFTER {
                    self.unclaimed.remove(&pid);
                    self.foreign.insert(pid);
                }
            }
        }
    }

    /// The holders have changed: a process that was nobody's may be a new one's.
    pub(super) fn forget_foreign(&mut self) {
        self.unclaimed.clear();
        self.foreign.clear();
    }

    /// Whether no look of the last [`SWEEP_AFTER`] has shown an unclaimed process, and the last one
    /// is recent and was after `event`.
    pub(super) fn is_clean_after(&self, event: Instant, now: Instant) -> bool {
        self.last.is_some_and(|last| last > event) && self.is_clean_by(None, now)
    }

    /// Whether no look since `event`, for at least [`SWEEP_AFTER`], has shown an unclaimed process,
    /// and the last one is recent.
    pub(super) fn is_clean_since(&self, event: Instant, now: Instant) -> bool {
        self.is_clean_by(Some(event), now)
    }

    fn is_clean_by(&self, since: Option<Instant>, now: Instant) -> bool {
        let (Some(clean), Some(last)) = (self.clean_since, self.last) else { return false };
        let since = since.map_or(clean, |since| since.max(clean));
        now.saturating_duration_since(last) <= LONGEST_GAP
            && last.saturating_duration_since(since) >= SWEEP_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pids(pids: &[u32]) -> BTreeSet<u32> {
        pids.iter().copied().collect()
    }

    #[test]
    fn a_process_that_nobody_claims_keeps_the_tokens() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut evidence = Evidence::default();
        for second in 0..=60 {
            assert!(!evidence.is_clean_since(start, at(second)));
            evidence.look(at(second), &pids(&[1, 2]), &pids(&[1, 2]), false);
        }
        assert!(evidence.is_clean_since(start, at(60)));
        assert!(!evidence.is_clean_since(at(1), at(60)), "a look was before the event");
        assert!(!evidence.is_clean_since(start, at(70)), "the last look is old");
        evidence.look(at(61), &pids(&[1, 2, 3]), &pids(&[1, 2]), false);
        evidence.look(at(62), &pids(&[1, 2]), &pids(&[1, 2]), false);
        assert!(!evidence.is_clean_since(start, at(62)), "it begins anew");
    }

    #[test]
    fn somebody_elses_process_is_known_while_all_are_heard() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut evidence = Evidence::default();
        for second in 0..5 {
            evidence.look(at(second), &pids(&[9]), &pids(&[]), true);
        }
        assert!(evidence.clean_since.is_none());
        evidence.look(at(5), &pids(&[9]), &pids(&[]), true);
        evidence.look(at(6), &pids(&[9]), &pids(&[]), false);
        assert!(evidence.clean_since.is_some());
        evidence.look(at(7), &pids(&[]), &pids(&[]), false);
        evidence.look(at(8), &pids(&[9]), &pids(&[]), false);
        assert!(evidence.clean_since.is_none(), "its number may be another's now");
    }
}
