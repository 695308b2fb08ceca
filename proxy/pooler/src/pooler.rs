//! The outside of one worker's core: what the driver calls, and the contract between the two.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::ResolvedPool;

use crate::action::Action;
use crate::cancel::CancelKey;
use crate::cancel::request::{self, Cancelling};
use crate::cluster::follow;
use crate::core::Core;
use crate::ids::{ClusterId, PoolId, ServerId, SessionId, WorkerId};
use crate::plan::{Plan, Processed};
use crate::pool::checkout::{self, Checkout};
use crate::pool::shared::SharedPool;
use crate::pool::stats::{ClientSnapshot, PoolSnapshot, PoolStats, ServerSnapshot};
use crate::pool::{Place, Pool, PoolKey, reconfigure, snapshot, timers};
use crate::recovery::DisconnectOutcome;
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
use crate::session::sessions::SessionOptions;
use crate::session::{Presence, Session, Trial, client_turn, delivery, place};
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
/// - `Wait`: do not read the client before a step of its server connection, or a wake-up.
/// - `Checkin`: once everything is written in both directions, [`Self::checkin`].
/// - `Terminate`, `Fault`: [`Self::handle_departure`].
///
/// When a session is woken, [`Self::poll_final_error`] comes first. When the client is gone:
/// [`Self::handle_departure`], again after each step of its server connection, until it is
/// [`Departure::Over`]; then [`Self::forget_session`].
///
/// *A server connection.* [`Action::Dial`] asks for it; [`Self::handle_dialed`] or
/// [`Self::handle_dial_failed`] answers. While a session is linked to it, what it sends goes to
/// [`Self::handle_server_bytes`], otherwise to [`Self::handle_idle_bytes`]. Its end is told with
/// [`Self::handle_server_gone`], or with [`Self::handle_closed`] after an [`Action::Close`].
///
/// *Time.* [`Self::handle_timeout`], each [`Self::timeout_interval`].
#[derive(Debug)]
pub struct Pooler {
    core: Core,
}

impl Pooler {
    /// The core of `worker`, one of `workers`. Equal keys on every worker let a server connection
    /// keep its prepared statements when it moves.
    #[must_use]
    pub fn new(worker: WorkerId, workers: u16, key: StatementKey, options: SessionOptions) -> Self {
        Self { core: Core::new(worker, workers, key, options) }
    }

    /// This worker.
    #[must_use]
    pub const fn worker(&self) -> WorkerId {
        self.core.pools.worker()
    }

    /// Moves all actions that were asked for since the last time to the end of `out`.
    pub fn poll_actions(&mut self, out: &mut Vec<Action>) {
        self.core.actions.take(out);
    }

    // What clients and server connections send.

    /// Processes what a client sent. `buf` starts where the last step ended.
    pub fn handle_client_bytes(
        &mut self,
        id: SessionId,
        now: Instant,
        buf: &[u8],
        plan: &mut Plan,
    ) -> Processed {
        client_turn::process(&mut self.core, id, now, buf, plan)
    }

    /// Processes what a server sent. `buf` starts where the last step ended.
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

    /// Processes what a server connection sent while no session was linked to it.
    pub fn handle_idle_bytes(&mut self, id: ServerId, buf: &[u8]) -> IdleMessages {
        let word = server_turn::process_idle(&mut self.core, id, buf);
        self.pass_on_findings();
        word
    }

    /// What a step has found out that its cluster's prober, or people, should know.
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

    /// A client has logged in. `key` makes a random cancel key; it is called again when another
    /// session of this worker has that process id.
    pub fn handle_login(
        &mut self,
        pool: PoolId,
        now: Instant,
        key: impl FnMut() -> CancelKey,
    ) -> SessionId {
        arrival::arrive(&mut self.core, pool, now, key)
    }

    /// What a client that asks for `parameters` (those from `options` first) is greeted with.
    pub fn greet(&mut self, id: SessionId, parameters: &[NamedValue], now: Instant) -> Greeting {
        arrival::greet(&mut self.core, id, parameters, now)
    }

