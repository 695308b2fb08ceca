//! One worker's core: its sessions, server connections and pools, and the steps on them.
//!
//! Owns all state of the worker; never knows a socket. The steps on bytes are in `client_turn` and
//! `server_turn`, those on links in [`crate::pool::checkout`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use pgimbal_config::ResolvedPool;
use slab::Slab;

use crate::cluster::Cluster;
use crate::ids::{ClusterId, PoolId, ServerId, SessionId, WorkerId};
use crate::plan::{Plan, Processed};
use crate::pool::shared::SharedPool;
use crate::pool::{Pool, PoolKey};
use crate::server::Server;
use crate::server::prepared::{ParsedUnder, StatementKey, StatementTable};
use crate::server::reported::ReportedTable;
use crate::server::server_turn;
use crate::server::server_turn::IdleWord;
use crate::session::Session;
use crate::session::client_turn;
use crate::session::output;
use crate::session::settings::{SettingsId, SettingsTable, is_looked_at_again};
use crate::sql::Kinds;
use crate::topology::ProbeHint;

/// One worker's core.
#[derive(Debug)]
pub struct Pooler {
    pub(crate) worker: WorkerId,
    pub(crate) workers: u16,
    pub(crate) sessions: Slab<Session>,
    pub(crate) servers: Slab<Server>,
    pub(crate) pools: Vec<Pool>,
    /// Places of pools that are gone.
    pub(crate) free_pools: Vec<PoolId>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) by_key: HashMap<PoolKey, PoolId, RandomState>,
    pub(crate) tables: Tables,
    pub(crate) actions: Vec<Action>,
    pub(crate) options: Options,
    /// Roles with which no server connection can be opened, and what that is told with.
    pub(crate) lockouts: HashMap<Box<str>, Arc<[u8]>, RandomState>,
    pub(crate) draining: bool,
    /// Sessions by the process id that their clients know them by.
    pub(crate) by_process: HashMap<u32, SessionId, RandomState>,
    next_serial: u32,
}

/// What holds for all sessions of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a client may say nothing while it needs no server connection.
    pub client_idle_timeout: Option<Duration>,
    /// How long a client may leave its result unread.
    pub client_stall_timeout: Duration,
}

/// What sessions and servers of a worker share by reference.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) worker: u16,
    pub(crate) statements: StatementTable,
    pub(crate) settings: SettingsTable,
    pub(crate) reported: ReportedTable,
    /// What a server connection of this pool has said that its cluster's prober should look at.
    pub(crate) probe_hint: Option<(PoolId, ProbeHint)>,
    /// The kinds of state about which a server does not answer questions to this pool's user.
    pub(crate) denied: Option<(PoolId, Kinds)>,
    /// A server connection of this pool was closed because it would not take any settings.
    pub(crate) rejected: Option<PoolId>,
}

/// What the core wants done outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a server connection; answer with [`Pooler::dialed`] or [`Pooler::dial_failed`].
    Dial(ServerId),
    /// Say Terminate to a server, wait until it is gone, then call [`Pooler::closed`].
    Close(ServerId),
    /// Send a cancel request for a server; when it has reached its end, call
    /// [`Pooler::cancel_ended`].
    Cancel(ServerId),
    /// Run the task of this session: it has a server, or an error to tell.
    Wake(SessionId),
    /// Move an idle server connection to another worker (after [`Pooler::migrate_out`]).
    Give(ServerId, WorkerId),
    /// Ask another worker for an idle server connection of this pool.
    Ask(PoolId, WorkerId),
    /// Close a server connection's socket at once, without a good-bye, then call
    /// [`Pooler::server_gone`]: in the turn of the client that is linked to it, if there is one.
    Cut(ServerId),
    /// Let a cluster's prober look at once.
    ProbeHint(ClusterId, ProbeHint),
    /// Tell people: a server refuses to answer questions about these kinds to this pool's user
    /// (42501), so that sessions which may have left such state keep their server connection.
    QuestionDenied(PoolId, Kinds),
    /// Tell people: a server connection of this pool refused even to be reset, and was closed.
    ConnectionRejected(PoolId),
    /// Forget what was kept of a pool that is gone; its key can still be read.
    Retired(PoolId),
}

impl Tables {
    /// A number that nobody can tell beforehand: what `random()` goes on from on `server`.
    pub(crate) fn seed(&self, server: &Server) -> u16 {
        let (serial, count) = (server.id.serial.to_be_bytes(), server.transaction.to_be_bytes());
        self.statements.fingerprint([(&serial[..], &count[..])].into_iter()) as u16
    }

