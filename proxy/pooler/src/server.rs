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
pub mod statements;

use std::rc::Rc;
use std::time::Instant;

use pgimbal_wire::encode::TransactionStatus;

use crate::ids::{PoolId, ServerId, SessionId};
use crate::plan::Body;
use crate::pool::shared::Slot;
use crate::recovery::in_flight::InFlight;
use crate::server::pending::{Owner, PendingReplies};
use crate::server::prepared::{StatementId, UnnamedStatement};
use crate::server::reported::Reported;
use crate::server::restore::Restore;
use crate::server::statements::ServerStatements;
use crate::session::settings::{RefusedSettings, Setting, SettingsId, SettingsTable};
use crate::session::state::asking::Asking;
use crate::session::state::question::OwnStatements;
use crate::sql::Kinds;
use crate::topology::{Epoch, NodeId};

/// A server connection.
#[derive(Debug)]
pub struct Server {
    /// Its own id.
    id: ServerId,
    /// The pool that it belongs to.
    pool: PoolId,
    /// Its place within the limits; dropped when the backend is known to be gone.
    slot: Slot,
    /// What it is doing.
    state: ServerState,
    /// The replies that are still to come.
    pending: PendingReplies,
    /// The one place where a transaction's status is kept: what the last ReadyForQuery said.
    status: TransactionStatus,
    /// The rest of a message that is passing through towards the client.
    body: Body,
    /// Whose that message is.
    body_of: Owner,
    /// The settings in effect, as far as the proxy has set them.
    settings: SettingsId,
    /// The settings that it reports.
    reported: Rc<Reported>,
    /// Its prepared statements.
    statements: ServerStatements,
    /// Statements that were parsed under settings that nobody knows: they are closed when the
    /// transaction has ended, and parsed anew where they are needed.
    unsettled: Vec<StatementId>,
    /// Statements that were parsed once more than was needed; they are closed when it is idle.
    surplus: Vec<StatementId>,
    /// The node of its cluster that it was opened to.
    node: Option<NodeId>,
    /// Where in its cluster's history it stands; `None` outside of a cluster, and once it is cut.
    epoch: Option<Epoch>,
    /// What its unnamed statement is.
    unnamed: UnnamedStatement,
    /// COPY FROM STDIN is running.
    copy_in: bool,
    /// The transaction may have changed the schema.
    schema_change: bool,
    /// What a session has left that no query shows: reset before the next session's first message.
    residue: Kinds,
    /// The question that is being answered, and since when.
    asking: Option<(Box<Asking>, Instant)>,
    /// When a question was last answered.
    asked_at: Option<Instant>,
    /// The statements of questions that it has.
    own_statements: OwnStatements,
    /// Whether the reported settings say how the server reads what is sent now.
    readings: ReadingsKnown,
    /// The error with which a name of the client's could not be made real: it stands for the one
    /// that follows from that.
    name_error: Option<Box<[u8]>>,
    /// How far bringing it to its session's settings has come.
    setup: Setup,
    /// What has happened since the last ReadyForQuery.
    since_ready: SinceReady,
    /// What its client has sent since it was last idle.
    in_flight: InFlight,
    /// What is brought back after a RESET or DEALLOCATE of the client's, when it is ready.
    restore: Restore,
    /// Settings that its session has set since the last ReadyForQuery.
    newly_set: Vec<Box<[u8]>>,
    /// The FATAL or PANIC with which it took its leave: the body of the ErrorResponse.
    shutdown_notice: Option<Box<[u8]>>,
    /// How to cancel what it runs.
    backend_key: BackendKey,
    /// Transactions that it has ended: the number of the current one.
    transaction: u64,
    /// Cancel requests on their way to it.
    cancels: u32,
    /// When it was opened.
    opened_at: Instant,
    /// When it is to be replaced, once it is unlinked.
    retire_at: Instant,
}

/// Whether the reported settings say how the server reads a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadingsKnown {
    /// They do.
    #[default]
    Yes,
    /// Something that is not reported yet runs before it.
    No,
}

/// How far bringing a server connection to its session's settings has come.
#[derive(Debug, Default)]
pub enum Setup {
    /// All settings at once.
    #[default]
    Whole,
    /// The first part of them was refused, the second is to be answered.
    Refused,
    /// They were refused: everything is reset, and they are set one by one.
    OneByOne {
        /// The settings, in the order in which they are set.
        settings: Vec<Setting>,
        /// How many of them have been answered.
        done: usize,
        /// Those that were refused, with the body of the first ErrorResponse.
        refused: Option<RefusedSettings>,
    },
}

