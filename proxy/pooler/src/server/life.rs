//! How a server connection begins and ends, and what its end means to the session on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_wire::error::{self, Report, SqlState};

use crate::cluster::{DialedNode, consistency, route};
use crate::core::Core;
use crate::error::error_body;
use crate::ids::{PoolId, ServerId};
use crate::listener::steps;
use crate::plan::Plan;
use crate::pool::shared::{Audience, Welcome};
use crate::pool::{Place, checkout, dial, queue};
use crate::recovery::{self, DisconnectOutcome};
use crate::server::reported::NamedValue;
use crate::server::{BackendKey, Server};
use crate::session::settings::SettingsId;
use crate::topology::{NodeId, ProbeHint};

/// The longest pause between attempts of which nobody is told: a new primary is found by then.
const LONGEST_QUIET_PAUSE: Duration = Duration::from_millis(250);

/// How long clients are not told that a server has too many connections (53300) while other pools
/// have some of them: one of those is closed for this pool.
const LONGEST_WAIT_FOR_OTHERS: Duration = Duration::from_secs(5);

/// What the server has sent during a successful login of a new server connection; the driver gives
/// it to `Pooler::handle_dialed`.
#[derive(Clone, Debug)]
pub struct Dialed {
    /// The backend's process id and secret (BackendKeyData), for cancel requests.
    pub backend_key: BackendKey,
    /// The settings that the server has reported (ParameterStatus), name and value; the pool's
    /// later clients are greeted with them.
    pub parameters: Vec<NamedValue>,
    /// The node of the cluster that the connection leads to; `None` outside of a cluster. In one,
    /// `None` has the connection closed again, as a wrong node has.
    pub found: Option<DialedNode>,
}

/// Why a server connection could not be opened (`Pooler::handle_dial_failed`). It decides whether
/// the clients that wait are told, and the longest pause before the pool tries again: 250 ms where
/// nobody is told, otherwise `server_login_retry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// The server has refused the login, or the configuration is wrong: everybody who waits is
    /// told. Only clients that wait for a single node of a cluster are sent to another one.
    Refused,
    /// The server cannot be reached now. In a cluster, clients go on waiting for another node.
    /// Outside of one they are told, unless clients of the pool outlive its server and it was
    /// reached before.
    Unreachable,
}

/// A server connection was opened.
pub(crate) fn dialed(core: &mut Core, id: ServerId, dialed: Dialed, now: Instant) {
    let Some(server) = core.servers.get_mut(id) else { return };
    server.backend_key = dialed.backend_key;
    server.slot.token_mut().set_process(server.backend_key.process_id);
    server.reported = core.tables.reported.intern(dialed.parameters.iter().cloned());
    let pool = &mut core.pools[server.pool];
    if pool.is_clustered() {
        server.epoch = core.clusters.stamp(pool, dialed.found);
        server.started_at_micros = dialed.found.map_or(0, |found| found.report.started_at_micros);
        if server.epoch.is_none() {
            return wrong_node(core, id, dialed.found, now);
        }
    }
    let listens = server.serves_listener();
    if !listens {
        pool.end_dial();
    }
    pool.stats_mut().server_logins += 1;
    pool.shared().set_welcome(Welcome { parameters: dialed.parameters });
    pool.shared().dial_succeeded();
    let pool = pool.id();
    queue::wake_logins(core, pool);
    match listens {
        true => steps::opened(core, id, now),
        false => checkout::release(core, id, now),
    }
    dial::dial_if_wanted(core, pool, now);
}

/// A server connection could not be opened. `error` is the body of the ErrorResponse that tells
/// why, the server's own if it sent one.
pub(crate) fn dial_failed(
    core: &mut Core,
    id: ServerId,
    error: Arc<[u8]>,
    failure: DialFailure,
    now: Instant,
) {
    let Some(server) = forget(core, id) else { return };
    let (node, pool_id, budget) = (server.node, server.pool, Arc::clone(server.slot.budget()));
    let listens = server.serves_listener();
    // Its place is free from here on.
    drop(server);
    let pool = &mut core.pools[pool_id];
    if !listens {
        pool.end_dial();
    }
    pool.stats_mut().server_login_failures += 1;
    let code = error::ErrorFields::parse(&error).ok().map(|fields| fields.code);
    if let Some(code) = code {
        pool.stats_mut().error(code);
    }
    let full = code == Some(SqlState::TOO_MANY_CONNECTIONS)
        && budget.note_refused(now)
        && pool.shared().failing_for(now) < LONGEST_WAIT_FOR_OTHERS;
    let unreachable = failure == DialFailure::Unreachable;
    let quiet = match pool.is_clustered() {
        true => unreachable || matches!(pool.place(), Place::Node(_)),
        // A server that was there may come back; an address where none ever was is wrong.
        false => unreachable && pool.outlives_server() && pool.shared().welcome().is_some(),
    };
    let (longest, audience) = match quiet || full {
        true => (LONGEST_QUIET_PAUSE, Audience::Nobody),
        false => (pool.config().pool.server_login_retry, Audience::Waiters),
    };
    pool.shared().dial_failed(error, now, longest, audience);
    if listens {
        steps::not_opened(core, pool_id, id, audience, now);
    }
    if quiet {
        node_failed(core, pool_id, node, now);
    }
    queue::tell_standing_failure(core, pool_id, now);
}

