//! Where a text would go now, and why: for people.

use std::time::Instant;

use pgimbal_config::Route;
use pgimbal_reads::{Catalog, Decision, parse};
use pgimbal_wire::frame::HEADER_LEN;

use crate::cluster::consistency::Need;
use crate::cluster::decided::Text;
use crate::cluster::parsing::Parsing;
use crate::cluster::reads::Decided;
use crate::cluster::route::{self, ROUTE_SETTING};
use crate::cluster::texts::{self, Texts};
use crate::core::Core;
use crate::ids::PoolId;
use crate::plan::HOLD_LIMIT;
use crate::pool::{Place, Pool};
use crate::session::routing::Why;
use crate::sql::{self, BlockAccess, BlockIsolation, BlockMode, Reading, Readings};

/// Where a text would go now that a new session of one pool sends, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExplainedRoute {
    /// The database's name, as clients say it.
    pub database: String,
    /// The user's name, as clients say it.
    pub user: String,
    /// The route of the pool, or what a comment in front of the text says: `primary`, `replica` or
    /// `auto`.
    pub route: &'static str,
    /// The name of the node that would serve the text; `None` while there is none.
    pub node: Option<String>,
    /// Why, in English words.
    pub why: String,
}

/// Explains where `text` would go, for each pool of a cluster with replicas that this worker has.
pub(crate) fn explain(core: &mut Core, text: &[u8], now: Instant) -> Vec<ExplainedRoute> {
    let has_replicas = |pool: &&Pool| pool.place() == Place::Primary && !pool.replicas().is_empty();
    let homes: Vec<PoolId> = core.pools.iter().filter(has_replicas).map(Pool::id).collect();
    homes.into_iter().map(|home| explain_for(core, home, text, now)).collect()
}

fn explain_for(core: &mut Core, home: PoolId, text: &[u8], now: Instant) -> ExplainedRoute {
    let own = core.pools[home].config().route;
    let by_comment = sql::set_by_comment(text, ROUTE_SETTING).and_then(route::route_named);
    let route = by_comment.unwrap_or(own);
    let (goes, why) = match route {
        Route::Auto => by_itself(&mut core.pools[home], &mut core.tables.parsing, text),
        route if by_comment.is_some() => (route, BY_COMMENT.to_owned()),
        route => (route, "the route of the pool says so".to_owned()),
    };
    let replica = match goes {
        Route::Replica => {
            route::best_replica(&core.pools, &core.clusters, home, Need::Anything, now)
        }
        _ => None,
    };
    let why = match goes == Route::Replica && replica.is_none() {
        true => format!("{why}; no replica can be read from"),
        false => why,
    };
    let pool = &core.pools[replica.unwrap_or(home)];
    let node = core.clusters.next_node(pool).ok().flatten();
    let node = node.and_then(|node| core.clusters.of(pool)?.node(node));
    let key = core.pools[home].key();
    ExplainedRoute {
        database: key.database.to_string(),
        user: key.user.to_string(),
        route: route.as_str(),
        node: node.map(|node| node.name.to_string()),
        why,
    }
}

/// How the transactions begin of a session without settings of its own.
const DEFAULTS: BlockMode =
    BlockMode { access: BlockAccess::ReadWrite, isolation: BlockIsolation::Other };

/// Where a text would go, and why in English words, that a new session with the route `auto` sends
/// to a database of this catalog: never [`Route::Auto`]. `commented` is the text with the comments
/// in front of it, one of which may name a route.
#[must_use]
pub fn explain_text(
    (commented, text): (&[u8], &[u8]),
    reading: Reading,
    catalog: &Catalog,
) -> (Route, String) {
    match sql::set_by_comment(commented, ROUTE_SETTING).and_then(route::route_named) {
        Some(Route::Auto) | None => {}
        Some(route) => return (route, BY_COMMENT.to_owned()),
    }
    if let Some(told) = too_long(text) {
        return told;
    }
    let does = texts::by_beginning(text, Readings::One(reading), DEFAULTS);
    does.map_or_else(
        |reading| match parse(text, reading, catalog) {
            Decision::Read => told(Text::Reads),
            Decision::NotRead(why) => (Route::Primary, format!("{}: {why}", why.as_str())),
        },
        told,
    )
}

const BY_COMMENT: &str = "a comment says so";

/// Where a text goes that is too long to be looked at, if it is.
fn too_long(text: &[u8]) -> Option<(Route, String)> {
    // Behind it stands a NUL.
    let is_long = HEADER_LEN + text.len() + 1 > HOLD_LIMIT;
    is_long.then(|| told(Text::Not(Why::Long)))
}

/// Where a text goes because of what it does, for a session without settings of its own.
fn by_itself(pool: &mut Pool, parsing: &mut Parsing, text: &[u8]) -> (Route, String) {
    if let Some(told) = too_long(text) {
        return told;
    }
    let reading = Reading::default();
    let (readings, defaults) = (Readings::One(reading), DEFAULTS);
    let mut texts = Texts { pool: &mut *pool, parsing: &mut *parsing, readings, defaults };
    let does = texts.does(text);
    if matches!(does, Text::Not(Why::NotRead(_)))
        && texts::by_beginning(text, readings, defaults).is_err()
        && let Decided::Known(Decision::NotRead(reason)) = pool.decide_read(text, reading, parsing)
    {
        return (Route::Primary, reason.to_string());
    }
    told(does)
}

/// Where a text goes that does this, and why.
fn told(does: Text) -> (Route, String) {
    let (route, why) = match does {
        Text::Reads => (Route::Replica, "it only reads"),
        Text::Begins | Text::Block => (Route::Replica, "it begins a READ ONLY transaction"),
        Text::Ends => (Route::Primary, "it ends a transaction"),
        Text::Not(Why::Transaction) => (Route::Primary, "it begins a transaction that may write"),
        Text::Not(Why::BeingParsed) => {
            (Route::Primary, "it is being parsed; ask again for what is found")
        }
        Text::Not(Why::Long) => (Route::Primary, "it is longer than the 16 KiB that are looked at"),
        Text::Not(Why::NotRead(word)) => (Route::Primary, word),
        Text::Not(why) => return (Route::Primary, why.as_str().replace('_', " ")),
    };
    (route, why.to_owned())
}
