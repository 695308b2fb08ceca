//! One user whose password rotates: everything that is known of it, and who waits for more.
//!
//! [`Role`] changes only its own state; what else is to be done it returns as [`Effects`].

mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pgimbal_auth::account::{Account, LoginKeys};
use pgimbal_auth::rotation::{
    AcceptedPasswords, CachedPassword, FetchCause, Grace, HistoryRecord, Learned, Moment, Rotation,
    Schedule,
};
use pgimbal_auth::source::Source;
use pgimbal_auth::{SourceError, SourcePassword};
use pgimbal_config::AuthType;
use pgimbal_pooler::server::credential::CredentialEvent;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::fetch::{Fetches, Verifier, VerifierRequest, result_label};
use super::mismatch::{OlderPassword, RefetchReply, Refetched, Unavailable};
use super::server_logins::{LoginOutcome, OfferReply, ServerLogins};
use super::shared::Shared;
use super::status::{self, CredentialStatus, GenerationStatus, Refreshed, RevokeReply};
use crate::dial::DialError;
pub(super) use settings::{RoleSettings, role_settings};

/// How long a user that only a rule knows is kept as long as nobody has logged in as it. Clients
/// make up names in any number. It is longer than a client is held while its source is away, and
/// short enough that the fetches that all addresses together have (fifty in a second) cannot make
/// more than some thousand of them.
pub(super) const UNSERVED: Duration = Duration::from_secs(60);

/// How long such a user is kept that has been logged in as, once the source does not know it any
/// more: as long as a pool that nobody uses. While the source knows it or is away it stays: its
/// passwords are what clients show while the source is away.
pub(super) const UNKNOWN: Duration = Duration::from_secs(60 * 60);

/// What the task has to do because a role has changed.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Effects {
    /// Workers are told this.
    pub(super) event: Option<CredentialEvent>,
    /// Verifiers to make. The role waits for [`Role::handle_verifier`] of each.
    pub(super) verifiers: Vec<VerifierRequest>,
    /// [`Role::account`] has changed.
    pub(super) is_account_changed: bool,
    /// [`Role::older`] has changed.
    pub(super) is_older_changed: bool,
    /// [`Role::history`] or [`Role::passwords`] has changed.
    pub(super) is_state_changed: bool,
    /// A fetch sent then has come into use now, which is a sample of how long that takes.
    pub(super) fetch_sent: Option<Instant>,
}

/// The task that listens to a source's changes; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct SourceListener(AbortHandle);

impl SourceListener {
    pub(super) const fn new(task: AbortHandle) -> Self {
        Self(task)
    }
}

impl Drop for SourceListener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A client whose password fits none that is known, and that waits for the next fetch.
#[derive(Debug)]
struct Mismatched {
    since: Instant,
    answer: Refetched,
    reply: RefetchReply,
}

