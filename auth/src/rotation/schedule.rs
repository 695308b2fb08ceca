//! When a source is asked for one role's password.

use std::time::{Duration, Instant};

use pgimbal_config::Backoff;

use super::bucket::Bucket;
use super::jitter::Jitter;

/// How long before the expected moment of a rotation it is asked often: answers count whole
/// seconds, so the moment may come a second early.
const EARLY: Duration = Duration::from_secs(1);

/// How long after the first expected moment it is asked often: Vault rotates at ticks of 5 s.
const LATE: Duration = Duration::from_secs(7);

/// How often it is asked near the expected moment.
const OFTEN: Duration = Duration::from_secs(1);

/// The first pause after a failure; it doubles up to the poll interval.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause after a failure, and for a source that is not polled.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause after a failure while a server refuses what is known.
const URGENT_PAUSE: Duration = Duration::from_secs(2);

/// How long a refusal that no fetch has answered is worth urgent ones.
const URGENT_FOR: Duration = Duration::from_secs(30);

/// Ordinary questions fall on common ticks, so that with many roles one wake-up asks for several:
/// most of what a question costs is waking up. A longer tick saves little more.
const TICK: Duration = Duration::from_millis(250);

/// A poll interval has at least so many ticks.
const TICKS: u32 = 20;

/// How soon a rotation that is expected counts as due, on either side.
const DUE: Duration = Duration::from_secs(15);

/// Fetches for refusals by servers: each second, a few at once.
const REFUSALS: Bucket = Bucket::new(5, Duration::from_secs(1));

/// How often a source is asked because of clients' wrong passwords, which anybody can send, once
/// the first few are used up. A client with the right one may wait so long for its question.
pub const MISMATCH_PAUSE: Duration = Duration::from_secs(2);

/// Fetches for such; as many again for users that do not exist, so that these take none from the
/// role's own.
pub const MISMATCHES: Bucket = Bucket::new(3, MISMATCH_PAUSE);

/// Why a fetch is wanted at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchCause {
    /// A server refused the newest password.
    Refusal,
    /// A client showed one that is not known.
    Mismatch,
    /// A client of a user that does not exist did, for whom this role stands in.
    StandIn,
    /// An operator wants it, or the place has changed.
    Order,
}

/// When one role's source is asked. At most one fetch is out at a time.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// `None` for a source that tells changes itself, or has none.
    poll: Option<Duration>,
    jitter: Jitter,
    /// Ticks are counted from here.
    epoch: Instant,
    /// When it is asked whatever happens.
    due: Option<Instant>,
    /// The first moment at which the next rotation was expected.
    expected: Option<Instant>,
    /// The source says that the rotation is due now.
    overdue: bool,
    sent: Option<Instant>,
    in_flight: bool,
    has_answered: bool,
    refused_at: Option<Instant>,
    mismatch: Option<Mismatched>,
    ordered_at: Option<Instant>,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// The source itself asks to be left alone until then.
    asked_off: Option<Instant>,
    stale_since: Option<Instant>,
    refusals: Bucket,
    mismatches: Bucket,
    stand_ins: Bucket,
}

/// A client has shown what fits nothing, and the source is to be asked because of it.
#[derive(Clone, Copy, Debug)]
struct Mismatched {
    came: Instant,
    /// When it may be asked: one of a flood waits, and is not left out.
    ready: Instant,
}

impl Schedule {
    /// A schedule whose first fetch is due at once. Roles with different seeds are asked at
    /// different moments, but those with one `epoch` only at common ticks.
    #[must_use]
    pub const fn new(poll: Option<Duration>, seed: u64, epoch: Instant, now: Instant) -> Self {
        Self {
            poll,
            jitter: Jitter::new(seed),
            epoch,
            due: Some(now),
            expected: None,
            overdue: false,
            sent: None,
            in_flight: false,
            has_answered: false,
            refused_at: None,
            mismatch: None,
            ordered_at: None,
            backoff: Backoff::new(FIRST_PAUSE),
            not_before: None,
            asked_off: None,
            stale_since: None,
            refusals: REFUSALS,
            mismatches: MISMATCHES,
            stand_ins: MISMATCHES,
        }
    }

