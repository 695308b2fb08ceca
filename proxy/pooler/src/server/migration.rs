//! An idle server connection moves to the worker whose clients wait for one.
//!
//! It stays on the worker that opened it otherwise. A worker whose waiter is older than 1 ms asks
//! the worker with the most idle ones ([`Action::Ask`]); that one answers with [`Action::Give`],
//! `migrate_out` and, at the other end, `migrate_in`.

use std::time::Instant;

use crate::action::{Action, Actions};
use crate::core::Core;
use crate::ids::{PoolId, ServerId, WorkerId};
use crate::pool::pools::Pools;
use crate::pool::shared::Slot;
use crate::server::prepared::UnnamedStatement;
use crate::server::reported::NamedValue;
use crate::server::statements::ServerStatements;
use crate::server::{BackendKey, Server, ServerState};
use crate::session::settings::{Setting, SettingsId};
use crate::session::state::question::OwnStatements;
use crate::sql::Kinds;
use crate::topology::{Epoch, NodeId};

/// The state of an idle server connection that moves from one worker to another: its place within
/// the limits, settings, prepared statements and age. The socket moves beside it.
/// `Pooler::migrate_out` makes it and `Pooler::migrate_in` takes it; if it is dropped instead, its
/// place is free again.
#[derive(Debug)]
pub struct Migration {
    slot: Slot,
    settings: Vec<Setting>,
    reported: Vec<NamedValue>,
    statements: ServerStatements,
    residue: Kinds,
    own_statements: OwnStatements,
    node: Option<NodeId>,
    epoch: Option<Epoch>,
    started_at_micros: i64,
    backend_key: BackendKey,
    transaction: u64,
    opened_at: Instant,
    retire_at: Instant,
}

/// Another worker asks for an idle server connection of `pool`: it gets one now, or the next one
/// that is released beyond this worker's need.
pub(crate) fn asked(pools: &mut Pools, actions: &mut Actions, pool: PoolId, by: WorkerId) {
    match pools[pool].take_idle() {
        Some(idle) => actions.push(Action::Give(idle, by)),
        None => pools[pool].ask_by(by),
    }
}

/// Takes an idle server connection out of this core, for `to`; `None` if it is not idle any more.
pub(crate) fn migrate_out(core: &mut Core, id: ServerId, to: WorkerId) -> Option<Migration> {
    core.servers.get(id).filter(|server| server.is_idle())?;
    let mut server = core.servers.remove(id)?;
    let settings = core.tables.settings.settings(server.settings).to_vec();
    core.tables.settings.assign(&mut server.settings, SettingsId::EMPTY);
    server.slot.move_to(to);
    core.pools[server.pool].remove_idle(id);
    Some(Migration {
        slot: server.slot,
        settings,
        reported: server.reported.iter().map(|(n, v)| (n.into(), v.into())).collect(),
        statements: server.statements,
        residue: server.residue,
        own_statements: server.own_statements,
        node: server.node,
        epoch: server.epoch,
        started_at_micros: server.started_at_micros,
        backend_key: server.backend_key,
        transaction: server.transaction,
        opened_at: server.opened_at,
        retire_at: server.retire_at,
    })
}

/// Takes a server connection in that another worker gave away. It counts as idle, and is handed to
/// nobody before it is released.
pub(crate) fn migrate_in(
    core: &mut Core,
    pool: PoolId,
    moving: Migration,
    now: Instant,
) -> ServerId {
    // Settings that fitted there fit here; were it otherwise, they are reset.
    let (settings, lost) = match core.tables.settings.intern(moving.settings) {
        Ok(settings) => (settings, Kinds::NONE),
        Err(_) => (SettingsId::EMPTY, Kinds::SETTINGS),
    };
    let reported = core.tables.reported.intern(moving.reported);
    let Migration { slot, opened_at, retire_at, .. } = moving;
    core.pools[pool].was_given();
    core.servers.insert(core.serials.next(), |id| Server {
        state: ServerState::Idle(now),
        settings,
        statements: moving.statements,
        residue: moving.residue.union(lost),
        own_statements: moving.own_statements,
        epoch: moving.epoch,
        started_at_micros: moving.started_at_micros,
        // What the unnamed statement was, its client on the other worker knows.
        unnamed: UnnamedStatement::Foreign,
        backend_key: moving.backend_key,
        transaction: moving.transaction,
        ..Server::dialing(id, pool, slot, moving.node, reported, opened_at, retire_at)
    })
}
