//! One server connection as the core sees it. Its socket is the driver's.

pub mod credential;
pub mod life;
pub mod pending;
pub mod prepared;
pub mod renewal;
pub mod reported;
pub mod server_turn;
pub(crate) mod servers;
pub mod statements;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use pgimbal_wire::encode::TransactionStatus;

use crate::ids::{PoolId, ServerId, SessionId};
use crate::plan::Body;
use crate::pool::shared::Slot;
use crate::recovery::in_flight::InFlight;
use crate::server::pending::{Owner, PendingReplies};
use crate::server::prepared::{StatementId, UnnamedStatement};
use crate::server::reported::Reported;
use crate::server::statements::ServerStatements;
use crate::session::settings::{RefusedSettings, Setting, SettingsId};
use crate::session::state::asking::Asking;
use crate::session::state::question::OwnStatements;
use crate::sql::Kinds;
use crate::topology::{Epoch, NodeId};

/// A server connection.
#[derive(Debug)]
pub struct Server {
    /// Its own id.
    pub id: ServerId,
    /// The pool that it belongs to.
    pub pool: PoolId,
    /// Its place within the limits; dropped when the backend is known to be gone.
    pub slot: Slot,
    /// What it is doing.
    pub state: ServerState,
    /// The replies that are still to come.
    pub pending: PendingReplies,
    /// The one place where a transaction's status is kept: what the last ReadyForQuery said.
    pub status: TransactionStatus,
    /// The rest of a message that is passing through towards the client.
    pub body: Body,
    /// Whose that message is.
    pub(crate) body_of: Owner,
    /// The settings in effect, as far as the proxy has set them.
    pub settings: SettingsId,
    /// The settings that it reports.
    pub reported: Rc<Reported>,
    /// Its prepared statements.
    pub statements: ServerStatements,
    /// Statements that were parsed under settings that nobody knows: they are closed when the
    /// transaction has ended, and parsed anew where they are needed.
    pub unsettled: Vec<StatementId>,
    /// Statements that were parsed once more than was needed; they are closed when it is idle.
    pub surplus: Vec<StatementId>,
    /// The node of its cluster that it was opened to.
    pub node: Option<NodeId>,
    /// Where in its cluster's history it stands; `None` outside of a cluster, and once it is cut.
    pub epoch: Option<Epoch>,
    /// What its unnamed statement is.
    pub unnamed: UnnamedStatement,
    /// COPY FROM STDIN is running.
    pub copy_in: bool,
    /// The transaction may have changed the schema.
    pub schema_change: bool,
    /// What a session has left that no query shows: reset before the next session's first message.
    pub residue: Kinds,
    /// The question that is being answered, and since when.
    pub asking: Option<(Box<Asking>, Instant)>,
    /// When a question was last answered.
    pub asked_at: Option<Instant>,
    /// The statements of questions that it has.
    pub own_statements: OwnStatements,
    /// Whether the reported settings say how the server reads what is sent now.
    pub readings: ReadingsKnown,
    /// The error with which a name of the client's could not be made real: it stands for the one
    /// that follows from that.
    pub lend_error: Option<Box<[u8]>>,
    /// How far bringing it to its session's settings has come.
    pub setup: Setup,
    /// What has happened since the last ReadyForQuery.
    pub since_ready: SinceReady,
    /// What its client has sent since it was last idle.
    pub in_flight: InFlight,
    /// What is brought back after a RESET or DEALLOCATE of the client's, when it is ready.
    pub restore: Restore,
    /// Settings that its session has set since the last ReadyForQuery.
    pub newly_set: Vec<Box<[u8]>>,
    /// The FATAL or PANIC with which it took its leave: the body of the ErrorResponse.
    pub shutdown_notice: Option<Box<[u8]>>,
    /// How to cancel what it runs.
    pub backend_key: BackendKey,
    /// Transactions that it has ended: the number of the current one.
    pub transaction: u64,
    /// Cancel requests on their way to it.
    pub cancels: u32,
    /// When it was opened.
    pub opened_at: Instant,
    /// When it is to be replaced, once it is unlinked.
    pub retire_at: Instant,
}

/// What is to be brought back when a server connection is ready.
#[derive(Debug, Default)]
pub struct Restore {
    /// Settings that may stand at the server's defaults, where the client has startup values.
    pub names: Vec<Arc<[u8]>>,
    /// Queries.
    pub queries: Vec<Box<[u8]>>,
    /// Queries that hold until the transaction block ends.
    pub local: Vec<Box<[u8]>>,
    /// Settings that were brought back in the segment that is under way, with which that is rolled
    /// back too; DISCARD ALL is not.
    pub in_segment: Vec<Arc<[u8]>>,
    /// Settings that were brought back in the transaction block that is open.
    pub in_block: Vec<Arc<[u8]>>,
}

impl Restore {
    /// Whether something may have to be brought back when the segment has ended.
    #[inline]
    #[must_use]
    pub const fn may_be_due(&self) -> bool {
        !self.is_empty() || !self.in_segment.is_empty() || !self.in_block.is_empty()
    }

    /// Notes that `names` are brought back in a transaction block.
    pub fn remember(&mut self, names: &[Arc<[u8]>]) {
        for name in names {
            if !self.in_block.contains(name) {
                self.in_block.push(Arc::clone(name));
            }
        }
    }

    /// Whether nothing is due.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty() && self.queries.is_empty() && self.local.is_empty()
    }
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
            node: None,
            epoch: None,
            unnamed: UnnamedStatement::Absent,
            copy_in: false,
            schema_change: false,
            residue: Kinds::NONE,
            asking: None,
            asked_at: None,
            own_statements: OwnStatements::default(),
            readings: ReadingsKnown::Yes,
            lend_error: None,
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
