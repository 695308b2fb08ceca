//! The worker as people see it.

use std::time::{Duration, Instant};

use pgimbal_config::Route;

use crate::cluster::route;
use crate::core::Core;
use crate::ids::ServerId;
use crate::pool::stats::{ClientSnapshot, ListenerSnapshot, PoolSnapshot, ServerSnapshot};
use crate::server::ServerState;
use crate::session::{Link, Session};

/// Every pool of this worker, counted.
pub(crate) fn pools(core: &Core, now: Instant) -> Vec<PoolSnapshot> {
    let mut pools: Vec<PoolSnapshot> = core
        .pools
        .all()
        .iter()
        .map(|pool| PoolSnapshot {
            database: pool.key().database.to_string(),
            user: pool.key().user.to_string(),
            mode: pool.config().pool.mode.as_str(),
            servers_dialing: pool.dialing(),
            listen_channels: pool.listener().map_or(0, |it| it.channels().count() as u32),
            stats: pool.stats().clone(),
            ..PoolSnapshot::default()
        })
        .collect();
    for session in core.sessions.iter() {
        let pool = &mut pools[session.pool().index()];
        match session.link() {
            Link::Unlinked => pool.clients_idle += 1,
            Link::Waiting(since) | Link::AwaitingPlace(since) | Link::AwaitingRead(since) => {
                pool.clients_waiting += 1;
                let awaits_place = matches!(session.link(), Link::AwaitingPlace(_));
                pool.clients_awaiting_place += u32::from(awaits_place);
                pool.longest_wait = pool.longest_wait.max(now - since);
            }
            _ => pool.clients_active += 1,
        }
        let pinned_for = session.pin().lasted(now);
        for reason in session.pin().reasons() {
            *pool.pinned.entry(reason).or_default() += 1;
            let longest = pool.pinned_longest.entry(reason).or_default();
            *longest = (*longest).max(pinned_for);
        }
    }
    for server in core.servers.iter() {
        let pool = &mut pools[server.pool().index()];
        match server.state() {
            ServerState::Dialing => {}
            ServerState::Listening => pool.servers_listening += 1,
            ServerState::Idle(_) => pool.servers_idle += 1,
            ServerState::Linked(..) => pool.servers_active += 1,
            ServerState::AwaitingCancels(_) | ServerState::Closing => pool.servers_leaving += 1,
        }
    }
    let mut pool = core.pools.all().iter();
    pools.retain(|_| pool.next().is_some_and(|pool| !pool.is_retired()));
    pools
}

/// Every client of this worker; addresses are the driver's to fill in.
pub(crate) fn clients(core: &Core, now: Instant) -> Vec<ClientSnapshot> {
    core.sessions.iter().map(|session| client(core, session, now)).collect()
}

/// Every server connection of this worker; addresses are the driver's to fill in.
pub(crate) fn servers(core: &Core, now: Instant) -> Vec<(ServerId, ServerSnapshot)> {
    let worker = core.pools.worker().0;
    core.servers
        .iter()
        .map(|server| {
            let pool = &core.pools[server.pool()];
            let snapshot = ServerSnapshot {
                worker,
                serial: server.id().serial,
                database: pool.key().database.to_string(),
                user: pool.key().user.to_string(),
                state: match server.state() {
                    ServerState::Dialing => "dialing",
                    ServerState::Idle(_) => "idle",
                    ServerState::Linked(..) => "active",
                    ServerState::Listening => "listening",
                    ServerState::AwaitingCancels(_) | ServerState::Closing => "leaving",
                },
                process_id: server.backend_key().process_id,
                address: String::new(),
                connected: now - server.opened_at(),
                client: server.session().map_or(0, |session| session.serial),
                prepared_statements: server.statements().len(),
                generation: None,
            };
            (server.id(), snapshot)
        })
        .collect()
}

/// Every channel that clients of this worker listen to over connections that they share.
pub(crate) fn listeners(core: &Core) -> Vec<ListenerSnapshot> {
    let mut found = Vec::new();
    for pool in core.pools.all() {
        let Some(listener) = pool.listener() else { continue };
        let server = listener.server().and_then(|server| core.servers.get(server));
        for channel in listener.channels() {
            let sessions = channel.sessions.iter().filter_map(|id| core.sessions.get(*id));
            found.push(ListenerSnapshot {
                worker: core.pools.worker().0,
                database: pool.key().database.to_string(),
                user: pool.key().user.to_string(),
                channel: String::from_utf8_lossy(channel.name).into_owned(),
                clients: channel.sessions.len(),
                state: if channel.is_on_server { "listening" } else { "waiting" },
                notifications: channel.notifications,
                queued_bytes: sessions.map(|it| it.channels().queued_bytes(channel.name)).sum(),
                process_id: server.map_or(0, |server| server.backend_key().process_id),
            });
        }
    }
    found
}

fn client(core: &Core, session: &Session, now: Instant) -> ClientSnapshot {
    let pool = &core.pools[session.pool()];
    let name = session.reported().get(b"application_name").unwrap_or_default();
    let pinned: Vec<&str> = session.pin().reasons().collect();
    let server = session.link().server().and_then(|server| core.servers.get(server));
    let node = server.and_then(|server| core.clusters.of(pool)?.node(server.epoch()?.node));
    ClientSnapshot {
        worker: core.pools.worker().0,
        slot: session.id().slot,
        serial: session.id().serial,
        database: pool.key().database.to_string(),
        user: pool.key().user.to_string(),
        state: match session.link() {
            Link::Unlinked => "idle",
            Link::Waiting(_) | Link::AwaitingPlace(_) | Link::AwaitingRead(_) => "waiting",
            _ if !pinned.is_empty() => "pinned",
            _ => "active",
        },
        pinned: pinned.join(", "),
        pinned_for: session.pin().lasted(now),
        application_name: String::from_utf8_lossy(name).into_owned(),
        address: String::new(),
        server_process_id: server.map_or(0, |server| server.backend_key().process_id),
        connected: now - session.connected_at(),
        wait: match session.link() {
            Link::Waiting(since) | Link::AwaitingPlace(since) | Link::AwaitingRead(since) => {
                now - since
            }
            _ => Duration::ZERO,
        },
        prepared_statements: session.statements().map_or(0, |names| names.len()),
        generation: None,
        route: match pool.replicas() {
            [] => Route::Primary,
            _ => route::route_of(session, pool, &core.tables),
        }
        .as_str(),
        node: node.map(|node| node.name.to_string()).unwrap_or_default(),
    }
}
