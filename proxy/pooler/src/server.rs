//! One server connection as the core sees it. Its socket is the driver's.

pub mod credential;
pub mod life;
pub mod migration;
pub mod pending;
pub mod prepared;
pub mod renewal;
pub mod reported;
pub(crate) mod restore;
pub mod server_turn;
pub(crate) mod servers;
mod since_ready;
pub mod statements;
mod timing;

use std::rc::Rc;
use std::time::{Duration, Instant};

use pgimbal_wire::encode::TransactionStatus;

use crate::ids::{PoolId, ServerId, SessionId};
use crate::plan::Body;
use crate::pool::shared::Slot;
use crate::recovery::in_flight::InFlight;
use crate::server::pending::{Owner, PendingReplies};
use crate::server::prepared::{StatementId, UnnamedStatement};
use crate::server::reported::Reported;
use crate::server::restore::Restore;
pub use crate::server::since_ready::{Commits, Ending, SinceReady};
use crate::server::statements::ServerStatements;
use crate::server::timing::Timing;
use crate::session::settings::{RefusedSettings, Setting, SettingsId, SettingsTable};
use crate::session::state::asking::Asking;
use crate::session::state::question::OwnStatements;
use crate::sql::Kinds;
use crate::topology::{Epoch, NodeId};

/// The state of one server connection in its worker: what it is doing, which session has it, which
/// replies it has still to send, and its settings and prepared statements. The driver owns the
/// socket.
#[derive(Debug)]
pub struct Server {
    /// The server connection's own id.
    id: ServerId,
    /// The pool that the server connection belongs to.
    pool: PoolId,
    /// The connection's place within the limits; dropped when the backend is known to be gone.
    slot: Slot,
    /// What the server connection is doing.
    state: ServerState,
    /// Whom it is for.
    serves: Serves,
    /// The replies that are still to come.
    pending: PendingReplies,
    /// The status in the last ReadyForQuery: the one place where a transaction's status is kept.
    status: TransactionStatus,
    /// The rest of a message that is passing through towards a client.
    body: Body,
    /// The owner of the message that is passing through.
    body_of: Owner,
    /// The settings in effect on the server, as far as the proxy has set them.
    settings: SettingsId,
    /// The settings that the server has reported (ParameterStatus).
    reported: Rc<Reported>,
    /// The named prepared statements that the server has under the proxy's names.
    statements: ServerStatements,
    /// Statements that were parsed under settings that nobody knows: they are closed when the
    /// transaction has ended, and parsed anew where they are needed.
    unsettled: Vec<StatementId>,
    /// Statements that were parsed once more than was needed; they are closed when it is idle.
    surplus: Vec<StatementId>,
    /// The node of the cluster that the connection was opened to; `None` outside of a cluster.
    node: Option<NodeId>,
    /// Where in its cluster's history the connection stands; `None` outside of a cluster, and once
    /// it is cut off.
    epoch: Option<Epoch>,
    /// When the server was started, in microseconds since 1970; 0 outside of a cluster.
    started_at_micros: i64,
    /// Whose the server's unnamed statement is.
    unnamed: UnnamedStatement,
    /// Whether COPY FROM STDIN is running.
    copy_in: bool,
    /// Whether the transaction may have changed the schema.
    schema_change: bool,
    /// The kinds of state that are left on the server and to be reset before the next session's
    /// first message: mostly what no query shows.
    residue: Kinds,
    /// The question (about a session or the database) that is being answered, and since when.
    asking: Option<(Box<Asking>, Instant)>,
    /// The rows of the database's catalog that have come, while it is read.
    catalog: Option<Vec<[String; 3]>>,
    /// When a question was last answered.
    asked_at: Option<Instant>,
    /// The proxy's own prepared statements for questions that the server has.
    own_statements: OwnStatements,
    /// Whether the reported settings say how the server reads the texts that are sent now.
    readings: ReadingsKnown,
    /// The error with which a name of the client's could not be made real: it stands for the one
    /// that follows from that.
    name_error: Option<Box<[u8]>>,
    /// How far the connection has been brought to its session's settings.
    setup: Setup,
    /// What has happened since the last ReadyForQuery.
    since_ready: SinceReady,
    /// What the linked client has sent since the connection was last idle.
    in_flight: InFlight,
    /// What is brought back after the client's RESET or DEALLOCATE, when the connection is ready.
    restore: Restore,
    /// Names of settings that the session has set since the last ReadyForQuery.
    newly_set: Vec<Box<[u8]>>,
    /// The body of the FATAL or PANIC ErrorResponse with which the server ended the connection.
    shutdown_notice: Option<Box<[u8]>>,
    /// The backend's process id and secret, for cancel requests.
    backend_key: BackendKey,
    /// The number of the current transaction: one more than those that the connection has ended.
    transaction: u64,
    /// Since when it runs what it runs.
    timing: Timing,
    /// How many cancel requests are on their way to the backend.
    cancels: u32,
    /// When the connection was opened.
    opened_at: Instant,
    /// When the connection is to be replaced, as soon as no session has it.
    retire_at: Instant,
}

