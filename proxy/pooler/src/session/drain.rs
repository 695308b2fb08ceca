//! While a worker drains: looks at its clients from time to time, when they have come to the end of
//! a transaction and when they begin one, and dismisses those that [`DrainTime`] lets go.

pub mod time;

use std::time::{Duration, Instant};

use pgimbal_config::PoolMode;
use pgimbal_wire::frame::{self, HEADER_LEN};
use pgimbal_wire::tag::frontend;

use self::time::{DrainTime, Standing, place_of};
use super::sessions::Service;
use super::{Link, Phase, Presence, Session, Trial, dismissal, setup};
use crate::core::Core;
use crate::ids::{ServerId, SessionId};
use crate::server::Server;

/// How many sessions are looked at in one step, every 100 ms: below a millisecond. A worker with
/// 100,000 looks at each of them every 0.7 s.
const SLICE: usize = 16_384;

/// The longest message that is looked at as a pool's question: `SELECT 1` with a comment.
const LONGEST_QUESTION: usize = 256;

/// From now on clients go, as [`DrainTime`] lets them.
pub(crate) fn begin(core: &mut Core, time: DrainTime, now: Instant) {
    core.sessions.begin_to_drain(time);
    let all: Vec<SessionId> = core.sessions.iter().map(Session::id).collect();
    dismiss_those_who_go(core, &all, time, now);
}

/// Looks at the next sessions: those whose time has come go.
pub(crate) fn look(core: &mut Core, now: Instant) {
    if let Service::Draining(time) = core.sessions.service() {
        let next = core.sessions.next_to_look_at(SLICE);
        dismiss_those_who_go(core, &next, time, now);
    }
}

/// A session has come to the end of a transaction, and has given its server connection back.
pub(crate) fn after_transaction(core: &mut Core, id: SessionId, now: Instant) {
    if let Service::Draining(time) = core.sessions.service() {
        dismiss_those_who_go(core, &[id], time, now);
    }
}

/// A client has sent `buf`. Returns whether it goes instead of being served: it begins a
/// transaction, and its time has come, or its pool has asked whether the connection lives.
pub(crate) fn goes_at_the_door(core: &mut Core, id: SessionId, now: Instant, buf: &[u8]) -> bool {
    let Service::Draining(time) = core.sessions.service() else { return false };
    let Some(standing) = standing(core, id, now) else { return false };
    let place = place_of(id);
    // Whatever it was before, it is not idle any more.
    let goes = match standing {
        Standing::Idle(_) => {
            time.lets_go(Standing::Idle(Duration::ZERO), place, now)
                || time.is_due(place, now, Duration::ZERO) && is_pools_question(buf)
        }
        standing => time.lets_go(standing, place, now),
    };
    if goes && !buf.is_empty() {
        dismissal::dismiss_drained(core, id);
        return true;
    }
    false
}

/// The time is over: everybody goes, whatever they are doing.
pub(crate) fn cut_off(core: &mut Core) {
    let all: Vec<SessionId> = core.sessions.iter().map(Session::id).collect();
    for id in all {
        dismissal::dismiss_drained(core, id);
    }
}

fn dismiss_those_who_go(core: &mut Core, ids: &[SessionId], time: DrainTime, now: Instant) {
    for id in ids {
        let goes = standing(core, *id, now)
            .is_some_and(|standing| time.lets_go(standing, place_of(*id), now));
        if goes {
            dismissal::dismiss_drained(core, *id);
        }
    }
}

fn standing(core: &Core, id: SessionId, now: Instant) -> Option<Standing> {
    let session = core.sessions.get(id)?;
    let quiet = now.saturating_duration_since(session.active_at());
    let is_between = session.presence() == Presence::Here
        && session.final_error.is_none()
        && session.between_messages()
        // A barrier without pending replies is gone with the next message.
        && session.phase() != Phase::Skipping
        && session.aborted().is_none()
        && session.trial() == Trial::None;
    if !is_between {
        return Some(Standing::Busy);
    }
    let keeps_it = |server: ServerId| -> Option<Standing> {
        let server: &Server = core.servers.get(server)?;
        let pool = &core.pools[session.pool()];
        Some(match setup::is_between(session, server) {
            true if session.pin().is_set() => Standing::Pinned,
            true if pool.config().pool.mode == PoolMode::Session => Standing::Idle(quiet),
            _ => Standing::Busy,
        })
    };
    match session.link() {
        Link::Unlinked => Some(Standing::Idle(quiet)),
        Link::Ready(server) => keeps_it(server),
        _ => Some(Standing::Busy),
    }
}

/// Whether a client's first message asks whether its connection lives, and nothing else: an empty
/// statement (JDBC's `isValid`, psycopg_pool, `-- ping` of pgx) or `SELECT 1`.
fn is_pools_question(buf: &[u8]) -> bool {
    let Ok(Some(header)) = frame::peek(buf) else { return false };
    let whole = header.total as usize;
    if whole > LONGEST_QUESTION {
        return false;
    }
    let Some(body) = buf.get(HEADER_LEN..whole) else { return false };
    let mut fields = body.split(|byte| *byte == 0);
    let text = match header.tag {
        frontend::QUERY => fields.next(),
        // The name comes first.
        frontend::PARSE => fields.nth(1),
        _ => None,
    };
    text.and_then(|text| std::str::from_utf8(text).ok()).is_some_and(asks_nothing)
}

/// Whether a text is empty but for comments to the end of the line, or `SELECT 1`.
fn asks_nothing(text: &str) -> bool {
    let lines = text.lines().map(|line| line.split("--").next().unwrap_or_default());
    let lines: Vec<&str> = lines.collect();
    let text = lines.join(" ");
    let words: Vec<&str> = text.split([' ', '\t', ';']).filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        [] => true,
        [select, one] => select.eq_ignore_ascii_case("select") && *one == "1",
        _ => false,
    }
}

#[cfg(test)]
mod tests;
