//! The times at which the source of one role's password is asked.

use std::time::{Duration, Instant};

use pgimbal_config::Backoff;

use super::bucket::Bucket;
use super::jitter::Jitter;

/// How long before the expected time of a rotation the source is asked often: Vault's answers count
/// whole seconds, so the rotation may come a second early.
const EARLY: Duration = Duration::from_secs(1);

/// How long after the expected time it is asked often: Vault rotates at ticks of 5 s.
const LATE: Duration = Duration::from_secs(7);

/// How often the source is asked near the expected time of a rotation.
const OFTEN: Duration = Duration::from_secs(1);

/// The first pause after a failed fetch; it doubles up to the poll interval.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause after a failed fetch, also for a source that is not polled.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause after a failed fetch while a server refuses the newest password.
const URGENT_PAUSE: Duration = Duration::from_secs(2);

/// How long after a refusal by a server the pauses stay at most [`URGENT_PAUSE`].
const URGENT_FOR: Duration = Duration::from_secs(30);

/// Ordinary fetches fall on common ticks, so that with many roles one wake-up asks for several:
/// most of what a fetch costs is waking up. A longer tick saves little more.
const TICK: Duration = Duration::from_millis(250);

/// A poll interval has at least this many ticks.
const TICKS: u32 = 20;

/// A rotation counts as due this long before and after its expected time.
const DUE: Duration = Duration::from_secs(15);

/// Limit of fetches for refusals by servers: 5 at once, then one per second.
const REFUSALS: Bucket = Bucket::new(5, Duration::from_secs(1));

/// Pause between two fetches that clients with unknown passwords cause, once the first 3
/// ([`MISMATCHES`]) are used up: 2 s. Anybody can send a wrong password, so the source must be
/// protected. A client with the right password may wait this long for its fetch.
pub const MISMATCH_PAUSE: Duration = Duration::from_secs(2);

/// Limit of the fetches that clients with unknown passwords cause: 3 at once, then one per
/// [`MISMATCH_PAUSE`]. Users that do not exist have a bucket of their own, of the same size. Each
/// role has its own, made when its [`Schedule`] is.
pub const MISMATCHES: Bucket = Bucket::new(3, MISMATCH_PAUSE);

/// The event for which the source is to be asked before its regular time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchCause {
    /// A PostgreSQL server refused the newest password. Five such fetches may follow each other
    /// without a pause, then one per second; pauses after failures are at most 2 s for 30 s.
    Refusal,
    /// A client of this user showed a password that is not known; it may be newer than the last
    /// answer. Limited by [`MISMATCHES`]: a fetch beyond it comes later, and is never left out.
    Mismatch,
    /// A client of a user that does not exist showed a password. This role's source is asked in its
    /// stead, so that timing does not tell which users exist. Limited by a bucket of the size of
    /// [`MISMATCHES`]: a fetch beyond it is left out.
    StandIn,
    /// An operator ordered it (REFRESH on the console), the file of the source has changed, or a
    /// reload may have mended the source. It has no limit.
    Order,
}

/// The times at which one role's source is asked: regular polls, more often near the expected
/// rotation, at once for a [`FetchCause`], and pauses after failures. At most one fetch runs at a
/// time. It has no clock; callers give the time.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// `None` for a source that tells changes itself, or has none.
    poll: Option<Duration>,
    jitter: Jitter,
    /// The time from which ticks are counted.
    epoch: Instant,
    /// The next regular fetch.
    due: Option<Instant>,
    /// The first moment at which the next rotation is expected.
    expected: Option<Instant>,
    /// Whether the last answer had a time to live of zero: the rotation is due now.
    overdue: bool,
    sent: Option<Instant>,
    in_flight: bool,
    has_answered: bool,
    refused_at: Option<Instant>,
    mismatch: Option<Mismatched>,
    ordered_at: Option<Instant>,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// The end of the pause for which the source itself has asked.
    asked_off: Option<Instant>,
    stale_since: Option<Instant>,
    refusals: Bucket,
    mismatches: Bucket,
    stand_ins: Bucket,
}

/// A client has shown an unknown password, and the source is to be asked because of that.
#[derive(Clone, Copy, Debug)]
struct Mismatched {
    came: Instant,
    /// When the fetch may be sent: in a flood it is delayed, never left out.
    ready: Instant,
}

impl Schedule {
    /// Makes a schedule whose first fetch is due at `now`. `poll` is the poll interval, `None` for
    /// a source that is not polled (a file reports changes itself). Different `seed`s spread roles
    /// over time; those with the same `epoch` share ticks of at most 250 ms.
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

    /// Changes the poll interval after a reload, from the next answer on; `None` stops polling. A
    /// fetch that is planned already keeps its time.
    pub const fn set_poll(&mut self, poll: Option<Duration>) {
        self.poll = poll;
    }

