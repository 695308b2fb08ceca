//! Pools that nobody uses go away, with their counters: names come from clients, in any number.

use std::time::{Duration, Instant};

use super::{Place, Pool};
use crate::action::Action;
use crate::core::Core;
use crate::ids::PoolId;

/// How long a pool is kept that has served somebody, or that the configuration names: its counters
/// must be seen by whoever reads them, however seldom.
const UNUSED: Duration = Duration::from_secs(60 * 60);

/// Retires the pools that no worker has used for long enough, each together with those of its
/// cluster's nodes. One that has never had a server connection, for a name that only a `*` stands
/// for, goes when its failure is forgotten (`server_login_retry`).
pub(crate) fn retire_unused(core: &mut Core, now: Instant) {
    for id in core.pools.ids() {
        let pool = &core.pools[id];
        if pool.is_retired() || pool.place() != Place::Primary {
            continue;
        }
        let family: Vec<PoolId> =
            pool.replicas().iter().map(|(_, replica)| *replica).chain([id]).collect();
        if family.iter().any(|id| core.pools[*id].is_used()) {
            core.pools[id].note_used();
            continue;
        }
        let served = family.iter().any(|id| core.pools[*id].shared().welcome().is_some());
        let limit = limit_of(&core.pools[id], served);
        let overdue = core.pools[id].note_unused(now) >= limit;
        // Server connections that are being opened or closed still lead here.
        if overdue && !core.servers.iter().any(|server| family.contains(&server.pool())) {
            for id in family {
                core.pools.remove(id);
                core.actions.push(Action::Retired(id));
            }
        }
    }
}

/// How long a pool is kept that nobody uses, by whether it has `served` anybody.
fn limit_of(pool: &Pool, served: bool) -> Duration {
    match served || pool.config().is_listed {
        true => UNUSED,
        false => pool.config().pool.server_login_retry,
    }
}
