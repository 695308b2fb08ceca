//! The outside of one worker's core: what the driver calls, and the contract between the two.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::ResolvedPool;

use crate::action::Action;
use crate::cancel::CancelKey;
use crate::cancel::request::{self, Cancelling};
use crate::cluster::explain::{self, ExplainedRoute};
use crate::cluster::follow;
use crate::cluster::parsing::{ParseJob, ParsedText};
use crate::cluster::readers;
use crate::core::Core;
use crate::ids::{ClusterId, PoolId, ServerId, SessionId, WorkerId};
use crate::listener::steps::{self, ListenerBytes};
use crate::plan::{Plan, Processed};
use crate::pool::budget::ConnectionBudget;
use crate::pool::checkout::{self, Checkout};
use crate::pool::shared::SharedPool;
use crate::pool::stats::{
    ClientSnapshot, ListenerSnapshot, PoolSnapshot, PoolStats, ServerSnapshot,
};
use crate::pool::{Place, Pool, PoolKey, reconfigure, snapshot, timers, yielding};
use crate::recovery::{DisconnectOutcome, refused};
use crate::sample::Sample;
use crate::server::Server;
use crate::server::credential::{self, CredentialEvent};
use crate::server::life::{self, DialFailure, Dialed};
use crate::server::migration::{self, Migration};
use crate::server::prepared::StatementKey;
use crate::server::renewal::{self, Renewal, Renewed};
use crate::server::reported::NamedValue;
use crate::server::server_turn::{self, IdleMessages};
use crate::session::arrival::{self, Greeting};
use crate::session::departure::{self, Departure};
use crate::session::drain::time::DrainTime;
use crate::session::sessions::SessionOptions;
use crate::session::{Presence, Session, Trial, client_turn, delivery, drain, place};
use crate::topology::{NodeId, NodeView, View};

/// One worker's core: its sessions, server connections, pools and clusters, and every decision
/// about them. It knows no socket, no clock and no random number.
///
/// # The driver's part
///
/// *Always.* After each call that takes `&mut self`, the driver takes the actions
/// ([`Self::poll_actions`]) and does them; it writes what the call has left in the [`Plan`], each
/// peer's pieces in their order, before it calls again for the same session or server connection.
/// `now` never goes back.
///
/// *A client.* After its login: [`Self::handle_login`], then [`Self::greet`] each time that the
/// session is woken, until it answers [`Greeting::Ready`] (or [`Greeting::Try`], then
/// [`Self::handle_client_bytes`] with an empty buffer until [`Self::is_on_trial`] is false). From
/// then on [`Self::handle_client_bytes`] with what was read; it says how much of that is dealt
/// with, and why it has stopped ([`Stop`](crate::plan::Stop)):
///
/// - `Drained`, `Need`: read more, then call again with the rest in front.
/// - `Checkout`: [`Self::checkout`]. When that links a server connection, look whether the server
///   has closed it meanwhile (then [`Self::handle_server_gone`], and again); call that again with
///   the same bytes. When the session waits, call again once it is woken.
/// - `WaitForPlace`: [`Self::await_place`], then wait until the session is woken.
/// - `Wait`: do not read the client before a step of its server connection, or a wake-up behind
///   which [`Self::take_wait_over`] says yes.
/// - `Checkin`: once everything is written in both directions, [`Self::checkin`].
/// - `Leave`: the same, then call again with the same bytes.
/// - `Again`, of a server connection: the same, and what [`Self::take_refused`] gives comes first.
/// - `Terminate`, `Fault`: [`Self::handle_departure`].
///
/// When a session is woken, [`Self::poll_final_error`] comes first. When the client is gone:
/// [`Self::handle_departure`], again after each step of its server connection, until it is
/// [`Departure::Over`]; then [`Self::forget_session`].
///
/// *A server connection.* [`Action::Dial`] asks for it; [`Self::handle_dialed`] or
/// [`Self::handle_dial_failed`] answers. While a session is linked to it, what it sends goes to
/// [`Self::handle_server_bytes`], otherwise to [`Self::handle_idle_bytes`], or, for one that
/// listens ([`Action::Drive`]), to [`Self::handle_listener_bytes`]. Its end is told with
/// [`Self::handle_server_gone`], or with [`Self::handle_closed`] after an [`Action::Close`].
///
/// *Time.* [`Self::handle_timeout`], each [`Self::timeout_interval`].
#[derive(Debug)]
pub struct Pooler {
    core: Core,
}