    /// Whether a session waits until a server has checked its settings.
    #[must_use]
    pub fn is_on_trial(&self, id: SessionId) -> bool {
        self.session(id).is_some_and(|session| session.trial() == Trial::Due)
    }

    /// Links a session to an idle server connection, or puts it in the queue.
    pub fn checkout(&mut self, id: SessionId, now: Instant) -> Checkout {
        checkout::checkout(&mut self.core, id, now)
    }

    /// Gives a server connection back once everything was written: to the longest waiter, to a
    /// worker that asked for one, or to the idle ones.
    pub fn checkin(&mut self, id: ServerId, now: Instant) {
        checkout::checkin(&mut self.core, id, now);
    }

    /// Gives the session's server connection back and lets it wait for a place among the pinned
    /// sessions of its pool, for `query_wait_timeout` at most. It is woken.
    pub fn await_place(&mut self, id: SessionId, now: Instant) {
        place::await_place(&mut self.core, id, now);
    }

    /// The client has, or has not, taken everything that was written to it: since when.
    pub fn set_stalled(&mut self, id: SessionId, since: Option<Instant>) {
        if let Some(session) = self.core.sessions.get_mut(id) {
            session.set_stalled(since);
        }
    }

    /// The message with which the client must be closed, if somebody has decided so. It is empty
    /// where a message to the client is half-way: nothing can follow that.
    pub fn poll_final_error(&mut self, id: SessionId) -> Option<Box<[u8]>> {
        let session = self.core.sessions.get_mut(id)?;
        let error = session.take_final_error()?;
        let server = session.link().server().and_then(|server| self.core.servers.get(server));
        let is_half_way = server.is_some_and(|server| server.is_passing_to(id));
        Some(if is_half_way { Box::default() } else { Box::from(&*error) })
    }

