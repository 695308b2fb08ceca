//! An idle server connection moves to the worker whose clients wait for one.
//!
//! It stays on the worker that opened it otherwise. A worker whose waiter is older than 1 ms asks
//! the worker with the most idle ones ([`Action::Ask`]); that one answers with [`Action::Give`],
//! [`Pooler::migrate_out`] and, at the other end, [`Pooler::migrate_in`].

use std::time::Instant;

use crate::ids::{PoolId, ServerId, WorkerId};
use crate::pool::shared::Slot;
use crate::pooler::{Action, Pooler};
use crate::server::reported::NamedValue;
use crate::server::statements::ServerStatements;
use crate::server::{BackendKey, Server, ServerState, UnnamedStatement};
use crate::session::settings::{Setting, SettingsId};
use crate::session::state::question::OwnStatements;
use crate::sql::Kinds;
use crate::topology::{Epoch, NodeId};

/// What the core knows of a server connection that moves.
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
    backend_key: BackendKey,
    transaction: u64,
    opened_at: Instant,
    retire_at: Instant,
}

impl Pooler {
    /// Another worker asks for an idle server connection of `pool`: it gets one now, or the next
    /// that is released beyond this worker's need.
    pub fn asked(&mut self, pool: PoolId, by: WorkerId) {
        let pool = &mut self.pools[pool.index()];
        if let Some(idle) = pool.idle.pop() {
            pool.publish_idle(self.worker);
            self.actions.push(Action::Give(idle, by));
        } else if !pool.asked_by.contains(&by) {
            pool.asked_by.push_back(by);
        }
    }

    /// Takes an idle server connection out of this core, for `to`.
    pub fn migrate_out(&mut self, id: ServerId, to: WorkerId) -> Option<Migration> {
        self.server(id).filter(|server| matches!(server.state, ServerState::Idle(_)))?;
        let mut server = self.servers.remove(id.index());
        let settings = self.tables.settings.settings(server.settings).to_vec();
        self.tables.settings.assign(&mut server.settings, SettingsId::EMPTY);
        server.slot.move_to(to);
        let pool = &mut self.pools[server.pool.index()];
        pool.idle.retain(|idle| *idle != id);
        pool.publish_idle(self.worker);
        Some(Migration {
            slot: server.slot,
            settings,
            reported: server.reported.iter().map(|(n, v)| (n.into(), v.into())).collect(),
            statements: server.statements,
            residue: server.residue,
            own_statements: server.own_statements,
            node: server.node,
            epoch: server.epoch,
            backend_key: server.backend_key,
            transaction: server.transaction,
            opened_at: server.opened_at,
            retire_at: server.retire_at,
        })
    }

    /// Takes a server connection in that another worker gave away. It is idle until
    /// [`Pooler::finish_migration`].
    pub fn migrate_in(&mut self, pool: PoolId, moving: Migration, now: Instant) -> ServerId {
        let serial = self.next_serial();
        // Settings that fitted there fit here; were it otherwise, they are reset.
        let (settings, lost) = match self.tables.settings.intern(moving.settings) {
            Ok(settings) => (settings, Kinds::NONE),
            Err(_) => (SettingsId::EMPTY, Kinds::SETTINGS),
        };
        let reported = self.tables.reported.intern(moving.reported);
        let entry = self.servers.vacant_entry();
        let id = ServerId { slot: entry.key() as u32, serial };
        let Migration { slot, opened_at, retire_at, .. } = moving;
        entry.insert(Server {
            state: ServerState::Idle(now),
            settings,
            statements: moving.statements,
            residue: moving.residue.union(lost),
            own_statements: moving.own_statements,
            node: moving.node,
            epoch: moving.epoch,
            // What the unnamed statement was, its client on the other worker knows.
            unnamed: UnnamedStatement::Foreign,
            backend_key: moving.backend_key,
            transaction: moving.transaction,
            ..Server::dialing(id, pool, slot, reported, opened_at, retire_at)
        });
        self.pools[pool.index()].asked_at = None;
        id
    }

    /// A server connection that was taken in, and whose socket is registered, serves from now on.
    pub fn finish_migration(&mut self, id: ServerId, now: Instant) {
        self.release(id, now);
    }
}
