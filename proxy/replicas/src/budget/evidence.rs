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

/// How long the looks of [`Proof::Glance`] span at least, so that there are two of them.
const GLANCE: Duration = Duration::from_millis(500);

/// How long a new process may be unclaimed before it is held for a silent replica's, or for
/// somebody else's if no replica is silent: a living one claims its own within a second, and for as
/// long as this after their end.
pub const CLAIM_WITHIN: Duration = Duration::from_secs(5);

/// How long a process of somebody else is held for one of a replica that was gone when nobody could
/// look at the server. A replica that lives, and in all that time meets neither the store, nor
/// another replica, nor one of the other servers, is not expected; and without a bound a connection
/// of somebody else that never ends would keep the tokens for ever.
pub(super) const DOUBTED_FOR: Duration = Duration::from_secs(3600);

/// How long the slots of a document without any may be held by replicas that are about to say so:
/// longer than a replica takes to look at the store, and then to write there what it knows.
const REWRITTEN_WITHIN: Duration = Duration::from_secs(20);

/// What a server is to show before tokens that were a former holder's can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The document had no slots, so that nobody has them, unless it was lost: the processes of one
    /// moment are those of living replicas, or [`REWRITTEN_WITHIN`] is over.
    Glance,
    /// For [`SWEEP_AFTER`] no process has stayed unclaimed but those that are known to be of nobody
    /// who was silent.
    Usual,
    /// The server could not be looked at when the holder was taken for gone, so that a process that
    /// nobody claims may be its own: for [`SWEEP_AFTER`] there was none. After [`DOUBTED_FOR`] it is
    /// as [`Self::Usual`].
    Strict,
}