/// Whether the reported settings (such as `standard_conforming_strings` and `client_encoding`) say
/// how the server reads a text that is sent now. If not, a text is classified by all its possible
/// readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadingsKnown {
    /// The reported settings hold for the text; the state when the server has answered everything.
    #[default]
    Yes,
    /// Something was sent that may change such a setting (as a SET or a function may), and the
    /// server has not answered everything since: what it will report is not known yet.
    No,
}

/// How far a server connection has been brought to the settings of the session that it was linked
/// to. Used before the client's first message is forwarded.
#[derive(Debug, Default)]
pub enum Setup {
    /// All settings are sent at once, in one or two queries; also the state when nothing is under
    /// way.
    #[default]
    Whole,
    /// The server has refused the first of two queries, and the second is still to be answered.
    /// Whatever that answer is, everything is reset then, and [`Setup::OneByOne`] follows.
    Refused,
    /// The server has refused the settings: everything is reset, and they are set one by one to
    /// find out which the server refuses.
    OneByOne {
        /// The settings, in the order in which they are set
        /// ([`order_of`](crate::session::settings::order_of)).
        settings: Vec<Setting>,
        /// How many of `settings` the server has answered.
        done: usize,
        /// Those that the server has refused so far, with the body of the first ErrorResponse;
        /// `None` if none. A setting that the server no longer knows (42602) is not among them: it
        /// is forgotten.
        refused: Option<RefusedSettings>,
    },
}

/// What a server connection is doing, from dialing over idle and linked (in turns) to closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// The driver is connecting and logging in; `Pooler::handle_dialed` or
    /// `Pooler::handle_dial_failed` ends this.
    Dialing,
    /// The connection has been idle since this time: no session has it, and the next checkout may
    /// take it.
    Idle(Instant),
    /// The connection has served this session since this time. Others may still await replies of
    /// it.
    Linked(SessionId, Instant),
    /// No session has the connection since this time, but it is not given to another yet: a cancel
    /// request that is on its way would hit the next session's query.
    AwaitingCancels(Instant),
    /// The connection listens for all clients of its pool on this worker (LISTEN); no session has
    /// it, or ever will.
    Listening,
    /// The proxy ends the connection (Terminate). Its place within the limits stays taken until the
    /// backend is gone.
    Closing,
}

/// Whom a server connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serves {
    /// One session after the other.
    Sessions,
    /// All that listen.
    Listener,
}

/// The process id and secret of a backend, from its BackendKeyData. A cancel request to the server
/// carries them (protocol, "Canceling Requests in Progress").
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BackendKey {
    /// The backend's process id, as the server has sent it; 0 before it has.
    pub process_id: u32,
    /// The secret: 4 bytes in protocol 3.0, up to 256 in 3.2; empty before the server has sent it.
    /// `Debug` does not show it.
    pub secret: Box<[u8]>,
}

impl std::fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackendKey({}, ***)", self.process_id)
    }
}