/// One user whose password rotates.
#[derive(Debug)]
pub(super) struct Role {
    name: Arc<str>,
    source: Arc<dyn Source>,
    rotation: Rotation,
    accepted: AcceptedPasswords,
    grace: Grace,
    logins: ServerLogins,
    /// Otherwise only a rule knows it, and it leaves when nobody needs it ([`Self::leaves_at`]).
    is_listed: bool,
    /// Somebody has logged in as this user, now or before a restart.
    is_served: bool,
    /// When somebody last wanted something of it.
    used_at: Instant,
    /// `None` for a source that does not tell changes.
    listener: Option<SourceListener>,
    mismatched: Vec<Mismatched>,
    /// A generation with an older date than the newest; `None` in it until its verifier is made.
    older: Option<(u32, Option<Arc<OlderPassword>>)>,
    /// Operators who have ordered a fetch.
    refreshing: Vec<oneshot::Sender<Refreshed>>,
    /// Operators who want only the newest password accepted, once its verifier is made.
    revoking: Vec<RevokeReply>,
    /// The serial of the fetch that is under way.
    fetch: Option<u64>,
    /// When the last fetch ended, and its result.
    last_fetch: Option<(Instant, &'static str)>,
    /// Why the last fetch failed; `None` when it did not.
    fetch_error: Option<SourceError>,
    /// Verifiers that are being made.
    deriving: usize,
    /// What workers were told of why no server connection can be opened.
    lockout: Option<Arc<[u8]>>,
    /// Nodes of which the log has said that no password works.
    refusing_nodes: Vec<Box<str>>,
    /// What the log has said once for this generation.
    logged: Vec<&'static str>,
}

impl Role {
    /// A user without passwords, but for the verifiers of its `history`, if there is one. The ticks
    /// at which all roles are fetched are counted from `epoch`.
    pub(super) fn new(
        name: &str,
        source: Arc<dyn Source>,
        settings: RoleSettings,
        history: Option<&HistoryRecord>,
        epoch: Instant,
        now: Instant,
    ) -> Self {
        let RoleSettings { is_listed, grace, poll_interval, salt_parameters, extra } = settings;
        let accepted = match history {
            Some(record) => AcceptedPasswords::of_record(record, Some(salt_parameters), extra),
            None => AcceptedPasswords::new(salt_parameters, extra),
        };
        let is_served = accepted.generations().next().is_some();
        let schedule = Schedule::new(poll_interval, rand::random(), epoch, now);
        Self {
            name: name.into(),
            source,
            rotation: Rotation::new(schedule, accepted.last_number() + 1),
            grace,
            accepted,
            logins: ServerLogins::default(),
            is_listed,
            is_served,
            used_at: now,
            listener: None,
            mismatched: Vec::new(),
            older: None,
            refreshing: Vec::new(),
            revoking: Vec::new(),
            fetch: None,
            last_fetch: None,
            fetch_error: None,
            deriving: 0,
            lockout: None,
            refusing_nodes: Vec::new(),
            logged: Vec::new(),
        }
    }

    /// Takes over a password from before a restart; call it for the older ones first.
    pub(super) fn restore(&mut self, cached: &CachedPassword, now: Moment) -> Effects {
        let password = cached.password().clone();
        let number = self.rotation.remember(password, cached.rotated_at(), now);
        self.is_served = true;
        let verifiers = self.request_verifier(number, now.instant).into_iter().collect();
        Effects { verifiers, ..Effects::default() }
    }

    /// Follows a new configuration. The passwords that are known stay in use.
    pub(super) fn reconfigure(
        &mut self,
        source: Arc<dyn Source>,
        settings: RoleSettings,
        now: Moment,
    ) -> Effects {
        let RoleSettings { is_listed, grace, poll_interval, salt_parameters, extra } = settings;
        self.grace = grace;
        // What was kept of a listed user is not lost with its entry.
        self.is_served |= self.is_listed;
        self.is_listed = is_listed;
        self.rotation.schedule.set_poll(poll_interval);
        let place = |source: &Arc<dyn Source>| (source.kind(), source.location());
        if place(&source) != place(&self.source) {
            // What the old place still answers is nobody's password any more.
            self.fetch = None;
            self.rotation.handle_source_change(now.instant);
        } else if self.fetch_error.is_some() || source.changes().is_some() {
            // The new configuration may have mended it, and a file may have changed after the old
            // listener ended and before the new one began.
            self.rotation.schedule.request_fetch(FetchCause::Order, now.instant);
        }
        self.source = source;
        self.older = None;
        let mut verifiers = Vec::new();
        if salt_parameters == *self.accepted.salt_parameters() {
            self.accepted.set_extra(extra);
        } else {
            let mut known: Vec<u32> =
                self.accepted.generations().map(|(number, _)| number).collect();
            known.sort_unstable();
            let record = self.accepted.record();
            self.accepted = AcceptedPasswords::of_record(&record, Some(salt_parameters), extra);
            let requests =
                known.into_iter().filter_map(|number| self.request_verifier(number, now.instant));
            verifiers.extend(requests);
        }
        // The new grace holds before anybody is told that the configuration is in force.
        let is_state_changed = self.accepted.handle_timeout(self.grace, now.wall);
        Effects {
            verifiers,
            is_account_changed: true,
            is_older_changed: true,
            is_state_changed,
            ..Effects::default()
        }
    }

