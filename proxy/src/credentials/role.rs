//! One user whose password rotates: its source, its passwords, and the clients, logins and
//! operators that wait for them.
//!
//! [`Role`] changes only its own state; everything else that must be done it returns as
//! [`Effects`].

mod effects;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pgimbal_auth::account::{Account, LoginKeys};
use pgimbal_auth::rotation::{
    AcceptedPasswords, CachedPassword, FetchCause, Grace, HistoryRecord, Learned, Moment, Rotation,
    Schedule, SourceGeneration,
};
use pgimbal_auth::source::Source;
use pgimbal_auth::{SourceError, SourcePassword};
use pgimbal_config::AuthType;
use pgimbal_pooler::server::credential::CredentialEvent;
use tokio::sync::oneshot;
#[cfg(test)]
use tokio::task::AbortHandle;

use super::fetch::{Fetches, Verifier, VerifierRequest, result_label};
use super::mismatch::{OlderPassword, RefetchReply, Refetched, Unavailable};
use super::server_logins::{LoginOutcome, OfferReply, ServerLogins};
use super::shared::Shared;
use super::status::{self, CredentialStatus, GenerationStatus, Refreshed, RevokeReply};
use crate::dial::DialError;
pub(super) use effects::{Effects, SourceListener};
pub(super) use settings::{RoleSettings, role_settings};

/// How long a user that only a rule knows is kept while nobody has logged in as it. Clients make up
/// names in any number. It is longer than a client is held while its source is away, and short
/// enough that the fetches that all addresses together have (fifty in a second) cannot make more
/// than some thousand of them.
pub(super) const UNSERVED: Duration = Duration::from_secs(60);

/// How long a user that only a rule knows and that somebody has logged in as is kept once the
/// source does not know it any more: as long as an unused pool. While the source knows it or is
/// away it stays: its passwords are what clients show while the source is away.
pub(super) const UNKNOWN: Duration = Duration::from_secs(60 * 60);

/// A client whose password matches none that is known, and that waits for the next fetch.
#[derive(Debug)]
struct Mismatched {
    since: Instant,
    answer: Refetched,
    reply: RefetchReply,
}