impl Server {
    /// A server connection that is being opened and lives until `retire_at`.
    pub(crate) fn dialing(
        id: ServerId,
        pool: PoolId,
        slot: Slot,
        node: Option<NodeId>,
        reported: Rc<Reported>,
        opened_at: Instant,
        retire_at: Instant,
    ) -> Self {
        Self {
            id,
            pool,
            slot,
            state: ServerState::Dialing,
            serves: Serves::Sessions,
            pending: PendingReplies::default(),
            status: TransactionStatus::Idle,
            body: Body::None,
            body_of: Owner::PGIMBAL,
            settings: SettingsId::EMPTY,
            reported,
            statements: ServerStatements::default(),
            unsettled: Vec::new(),
            surplus: Vec::new(),
            node,
            epoch: None,
            started_at_micros: 0,
            unnamed: UnnamedStatement::Absent,
            copy_in: false,
            schema_change: false,
            residue: Kinds::NONE,
            asking: None,
            catalog: None,
            asked_at: None,
            own_statements: OwnStatements::default(),
            readings: ReadingsKnown::Yes,
            name_error: None,
            setup: Setup::Whole,
            since_ready: SinceReady::default(),
            in_flight: InFlight::default(),
            restore: Restore::default(),
            newly_set: Vec::new(),
            shutdown_notice: None,
            backend_key: BackendKey::default(),
            // Zero stands for "in none".
            transaction: 1,
            timing: Timing::new(opened_at),
            cancels: 0,
            opened_at,
            retire_at,
        }
    }

    /// The server connection's id: its slot in the worker's table and a serial number, so that the
    /// id of one that is gone finds no other.
    #[inline]
    #[must_use]
    pub const fn id(&self) -> ServerId {
        self.id
    }

    /// The server connection's place in the limits of its pool, database, user and server.
    #[inline]
    pub(crate) const fn slot(&self) -> &Slot {
        &self.slot
    }

    /// As [`Self::slot`], to be changed.
    pub(crate) const fn slot_mut(&mut self) -> &mut Slot {
        &mut self.slot
    }

    /// The pool that the server connection belongs to (its database, user and place in a cluster).
    #[inline]
    #[must_use]
    pub const fn pool(&self) -> PoolId {
        self.pool
    }

    /// What the server connection is doing: dialing, idle, linked to a session, awaiting cancel
    /// requests, or closing.
    #[inline]
    #[must_use]
    pub const fn state(&self) -> ServerState {
        self.state
    }

    /// The node of the cluster that the connection was opened to; `None` outside of a cluster.
    #[must_use]
    pub const fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Where in its cluster's history the connection stands; `None` outside of a cluster, and once
    /// it is cut off.
    #[must_use]
    pub const fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// When the server was started, in microseconds since 1970; 0 outside of a cluster.
    pub(crate) const fn started_at_micros(&self) -> i64 {
        self.started_at_micros
    }

    /// It stands elsewhere in its cluster's history, or is cut (`None`).
    pub(crate) const fn set_epoch(&mut self, epoch: Option<Epoch>) {
        self.epoch = epoch;
    }

    /// The transaction status in the last ReadyForQuery: idle, in a block, or in a failed block.
    /// Idle before the first.
    #[inline]
    #[must_use]
    pub const fn status(&self) -> TransactionStatus {
        self.status
    }

    /// The number of the current transaction on this connection, from 1: those that it has ended,
    /// and one.
    #[must_use]
    pub const fn transaction(&self) -> u64 {
        self.transaction
    }

    /// A message of the client's is sent: the first of its query, where nothing else is under way.
    #[inline]
    pub(crate) fn note_sending(&mut self, now: Instant) {
        if self.pending.is_empty() && !self.since_ready.segment_open {
            self.timing.begin(self.status, now);
        }
    }

    /// The backend's process id and secret, for cancel requests; empty until the login has
    /// succeeded.
    #[must_use]
    pub const fn backend_key(&self) -> &BackendKey {
        &self.backend_key
    }

    /// When the attempt to open the server connection began, which is before its login. The time is
    /// kept when the connection moves to another worker.
    #[must_use]
    pub const fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// When the connection is to be replaced, as soon as no session has it: at first after
    /// `server_lifetime` less up to a quarter of it, earlier after a reload, an operator's
    /// RECONNECT or a rotated password. While no password of its role works, it is kept beyond that
    /// time.
    #[must_use]
    pub const fn retire_at(&self) -> Instant {
        self.retire_at
    }

    /// It is to be replaced by then at the latest.
    pub(crate) fn retire_by(&mut self, at: Instant) {
        self.retire_at = self.retire_at.min(at);
    }