    /// Replaces who listens to the source's changes.
    pub(super) fn set_listener(&mut self, listener: Option<SourceListener>) {
        self.listener = listener;
    }

    pub(super) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) const fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Whether the configuration names this user; otherwise only a rule covers it.
    pub(super) const fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// Whether its passwords and history outlive the process.
    pub(super) const fn is_kept(&self) -> bool {
        self.is_listed || self.is_served
    }

    /// Whether the source has told a password, now or before a restart.
    pub(super) fn has_password(&self) -> bool {
        self.rotation.newest().is_some()
    }

    /// Whether the last fetch failed because the source is away ([`is_away`]).
    pub(super) fn is_source_away(&self) -> bool {
        self.fetch_error.as_ref().is_some_and(is_away)
    }

    /// What clients' passwords are checked by; `None` when they may show none.
    pub(super) fn account(&self, auth_type: AuthType) -> Option<Account> {
        let mut accepted = self.accepted.accepted().peekable();
        accepted.peek()?;
        Some(Account::of_keys(auth_type, self.accepted.salt_parameters().clone(), accepted))
    }

    /// The password with an older date than the newest, once its verifier is made.
    pub(super) fn older(&self) -> Option<Arc<OlderPassword>> {
        self.older.as_ref().and_then(|(_, older)| older.clone())
    }

    /// What is kept in the history: verifiers only.
    pub(super) fn history(&self) -> HistoryRecord {
        self.accepted.record()
    }

    /// What is kept for a start without the source, the newest last.
    pub(super) fn passwords(&self) -> Vec<CachedPassword> {
        let known = self.rotation.previous().into_iter().chain(self.rotation.newest());
        known.map(|one| CachedPassword::new(one.password.clone(), one.rotated_at)).collect()
    }

    /// Somebody wants something of it: it stays for a while.
    pub(super) const fn mark_used(&mut self, now: Instant) {
        self.used_at = now;
    }

    /// A client has logged in as this user for the first time.
    pub(super) fn handle_first_login(&mut self, now: Instant) -> Effects {
        (self.is_served, self.used_at) = (true, now);
        Effects { is_state_changed: true, ..Effects::default() }
    }

    /// The source's place has changed: it is fetched soon.
    pub(super) fn handle_source_change(&mut self, now: Instant) {
        self.rotation.schedule.request_fetch(FetchCause::Order, now);
    }

    /// An operator orders a fetch; `reply` is answered with its result.
    pub(super) fn refresh(&mut self, reply: oneshot::Sender<Refreshed>, now: Instant) {
        self.rotation.schedule.request_fetch(FetchCause::Order, now);
        self.refreshing.push(reply);
    }

    /// A client has shown a password that fits none: `reply` is answered after the next fetch.
    pub(super) fn fetch_for_mismatch(
        &mut self,
        is_over_budget: bool,
        reply: RefetchReply,
        now: Instant,
    ) {
        self.rotation.schedule.request_fetch(FetchCause::Mismatch, now);
        let turn = self.rotation.schedule.mismatched().map_or(now, |(_, ready)| ready);
        let answer = Refetched { turn, is_over_budget };
        self.mismatched.push(Mismatched { since: now, answer, reply });
    }

    /// As [`Self::fetch_for_mismatch`], for a user that does not exist.
    ///
    /// # Errors
    /// `reply` when there is no budget for such a fetch.
    pub(super) fn fetch_as_stand_in(
        &mut self,
        turn: Instant,
        reply: RefetchReply,
        now: Instant,
    ) -> Result<(), RefetchReply> {
        if !self.rotation.schedule.request_fetch(FetchCause::StandIn, now) {
            return Err(reply);
        }
        let answer = Refetched { turn, is_over_budget: false };
        self.mismatched.push(Mismatched { since: now, answer, reply });
        Ok(())
    }