    /// Asks with another interval from the next time on.
    pub const fn set_poll(&mut self, poll: Option<Duration>) {
        self.poll = poll;
    }

    /// Asks anew, as at the start: another place is asked from now on, and whatever is out at the
    /// one before answers nothing.
    pub const fn restart(&mut self, now: Instant) {
        (self.in_flight, self.overdue) = (false, false);
        self.backoff.reset();
        (self.expected, self.not_before, self.asked_off) = (None, None, None);
        self.due = Some(now);
    }

    /// When the next fetch is due; `None` while one is out, or when none will ever be.
    #[must_use]
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if self.in_flight {
            return None;
        }
        let refusal = self.refused_at.map(|at| self.refusals.ready_at(now).max(at));
        let mismatch = self.mismatch.map(|mismatch| mismatch.ready);
        let all = [self.due, self.near_rotation(), refusal, mismatch, self.ordered_at];
        let next = all.into_iter().flatten().min()?;
        let floors = [self.not_before, self.asked_off];
        Some(floors.into_iter().flatten().fold(next, Instant::max))
    }

    /// The next of the questions around the expected moment.
    fn near_rotation(&self) -> Option<Instant> {
        let expected = self.expected?;
        let opens = expected.checked_sub(EARLY)?;
        let next = match self.sent {
            Some(sent) if sent >= opens => sent + OFTEN.mul_f64(0.95),
            _ => opens,
        };
        (next <= expected + LATE).then_some(next)
    }

    /// Begins a fetch if one is due: it is sent now.
    pub fn begin_fetch(&mut self, now: Instant) -> bool {
        if self.next_timeout(now).is_none_or(|next| next > now) {
            return false;
        }
        if self.refused_at.is_some() {
            // A regular fetch that answers a refusal counts too.
            let _ = self.refusals.take(now);
        }
        self.in_flight = true;
        self.sent = Some(now);
        true
    }

    /// The fetch that was out has been answered. `fresh` says that the answer was a new generation.
    pub fn handle_answer(&mut self, now: Instant, ttl: Option<Duration>, fresh: bool) {
        let sent = self.ended(now);
        let first = !std::mem::replace(&mut self.has_answered, true);
        self.backoff.reset();
        (self.stale_since, self.not_before, self.asked_off) = (None, None, None);
        for wanted in [&mut self.refused_at, &mut self.ordered_at] {
            // What came up after the fetch was sent is not answered by it.
            *wanted = wanted.filter(|at| *at > sent);
        }
        self.mismatch = self.mismatch.filter(|mismatch| mismatch.came > sent);
        let over = self.expected.is_none_or(|at| now > at + LATE || now + EARLY < at);
        self.overdue = ttl == Some(Duration::ZERO);
        if fresh || over && !self.overdue {
            self.expected = ttl.map(|ttl| sent + self.jitter.between(OFTEN, 0.0, 0.9) + ttl);
        }
        // The first time anywhere within the interval, so that roles read at the start spread.
        let low = if first { 0.1 } else { 0.9 };
        self.due = self.poll.map(|poll| {
            let at = sent + self.jitter.between(poll, low, 1.0);
            tick_before(at, self.epoch, TICK.min(poll / TICKS))
        });
    }

    /// The fetch that was out has failed.
    pub fn handle_failure(&mut self, now: Instant, retry_after: Option<Duration>) {
        let _ = self.ended(now);
        self.stale_since.get_or_insert(now);
        self.refused_at = self.refused_at.filter(|at| now < *at + URGENT_FOR);
        (self.mismatch, self.ordered_at) = (None, None);
        let longest = self.poll.map_or(LONGEST_PAUSE, |poll| poll.min(LONGEST_PAUSE));
        let pause = self.backoff.grow(longest);
        let pause = if self.refused_at.is_some() { pause.min(URGENT_PAUSE) } else { pause };
        let pause = self.jitter.between(pause, 0.8, 1.0);
        self.not_before = Some(now + pause);
        self.asked_off = retry_after.map(|pause| now + pause.min(LONGEST_PAUSE));
        self.due = Some(now);
    }

    fn ended(&mut self, now: Instant) -> Instant {
        self.in_flight = false;
        self.sent.unwrap_or(now)
    }

    /// Something has come up at `now` that only a fetch sent later answers. Whether there will be
    /// one for it.
    pub fn request_fetch(&mut self, cause: FetchCause, now: Instant) -> bool {
        match cause {
            FetchCause::Refusal => self.refused_at = Some(now),
            FetchCause::Order => self.ordered_at = Some(now),
            FetchCause::Mismatch | FetchCause::StandIn if self.awaits_mismatch_fetch() => {}
            FetchCause::Mismatch => {
                let ready = self.mismatches.reserve(now);
                self.mismatch = Some(Mismatched { came: now, ready });
            }
            FetchCause::StandIn if self.stand_ins.take(now) => {
                self.mismatch = Some(Mismatched { came: now, ready: now });
            }
            FetchCause::StandIn => return false,
        }
        // A long pause after failures is cut short, but not to nothing.
        let soonest = self.sent.map_or(now, |sent| now.max(sent + OFTEN));
        self.not_before = self.not_before.map(|pause| pause.min(soonest));
        true
    }

    /// Whether a fetch for clients' mismatches is still to be sent: it answers one more.
    fn awaits_mismatch_fetch(&self) -> bool {
        let sent = self.sent.filter(|_| self.in_flight);
        self.mismatch.is_some_and(|mismatch| sent.is_none_or(|sent| mismatch.came > sent))
    }

    /// Since when clients wait for a question that was not asked yet because of what they have
    /// shown, and when it may be.
    #[must_use]
    pub fn mismatched(&self) -> Option<(Instant, Instant)> {
        self.mismatch.map(|mismatch| (mismatch.came, mismatch.ready))
    }

    /// Whether the source has yet to answer a question that was sent after a server has refused
    /// the newest password.
    #[must_use]
    pub const fn awaits_refusals_answer(&self) -> bool {
        self.refused_at.is_some()
    }

    /// Whether the next rotation is expected about now.
    #[must_use]
    pub fn is_rotation_due(&self, now: Instant) -> bool {
        let near = |at: Instant| now + DUE >= at && at + DUE >= now;
        self.overdue || self.expected.is_some_and(near)
    }

    /// How long until the next rotation is expected; zero when it is due.
    #[must_use]
    pub fn until_rotation(&self, now: Instant) -> Option<Duration> {
        self.expected.map(|at| at.saturating_duration_since(now))
    }

    /// Since when the source says nothing.
    #[must_use]
    pub const fn stale_since(&self) -> Option<Instant> {
        self.stale_since
    }

    /// Whether a fetch is out.
    #[must_use]
    pub const fn is_in_flight(&self) -> bool {
        self.in_flight
    }
}

/// The last moment up to `at` that is a whole number of ticks after `epoch`.
fn tick_before(at: Instant, epoch: Instant, tick: Duration) -> Instant {
    let since = at.saturating_duration_since(epoch).as_nanos();
    let over = since.checked_rem(tick.as_nanos()).unwrap_or(0);
    // A remainder is below a tick, which fits.
    at - Duration::from_nanos(u64::try_from(over).unwrap_or(0))
}

#[cfg(test)]
mod wanted;

#[cfg(test)]
mod tests;

#[cfg(test)]
fn any_moment() -> Instant {
    Instant::now()
}
