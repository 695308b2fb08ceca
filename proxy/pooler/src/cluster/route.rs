//! Where a session's next transaction goes: to the primary, or to one of the replicas.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::{ReplicaFallback, Route};
use pgimbal_wire::error::{Report, Severity, SqlState};

use crate::cluster::consistency::Need;
use crate::cluster::{Clusters, Gate};
use crate::core::Core;
use crate::error::error_body;
use crate::ids::{PoolId, SessionId};
use crate::pool::pools::Pools;
use crate::pool::{Place, Pool, queue};
use crate::server::reported::NamedValue;
use crate::session::Session;
use crate::session::routing::{Chosen, ChosenBy, Routing};
use crate::sql::{Access, Classified, Form, Operand};
use crate::tables::Tables;
use crate::topology::{NodeId, NodeState, Placement};

/// The name of the setting with which a session chooses where its transactions go: `primary`,
/// `replica` or `auto`, in any case; the empty text stands for what its pool says. PostgreSQL takes
/// the name as a customized option, so SET, SHOW and RESET work as with any setting. pgimbal
/// refuses another value (22023), and any other name that begins with `pgimbal.` (42704).
pub const ROUTE_SETTING: &[u8] = b"pgimbal.route";

/// The names of pgimbal's own settings begin so.
const PREFIX: &[u8] = b"pgimbal.";

/// How long a replica that has just failed is left out without a prober's word: one probe takes
/// as long at most.
const LEFT_OUT: Duration = Duration::from_secs(2);

/// What decides whether a session's next transaction goes to the primary or to a replica. It is
/// made when the first message of the transaction needs a server connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where the session wants to go: what was chosen for what it has sent, or else what it has set
    /// as `pgimbal.route`, or its pool's `route`. Never [`Route::Auto`]; always [`Route::Primary`]
    /// for a pool that has no replicas.
    pub route: Route,
    /// Whether the message that waits for a server connection reads or writes rows, by its text;
    /// unknown where the text is not at hand.
    pub access: Access,
    /// What a replica must have replayed to serve it: anything for a session that asks for a
    /// replica itself.
    pub need: Need,
}

impl Request {
    /// What a session of `pool` asks for whose first message of a transaction waits for a server
    /// connection.
    pub(crate) fn of(session: &Session, pool: &Pool, tables: &Tables, now: Instant) -> Self {
        let access = session.front().access();
        let any = |route| Self { route, access, need: Need::Anything };
        if pool.replicas().is_empty() {
            return any(Route::Primary);
        }
        match session.routing().and_then(Routing::chosen) {
            Some(Chosen { route, by: ChosenBy::Auto, .. }) => {
                Self { route, access, need: Need::of(session, pool, now) }
            }
            Some(chosen) => any(chosen.route),
            None => match route_of(session, pool, tables) {
                // Nothing is known of what it will send.
                Route::Auto => any(Route::Primary),
                route => any(route),
            },
        }
    }

    /// Whether a replica is to serve the transaction. What a session has sent to a replica by its
    /// route goes there even if it would write, and gets PostgreSQL's own error (25006). Where the
    /// route is `auto`, only what reads goes there. False if the pool has no replicas. If none can
    /// serve now, the cluster's `replica_fallback` decides.
    #[must_use]
    pub const fn wants_replica(self) -> bool {
        matches!(self, Self { route: Route::Replica, .. })
    }
}

/// The pool that serves the next transaction of a session whose own pool is `home`.
///
/// # Errors
/// The body of an ErrorResponse when only a replica will do and there is none.
pub(crate) fn choose_pool(
    pools: &mut Pools,
    clusters: &Clusters,
    home: PoolId,
    request: Request,
    now: Instant,
) -> Result<PoolId, Arc<[u8]>> {
    if !request.wants_replica() {
        return Ok(home);
    }
    if let Some(replica) = best_replica(pools, clusters, home, request.need, now) {
        pools[home].next_turn();
        return Ok(replica);
    }
    if request.need != Need::Anything && has_replica(pools, clusters, home, now) {
        // There are replicas, and only the primary shows all that is needed.
        return Ok(home);
    }
    let pool = &pools[home];
    let fallback = pool.config().cluster.as_ref().map(|cluster| cluster.config.replica_fallback);
    if fallback != Some(ReplicaFallback::None) {
        return Ok(home);
    }
    unknown_replica(pool, clusters).ok_or_else(|| {
        error_body(
            &Report::error(SqlState::CANNOT_CONNECT_NOW, "no replica can be read from")
                .hint("SHOW NODES tells why; replica_fallback = \"primary\" would read there."),
        )
    })
}

