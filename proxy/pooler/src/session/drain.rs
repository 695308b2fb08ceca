//! Which client goes when, while a worker drains: at moments that its pool hides, spread over the
//! time, and never inside a transaction.
//!
//! A pool asks a connection that has lain idle for about a second whether it still lives before it
//! hands it out (HikariCP after 0.5 s, pgx after 1 s), and some ask each time (psycopg_pool's
//! `check`). So a client whose turn has come goes when it has been idle that long, or when it asks.

use std::time::{Duration, Instant};

use pgimbal_config::PoolMode;
use pgimbal_wire::frame::{self, HEADER_LEN};
use pgimbal_wire::tag::frontend;

use super::sessions::Service;
use super::{Link, Phase, Presence, Session, Trial, dismissal, setup};
use crate::core::Core;
use crate::ids::{ServerId, SessionId};
use crate::server::Server;

/// How long a client has been idle when its pool will ask before it uses the connection: the second
/// of pgx, and what lies between pgimbal's last byte and the moment at which a pool takes the
/// connection back and begins to count.
const LONG_IDLE: Duration = Duration::from_millis(1200);

/// The part of the time after which clients go that are idle for less; before it only those that
/// are idle for long do.
const SHORT_IDLE_FROM: f64 = 0.9;

/// The part of the time after which pinned clients go: what they have on their server connection is
/// lost with it, so they keep it as long as possible. The rest is for those that hardly pause.
const PINNED_FROM: f64 = 0.95;

/// How many sessions are looked at in one step, every 100 ms: below a millisecond. A worker with
/// 100,000 looks at each of them every 0.7 s.
const SLICE: usize = 16_384;

/// The longest message that is looked at as a pool's question: `SELECT 1` with a comment.
const LONGEST_QUESTION: usize = 256;

/// The time in which a worker that drains lets its clients go. When it is over those that are in a
/// transaction are still served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainTime {
    /// When it begins.
    pub begin: Instant,
    /// When it ends; the same as the beginning lets all go at once that are in no transaction.
    pub end: Instant,
}

/// What a client is doing, as far as its end depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is in no transaction, and has been idle for so long.
    Idle(Duration),
    /// It is in no transaction, and pinned to its server connection.
    Pinned,
    /// It is in a transaction, waits for one to begin, or has left.
    Busy,
}

impl DrainTime {
    /// Whether a client goes at `now`. `place` is its place in the order, from 0 to 1.
    fn lets_go(&self, standing: Standing, place: f64, now: Instant) -> bool {
        let passed = self.passed(now);
        match standing {
            Standing::Idle(_) if passed >= at_last(place) => true,
            Standing::Idle(quiet) => quiet >= LONG_IDLE && self.is_due(place, now),
            Standing::Pinned => passed >= PINNED_FROM,
            Standing::Busy => false,
        }
    }

    /// Whether a client's turn has come: it goes as soon as its pool hides it.
    fn is_due(&self, place: f64, now: Instant) -> bool {
        self.passed(now) >= SHORT_IDLE_FROM * place
    }

    /// The part of the time that has passed: 0 at the beginning, 1 at the end and later.
    fn passed(&self, now: Instant) -> f64 {
        if now >= self.end {
            return 1.0;
        }
        let whole = self.end.saturating_duration_since(self.begin);
        now.saturating_duration_since(self.begin).as_secs_f64() / whole.as_secs_f64()
    }
}

/// The part of the time after which a client of this place goes although it is idle for less.
fn at_last(place: f64) -> f64 {
    SHORT_IDLE_FROM + place * (PINNED_FROM - SHORT_IDLE_FROM)
}

/// A session's place in the order, from 0 to 1. Multiples of the golden ratio lie evenly, however
/// many there are, and nothing needs to be kept for it.
fn place_of(id: SessionId) -> f64 {
    const GOLDEN: u32 = 0x9e37_79b9;
    f64::from(id.serial.wrapping_mul(GOLDEN)) / f64::from(u32::MAX)
}

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
                || time.is_due(place, now) && is_pools_question(buf)
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
        && session.phase() == Phase::Open
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