    /// Takes what a plan has for a session whose turn it is not: `parts` follow on what was given
    /// last. Wakes the session's task, which asks for it by [`Self::poll_output`]. Of a session
    /// that has left it is dropped. A client for which more than
    /// [`OUTPUT_LIMIT`](crate::session::output::OUTPUT_LIMIT) bytes wait does not read: they are
    /// dropped, and it is dismissed (08006).
    pub fn queue_output<'a>(&mut self, id: SessionId, parts: impl Iterator<Item = &'a [u8]>) {
        delivery::queue(&mut self.core, id, parts);
    }

    /// What other turns have made for this session's client: whole messages, to be written before
    /// anything else of its own turn. `None` if there are none, and while another message to it is
    /// half-way. Asked for once the client has taken all that was written to it.
    #[inline]
    pub fn poll_output(&mut self, id: SessionId) -> Option<Vec<u8>> {
        delivery::take(&mut self.core.sessions, &self.core.servers, id)
    }

    /// The client has left, in this way; or the server connection of one that had left has made a
    /// step. What was sent before Terminate still runs; what runs for a client that vanished is
    /// cancelled; an open transaction is rolled back; session state is reset.
    pub fn handle_departure(
        &mut self,
        id: SessionId,
        presence: Presence,
        now: Instant,
        plan: &mut Plan,
    ) -> Departure {
        departure::depart(&mut self.core, id, presence, now, plan)
    }

    /// Forgets a session. A server connection that it still has cannot be trusted and is closed.
    pub fn forget_session(&mut self, id: SessionId) {
        departure::end(&mut self.core, id);
    }

    /// A client asks to cancel the query of a session, which may be another worker's. A wrong key,
    /// like a session that runs nothing, is passed over in silence, as PostgreSQL does.
    pub fn handle_cancel_request(&mut self, process_id: u32, secret: &[u8]) -> Cancelling {
        request::cancel(&mut self.core, process_id, secret)
    }

    /// A session, unless it has left.
    #[inline]
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.core.sessions.get(id)
    }

    /// Whether any session is left.
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        !self.core.sessions.is_empty()
    }

    // Server connections.

    /// A server connection was opened.
    pub fn handle_dialed(&mut self, id: ServerId, dialed: Dialed, now: Instant) {
        life::dialed(&mut self.core, id, dialed, now);
    }

    /// A server connection could not be opened. `error` is the body of the ErrorResponse that
    /// tells why, the server's own if it sent one.
    pub fn handle_dial_failed(
        &mut self,
        id: ServerId,
        error: Arc<[u8]>,
        failure: DialFailure,
        now: Instant,
    ) {
        life::dial_failed(&mut self.core, id, error, failure, now);
    }

    /// The driver has said Terminate to a server and seen the end of its connection.
    pub fn handle_closed(&mut self, id: ServerId, now: Instant) {
        life::closed(&mut self.core, id, now);
    }

    /// A server connection has ended, or cannot be used any more, without a Terminate. Its session
    /// is told what `plan` then holds for the client.
    pub fn handle_server_gone(
        &mut self,
        id: ServerId,
        now: Instant,
        plan: &mut Plan,
    ) -> DisconnectOutcome {
        life::lost(&mut self.core, id, now, plan)
    }

    /// A cancel request for this server connection has reached its end.
    pub fn handle_cancel_ended(&mut self, id: ServerId, now: Instant) {
        request::cancel_ended(&mut self.core, id, now);
    }

    /// A server connection, unless it is gone.
    #[inline]
    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.core.servers.get(id)
    }

    /// The idle server connections of this worker.
    pub fn idle_servers(&self) -> impl Iterator<Item = ServerId> {
        self.core.pools.iter().flat_map(|pool| pool.idle().iter().copied())
    }

    /// The node that `server` leads to; `None` outside of a cluster.
    #[must_use]
    pub fn destination(&self, server: ServerId) -> Option<&NodeView> {
        let server = self.server(server)?;
        self.core.clusters.of(&self.core.pools[server.pool()])?.node(server.node()?)
    }

    // Server connections that move between workers.

    /// Another worker asks for an idle server connection of `pool`: it gets one now, or the next
    /// that is released beyond this worker's need.
    pub fn handle_migration_request(&mut self, pool: PoolId, by: WorkerId) {
        migration::asked(&mut self.core.pools, &mut self.core.actions, pool, by);
    }

    /// Takes an idle server connection out of this core, for `to`; `None` if it is not idle any
    /// more.
    pub fn migrate_out(&mut self, id: ServerId, to: WorkerId) -> Option<Migration> {
        migration::migrate_out(&mut self.core, id, to)
    }

    /// Takes a server connection in that another worker gave away. It is handed to nobody before
    /// [`Self::finish_migration`].
    pub fn migrate_in(&mut self, pool: PoolId, moving: Migration, now: Instant) -> ServerId {
        migration::migrate_in(&mut self.core, pool, moving, now)
    }

    /// A server connection that was taken in, and whose socket is registered, serves from now on.
    pub fn finish_migration(&mut self, id: ServerId, now: Instant) {
        checkout::release(&mut self.core, id, now);
    }

    // Pools.

    /// The pool of this name, made if this worker has none yet.
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

    /// The pool of this name, if this worker has it.
    #[must_use]
    pub fn find_pool(&self, key: &PoolKey) -> Option<PoolId> {
        self.core.pools.find(key)
    }

    /// A pool of this worker.
    #[must_use]
    pub fn pool_of(&self, id: PoolId) -> &Pool {
        &self.core.pools[id]
    }

    /// This worker's pools.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.core.pools.iter()
    }

    /// Gives the pool of a cluster's primary one of the pools that lead to a node of it each.
    pub fn add_replica(&mut self, home: PoolId, replica: PoolId) {
        if let Place::Node(node) = self.core.pools[replica].place() {
            self.core.pools[home].add_replica(node, replica);
        }
    }

    /// Whether `home` has a pool of its own for this node.
    #[must_use]
    pub fn has_replica(&self, home: PoolId, node: NodeId) -> bool {
        self.core.pools[home].replicas().iter().any(|(known, _)| *known == node)
    }

    // What changes from outside.

    /// A reload may have changed where a pool leads or how it behaves. Server connections that lead
    /// elsewhere than they should now are replaced as they become idle.
    pub fn reconfigure(&mut self, id: PoolId, config: Arc<ResolvedPool>, now: Instant) {
        reconfigure::reconfigure(&mut self.core, id, config, now);
    }

    /// A reload has changed what holds for all sessions.
    pub const fn set_options(&mut self, options: SessionOptions) {
        self.core.sessions.set_options(options);
    }

    /// A cluster has changed. Server connections that lead where they should not are cut before
    /// another byte is forwarded; who waits is served, sent elsewhere or refused.
    pub fn handle_view(&mut self, name: &str, view: Arc<View>, now: Instant) {
        follow::set_view(&mut self.core, name, view, now);
    }

    /// What this worker knows of the cluster of this name.
    #[must_use]
    pub fn view(&self, name: &str) -> Option<&Arc<View>> {
        self.core.clusters.find(name).map(|cluster| cluster.view())
    }

    /// A cluster's name.
    #[must_use]
    pub fn cluster_name(&self, id: ClusterId) -> &str {
        self.core.clusters[id].name()
    }

    /// Something has changed about a role's password.
    pub fn handle_credential_event(&mut self, role: &str, event: CredentialEvent, now: Instant) {
        credential::credential_changed(&mut self.core, role, event, now);
    }

    /// Renews the connections of a database, or of all (`None`).
    pub fn renew(&mut self, database: Option<&str>, how: Renewal, now: Instant) -> Renewed {
        renewal::renew(&mut self.core, database, how, now)
    }

    /// The server connections of pools whose server is this name and no cluster's.
    #[must_use]
    pub fn servers_of_name(&self, name: &str) -> Vec<ServerId> {
        renewal::servers_of_name(&self.core.servers, &self.core.pools, name)
    }

    /// These server connections end, those that are in use when they are free. How many were not
    /// to end before.
    pub fn retire(&mut self, servers: Vec<ServerId>, now: Instant) -> usize {
        renewal::retire(&mut self.core, servers, now)
    }

    /// Closes the connections of idle clients, and of the others as soon as their transactions
    /// have ended (57P01).
    pub fn drain(&mut self) {
        departure::drain(&mut self.core);
    }

    // Time.

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        timers::tick(&mut self.core, now);
    }

    /// How long until the next [`Self::handle_timeout`] is due, from 2 ms to 100 ms.
    #[must_use]
    pub fn timeout_interval(&self) -> Duration {
        timers::pause(&self.core.pools)
    }

    // What people see.

    /// Every pool of this worker, counted.
    #[must_use]
    pub fn pool_snapshots(&self, now: Instant) -> Vec<PoolSnapshot> {
        snapshot::pools(&self.core, now)
    }

    /// What pools of this worker had counted that are gone, by the name of their database.
    #[must_use]
    pub fn retired_stats(&self) -> Vec<(String, PoolStats)> {
        let retired = self.core.pools.retired().iter();
        retired.map(|(database, stats)| (database.to_owned(), stats.clone())).collect()
    }

    /// Every client of this worker; addresses are the driver's to fill in.
    #[must_use]
    pub fn client_snapshots(&self, now: Instant) -> Vec<ClientSnapshot> {
        snapshot::clients(&self.core, now)
    }

    /// Every server connection of this worker; addresses are the driver's to fill in.
    #[must_use]
    pub fn server_snapshots(&self, now: Instant) -> Vec<(ServerId, ServerSnapshot)> {
        snapshot::servers(&self.core, now)
    }

    /// The state itself, for what a test cannot bring about from outside.
    #[cfg(test)]
    pub(crate) const fn core(&mut self) -> &mut Core {
        &mut self.core
    }
}