impl Pooler {
    /// Makes the core of `worker` (from 0), one of `workers` (at least 1), without sessions, pools
    /// or server connections. `key` seeds the fingerprints of prepared statements: equal keys on
    /// every worker let a server connection keep its prepared statements when it moves. `options`
    /// are the time limits of all clients, until [`Self::set_options`] replaces them.
    #[must_use]
    pub fn new(worker: WorkerId, workers: u16, key: StatementKey, options: SessionOptions) -> Self {
        Self { core: Core::new(worker, workers, key, options) }
    }

    /// Returns the number of this worker, as given to [`Self::new`].
    #[must_use]
    pub const fn worker(&self) -> WorkerId {
        self.core.pools.worker()
    }

    /// Moves all actions that were asked for since the last call to the end of `out`, oldest first;
    /// what `out` holds already stays, and nothing is added if none was asked for. The driver calls
    /// this after each call that takes `&mut self`, and does the actions in their order.
    pub fn poll_actions(&mut self, out: &mut Vec<Action>) {
        steps::settle(&mut self.core);
        self.core.actions.take(out);
        if self.core.tables.sampler.has_any() {
            out.push(Action::Trace);
        }
        if self.core.tables.parsing.has_new() {
            out.push(Action::Parse);
        }
    }

    /// Takes what is to be done on another thread, after [`Action::Parse`]: a text to be parsed, or
    /// a catalog to be taken in. `None` if there is nothing, and while another is under way.
    pub fn take_parse_job(&mut self) -> Option<ParseJob> {
        self.core.tables.parsing.take()
    }

    /// Notes what became of [`Self::take_parse_job`]; `None` if it could not be done.
    /// Sessions whose segments wait for it are woken.
    pub fn handle_parsed(&mut self, parsed: Option<ParsedText>) {
        readers::parsed(&mut self.core, parsed);
    }

    /// Chooses this part of the transactions and logins to be traced, in millionths; none at first.
    pub fn set_trace_ratio(&mut self, millionths: u32) {
        self.core.tables.sampler.set_ratio(millionths);
    }

    /// Takes the transactions and logins that were chosen to be traced since the last call, at most
    /// 64, the oldest first; after [`Action::Trace`].
    pub fn take_samples(&mut self) -> Vec<Sample> {
        self.core.tables.sampler.take()
    }

    // What clients and server connections send.

    /// Processes what a client has sent. `buf` begins with the first byte that the last call has
    /// not taken; it may be empty. What is to be written, to the server and to clients, is added to
    /// `plan`. Returns how many bytes were taken, and why it stopped ([`Stop`](crate::plan::Stop)).
    /// Nothing is taken while the session is on trial ([`Self::is_on_trial`]). For a session that
    /// was removed nothing is taken either, and the stop is `Fault`.
    pub fn handle_client_bytes(
        &mut self,
        id: SessionId,
        now: Instant,
        buf: &[u8],
        plan: &mut Plan,
    ) -> Processed {
        client_turn::process(&mut self.core, id, now, buf, plan)
    }

    /// Processes what a server has sent on a connection that a session is linked to. `buf` begins
    /// with the first byte that the last call has not taken. What is to be written, to clients and
    /// to this server, is added to `plan`. Returns how much was taken, and why it stopped:
    /// `Checkin` when the connection is free, `Fault` when the driver must end it with
    /// [`Self::handle_server_gone`]. For a connection that is gone everything is taken, and
    /// dropped.
    pub fn handle_server_bytes(
        &mut self,
        id: ServerId,
        now: Instant,
        buf: &[u8],
        plan: &mut Plan,
    ) -> Processed {
        let processed = server_turn::process(&mut self.core, id, now, buf, plan);
        self.pass_on_findings();
        processed
    }