    /// It is opened to listen for all clients of its pool.
    pub(crate) const fn serve_listener(&mut self) {
        self.serves = Serves::Listener;
    }

    /// Whether it was opened to listen for all clients of its pool; it counts in no pool's limit
    /// then.
    #[must_use]
    pub const fn serves_listener(&self) -> bool {
        matches!(self.serves, Serves::Listener)
    }

    /// It listens from now on.
    pub(crate) const fn begin_to_listen(&mut self) {
        self.state = ServerState::Listening;
    }

    /// Whether it listens for all clients of its pool.
    pub(crate) const fn is_listening(&self) -> bool {
        matches!(self.state, ServerState::Listening)
    }

    /// It waits for a client from `now` on.
    pub(crate) const fn make_idle(&mut self, now: Instant) {
        self.state = ServerState::Idle(now);
    }

    /// It serves a session, which has waited for that long, from `now` on.
    pub(crate) fn link_to(&mut self, session: SessionId, waited: Duration, now: Instant) {
        self.timing.link(waited, now);
        self.state = ServerState::Linked(session, now);
    }

    /// Nobody holds it, but cancel requests for it may still arrive.
    pub(crate) const fn await_cancels(&mut self, now: Instant) {
        self.state = ServerState::AwaitingCancels(now);
    }

    /// A cancel request is on its way to it.
    pub(crate) const fn begin_cancel(&mut self) {
        self.cancels += 1;
    }

    /// A cancel request has come to its end. Returns whether it was the last, for which the server
    /// connection has waited.
    pub(crate) const fn end_cancel(&mut self) -> bool {
        self.cancels = self.cancels.saturating_sub(1);
        self.cancels == 0 && matches!(self.state, ServerState::AwaitingCancels(_))
    }

    /// Whether cancel requests are on their way to the backend. While they are, the connection is
    /// not given to another session.
    #[must_use]
    pub const fn awaits_cancels(&self) -> bool {
        self.cancels > 0
    }

    /// What pgimbal has cancelled by itself runs until the next ReadyForQuery.
    pub(crate) const fn note_cancelled(&mut self) {
        self.since_ready.cancelled = true;
    }

    /// Whether pgimbal has cancelled what runs.
    pub(crate) const fn is_cancelled(&self) -> bool {
        self.since_ready.cancelled
    }

    /// The replies that the server has still to send, oldest first; empty if it has answered
    /// everything.
    #[inline]
    #[must_use]
    pub const fn pending(&self) -> &PendingReplies {
        &self.pending
    }

    /// As [`Self::pending`], to be changed.
    #[inline]
    pub(crate) const fn pending_mut(&mut self) -> &mut PendingReplies {
        &mut self.pending
    }

    /// What its client has sent since it was last idle.
    #[inline]
    pub(crate) const fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// As [`Self::in_flight`], to be changed.
    #[inline]
    pub(crate) const fn in_flight_mut(&mut self) -> &mut InFlight {
        &mut self.in_flight
    }

    /// The named prepared statements that the server has under the proxy's names; the unnamed
    /// statement and the proxy's own for questions are not among them.
    #[inline]
    #[must_use]
    pub const fn statements(&self) -> &ServerStatements {
        &self.statements
    }

    /// As [`Self::statements`], to be changed.
    #[inline]
    pub(crate) const fn statements_mut(&mut self) -> &mut ServerStatements {
        &mut self.statements
    }

    /// It has no prepared statement any more, or nobody knows which.
    pub(crate) fn forget_statements(&mut self) {
        self.statements.clear();
        self.own_statements = OwnStatements::default();
    }

    /// A statement was parsed under settings that nobody knows: it is closed when the transaction
    /// has ended.
    pub(crate) fn add_unsettled(&mut self, statement: StatementId) {
        self.unsettled.push(statement);
    }

    /// Takes the statements that were parsed once more than was needed.
    pub(crate) fn take_surplus(&mut self) -> Vec<StatementId> {
        std::mem::take(&mut self.surplus)
    }

    /// Whether there are such statements.
    pub(crate) fn has_surplus(&self) -> bool {
        !self.surplus.is_empty()
    }

