//! Server connections that are closed so that another pool, or another replica, can have one to the
//! same server.

use std::sync::Arc;
use std::time::Instant;

use super::budget::{ConnectionBudget, Offered};
use super::dial;
use crate::action::Action;
use crate::core::Core;
use crate::ids::ServerId;
use crate::server::ServerState;

/// A connection was refused because the server's budget is used up: if a claim was left, this
/// worker closes an idle one for it, or asks the others to.
pub(crate) fn ask_for_idle(core: &mut Core, budget: &Arc<ConnectionBudget>, now: Instant) {
    if budget.is_contended() && budget.may_ask(now) {
        give_up_idle(core, now);
        if core.pools.workers() > 1 {
            core.actions.push(Action::AskForIdle(None));
        }
    }
}

/// Closes an idle server connection for whoever wants one, of each server where somebody does, if
/// none of another worker has been idle for longer.
pub(crate) fn give_up_idle(core: &mut Core, now: Instant) {
    let (worker, workers) = (core.pools.worker(), core.pools.workers());
    for (budget, longest) in contended(core) {
        let Some((id, since)) = longest else {
            budget.offer_none(worker, workers, now);
            continue;
        };
        let Some(server) = core.servers.get_mut(id) else { continue };
        match budget.offer(server.slot_mut().token_mut(), worker, workers, since, now) {
            Offered::Close => {
                dial::close_server(&mut core.servers, &mut core.pools, &mut core.actions, id);
            }
            Offered::Tell(other) => core.actions.push(Action::AskForIdle(Some(other))),
            Offered::Keep => {}
        }
    }
}

/// A server where somebody wants a connection, with this worker's that has been idle for longest,
/// and since when.
type Contended = (Arc<ConnectionBudget>, Option<(ServerId, Instant)>);

fn contended(core: &Core) -> Vec<Contended> {
    let mut found: Vec<Contended> = Vec::new();
    for server in core.servers.iter().filter(|server| server.slot().is_contended()) {
        let budget = server.slot().budget();
        let known = found.iter().position(|(known, _)| Arc::ptr_eq(known, budget));
        let at = known.unwrap_or_else(|| {
            found.push((Arc::clone(budget), None));
            found.len() - 1
        });
        if let ServerState::Idle(since) = server.state()
            && found[at].1.is_none_or(|(_, longest)| since < longest)
        {
            found[at].1 = Some((server.id(), since));
        }
    }
    found
}