/// What a server connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Connecting and logging in.
    Dialing,
    /// Waiting for a client since then.
    Idle(Instant),
    /// Serving a session since then.
    Linked(SessionId, Instant),
    /// Idle, but cancel requests sent for it may still arrive.
    AwaitingCancels(Instant),
    /// Saying good-bye: the place is taken until the backend is gone.
    Closing,
}

/// What has happened on a server connection since its last ReadyForQuery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinceReady {
    /// An ErrorResponse has come.
    pub failed: bool,
    /// Whether the end of a transaction block may be under way.
    pub ending: Ending,
    /// When what was sent outside of a transaction block commits.
    pub commits: Commits,
    /// The proxy has cancelled what runs.
    pub cancelled: bool,
    /// Messages were forwarded whose Sync has not been.
    pub segment_open: bool,
}

/// When statements commit that stand in no transaction block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Commits {
    /// At their end, so that their failure proves that nothing is left of them.
    #[default]
    AtEnd,
    /// Perhaps before, as CALL may.
    OnItsWay,
}

/// Whether the end of a transaction block is among what was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// No.
    #[default]
    No,
    /// A ROLLBACK and nothing else.
    Rollback,
    /// Perhaps a COMMIT, END or PREPARE TRANSACTION.
    MayCommit,
}

/// Process id and secret of a backend, for cancel requests.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BackendKey {
    /// The backend's process id.
    pub process_id: u32,
    /// The secret, 4 to 256 bytes.
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
            unnamed: UnnamedStatement::Absent,
            copy_in: false,
            schema_change: false,
            residue: Kinds::NONE,
            asking: None,
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
            cancels: 0,
            opened_at,
            retire_at,
        }
    }

    /// Its own id.
    #[inline]
    #[must_use]
    pub const fn id(&self) -> ServerId {
        self.id
    }

    /// The pool that it belongs to.
    #[inline]
    #[must_use]
    pub const fn pool(&self) -> PoolId {
        self.pool
    }

    /// What it is doing.
    #[inline]
    #[must_use]
    pub const fn state(&self) -> ServerState {
        self.state
    }

    /// The node of its cluster that it was opened to; `None` outside of a cluster.
    #[must_use]
    pub const fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Where in its cluster's history it stands; `None` outside of a cluster, and once it is cut.
    #[must_use]
    pub const fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// It stands elsewhere in its cluster's history, or is cut (`None`).
    pub(crate) const fn set_epoch(&mut self, epoch: Option<Epoch>) {
        self.epoch = epoch;
    }

    /// What the last ReadyForQuery said.
    #[inline]
    #[must_use]
    pub const fn status(&self) -> TransactionStatus {
        self.status
    }

    /// The number of the current transaction, from 1: those that it has ended, and one.
    #[must_use]
    pub const fn transaction(&self) -> u64 {
        self.transaction
    }

    /// How to cancel what it runs.
    #[must_use]
    pub const fn backend_key(&self) -> &BackendKey {
        &self.backend_key
    }

    /// When it was opened.
    #[must_use]
    pub const fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// When it is to be replaced, once it is unlinked.
    #[must_use]
    pub const fn retire_at(&self) -> Instant {
        self.retire_at
    }

    /// It is to be replaced by then at the latest.
    pub(crate) fn retire_by(&mut self, at: Instant) {
        self.retire_at = self.retire_at.min(at);
    }

    /// It waits for a client from `now` on.
    pub(crate) const fn make_idle(&mut self, now: Instant) {
        self.state = ServerState::Idle(now);
    }

    /// It serves a session from `now` on.
    pub(crate) const fn link_to(&mut self, session: SessionId, now: Instant) {
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

    /// Whether cancel requests are on their way to it.
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

    /// The replies that are still to come.
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

    /// Its prepared statements.
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

    /// The settings in effect, as far as pgimbal has set them.
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

    /// The settings that it reports.
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

    /// How far bringing it to its session's settings has come.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Bringing it to its session's settings has come that far.
    pub(crate) fn set_setup(&mut self, setup: Setup) {
        self.setup = setup;
    }

    /// What a session has left that no query shows: reset before the next session's first message.
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

    /// Whether a question is being answered.
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

    /// The session that it serves.
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

    /// Whether it may be released: idle, nothing pending, nothing in the middle.
    #[inline]
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.status == TransactionStatus::Idle
            && self.pending.is_empty()
            && !self.since_ready.segment_open
            && self.body == Body::None
    }
}