/// Those who wait for a primary because no replica could be read from go to one that can be now.
pub(crate) fn send_to_replicas(core: &mut Core, home: PoolId, now: Instant) {
    let pool = &core.pools[home];
    let held = pool.waiting() > 0 && core.clusters.gate(pool) == Gate::Held;
    if !held || !has_replica(&core.pools, &core.clusters, home, now) {
        return;
    }
    let waiting = pool.waiters().filter(|waiter| queue::still_waits(&core.sessions, *waiter));
    let reads = |id: &SessionId| {
        let request = core.sessions.get(*id);
        let request = request.map(|session| Request::of(session, pool, &core.tables, now));
        request.is_some_and(|request| {
            let (pools, clusters) = (&core.pools, &core.clusters);
            request.wants_replica()
                && best_replica(pools, clusters, home, request.need, now).is_some()
        })
    };
    let readers: Vec<SessionId> = waiting.map(|waiter| waiter.session).filter(reads).collect();
    for reader in readers {
        queue::stop_waiting(&mut core.sessions, &mut core.pools, reader);
        core.actions.wake(reader);
    }
}

/// The pool whose first server connection tells what a client is greeted with: one that reads on
/// replicas needs no primary for it.
pub(crate) fn pool_of_login(
    pools: &Pools,
    clusters: &Clusters,
    home: PoolId,
    parameters: &[NamedValue],
    now: Instant,
) -> PoolId {
    let mut asked = parameters.iter().rev();
    let asked = asked.find(|(name, _)| name.eq_ignore_ascii_case(ROUTE_SETTING));
    let route = asked.and_then(|(_, word)| route_named(word));
    match route.unwrap_or(pools[home].config().route) {
        Route::Replica => best_replica(pools, clusters, home, Need::Anything, now).unwrap_or(home),
        Route::Primary | Route::Auto => home,
    }
}

/// A server connection to a node has failed: its pool is left out until the prober has looked.
pub(crate) fn leave_out(pool: &mut Pool, now: Instant) {
    if matches!(pool.place(), Place::Node(_)) {
        pool.leave_out(now + LEFT_OUT);
    }
}

/// Where a session of `pool` wants its transactions to go.
pub(crate) fn route_of(session: &Session, pool: &Pool, tables: &Tables) -> Route {
    let chosen = tables.settings.get(session.settings().current(), ROUTE_SETTING);
    chosen.and_then(route_named).unwrap_or(pool.config().route)
}

/// A session of `home` is served by the pool of a replica: the replica has its turn.
pub(crate) fn count_turn(
    pools: &mut Pools,
    clusters: &Clusters,
    home: PoolId,
    replica: PoolId,
    now: Instant,
) {
    if home == replica {
        return;
    }
    let weight = placement(&pools[replica], clusters).map_or(1, |placement| placement.weight);
    let least = pools[home].least_spent();
    let spent = pools[replica].turns_mut().take(least, weight, now);
    pools[home].set_least_spent(spent);
}

/// The pool of a replica that serves `need`: in pgimbal's own zone rather than in others, with the
/// fewest clients on it by its weight; of equals the one whose turn it is by its weight.
pub(crate) fn best_replica(
    pools: &Pools,
    clusters: &Clusters,
    home: PoolId,
    need: Need,
    now: Instant,
) -> Option<PoolId> {
    let home = &pools[home];
    let cluster = clusters.of(home)?;
    let own_zone = home.config().zone.as_deref();
    let candidate = |(_, id): (NodeId, PoolId)| {
        let pool = &pools[id];
        let placement = placement(pool, clusters);
        let zone = placement.and_then(|placement| placement.zone.as_deref());
        Candidate {
            pool: id,
            is_elsewhere: own_zone.is_some() && zone != own_zone,
            outstanding: u64::from(pool.outstanding()),
            cost: pool.turns().cost(placement.map_or(1, |placement| placement.weight), now),
            spent: pool.turns().spent(home.least_spent()),
        }
    };
    home.replicas_in_turn()
        .filter(|(node, pool)| cluster.serves(*node, need) && pools[*pool].may_be_chosen(now))
        .map(candidate)
        .reduce(|best, other| if other.is_better_than(&best) { other } else { best })
        .map(|best| best.pool)
}