    /// Processes what a server connection has sent while no session was linked to it: notices and
    /// notifications are dropped, changed settings (ParameterStatus) are noted. `buf` begins with
    /// the first byte that the last call has not taken. [`IdleMessages::Dead`], after any other
    /// message and for a connection that is gone, tells that the connection must not be used any
    /// more: then [`Self::handle_server_gone`].
    pub fn handle_idle_bytes(&mut self, id: ServerId, buf: &[u8]) -> IdleMessages {
        let word = server_turn::process_idle(&mut self.core, id, buf);
        self.pass_on_findings();
        word
    }

    /// Processes what has come on a connection that listens for all clients of its pool
    /// ([`Action::Drive`]): notifications are queued for the sessions that listen to their channel,
    /// whose tasks are woken. `buf` begins with the first byte that the last call has not taken; it
    /// may be empty, when the driver only asks what is to be written. That is added to `plan`, for
    /// this connection.
    pub fn handle_listener_bytes(
        &mut self,
        id: ServerId,
        now: Instant,
        buf: &[u8],
        plan: &mut Plan,
    ) -> ListenerBytes {
        let word = steps::process(&mut self.core, id, now, buf, plan);
        self.pass_on_findings();
        word
    }

    /// Whether the session's next message has waited for the connection that listens for it, and
    /// need not wait any more: true once after each such wait. The driver asks when the session is
    /// woken, and processes the same bytes again.
    #[inline]
    pub fn take_wait_over(&mut self, id: SessionId) -> bool {
        self.core.sessions.get_mut(id).is_some_and(|it| it.channels_mut().take_wait_over())
    }

    /// Turns what a step has found out, and what its cluster's prober or people should know, into
    /// actions.
    #[inline]
    fn pass_on_findings(&mut self) {
        let Core { tables, actions, pools, .. } = &mut self.core;
        if let Some((pool, hint)) = tables.probe_hint.take() {
            actions.probe_hint(&pools[pool], hint);
        }
        if let Some((pool, kinds)) = tables.denied.take() {
            actions.push(Action::QuestionDenied(pool, kinds));
        }
        if let Some(pool) = tables.rejected.take() {
            actions.push(Action::ConnectionRejected(pool));
        }
    }

    // Sessions.

    /// Adds the session of a client that has proven who it is (authentication is the driver's), in
    /// `pool`, which is not retired while it has a session. `came_at` is when its startup packet
    /// had come, from which the time of its login counts. `key` makes a random cancel key; it is
    /// called again when another session of this worker has that process id. The client is told
    /// nothing yet: [`Self::greet`] follows. [`Self::forget_session`] removes the session.
    pub fn handle_login(
        &mut self,
        pool: PoolId,
        came_at: Instant,
        now: Instant,
        key: impl FnMut() -> CancelKey,
    ) -> SessionId {
        arrival::arrive(&mut self.core, pool, (came_at, now), key)
    }

    /// Returns what a client is told after its authentication, up to ReadyForQuery (protocol
    /// chapter "Message Flow", "Start-up"). `parameters` are the settings of its startup packet,
    /// those from `options` first; a wrong one is refused. To be called again with the same ones,
    /// whenever the session is woken, until the answer is not [`Greeting::Wait`], which may have
    /// asked for the pool's first server connection ([`Action::Dial`]).
    pub fn greet(&mut self, id: SessionId, parameters: &[NamedValue], now: Instant) -> Greeting {
        arrival::greet(&mut self.core, id, parameters, now)
    }

    /// Whether the session has been answered [`Greeting::Try`], and no server has accepted or
    /// refused its startup settings yet. `false` for a session that has left.
    #[must_use]
    pub fn is_on_trial(&self, id: SessionId) -> bool {
        self.session(id).is_some_and(|session| session.trial() == Trial::Due)
    }

    /// Links a session to an idle server connection of its pool, or of a replica's pool, or else
    /// puts it in the queue, which may open one more connection ([`Action::Dial`]). The session is
    /// refused when its cluster refuses writes, when `max_held` clients wait for a primary, or
    /// after a failed attempt to open the pool's only connection. Called after `Stop::Checkout`. A
    /// session that is linked or waits already stays so; one that was removed is answered
    /// [`Checkout::Waiting`].
    pub fn checkout(&mut self, id: SessionId, now: Instant) -> Checkout {
        checkout::checkout(&mut self.core, id, now)
    }

