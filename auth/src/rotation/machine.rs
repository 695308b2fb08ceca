//! One role's passwords: what the source said, what the servers think of it, and what follows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use pgimbal_config::Secret;

use super::generation::{Generation, Moment};
use super::node::{Choices, Node, Pick};
use super::schedule::{FetchCause, Schedule};
use crate::SourcePassword;

/// How long a login at a server may be held for a password that works.
pub(super) const HOLD: Duration = Duration::from_secs(30);

/// Generations that are kept for no other reason than that they were seen lately.
const KEPT: usize = 4;

/// Nodes that are remembered; a cluster has a few, and a name may lead to others over time.
const NODES: usize = 64;

/// What a server login should do.
#[derive(Clone, Debug)]
pub enum LoginPlan {
    /// Show this password, and tell what came of it.
    Try {
        /// The generation's number, for the report.
        generation: u32,
        /// The password.
        password: Secret,
    },
    /// Wait for news, and ask again then or at this moment.
    Wait(Instant),
    /// Nothing works and waiting is not worth it.
    GiveUp(GiveUp),
}

/// Why a login is given up without a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// The source has never said a password.
    Unknown,
    /// The server refuses every password; the next try is at this moment.
    Refused(Instant),
}

/// What an answer of the source meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// A new generation, the newest from now on.
    Rotated(u32),
    /// Nothing new.
    Same,
    /// It was known before what is known and works: the source lags.
    Ignored,
    /// It seems older than what is known and works, and was never seen: the source lags, or the
    /// clock of the one that made the newest is ahead. It is tried when somebody proves to know it.
    Older(u32),
    /// It seems older than what is known, but that is refused: it is worth a try.
    Candidate(u32),
}

/// The rotation of one role.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// In the order in which they were seen.
    generations: Vec<Generation>,
    newest: Option<u32>,
    previous: Option<u32>,
    next_number: u32,
    nodes: BTreeMap<Box<str>, Node>,
    /// When its source is asked.
    pub schedule: Schedule,
    /// When a password was first missed.
    missed_since: Option<Instant>,
}

impl Rotation {
    /// A role of which no password is known. Its generations are numbered from `first_number` on.
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

    /// Takes a password over from before a restart, the older ones first. It has worked then.
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

    /// Another source tells the passwords from now on. What is known stays in use; its dates are
    /// no measure of what the new one says.
    pub fn handle_source_change(&mut self, now: Instant) {
        self.generations.iter_mut().for_each(|generation| generation.rotated_at = None);
        self.schedule.restart(now);
    }

    /// The source has answered the fetch that was out.
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

    fn add(&mut self, password: Secret, rotated_at: Option<SystemTime>, wall: SystemTime) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        let (first_seen, proven) = (wall, false);
        self.generations.push(Generation { number, rotated_at, password, first_seen, proven });
        number
    }

    fn make_newest(&mut self, number: u32) {
        if self.newest != Some(number) {
            self.previous = self.newest;
            self.newest = Some(number);
        }
    }

    /// A password that was known before has come back under a new number.
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

    /// What a login at `node` should do now. [`LoginPlan::Try`] must be followed by
    /// [`Self::accepted`], [`Self::refused`] or [`Self::abandoned`].
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

    /// A password that has once worked is expected to do so again; one that never did only when a
    /// rotation is due.
    fn is_worth_holding(&self, now: Instant) -> bool {
        self.generations.iter().any(|generation| generation.proven)
            || self.schedule.is_rotation_due(now)
    }

    /// A server has accepted a password. The number of a generation that is the newest from now on
    /// because of it: the source said it last, and the server that refuses the newest takes it.
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

    /// A server has accepted a [`Learned::Older`] password that somebody proves to know: it is the
    /// newest from now on. Whether that is news.
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

    /// Whether the source told a generation after the newest, with an older date.
    #[must_use]
    pub fn is_older(&self, number: u32) -> bool {
        self.newest.is_some_and(|newest| number > newest)
    }

    /// A server has refused a password at `now`.
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

    /// A login has ended before the server checked the password.
    pub fn handle_abandoned(&mut self, node: &str, number: u32) {
        if let Some(state) = self.nodes.get_mut(node) {
            state.end_probe(number);
        }
    }

    /// What came after the newest and is not it, the latest first.
    fn candidates(&self) -> Vec<u32> {
        let newest = self.newest.unwrap_or_default();
        let numbers = self.generations.iter().rev().map(|generation| generation.number);
        numbers.filter(|number| *number > newest).collect()
    }

    /// Drops generations that nobody can need: neither newest nor previous, accepted nowhere, and
    /// not seen lately.
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

    fn make_room(&mut self) {
        if self.nodes.len() < NODES {
            return;
        }
        let oldest = self.nodes.iter().min_by_key(|(_, node)| node.used_at());
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.nodes.remove(&name);
        }
    }

    /// The newest generation.
    #[must_use]
    pub fn newest(&self) -> Option<&Generation> {
        self.newest.and_then(|number| self.generation(number))
    }

    /// The generation before the newest.
    #[must_use]
    pub fn previous(&self) -> Option<&Generation> {
        self.previous.and_then(|number| self.generation(number))
    }

    /// The generation with this number, while it is kept.
    #[must_use]
    pub fn generation(&self, number: u32) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.number == number)
    }

    /// Nodes at which no password has worked last, and since when.
    pub fn failing(&self) -> impl Iterator<Item = (&str, Instant)> {
        self.nodes.iter().filter_map(|(name, node)| Some((&**name, node.failing_since()?)))
    }

    /// Those of them that were shown the newest: of another nobody knows yet whether it works.
    pub fn refusing_newest(&self) -> impl Iterator<Item = &str> {
        let newest = self.newest.unwrap_or_default();
        let nodes = self.nodes.iter().filter(move |(_, node)| node.refuses(newest, newest));
        nodes.filter(|(_, node)| node.failing_since().is_some()).map(|(name, _)| &**name)
    }

    /// Whether a password worked there before, so that its refusal is news.
    #[must_use]
    pub fn has_worked(&self) -> bool {
        self.generations.iter().any(|generation| generation.proven)
    }

    /// How many passwords are known.
    #[must_use]
    pub const fn known(&self) -> usize {
        self.generations.len()
    }

    /// Every node that was logged in to.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(|name| &**name)
    }
}