/// The pool of a replica that may be chosen.
struct Candidate {
    pool: PoolId,
    is_elsewhere: bool,
    /// Clients that it serves now.
    outstanding: u64,
    /// What a turn costs it, by its weight.
    cost: u64,
    /// What its turns have cost.
    spent: u64,
}

impl Candidate {
    /// Whether it is to be chosen rather than another.
    ///
    /// One that may have three clients for the other's one is as free with two of them as the other
    /// with none: else the lighter one would be chosen whenever the heavier one is busy, and get
    /// more than its share.
    fn is_better_than(&self, other: &Self) -> bool {
        let unit = self.cost.max(other.cost);
        let rank = |one: &Self| {
            let load = one.outstanding.saturating_mul(one.cost) / unit;
            (one.is_elsewhere, load, one.spent)
        };
        rank(self) < rank(other)
    }
}

/// Whether any replica can be read from, however far it is behind.
pub(crate) fn has_replica(pools: &Pools, clusters: &Clusters, home: PoolId, now: Instant) -> bool {
    best_replica(pools, clusters, home, Need::Anything, now).is_some()
}

/// The share and the zone of the node that a pool leads to; `None` unless it leads to one.
fn placement<'a>(pool: &Pool, clusters: &'a Clusters) -> Option<&'a Placement> {
    let Place::Node(node) = pool.place() else { return None };
    clusters.of(pool)?.node(node).map(|node| &node.placement)
}

/// A replica pool to wait for, while a node has not answered yet.
fn unknown_replica(home: &Pool, clusters: &Clusters) -> Option<PoolId> {
    let cluster = clusters.of(home)?;
    let unknown =
        |node: NodeId| cluster.node(node).is_none_or(|node| node.state == NodeState::Unknown);
    home.replicas().iter().find(|(node, _)| unknown(*node)).map(|(_, pool)| *pool)
}

/// What is wrong with a setting of pgimbal's own: PostgreSQL would take any name and any value.
/// `None` for one that is right, and for one that is not ours.
pub(crate) fn misnamed(name: &[u8], value: &[u8]) -> Option<Misnamed> {
    let own = name.get(..PREFIX.len())?.eq_ignore_ascii_case(PREFIX);
    if own && !name.eq_ignore_ascii_case(ROUTE_SETTING) {
        return Some(Misnamed::Name(String::from_utf8_lossy(name).into_owned()));
    }
    // The empty text is what PostgreSQL shows once a placeholder was reset.
    let is_right = !own || value.is_empty() || route_named(value).is_some();
    (!is_right).then(|| Misnamed::Value(String::from_utf8_lossy(value).into_owned()))
}

/// What a text sets that only looks like a setting of pgimbal's.
pub(crate) fn misnamed_in(classified: &Classified) -> Option<Misnamed> {
    let assigned = classified.steps().iter().flat_map(|step| match &step.form {
        Form::Set(assigned, _) => &assigned[..],
        _ => &[],
    });
    let mut known = assigned.filter_map(|one| match (&one.name, &one.value) {
        (Operand::Text(name), Operand::Text(value)) => Some((name, value)),
        _ => None,
    });
    known.find_map(|(name, value)| misnamed(name, value))
}

/// A setting that looks like ours and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Misnamed {
    /// There is none of this name.
    Name(String),
    /// The route has no such value.
    Value(String),
}

impl Misnamed {
    /// The body of the ErrorResponse that says so, and what may have been meant.
    pub(crate) fn body(&self, severity: Severity) -> Arc<[u8]> {
        let (code, text, hint) = self.words();
        let report = match severity {
            Severity::Fatal => Report::fatal(code, &text),
            _ => Report::error(code, &text),
        };
        error_body(&report.hint(&hint))
    }