    /// Gives a server connection back, after `Stop::Checkin` and once everything was written: to
    /// the client that has waited longest, to a worker that asked for one, or to the idle ones. It
    /// is closed instead when it is due to be replaced, or carries state that no reset takes off.
    /// While cancel requests for it are on their way, it serves nobody. The session is unlinked,
    /// and dismissed (57P01) if the worker drains. Nothing is done for a connection that is gone.
    pub fn checkin(&mut self, id: ServerId, now: Instant) {
        checkout::checkin(&mut self.core, id, now);
    }

    /// Takes the bytes of a session that a replica has refused, after `Stop::Again`: the driver
    /// puts them in front of what the client has sent since, and they are processed as if for the
    /// first time, on the primary. Empty if there are none.
    #[must_use]
    pub fn take_refused(&mut self, id: SessionId) -> Vec<u8> {
        refused::take(&mut self.core, id)
    }

    /// Gives the session's server connection back, if it has one, and lets the session wait for a
    /// place among the pinned sessions of its pool (`max_pinned`), longest waiter first. Called
    /// after `Stop::WaitForPlace`. The session is woken when it has a place, or after
    /// `query_wait_timeout` with an error (53400); then the driver processes the same bytes again.
    pub fn await_place(&mut self, id: SessionId, now: Instant) {
        place::await_place(&mut self.core, id, now);
    }

    /// Notes that the client has unread output since `since`, or, with `None`, that everything
    /// written to it was taken. Of several calls in a row with a time, the first one's counts. A
    /// client that holds a server connection is dismissed `client_stall_timeout` after that time
    /// (08006); one that holds none is not. Nothing is done for a session that was removed.
    pub fn set_stalled(&mut self, id: SessionId, since: Option<Instant>) {
        if let Some(session) = self.core.sessions.get_mut(id) {
            session.set_stalled(since);
        }
    }

    /// Takes the FATAL ErrorResponse, as a whole message, with which the client's connection must
    /// be closed; `None` if nobody has decided so, if it was taken before, or if the session was
    /// removed. It is empty where a message to the client is half-way: then the connection is
    /// closed without one. Called first whenever a session is woken.
    pub fn poll_final_error(&mut self, id: SessionId) -> Option<Box<[u8]>> {
        let session = self.core.sessions.get_mut(id)?;
        let error = session.take_final_error()?;
        let server = session.link().server().and_then(|server| self.core.servers.get(server));
        let is_half_way = server.is_some_and(|server| server.is_passing_to(id));
        Some(if is_half_way { Box::default() } else { Box::from(&*error) })
    }