/// One user whose password rotates, in the task of [`CredentialManager`](super::CredentialManager).
#[derive(Debug)]
pub(super) struct Role {
    name: Arc<str>,
    source: Arc<dyn Source>,
    rotation: Rotation,
    accepted: AcceptedPasswords,
    grace: Grace,
    logins: ServerLogins,
    /// Whether the configuration lists the user. Otherwise only a rule covers it, and it is dropped
    /// when nobody needs it ([`Self::leaves_at`]).
    is_listed: bool,
    /// Whether somebody has logged in as this user, now or before a restart.
    is_served: bool,
    /// When somebody last asked for something of the user.
    used_at: Instant,
    /// The listener to the source's changes; `None` for a source that does not report them.
    listener: Option<SourceListener>,
    mismatched: Vec<Mismatched>,
    /// A generation with an older date than the newest, by number; its second part is `None` until
    /// the verifier is derived.
    older: Option<(u32, Option<Arc<OlderPassword>>)>,
    /// Operators who wait for the end of a fetch (REFRESH).
    refreshing: Vec<oneshot::Sender<Refreshed>>,
    /// Operators who want only the newest password accepted (REVOKE OLD), once its verifier is
    /// derived.
    revoking: Vec<RevokeReply>,
    /// The serial number of the fetch that runs; `None` when none does.
    fetch: Option<u64>,
    /// When the last fetch ended, and its result as a label.
    last_fetch: Option<(Instant, &'static str)>,
    /// The error of the last fetch; `None` when it succeeded.
    fetch_error: Option<SourceError>,
    /// Number of verifiers that are being derived.
    deriving: usize,
    /// Numbers of the passwords of the password cache whose verifiers are being derived.
    restoring: Vec<u32>,
    /// When another replica last told something new of the user's passwords.
    told_at: Instant,
    /// The ErrorResponse body that workers were told because no server connection can be opened.
    lockout: Option<Arc<[u8]>>,
    /// Nodes of which the log has already said that no password works there.
    refusing_nodes: Vec<Box<str>>,
    /// Events that the log has already reported for this generation.
    logged: Vec<&'static str>,
}

impl Role {
    /// Makes a user without passwords, but with the verifiers of its `history` if there is one. Its
    /// first fetch is due at `now`; the ticks at which all roles are fetched are counted from
    /// `epoch`.
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
            Some(record) => AcceptedPasswords::of_record(record, salt_parameters, extra),
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
            restoring: Vec::new(),
            told_at: now,
            lockout: None,
            refusing_nodes: Vec::new(),
            logged: Vec::new(),
        }
    }

    /// Adds a password from the password cache when the role is made; the older ones must be added
    /// first. Servers are shown it before the first fetch ends, and clients may show it once its
    /// verifier is derived.
    pub(super) fn restore(&mut self, cached: &CachedPassword, now: Moment) -> Effects {
        let password = cached.password().clone();
        let number = self.rotation.remember(password, cached.rotated_at(), now);
        self.is_served = true;
        self.restoring.push(number);
        let verifiers = self.request_verifier(number, now.instant).into_iter().collect();
        Effects { verifiers, ..Effects::default() }
    }

    /// Applies a reloaded configuration. Known passwords stay in use. When the source's place has
    /// changed, it is fetched at once, and what the old source still answers is ignored.
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
            self.accepted = AcceptedPasswords::of_record(&record, salt_parameters, extra);
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

    /// Replaces the listener to the source's changes; the old one ends. `None` for a source that
    /// must be polled.
    pub(super) fn set_listener(&mut self, listener: Option<SourceListener>) {
        self.listener = listener;
    }

    /// The user's name, which is its role at the servers.
    pub(super) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The source of the user's password.
    pub(super) const fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Whether the configuration lists this user; otherwise only a rule covers it.
    pub(super) const fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// Whether the user's passwords and history are written to the state files: it is listed, or
    /// somebody has logged in as it. Made-up names of a rule are not written.
    pub(super) const fn is_kept(&self) -> bool {
        self.is_listed || self.is_served
    }

    /// Whether the user's history belongs into the document: it is kept, or was revoked.
    pub(super) fn is_shared(&self) -> bool {
        self.is_kept() || self.accepted.has_revoked()
    }

    /// Whether a password in clear text is known, from the source or from the password cache.
    pub(super) fn has_password(&self) -> bool {
        self.rotation.newest().is_some()
    }

    /// Whether the last fetch failed because the source itself is away ([`is_away`]); `false` for a
    /// secret or file that is missing, after a success, and before the first fetch.
    pub(super) fn is_source_away(&self) -> bool {
        self.fetch_error.as_ref().is_some_and(is_away)
    }

    /// The account by which clients' passwords are checked; `None` when no password is accepted.
    pub(super) fn account(&self, auth_type: AuthType) -> Option<Account> {
        let mut accepted = self.accepted.accepted().peekable();
        accepted.peek()?;
        Some(Account::of_keys(auth_type, self.accepted.salt_parameters().clone(), accepted))
    }

    /// The password with an older date than the newest; `None` when there is none, or its verifier
    /// is still being derived.
    pub(super) fn older(&self) -> Option<Arc<OlderPassword>> {
        self.older.as_ref().and_then(|(_, older)| older.clone())
    }

    /// Takes over what the document says of the user: passwords that other replicas have seen, and
    /// what was revoked. When one of them is newer than the source's, the source is asked at once.
    pub(super) fn merge(&mut self, record: &HistoryRecord, now: Moment) -> Effects {
        let rotation = &mut self.rotation;
        let number = || rotation.take_number();
        if !self.accepted.merge(record, self.grace, now.wall, number) {
            return Effects { is_state_changed: true, ..Effects::default() };
        }
        self.told_at = now.instant;
        self.is_served |= self.accepted.generations().next().is_some();
        if self.accepted.is_behind() && self.fetch.is_none() {
            self.rotation.schedule.request_fetch(FetchCause::Order, now.instant);
        }
        Effects { is_account_changed: true, is_state_changed: true, ..Effects::default() }
    }

    /// The record for the document, which has verifiers only.
    pub(super) fn history(&self) -> HistoryRecord {
        self.accepted.record()
    }

    /// The passwords for the password cache, at most two, the newest last; empty when none is
    /// known.
    pub(super) fn passwords(&self) -> Vec<CachedPassword> {
        let known = self.rotation.previous().into_iter().chain(self.rotation.newest());
        known.map(|one| CachedPassword::new(one.password.clone(), one.rotated_at)).collect()
    }

    /// Marks the user as used at `now`, so that it is not dropped for a while
    /// ([`Self::leaves_at`]).
    pub(super) const fn mark_used(&mut self, now: Instant) {
        self.used_at = now;
    }

    /// Handles the first login of a client as this user: from now on its passwords are written to
    /// the state files.
    pub(super) fn handle_first_login(&mut self, now: Instant) -> Effects {
        (self.is_served, self.used_at) = (true, now);
        Effects { is_state_changed: true, ..Effects::default() }
    }

    /// Handles a change that the source has reported, for example of a file: a fetch is due at
    /// once, or right after the one that runs.
    pub(super) fn handle_source_change(&mut self, now: Instant) {
        self.rotation.schedule.request_fetch(FetchCause::Order, now);
    }

    /// Requests a fetch for an operator (REFRESH); `reply` gets its result.
    pub(super) fn refresh(&mut self, reply: oneshot::Sender<Refreshed>, now: Instant) {
        self.rotation.schedule.request_fetch(FetchCause::Order, now);
        self.refreshing.push(reply);
    }

    /// Requests a fetch because a client has shown an unknown password. `reply` is answered after
    /// it, when its verifiers are derived. `is_over_budget` is passed on in the reply.
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

    /// Requests a fetch as [`Self::fetch_for_mismatch`] does, on behalf of a user that does not
    /// exist. `turn` is passed on in the reply.
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

    /// Drops all accepted generations but the newest, and those that are in `known`, the user's
    /// record in the document (REVOKE OLD). [`Self::finish_revoking`] returns `reply` when that is
    /// complete.
    pub(super) fn revoke_old(&mut self, known: &HistoryRecord, reply: RevokeReply) -> Effects {
        self.accepted.revoke_old(known);
        self.revoking.push(reply);
        Effects { is_account_changed: true, is_state_changed: true, ..Effects::default() }
    }

    /// The operators whose revocation is complete, to be answered when it is written. Empty while a
    /// verifier is being derived, because the password that it replaces must be revoked too.
    pub(super) fn finish_revoking(&mut self, known: &HistoryRecord) -> Vec<RevokeReply> {
        if self.deriving > 0 || self.revoking.is_empty() {
            return Vec::new();
        }
        self.accepted.revoke_old(known);
        std::mem::take(&mut self.revoking)
    }

    /// The time of the next fetch, which may be past: the fetch is due then, and the task starts it
    /// when fewer than 16 run. `None` while one runs, or when none is planned.
    pub(super) fn next_fetch(&self, now: Instant) -> Option<Instant> {
        self.rotation.schedule.next_timeout(now)
    }

    /// Starts the fetch that is due; no effect when none is.
    pub(super) fn start_fetch(&mut self, fetches: &mut Fetches, now: Instant) {
        if self.rotation.schedule.begin_fetch(now) {
            let (name, source) = (Arc::clone(&self.name), Arc::clone(&self.source));
            self.fetch = Some(fetches.start(name, source, now));
        }
    }

    /// Handles the end of a fetch that was sent at `sent`: its password or failure. `None`, without
    /// effect, when it is not the fetch that the role waits for, because the role was dropped and
    /// made anew or has another source.
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
                if sent > self.told_at && self.accepted.confirm(now.wall) {
                    (effects.is_account_changed, effects.is_state_changed) = (true, true);
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

    /// Handles a verifier that was derived or could not be. Clients may show its password from now
    /// on, unless its date is older than that of the newest; then it becomes [`Self::older`]. A
    /// password that is a malformed verifier is logged, and no client may show it.
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
        let returned = SourceGeneration { number, rotated_at, keys };
        let restored = self.restoring.iter().position(|restored| *restored == number);
        let is_accepted = match restored {
            Some(at) => {
                self.restoring.swap_remove(at);
                self.accepted.restore(returned, wall)
            }
            None => self.accepted.learn(returned, wall),
        };
        if !is_accepted && restored.is_none() && self.is_first("revoked") {
            status::log_revoked(&self.name, &self.source.location());
        }
        self.accepted.handle_timeout(self.grace, wall);
    }

    /// Handles that `node` has accepted the password of [`Self::older`] with this number: it
    /// becomes the newest. No effect when it is no longer the older password.
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

    /// Adds a login at `node` (`host:port`) that needs a password. `reply` is answered at once if a
    /// password may be tried there or none is left to try, and later while another login tries one.
    pub(super) fn add_login(&mut self, node: Box<str>, reply: OfferReply, now: Instant) {
        self.logins.add(node, reply);
        self.serve(now);
    }

    /// Handles the outcome of a login at `node` with generation `number`, and answers logins that
    /// waited for it. A refusal of the newest generation makes a fetch due.
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

    /// Answers clients and operators that wait for a fetch, when it has ended and its verifiers are
    /// derived.
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

    /// Does everything that is due at `now` except fetches: answers logins, and drops generations
    /// whose grace has ended.
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

    /// The time at which [`Self::poll`] has something to do or the role is to be dropped, if
    /// nothing happens before; `None` when nothing is due.
    pub(super) fn wake_at(&self, now: Moment) -> Option<Instant> {
        let end = self.accepted.next_timeout(self.grace);
        let end = end.map(|end| now.instant + end.duration_since(now.wall).unwrap_or_default());
        [end, self.logins.wake_at(), self.leaves_at()].into_iter().flatten().min()
    }

    /// The time at which the role is dropped unless it is used before; `None` for one that stays,
    /// because it is listed, in use, or its source knows it or is away.
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

    /// Whether the source had the user, and says that it has it no more. Files and variables of this
    /// host, which the other replicas may have, count only if it `is_alone`.
    pub(super) fn is_gone(&self, is_alone: bool) -> bool {
        use SourceError::{MissingFile, MissingVariable, UnknownRole};
        match &self.fetch_error {
            Some(UnknownRole { .. }) => self.is_served,
            Some(MissingFile { .. } | MissingVariable { .. }) => self.is_served && is_alone,
            _ => false,
        }
    }

    /// The change of the error that workers must give to logins that cannot succeed; `None` when
    /// they know it.
    fn lockout_event(&mut self) -> Option<CredentialEvent> {
        let error =
            self.logins.lockout_error(&self.name, &self.rotation, self.fetch_error.as_ref());
        if error == self.lockout {
            return None;
        }
        self.lockout.clone_from(&error);
        Some(error.map_or(CredentialEvent::LetIn, CredentialEvent::LockedOut))
    }

    /// Whether the log has not reported `what` yet for the newest generation; marks it as reported.
    fn is_first(&mut self, what: &'static str) -> bool {
        let is_first = !self.logged.contains(&what);
        if is_first {
            self.logged.push(what);
        }
        is_first
    }

    /// The reason for which clients cannot be checked although their password should be known by
    /// now; `None` when they can be, and when waiting would not help.
    pub(super) fn unavailable(&self) -> Option<Unavailable> {
        let is_unknown = !self.has_password() || self.accepted.generations().next().is_none();
        let (cause, is_awaited) = match &self.fetch_error {
            Some(error) => (error.result_label(), is_away(error)),
            None => ("no answer yet", self.is_listed || self.deriving > 0),
        };
        (is_unknown && is_awaited).then_some(Unavailable { cause })
    }

    /// Whether the start of pgimbal waits for this user: it is listed, and its first fetch and its
    /// verifiers are not complete.
    pub(super) const fn is_starting(&self) -> bool {
        self.is_listed && (self.last_fetch.is_none() || self.deriving > 0)
    }

    /// The user's state for SHOW CREDENTIALS and metrics; `shared` has the counts of connections.
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
    /// Marks the fetch with this serial number as running, for a test.
    pub(super) fn set_fetch(&mut self, serial: u64) {
        self.fetch = Some(serial);
    }

    /// The serial number of the fetch that runs; `None` when none does.
    pub(super) const fn fetch(&self) -> Option<u64> {
        self.fetch
    }

    /// The rotation of the user's password, for a test.
    pub(super) const fn rotation(&mut self) -> &mut Rotation {
        &mut self.rotation
    }

    /// Numbers of the accepted generations, the newest first.
    pub(super) fn accepted_numbers(&self) -> Vec<u32> {
        self.accepted.generations().map(|(number, _)| number).collect()
    }

    /// Whether somebody has logged in as this user.
    pub(super) const fn is_served(&self) -> bool {
        self.is_served
    }

    /// The handle of the listening task; panics for a source that does not report changes.
    pub(super) fn listener(&self) -> AbortHandle {
        self.listener.as_ref().expect("a source that tells changes").0.clone()
    }

    /// Drops the clients that wait for a fetch, as if they had gone.
    pub(super) fn drop_mismatched(&mut self) {
        self.mismatched.clear();
    }
}

/// Whether the source itself is away, and not only the secret in it: a file that somebody forgot
/// must not hold up everybody who mistypes a password.
fn is_away(error: &SourceError) -> bool {
    let file = matches!(error, SourceError::MissingFile { .. } | SourceError::HalfWritten { .. });
    error.is_transient() && !file
}