/// A server connection was opened that leads where it should not: the view or the network has
/// changed meanwhile.
fn wrong_node(core: &mut Core, id: ServerId, found: Option<DialedNode>, now: Instant) {
    let Some(server) = core.servers.get(id) else { return };
    let (pool_id, listens) = (server.pool, server.serves_listener());
    let error = error_body(&Report::error(
        SqlState::CANNOT_CONNECT_NOW,
        "the server is not the one that its cluster's prober has seen",
    ));
    let pool = &mut core.pools[pool_id];
    pool.shared().dial_failed(error, now, LONGEST_QUIET_PAUSE, Audience::Nobody);
    pool.stats_mut().server_login_failures += 1;
    match listens {
        true => steps::gone(core, pool_id, id, now),
        false => pool.end_dial(),
    }
    dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, id);
    node_failed(core, pool_id, found.map(|found| found.node), now);
}

/// A node could not be used: its prober looks at once, and who waits for it alone is sent
/// elsewhere.
fn node_failed(core: &mut Core, id: PoolId, node: Option<NodeId>, now: Instant) {
    let pool = &mut core.pools[id];
    if let Some(node) = node {
        core.actions.probe_hint(pool, ProbeHint::DialFailed(node));
    }
    if matches!(pool.place(), Place::Node(_)) {
        route::leave_out(pool, now);
        queue::send_elsewhere(core, id);
    }
}

/// The driver has said Terminate to a server and seen the end of its connection.
pub(crate) fn closed(core: &mut Core, id: ServerId, now: Instant) {
    if let Some(server) = forget(core, id) {
        let pool = server.pool;
        drop(server);
        dial::dial_if_wanted(core, pool, now);
    }
}

/// A server connection has ended, or cannot be used any more, without a Terminate. Its session is
/// told what `plan` then holds for the client, and so is every other one that awaits replies of it.
pub(crate) fn lost(
    core: &mut Core,
    id: ServerId,
    now: Instant,
    plan: &mut Plan,
) -> DisconnectOutcome {
    let Some(mut server) = forget(core, id) else { return DisconnectOutcome::Survives };
    let pool = &mut core.pools[server.pool];
    pool.stats_mut().server_closes += 1;
    recovery::tell_others(&mut core.sessions, &mut server, pool, plan);
    let session = server.session().and_then(|session| core.sessions.get_mut(session));
    let outcome = match session {
        None => DisconnectOutcome::Survives,
        Some(session) => {
            // What it has sent may have taken effect all the same.
            consistency::note_written(Some(session), pool, now);
            let outcome = recovery::on_server_lost(session, &mut server, pool, plan);
            session.on_server_gone(&mut core.tables.settings);
            core.tables.channel_work.note_session(session.id());
            outcome
        }
    };
    let (pool_id, epoch, listens) = (server.pool, server.epoch, server.serves_listener());
    // Its place is free from here on.
    drop(server);
    if listens {
        steps::gone(core, pool_id, id, now);
    }
    if let Some(epoch) = epoch {
        let pool = &mut core.pools[pool_id];
        core.actions.probe_hint(pool, ProbeHint::ConnectionBroke(epoch.node));
        route::leave_out(pool, now);
    }
    dial::dial_if_wanted(core, pool_id, now);
    outcome
}

/// Takes a server connection out of every list.
fn forget(core: &mut Core, id: ServerId) -> Option<Server> {
    let mut server = core.servers.remove(id)?;
    core.tables.settings.assign(&mut server.settings, SettingsId::EMPTY);
    if server.is_idle() {
        core.pools[server.pool].remove_idle(id);
    }
    Some(server)
}
