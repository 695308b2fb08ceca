//! Which password is shown to one node of a database.
//!
//! The newest, unless this node refused it; then the one last accepted there; then the previous.
//! One pass, then a pause, after which the newest is tried again.

use std::time::{Duration, Instant};

use pgimbal_config::Backoff;

/// The first pause after a pass in which the node accepted nothing; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause after such passes.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long after a refusal the newest password is tried again while an older one works: a standby
/// may get the change late. It doubles up to [`NEWEST_SELDOM`].
const NEWEST_AGAIN: Duration = Duration::from_secs(1);
/// The longest pause between attempts with the newest password, since each one is a failed login in
/// the server's log.
const NEWEST_SELDOM: Duration = Duration::from_secs(30);

/// How often all passwords are tried while none works; in between only the newest is.
const FULL_PASS: Duration = Duration::from_secs(30);

/// The generations, by number, from which [`Node::pick`] chooses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choices<'a> {
    /// The newest generation.
    pub(super) newest: u32,
    /// The generation before the newest; `None` when there is none.
    pub(super) previous: Option<u32>,
    /// Generations that the source returned after the newest with an older date, the latest first.
    pub(super) candidates: &'a [u32],
}

/// The choice of a password for a login at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// Show this generation; other logins may show it at the same time.
    Try(u32),
    /// Show this generation, of which the node's opinion is unknown; no other login tries a new one
    /// meanwhile.
    Probe(u32),
    /// Another login tries a password now; wait for its outcome.
    Busy,
    /// The node refuses every password; nothing is tried before this moment.
    Exhausted(Instant),
}

/// One node's answers to the passwords of one role, and the pauses between attempts there.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The generation that the node accepted last; `None` when it has accepted none.
    accepted: Option<u32>,
    /// The generations that it refused since this pass began.
    refused: Vec<u32>,
    /// Whether this pass tries only the newest generation.
    narrow: bool,
    /// The generation that one login is trying out now.
    probing: Option<u32>,
    /// When the newest generation, which the node refused, is tried again although an older one
    /// works.
    newest_again: Option<Instant>,
    newest_pause: Backoff,
    retry_at: Instant,
    pause: Backoff,
    full_at: Instant,
    failing_since: Option<Instant>,
    used_at: Instant,
}

impl Node {
    /// Makes the record of a node at which nothing was tried yet.
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

    /// Chooses what a login shows at `now`. A [`Pick::Probe`] must be followed by
    /// [`Self::handle_accepted`], [`Self::handle_refused`] or [`Self::end_probe`], or all others
    /// wait.
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

    /// The generation last accepted, unless the node has refused it since.
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

    /// Records that the node has accepted generation `number`, while `newest` is the newest. Ends
    /// the failing state and resets the pauses. An older one that is accepted late changes nothing.
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

    /// Records that the node has refused generation `number`. When nothing is left to try, the node
    /// is failing and the next pass is allowed after a pause of 200 ms to 2 s.
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

    /// Ends the attempt with generation `number` without an outcome: the server has not checked it.
    pub(super) fn end_probe(&mut self, number: u32) {
        if self.probing == Some(number) {
            self.probing = None;
        }
    }

    /// Called when the source has returned a password that this node has not seen: the newest may
    /// be tried at once, and pauses start from the shortest.
    pub(super) fn learned(&mut self) {
        self.newest_again = None;
        self.newest_pause.reset();
        self.pause.reset();
    }

    /// Replaces the number of a generation whose password came back; its refusal is forgotten.
    pub(super) fn renumber(&mut self, from: u32, to: u32) {
        if self.accepted == Some(from) {
            self.accepted = Some(to);
        }
        self.end_probe(from);
        self.refused.retain(|number| *number != from);
    }

    /// The generation that the node accepted last; `None` when it has accepted none.
    pub(super) const fn last_accepted(&self) -> Option<u32> {
        self.accepted
    }

    /// Whether the node refused generation `number` in this pass, or it is the newest and an older
    /// one works here instead.
    pub(super) fn refuses(&self, number: u32, newest: u32) -> bool {
        self.refused.contains(&number) || number == newest && self.newest_again.is_some()
    }

    /// Since when every password is refused at the node; `None` when one works or nothing was
    /// tried.
    pub(super) const fn failing_since(&self) -> Option<Instant> {
        self.failing_since
    }

    /// When a login at the node was last planned.
    pub(super) const fn used_at(&self) -> Instant {
        self.used_at
    }
}
