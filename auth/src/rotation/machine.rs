//! The passwords of one role: which generations the source has returned, which of them the servers
//! accept, and which one a login at a server shows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use pgimbal_config::Secret;

use super::generation::{Generation, Moment};
use super::node::{Choices, Node, Pick};
use super::schedule::{FetchCause, Schedule};
use crate::SourcePassword;

/// How long a login at a server may be held for a password that works.
pub(super) const HOLD: Duration = Duration::from_secs(30);

/// Number of the last generations that are kept even if no node needs them.
const KEPT: usize = 4;

/// Number of nodes whose answers are kept for a role. A cluster has a few, but a name may lead to
/// other nodes over time.
const NODES: usize = 64;

/// What a login at a server should do next, from [`Rotation::plan_login`].
#[derive(Clone, Debug)]
pub enum LoginPlan {
    /// Log in with this password, and report the outcome with [`Rotation::handle_accepted`],
    /// [`Rotation::handle_refused`] or [`Rotation::handle_abandoned`].
    Try {
        /// Number of the generation, for the report.
        generation: u32,
        /// The password to log in with.
        password: Secret,
    },
    /// Wait until something about the role changes, at most until this moment (30 s ahead or less),
    /// and plan the login again. The reason is that no password is known yet, another login tries
    /// one at this node, or the node refuses all and a newer one may come.
    Wait(Instant),
    /// Fail the login now: no password works, and waiting longer is of no use.
    GiveUp(GiveUp),
}

/// The reason for which a login at a server fails without an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// The source has returned no password since the start, and 30 s have passed since the first
    /// login that needed one.
    Unknown,
    /// The node refuses every password that may be tried; the next attempt is allowed at this
    /// moment (200 ms to 2 s after the last pass).
    Refused(Instant),
}

/// What an answer of the source means for the role, from [`Rotation::handle_answer`]. The numbers
/// are those of generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The password is new and has become the newest generation, which has this number.
    Rotated(u32),
    /// The password is that of the newest generation; only its date may have changed.
    Same,
    /// The password is dated before the newest one and was already known: the source lags (a
    /// performance standby, an old file). Nothing changes.
    Ignored,
    /// The password is dated before the newest one, and no node refuses the newest: the source
    /// lags, or the clock of the Vault that made the newest is ahead. It is kept under this number,
    /// and becomes the newest only by [`Rotation::promote_older`], after a client has proved that
    /// it knows it.
    Older(u32),
    /// The password is dated before the newest one and was never seen, and a node refuses the
    /// newest. It is kept under this number; the next login at such a node tries it.
    Candidate(u32),
}

/// The rotation of one role's password: its generations, each node's answers to them, and the
/// schedule by which the source is asked. It does no input or output and has no clock; callers give
/// the time. The credentials' task of pgimbal owns one per role.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The generations in the order in which they were seen, at most the needed ones and [`KEPT`]
    /// more.
    generations: Vec<Generation>,
    newest: Option<u32>,
    previous: Option<u32>,
    next_number: u32,
    nodes: BTreeMap<Box<str>, Node>,
    /// When the source of this role is asked next.
    pub schedule: Schedule,
    /// Time of the first login that found no password; `None` when an answer has come since.
    missed_since: Option<Instant>,
}

impl Rotation {
    /// Makes the rotation of a role of which no password is known yet. Its first generation gets
    /// the number `first_number`, so that numbers go on where a stored history ended. Until the
    /// first answer, logins wait up to 30 s. `schedule` plans the fetches; the caller makes them.
    #[must_use]
    pub const fn new(schedule: Schedule, first_number: u32) -> Self {
        Self {
            generations: Vec::new(),
            newest: None,
            previous: None,
            next_number: first_number,
            nodes: BTreeMap::new(),
            schedule,
            missed_since: None,
        }
    }

    /// Adds a password from the password cache at the start, and returns its number. It becomes the
    /// newest generation, so the older ones must be added first. It counts as accepted by a server
    /// before. `rotated_at` is its stored date, `None` when it has none.
    pub fn remember(
        &mut self,
        password: Secret,
        rotated_at: Option<SystemTime>,
        now: Moment,
    ) -> u32 {
        let number = self.add(password, rotated_at, now.wall);
        if let Some(generation) = self.generations.last_mut() {
            generation.proven = true;
        }
        self.make_newest(number);
        number
    }

