//! Where a text would go now, and why: for people.

use std::time::Instant;

use pgimbal_config::Route;
use pgimbal_reads::Decision;

use crate::cluster::consistency::Need;
use crate::cluster::decided::Text;
use crate::cluster::parsing::Parsing;
use crate::cluster::reads::Decided;
use crate::cluster::route::{self, ROUTE_SETTING};
use crate::cluster::texts::Texts;
use crate::core::Core;
use crate::ids::PoolId;
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
        route if by_comment.is_some() => (route, "a comment says so".to_owned()),
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

/// Where a text goes because of what it does, for a session without settings of its own.
fn by_itself(pool: &mut Pool, parsing: &mut Parsing, text: &[u8]) -> (Route, String) {
    let reading = Reading::default();
    let defaults = BlockMode { access: BlockAccess::ReadWrite, isolation: BlockIsolation::Other };
    let readings = Readings::One(reading);
    let mut texts = Texts { pool: &mut *pool, parsing: &mut *parsing, readings, defaults };
    match texts.does(text) {
        Text::Reads => (Route::Replica, "it only reads".to_owned()),
        Text::Begins | Text::Block => {
            (Route::Replica, "it begins a READ ONLY transaction".to_owned())
        }
        Text::Ends => (Route::Primary, "it ends a transaction".to_owned()),
        Text::Not(Why::NotRead(word)) => {
            let why = match pool.decide_read(text, reading, parsing) {
                Decided::Known(Decision::NotRead(reason)) => reason.to_string(),
                _ => word.to_owned(),
            };
            (Route::Primary, why)
        }
        Text::Not(Why::Transaction) => {
            (Route::Primary, "it begins a transaction that may write".to_owned())
        }
        Text::Not(Why::BeingParsed) => {
            (Route::Primary, "it is being parsed; ask again for what is found".to_owned())
        }
        Text::Not(why) => (Route::Primary, why.as_str().replace('_', " ")),
    }
}
