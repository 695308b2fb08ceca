//! What a read must show of the writes before it, and which replicas do.

use std::time::{Duration, Instant};

use pgimbal_config::ReadConsistency;

use super::{Cluster, Clusters};
use crate::action::{Action, Actions};
use crate::ids::ClusterId;
use crate::pool::{Place, Pool};
use crate::session::Session;
use crate::session::writing::Wrote;
use crate::topology::{NodeId, NodeState, ProbeHint};

/// How often a worker tells the prober that replicas must be fresher: as often as it looks then.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// What a replica must have replayed to serve a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Anything: every replica that may be read from serves it.
    Anything,
    /// Every write that was acknowledged by this moment; `None` if there was none that counts. A
    /// replica of which it is not known how fresh it is does not serve it.
    Until(Option<Instant>),
    /// As [`Self::Until`], and all but so many bytes of the write-ahead log.
    Near(Option<Instant>, u64),
}

impl Need {
    /// What a read of `session`, of the pool `home`, must show that has arrived at `arrived`.
    pub(crate) fn of(session: &Session, home: &Pool, arrived: Instant) -> Self {
        let config = home.config();
        // What is written while it waits need not be seen.
        let arrived = session.writing().read_since().unwrap_or(arrived);
        match config.read_consistency {
            ReadConsistency::Eventual => Self::Anything,
            ReadConsistency::Session => Self::Until(session.writing().last()),
            ReadConsistency::Pool => {
                let by_any = match home.writes() {
                    Some(writes) => writes.latest(arrived),
                    None => Some(arrived),
                };
                Self::Until(session.writing().last().max(by_any))
            }
            ReadConsistency::Strong => Self::Until(Some(arrived)),
            ReadConsistency::Bounded => {
                let since = config.read_max_staleness.and_then(|time| arrived.checked_sub(time));
                match config.read_max_staleness_bytes {
                    None => Self::Until(since),
                    Some(bytes) => Self::Near(since, bytes as u64),
                }
            }
        }
    }

    /// The moment by which every acknowledged write must be seen; `None` if there is none.
    #[must_use]
    pub const fn moment(self) -> Option<Instant> {
        match self {
            Self::Anything => None,
            Self::Until(moment) | Self::Near(moment, _) => moment,
        }
    }
}

impl Cluster {
    /// Whether a node may be read from by who needs that.
    pub(crate) fn serves(&self, id: NodeId, need: Need) -> bool {
        let Some(node) = self.node(id).filter(|node| node.state == NodeState::Replica) else {
            return false;
        };
        let (moment, bytes) = match need {
            Need::Anything => return true,
            Need::Until(moment) => (moment, u64::MAX),
            Need::Near(moment, bytes) => (moment, bytes),
        };
        node.freshness.as_ref().is_some_and(|freshness| {
            let is_fresh = |moment| freshness.until().is_some_and(|until| until >= moment);
            moment.is_none_or(is_fresh) && freshness.bytes_behind() <= bytes
        })
    }
}

/// Notes that something has ended at `now` on a server connection of `pool` that may have been a
/// write of `session`; `None` for one that has left. It must be noted before the client is told.
#[inline]
pub(crate) fn note_written(session: Option<&mut Session>, pool: &Pool, now: Instant) {
    if !pool.is_clustered() {
        return;
    }
    let wrote = session.as_deref().map_or(Wrote::Perhaps, |session| session.writing().wrote());
    let counts = match wrote {
        Wrote::No => false,
        Wrote::Perhaps => pool.place() == Place::Primary,
        Wrote::Surely => true,
    };
    if !counts {
        return;
    }
    if let Some(session) = session {
        session.writing_mut().note(now);
    }
    if let Some(writes) = pool.writes() {
        writes.note(now);
    }
}

/// Asks the prober of a cluster for fresher replicas, because somebody needs them.
pub(crate) fn ask_for_fresher(
    clusters: &mut Clusters,
    actions: &mut Actions,
    id: ClusterId,
    need: Need,
    now: Instant,
) {
    let Some(moment) = need.moment() else { return };
    if clusters[id].may_ask_for_fresher(now, ASK_AGAIN) {
        actions.push(Action::ProbeHint(id, ProbeHint::FreshnessNeeded(moment)));
    }
}
