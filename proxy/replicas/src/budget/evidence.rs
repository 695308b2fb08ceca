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

/// How long a new process may be unclaimed before it is held for a silent replica's, or for
/// somebody else's if no replica is silent: a living one claims its own within a second, and for as
/// long as this after their end.
pub const CLAIM_WITHIN: Duration = Duration::from_secs(5);

/// The looks at one server.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// The first of the looks since which there was no process that stayed unclaimed.
    clean_since: Option<Instant>,
    last: Option<Instant>,
    /// Processes that no living replica has claimed so far.
    suspects: BTreeMap<u32, Suspect>,
    /// Processes that are no replica's.
    foreign: BTreeSet<u32>,
    /// Since when no holder of a slot is silent.
    all_heard_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    first: Instant,
    is_there: bool,
}

impl Suspect {
    /// Whether it will not be claimed any more.
    fn is_overdue(self, at: Instant) -> bool {
        at.saturating_duration_since(self.first) >= CLAIM_WITHIN
    }
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
            *self = Self::default();
        }
        self.last = Some(at);
        match all_heard {
            true => _ = self.all_heard_since.get_or_insert(at),
            false => self.all_heard_since = None,
        }
        self.foreign.retain(|pid| pids.contains(pid) && !claimed.contains(pid));
        self.suspects.retain(|pid, _| !claimed.contains(pid));
        self.suspects.iter_mut().for_each(|(pid, it)| it.is_there = pids.contains(pid));
        for pid in pids.difference(claimed).filter(|pid| !self.foreign.contains(pid)) {
            self.suspects.entry(*pid).or_insert(Suspect { first: at, is_there: true });
        }
        self.decide(at);
    }

    /// Decides about the suspects that will not be claimed any more.
    fn decide(&mut self, at: Instant) {
        let overdue: Vec<(u32, Suspect)> = self
            .suspects
            .iter()
            .filter(|(_, suspect)| suspect.is_overdue(at))
            .map(|(pid, suspect)| (*pid, *suspect))
            .collect();
        for (pid, suspect) in overdue {
            let known = self.all_heard_since.is_some_and(|since| since <= suspect.first);
            if known && suspect.is_there {
                self.foreign.insert(pid);
            }
            if known || !suspect.is_there {
                self.suspects.remove(&pid);
            }
            if !known {
                self.clean_since = None;
            }
        }
        if !self.suspects.values().any(|suspect| suspect.is_overdue(at)) {
            self.clean_since.get_or_insert(at);
        }
    }

    /// The holders have changed: a process that was nobody's may be a new one's.
    pub(super) fn forget_foreign(&mut self) {
        self.foreign.clear();
        self.suspects.clear();
        self.all_heard_since = None;
    }

    /// Whether no look of [`SWEEP_AFTER`] has shown a process that stayed unclaimed, and the last of
    /// these looks was after `event` and lately.
    pub(super) fn is_clean_after(&self, event: Instant, now: Instant) -> bool {
        self.horizon().is_some_and(|horizon| horizon > event) && self.is_clean_by(None, now)
    }

    /// Whether no look since `event`, for at least [`SWEEP_AFTER`], has shown a process that stayed
    /// unclaimed, and the last one was lately.
    pub(super) fn is_clean_since(&self, event: Instant, now: Instant) -> bool {
        self.is_clean_by(Some(event), now)
    }

    fn is_clean_by(&self, since: Option<Instant>, now: Instant) -> bool {
        let (Some(clean), Some(horizon)) = (self.clean_since, self.horizon()) else { return false };
        let since = since.map_or(clean, |since| since.max(clean));
        self.last.is_some_and(|last| now.saturating_duration_since(last) <= LONGEST_GAP)
            && horizon.saturating_duration_since(since) >= SWEEP_AFTER
    }

    /// The time up to which every process that was seen has been claimed.
    fn horizon(&self) -> Option<Instant> {
        self.suspects.values().map(|suspect| suspect.first).chain(self.last).min()
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
        evidence.look(at(61), &pids(&[1, 3]), &pids(&[1]), false);
        assert!(evidence.is_clean_since(start, at(61)), "somebody may claim it");
        for second in 62..=66 {
            evidence.look(at(second), &pids(&[1]), &pids(&[1]), false);
        }
        assert!(!evidence.is_clean_since(start, at(66)), "nobody has");
        assert!(evidence.clean_since.is_some(), "it is gone");
    }

    #[test]
    fn a_process_that_is_claimed_late_means_nothing() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut evidence = Evidence::default();
        for second in 0..=65 {
            // A new one with every look; the one before is claimed by then, though it has ended.
            let (new, old) = (second as u32 + 1, second as u32);
            evidence.look(at(second), &pids(&[new]), &pids(&[old]), false);
        }
        assert!(evidence.is_clean_since(start, at(65)));
    }

    #[test]
    fn somebody_elses_process_is_known_while_all_are_heard() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut evidence = Evidence::default();
        for second in 0..5 {
            evidence.look(at(second), &pids(&[9]), &pids(&[]), true);
        }
        assert!(evidence.foreign.is_empty());
        evidence.look(at(5), &pids(&[9]), &pids(&[]), true);
        evidence.look(at(6), &pids(&[9]), &pids(&[]), false);
        assert!(evidence.suspects.is_empty() && evidence.foreign.contains(&9));
        evidence.look(at(7), &pids(&[]), &pids(&[]), false);
        evidence.look(at(8), &pids(&[9]), &pids(&[]), false);
        assert!(evidence.suspects.contains_key(&9), "its number may be another's now");
    }
}