    /// Takes the next number, for a generation that is known from another replica only, so that no
    /// other has it.
    pub const fn take_number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Begins to ask another source, after a reload has changed the role's source. The known
    /// passwords stay in use. Their dates are dropped, since they cannot be compared with those of
    /// the new source, and a fetch is due at `now`. The nodes' answers are kept; an answer of the
    /// former source that comes later must be ignored by the caller.
    pub fn handle_source_change(&mut self, now: Instant) {
        self.generations.iter_mut().for_each(|generation| generation.rotated_at = None);
        self.schedule.restart(now);
    }

    /// Handles the answer to the fetch that [`Schedule::begin_fetch`] began: adds the password if
    /// it is new, plans the next fetch, and drops generations that are no longer needed. Waiting
    /// logins must be planned again unless it returns [`Learned::Same`] or [`Learned::Ignored`].
    pub fn handle_answer(&mut self, answer: &SourcePassword, now: Moment) -> Learned {
        let learned = self.learn(answer, now);
        let fresh = matches!(learned, Learned::Rotated(_) | Learned::Candidate(_));
        self.schedule.handle_answer(now.instant, answer.ttl, fresh);
        if fresh {
            self.nodes.values_mut().for_each(Node::learned);
        }
        self.missed_since = None;
        self.forget_old();
        learned
    }

    fn learn(&mut self, answer: &SourcePassword, now: Moment) -> Learned {
        let known = self.generations.iter().position(|g| g.password == answer.password);
        let Some(newest) = self.newest().cloned() else {
            let number = self.add(answer.password.clone(), answer.rotated_at, now.wall);
            self.make_newest(number);
            return Learned::Rotated(number);
        };
        if newest.password == answer.password {
            if let (Some(known), Some(at)) = (known, answer.rotated_at) {
                self.generations[known].rotated_at = Some(at);
            }
            return Learned::Same;
        }
        let seems_older = match (answer.rotated_at, newest.rotated_at) {
            (Some(answered), Some(known)) => answered < known,
            _ => false,
        };
        if seems_older {
            let known = known.map(|index| self.generations[index].number);
            if known.is_some_and(|known| known < newest.number) {
                return Learned::Ignored;
            }
            let works = self.newest_works();
            return match known {
                Some(known) if works => Learned::Older(known),
                // A login that needs it tries it.
                Some(_) => Learned::Ignored,
                None => {
                    let number = self.add(answer.password.clone(), answer.rotated_at, now.wall);
                    if works { Learned::Older(number) } else { Learned::Candidate(number) }
                }
            };
        }
        let number = self.add(answer.password.clone(), answer.rotated_at, now.wall);
        if let Some(known) = known {
            self.replace(known, number);
        }
        self.make_newest(number);
        Learned::Rotated(number)
    }

    /// Whether no node refuses the newest password.
    fn newest_works(&self) -> bool {
        let Some(newest) = self.newest else { return false };
        !self.nodes.values().any(|node| node.refuses(newest, newest))
    }

    /// Adds a generation with the next number, and returns that.
    fn add(&mut self, password: Secret, rotated_at: Option<SystemTime>, wall: SystemTime) -> u32 {
        let number = self.take_number();
        let (first_seen, proven) = (wall, false);
        self.generations.push(Generation { number, rotated_at, password, first_seen, proven });
        number
    }

    /// Makes a generation the newest; the former newest becomes the previous one.
    fn make_newest(&mut self, number: u32) {
        if self.newest != Some(number) {
            self.previous = self.newest;
            self.newest = Some(number);
        }
    }

    /// Drops a generation whose password has come back under `number`, in the nodes' answers as
    /// well.
    fn replace(&mut self, index: usize, number: u32) {
        let old = self.generations.remove(index);
        for node in self.nodes.values_mut() {
            node.renumber(old.number, number);
        }
        if self.previous == Some(old.number) {
            self.previous = None;
        }
        if let Some(generation) = self.generations.last_mut() {
            generation.proven = old.proven;
        }
    }