    /// Drops all generations but the newest, for good. `reply` comes back from
    /// [`Self::finish_revoking`].
    pub(super) fn revoke_old(&mut self, reply: RevokeReply) -> Effects {
        self.accepted.revoke_old();
        self.revoking.push(reply);
        Effects { is_account_changed: true, is_state_changed: true, ..Effects::default() }
    }

    /// The operators whose revoke is complete, and who are answered when it is written. While a
    /// verifier is being made there is none: the password that it replaces is to be revoked too.
    pub(super) fn finish_revoking(&mut self) -> Vec<RevokeReply> {
        if self.deriving > 0 || self.revoking.is_empty() {
            return Vec::new();
        }
        self.accepted.revoke_old();
        std::mem::take(&mut self.revoking)
    }

    /// When the next fetch is due; `None` while one is under way, or when none will be.
    pub(super) fn next_fetch(&self, now: Instant) -> Option<Instant> {
        self.rotation.schedule.next_timeout(now)
    }

    /// Starts the fetch that is due.
    pub(super) fn start_fetch(&mut self, fetches: &mut Fetches, now: Instant) {
        if self.rotation.schedule.begin_fetch(now) {
            let (name, source) = (Arc::clone(&self.name), Arc::clone(&self.source));
            self.fetch = Some(fetches.start(name, source, now));
        }
    }

    /// A fetch sent at `sent` has ended. `None` when it is not the one that the role waits for: the
    /// role was dropped and made anew, or has another source.
    pub(super) fn handle_fetched(
        &mut self,
        serial: u64,
        sent: Instant,
        result: Result<SourcePassword, SourceError>,
        now: Moment,
    ) -> Option<Effects> {
        self.fetch.take_if(|running| *running == serial)?;
        self.last_fetch = Some((now.instant, result_label(&result)));
        match result {
            Ok(answer) => Some(self.handle_answer(&answer, sent, now)),
            Err(error) => {
                self.rotation.schedule.handle_failure(now.instant, error.retry_after());
                let before = self.fetch_error.as_ref().map(SourceError::result_label);
                if before != Some(error.result_label()) && self.is_listed {
                    status::log_fetch_failed(&self.name, &error, self.has_password());
                }
                self.fetch_error = Some(error);
                Some(Effects::default())
            }
        }
    }

    fn handle_answer(&mut self, answer: &SourcePassword, sent: Instant, now: Moment) -> Effects {
        let other = answer.username.as_deref().filter(|name| *name != &*self.name);
        if let Some(other) = other
            && self.is_first("another name")
        {
            status::log_other_name(&self.name, &self.source.location(), other);
        }
        let stale = self.rotation.schedule.stale_since();
        if self.fetch_error.take().is_some() {
            let silent = stale.map_or(Duration::ZERO, |since| now.instant - since);
            status::log_answers_again(&self.name, &self.source.location(), silent);
        }
        let learned = self.rotation.handle_answer(answer, now);
        if matches!(learned, Learned::Ignored | Learned::Older(_)) && self.is_first("lags") {
            status::log_lagging(&self.name, &self.source.location());
        }
        let mut effects = Effects::default();
        match learned {
            Learned::Rotated(number) => {
                self.logged.clear();
                self.older = None;
                status::log_rotated(&self.name, &self.source.location(), number);
                effects.event = Some(CredentialEvent::Rotated);
                effects.verifiers.extend(self.request_verifier(number, sent));
                (effects.is_older_changed, effects.is_state_changed) = (true, true);
            }
            Learned::Same => {
                if self.rotation.refusing_newest().next().is_some() && self.is_first("contradicted")
                {
                    status::log_contradicted(&self.name, &self.source.location());
                }
                effects.fetch_sent = Some(sent);
            }
            Learned::Ignored => {}
            Learned::Older(number) => {
                if self.older.as_ref().is_none_or(|(known, _)| *known != number) {
                    self.older = Some((number, None));
                    effects.verifiers.extend(self.request_verifier(number, sent));
                }
            }
            Learned::Candidate(_) => {
                effects.event = Some(CredentialEvent::Candidate);
                effects.is_state_changed = true;
            }
        }
        effects
    }

