//! The one task that keeps all passwords: what it is told, and what it does about it.

mod changes;
mod commands;
mod unknown_users;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pgimbal_auth::rotation::Moment;
use pgimbal_auth::source::{Source, Sources};
use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::{Config, SourceConfig, UserConfig, WILDCARD};
use pgimbal_pooler::server::credential::CredentialEvent;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

use super::derive::Derivations;
use super::fetch::Fetches;
use super::leaving::Following;
use super::questions::Questions;
use super::role::{Role, RoleSetup};
use super::stored::StoredCredentials;
use super::{Shared, Unavailable};
use crate::worker::Message;
pub(super) use commands::{Command, Outcome};

/// A name that the source does not know is not asked about again for so long.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// Such names that are remembered.
const MAX_UNKNOWN: usize = 10_000;
/// Names that only a rule knows and that are kept while their source is away: each is asked about.
const MAX_AWAITED: usize = 100;
/// The task looks around this often, whatever happens.
const IDLE: Duration = Duration::from_secs(60);

/// The task.
pub(super) struct Task {
    config: Arc<Config>,
    sources: Sources,
    salts: SaltKey,
    workers: Arc<[mpsc::UnboundedSender<Message>]>,
    pub(super) shared: Arc<Shared>,
    commands: mpsc::WeakUnboundedSender<Command>,
    pub(super) roles: BTreeMap<Arc<str>, Role>,
    fetches: Fetches,
    derivations: Derivations,
    memory: StoredCredentials,
    ready: Vec<oneshot::Sender<()>>,
    questions: Questions,
    unknown: HashMap<Box<str>, Instant>,
    /// When something is to be done for a role.
    queue: BTreeSet<(Instant, Arc<str>)>,
    /// Roles of which something has changed.
    touched: BTreeSet<Arc<str>>,
    /// Roles whose question is due and found no room, in the order in which they come to have some.
    queued: VecDeque<Arc<str>>,
    /// Roles whose password should be known and is not.
    unavailable: BTreeMap<Arc<str>, Unavailable>,
    /// Roles that were not asked about yet.
    unasked: BTreeSet<Arc<str>>,
    epoch: Instant,
}

impl Task {
    pub(super) fn new(
        config: Arc<Config>,
        sources: Sources,
        salts: SaltKey,
        workers: Arc<[mpsc::UnboundedSender<Message>]>,
        shared: Arc<Shared>,
        commands: mpsc::WeakUnboundedSender<Command>,
    ) -> Self {
        shared.set_question(longest_question(&config));
        let memory = StoredCredentials::load(&config.credentials);
        Self {
            config,
            sources,
            salts,
            workers,
            shared,
            commands,
            roles: BTreeMap::new(),
            fetches: Fetches::default(),
            derivations: Derivations::default(),
            memory,
            ready: Vec::new(),
            questions: Questions::new(),
            unknown: HashMap::new(),
            queue: BTreeSet::new(),
            touched: BTreeSet::new(),
            queued: VecDeque::new(),
            unavailable: BTreeMap::new(),
            unasked: BTreeSet::new(),
            epoch: Instant::now(),
        }
    }

    /// Works until nobody is left who could want something.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        self.follow_config();
        loop {
            let wake = self.work();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => break,
                },
                Some(done) = self.fetches.next() => match done {
                    Ok(fetched) => self.fetched(fetched),
                    Err(panic) => tracing::error!("a question to a source has failed: {panic}"),
                },
                Some(done) = self.derivations.next() => match done {
                    Ok(derived) => self.derived(derived),
                    Err(panic) => tracing::error!("a verifier could not be made: {panic}"),
                },
                Some(()) = self.memory.saved() => {}
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// Does what is due, and says when something will be.
    fn work(&mut self) -> Instant {
        let now = moment();
        while let Some((at, name)) = self.queue.pop_first() {
            if at > now.instant {
                self.queue.insert((at, name));
                break;
            }
            self.touched.insert(name);
        }
        while self.fetches.has_room()
            && let Some(name) = self.queued.pop_front()
        {
            if let Some(role) = self.roles.get_mut(&name) {
                role.is_starved = false;
            }
            self.poll_role(&name, now);
        }
        for name in std::mem::take(&mut self.touched) {
            self.poll_role(&name, now);
        }
        self.shared.set_unavailable(self.unavailable.values().next().copied());
        if self.unasked.is_empty() {
            for waiting in self.ready.drain(..) {
                let _ = waiting.send(());
            }
        }
        self.memory.save(&self.roles, now.instant);
        let role = self.queue.first().map(|(at, _)| *at);
        let first = [role, self.memory.wake_at()].into_iter().flatten().min();
        first.unwrap_or(now.instant + IDLE)
    }