    /// Decides what a login at `node` (host and port as text) does at `now`. The caller must report
    /// the outcome of [`LoginPlan::Try`] by [`Self::handle_accepted`], [`Self::handle_refused`] or
    /// [`Self::handle_abandoned`], because other logins at the node may wait for it. A node that is
    /// not known yet is added; beyond 64 nodes, the one used longest ago is dropped.
    pub fn plan_login(&mut self, node: &str, now: Instant) -> LoginPlan {
        let Some(newest) = self.newest else {
            let since = *self.missed_since.get_or_insert(now);
            return match now < since + HOLD {
                true => LoginPlan::Wait(since + HOLD),
                false => LoginPlan::GiveUp(GiveUp::Unknown),
            };
        };
        let candidates = self.candidates();
        let choices = Choices { newest, previous: self.previous, candidates: &candidates };
        if !self.nodes.contains_key(node) {
            self.make_room();
            self.nodes.insert(node.into(), Node::new(now));
        }
        let Some(state) = self.nodes.get_mut(node) else { return LoginPlan::Wait(now) };
        let pick = state.pick(choices, now);
        let held_until = state.failing_since().map(|since| since + HOLD);
        match pick {
            Pick::Try(number) | Pick::Probe(number) => match self.generation(number) {
                Some(generation) => {
                    LoginPlan::Try { generation: number, password: generation.password.clone() }
                }
                None => LoginPlan::Wait(now),
            },
            Pick::Busy => LoginPlan::Wait(now + HOLD),
            Pick::Exhausted(retry_at) => match held_until.filter(|until| now < *until) {
                Some(until) if self.is_worth_holding(now) => LoginPlan::Wait(retry_at.min(until)),
                // It may have rotated since it was read: the source has the last word.
                Some(until) if self.schedule.awaits_refusals_answer() => LoginPlan::Wait(until),
                _ => LoginPlan::GiveUp(GiveUp::Refused(retry_at)),
            },
        }
    }

    /// Whether a login may be held although a node refuses everything: some password has worked
    /// before, or a rotation is due about now.
    fn is_worth_holding(&self, now: Instant) -> bool {
        self.generations.iter().any(|generation| generation.proven)
            || self.schedule.is_rotation_due(now)
    }

    /// Records that the server `node` has accepted generation `number`. Returns `Some(number)` when
    /// that generation has become the newest: it is a [`Learned::Candidate`] or [`Learned::Older`]
    /// one, and this node refuses the newest. `None` otherwise, also for a generation or node that
    /// was dropped. A generation that is still known counts as proven from now on. Waiting logins
    /// at the node must be planned again.
    pub fn handle_accepted(&mut self, node: &str, number: u32) -> Option<u32> {
        let newest = self.newest?;
        let generation = self.generations.iter_mut().find(|g| g.number == number)?;
        generation.proven = true;
        let state = self.nodes.get_mut(node)?;
        let promoted = number > newest && state.refuses(newest, newest);
        if promoted {
            state.handle_accepted(number, number);
            self.make_newest(number);
            return Some(number);
        }
        state.handle_accepted(number, newest);
        None
    }

    /// Makes a [`Learned::Older`] password the newest, after a client has shown it and the server
    /// `node` has accepted it. Every node may then be tried with it at once, and pauses between
    /// attempts start from the shortest; `node` is noted as having accepted it, unless it was
    /// dropped. Returns false, without effect, when `number` is not larger than the newest's or was
    /// dropped.
    pub fn promote_older(&mut self, node: &str, number: u32) -> bool {
        let is_newer = self.newest.is_some_and(|newest| number > newest);
        let generation = self.generations.iter_mut().find(|g| g.number == number);
        let Some(generation) = generation.filter(|_| is_newer) else { return false };
        generation.proven = true;
        self.make_newest(number);
        self.nodes.values_mut().for_each(Node::learned);
        if let Some(state) = self.nodes.get_mut(node) {
            state.handle_accepted(number, number);
        }
        true
    }

    /// Whether generation `number` came after the newest from the source, but with an older date
    /// ([`Learned::Older`] or [`Learned::Candidate`]). False when no password is known. Numbers
    /// that were never given count as well when they are larger than the newest's.
    #[must_use]
    pub fn is_older(&self, number: u32) -> bool {
        self.newest.is_some_and(|newest| number > newest)
    }

