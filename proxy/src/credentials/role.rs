//! One user whose password rotates: everything that is known of it, and who waits for more.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pgimbal_auth::account::{Account, LoginKeys};
use pgimbal_auth::rotation::{
    AcceptedPasswords, FetchCause, Grace, HistoryRecord, Moment, Rotation, Schedule,
};
use pgimbal_auth::source::Source;
use pgimbal_auth::verifier::{SaltKey, Salting};
use pgimbal_auth::{Answer, SourceError};
use pgimbal_config::{AuthType, Config, UserConfig};
use pgimbal_pooler::server::credential::CredentialEvent;
use pgimbal_wire::error::{Report, SqlState};
use pgimbal_wire::frame::HEADER_LEN;
use tokio::sync::oneshot;

use super::aside::Aside;
use super::derive::Order;
use super::leaving::Following;
use super::mismatch::Asked;
use super::server_logins::ServerLogins;
use super::status::{CredentialStatus, GenerationStatus};
use super::stored::Kept;
use super::{Refreshed, Shared, Unavailable, grace};

/// What may be wrong when no password works.
const HINT: &str =
    "Look at SHOW CREDENTIALS, and at the role's password and VALID UNTIL in PostgreSQL.";

/// What a role was made from.
pub(super) struct RoleSetup<'a> {
    pub(super) config: &'a Config,
    pub(super) user: &'a UserConfig,
    pub(super) salts: &'a SaltKey,
    pub(super) source: Arc<dyn Source>,
    pub(super) record: Option<&'a HistoryRecord>,
    /// What all questions' ticks are counted from.
    pub(super) epoch: Instant,
}

/// One user.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) name: Arc<str>,
    pub(super) source: Arc<dyn Source>,
    pub(super) rotation: Rotation,
    pub(super) accepted: AcceptedPasswords,
    pub(super) grace: Grace,
    pub(super) logins: ServerLogins,
    /// Otherwise only a rule knows it: it is forgotten when its source does not.
    pub(super) is_listed: bool,
    /// Somebody has logged in as this user, now or before a restart.
    pub(super) is_served: bool,
    /// When somebody last wanted something of it.
    pub(super) used_at: Instant,
    /// Who listens to the source's changes.
    pub(super) following: Option<Following>,
    /// Clients whose password fitted nothing, since when, and what they will be told.
    pub(super) mismatched: Vec<(Instant, Asked, oneshot::Sender<Asked>)>,
    /// What the source says with an older date than the newest, once its keys are made.
    pub(super) aside: Option<(u32, Option<Arc<Aside>>)>,
    /// Operators who want the question asked.
    pub(super) refreshing: Vec<oneshot::Sender<Refreshed>>,
    /// Operators who want only the newest password accepted, once its verifier is made.
    pub(super) revoking: Vec<Kept>,
    /// Whether its question is due and waits for room.
    pub(super) is_starved: bool,
    /// The question that is out.
    pub(super) asked: Option<u64>,
    /// When the source was last asked, and what came of it.
    pub(super) last: Option<(Instant, &'static str)>,
    /// What the source said instead of a password, while that is so.
    pub(super) silence: Option<SourceError>,
    /// Verifiers that are being made.
    pub(super) deriving: usize,
    /// When the task will look at it.
    pub(super) queued: Option<Instant>,
    /// What the workers were told of why no server connection can be opened.
    lockout: Option<Arc<[u8]>>,
    /// Nodes of which the log has said that no password works.
    pub(super) locked_out: Vec<Box<str>>,
    /// What the log has said once for this generation.
    pub(super) told: Vec<&'static str>,
}

impl Role {
    pub(super) fn new(name: &str, setting: RoleSetup<'_>, now: Instant) -> Self {
        let RoleSetup { config, user, salts, source, record, epoch } = setting;
        let (own, extra) = extra_password(name, user, salts);
        let accepted = match record {
            Some(record) => AcceptedPasswords::of_record(record, Some(own), extra),
            None => AcceptedPasswords::new(own, extra),
        };
        let is_served = accepted.generations().next().is_some();
        let poll = grace::poll_interval(config, user);
        let schedule = Schedule::new(poll, rand::random(), epoch, now);
        Self {
            name: name.into(),
            source,
            rotation: Rotation::new(schedule, accepted.last_number() + 1),
            grace: grace::grace(config, user),
            accepted,
            logins: ServerLogins::default(),
            is_listed: config.users.contains_key(name),
            is_served,
            used_at: now,
            following: None,
            mismatched: Vec::new(),
            aside: None,
            refreshing: Vec::new(),
            revoking: Vec::new(),
            is_starved: false,
            asked: None,
            last: None,
            silence: None,
            deriving: 0,
            queued: None,
            lockout: None,
            locked_out: Vec::new(),
            told: Vec::new(),
        }
    }