    /// The statements of questions that it has.
    pub(crate) const fn own_statements(&self) -> &OwnStatements {
        &self.own_statements
    }

    /// As [`Self::own_statements`], to be changed.
    pub(crate) const fn own_statements_mut(&mut self) -> &mut OwnStatements {
        &mut self.own_statements
    }

    /// Whose its unnamed statement is.
    #[inline]
    pub(crate) const fn unnamed(&self) -> UnnamedStatement {
        self.unnamed
    }

    /// Its unnamed statement is that from now on.
    #[inline]
    pub(crate) const fn set_unnamed(&mut self, unnamed: UnnamedStatement) {
        self.unnamed = unnamed;
    }

    /// The settings in effect on the server, as far as the proxy has set them;
    /// [`SettingsId::EMPTY`] on a fresh connection.
    #[inline]
    #[must_use]
    pub const fn settings(&self) -> SettingsId {
        self.settings
    }

    /// Other settings are in effect.
    pub(crate) fn assign_settings(&mut self, table: &mut SettingsTable, to: SettingsId) {
        table.assign(&mut self.settings, to);
    }

    /// As [`Self::assign_settings`]; the caller's reference becomes the server connection's.
    pub(crate) fn adopt_settings(&mut self, table: &mut SettingsTable, owned: SettingsId) {
        table.release(std::mem::replace(&mut self.settings, owned));
    }

    /// The settings that the server has reported (ParameterStatus); empty until the login has
    /// succeeded.
    #[must_use]
    pub const fn reported(&self) -> &Rc<Reported> {
        &self.reported
    }

    /// Whether the reported settings say how it reads what is sent now.
    #[inline]
    pub(crate) const fn readings(&self) -> ReadingsKnown {
        self.readings
    }

    /// Something that is not reported yet runs before what is sent now.
    #[inline]
    pub(crate) const fn doubt_readings(&mut self) {
        self.readings = ReadingsKnown::No;
    }

    /// What is brought back after a RESET or DEALLOCATE of the client's, when it is ready.
    #[inline]
    pub(crate) const fn restore(&self) -> &Restore {
        &self.restore
    }

    /// As [`Self::restore`], to be changed.
    pub(crate) const fn restore_mut(&mut self) -> &mut Restore {
        &mut self.restore
    }

    /// Its session has set this setting: the server's spelling counts once it is reported.
    pub(crate) fn note_newly_set(&mut self, name: &[u8]) {
        self.newly_set.push(name.into());
    }

    /// A setting was reset: what is reported of it is not what was set.
    pub(crate) fn forget_newly_set(&mut self, name: &[u8]) {
        self.newly_set.retain(|known| **known != *name);
    }

    /// Takes the settings that its session has set since the last ReadyForQuery.
    pub(crate) fn take_newly_set(&mut self) -> Vec<Box<[u8]>> {
        std::mem::take(&mut self.newly_set)
    }

    /// How far the connection has been brought to the settings of its session; [`Setup::Whole`]
    /// when nothing is under way.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Bringing it to its session's settings has come that far.
    pub(crate) fn set_setup(&mut self, setup: Setup) {
        self.setup = setup;
    }

    /// The kinds of state that are left on the server (mostly what no query shows). They are reset,
    /// or the connection is closed, before the next session's first message; empty if there are
    /// none.
    #[must_use]
    pub const fn residue(&self) -> Kinds {
        self.residue
    }

    /// Takes what a session has left, which is about to be reset.
    pub(crate) fn take_residue(&mut self) -> Kinds {
        std::mem::take(&mut self.residue)
    }

    /// As [`Self::residue`], to be changed.
    pub(crate) const fn residue_mut(&mut self) -> &mut Kinds {
        &mut self.residue
    }

    /// The question that is being answered, and since when.
    pub(crate) const fn asking(&self) -> Option<&(Box<Asking>, Instant)> {
        self.asking.as_ref()
    }

    /// Whether a question of the proxy's (what state the session has left, or facts about the
    /// database) is on its way and not answered yet.
    #[must_use]
    pub const fn is_being_asked(&self) -> bool {
        self.asking.is_some()
    }

    /// A question whose answer takes too long: its session goes on.
    pub(crate) fn let_client_go_on(&mut self) {
        if let Some((asking, _)) = &mut self.asking {
            asking.let_client_go_on();
        }
    }

