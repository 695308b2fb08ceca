//! Clients that wait while writes have nowhere to go: how many, and how long.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use pgimbal_wire::error::{self, Report, SqlState};

use crate::action::{Action, Actions};
use crate::cluster::{Cluster, Clusters};
use crate::error::error_body;
use crate::ids::PoolId;
use crate::pool::Pool;
use crate::pool::pools::Pools;
use crate::topology::{ProbeHint, Writes};

/// How often the prober is told that clients wait: as often as it looks while they do.
const HINT_AGAIN: Duration = Duration::from_millis(100);

/// Since when a pool's clients are held, and how long they may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    pub(crate) since: Instant,
    pub(crate) limit: Duration,
}

/// What an operator can do about a hold that only an operator ends.
fn adoption(cluster: &Cluster) -> Option<String> {
    let Writes::Held(reason) = cluster.view().writes else { return None };
    let node = cluster.node(reason.adoptable()?)?;
    Some(format!(
        "If node {node} has the right data, an operator says ADOPT NODE {cluster}.{node} on the \
         console; SHOW NODES tells more. The connection stays usable.",
        node = node.name,
        cluster = cluster.name(),
    ))
}

/// What a client is told that has waited in vain for the server of a database outside of a cluster.
fn server_is_gone(pool: &Pool) -> Arc<[u8]> {
    let last = pool.shared().last_failure();
    let last = last.as_deref().and_then(|body| error::ErrorFields::parse(body).ok());
    let why = last.map_or_else(Default::default, |last| String::from_utf8_lossy(last.message));
    let text = format!("the server has not come back within failover_hold: {why}");
    error_body(
        &Report::error(SqlState::CANNOT_CONNECT_NOW, &text)
            .hint("The connection stays usable; try again."),
    )
}

/// A client begins to wait for a pool that is held.
///
/// # Errors
/// The body of an ErrorResponse when as many wait as may (`max_held`).
pub(crate) fn admit_held(
    pools: &Pools,
    clusters: &mut Clusters,
    actions: &mut Actions,
    id: PoolId,
    now: Instant,
) -> Result<(), Arc<[u8]>> {
    let pool = &pools[id];
    let Some(config) = pool.config().cluster.as_ref().map(|cluster| &cluster.config) else {
        return Ok(());
    };
    let shared = pool.shared().cluster.as_ref();
    let waiting = shared.map_or(0, |cluster| cluster.waiting.load(Relaxed));
    if waiting >= config.max_held {
        pool.count_failed();
        return Err(error_body(
            &Report::error(
                SqlState::CANNOT_CONNECT_NOW,
                "the primary is unavailable, and the limit of waiting clients (max_held) is reached",
            )
            .hint("Try again later, or raise max_held."),
        ));
    }
    if let Some(shared) = shared {
        shared.held.fetch_add(1, Relaxed);
    }
    ask_for_primary(pool, clusters, actions, now);
    Ok(())
}

/// Tells the prober, now and then, that clients wait.
pub(crate) fn ask_for_primary(
    pool: &Pool,
    clusters: &mut Clusters,
    actions: &mut Actions,
    now: Instant,
) {
    let Some(id) = pool.cluster() else { return };
    if clusters[id].may_hint(now, HINT_AGAIN) {
        actions.push(Action::ProbeHint(id, ProbeHint::WaitersNeedPrimary));
    }
}

/// The hold that a pool's clients are under; `None` if they are under none.
pub(crate) fn hold_of(pool: &Pool, clusters: &Clusters) -> Option<Hold> {
    let limit = pool.failover_hold()?;
    let held_since = clusters.of(pool).and_then(Cluster::held_since);
    let since = held_since.or_else(|| pool.shared().quietly_failing_since())?;
    Some(Hold { since, limit })
}

/// The error for a client whose wait has lasted as long as a hold may.
pub(crate) fn hold_is_over(pool: &Pool, clusters: &Clusters) -> Arc<[u8]> {
    let Some(cluster) = clusters.of(pool) else { return server_is_gone(pool) };
    let why = match &cluster.view().writes {
        Writes::Held(reason) => reason.text(),
        _ => "the primary lets nobody in",
    };
    let text = format!("no primary within failover_hold: {why}");
    let hint = adoption(cluster).unwrap_or_else(|| {
        "The connection stays usable; try again. SHOW NODES tells more.".to_owned()
    });
    error_body(&Report::error(SqlState::CANNOT_CONNECT_NOW, &text).hint(&hint))
}