    /// The configuration has changed. Verifiers that must be made anew are in the answer.
    pub(super) fn reconfigure(&mut self, setting: RoleSetup<'_>, now: Instant) -> Vec<Order> {
        let RoleSetup { config, user, salts, source, .. } = setting;
        self.grace = grace::grace(config, user);
        // What was kept of a listed user is not lost with its entry.
        self.is_served |= self.is_listed;
        self.is_listed = config.users.contains_key(&*self.name);
        self.rotation.schedule.set_poll(grace::poll_interval(config, user));
        let place = |source: &Arc<dyn Source>| (source.kind(), source.place());
        if place(&source) != place(&self.source) {
            // What the old place still answers is nobody's password any more.
            self.asked = None;
            self.rotation.source_changed(now);
        } else if self.silence.is_some() || source.changes().is_some() {
            // The new configuration may be what it takes, and a file may have changed between the
            // eyes of the old one and of the new one.
            self.rotation.schedule.want(FetchCause::Order, now);
        }
        self.source = source;
        self.aside = None;
        let (salting, extra) = extra_password(&self.name, user, salts);
        if salting == *self.accepted.salting() {
            self.accepted.set_extra(extra);
            return Vec::new();
        }
        // A client is shown one salt for all passwords, and a verifier brings its own.
        let mut accepted: Vec<u32> =
            self.accepted.generations().map(|(number, _)| number).collect();
        accepted.sort_unstable();
        self.accepted = AcceptedPasswords::of_record(&self.accepted.record(), Some(salting), extra);
        accepted.into_iter().filter_map(|number| self.order(number, now)).collect()
    }

    /// The verifier of a generation, to be made.
    pub(super) fn order(&mut self, number: u32, since: Instant) -> Option<Order> {
        let generation = self.rotation.generation(number)?;
        self.deriving += 1;
        Some(Order {
            role: Arc::clone(&self.name),
            number,
            password: generation.password.clone(),
            salting: self.accepted.salting().clone(),
            since,
        })
    }

    /// A generation's verifier is made: clients may show it.
    pub(super) fn learn(&mut self, number: u32, keys: LoginKeys, wall: SystemTime) {
        let rotated_at = self.rotation.generation(number).and_then(|known| known.rotated_at);
        self.accepted.learn(number, rotated_at, keys, wall);
        self.accepted.expire(self.grace, wall);
    }

    /// What clients may show now.
    pub(super) fn account(&self, auth_type: AuthType) -> Option<Account> {
        let mut accepted = self.accepted.accepted().peekable();
        accepted.peek()?;
        Some(Account::of_keys(auth_type, self.accepted.salting().clone(), accepted))
    }

    /// Everybody who waits for the source's next answer is told that it has come.
    pub(super) fn settle(&mut self, now: Instant) {
        let schedule = &self.rotation.schedule;
        // What came up after the question was sent is answered by the next one.
        let goes_on = schedule.is_in_flight() || schedule.next(now).is_some_and(|next| next <= now);
        if self.deriving > 0 || goes_on {
            return;
        }
        // Those that came later wait for a question that is yet to be asked.
        let later = schedule.mismatched().map(|(came, _)| came);
        let told = |since: &Instant| later.is_none_or(|later| *since < later);
        for (_, asked, waiting) in self.mismatched.extract_if(.., |waiting| told(&waiting.0)) {
            // Whoever asked may have gone.
            let _ = waiting.send(asked);
        }
        for waiting in self.refreshing.drain(..) {
            let _ = waiting.send(self.silence.clone().map_or(Ok(()), Err));
        }
    }

    /// Gives those who log in to servers what there is.
    pub(super) fn serve(&mut self, now: Instant) {
        if !self.logins.is_waiting() {
            return;
        }
        let silence = self.silence.as_ref().map(ToString::to_string);
        let place = self.source.place();
        self.logins.serve(&mut self.rotation, silence.as_deref(), &place, now);
    }

    /// When something is to be done next, but for a question that is due.
    pub(super) fn wake_at(&self, now: Moment) -> Option<Instant> {
        let end = self.accepted.next_end(self.grace);
        let end = end.map(|end| now.instant + end.duration_since(now.wall).unwrap_or_default());
        let waiting = self.logins.wake_at.filter(|_| self.logins.is_waiting());
        [end, waiting, self.leaves_at()].into_iter().flatten().min()
    }