    /// A statement that fails so, in place of the one that would not.
    pub(crate) fn statement(&self) -> Vec<u8> {
        let (code, text, hint) = self.words();
        // Within two pairs of quotes, and read under whatever settings the session has.
        let plain = |text: &str| -> String {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || " \".,:;_-".contains(c);
            text.chars().map(|c| if is_plain(c) { c } else { '?' }).collect()
        };
        let (code, text, hint) = (code.as_str(), plain(&text), plain(&hint));
        format!(
            "DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''{code}'', MESSAGE = ''{text}'', \
             HINT = ''{hint}''; END'"
        )
        .into_bytes()
    }

    fn words(&self) -> (SqlState, String, String) {
        match self {
            Self::Name(name) => (
                SqlState::UNDEFINED_OBJECT,
                format!("unrecognized configuration parameter \"{name}\""),
                "Perhaps you meant \"pgimbal.route\", which is pgimbal's only setting.".to_owned(),
            ),
            Self::Value(value) => (
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"pgimbal.route\": \"{value}\""),
                match meant(value) {
                    Some(meant) => format!(
                        "Available values: primary, replica, auto. Perhaps you meant \"{meant}\"."
                    ),
                    None => "Available values: primary, replica, auto.".to_owned(),
                },
            ),
        }
    }
}

/// Returns the route that may have been meant by a word with which other systems name it, for the
/// hint of an error; `None` for any other word.
fn meant(word: &str) -> Option<&'static str> {
    const REPLICAS: [&str; 9] = [
        "standby",
        "secondary",
        "slave",
        "reader",
        "read",
        "ro",
        "read-only",
        "prefer-standby",
        "replicas",
    ];
    const PRIMARIES: [&str; 7] =
        ["master", "leader", "writer", "write", "rw", "read-write", "main"];
    let is = |known: &&str| known.eq_ignore_ascii_case(word);
    if REPLICAS.iter().any(&is) {
        Some("replica")
    } else if PRIMARIES.iter().any(is) {
        Some("primary")
    } else {
        None
    }
}

pub(crate) fn route_named(word: &[u8]) -> Option<Route> {
    match word {
        _ if word.eq_ignore_ascii_case(b"auto") => Some(Route::Auto),
        _ if word.eq_ignore_ascii_case(b"replica") => Some(Route::Replica),
        _ if word.eq_ignore_ascii_case(b"primary") => Some(Route::Primary),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_only_looks_like_ours_is_named() {
        for (name, value) in [
            ("pgimbal.route", "replica"),
            ("PgImbal.Route", "PRIMARY"),
            ("pgimbal.route", ""),
            ("app.route", "standby"),
            ("pgimbal", "x"),
        ] {
            assert_eq!(misnamed(name.as_bytes(), value.as_bytes()), None, "{name} {value}");
        }
        for (name, value, words) in [
            ("pgimbal.route", "standby", ["22023", "\"replica\""]),
            ("pgimbal.ROUTE", "Master", ["22023", "\"primary\""]),
            ("pgimbal.route", "nonsense", ["22023", "Available values"]),
            ("pgimbal.rout", "replica", ["42704", "\"pgimbal.route\""]),
        ] {
            let wrong = misnamed(name.as_bytes(), value.as_bytes()).expect("it is wrong");
            let body = wrong.body(Severity::Error);
            let text = String::from_utf8_lossy(&body);
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
            let statement = String::from_utf8(wrong.statement()).expect("a text");
            assert!(words.iter().all(|word| statement.contains(word)), "{statement}");
        }
    }
    #[test]
    fn what_fails_in_place_of_a_statement_holds_nothing_of_a_clients_but_plain_words() {
        let wrong = misnamed(b"pgimbal.x'; drop table t; --\\", b"x").expect("it is wrong");
        let statement = String::from_utf8(wrong.statement()).expect("a text");
        assert_eq!(statement.matches('\'').count(), 14, "{statement}");
        assert!(!statement.contains('\\'), "{statement}");
    }
}