    /// The settings that matter to Parse, as numbers that are equal on every worker.
    pub(crate) fn parse_fingerprint(&self, settings: SettingsId) -> ParsedUnder {
        let settings = self.settings.parse_affecting(settings);
        if settings == SettingsId::EMPTY {
            return ParsedUnder::DEFAULTS;
        }
        let values = || self.settings.settings(settings).iter().map(|s| (&*s.name, &*s.value));
        let fixed = || values().filter(|(name, _)| !is_looked_at_again(name));
        let fixed = match fixed().next() {
            None => 0,
            Some(_) => self.statements.fingerprint(fixed()),
        };
        ParsedUnder::Settings { all: self.statements.fingerprint(values()), fixed }
    }
}

impl Pooler {
    /// The core of `worker`, one of `workers`. Equal keys on every worker let a server connection
    /// keep its prepared statements when it moves.
    #[must_use]
    pub fn new(worker: WorkerId, workers: u16, key: StatementKey, options: Options) -> Self {
        Self {
            worker,
            workers: workers.max(1),
            sessions: Slab::new(),
            servers: Slab::new(),
            pools: Vec::new(),
            free_pools: Vec::new(),
            clusters: Vec::new(),
            by_key: HashMap::default(),
            tables: Tables {
                worker: worker.0,
                statements: StatementTable::new(key, worker.0),
                settings: SettingsTable::new(key.seed()),
                reported: ReportedTable::default(),
                probe_hint: None,
                denied: None,
                rejected: None,
            },
            actions: Vec::new(),
            options,
            lockouts: HashMap::default(),
            draining: false,
            by_process: HashMap::default(),
            next_serial: 1,
        }
    }

    /// This worker.
    #[must_use]
    pub const fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Moves all actions that were asked for to the end of `out`.
    pub fn take_actions(&mut self, out: &mut Vec<Action>) {
        out.append(&mut self.actions);
    }

