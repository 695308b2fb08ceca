//! The one task that knows all passwords that rotate: when each role is fetched, and what follows
//! from answers, from logins and from operators' commands.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pgimbal_auth::rotation::Moment;
use pgimbal_auth::source::{Source, Sources};
use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::{Config, SourceConfig, StoreKind, UserConfig, WILDCARD};
use pgimbal_pooler::server::credential::CredentialEvent;
use pgimbal_replicas::document::Document;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

use super::cache_file::CacheFile;
use super::fetch::{Fetched, Fetches, Verifier, Verifiers};
use super::mismatch::{MismatchBudgets, RefetchReply, Refetched, Unavailable};
use super::role::{Effects, Role, SourceListener, role_settings};
use super::server_logins::{LoginOutcome, NoPassword, OfferReply};
use super::shared::Shared;
use super::status::{CredentialsStatus, NotRevoked, Refreshed, RevokeReply, UnknownRole};
use crate::facts::Facts;
use crate::pending_logins::Subnet;

/// How long a name that the source does not know is not fetched again.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// Limit of such names that are remembered.
const MAX_UNKNOWN: usize = 10_000;
/// Limit of roles without a password that only a rule knows and that are kept while their source is
/// away; each of them is fetched.
const MAX_AWAITED: usize = 100;
/// Number of roles that stand in for users who do not exist: few, so that made-up names cost the
/// source little.
const STAND_INS: usize = 4;
/// Interval at which the task wakes up even if nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// Pause between two additions to the facts: many roles that rotate at once are one change of the
/// document, which is copied for each.
const SHARE_PAUSE: Duration = Duration::from_millis(20);

/// The callback that tells the workers of a change of a role's password: the role's name and the
/// change. It must not block.
pub(super) type Notify = Box<dyn Fn(&Arc<str>, &CredentialEvent) + Send>;

/// A command to the credentials' task.
#[derive(Debug)]
pub(super) enum Command {
    /// Answers when every listed user has been fetched once.
    Ready(oneshot::Sender<()>),
    /// Applies a reloaded configuration with its sources, and answers when it is in force.
    Reload(Arc<Config>, Box<Sources>, oneshot::Sender<()>),
    /// A client of this user, from this address, has shown a password that matches none that is
    /// known; the source is asked again if the budgets allow it.
    Mismatch(Box<str>, Subnet, RefetchReply),
    /// The node (third) has accepted the older password of this user with this number; answers when
    /// it is the newest.
    OlderAccepted(Box<str>, u32, Box<str>, oneshot::Sender<()>),
    /// Drops all generations of this user but the newest, and answers when that is written.
    RevokeOld(Box<str>, RevokeReply),
    /// Fetches the password of this user at once, and answers with the result.
    Refresh(Box<str>, oneshot::Sender<Refreshed>),
    /// The source of this role reports that the password may have changed.
    SourceChanged(Arc<str>),
    /// A client has logged in as this user for the first time.
    FirstLogin(Box<str>),
    /// Reports the state of all users.
    Status(oneshot::Sender<CredentialsStatus>),
    /// A login of this user (first) at this node (second) needs a password.
    Offer(Box<str>, Box<str>, OfferReply),
    /// A login of this user (first) at this node (second) with this generation has ended.
    LoginEnded(Box<str>, Box<str>, u32, LoginOutcome),
}

