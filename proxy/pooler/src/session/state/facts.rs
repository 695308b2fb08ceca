//! What is known of a database that decides what its statements may leave in a session.
//!
//! Two facts: whether DDL may run an event trigger, and whether `set_config` without its schema is
//! PostgreSQL's own. All workers share them. They come with every answer about a session, and hold
//! for 60 s. Where a statement needs them and they are not known, the server is asked ahead of it;
//! a database whose statements never need them is not asked.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::session::effect::Bytes;
use crate::sql::Kinds;

/// How long a fact is believed without being asked about again: somebody else may create an event
/// trigger, or a function, without pgimbal.
const LIFETIME: Duration = Duration::from_secs(60);

/// Names of custom settings that are remembered for a database; an application has a handful.
const CUSTOM_LIMIT: usize = 64;

/// Facts about one database, from the answers to questions: whether it has event triggers, whether
/// functions named `set_config` exist, custom settings, refused questions. All workers share them;
/// each call takes a mutex.
#[derive(Debug, Default)]
pub struct DatabaseFacts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    /// A statement of this database has depended on the two facts.
    wanted: bool,
    /// Names of custom settings that sessions have set.
    custom: BTreeSet<Bytes>,
    /// The kinds about which the server refuses to answer (42501).
    denied: Kinds,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    event_triggers: bool,
    other_set_config: bool,
    at: Instant,
}

impl DatabaseFacts {
    /// Stores at the time `at` whether the database has event triggers that are not disabled, and
    /// functions named `set_config` besides PostgreSQL's own: the server's answer, or the worst
    /// (both true) after an error. It holds for 60 s and replaces what was stored before.
    pub fn learn(&self, event_triggers: bool, other_set_config: bool, at: Instant) {
        self.with(|state| state.known = Some(Known { event_triggers, other_set_config, at }));
    }

    /// Notes that a statement (DDL, or `set_config` without its schema) depends on the two facts.
    /// Returns whether they are not known, or 60 s old or older, so that the server is to be asked
    /// before the statement runs. From now on [`Self::are_due`] asks ahead.
    pub fn want(&self, now: Instant) -> bool {
        self.with(|state| state.wanted = true);
        self.fresh(now).is_none()
    }

    /// Whether it is time to ask for the two facts again: they are not known, or within 15 s of
    /// being too old (60 s). False for a database whose statements have never depended on them
    /// ([`Self::want`]). Looked at when a session gets a server connection.
    #[must_use]
    pub fn are_due(&self, now: Instant) -> bool {
        self.with(|state| state.wanted) && self.fresh(now + LIFETIME / 4).is_none()
    }

    /// Remembers that sessions of this database set a custom setting of this name. At most 64 names
    /// are kept; further ones and known ones are dropped. The name is compared byte by byte: the
    /// caller gives it in lower case. They are never forgotten.
    pub fn remember_custom(&self, name: &[u8]) {
        self.with(|state| {
            if state.custom.len() < CUSTOM_LIMIT && !state.custom.contains(name) {
                state.custom.insert(name.into());
            }
        });
    }

    /// Calls `visit` with the name of each custom setting that sessions of this database have set,
    /// in the order of their bytes: unseen code is likely to set the same, so they are asked about
    /// after it. The mutex is held meanwhile: `visit` must not use these facts.
    pub fn each_custom(&self, visit: impl FnMut(&Bytes)) {
        self.with(|state| state.custom.iter().for_each(visit));
    }

    /// Forgets the two facts, because a statement (DDL with the word EVENT, EXTENSION or
    /// `set_config`) may change them; they count as not known until the server is asked again.
    /// Names of custom settings and refused kinds stay.
    pub fn forget(&self) {
        self.with(|state| state.known = None);
    }

    /// Whether DDL may run an event trigger; also true if that is not known, or 60 s old. If so,
    /// DDL counts as leaving any kind of state ([`Kinds::ANYTHING`]).
    #[must_use]
    pub fn may_have_event_triggers(&self, now: Instant) -> bool {
        self.fresh(now).is_none_or(|known| known.event_triggers)
    }

    /// Whether `set_config` without a schema is surely PostgreSQL's own; false if that is not
    /// known, or 60 s old. If false, a call is not followed as a SET: the server is asked for the
    /// settings afterwards.
    #[must_use]
    pub fn set_config_is_builtin(&self, now: Instant) -> bool {
        self.fresh(now).is_some_and(|known| !known.other_set_config)
    }

    /// Notes that the server refuses questions about `kinds` to this user (42501). Returns whether
    /// one of them was not noted before, and is then reported to the driver. The kinds are never
    /// asked about again.
    pub fn deny(&self, kinds: Kinds) -> bool {
        self.with(|state| {
            let news = !kinds.without(state.denied).is_empty();
            state.denied.insert(kinds);
            news
        })
    }

    /// The kinds of state about which the server refuses to answer; empty if none. A session that
    /// may have state of these kinds is pinned as unknown without being asked about them.
    #[must_use]
    pub fn denied(&self) -> Kinds {
        self.with(|state| state.denied)
    }

    fn fresh(&self, now: Instant) -> Option<Known> {
        let known = self.with(|state| state.known)?;
        (now.saturating_duration_since(known.at) < LIFETIME).then_some(known)
    }

    fn with<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        step(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_believed_before_it_is_told_nor_for_ever() {
        let (facts, now) = (DatabaseFacts::default(), Instant::now());
        assert!(facts.may_have_event_triggers(now) && !facts.set_config_is_builtin(now));
        facts.learn(false, false, now);
        assert!(!facts.may_have_event_triggers(now) && facts.set_config_is_builtin(now));
        let later = now + LIFETIME;
        assert!(facts.may_have_event_triggers(later) && !facts.set_config_is_builtin(later));
        facts.learn(false, false, later);
        facts.forget();
        assert!(facts.may_have_event_triggers(later));
    }

    #[test]
    fn who_needs_no_facts_is_not_asked_for_them() {
        let (facts, now) = (DatabaseFacts::default(), Instant::now());
        assert!(!facts.are_due(now));
        assert!(facts.want(now) && facts.are_due(now));
        facts.learn(false, false, now);
        assert!(!facts.want(now) && !facts.are_due(now));
        assert!(facts.are_due(now + LIFETIME - Duration::from_secs(1)));
    }

    #[test]
    fn a_refusal_is_news_once() {
        let facts = DatabaseFacts::default();
        assert!(facts.deny(Kinds::LOCKS));
        assert!(!facts.deny(Kinds::LOCKS));
        assert_eq!(facts.denied(), Kinds::LOCKS);
    }
}