    fn request_verifier(&mut self, number: u32, since: Instant) -> Option<VerifierRequest> {
        let generation = self.rotation.generation(number)?;
        self.deriving += 1;
        Some(VerifierRequest {
            role: Arc::clone(&self.name),
            generation: number,
            password: generation.password.clone(),
            salt_parameters: self.accepted.salt_parameters().clone(),
            since,
        })
    }

    /// A verifier is made, or cannot be: clients may show its password, unless an older date keeps
    /// it from being the newest.
    pub(super) fn handle_verifier(
        &mut self,
        verifier: Verifier,
        auth_type: AuthType,
        wall: SystemTime,
    ) -> Effects {
        let Verifier { generation: number, keys, since, .. } = verifier;
        self.deriving = self.deriving.saturating_sub(1);
        let mut effects = Effects::default();
        match keys {
            Ok(keys) if self.rotation.is_older(number) => {
                if let Some(generation) = self.rotation.generation(number) {
                    let salt_parameters = self.accepted.salt_parameters().clone();
                    let password = generation.password.clone();
                    let older =
                        OlderPassword::new(auth_type, salt_parameters, number, password, keys);
                    self.older = Some((number, Some(Arc::new(older))));
                    effects.is_older_changed = true;
                }
            }
            Ok(keys) => {
                self.accept(number, keys, wall);
                (effects.is_account_changed, effects.is_state_changed) = (true, true);
                effects.fetch_sent = Some(since);
            }
            Err(cause) => tracing::error!(user = &*self.name, "clients cannot show it: {cause}"),
        }
        effects
    }

    fn accept(&mut self, number: u32, keys: LoginKeys, wall: SystemTime) {
        let rotated_at = self.rotation.generation(number).and_then(|known| known.rotated_at);
        self.accepted.learn(number, rotated_at, keys, wall);
        self.accepted.handle_timeout(self.grace, wall);
    }

    /// `node` has accepted the password of [`Self::older`] with this number: it is the newest from
    /// now on.
    pub(super) fn handle_older_accepted(
        &mut self,
        number: u32,
        node: &str,
        wall: SystemTime,
    ) -> Effects {
        let older = self.older.take_if(|(known, _)| *known == number);
        let Some((_, Some(older))) = older else { return Effects::default() };
        if !self.rotation.promote_older(node, number) {
            return Effects::default();
        }
        status::log_promoted(&self.name, &self.source.location(), number);
        self.accept(older.generation(), older.keys().clone(), wall);
        Effects {
            event: Some(CredentialEvent::Rotated),
            is_account_changed: true,
            is_older_changed: true,
            is_state_changed: true,
            ..Effects::default()
        }
    }

    /// A login at `node` needs a password; `reply` is answered now or later.
    pub(super) fn add_login(&mut self, node: Box<str>, reply: OfferReply, now: Instant) {
        self.logins.add(node, reply);
        self.serve(now);
    }

    /// A login at `node` with this generation has ended.
    pub(super) fn handle_login_outcome(
        &mut self,
        node: &str,
        number: u32,
        outcome: LoginOutcome,
        now: Instant,
    ) -> Effects {
        let effects = match outcome {
            LoginOutcome::Accepted => self.handle_accepted(node, number, now),
            LoginOutcome::Refused(error) => {
                self.handle_refused(node, number, error, now);
                Effects::default()
            }
            LoginOutcome::Abandoned => {
                self.rotation.handle_abandoned(node, number);
                Effects::default()
            }
        };
        self.serve(now);
        effects
    }