/// The credentials' task: it owns every role, and ends when the last [`CredentialManager`] is
/// dropped.
///
/// [`CredentialManager`]: super::CredentialManager
pub(super) struct Task {
    config: Arc<Config>,
    sources: Sources,
    salts: SaltKey,
    notify: Notify,
    shared: Arc<Shared>,
    /// For source listeners, which must not keep the task alive.
    commands: mpsc::WeakUnboundedSender<Command>,
    roles: BTreeMap<Arc<str>, Role>,
    queue: RoleQueue,
    fetches: Fetches,
    verifiers: Verifiers,
    cache: CacheFile,
    facts: Facts,
    published: watch::Receiver<Arc<Document>>,
    /// The document as far as the roles know it.
    known: Arc<Document>,
    /// Roles whose history the document may lack.
    unshared: BTreeSet<Arc<str>>,
    /// When the facts may be added to again.
    next_share: Instant,
    /// Operators who are answered when the store has what is unshared.
    revoked: Vec<RevokeReply>,
    budgets: MismatchBudgets,
    /// Names that their source does not know, and until when they are not fetched again.
    unknown: HashMap<Box<str>, Instant>,
    /// Roles whose password should be known and is not.
    unavailable: BTreeMap<Arc<str>, Unavailable>,
    /// Roles for which the start of pgimbal waits.
    starting: BTreeSet<Arc<str>>,
    /// Callers that wait until there are none of them.
    ready: Vec<oneshot::Sender<()>>,
    epoch: Instant,
}

impl Task {
    /// Makes the task and reads the password cache. `commands` is the weak end of the channel that
    /// [`Self::run`] receives from, for listeners to sources.
    pub(super) fn new(
        config: Arc<Config>,
        sources: Sources,
        facts: Facts,
        notify: Notify,
        shared: Arc<Shared>,
        commands: mpsc::WeakUnboundedSender<Command>,
    ) -> Self {
        shared.set_fetch_limit(fetch_limit(&config));
        let cache = CacheFile::load(&config.credentials);
        let mut published = facts.document();
        let known = Arc::clone(&published.borrow_and_update());
        Self {
            config,
            sources,
            salts: facts.salt_key(),
            notify,
            shared,
            commands,
            roles: BTreeMap::new(),
            queue: RoleQueue::default(),
            fetches: Fetches::default(),
            verifiers: Verifiers::default(),
            cache,
            facts,
            published,
            known,
            unshared: BTreeSet::new(),
            next_share: Instant::now(),
            revoked: Vec::new(),
            budgets: MismatchBudgets::new(),
            unknown: HashMap::new(),
            unavailable: BTreeMap::new(),
            starting: BTreeSet::new(),
            ready: Vec::new(),
            epoch: Instant::now(),
        }
    }

