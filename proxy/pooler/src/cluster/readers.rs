//! Reads that wait until a replica shows every write that was acknowledged before they came
//! (`read_consistency = "strong"`).
//!
//! One position of the primary serves all that wait. Whoever has waited in vain reads on the
//! primary.

use std::time::{Duration, Instant};

use pgimbal_config::ReadConsistency;

use super::Reader;
use super::consistency::{self, Need};
use super::route::{self, Request};
use crate::core::Core;
use crate::ids::{ClusterId, SessionId};

/// How long a read waits for a replica before it goes to the primary: ten rounds of samples.
const PATIENCE: Duration = Duration::from_millis(200);

/// Lets an unlinked session wait, if what it asks for must show everything, and a replica may soon
/// do so. Returns whether it waits: then it is woken, and asks again.
pub(crate) fn await_replica(
    core: &mut Core,
    id: SessionId,
    request: Request,
    now: Instant,
) -> bool {
    let Some(session) = core.sessions.get_mut(id) else { return false };
    let home = &core.pools[session.pool()];
    let (Some(cluster), Need::Until(Some(arrived))) = (home.cluster(), request.need) else {
        return false;
    };
    let until = arrived + PATIENCE;
    let is_strong = home.config().read_consistency == ReadConsistency::Strong;
    if !is_strong || !request.wants_replica() || now >= until {
        return false;
    }
    let (pools, clusters, home) = (&core.pools, &core.clusters, session.pool());
    let serves = |need| route::best_replica(pools, clusters, home, need, now).is_some();
    if serves(request.need) || !serves(Need::Until(None)) {
        return false;
    }
    session.writing_mut().begin_read(arrived);
    let (clusters, actions) = (&mut core.clusters, &mut core.actions);
    clusters[cluster].add_reader(Reader { session: id, arrived, until });
    consistency::ask_for_fresher(clusters, actions, cluster, request.need, now);
    true
}

/// Wakes those for whom a replica is fresh enough now, and those who have waited long enough.
pub(crate) fn wake_readers(core: &mut Core, now: Instant) {
    for cluster in core.clusters.with_readers() {
        let readers = core.clusters[cluster].take_readers();
        for reader in readers {
            if is_over(core, cluster, reader, now) {
                core.actions.wake(reader.session);
            } else {
                core.clusters[cluster].add_reader(reader);
            }
        }
    }
}

/// Whether a reader has nothing to wait for any more.
fn is_over(core: &mut Core, cluster: ClusterId, reader: Reader, now: Instant) -> bool {
    let Some(session) = core.sessions.get(reader.session) else { return true };
    let (pools, clusters, need) = (&core.pools, &core.clusters, Need::Until(Some(reader.arrived)));
    let serves = |need| route::best_replica(pools, clusters, session.pool(), need, now).is_some();
    if now >= reader.until || serves(need) || !serves(Need::Until(None)) {
        return true;
    }
    consistency::ask_for_fresher(&mut core.clusters, &mut core.actions, cluster, need, now);
    false
}
