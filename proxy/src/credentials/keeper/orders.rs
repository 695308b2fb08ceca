//! What the task is told to do, and how it does it.

use std::sync::Arc;
use std::time::Instant;

use pgimbal_auth::rotation::FetchCause;
use pgimbal_auth::source::Sources;
use pgimbal_config::Config;
use tokio::sync::oneshot;

use super::super::memory::Kept;
use super::super::role::Setting;
use super::super::server_logins::{NoPassword, Reply};
use super::super::{CredentialsStatus, NotRevoked, Refreshed, UnknownRole};
use super::{Task, longest_question, moment};
use crate::dial::DialError;

/// Roles that stand in for users who do not exist: few, so that strangers cost the source little.
const STAND_INS: usize = 4;

/// What the task is told.
#[derive(Debug)]
pub(in super::super) enum Command {
    /// Say when every listed user's source has been asked once.
    Ready(oneshot::Sender<()>),
    /// Follow a new configuration.
    Reload(Arc<Config>, Box<Sources>),
    /// Somebody begins to log in as this user.
    Expect(Box<str>),
    /// A client has shown what fits nothing.
    Mismatch(Box<str>, oneshot::Sender<()>),
    /// Drop all generations but the newest.
    RevokeOld(Box<str>, Kept),
    /// Ask at once.
    Refresh(Box<str>, oneshot::Sender<Refreshed>),
    /// What a source follows has changed.
    Changed(Arc<str>),
    /// Tell everything.
    Status(oneshot::Sender<CredentialsStatus>),
    /// A login at a node wants a password.
    Offer(Box<str>, Box<str>, Reply),
    /// What came of one.
    Report(Box<str>, Box<str>, u32, Outcome),
}

/// What came of a login at a server.
#[derive(Debug)]
pub(in super::super) enum Outcome {
    Accepted,
    Refused(DialError),
    /// It ended before the password was judged.
    Abandoned,
}

impl Task {
    pub(super) fn obey(&mut self, command: Command) {
        let now = moment();
        match command {
            Command::Ready(reply) => self.ready.push(reply),
            Command::Reload(config, sources) => self.reload(config, *sources),
            Command::Expect(user) => drop(self.ensure(&user, false)),
            Command::Mismatch(user, reply) => self.mismatch(&user, reply, now.instant),
            Command::RevokeOld(user, reply) => self.revoke_old(&user, reply),
            Command::Refresh(user, reply) => {
                self.touch(&user);
                if let Some(role) = self.roles.get_mut(&*user) {
                    role.rotation.schedule.want(FetchCause::Order, now.instant);
                    role.refreshing.push(reply);
                }
            }
            Command::Changed(name) => {
                self.touch(&name);
                if let Some(role) = self.roles.get_mut(&name) {
                    role.rotation.schedule.want(FetchCause::Order, now.instant);
                }
            }
            Command::Status(reply) => {
                let users =
                    self.roles.values().map(|role| role.status(&self.shared, now)).collect();
                let _ =
                    reply.send(CredentialsStatus { users, fetches: self.fetches.counts.clone() });
            }
            Command::Offer(user, node, reply) => match self.ensure(&user, true) {
                Some(role) => {
                    role.logins.add(node, reply);
                    role.serve(now.instant);
                }
                None => {
                    let text = format!("no source of user \"{user}\" is configured");
                    let _ = reply.send(Err(NoPassword::Unknown(text)));
                }
            },
            Command::Report(user, node, number, outcome) => {
                self.report(&user, &node, number, outcome, now.instant);
            }
        }
    }

    fn reload(&mut self, config: Arc<Config>, sources: Sources) {
        (self.config, self.sources) = (config, sources);
        self.shared.set_question(longest_question(&self.config));
        let names: Vec<Arc<str>> = self.roles.keys().cloned().collect();
        for name in names {
            self.touch(&name);
            let Some(user) = self.config.user(&name) else { continue };
            let source = self.sources.of_user(&name, &user);
            if let (Some(role), Some(source)) = (self.roles.get_mut(&name), source) {
                let setting = Setting {
                    config: &self.config,
                    user: &user,
                    salts: &self.salts,
                    source: Arc::clone(&source),
                    record: None,
                    epoch: self.epoch,
                };
                self.derivations.add_all(role.reconfigure(setting, Instant::now()));
                let account = role.account(self.config.clients.auth_type);
                self.shared.publish(&name, account);
                self.follow_changes(&name, &source);
            }
        }
        self.follow_config();
    }

    /// A client of `user` has shown what fits nothing: it is told when the source has answered once
    /// more, or at once when it is not asked.
    fn mismatch(&mut self, user: &str, reply: oneshot::Sender<()>, now: Instant) {
        let own = self.ensure(user, false).map(|role| Arc::clone(&role.name));
        let (name, cause) = match own {
            Some(name) => (name, FetchCause::Mismatch),
            None => match self.stand_in(user) {
                Some(name) => (name, FetchCause::StandIn),
                None => return,
            },
        };
        self.touch(&name);
        let Some(role) = self.roles.get_mut(&name) else { return };
        let is_asked = role.rotation.schedule.want(cause, now);
        if is_asked || role.last.is_none() || role.deriving > 0 {
            role.mismatched.push(reply);
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

    fn revoke_old(&mut self, user: &str, reply: Kept) {
        self.touch(user);
        let Some(role) = self.roles.get_mut(user) else {
            let _ = reply.send(Err(NotRevoked::Unknown(UnknownRole)));
            return;
        };
        role.ledger.revoke_old();
        role.revoking.push(reply);
        self.shared.publish(user, role.account(self.config.clients.auth_type));
        self.memory.changed();
        self.finish_revoking(user);
    }

    /// The newest password is the one whose verifier is still being made, so what is the newest
    /// until then is to go as well.
    pub(super) fn finish_revoking(&mut self, user: &str) {
        let Some(role) = self.roles.get_mut(user).filter(|role| role.deriving == 0) else { return };
        if role.revoking.is_empty() {
            return;
        }
        role.ledger.revoke_old();
        self.shared.publish(user, role.account(self.config.clients.auth_type));
        // Said only when a restart cannot undo it.
        role.revoking.drain(..).for_each(|reply| self.memory.tell_when_kept(reply));
    }
}