    /// What the workers must know now about logins that cannot succeed.
    pub(super) fn lockout_event(&mut self) -> Option<CredentialEvent> {
        let now = self.lockout_error();
        if now == self.lockout {
            return None;
        }
        self.lockout.clone_from(&now);
        Some(now.map_or(CredentialEvent::LetIn, CredentialEvent::LockedOut))
    }

    /// The body of the ErrorResponse that says why no server connection can be opened.
    fn lockout_error(&self) -> Option<Arc<[u8]>> {
        let failing = self.rotation.failing().next().map(|(node, _)| node);
        let (name, silence) = (&self.name, self.silence.as_ref());
        let (code, text) = match (failing, silence) {
            (None, _) if self.rotation.newest().is_some() => return None,
            (None, _) => (
                SqlState::CANNOT_CONNECT_NOW,
                format!("the password of user \"{name}\" is not known yet"),
            ),
            // It may pass, and the password that works is not for the client to know.
            (Some(node), Some(silence)) => (
                SqlState::CANNOT_CONNECT_NOW,
                format!(
                    "no password that is known of user \"{name}\" works at {node}, and a newer one \
                     cannot be read: {silence}"
                ),
            ),
            (Some(node), None) => {
                let refusal = self.logins.refusal(node).map(ToString::to_string);
                let refusal = refusal.unwrap_or_default();
                (
                    SqlState::INVALID_PASSWORD,
                    format!("no password of user \"{name}\" works at {node}: {refusal}"),
                )
            }
        };
        let mut message = Vec::new();
        Report::error(code, &text).hint(HINT).encode_error(&mut message);
        message.get(HEADER_LEN..).map(Into::into)
    }

    /// Says something once in the log, until the source has a new password.
    pub(super) fn once(&mut self, what: &'static str) -> bool {
        let first = !self.told.contains(&what);
        if first {
            self.told.push(what);
        }
        first
    }

    /// Why its password is not known, though it should be and may be soon.
    pub(super) fn darkness(&self) -> Option<Unavailable> {
        let cause = self.silence.as_ref().map_or("no answer yet", SourceError::result_label);
        self.is_dark().then_some(Unavailable { cause })
    }

    /// Whether its password should be known by now and is not, and that may pass.
    fn is_dark(&self) -> bool {
        let none = self.rotation.newest().is_none() || self.accepted.generations().next().is_none();
        let is_awaited = self.is_listed || self.deriving > 0;
        none && self.silence.as_ref().map_or(is_awaited, is_away)
    }

    /// A user of another name in the answer.
    pub(super) fn other_name<'a>(&self, answer: &'a Answer) -> Option<&'a str> {
        answer.username.as_deref().filter(|name| *name != &*self.name)
    }

    pub(super) fn status(&self, shared: &Shared, now: Moment) -> CredentialStatus {
        let since = |at: Instant| now.instant.saturating_duration_since(at);
        let failing: Vec<&str> = self.rotation.refusing_newest().collect();
        CredentialStatus {
            user: self.name.to_string(),
            source: self.source.kind(),
            place: self.source.place(),
            next_rotation: self.rotation.schedule.until_rotation(now.instant),
            last_fetch: self.last.map(|(at, _)| since(at)),
            last_result: self.last.map_or("none", |(_, result)| result),
            stale: self.rotation.schedule.stale_since().map_or(Duration::ZERO, since),
            generations: self.generations(shared, now.wall),
            nodes: self
                .rotation
                .nodes()
                .map(|node| (node.to_owned(), failing.contains(&node)))
                .collect(),
            logins: shared.logins_of(&self.name),
        }
    }

    fn generations(&self, shared: &Shared, wall: SystemTime) -> Vec<GenerationStatus> {
        let status = |(number, born): (u32, SystemTime)| GenerationStatus {
            number,
            age: wall.duration_since(born).unwrap_or_default(),
            clients: shared.clients.count(&self.name, number),
            servers: shared.servers.count(&self.name, number),
        };
        self.accepted.generations().map(status).collect()
    }
}

/// Whether the source itself is away, and not only what it should say: a file that somebody forgot
/// must not hold up all who mistype a password.
pub(super) fn is_away(error: &SourceError) -> bool {
    let file = matches!(error, SourceError::MissingFile { .. } | SourceError::HalfWritten { .. });
    error.is_transient() && !file
}

/// The salting of a user, and the keys of what is accepted beside all generations.
fn extra_password(name: &str, user: &UserConfig, salts: &SaltKey) -> (Salting, Option<LoginKeys>) {
    let salting = Salting::of_user(name, user.accept_also.iter(), salts);
    let salting = salting.unwrap_or_else(|_| Salting::of_key(name, salts));
    let extra = user.accept_also.as_ref().map(|also| LoginKeys::derive(name, also, &salting));
    (salting, extra.and_then(Result::ok))
}