    /// Runs the task until nobody is left who could send a command: handles commands, fetches,
    /// verifiers and timers, and publishes what has changed. At its end fetches under way are
    /// aborted, and replies that wait are dropped.
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
                    Ok(fetched) => self.handle_fetched(fetched),
                    Err(panic) => tracing::error!("a fetch has failed: {panic}"),
                },
                Some(done) = self.verifiers.next() => match done {
                    Ok(verifier) => self.handle_verifier(verifier),
                    Err(panic) => tracing::error!("a verifier could not be made: {panic}"),
                },
                Some(()) = self.cache.saved() => {}
                Ok(()) = self.published.changed() => self.handle_document(),
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// Does what is due; returns when something will be.
    fn work(&mut self) -> Instant {
        let now = moment();
        self.queue.expire_timers(now.instant);
        while self.fetches.has_room()
            && let Some(name) = self.queue.pop_waiting()
        {
            self.poll_role(&name, now);
        }
        for name in self.queue.take_touched() {
            self.poll_role(&name, now);
        }
        self.shared.set_unavailable(self.unavailable.values().next().copied());
        if self.starting.is_empty() {
            for reply in self.ready.drain(..) {
                let _ = reply.send(());
            }
        }
        self.cache.save(&self.roles, now.instant);
        if now.instant >= self.next_share || !self.revoked.is_empty() {
            self.share();
        }
        let share = Some(self.next_share).filter(|_| self.waits_to_share());
        let wake =
            [self.queue.next_timer(), self.cache.wake_at(), share].into_iter().flatten().min();
        wake.unwrap_or(now.instant + IDLE)
    }

    /// Does what is due for one role.
    fn poll_role(&mut self, name: &Arc<str>, now: Moment) {
        self.unavailable.remove(name);
        self.starting.remove(name);
        self.queue.set_timer(name, None);
        let Some(role) = self.roles.get_mut(name) else { return };
        if role.leaves_at().is_some_and(|at| at <= now.instant) {
            if !self.shared.is_in_use(name) {
                let is_gone = role.is_gone(is_alone(&self.config));
                self.drop_role(name);
                return self.forget(name, is_gone);
            }
            role.mark_used(now.instant);
        }
        let mut next_fetch = role.next_fetch(now.instant);
        if next_fetch.is_some_and(|next| next <= now.instant) {
            next_fetch = None;
            if self.fetches.has_room() {
                role.start_fetch(&mut self.fetches, now.instant);
            } else {
                self.queue.wait_for_room(name);
            }
        }
        let effects = role.poll(now);
        if let Some(cause) = role.unavailable() {
            self.unavailable.insert(Arc::clone(name), cause);
        }
        if role.is_starting() {
            self.starting.insert(Arc::clone(name));
        }
        let wake = [next_fetch, role.wake_at(now)].into_iter().flatten().min();
        self.queue.set_timer(name, wake);
        self.apply(name, effects);
    }

    /// Does what a role's change demands.
    fn apply(&mut self, name: &Arc<str>, effects: Effects) {
        if let Some(event) = &effects.event {
            (self.notify)(name, event);
        }
        for request in effects.verifiers {
            self.verifiers.start(request);
        }
        if let Some(role) = self.roles.get(name) {
            if effects.is_account_changed {
                self.shared.publish(name, role.account(self.config.clients.auth_type));
            }
            if effects.is_older_changed {
                self.shared.set_older(name, role.older());
            }
        }
        if effects.is_state_changed {
            self.cache.changed();
            self.unshared.insert(Arc::clone(name));
        }
        if let Some(sent) = effects.fetch_sent {
            self.shared.record_fetch(sent.elapsed());
        }
    }

    /// Changes a role, if there is one of this name, and does what follows.
    fn change(&mut self, user: &str, change: impl FnOnce(&mut Role) -> Effects) {
        self.queue.touch(user, &self.roles);
        if let Some(role) = self.roles.get_mut(user) {
            let (name, effects) = (Arc::clone(role.name()), change(role));
            self.apply(&name, effects);
        }
    }

    /// Gives the document what it lacks of the roles' histories. Not before the deployment's salt is
    /// known: verifiers with another one are of no use to anybody.
    fn share(&mut self) {
        if self.unshared.is_empty() && self.revoked.is_empty() {
            return;
        }
        if !self.facts.is_key_known() {
            for reply in self.revoked.drain(..) {
                let _ = reply.send(Err(self.facts.not_read().into()));
            }
            return;
        }
        self.next_share = Instant::now() + SHARE_PAUSE;
        let names = std::mem::take(&mut self.unshared);
        let roles = names.iter().filter_map(|name| self.roles.get_key_value(name));
        let records: Vec<_> = roles
            .filter(|(_, role)| role.is_shared())
            .map(|(name, role)| (Arc::clone(name), role.history()))
            .collect();
        self.facts.add(|document, _| {
            records.into_iter().for_each(|(name, record)| document.merge_user(&name, record));
        });
        let replies = std::mem::take(&mut self.revoked);
        if !replies.is_empty() {
            // A peer may have told of it before, and nobody has stored it yet.
            let (facts, change) = (self.facts.clone(), self.facts.restate());
            tokio::spawn(async move {
                let stored = facts.stored(change).await;
                for reply in replies {
                    // The operator may have gone.
                    let _ = reply.send(stored.clone().map_err(NotRevoked::from));
                }
            });
        }
    }

    /// Whether there is something to share, and only the pause to wait for.
    fn waits_to_share(&self) -> bool {
        !self.unshared.is_empty() && self.facts.is_key_known()
    }

    /// Takes over what the document says that the roles do not know.
    fn handle_document(&mut self) {
        let document = Arc::clone(&self.published.borrow_and_update());
        let before = std::mem::replace(&mut self.known, Arc::clone(&document));
        let salts = self.facts.salt_key();
        if salts.salt(b"") != self.salts.salt(b"") {
            self.salts = salts;
            self.follow_salts();
        }
        for (name, record) in document.users() {
            if before.user(name) == Some(record) {
                continue;
            }
            if !record.is_empty() {
                self.ensure(name);
            }
            self.change(name, |role| role.merge(record, moment()));
        }
    }

    /// Makes the verifiers of all roles anew, with the salt that the deployment has.
    fn follow_salts(&mut self) {
        let names: Vec<Arc<str>> = self.roles.keys().cloned().collect();
        let document = Arc::clone(&self.known);
        for name in names {
            self.reconfigure(&name);
            if let Some(record) = document.user(&name) {
                self.change(&name, |role| role.merge(record, moment()));
            }
        }
    }

    /// Forgets the passwords of a user that is not used here; those that all replicas accept only
    /// if the source says that it `is_gone`: others may use what this one cannot ask for.
    fn forget(&mut self, name: &str, is_gone: bool) {
        self.cache.forget(name);
        if is_gone && self.known.user(name).is_some_and(|record| !record.is_empty()) {
            self.facts.add(|document, _| document.forget_user(name));
        }
    }

    fn handle_command(&mut self, command: Command) {
        let now = moment();
        match command {
            Command::Ready(reply) => self.ready.push(reply),
            Command::Reload(config, sources, reply) => {
                self.reload(config, *sources);
                let _ = reply.send(());
            }
            Command::Mismatch(user, address, reply) => {
                self.handle_mismatch(&user, address, reply, now.instant);
            }
            Command::OlderAccepted(user, number, node, reply) => {
                self.change(&user, |role| role.handle_older_accepted(number, &node, now.wall));
                let _ = reply.send(());
            }
            Command::RevokeOld(user, reply) => self.revoke_old(&user, reply),
            Command::Refresh(user, reply) => self.change(&user, |role| {
                role.refresh(reply, now.instant);
                Effects::default()
            }),
            Command::SourceChanged(name) => self.change(&name, |role| {
                role.handle_source_change(now.instant);
                Effects::default()
            }),
            Command::FirstLogin(user) => {
                self.change(&user, |role| role.handle_first_login(now.instant));
            }
            Command::Status(reply) => {
                let users =
                    self.roles.values().map(|role| role.status(&self.shared, now)).collect();
                let fetches = self.fetches.counts().clone();
                let _ = reply.send(CredentialsStatus { users, fetches });
            }
            Command::Offer(user, node, reply) => match self.ensure(&user) {
                Some(role) => role.add_login(node, reply, now.instant),
                None => {
                    let text = format!("no source of user \"{user}\" is configured");
                    let _ = reply.send(Err(NoPassword::Unknown(text)));
                }
            },
            Command::LoginEnded(user, node, number, outcome) => self.change(&user, |role| {
                role.handle_login_outcome(&node, number, outcome, now.instant)
            }),
        }
    }

    fn reload(&mut self, config: Arc<Config>, sources: Sources) {
        (self.config, self.sources) = (config, sources);
        self.shared.set_fetch_limit(fetch_limit(&self.config));
        let names: Vec<Arc<str>> = self.roles.keys().cloned().collect();
        names.iter().for_each(|name| self.reconfigure(name));
        self.follow_config();
    }

    /// Applies the configuration and the salts to a role.
    fn reconfigure(&mut self, name: &Arc<str>) {
        self.queue.touch(name, &self.roles);
        let Some(user) = self.config.user(name) else { return };
        let Some(source) = self.sources.of_user(name, &user) else { return };
        let listener = self.listen(name, &source);
        let settings = role_settings(&self.config, name, &user, &self.salts);
        let Some(role) = self.roles.get_mut(name) else { return };
        let effects = role.reconfigure(source, settings, moment());
        role.set_listener(listener);
        self.apply(name, effects);
    }

    /// Makes and drops roles as the configuration wants.
    fn follow_config(&mut self) {
        let config = Arc::clone(&self.config);
        let known = Arc::clone(&self.known);
        let remembered = known.users().filter(|(_, record)| !record.is_empty());
        let listed = config.users.keys().map(String::as_str).filter(|name| *name != WILDCARD);
        for name in listed.chain(remembered.map(|(name, _)| name)) {
            self.ensure(name);
        }
        for name in self.cache.users() {
            self.ensure(&name);
        }
        let is_inline = |user: &UserConfig| user.source() == SourceConfig::Inline;
        let gone = |name: &&Arc<str>| config.user(name).is_none_or(|user| is_inline(&user));
        let gone: Vec<Arc<str>> = self.roles.keys().filter(gone).cloned().collect();
        for name in gone {
            self.drop_role(&name);
        }
    }

    /// Removes everything of a user but what the state files keep.
    fn drop_role(&mut self, name: &str) {
        if let Some((name, _)) = self.roles.remove_entry(name) {
            self.queue.set_timer(&name, None);
        }
        self.shared.forget(name);
    }

    /// The role of a user, which is made if there is none yet; `None` for a user whose password
    /// does not rotate.
    fn ensure(&mut self, name: &str) -> Option<&mut Role> {
        if !self.roles.contains_key(name) {
            let user = self.config.user(name)?;
            if user.source() == SourceConfig::Inline {
                return None;
            }
            self.make(name, &user)?;
        }
        self.queue.touch(name, &self.roles);
        let role = self.roles.get_mut(name)?;
        role.mark_used(Instant::now());
        Some(role)
    }

    fn make(&mut self, name: &str, user: &UserConfig) -> Option<()> {
        let now = moment();
        let source = self.sources.of_user(name, user)?;
        let settings = role_settings(&self.config, name, user, &self.salts);
        let known = Arc::clone(&self.known);
        let history = known.user(name);
        let mut role =
            Role::new(name, Arc::clone(&source), settings, history, self.epoch, now.instant);
        let restored: Vec<Effects> =
            self.cache.passwords(name).iter().map(|cached| role.restore(cached, now)).collect();
        let name = Arc::clone(role.name());
        role.set_listener(self.listen(&name, &source));
        self.roles.insert(Arc::clone(&name), role);
        self.apply(&name, Effects { is_account_changed: true, ..Effects::default() });
        for effects in restored {
            self.apply(&name, effects);
        }
        Some(())
    }

    /// Listens to a source that tells changes, as long as it is the role's.
    fn listen(&self, name: &Arc<str>, source: &Arc<dyn Source>) -> Option<SourceListener> {
        let mut changes = source.changes()?;
        let (name, commands) = (Arc::clone(name), self.commands.clone());
        let task = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let Some(commands) = commands.upgrade() else { break };
                let _ = commands.send(Command::SourceChanged(Arc::clone(&name)));
            }
        });
        Some(SourceListener::new(task.abort_handle()))
    }

    fn handle_fetched(&mut self, fetched: Fetched) {
        let now = moment();
        let Fetched { role: name, serial, sent, result, .. } = fetched;
        self.queue.touch(&name, &self.roles);
        let Some(role) = self.roles.get_mut(&name) else { return };
        let has_failed = result.is_err();
        let Some(effects) = role.handle_fetched(serial, sent, result, now) else { return };
        let (stays, is_away) = (role.is_kept() || role.has_password(), role.is_source_away());
        if has_failed && !stays && !(is_away && self.has_room_for_awaited()) {
            return self.forget_unknown(&name, now.instant);
        }
        self.apply(&name, effects);
        let Some(role) = self.roles.get_mut(&name) else { return };
        // Clients that are answered now look at it at once.
        if let Some(cause) = role.unavailable() {
            self.shared.set_unavailable(Some(cause));
        }
        role.serve(now.instant);
        role.settle(now.instant);
    }

    /// Whether one more role without a password is kept until its source is back.
    fn has_room_for_awaited(&self) -> bool {
        let awaited = |role: &&Role| !role.is_listed() && !role.has_password();
        self.roles.values().filter(awaited).count() <= MAX_AWAITED
    }

    /// Drops a role that only a rule knew, and that its source does not know.
    fn forget_unknown(&mut self, name: &str, now: Instant) {
        if let Some(role) = self.roles.get_mut(name) {
            role.settle(now);
        }
        self.drop_role(name);
        if self.unknown.len() < MAX_UNKNOWN {
            self.unknown.insert(name.into(), now + UNKNOWN_FOR);
        }
    }

    fn handle_verifier(&mut self, verifier: Verifier) {
        let name = Arc::clone(&verifier.role);
        let auth_type = self.config.clients.auth_type;
        self.change(&name, |role| role.handle_verifier(verifier, auth_type, SystemTime::now()));
        if let Some(role) = self.roles.get_mut(&name) {
            role.settle(Instant::now());
            self.finish_revoking(&name);
        }
    }

    fn revoke_old(&mut self, user: &str, reply: RevokeReply) {
        if !self.roles.contains_key(user) {
            let _ = reply.send(Err(NotRevoked::Unknown(UnknownRole)));
            return;
        }
        let known = self.known.user(user).cloned().unwrap_or_default();
        self.change(user, |role| role.revoke_old(&known, reply));
        self.finish_revoking(user);
    }

    /// Operators are told only when a restart cannot undo the revoke.
    fn finish_revoking(&mut self, user: &str) {
        let known = self.known.user(user).cloned().unwrap_or_default();
        let Some(role) = self.roles.get_mut(user) else { return };
        let replies = role.finish_revoking(&known);
        if replies.is_empty() {
            return;
        }
        self.shared.publish(user, role.account(self.config.clients.auth_type));
        self.unshared.insert(Arc::clone(role.name()));
        self.revoked.extend(replies);
    }

    /// A client of `user` has shown a password that fits none. `reply` is answered after the next
    /// fetch, or at once when there is none.
    fn handle_mismatch(&mut self, user: &str, address: Subnet, reply: RefetchReply, now: Instant) {
        // Counted for everybody, so that what an address is told does not depend on who exists.
        let is_over_budget = self.has_rule() && !self.budgets.take(address, now);
        let is_own = match self.roles.get(user).map(Role::is_listed) {
            Some(true) => self.ensure(user).is_some(),
            Some(false) if !is_over_budget => self.ensure(user).is_some(),
            None if !is_over_budget && self.may_exist(user, now) => {
                if !self.budgets.take_unlisted(now) {
                    return answer(reply, now, true);
                }
                self.ensure(user).is_some()
            }
            Some(false) | None => false,
        };
        if is_own {
            self.change(user, |role| {
                role.fetch_for_mismatch(is_over_budget, reply, now);
                Effects::default()
            });
        } else if is_over_budget {
            answer(reply, now, true);
        } else {
            self.fetch_for_unknown_user(user, reply, now);
        }
    }

    /// Whether names that are not listed may be users: then anybody can make the source be asked.
    fn has_rule(&self) -> bool {
        let rule = self.config.users.get(WILDCARD);
        rule.is_some_and(|rule| rule.source() != SourceConfig::Inline)
    }

    /// Whether a rule covers a name that its source has not lately said to be unknown.
    fn may_exist(&mut self, user: &str, now: Instant) -> bool {
        self.unknown.retain(|_, until| now < *until);
        let covered = self.config.user(user);
        covered.is_some_and(|covered| covered.source() != SourceConfig::Inline)
            && !self.unknown.contains_key(user)
    }

    /// A user that does not exist waits as long as others do.
    fn fetch_for_unknown_user(&mut self, user: &str, reply: RefetchReply, now: Instant) {
        let turn = self.budgets.turn_of_unknown(user, now);
        let stand_in = self.stand_in(user).filter(|_| turn <= now);
        let Some(role) = stand_in.and_then(|name| self.roles.get_mut(&name)) else {
            return answer(reply, turn, false);
        };
        let name = Arc::clone(role.name());
        match role.fetch_as_stand_in(turn, reply, now) {
            Ok(()) => self.queue.touch(&name, &self.roles),
            Err(reply) => answer(reply, turn, false),
        }
    }

    /// The role that is fetched in place of a user who has none, so that a wrong password takes as
    /// long for both; `None` when no role has a password. Always the same one for a name, and one
    /// of a Vault where there is one, because that takes longest.
    fn stand_in(&self, user: &str) -> Option<Arc<str>> {
        let known = || self.roles.values().filter(|role| role.has_password());
        let far: Vec<_> =
            known().filter(|role| role.source().kind() == "vault").take(STAND_INS).collect();
        let all: Vec<_> = if far.is_empty() { known().take(STAND_INS).collect() } else { far };
        let number = usize::from(self.salts.salt(user.as_bytes())[0]);
        let index = number.checked_rem(all.len())?;
        Some(Arc::clone(all.get(index)?.name()))
    }
}

