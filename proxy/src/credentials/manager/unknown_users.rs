//! Clients whose passwords fit nothing, and what is asked because of them.

use std::sync::Arc;
use std::time::Instant;

use pgimbal_auth::rotation::FetchCause;
use pgimbal_config::{SourceConfig, WILDCARD};
use tokio::sync::oneshot;

use super::super::mismatch::Asked;
use super::super::questions::Origin;
use super::Task;

/// Roles that stand in for users who do not exist: few, so that made-up names cost the source
/// little.
const STAND_INS: usize = 4;

type Reply = oneshot::Sender<Asked>;

impl Task {
    /// A client of `user` has shown what fits nothing: it is told when the source has answered once
    /// more, or at once when it is not asked.
    pub(super) fn mismatch(&mut self, user: &str, origin: Origin, reply: Reply, now: Instant) {
        // Counted for everybody, so that what an address is told does not depend on who exists.
        let is_over = self.has_rule() && !self.questions.admits(origin, now);
        let listed = self.roles.get(user).map(|role| role.is_listed);
        let own = match listed {
            Some(true) => self.ensure(user).is_some(),
            Some(false) if !is_over => self.ensure(user).is_some(),
            None if !is_over && self.may_exist(user, now) => {
                if !self.questions.admits_stranger(now) {
                    return tell(reply, now, true);
                }
                self.ensure(user).is_some()
            }
            Some(false) | None => false,
        };
        if own {
            self.ask_for(user, is_over, reply, now);
        } else if is_over {
            tell(reply, now, true);
        } else {
            self.ask_for_nobody(user, reply, now);
        }
    }

    /// Whether names that are not listed may be users: then anybody can have the source asked.
    fn has_rule(&self) -> bool {
        let rule = self.config.users.get(WILDCARD);
        rule.is_some_and(|rule| rule.source() != SourceConfig::Inline)
    }

    /// Whether a rule covers a name of which the source has not just said that it has none.
    fn may_exist(&mut self, user: &str, now: Instant) -> bool {
        self.unknown.retain(|_, until| now < *until);
        let covered = self.config.user(user);
        covered.is_some_and(|covered| covered.source() != SourceConfig::Inline)
            && !self.unknown.contains_key(user)
    }

    fn ask_for(&mut self, user: &str, is_over: bool, reply: Reply, now: Instant) {
        self.touch(user);
        let Some(role) = self.roles.get_mut(user) else { return };
        role.rotation.schedule.want(FetchCause::Mismatch, now);
        let turn = role.rotation.schedule.mismatched().map_or(now, |(_, ready)| ready);
        role.mismatched.push((now, Asked { turn, is_over }, reply));
    }

    /// Somebody who does not exist waits as long as others do.
    fn ask_for_nobody(&mut self, user: &str, reply: Reply, now: Instant) {
        let turn = self.questions.turn(user, now);
        let role = self.stand_in(user).filter(|_| turn <= now);
        if let Some(name) = role
            && let Some(role) = self.roles.get_mut(&name)
            && role.rotation.schedule.want(FetchCause::StandIn, now)
        {
            role.mismatched.push((now, Asked { turn, is_over: false }, reply));
            self.touched.insert(name);
        } else {
            tell(reply, turn, false);
        }
    }

    /// The role that is asked about in place of a user who has none, so that a wrong password takes
    /// as long for both. Always the same one for a name, and one that must be asked over a network
    /// where there is one.
    fn stand_in(&self, user: &str) -> Option<Arc<str>> {
        let known = || self.roles.values().filter(|role| role.rotation.newest().is_some());
        let far: Vec<_> =
            known().filter(|role| role.source.kind() == "vault").take(STAND_INS).collect();
        let all: Vec<_> = if far.is_empty() { known().take(STAND_INS).collect() } else { far };
        let number = usize::from(self.salts.salt(user.as_bytes())[0]);
        let index = number.checked_rem(all.len())?;
        Some(Arc::clone(&all.get(index)?.name))
    }
}

/// It is not asked.
fn tell(reply: Reply, turn: Instant, is_over: bool) {
    // Whoever asked may have gone.
    let _ = reply.send(Asked { turn, is_over });
}