    /// Forgets the fetch that is out, expected rotation and pauses, and makes a fetch due at `now`.
    /// For a role whose source has changed: what the former source still answers must be ignored.
    /// Requests by [`Self::request_fetch`] that are not answered stay, and the role stays stale
    /// until an answer comes.
    pub const fn restart(&mut self, now: Instant) {
        (self.in_flight, self.overdue) = (false, false);
        self.backoff.reset();
        (self.expected, self.not_before, self.asked_off) = (None, None, None);
        self.due = Some(now);
    }

    /// The time of the next fetch, which may be before `now`. `None` while a fetch is out, and when
    /// none is planned because the source is not polled. It is the earliest of the regular fetch,
    /// the expected rotation and all requests, but not before the end of a pause after a failure.
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

    /// The next fetch near the expected rotation; `None` outside of that window.
    fn near_rotation(&self) -> Option<Instant> {
        let expected = self.expected?;
        let opens = expected.checked_sub(EARLY)?;
        let next = match self.sent {
            Some(sent) if sent >= opens => sent + OFTEN.mul_f64(0.95),
            _ => opens,
        };
        (next <= expected + LATE).then_some(next)
    }

    /// Begins a fetch if one is due at `now`, and returns whether it did. The caller must then ask
    /// the source and call [`Self::handle_answer`] or [`Self::handle_failure`]. At most one is out
    /// at a time; false also while one is.
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

    /// Handles the answer to the fetch that was out, and plans the next one. `ttl` is the time
    /// until the next rotation (Vault's `ttl`), `None` when the source names none, zero when it is
    /// overdue. `fresh` says that the answer was a new generation. Ends staleness and pauses.
    /// Requests from before the fetch was sent are satisfied. The next poll is about 90 to 100 % of
    /// the interval after this one was sent, 10 to 100 % the first time.
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

    /// Handles the failure of the fetch that was out: the next one follows after a growing pause,
    /// 0.5 s to at most 30 s or the poll interval. `retry_after` is the pause for which the source
    /// asked (Retry-After), at most 30 s of which are kept. The role is stale from the first
    /// failure on. The pause doubles, is cut by up to 20 % at random, and is at most 2 s for 30 s
    /// after a refusal. Requests of clients and operators are dropped.
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

    /// Ends the fetch that was out; returns when it was sent.
    fn ended(&mut self, now: Instant) -> Instant {
        self.in_flight = false;
        self.sent.unwrap_or(now)
    }

    /// Requests a fetch for an event at `now`; only a fetch that begins later satisfies it. A pause
    /// after failures is cut to 1 s after the last fetch. Returns false only for
    /// [`FetchCause::StandIn`] when its limit is used up: no fetch comes for it. A pause for which
    /// the source itself asked (Retry-After) is kept.
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

    /// Whether a fetch for clients with unknown passwords is still to be sent; it serves later ones
    /// too.
    fn awaits_mismatch_fetch(&self) -> bool {
        let sent = self.sent.filter(|_| self.in_flight);
        self.mismatch.is_some_and(|mismatch| sent.is_none_or(|sent| mismatch.came > sent))
    }

    /// The request of clients with unknown passwords that no answer has satisfied yet: when it
    /// came, and when its fetch may be sent. `None` when there is none. Both are times by the
    /// caller's clock; the second may be later when [`MISMATCHES`] is used up. Later clients share
    /// the request until its fetch begins.
    #[must_use]
    pub fn mismatched(&self) -> Option<(Instant, Instant)> {
        self.mismatch.map(|mismatch| (mismatch.came, mismatch.ready))
    }

    /// Whether a server has refused the newest password and no fetch that was sent later has been
    /// answered: the answer may be a newer password. False again 30 s after the refusal if fetches
    /// fail.
    #[must_use]
    pub const fn awaits_refusals_answer(&self) -> bool {
        self.refused_at.is_some()
    }

    /// Whether the next rotation is expected within 15 s before or after `now`, or the source calls
    /// it overdue. False when no time is known.
    #[must_use]
    pub fn is_rotation_due(&self, now: Instant) -> bool {
        let near = |at: Instant| now + DUE >= at && at + DUE >= now;
        self.overdue || self.expected.is_some_and(near)
    }

    /// Time until the next expected rotation; zero when it is due or late, `None` when the source
    /// does not say when it rotates.
    #[must_use]
    pub fn until_rotation(&self, now: Instant) -> Option<Duration> {
        self.expected.map(|at| at.saturating_duration_since(now))
    }

    /// Time of the first failed fetch since the last answer; `None` when the last fetch was
    /// answered. Also `None` before the first fetch has ended.
    #[must_use]
    pub const fn stale_since(&self) -> Option<Instant> {
        self.stale_since
    }

    /// Whether a fetch has begun and was not answered yet.
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