    /// A question was sent at `now`.
    pub(crate) fn begin_asking(&mut self, asking: Asking, now: Instant) {
        self.asking = Some((Box::new(asking), now));
    }

    /// Takes the question that was answered at `now`.
    pub(crate) fn end_asking(&mut self, now: Instant) -> Option<Asking> {
        let (asking, _) = self.asking.take()?;
        self.asked_at = Some(now);
        Some(*asking)
    }

    /// When a question was last answered.
    pub(crate) const fn asked_at(&self) -> Option<Instant> {
        self.asked_at
    }

    /// Whether messages were sent whose Sync was not.
    #[inline]
    pub(crate) const fn has_open_segment(&self) -> bool {
        self.since_ready.segment_open
    }

    /// A message was sent that needs a Sync behind it.
    #[inline]
    pub(crate) const fn open_segment(&mut self) {
        self.since_ready.segment_open = true;
    }

    /// The end of the segment was sent, or it will not come.
    #[inline]
    pub(crate) const fn close_segment(&mut self) {
        self.since_ready.segment_open = false;
    }

    /// Whether an ErrorResponse has come since the last ReadyForQuery.
    pub(crate) const fn has_failed(&self) -> bool {
        self.since_ready.failed
    }

    /// The error that has come was another session's.
    pub(crate) const fn forget_failure(&mut self) {
        self.since_ready.failed = false;
    }

    /// Whether the end of a transaction block may be under way.
    pub(crate) const fn ending(&self) -> Ending {
        self.since_ready.ending
    }

    /// What is sent now says so of the end of a transaction block.
    pub(crate) const fn set_ending(&mut self, ending: Ending) {
        self.since_ready.ending = ending;
    }

    /// When what was sent outside of a transaction block commits.
    pub(crate) const fn commits(&self) -> Commits {
        self.since_ready.commits
    }

    /// What is sent now may commit before its end.
    pub(crate) const fn note_early_commit(&mut self) {
        self.since_ready.commits = Commits::OnItsWay;
    }

    /// What is sent now may change the schema.
    pub(crate) const fn note_schema_change(&mut self) {
        self.schema_change = true;
    }

    /// Whether COPY FROM STDIN is running.
    pub(crate) const fn copies_in(&self) -> bool {
        self.copy_in
    }

    /// COPY FROM STDIN has its end. Returns whether one was running.
    pub(crate) const fn end_copy_in(&mut self) -> bool {
        std::mem::replace(&mut self.copy_in, false)
    }

    /// Whether nothing of a message to a client is still to come.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.body == Body::None
    }

    /// The FATAL or PANIC with which it took its leave: the body of the ErrorResponse.
    pub(crate) fn shutdown_notice(&self) -> Option<&[u8]> {
        self.shutdown_notice.as_deref()
    }

    /// The session that has this server connection; `None` in every state but
    /// [`ServerState::Linked`].
    #[inline]
    #[must_use]
    pub const fn session(&self) -> Option<SessionId> {
        match self.state {
            ServerState::Linked(session, _) => Some(session),
            _ => None,
        }
    }

    /// Whether it waits for a client.
    #[inline]
    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self.state, ServerState::Idle(_))
    }

    /// Whether it ends: Terminate was sent, or is about to be.
    #[inline]
    pub(crate) const fn is_closing(&self) -> bool {
        matches!(self.state, ServerState::Closing)
    }

    /// It ends.
    pub(crate) const fn begin_to_close(&mut self) {
        self.state = ServerState::Closing;
    }

    /// Whether a message to this session's client is half-way.
    #[inline]
    pub(crate) fn is_passing_to(&self, session: SessionId) -> bool {
        matches!(self.body, Body::Forward(_)) && self.body_of == Owner::of(session)
    }

    /// Whether the connection may be released: no transaction is open, no reply is pending, no
    /// segment lacks its Sync, and no message is half-way to a client. A pin of the session to the
    /// connection, a residue and cancel requests on their way are not looked at.
    #[inline]
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.status == TransactionStatus::Idle
            && self.pending.is_empty()
            && !self.since_ready.segment_open
            && self.body == Body::None
    }
}