    /// Records that the server `node` has refused generation `number` at `now` (28P01 or 28000).
    /// When it is the newest, a fetch is requested ([`FetchCause::Refusal`]). Logins at this node
    /// get another password, or wait for the next attempt.
    pub fn handle_refused(&mut self, node: &str, number: u32, now: Instant) {
        let Some(newest) = self.newest else { return };
        let candidates = self.candidates();
        let choices = Choices { newest, previous: self.previous, candidates: &candidates };
        if let Some(state) = self.nodes.get_mut(node) {
            state.handle_refused(number, choices, now);
        }
        if number == newest {
            self.schedule.request_fetch(FetchCause::Refusal, now);
        }
    }

    /// Records that a login at `node` ended before the server checked the password, for example
    /// because the network failed. Another login may try generation `number` then. No effect for an
    /// unknown node, or when another generation is being tried there. Waiting logins must be
    /// planned again.
    pub fn handle_abandoned(&mut self, node: &str, number: u32) {
        if let Some(state) = self.nodes.get_mut(node) {
            state.end_probe(number);
        }
    }

    /// Numbers of the generations that came after the newest with an older date, the latest first.
    fn candidates(&self) -> Vec<u32> {
        let newest = self.newest.unwrap_or_default();
        let numbers = self.generations.iter().rev().map(|generation| generation.number);
        numbers.filter(|number| *number > newest).collect()
    }

    /// Drops generations that no login can need: neither newest nor previous, not the last that
    /// some node accepted, and not among the last [`KEPT`].
    fn forget_old(&mut self) {
        let needed: Vec<u32> = self
            .nodes
            .values()
            .filter_map(Node::last_accepted)
            .chain(self.newest)
            .chain(self.previous)
            .collect();
        let lately = self.generations.len().saturating_sub(KEPT);
        let mut index = 0;
        self.generations.retain(|generation| {
            index += 1;
            index > lately || needed.contains(&generation.number)
        });
    }

    /// Drops the node that was used longest ago when there are [`NODES`] of them.
    fn make_room(&mut self) {
        if self.nodes.len() < NODES {
            return;
        }
        let oldest = self.nodes.iter().min_by_key(|(_, node)| node.used_at());
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.nodes.remove(&name);
        }
    }

    /// The newest generation; `None` until the source has returned a password. A password that was
    /// [`Self::remember`]ed counts too. Logins show it first.
    #[must_use]
    pub fn newest(&self) -> Option<&Generation> {
        self.newest.and_then(|number| self.generation(number))
    }

    /// The generation that was the newest before the present one; `None` until a second password
    /// came, and when its password came back under a new number or was dropped. A login may show it
    /// at a node that refuses the newest.
    #[must_use]
    pub fn previous(&self) -> Option<&Generation> {
        self.previous.and_then(|number| self.generation(number))
    }

    /// The generation with this number; `None` when there was none or it was dropped. Kept are at
    /// least the last 4, the newest, the previous, and each that some node accepted last.
    #[must_use]
    pub fn generation(&self, number: u32) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.number == number)
    }

    /// Nodes that refuse every password tried, each with the time since when. Empty when all is
    /// well. They are in text order (host and port). A node leaves the list when it accepts a
    /// password.
    pub fn failing(&self) -> impl Iterator<Item = (&str, Instant)> {
        self.nodes.iter().filter_map(|(name, node)| Some((&**name, node.failing_since()?)))
    }

    /// Those of [`Self::failing`] that have refused the newest password. For the other failing
    /// nodes it is not known yet whether the newest works. They are in text order; empty when no
    /// password is known.
    pub fn refusing_newest(&self) -> impl Iterator<Item = &str> {
        let newest = self.newest.unwrap_or_default();
        let nodes = self.nodes.iter().filter(move |(_, node)| node.refuses(newest, newest));
        nodes.filter(|(_, node)| node.failing_since().is_some()).map(|(name, _)| &**name)
    }

    /// Whether some known password was ever accepted by a server. A refusal is then an event to be
    /// logged and alerted, not a password that was wrong from the start. True as well for one from
    /// the password cache; false when no password is known.
    #[must_use]
    pub fn has_worked(&self) -> bool {
        self.generations.iter().any(|generation| generation.proven)
    }

    /// Number of generations that are kept in memory, candidates included.
    #[must_use]
    pub const fn known(&self) -> usize {
        self.generations.len()
    }

    /// Names (host and port) of the nodes at which logins were planned, at most 64, in text order.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(|name| &**name)
    }
}