    /// Keeps messages that a plan has for a session whose turn it is not: `parts` follow on what
    /// was given last. Wakes the session's task, which takes them by [`Self::poll_output`]. For a
    /// session that has left they are dropped. A client for which more than
    /// [`OUTPUT_LIMIT`](crate::session::output::OUTPUT_LIMIT) bytes wait does not read: they are
    /// dropped, and it is dismissed (08006).
    pub fn queue_output<'a>(&mut self, id: SessionId, parts: impl Iterator<Item = &'a [u8]>) {
        delivery::queue(&mut self.core, id, parts);
    }

    /// Takes what the turns of other sessions have made for this session's client: whole messages,
    /// to be written before anything else of its own turn. `None` if there are none, and while
    /// another message to it is half-way. Called once the client has taken all that was written to
    /// it.
    #[inline]
    pub fn poll_output(&mut self, id: SessionId) -> Option<Vec<u8>> {
        delivery::take(&mut self.core, id)
    }

    /// Begins, or goes on with, the end of a session whose client has left in the way that
    /// `presence` says. What was sent before Terminate still runs; what runs for a client that
    /// vanished is cancelled (unless `on_client_gone` says otherwise, and never a COMMIT); an open
    /// transaction is rolled back; session state is reset. `plan` gets what the server is sent for
    /// it. Called again after each step of its server connection, while the answer is
    /// [`Departure::Later`].
    pub fn handle_departure(
        &mut self,
        id: SessionId,
        presence: Presence,
        now: Instant,
        plan: &mut Plan,
    ) -> Departure {
        departure::depart(&mut self.core, id, presence, now, plan)
    }

    /// Removes a session, also from the queue in which it may wait. A server connection that it
    /// still has cannot be trusted and is closed. Nothing is done for a session that was removed
    /// before.
    pub fn forget_session(&mut self, id: SessionId) {
        departure::end(&mut self.core, id);
    }

    /// Handles a CancelRequest (protocol chapter "Message Flow", "Canceling Requests in Progress")
    /// with the process id and secret of the BackendKeyData that the client was given. Its session
    /// may be another worker's: the driver asks every worker. A session that waits in a queue waits
    /// no more and gets the error 57014. A wrong key, like a session that runs nothing, is passed
    /// over in silence, as PostgreSQL does.
    pub fn handle_cancel_request(&mut self, process_id: u32, secret: &[u8]) -> Cancelling {
        request::cancel(&mut self.core, process_id, secret)
    }

    /// Returns a session of this worker; `None` once it was removed ([`Self::forget_session`]).
    #[inline]
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.core.sessions.get(id)
    }

    /// Whether this worker has a session left, one whose client has gone but that was not forgotten
    /// included.
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        !self.core.sessions.is_empty()
    }

    // Server connections.

    /// Takes a server connection in that was opened and logged in, as [`Action::Dial`] asked. It
    /// goes to the client that has waited longest, or to the idle ones; logins that waited for the
    /// pool's first connection are woken, and later ones are greeted with its settings. In a
    /// cluster it is closed again, and counts as a failed attempt, if it leads to another node than
    /// it should. Nothing is done for a connection that is gone.
    pub fn handle_dialed(&mut self, id: ServerId, dialed: Dialed, now: Instant) {
        life::dialed(&mut self.core, id, dialed, now);
    }

    /// Notes that a server connection could not be opened. `error` is the body of the ErrorResponse
    /// that tells why, the server's own if it sent one. The connection is removed, and its place in
    /// the limits is free. The pool opens none for 250 ms, longer after each further failure, at
    /// most `server_login_retry`; clients that wait are told the error, unless the server may come
    /// back or another node may serve them ([`DialFailure`]): then the pause stays 250 ms.
    pub fn handle_dial_failed(
        &mut self,
        id: ServerId,
        error: Arc<[u8]>,
        failure: DialFailure,
        now: Instant,
    ) {
        life::dial_failed(&mut self.core, id, error, failure, now);
    }

    /// Removes a server connection after an [`Action::Close`]: the driver has sent Terminate and
    /// seen the socket closed. Its place in the limits is free, and is used for the next one at
    /// once if a client waits ([`Action::Dial`]). Nothing is done for a connection that is gone.
    pub fn handle_closed(&mut self, id: ServerId, now: Instant) {
        life::closed(&mut self.core, id, now);
    }

    /// Removes a server connection that has ended, or cannot be used any more, without a Terminate,
    /// and decides what its session's client is told or whether its work is run again. `plan` gets
    /// what is for clients. Its place in the limits is free, and may be used for the next
    /// connection at once. In a cluster the prober is told to look at the node.
    /// [`DisconnectOutcome::Survives`] also if no session was linked, or the connection was removed
    /// before.
    pub fn handle_server_gone(
        &mut self,
        id: ServerId,
        now: Instant,
        plan: &mut Plan,
    ) -> DisconnectOutcome {
        life::lost(&mut self.core, id, now, plan)
    }

    /// Notes that a request of [`Action::Cancel`] has ended, in whatever way: called once for each,
    /// also for one that could not be sent. The server connection is released when it was given
    /// back and waited for the last of its requests. If it waits for `cancel_wait_timeout`, it is
    /// closed. Nothing is done for a connection that is gone.
    pub fn handle_cancel_ended(&mut self, id: ServerId, now: Instant) {
        request::cancel_ended(&mut self.core, id, now);
    }

    /// Returns the budget of the server that a connection leads to; `None` for a connection that
    /// is gone.
    #[must_use]
    pub fn budget_of(&self, server: ServerId) -> Option<Arc<ConnectionBudget>> {
        Some(Arc::clone(self.server(server)?.slot().budget()))
    }

    /// Closes an idle server connection for another pool, perhaps of another worker, that needs one
    /// to the same server. Another worker has asked for it ([`Action::AskForIdle`]).
    pub fn handle_idle_request(&mut self, now: Instant) {
        yielding::give_up_idle(&mut self.core, now);
    }

    /// Returns a server connection; `None` once it was removed or has moved to another worker.
    #[inline]
    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.core.servers.get(id)
    }

    /// Returns the server connections of this worker that are idle: linked to no session, and ready
    /// to be handed out. They come pool by pool, of each pool the one that is used next at the end.
    pub fn idle_servers(&self) -> impl Iterator<Item = ServerId> {
        self.core.pools.iter().flat_map(|pool| pool.idle().iter().copied())
    }

    /// Returns the node that a server connection leads to, as the newest view has it. `None`
    /// outside of a cluster, for a connection that is gone, and while the newest view does not have
    /// the node.
    #[must_use]
    pub fn destination(&self, server: ServerId) -> Option<&NodeView> {
        let server = self.server(server)?;
        self.core.clusters.of(&self.core.pools[server.pool()])?.node(server.node()?)
    }

    // Server connections that move between workers.

    /// Notes that worker `by` asks for an idle server connection of `pool`: it gets an idle one now
    /// ([`Action::Give`]), or the next that is released beyond this worker's need. A worker whose
    /// request is open already is noted once; those that ask are served in turn.
    pub fn handle_migration_request(&mut self, pool: PoolId, by: WorkerId) {
        migration::asked(&mut self.core.pools, &mut self.core.actions, pool, by);
    }

    /// Takes an idle server connection out of this core, for worker `to`, after [`Action::Give`];
    /// it counts as that worker's from now on, and the limits are not touched. The driver sends the
    /// result and the socket there; if it drops the result, the place in the limits is free. `None`
    /// if the connection is not idle any more, or is gone; then nothing has changed.
    pub fn migrate_out(&mut self, id: ServerId, to: WorkerId) -> Option<Migration> {
        migration::migrate_out(&mut self.core, id, to)
    }

    /// Takes a server connection in that another worker gave away, as one of `pool`, under a new
    /// id. It keeps its age, settings and prepared statements. It is handed to no session before
    /// [`Self::finish_migration`], which the driver calls once the socket is registered. This
    /// worker may ask another one for the pool's next connection at once.
    pub fn migrate_in(&mut self, pool: PoolId, moving: Migration, now: Instant) -> ServerId {
        migration::migrate_in(&mut self.core, pool, moving, now)
    }

    /// Releases a server connection that was taken in by [`Self::migrate_in`] and whose socket is
    /// registered: it goes to the client that has waited longest, to a worker that asked for one,
    /// or to the idle ones. It is closed instead if it is due to be replaced or leads to a node
    /// that it should not. Nothing is done for a connection that is gone.
    pub fn finish_migration(&mut self, id: ServerId, now: Instant) {
        checkout::release(&mut self.core, id, now);
    }

    // Pools.

    /// Returns the pool of this key. If this worker has none yet, or has retired it, `make` gives
    /// its configuration and what it shares with the other workers, and an empty pool is made;
    /// otherwise `make` is not called. No server connection is opened.
    pub fn pool(
        &mut self,
        key: &PoolKey,
        make: impl FnOnce() -> (Arc<ResolvedPool>, Arc<SharedPool>),
    ) -> PoolId {
        if let Some(id) = self.find_pool(key) {
            return id;
        }
        let (config, shared) = make();
        let cluster = reconfigure::cluster_of(&config, &mut self.core.clusters);
        self.core.pools.insert(key, cluster, config, shared)
    }

    /// Returns the pool of this key; `None` if this worker has none, or has retired it.
    #[must_use]
    pub fn find_pool(&self, key: &PoolKey) -> Option<PoolId> {
        self.core.pools.find(key)
    }

    /// Returns a pool of this worker. That of a retired pool is empty but for its key. Panics for a
    /// number that was never given.
    #[must_use]
    pub fn pool_of(&self, id: PoolId) -> &Pool {
        &self.core.pools[id]
    }

    /// Returns the pools of this worker, without those that were retired.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.core.pools.iter()
    }

    /// Tells the pool `home`, which leads to a cluster's primary, about the pool `replica` of the
    /// same database and user, which leads to one node: transactions that want a replica may go
    /// there. Called after a new view. Nothing changes if `replica` leads to the primary, or if
    /// `home` has a pool for that node. Panics for a number that was never given.
    pub fn add_replica(&mut self, home: PoolId, replica: PoolId) {
        if let Place::Node(node) = self.core.pools[replica].place() {
            self.core.pools[home].add_replica(node, replica);
        }
    }

    /// Whether the pool `home` was told about a pool that leads to this node
    /// ([`Self::add_replica`]).
    #[must_use]
    pub fn has_replica(&self, home: PoolId, node: NodeId) -> bool {
        self.core.pools[home].replicas().iter().any(|(known, _)| *known == node)
    }

    // What changes from outside.

    /// Puts a pool's configuration in force after a reload; nothing changes if it is equal. If the
    /// pool leads elsewhere from now on (another cluster, server, database or user, other `options`
    /// or TLS), its idle server connections are closed, and the others as they become idle. In
    /// another cluster its replicas are forgotten. The pause after a failed attempt to open a
    /// connection ends.
    pub fn reconfigure(&mut self, id: PoolId, config: Arc<ResolvedPool>, now: Instant) {
        reconfigure::reconfigure(&mut self.core, id, config, now);
    }

    /// Replaces the options that hold for all sessions of this worker (`client_idle_timeout`,
    /// `client_stall_timeout`), after a reload; they hold from the next [`Self::handle_timeout`].
    pub const fn set_options(&mut self, options: SessionOptions) {
        self.core.sessions.set_options(options);
    }

    /// Puts a new view of the cluster `name` in force; one of a lower version is ignored. Server
    /// connections that lead where they should not are cut ([`Action::Cut`]) before another byte is
    /// forwarded; clients that wait are served, sent to another node, or refused. A cluster that no
    /// pool of this worker leads to is noted for later pools.
    pub fn handle_view(&mut self, name: &str, view: Arc<View>, now: Instant) {
        follow::set_view(&mut self.core, name, view, now);
    }

    /// Returns the newest view of the cluster of this name that this worker was given; one of
    /// version 0 before the first. `None` if no pool or view of this worker has named the cluster.
    #[must_use]
    pub fn view(&self, name: &str) -> Option<&Arc<View>> {
        self.core.clusters.find(name).map(|cluster| cluster.view())
    }

    /// Returns the name of a cluster in the configuration, by its number on this worker. Panics for
    /// a number that was never given.
    #[must_use]
    pub fn cluster_name(&self, id: ClusterId) -> &str {
        self.core.clusters[id].name()
    }

    /// Follows a change of the password with which pools log in to their servers as `role`; pools
    /// with a fixed password are not concerned. Depending on the event, server connections are
    /// replaced within 30 s, a failed login may be tried again at once, or the connections that are
    /// open are kept although they are due to end.
    pub fn handle_credential_event(&mut self, role: &str, event: CredentialEvent, now: Instant) {
        credential::credential_changed(&mut self.core, role, event, now);
    }

    /// Renews the server connections of the pools of a database, by the name that clients say, or
    /// of all databases (`None`), on behalf of an operator: idle ones are closed now, those in use
    /// when they are given back. [`Renewal::Kill`] dismisses their clients too (57P01). Attempts
    /// that failed before may be repeated at once. Returns how many connections that concerned,
    /// zeros for an unknown name.
    pub fn renew(&mut self, database: Option<&str>, how: Renewal, now: Instant) -> Renewed {
        renewal::renew(&mut self.core, database, how, now)
    }

    /// Returns the server connections, in whatever state, of pools that are configured with exactly
    /// this host name, and are on no cluster; empty if there are none. The driver asks when the
    /// name leads to other addresses, and gives those that lead to an old one to [`Self::retire`].
    #[must_use]
    pub fn servers_of_name(&self, name: &str) -> Vec<ServerId> {
        renewal::servers_of_name(&self.core.servers, &self.core.pools, name)
    }

    /// Lets these server connections end: idle ones are closed now ([`Action::Close`]), those in
    /// use when they are given back. Clients stay connected. Connections that are gone or are
    /// closing are passed over. Returns how many were not due to end before.
    pub fn retire(&mut self, servers: Vec<ServerId>, now: Instant) -> usize {
        renewal::retire(&mut self.core, servers, now)
    }

    /// Begins to shut this worker down: within `time` clients get a FATAL (57P01) at moments that
    /// their pools hide, and none inside a transaction. Server connections for `min_pool_size` are
    /// not opened any more. Called again, the new time counts; there is no way back.
    pub fn drain(&mut self, time: DrainTime, now: Instant) {
        drain::begin(&mut self.core, time, now);
    }

    /// Ends every session that is left, also inside a transaction, with a FATAL (57P01).
    pub fn cut_off(&mut self) {
        drain::cut_off(&mut self.core);
    }

    // Time.

    /// Does what is due at `now`: ends waits and sessions whose limits have passed, closes server
    /// connections that were idle or open for too long, opens some, and retires unused pools.
    /// Called each [`Self::timeout_interval`]; apart from the queues everything is looked over
    /// every 100 ms only, so that more calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        timers::tick(&mut self.core, now);
    }

    /// Returns how long the driver may wait until the next [`Self::handle_timeout`]: 2 ms while a
    /// client waits for what another worker may free (a server connection of the pool, or a place
    /// among the pinned sessions) or for a fresh replica, 20 ms while only this worker can help
    /// those who wait, and 100 ms while nobody waits.
    #[must_use]
    pub fn timeout_interval(&self) -> Duration {
        timers::pause(&self.core)
    }

    // What people see.

    /// Explains where a text would go now that a new session sends, and why, for each pool of this
    /// worker that has replicas; empty if none has. For the console's EXPLAIN ROUTE.
    pub fn explain_route(&mut self, text: &[u8], now: Instant) -> Vec<ExplainedRoute> {
        explain::explain(&mut self.core, text, now)
    }

    /// Returns the counts and states of every pool of this worker that was not retired, in the
    /// order of [`Self::pools`], for the metrics and SHOW POOLS. The pools of a database and user
    /// that lead to different nodes come apart; the driver adds up those of one database and user,
    /// of all workers.
    #[must_use]
    pub fn pool_snapshots(&self, now: Instant) -> Vec<PoolSnapshot> {
        snapshot::pools(&self.core, now)
    }

    /// Returns the counters of pools that were retired, summed by the database's name and in the
    /// order of names; empty if none was retired. They are kept so that the totals of a database
    /// never go down. Beyond 1000 databases the name is `(others)`. A database is left out whose
    /// pools had neither a server login nor a transaction on this worker.
    #[must_use]
    pub fn retired_stats(&self) -> Vec<(String, PoolStats)> {
        let retired = self.core.pools.retired().iter();
        retired.map(|(database, stats)| (database.to_owned(), stats.clone())).collect()
    }

    /// Returns the state of every client session of this worker, in no given order, for SHOW
    /// CLIENTS; sessions whose client has gone but that were not forgotten are included. `address`
    /// and `generation` are empty: the driver fills them in.
    #[must_use]
    pub fn client_snapshots(&self, now: Instant) -> Vec<ClientSnapshot> {
        snapshot::clients(&self.core, now)
    }

    /// Returns the state of every server connection of this worker, in no given order, for SHOW
    /// SERVERS; those being opened or closed are included. `address` and `generation` are empty:
    /// the driver fills them in.
    #[must_use]
    pub fn server_snapshots(&self, now: Instant) -> Vec<(ServerId, ServerSnapshot)> {
        snapshot::servers(&self.core, now)
    }

    /// Returns the channels that clients of this worker listen to over connections that they share,
    /// in no given order, for SHOW LISTENERS.
    #[must_use]
    pub fn listener_snapshots(&self) -> Vec<ListenerSnapshot> {
        snapshot::listeners(&self.core)
    }

    /// The state itself, for what a test cannot bring about from outside.
    #[cfg(test)]
    pub(crate) const fn core(&mut self) -> &mut Core {
        &mut self.core
    }
}
