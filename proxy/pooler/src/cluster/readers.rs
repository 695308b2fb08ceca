//! Reads that wait until a replica shows what they must show (`read_wait`): with `strong`, every
//! write that was acknowledged before they came.
//!
//! One position of the primary serves all that wait. Whoever has waited in vain reads on the
//! primary, and for a moment nobody else waits.

use std::time::{Duration, Instant};

use pgimbal_config::{ReadConsistency, ResolvedPool};
use pgimbal_reads::{Decision, Reason};

use super::Reader;
use super::consistency;
use super::parsing::ParsedText;
use super::route::{self, Request};
use crate::core::Core;
use crate::ids::{ClusterId, SessionId};
use crate::session::Link;

/// How long a read with `read_consistency = "strong"` waits unless `read_wait` says so: ten rounds
/// of samples.
const PATIENCE: Duration = Duration::from_millis(200);

/// Lets an unlinked session wait, if its read may wait and a replica may soon show what it must.
/// Returns whether it waits: then it is woken, and asks again.
pub(crate) fn await_replica(
    core: &mut Core,
    id: SessionId,
    request: Request,
    now: Instant,
) -> bool {
    let Some(session) = core.sessions.get_mut(id) else { return false };
    let home = &core.pools[session.pool()];
    let (Some(cluster), Some(_)) = (home.cluster(), request.need.moment()) else { return false };
    let Some(patience) = patience(home.config()) else { return false };
    let since = session.writing().read_since().unwrap_or(now);
    let until = since + patience;
    if !request.wants_replica() {
        return false;
    }
    if now >= until {
        core.clusters[cluster].note_waited_in_vain(now);
        return false;
    }
    let (pools, clusters, home) = (&core.pools, &core.clusters, session.pool());
    if clusters[cluster].has_just_waited_in_vain(now)
        || route::best_replica(pools, clusters, home, request.need, now).is_some()
        || !route::has_replica(pools, clusters, home, now)
    {
        return false;
    }
    session.await_read(since);
    let (clusters, actions) = (&mut core.clusters, &mut core.actions);
    clusters[cluster].add_reader(Reader { session: id, need: request.need, until });
    consistency::ask_for_fresher(clusters, actions, cluster, request.need, now);
    true
}

/// How long a read of a pool may wait; `None` for not at all.
fn patience(config: &ResolvedPool) -> Option<Duration> {
    let is_strong = config.read_consistency == ReadConsistency::Strong;
    config.read_wait.or(is_strong.then_some(PATIENCE))
}

/// Wakes those for whom a replica is fresh enough now, and those who have waited long enough.
pub(crate) fn wake_readers(core: &mut Core, now: Instant) {
    for cluster in core.clusters.with_readers() {
        let mut waiting = core.clusters[cluster].take_readers();
        waiting.retain(|reader| {
            let is_over = is_over(core, cluster, *reader, now);
            if is_over {
                wake(core, reader.session);
            }
            !is_over
        });
        core.clusters[cluster].put_readers_back(waiting);
    }
}

/// What the driver has taken to another thread is done; `None` if that has failed. Who waits for a
/// text is woken, and looks again.
pub(crate) fn parsed(core: &mut Core, parsed: Option<ParsedText>) {
    if let Some(text) = core.tables.parsing.end() {
        // A text that could not be parsed must not be asked for again and again.
        let decision = parsed.and_then(ParsedText::decision);
        let decision = decision.unwrap_or(Decision::NotRead(Reason::NotParsed));
        let pool = &mut core.pools[text.pool()];
        pool.remember_parsed(text.text(), text.catalog(), decision);
    }
    for id in core.tables.parsing.take_waiting() {
        wake(core, id);
    }
}

/// Wakes a session if its read waits.
fn wake(core: &mut Core, id: SessionId) {
    if let Some(session) = core.sessions.get_mut(id)
        && matches!(session.link(), Link::AwaitingRead(_))
    {
        session.set_link(Link::Unlinked);
        core.actions.wake(id);
    }
}

/// Whether a reader has nothing to wait for any more.
fn is_over(core: &mut Core, cluster: ClusterId, reader: Reader, now: Instant) -> bool {
    let Some(session) = core.sessions.get(reader.session) else { return true };
    if !matches!(session.link(), Link::AwaitingRead(_)) || now >= reader.until {
        return true;
    }
    let (pools, clusters, home) = (&core.pools, &core.clusters, session.pool());
    if route::best_replica(pools, clusters, home, reader.need, now).is_some()
        || !route::has_replica(pools, clusters, home, now)
    {
        return true;
    }
    consistency::ask_for_fresher(&mut core.clusters, &mut core.actions, cluster, reader.need, now);
    false
}