    /// Does what is due for one role.
    fn poll_role(&mut self, name: &Arc<str>, now: Moment) {
        self.unavailable.remove(name);
        self.unasked.remove(name);
        let Some(role) = self.roles.get_mut(name) else { return };
        if let Some(at) = role.queued.take() {
            self.queue.remove(&(at, Arc::clone(name)));
        }
        if role.leaves_at().is_some_and(|at| at <= now.instant) {
            if !self.shared.is_in_use(name) {
                self.drop_role(name);
                return self.memory.forget(name);
            }
            role.used_at = now.instant;
        }
        let mut next = role.rotation.schedule.next(now.instant);
        if next.is_some_and(|next| next <= now.instant) {
            next = None;
            if !self.fetches.has_room() {
                if !std::mem::replace(&mut role.is_starved, true) {
                    self.queued.push_back(Arc::clone(name));
                }
            } else if role.rotation.schedule.begin(now.instant) {
                let source = Arc::clone(&role.source);
                role.asked = Some(self.fetches.start(Arc::clone(name), source, now.instant));
            }
        }
        if role.logins.wake_at.is_some_and(|at| at <= now.instant) {
            role.serve(now.instant);
        }
        if role.accepted.expire(role.grace, now.wall) {
            self.shared.publish(name, role.account(self.config.clients.auth_type));
            self.memory.changed();
        }
        if let Some(cause) = role.darkness() {
            self.unavailable.insert(Arc::clone(name), cause);
        }
        if let Some(news) = role.lockout_event() {
            tell(&self.workers, name, &news);
        }
        if role.is_listed && (role.last.is_none() || role.deriving > 0) {
            self.unasked.insert(Arc::clone(name));
        }
        role.queued = [next, role.wake_at(now)].into_iter().flatten().min();
        self.queue.extend(role.queued.map(|at| (at, Arc::clone(name))));
    }

    /// Makes and drops roles as the configuration wants.
    fn follow_config(&mut self) {
        let config = Arc::clone(&self.config);
        let remembered = self.memory.names();
        let listed = config.users.keys().filter(|name| *name != WILDCARD).cloned();
        for name in listed.chain(remembered) {
            self.ensure(&name);
        }
        let gone: Vec<Arc<str>> = self
            .roles
            .keys()
            .filter(|name| {
                config.user(name).is_none_or(|user| user.source() == SourceConfig::Inline)
            })
            .cloned()
            .collect();
        for name in gone {
            self.drop_role(&name);
        }
    }

    /// Knows nothing of a user any more, but for what outlives the process.
    fn drop_role(&mut self, name: &str) {
        self.roles.remove(name);
        self.shared.forget(name);
    }

    /// The role of a user whose password rotates; makes it if there is none yet.
    fn ensure(&mut self, name: &str) -> Option<&mut Role> {
        if !self.roles.contains_key(name) {
            let now = moment();
            let user = self.config.user(name)?;
            if user.source() == SourceConfig::Inline {
                return None;
            }
            self.make(name, &user, now)?;
        }
        self.touch(name);
        let role = self.roles.get_mut(name)?;
        role.used_at = Instant::now();
        Some(role)
    }

    /// Something of this role may have changed: it is looked at.
    fn touch(&mut self, name: &str) {
        if let Some((name, _)) = self.roles.get_key_value(name) {
            self.touched.insert(Arc::clone(name));
        }
    }

    fn make(&mut self, name: &str, user: &UserConfig, now: Moment) -> Option<()> {
        let source = self.sources.of_user(name, user)?;
        let setting = RoleSetup {
            config: &self.config,
            user,
            salts: &self.salts,
            source: Arc::clone(&source),
            record: self.memory.record(name),
            epoch: self.epoch,
        };
        let mut role = Role::new(name, setting, now.instant);
        for cached in self.memory.passwords(name) {
            let password = cached.password().clone();
            let number = role.rotation.remember(password, cached.rotated_at(), now);
            self.derivations.add_all(role.order(number, now.instant));
        }
        self.shared.publish(name, role.account(self.config.clients.auth_type));
        role.is_served |= role.rotation.newest().is_some();
        role.following = self.follow_changes(&role.name, &source);
        self.roles.insert(Arc::clone(&role.name), role);
        Some(())
    }

    /// A source that tells changes is listened to, as long as it is the role's.
    fn follow_changes(&self, name: &Arc<str>, source: &Arc<dyn Source>) -> Option<Following> {
        let mut changes = source.changes()?;
        let (name, commands) = (Arc::clone(name), self.commands.clone());
        let task = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let Some(commands) = commands.upgrade() else { break };
                let _ = commands.send(Command::Changed(Arc::clone(&name)));
            }
        });
        Some(Following(task.abort_handle()))
    }
}

/// Tells all workers what concerns their server connections.
fn tell(workers: &[mpsc::UnboundedSender<Message>], role: &Arc<str>, news: &CredentialEvent) {
    for worker in workers {
        // One that has ended needs to know nothing.
        let _ = worker.send(Message::Credential { role: Arc::clone(role), news: news.clone() });
    }
}

/// How long one question to a source may take. What is not in a Vault is at hand.
fn longest_question(config: &Config) -> Duration {
    config.vaults.values().map(|vault| vault.timeout).max().unwrap_or_default()
}

fn moment() -> Moment {
    Moment { instant: Instant::now(), wall: SystemTime::now() }
}

#[cfg(test)]
mod tests;
