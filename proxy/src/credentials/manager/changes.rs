//! What comes in: answers of sources, verifiers that are made, and what servers think of passwords.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pgimbal_auth::rotation::{Learned, Moment};
use pgimbal_auth::{Answer, SourceError};
use pgimbal_pooler::server::credential::CredentialEvent;

use super::super::aside::Aside;
use super::super::derive::Derived;
use super::super::fetch::{self, Fetched};
use super::super::logs;
use super::super::role::{Role, is_away};
use super::{MAX_AWAITED, MAX_UNKNOWN, Outcome, Task, UNKNOWN_FOR, moment, tell};

impl Task {
    pub(super) fn fetched(&mut self, fetched: Fetched) {
        let now = moment();
        let Fetched { role: name, serial, sent, result, .. } = fetched;
        self.touch(&name);
        let Some(role) = self.roles.get_mut(&name) else { return };
        // One of a role that was dropped and made anew, or of a place that is its own no more.
        if role.asked.take_if(|asked| *asked == serial).is_none() {
            return;
        }
        role.last = Some((now.instant, fetch::label(&result)));
        match result {
            Ok(answer) => self.answered(&name, &answer, sent, now),
            Err(error) => {
                role.rotation.schedule.failed(now.instant, error.retry_after());
                let known = role.rotation.newest().is_some();
                let label = |error: &SourceError| error.result_label();
                if role.silence.as_ref().map(label) != Some(label(&error)) && role.is_listed {
                    logs::silent(&name, &error, known);
                }
                let away = is_away(&error);
                role.silence = Some(error);
                let kept = role.is_kept() || known || away && self.has_room_for_unknown();
                if !kept {
                    return self.forget(&name, now.instant);
                }
            }
        }
        let Some(role) = self.roles.get_mut(&name) else { return };
        // Clients that are told now look at it at once.
        if let Some(cause) = role.darkness() {
            self.shared.set_unavailable(Some(cause));
        }
        role.serve(now.instant);
        role.settle(now.instant);
    }

    /// The source has answered the question that was sent then.
    fn answered(&mut self, name: &Arc<str>, answer: &Answer, sent: Instant, now: Moment) {
        let Some(role) = self.roles.get_mut(name) else { return };
        if let Some(other) = role.other_name(answer).map(str::to_owned)
            && role.once("another name")
        {
            logs::other_name(name, &role.source.place(), &other);
        }
        end_silence(role, now.instant);
        match role.rotation.answered(answer, now) {
            Learned::Rotated(number) => {
                role.told.clear();
                role.aside = None;
                self.shared.set_aside(name, None);
                logs::rotated(name, &role.source.place(), number, false);
                tell(&self.workers, name, &CredentialEvent::Rotated);
                self.derivations.add_all(role.order(number, sent));
                self.memory.changed();
            }
            Learned::Same => {
                if role.rotation.refusing_newest().next().is_some() && role.once("contradicted") {
                    logs::contradicted(name, &role.source.place());
                }
                self.shared.took(sent.elapsed());
            }
            Learned::Ignored => {
                if role.once("lags") {
                    logs::lags(name, &role.source.place());
                }
            }
            Learned::SetAside(number) => {
                if role.once("lags") {
                    logs::lags(name, &role.source.place());
                }
                if role.aside.as_ref().is_none_or(|aside| aside.0 != number) {
                    role.aside = Some((number, None));
                    self.derivations.add_all(role.order(number, sent));
                }
            }
            Learned::Candidate(_) => {
                tell(&self.workers, name, &CredentialEvent::Candidate);
                self.memory.changed();
            }
        }
    }

    /// Whether one more name that may be anybody's is kept until its source is back.
    fn has_room_for_unknown(&self) -> bool {
        let unknown = |role: &&Role| !role.is_listed && role.rotation.newest().is_none();
        self.roles.values().filter(unknown).count() <= MAX_AWAITED
    }