    fn handle_accepted(&mut self, node: &str, number: u32, now: Instant) -> Effects {
        self.logins.accepted(node);
        if let Some(at) = self.refusing_nodes.iter().position(|known| **known == *node) {
            self.refusing_nodes.swap_remove(at);
            status::log_works_again(&self.name, node);
        }
        let newest = self.rotation.newest().map(|newest| newest.number);
        let mut effects = Effects::default();
        if let Some(promoted) = self.rotation.handle_accepted(node, number) {
            status::log_promoted(&self.name, &self.source.location(), promoted);
            effects.event = Some(CredentialEvent::Rotated);
            effects.verifiers.extend(self.request_verifier(promoted, now));
            effects.is_state_changed = true;
        } else if Some(number) != newest && self.is_first("fell back") {
            status::log_fell_back(&self.name, node);
        }
        effects
    }

    fn handle_refused(&mut self, node: &str, number: u32, error: DialError, now: Instant) {
        self.logins.refused(node, error);
        self.rotation.handle_refused(node, number, now);
        let is_refusing = self.rotation.failing().any(|(name, _)| name == node);
        if is_refusing && !self.refusing_nodes.iter().any(|known| **known == *node) {
            self.refusing_nodes.push(node.into());
            let has_worked = self.rotation.has_worked();
            status::log_all_refused(&self.name, node, has_worked, self.logins.refusal(node));
        }
    }

    /// Answers logins at servers that wait for a password, as far as there is an answer now.
    pub(super) fn serve(&mut self, now: Instant) {
        if !self.logins.is_waiting() {
            return;
        }
        let error = self.fetch_error.as_ref().map(ToString::to_string);
        let place = self.source.location();
        self.logins.serve(&mut self.rotation, error.as_deref(), &place, now);
    }

    /// Answers clients and operators that wait for a fetch, when it and its verifiers are complete.
    pub(super) fn settle(&mut self, now: Instant) {
        let schedule = &self.rotation.schedule;
        // What came up after the fetch was sent is answered by the next one.
        let goes_on =
            schedule.is_in_flight() || schedule.next_timeout(now).is_some_and(|next| next <= now);
        if self.deriving > 0 || goes_on {
            return;
        }
        // Those that came later wait for a fetch that is still to be sent.
        let later = schedule.mismatched().map(|(came, _)| came);
        let is_answered = |one: &mut Mismatched| later.is_none_or(|later| one.since < later);
        for one in self.mismatched.extract_if(.., is_answered) {
            // The client may have gone.
            let _ = one.reply.send(one.answer);
        }
        for reply in self.refreshing.drain(..) {
            let _ = reply.send(self.fetch_error.clone().map_or(Ok(()), Err));
        }
    }

    /// Does what is due now, but for a fetch.
    pub(super) fn poll(&mut self, now: Moment) -> Effects {
        if self.logins.wake_at().is_some_and(|at| at <= now.instant) {
            self.serve(now.instant);
        }
        let has_expired = self.accepted.handle_timeout(self.grace, now.wall);
        Effects {
            event: self.lockout_event(),
            is_account_changed: has_expired,
            is_state_changed: has_expired,
            ..Effects::default()
        }
    }

    /// When [`Self::poll`] has something to do, or the role leaves, if nothing happens before.
    pub(super) fn wake_at(&self, now: Moment) -> Option<Instant> {
        let end = self.accepted.next_timeout(self.grace);
        let end = end.map(|end| now.instant + end.duration_since(now.wall).unwrap_or_default());
        [end, self.logins.wake_at(), self.leaves_at()].into_iter().flatten().min()
    }

    /// When the role is dropped unless it is used until then; `None` for one that stays.
    pub(super) fn leaves_at(&self) -> Option<Instant> {
        let waiting = self.mismatched.len() + self.refreshing.len() + self.revoking.len();
        if self.is_listed || waiting + self.deriving > 0 || self.logins.is_waiting() {
            return None;
        }
        match (self.is_served, &self.fetch_error) {
            (false, _) => Some(self.used_at + UNSERVED),
            (true, Some(error)) if !is_away(error) => Some(self.used_at + UNKNOWN),
            (true, _) => None,
        }
    }