    /// The pool of this name, made if this worker has none yet.
    pub fn pool(
        &mut self,
        key: &PoolKey,
        make: impl FnOnce() -> (Arc<ResolvedPool>, Arc<SharedPool>),
    ) -> PoolId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        let free = self.free_pools.pop();
        let id = free.unwrap_or(PoolId(self.pools.len() as u32));
        let (config, shared) = make();
        let cluster = config.cluster.as_ref().map(|cluster| cluster.name.clone());
        let cluster = cluster.map(|name| self.cluster_named(&name));
        let pool = Pool { cluster, ..Pool::new(id, key.clone(), config, shared) };
        match free {
            Some(free) => self.pools[free.index()] = pool,
            None => self.pools.push(pool),
        }
        self.by_key.insert(key.clone(), id);
        id
    }

    /// The pool of this name, if this worker has it.
    #[must_use]
    pub fn find_pool(&self, key: &PoolKey) -> Option<PoolId> {
        self.by_key.get(key).copied()
    }

    /// A pool of this worker.
    #[must_use]
    pub fn pool_of(&self, id: PoolId) -> &Pool {
        &self.pools[id.index()]
    }

    /// This worker's pools.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(|pool| !pool.is_retired)
    }

    /// A reload may have changed where a pool leads or how it behaves. Server connections that lead
    /// elsewhere than they should now are replaced as they become idle.
    pub fn reconfigure(&mut self, id: PoolId, config: Arc<ResolvedPool>, now: Instant) {
        if self.pools[id.index()].config == config {
            return;
        }
        let cluster = config.cluster.as_ref().map(|cluster| cluster.name.clone());
        let cluster = cluster.map(|name| self.cluster_named(&name));
        let pool = &mut self.pools[id.index()];
        if pool.cluster != cluster {
            pool.cluster = cluster;
            pool.replicas.clear();
        }
        let old = std::mem::replace(&mut pool.config, config);
        // What failed before may work now.
        pool.shared.forget_failure();
        let place = |pool: &ResolvedPool| {
            (
                pool.cluster.as_ref().map(|cluster| cluster.name.clone()),
                pool.host.clone(),
                pool.port,
                pool.dbname.clone(),
                pool.options.clone(),
                pool.user.clone(),
                pool.tls.clone(),
            )
        };
        if place(&old) == place(&pool.config) {
            return;
        }
        for (_, server) in self.servers.iter_mut().filter(|(_, server)| server.pool == id) {
            server.retire_at = now;
        }
        for idle in self.pools[id.index()].idle.clone() {
            self.close_server(idle);
        }
    }

    /// A reload has changed what holds for all sessions.
    pub const fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// A session, unless it has left.
    #[inline]
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id.index()).filter(|session| session.id == id)
    }

    /// A server connection, unless it is gone.
    #[inline]
    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(id.index()).filter(|server| server.id == id)
    }

    /// Processes what a client sent. `buf` starts where the last step ended.
    pub fn client_bytes(
        &mut self,
        id: SessionId,
        now: Instant,
        buf: &[u8],
        plan: &mut Plan,
    ) -> Processed {
        client_turn::process(self, id, now, buf, plan)
    }

    /// Processes what a server sent. `buf` starts where the last step ended.
    pub fn server_bytes(
        &mut self,
        id: ServerId,
        now: Instant,
        buf: &[u8],
        plan: &mut Plan,
    ) -> Processed {
        let processed = server_turn::process(self, id, now, buf, plan);
        self.pass_on_nudge();
        self.pass_on_news();
        processed
    }

    /// Processes what a server connection said while it was idle.
    pub fn idle_bytes(&mut self, id: ServerId, buf: &[u8]) -> IdleWord {
        let word = server_turn::process_idle(self, id, buf);
        self.pass_on_nudge();
        word
    }

    /// What a server connection has said may concern its cluster's prober.
    #[inline]
    fn pass_on_nudge(&mut self) {
        if let Some((pool, probe_hint)) = self.tables.probe_hint.take() {
            self.probe_hint(pool, probe_hint);
        }
    }

    /// What questions and settings have met that people should know.
    #[inline]
    fn pass_on_news(&mut self) {
        if let Some((pool, kinds)) = self.tables.denied.take() {
            self.actions.push(Action::QuestionDenied(pool, kinds));
        }
        if let Some(pool) = self.tables.rejected.take() {
            self.actions.push(Action::ConnectionRejected(pool));
        }
    }

    /// The idle server connections of this worker.
    pub fn idle_servers(&self) -> impl Iterator<Item = ServerId> {
        self.pools.iter().flat_map(|pool| pool.idle.iter().copied())
    }

    /// The client has, or has not, taken everything that was written to it.
    pub fn set_stalled(&mut self, id: SessionId, since: Option<Instant>) {
        if let Some(session) = self.sessions.get_mut(id.index()).filter(|session| session.id == id)
        {
            session.stalled_since = match since {
                None => None,
                Some(_) => session.stalled_since.or(since),
            };
        }
    }

    /// The message with which the client must be closed, if somebody has decided so. It is empty
    /// where a message to the client is half-way: nothing can follow that.
    pub fn take_final_error(&mut self, id: SessionId) -> Option<Box<[u8]>> {
        let session = self.sessions.get_mut(id.index()).filter(|session| session.id == id)?;
        let error = session.final_error.take()?;
        let server = session.link.server().and_then(|server| self.servers.get(server.index()));
        let is_half_way = server.is_some_and(|server| server.is_passing_to(id));
        Some(if is_half_way { Box::default() } else { error })
    }

    /// Takes what a plan has for a session whose turn it is not: `parts` follow on what was given
    /// last. Wakes the session's task, which asks for it by [`Self::take_output`]. Of a session that
    /// has left it is dropped. A client for which more than
    /// [`OUTPUT_LIMIT`](crate::session::output::OUTPUT_LIMIT) bytes wait does not read: they are
    /// dropped, and it is dismissed (08006).
    pub fn queue_output<'a>(&mut self, id: SessionId, parts: impl Iterator<Item = &'a [u8]>) {
        output::queue(self, id, parts);
    }

    /// What other turns have made for this session's client: whole messages, to be written before
    /// anything else of its own turn. `None` if there are none, and while another message to it is
    /// half-way. Asked for once the client has taken all that was written to it.
    #[inline]
    pub fn take_output(&mut self, id: SessionId) -> Option<Vec<u8>> {
        output::take(self, id)
    }

    pub(crate) fn next_serial(&mut self) -> u32 {
        let serial = self.next_serial;
        // 0 stands for "nobody" in what people see.
        self.next_serial = self.next_serial.checked_add(1).unwrap_or(1);
        serial
    }

    pub(crate) fn wake(&mut self, session: SessionId) {
        self.actions.push(Action::Wake(session));
    }
}

/// An error of pgimbal's own as the body of an ErrorResponse.
#[must_use]
pub fn error_body(report: &pgimbal_wire::error::Report<'_>) -> Arc<[u8]> {
    let mut message = Vec::new();
    report.encode_error(&mut message);
    message.get(pgimbal_wire::frame::HEADER_LEN..).unwrap_or_default().into()
}
