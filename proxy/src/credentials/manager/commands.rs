//! What the task is told to do, and how it does it.

use std::sync::Arc;

use pgimbal_auth::rotation::FetchCause;
use pgimbal_auth::source::Sources;
use pgimbal_config::Config;
use tokio::sync::oneshot;

use super::super::mismatch::Asked;
use super::super::questions::Origin;
use super::super::role::RoleSetup;
use super::super::server_logins::{NoPassword, Reply};
use super::super::stored::Kept;
use super::super::{CredentialsStatus, NotRevoked, Refreshed, UnknownRole};
use super::{Task, longest_question, moment};
use crate::dial::DialError;

/// What the task is told.
#[derive(Debug)]
pub(in super::super) enum Command {
    /// Say when every listed user's source has been asked once.
    Ready(oneshot::Sender<()>),
    /// Follow a new configuration, and say when it is in force.
    Reload(Arc<Config>, Box<Sources>, oneshot::Sender<()>),
    /// A client has shown what fits nothing.
    Mismatch(Box<str>, Origin, oneshot::Sender<Asked>),
    /// A node has accepted what was set aside of this user's passwords.
    Believe(Box<str>, u32, Box<str>, oneshot::Sender<()>),
    /// Drop all generations but the newest.
    RevokeOld(Box<str>, Kept),
    /// Ask at once.
    Refresh(Box<str>, oneshot::Sender<Refreshed>),
    /// What a source follows has changed.
    Changed(Arc<str>),
    /// A client has logged in as this user, for the first time.
    Served(Box<str>),
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
    /// It ended before the password was checked.
    Abandoned,
}

impl Task {
    pub(super) fn handle_command(&mut self, command: Command) {
        let now = moment();
        match command {
            Command::Ready(reply) => self.ready.push(reply),
            Command::Reload(config, sources, reply) => {
                self.reload(config, *sources);
                // Whoever asked may have gone.
                let _ = reply.send(());
            }
            Command::Mismatch(user, origin, reply) => {
                self.mismatch(&user, origin, reply, now.instant);
            }
            Command::Believe(user, number, node, reply) => {
                self.believe(&user, number, &node);
                // Whoever asked may have gone.
                let _ = reply.send(());
            }
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
            Command::Served(user) => {
                if let Some(role) = self.roles.get_mut(&*user) {
                    (role.is_served, role.used_at) = (true, now.instant);
                    self.memory.changed();
                    self.touch(&user);
                }
            }
            Command::Status(reply) => {
                let users =
                    self.roles.values().map(|role| role.status(&self.shared, now)).collect();
                let _ =
                    reply.send(CredentialsStatus { users, fetches: self.fetches.counts.clone() });
            }
            Command::Offer(user, node, reply) => match self.ensure(&user) {
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
                let setting = RoleSetup {
                    config: &self.config,
                    user: &user,
                    salts: &self.salts,
                    source: Arc::clone(&source),
                    record: None,
                    epoch: self.epoch,
                };
                let now = moment();
                self.derivations.add_all(role.reconfigure(setting, now.instant));
                // Before anybody is told that the new configuration is in force.
                if role.accepted.expire(role.grace, now.wall) {
                    self.memory.changed();
                }
                self.shared.set_aside(&name, None);
                let account = role.account(self.config.clients.auth_type);
                self.shared.publish(&name, account);
                let following = self.follow_changes(&name, &source);
                if let Some(role) = self.roles.get_mut(&name) {
                    role.following = following;
                }
            }
        }
        self.follow_config();
    }

    fn revoke_old(&mut self, user: &str, reply: Kept) {
        self.touch(user);
        let Some(role) = self.roles.get_mut(user) else {
            let _ = reply.send(Err(NotRevoked::Unknown(UnknownRole)));
            return;
        };
        role.accepted.revoke_old();
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
        role.accepted.revoke_old();
        self.shared.publish(user, role.account(self.config.clients.auth_type));
        // Said only when a restart cannot undo it.
        role.revoking.drain(..).for_each(|reply| self.memory.tell_when_kept(reply));
    }
}