    /// A name that only a rule knew, and its source does not.
    fn forget(&mut self, name: &str, now: Instant) {
        if let Some(role) = self.roles.get_mut(name) {
            role.settle(now);
        }
        self.drop_role(name);
        if self.unknown.len() < MAX_UNKNOWN {
            self.unknown.insert(name.into(), now + UNKNOWN_FOR);
        }
    }

    pub(super) fn derived(&mut self, derived: Derived) {
        let Derived { role: name, number, keys, since } = derived;
        self.touch(&name);
        let Some(role) = self.roles.get_mut(&name) else { return };
        role.deriving = role.deriving.saturating_sub(1);
        match keys {
            Ok(keys) if role.rotation.is_aside(number) => {
                if let Some(generation) = role.rotation.generation(number) {
                    let salting = role.accepted.salting().clone();
                    let password = generation.password.clone();
                    let auth_type = self.config.clients.auth_type;
                    let aside = Arc::new(Aside::new(auth_type, salting, number, password, keys));
                    role.aside = Some((number, Some(Arc::clone(&aside))));
                    self.shared.set_aside(&name, Some(aside));
                }
            }
            Ok(keys) => {
                role.learn(number, keys, SystemTime::now());
                self.shared.publish(&name, role.account(self.config.clients.auth_type));
                self.memory.changed();
                self.shared.took(since.elapsed());
            }
            Err(cause) => tracing::error!(user = &*name, "clients cannot show it: {cause}"),
        }
        role.settle(Instant::now());
        self.finish_revoking(&name);
    }

    /// What was set aside is the newest from now on: a node takes it.
    pub(super) fn believe(&mut self, user: &str, number: u32, node: &str) {
        self.touch(user);
        let Some(role) = self.roles.get_mut(user) else { return };
        let aside = role.aside.take_if(|aside| aside.0 == number);
        let Some((_, Some(aside))) = aside else { return };
        if !role.rotation.believe(node, number) {
            return;
        }
        logs::rotated(user, &role.source.place(), number, true);
        role.learn(aside.number(), aside.keys().clone(), SystemTime::now());
        tell(&self.workers, &role.name, &CredentialEvent::Rotated);
        self.shared.publish(user, role.account(self.config.clients.auth_type));
        self.shared.set_aside(user, None);
        self.memory.changed();
    }

    pub(super) fn report(
        &mut self,
        user: &str,
        node: &str,
        number: u32,
        outcome: Outcome,
        now: Instant,
    ) {
        self.touch(user);
        let Some(role) = self.roles.get_mut(user) else { return };
        match outcome {
            Outcome::Accepted => {
                role.logins.accepted(node);
                if let Some(at) = role.locked_out.iter().position(|known| **known == *node) {
                    role.locked_out.swap_remove(at);
                    logs::let_in(user, node);
                }
                let newest = role.rotation.newest().map(|newest| newest.number);
                if let Some(number) = role.rotation.accepted(node, number) {
                    logs::rotated(user, &role.source.place(), number, true);
                    tell(&self.workers, &role.name, &CredentialEvent::Rotated);
                    self.derivations.add_all(role.order(number, now));
                    self.memory.changed();
                } else if Some(number) != newest && role.once("fell back") {
                    logs::fell_back(user, node);
                }
            }
            Outcome::Refused(error) => {
                role.logins.refused(node, error);
                role.rotation.refused(node, number, now);
                let failing = role.rotation.failing().any(|(name, _)| name == node);
                if failing && !role.locked_out.iter().any(|known| **known == *node) {
                    role.locked_out.push(node.into());
                    let worked = role.rotation.has_worked();
                    logs::locked_out(user, node, worked, role.logins.refusal(node));
                }
            }
            Outcome::Abandoned => role.rotation.abandoned(node, number),
        }
        role.serve(now);
    }
}

/// The source answers again, if it did not.
fn end_silence(role: &mut Role, now: Instant) {
    let stale = role.rotation.schedule.stale_since();
    if role.silence.take().is_some() {
        let silent = stale.map_or(Duration::ZERO, |since| now - since);
        logs::answers(&role.name, &role.source.place(), silent);
    }
}
