//! Which password is shown to one node of a database.
//!
//! The newest, unless this node refused it; then the one last accepted there; then the previous.
//! One pass, then a pause, after which the newest is tried again.

use std::time::{Duration, Instant};

use pgimbal_config::Backoff;

/// The first pause after a pass in which nothing was accepted; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Its longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long after a refusal the newest is tried again while an older one works: a node that
/// replays what others have got long ago. It doubles.
const NEWEST_AGAIN: Duration = Duration::from_secs(1);
/// Its longest: each try is a failed login in the server's log.
const NEWEST_SELDOM: Duration = Duration::from_secs(30);

/// How often everything is tried while nothing works; in between only the newest is.
const FULL_PASS: Duration = Duration::from_secs(30);

/// What there is to choose from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choices<'a> {
    pub(super) newest: u32,
    pub(super) previous: Option<u32>,
    /// What the source said after the newest and with an older date, the latest first.
    pub(super) candidates: &'a [u32],
}

/// What to do at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// Show this one; others may do so at the same time.
    Try(u32),
    /// Show this one, and nobody else meanwhile.
    Probe(u32),
    /// Somebody is finding out; wait for that.
    Busy,
    /// Nothing is worth a try before this moment.
    Exhausted(Instant),
}

/// One node's answers to the passwords of one role.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The last one that it accepted.
    accepted: Option<u32>,
    /// Those that it refused since this pass began.
    refused: Vec<u32>,
    /// Whether this pass is for the newest only.
    narrow: bool,
    /// The one that is being tried.
    probing: Option<u32>,
    /// When the newest, which it refused, is tried again although an older one works.
    newest_again: Option<Instant>,
    newest_pause: Backoff,
    retry_at: Instant,
    pause: Backoff,
    full_at: Instant,
    failing_since: Option<Instant>,
    used_at: Instant,
}

impl Node {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            accepted: None,
            refused: Vec::new(),
            narrow: false,
            probing: None,
            newest_again: None,
            newest_pause: Backoff::new(NEWEST_AGAIN),
            retry_at: now,
            pause: Backoff::new(FIRST_PAUSE),
            full_at: now,
            failing_since: None,
            used_at: now,
        }
    }

    /// What to show now. A [`Pick::Probe`] must be followed by its outcome.
    pub(super) fn pick(&mut self, choices: Choices<'_>, now: Instant) -> Pick {
        self.used_at = now;
        let choice = self.choose(choices, now).or_else(|| {
            let again = self.probing.is_none() && now >= self.retry_at;
            again
                .then(|| self.begin_pass(choices.newest, now))
                .and_then(|()| self.choose(choices, now))
        });
        let works = self.working();
        match choice {
            None if self.probing.is_some() => Pick::Busy,
            None => Pick::Exhausted(self.retry_at),
            Some(choice) if Some(choice) == works => Pick::Try(choice),
            Some(choice) if self.probing.is_none() => {
                self.probing = Some(choice);
                Pick::Probe(choice)
            }
            // While one finds out, the others use what works.
            Some(_) => works.map_or(Pick::Busy, Pick::Try),
        }
    }

    fn choose(&self, choices: Choices<'_>, now: Instant) -> Option<u32> {
        let open = |number: &u32| !self.refused.contains(number);
        let works = self.working();
        let newest_is_open = match works {
            Some(works) if works == choices.newest => true,
            Some(_) => self.newest_again.is_none_or(|at| now >= at),
            None => open(&choices.newest),
        };
        if newest_is_open {
            return Some(choices.newest);
        }
        let candidate = choices.candidates.iter().copied().find(open);
        let previous = choices.previous.filter(|_| !self.narrow).filter(open);
        candidate.or(works).or(previous)
    }

    /// The one last accepted, unless it was refused since.
    fn working(&self) -> Option<u32> {
        self.accepted.filter(|number| !self.refused.contains(number))
    }

    fn begin_pass(&mut self, newest: u32, now: Instant) {
        self.refused.clear();
        self.narrow = self.failing_since.is_some() && now < self.full_at;
        if !self.narrow {
            self.full_at = now + FULL_PASS;
        }
        if self.narrow {
            // Refused in an earlier pass: it waits for a whole one.
            self.refused.extend(self.accepted.filter(|number| *number != newest));
        }
    }

    /// The node has accepted a password.
    pub(super) fn handle_accepted(&mut self, number: u32, newest: u32) {
        self.end_probe(number);
        let late = number != newest && self.working() == Some(newest);
        if late {
            return;
        }
        self.accepted = Some(number);
        self.refused.clear();
        self.narrow = false;
        self.failing_since = None;
        self.pause.reset();
        if number == newest {
            self.newest_again = None;
            self.newest_pause.reset();
        }
    }

    /// The node has refused a password.
    pub(super) fn handle_refused(&mut self, number: u32, choices: Choices<'_>, now: Instant) {
        self.end_probe(number);
        if self.working() == Some(number) && number != choices.newest {
            // What stood in for the newest is over: the node may have caught up.
            self.refused.clear();
            self.newest_again = None;
        }
        if !self.refused.contains(&number) {
            self.refused.push(number);
        }
        if number == choices.newest {
            self.newest_again = Some(now + self.newest_pause.grow(NEWEST_SELDOM));
        }
        let exhausted = self.probing.is_none() && self.choose(choices, now).is_none();
        // Several that were out at once are refused together, and once for all.
        if exhausted && (self.failing_since.is_none() || now >= self.retry_at) {
            if self.failing_since.is_none() {
                self.full_at = now + FULL_PASS;
            }
            self.failing_since.get_or_insert(now);
            self.retry_at = now + self.pause.grow(LONGEST_PAUSE);
        }
    }

    /// An attempt has ended before the password was checked.
    pub(super) fn end_probe(&mut self, number: u32) {
        if self.probing == Some(number) {
            self.probing = None;
        }
    }

    /// There is a password that this node has not seen.
    pub(super) fn learned(&mut self) {
        self.newest_again = None;
        self.newest_pause.reset();
        self.pause.reset();
    }

    /// A generation has got another number.
    pub(super) fn renumber(&mut self, from: u32, to: u32) {
        if self.accepted == Some(from) {
            self.accepted = Some(to);
        }
        self.end_probe(from);
        self.refused.retain(|number| *number != from);
    }

    /// The last one that it accepted.
    pub(super) const fn last_accepted(&self) -> Option<u32> {
        self.accepted
    }

    /// Whether it refuses this one now.
    pub(super) fn refuses(&self, number: u32, newest: u32) -> bool {
        self.refused.contains(&number) || number == newest && self.newest_again.is_some()
    }

    /// Since when no password works there.
    pub(super) const fn failing_since(&self) -> Option<Instant> {
        self.failing_since
    }

    /// When it was last asked for.
    pub(super) const fn used_at(&self) -> Instant {
        self.used_at
    }
}