    /// What workers must be told of logins that cannot succeed; `None` when they know it.
    fn lockout_event(&mut self) -> Option<CredentialEvent> {
        let error =
            self.logins.lockout_error(&self.name, &self.rotation, self.fetch_error.as_ref());
        if error == self.lockout {
            return None;
        }
        self.lockout.clone_from(&error);
        Some(error.map_or(CredentialEvent::LetIn, CredentialEvent::LockedOut))
    }

    /// Whether the log has not said this of the newest generation yet.
    fn is_first(&mut self, what: &'static str) -> bool {
        let is_first = !self.logged.contains(&what);
        if is_first {
            self.logged.push(what);
        }
        is_first
    }

    /// Why clients cannot be checked although they should be by now; `None` when they can, and when
    /// waiting would not help.
    pub(super) fn unavailable(&self) -> Option<Unavailable> {
        let is_unknown = !self.has_password() || self.accepted.generations().next().is_none();
        let (cause, is_awaited) = match &self.fetch_error {
            Some(error) => (error.result_label(), is_away(error)),
            None => ("no answer yet", self.is_listed || self.deriving > 0),
        };
        (is_unknown && is_awaited).then_some(Unavailable { cause })
    }

    /// Whether a start waits for it: it is listed, and its first fetch and verifiers are not done.
    pub(super) const fn is_starting(&self) -> bool {
        self.is_listed && (self.last_fetch.is_none() || self.deriving > 0)
    }

    /// The role as people see it; `shared` has the counts of connections.
    pub(super) fn status(&self, shared: &Shared, now: Moment) -> CredentialStatus {
        let since = |at: Instant| now.instant.saturating_duration_since(at);
        let refusing: Vec<&str> = self.rotation.refusing_newest().collect();
        let (schedule, nodes) = (&self.rotation.schedule, self.rotation.nodes());
        CredentialStatus {
            user: self.name.to_string(),
            source: self.source.kind(),
            place: self.source.location(),
            next_rotation: schedule.until_rotation(now.instant),
            last_fetch: self.last_fetch.map(|(at, _)| since(at)),
            last_result: self.last_fetch.map_or("none", |(_, result)| result),
            stale: schedule.stale_since().map_or(Duration::ZERO, since),
            generations: self.generations(shared, now.wall),
            nodes: nodes.map(|node| (node.to_owned(), refusing.contains(&node))).collect(),
            logins: shared.logins_of(&self.name),
        }
    }

    fn generations(&self, shared: &Shared, wall: SystemTime) -> Vec<GenerationStatus> {
        let status = |(number, born): (u32, SystemTime)| GenerationStatus {
            number,
            age: wall.duration_since(born).unwrap_or_default(),
            clients: shared.clients().count(&self.name, number),
            servers: shared.servers().count(&self.name, number),
        };
        self.accepted.generations().map(status).collect()
    }
}

#[cfg(test)]
impl Role {
    /// The fetch with this serial is under way.
    pub(super) fn set_fetch(&mut self, serial: u64) {
        self.fetch = Some(serial);
    }

    pub(super) const fn fetch(&self) -> Option<u64> {
        self.fetch
    }

    pub(super) const fn rotation(&mut self) -> &mut Rotation {
        &mut self.rotation
    }

    pub(super) fn accepted_numbers(&self) -> Vec<u32> {
        self.accepted.generations().map(|(number, _)| number).collect()
    }

    pub(super) const fn is_served(&self) -> bool {
        self.is_served
    }

    pub(super) fn listener(&self) -> AbortHandle {
        self.listener.as_ref().expect("a source that tells changes").0.clone()
    }

    pub(super) fn drop_mismatched(&mut self) {
        self.mismatched.clear();
    }
}

/// Whether the source itself is away, and not only what it should tell: a file that somebody forgot
/// must not hold up everybody who mistypes a password.
fn is_away(error: &SourceError) -> bool {
    let file = matches!(error, SourceError::MissingFile { .. } | SourceError::HalfWritten { .. });
    error.is_transient() && !file
}