/// Which roles are to be looked at, and when.
#[derive(Debug, Default)]
struct RoleQueue {
    timers: BTreeSet<(Instant, Arc<str>)>,
    /// The timer of each role that has one.
    timer_of: HashMap<Arc<str>, Instant>,
    /// Roles that may have something to do now.
    touched: BTreeSet<Arc<str>>,
    /// Roles whose fetch is due while too many are under way, in the order in which they get room.
    waiting: VecDeque<Arc<str>>,
    is_waiting: HashSet<Arc<str>>,
}

impl RoleQueue {
    /// Sets or removes a role's one timer.
    fn set_timer(&mut self, name: &Arc<str>, at: Option<Instant>) {
        if let Some(before) = self.timer_of.remove(name) {
            self.timers.remove(&(before, Arc::clone(name)));
        }
        if let Some(at) = at {
            self.timers.insert((at, Arc::clone(name)));
            self.timer_of.insert(Arc::clone(name), at);
        }
    }

    /// Touches the roles whose timers have come.
    fn expire_timers(&mut self, now: Instant) {
        while self.next_timer().is_some_and(|at| at <= now)
            && let Some((_, name)) = self.timers.pop_first()
        {
            self.timer_of.remove(&name);
            self.touched.insert(name);
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Something of this role may have changed.
    fn touch(&mut self, name: &str, roles: &BTreeMap<Arc<str>, Role>) {
        if let Some((name, _)) = roles.get_key_value(name) {
            self.touched.insert(Arc::clone(name));
        }
    }

    fn take_touched(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.touched)
    }

    /// A fetch of this role is due, and there is no room for it.
    fn wait_for_room(&mut self, name: &Arc<str>) {
        if self.is_waiting.insert(Arc::clone(name)) {
            self.waiting.push_back(Arc::clone(name));
        }
    }

    fn pop_waiting(&mut self) -> Option<Arc<str>> {
        let name = self.waiting.pop_front()?;
        self.is_waiting.remove(&name);
        Some(name)
    }
}

/// Answers a client's mismatch without a fetch.
fn answer(reply: RefetchReply, turn: Instant, is_over_budget: bool) {
    // The client may have gone.
    let _ = reply.send(Refetched { turn, is_over_budget });
}

/// The longest that a fetch may take. What is not in a Vault is at hand.
/// Whether all that share the facts are processes of this host, with the same files.
fn is_alone(config: &Config) -> bool {
    let is_here = matches!(config.store.kind, StoreKind::Memory | StoreKind::File);
    is_here && config.peers.listen.is_none()
}

fn fetch_limit(config: &Config) -> Duration {
    config.vaults.values().map(|vault| vault.timeout).max().unwrap_or_default()
}

fn moment() -> Moment {
    Moment { instant: Instant::now(), wall: SystemTime::now() }
}

#[cfg(test)]
mod tests;