/// The looks at one server.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// The first of the looks since which there was no process that stayed unclaimed.
    clean_since: Option<Instant>,
    /// The same, where processes that are no replica's count as well, until [`DOUBTED_FOR`].
    empty_since: Option<Instant>,
    last: Option<Instant>,
    /// Processes that no living replica has claimed so far.
    suspects: BTreeMap<u32, Suspect>,
    /// Processes that are no replica's, with the look that has shown them first.
    foreign: BTreeMap<u32, Instant>,
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
    /// `claimed`. `all_heard`: no holder of a slot is silent. `overdrawn`: a living replica has more
    /// there than it may have without a slot, and has none.
    pub(super) fn look(
        &mut self,
        at: Instant,
        pids: &BTreeSet<u32>,
        claimed: &BTreeSet<u32>,
        all_heard: bool,
        overdrawn: bool,
    ) {
        if self.last.is_some_and(|last| at.saturating_duration_since(last) > LONGEST_GAP) {
            *self = Self::default();
        }
        self.last = Some(at);
        match all_heard {
            true => _ = self.all_heard_since.get_or_insert(at),
            false => self.all_heard_since = None,
        }
        self.foreign.retain(|pid, _| pids.contains(pid) && !claimed.contains(pid));
        self.suspects.retain(|pid, _| !claimed.contains(pid));
        self.suspects.iter_mut().for_each(|(pid, it)| it.is_there = pids.contains(pid));
        for pid in pids.difference(claimed).filter(|pid| !self.foreign.contains_key(pid)) {
            self.suspects.entry(*pid).or_insert(Suspect { first: at, is_there: true });
        }
        self.decide(at);
        if overdrawn {
            (self.clean_since, self.empty_since) = (None, None);
        }
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
                self.foreign.insert(pid, suspect.first);
            }
            if known || !suspect.is_there {
                self.suspects.remove(&pid);
            }
            if !known {
                self.clean_since = None;
            }
            self.empty_since = None;
        }
        if self.suspects.values().any(|suspect| suspect.is_overdue(at)) {
            return;
        }
        self.clean_since.get_or_insert(at);
        let is_doubted = |first: &Instant| at.saturating_duration_since(*first) < DOUBTED_FOR;
        if !self.foreign.values().any(is_doubted) {
            self.empty_since.get_or_insert(at);
        }
    }

    /// The holders have changed: a process that was nobody's may be a new one's.
    pub(super) fn forget_foreign(&mut self) {
        self.foreign.clear();
        self.suspects.clear();
        self.all_heard_since = None;
    }

    /// Whether the server has shown what is asked for of those who were there at `event`.
    pub(super) fn proves(&self, proof: Proof, event: Instant, now: Instant) -> bool {
        let Some(horizon) = self.horizon() else { return false };
        match proof {
            Proof::Glance => {
                let waited = now.saturating_duration_since(event) >= REWRITTEN_WITHIN;
                let since = self.clean_since.map(|clean| clean.max(event));
                waited || (self.foreign.is_empty() && self.lasts(since, GLANCE, now))
            }
            Proof::Usual => horizon > event && self.lasts(self.clean_since, SWEEP_AFTER, now),
            Proof::Strict => {
                let is_doubted = now.saturating_duration_since(event) <= DOUBTED_FOR;
                let since = if is_doubted { self.empty_since } else { self.clean_since };
                horizon > event && self.lasts(since, SWEEP_AFTER, now)
            }
        }
    }

    /// Whether no look since `event`, for at least [`SWEEP_AFTER`], has shown a process that stayed
    /// unclaimed, and the last one was lately.
    pub(super) fn is_clean_since(&self, event: Instant, now: Instant) -> bool {
        self.lasts(self.clean_since.map(|clean| clean.max(event)), SWEEP_AFTER, now)
    }

    /// Whether the looks since then span that time, and the last one was lately.
    fn lasts(&self, since: Option<Instant>, least: Duration, now: Instant) -> bool {
        let (Some(since), Some(horizon)) = (since, self.horizon()) else { return false };
        self.last.is_some_and(|last| now.saturating_duration_since(last) <= LONGEST_GAP)
            && horizon.saturating_duration_since(since) >= least
    }

    /// Whether the server, which is known since `known`, could not be looked at for
    /// [`SWEEP_AFTER`].
    pub(super) fn is_out_of_sight(&self, known: Instant, now: Instant) -> bool {
        let last = self.last.map_or(known, |last| last.max(known));
        now.saturating_duration_since(last) >= SWEEP_AFTER
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
            evidence.look(at(second), &pids(&[1, 2]), &pids(&[1, 2]), false, false);
        }
        assert!(evidence.is_clean_since(start, at(60)));
        assert!(!evidence.is_clean_since(at(1), at(60)), "a look was before the event");
        assert!(!evidence.is_clean_since(start, at(70)), "the last look is old");
        evidence.look(at(61), &pids(&[1, 3]), &pids(&[1]), false, false);
        assert!(evidence.is_clean_since(start, at(61)), "somebody may claim it");
        for second in 62..=66 {
            evidence.look(at(second), &pids(&[1]), &pids(&[1]), false, false);
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
            evidence.look(at(second), &pids(&[new]), &pids(&[old]), false, false);
        }
        assert!(evidence.is_clean_since(start, at(65)));
    }

    #[test]
    fn somebody_elses_process_is_known_while_all_are_heard() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut evidence = Evidence::default();
        for second in 0..5 {
            evidence.look(at(second), &pids(&[9]), &pids(&[]), true, false);
        }
        assert!(evidence.foreign.is_empty());
        evidence.look(at(5), &pids(&[9]), &pids(&[]), true, false);
        evidence.look(at(6), &pids(&[9]), &pids(&[]), false, false);
        assert!(evidence.suspects.is_empty() && evidence.foreign.contains_key(&9));
        evidence.look(at(7), &pids(&[]), &pids(&[]), false, false);
        evidence.look(at(8), &pids(&[9]), &pids(&[]), false, false);
        assert!(evidence.suspects.contains_key(&9), "its number may be another's now");
    }

    #[test]
    fn somebody_elses_process_is_doubted_where_nobody_could_look() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut evidence = Evidence::default();
        let proves = |evidence: &Evidence, proof, second| evidence.proves(proof, start, at(second));
        for second in 1..=70 {
            evidence.look(at(second), &pids(&[9]), &pids(&[]), true, false);
        }
        assert!(proves(&evidence, Proof::Usual, 70) && !proves(&evidence, Proof::Strict, 70));
        for second in 71..=3700 {
            evidence.look(at(second), &pids(&[9]), &pids(&[]), true, false);
            assert!(second > 3600 || !proves(&evidence, Proof::Strict, second), "{second}");
        }
        assert!(proves(&evidence, Proof::Strict, 3700), "it is there for an hour");
        evidence.look(at(3701), &pids(&[9]), &pids(&[]), true, true);
        assert!(!proves(&evidence, Proof::Usual, 3701), "one has more than it may");
    }

    #[test]
    fn short_processes_of_somebody_else_keep_no_tokens_for_ever() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut evidence = Evidence::default();
        let proves =
            |evidence: &Evidence, second| evidence.proves(Proof::Strict, start, at(second));
        for second in 1..=3600 {
            // One of somebody else's in every minute, each with a number of its own.
            let foreign = (second % 60 < 10).then_some(100 + second as u32 / 60);
            evidence.look(at(second), &foreign.into_iter().collect(), &pids(&[]), true, false);
            assert!(!proves(&evidence, second), "{second}");
        }
        evidence.look(at(3601), &pids(&[160]), &pids(&[]), true, false);
        assert!(proves(&evidence, 3601), "nobody who was gone for an hour is expected");
        // One that may be of somebody who is silent keeps them also then.
        for second in 3602..=3610 {
            evidence.look(at(second), &pids(&[7]), &pids(&[]), false, false);
        }
        assert!(!proves(&evidence, 3610));
    }

    #[test]
    fn the_first_slot_of_a_document_wants_one_look_that_is_explained() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut evidence = Evidence::default();
        let proves =
            |evidence: &Evidence, second| evidence.proves(Proof::Glance, start, at(second));
        evidence.look(at(1), &pids(&[1, 2]), &pids(&[1]), true, false);
        assert!(!proves(&evidence, 1));
        evidence.look(at(2), &pids(&[1, 2, 3]), &pids(&[1, 2]), true, false);
        assert!(proves(&evidence, 2), "those of the first look are claimed");
        let mut evidence = Evidence::default();
        for second in 1..20 {
            evidence.look(at(second), &pids(&[9]), &pids(&[]), true, false);
            assert!(!proves(&evidence, second), "it may be that of a holder who has yet to say so");
        }
        evidence.look(at(20), &pids(&[9]), &pids(&[]), true, false);
        assert!(proves(&evidence, 20));
    }
}
