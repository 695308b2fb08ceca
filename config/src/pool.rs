//! Options of pools and databases, and the options of one pool with every override applied.

use std::time::Duration;

use figment::value::Value;

use crate::budget::{Limit, ServerBudget, ServerLimit};
use crate::cluster::ResolvedCluster;
use crate::host::{Host, HostName};
use crate::reader::{
    Choice, Count, Flag, Functions, Hidden, Maybe, NonEmpty, OrOff, Port, Positive, Reader, Size,
    Span,
};
use crate::require_auth::{AuthMethods, RequireAuth};
use crate::secret::Secret;
use crate::table::settings;
use crate::tls::ServerTls;
use crate::user::ServerPassword;
use crate::words::{
    HiddenState, ListenMode, OnClientGone, PoolMode, ReadConsistency, ReadUnparsed, Route, Verify,
};

settings! {
    /// The options of a pool. At the top level they are the defaults of all databases, in
    /// `[databases.NAME]` those of one.
    pub struct PoolConfig {
        /// When a client gives its server connection back: at the end of its `session`,
        /// `transaction` or `statement`. Transactions share best, and session state is kept safe.
        "pool_mode" mode: PoolMode as Choice<PoolMode> = "transaction", applied, try "session";
        /// Server connections of a pool (one pool for each database and user). 20 keep a
        /// server of four to eight cores busy; more make PostgreSQL slower, not faster.
        "pool_size" size: u32 as Positive = "20", applied, try "30";
        /// Server connections that are kept open even when idle. None: the first clients open them.
        "min_pool_size" min_size: u32 as Count = "0", applied, try "2";
        /// Further connections for when clients wait longer than `reserve_timeout`. None, so that
        /// `pool_size` is what the server sees.
        "reserve_pool_size" reserve_size: u32 as Count = "0", applied, try "5";
        /// How long a client waits before a reserve connection opens; longer than a usual burst.
        "reserve_timeout" reserve_timeout: Duration as Span = "5s", applied, try "6s";
        /// How many of a pool's connections may be held by pinned clients (with temporary tables,
        /// LISTEN, session locks and the like), as a number or as a share of `pool_size`. A
        /// quarter stays free for everybody else; one may always be held.
        "max_pinned" max_pinned: MaxPinned as Pinned = "75%", applied, try "3";
        /// How long a query waits for a server connection. PgBouncer's value: longer than a
        /// failover, shorter than a person's patience.
        "query_wait_timeout" query_wait_timeout: Duration as Span = "120s", applied, try "6s";
        /// Age at which an unlinked server connection is replaced, so that its memory and its
        /// cached plans do not grow for ever.
        "server_lifetime" server_lifetime: Duration as Span = "1h", applied, try "2h";
        /// Idle time after which a server connection above `min_pool_size` is closed.
        "server_idle_timeout" server_idle_timeout: Duration as Span = "10min", applied, try "6s";
        /// How long a connection to a server may take, login included; a lost SYN is sent again
        /// three times in this time.
        "server_connect_timeout" server_connect_timeout: Duration as Span = "15s", applied, try "6s";
        /// How long clients wait for a server that was there and is not, as while it restarts,
        /// before they are told 57P03; what only reads is run again meanwhile. Longer than a
        /// restart, shorter than a usual client's patience. Off: they are told at once. A cluster
        /// has its own.
        "failover_hold" failover_hold: Option<Duration> as OrOff<Span> = "30s", applied, try "6s";
        /// The longest pause between attempts after a failed connection or login; the pauses
        /// double until then. Short enough that a server which returns is soon found.
        "server_login_retry" server_login_retry: Duration as Span = "15s", applied, try "6s";
        /// libpq's require_auth: how a server may ask who pgimbal is, some of `password`, `md5`,
        /// `scram-sha-256` and `none` with commas, or with a `!` before each, how it may not. Not
        /// set: in any way, but the password goes in clear text only over a Unix socket or to a
        /// server whose certificate was verified; elsewhere `password` must be named here.
        "require_auth" require_auth: Option<AuthMethods> as Maybe<RequireAuth> = "", applied,
            try "scram-sha-256";
        /// How long a query may run before it is cancelled and the client gets an error. Off: the
        /// server's statement_timeout is the better place.
        "query_timeout" query_timeout: Option<Duration> as OrOff<Span> = "off", applied, try "6s";
        /// How long a transaction may last. Off, as in PostgreSQL.
        "transaction_timeout" transaction_timeout: Option<Duration> as OrOff<Span> = "off",
            applied, try "6s";
        /// How long a client may be idle inside a transaction, where it holds a server connection.
        /// Off, as in PostgreSQL.
        "idle_transaction_timeout" idle_transaction_timeout: Option<Duration> as OrOff<Span> = "off",
            applied, try "6s";
        /// How long a server connection waits for the end of the cancel requests sent for it
        /// before it is closed instead of reused; a cancel takes a round trip.
        "cancel_wait_timeout" cancel_wait_timeout: Duration as Span = "10s", applied, try "6s";
        /// What is run on a server connection before another session gets it. PostgreSQL's word
        /// for returning to the state after login; it follows any other query given here.
        "reset_query" reset_query: String as NonEmpty = "DISCARD ALL", applied, try "RESET ALL";
        /// Runs `reset_query` after every transaction too, so that state ends with its transaction,
        /// for a round trip more and without shared prepared statements. Off: state follows its
        /// client, and `verify = "always"` finds what functions and triggers set.
        "reset_query_always" reset_query_always: bool as Flag = "false", applied, try "true";
        /// When the server is asked what a transaction has left in its session: `text`: after
        /// statements whose text may leave something; `calls`: after calls of functions outside
        /// pg_catalog too; `always`: after every transaction. A question is a round trip more, and
        /// most transactions leave nothing.
        "verify" verify: Verify as Choice<Verify> = "text", applied, try "calls";
        /// What becomes of session state that no query shows (a custom setting made inside DO, a
        /// seed, a loaded library): `reset` takes it off before the connection serves another
        /// transaction, so its own client loses it too; `pin` keeps the client on its connection.
        "hidden_state" hidden_state: HiddenState as Choice<HiddenState> = "reset", applied,
            try "pin";
        /// How clients listen (LISTEN): `share`: over one server connection for each worker, which
        /// all clients of the pool share; `close`: so too, but when it is lost, its clients are
        /// closed, since notifications may have been lost with it; `pin`: each client keeps a
        /// server connection of its own.
        "listen_mode" listen_mode: ListenMode as Choice<ListenMode> = "share", applied,
            try "close";
        /// What becomes of the running query of a client that vanished: `cancel` or `finish`.
        /// Nobody will read its result.
        "on_client_gone" on_client_gone: OnClientGone as Choice<OnClientGone> = "cancel", applied,
            try "finish";
        /// Prepared statements kept on each server connection; the least recently used go first.
        /// PgBouncer's value.
        "max_prepared_statements" max_prepared_statements: u32 as Positive = "200", applied, try "300";
        /// The longest statement text that is remembered; a client with a longer one keeps its
        /// server connection until it closes it. 200 such texts are 50 MiB.
        "max_statement_bytes" max_statement_bytes: usize as Size = "256KiB", applied, try "64KiB";
        /// The texts that are remembered for one client and what is known of them, all together;
        /// beyond, each is as one that is too long. A thousand statements of 16 KiB, ten times what
        /// drivers keep.
        "max_client_statement_bytes" max_client_statement_bytes: usize as Size = "16MiB", applied,
            try "1MiB";
    }
}

settings! {
    /// The options of a database that clients may name, `[databases.NAME]`. The entry `"*"` stands
    /// for every name that is not listed. Pool options may be given here too, for this database.
    pub struct DatabaseConfig {
        /// Host name, IP address, or the directory of a Unix socket. A pooler mostly runs beside
        /// its server.
        "host" host: Host as HostName = "localhost", applied, try "db.example";
        /// The server's port.
        "port" port: u16 as Port = "5432", applied, try "5433";
        /// The database's name on the server; when it is not set, the name the client used.
        "dbname" dbname: Option<String> as Maybe<NonEmpty> = "", applied, try "app";
        /// What every server session begins with, as libpq's `options`: `-c statement_timeout=5s`.
        "options" options: Option<String> as Maybe<NonEmpty> = "", applied,
            try "-c work_mem=8MB";
        /// The role for all server connections; when it is not set, each client's own.
        "user" user: Option<String> as Maybe<NonEmpty> = "", applied, try "app";
        /// The password of `user`.
        "password" password: Option<Secret> as Maybe<Hidden> = "", applied, try "x";
        /// The cluster of `[clusters]` that it lives on, in place of `host` and `port`.
        "cluster" cluster: Option<String> as Maybe<NonEmpty> = "", applied, try "main";
        /// Where its transactions go: to the `primary`, to a `replica`, or to either by what each
        /// statement does (`auto`). Clients may choose with `SET pgimbal.route`, or at startup
        /// with `options=-c pgimbal.route=replica`.
        "route" route: Route as Choice<Route> = "primary", applied, try "replica";
        /// What a read that pgimbal sends to a replica shows of the writes before it: `eventual`,
        /// whatever the replica has; `bounded`, all but the newest (`read_max_staleness`);
        /// `session`, those of its own session; `pool`, all to the database through this pgimbal;
        /// `strong`, everybody's. A client that asks for a replica itself gets any.
        "read_consistency" read_consistency: ReadConsistency as Choice<ReadConsistency> =
            "session", applied, try "pool";
        /// With `read_consistency = "bounded"`: a write that is older is shown. Off: any may be
        /// missing.
        "read_max_staleness" read_max_staleness: Option<Duration> as OrOff<Span> = "1s", applied,
            try "6s";
        /// With `read_consistency = "bounded"`: how much of the write-ahead log may be missing.
        /// Off: any number of bytes.
        "read_max_staleness_bytes" read_max_staleness_bytes: Option<usize> as OrOff<Size> = "off",
            applied, try "16MiB";
        /// How long a read may wait for a replica that shows what it must, before the primary
        /// serves it. Off: with `read_consistency = "strong"` 200 ms, else not at all.
        "read_wait" read_wait: Option<Duration> as OrOff<Span> = "off", applied, try "30ms";
        /// What becomes of a statement of more than a hundred words or so, the first time that
        /// it comes with `route = "auto"`: it goes to the primary while it is parsed, or waits for that,
        /// a few milliseconds.
        "read_unparsed" read_unparsed: ReadUnparsed as Choice<ReadUnparsed> = "primary", applied,
            try "wait";
        /// Functions that count as reads with `route = "auto"`, whatever the database says of them:
        /// volatile ones that write nothing, and those whose result may differ from server to
        /// server. Names without schemas; each stands for all functions of that name.
        "read_functions" read_functions: Vec<String> as Functions = "", applied, try "audit_noop";
        /// Server connections to this database, of all its pools together. Off: `pool_size` is
        /// the limit of each.
        "max_db_connections" max_db_connections: Option<u32> as OrOff<Positive> = "off", applied,
            try "50";
        /// Connections of pgimbal to its server, over all databases, users and replicas of
        /// pgimbal; in use, idle or being opened. `auto`: its `max_connections` less the reserved
        /// ones, less 5 %, less `foreign_connections`. Off: the pools' limits
        /// alone, and nothing is asked of the server.
        "max_server_connections" max_server_connections: ServerLimit as Limit = "auto", applied,
            try "50";
        /// Connections that `auto` leaves to others than pgimbal, beside the 5 %.
        "foreign_connections" foreign_connections: u32 as Count = "0", applied, try "10";
    }
    with {
        /// TLS to this database's server: `[databases.NAME.server_tls]`, over the defaults of
        /// `[server_tls]`.
        tls: ServerTls = ServerTls::default();
        /// The pool options of this database, over the defaults of the top level.
        pool: PoolConfig = PoolConfig::default();
    }
}

/// The limit of a pool's server connections that pinned clients may hold, `max_pinned`: a
/// percentage if the value ends in `%`, else a number. [`Self::limit_for`] makes either a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxPinned {
    /// A share of the pool's size in percent, 1 to 100.
    Percent(u8),
    /// A number of server connections; the checks refuse one above the pool's size. With 0 there
    /// is no place for a pinned client.
    Servers(u32),
}

impl MaxPinned {
    /// The limit for a pool of `size` server connections, at most `size`. A share is rounded down
    /// and is at least 1, so that a pool of one connection can serve a client that must be pinned.
    /// A number is taken as it is, so that 0 stays 0.
    #[must_use]
    pub fn limit_for(self, size: u32) -> u32 {
        match self {
            Self::Percent(percent) => {
                ((u64::from(size) * u64::from(percent) / 100) as u32).max(1).min(size)
            }
            Self::Servers(servers) => servers.min(size),
        }
    }
}

/// The options of the pool of one database and one user, with every override applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedPool {
    /// Whether the configuration lists both the database and the user by name, so that neither
    /// comes from the entry `*`. Another pool that has served nobody is forgotten after
    /// `server_login_retry` without use: any client could have made it up.
    pub is_listed: bool,
    /// Host or socket directory of the server; of a cluster, of its first node.
    pub host: Host,
    /// The server's port, 1 to 65535; of a cluster, that of its first node.
    pub port: u16,
    /// The database's name on the server: the option `dbname`, or else the name that the client
    /// used.
    pub dbname: String,
    /// libpq's `options` for every server session, such as `-c statement_timeout=5s`; `None` for
    /// none.
    pub options: Option<String>,
    /// The role as which the pool logs in to the server.
    pub user: String,
    /// The role's password, or the user whose source provides it.
    pub login: ServerPassword,
    /// The cluster that the pool's servers belong to; `None` for a single server.
    pub cluster: Option<ResolvedCluster>,
    /// Where transactions go, unless a session sets `pgimbal.route`.
    pub route: Route,
    /// The zone that pgimbal stands in; `None` for none.
    pub zone: Option<String>,
    /// What a read that is sent to a replica shows of the writes before it.
    pub read_consistency: ReadConsistency,
    /// With [`ReadConsistency::Bounded`], the age from which a write is shown; `None` for any age.
    pub read_max_staleness: Option<Duration>,
    /// With [`ReadConsistency::Bounded`], how many bytes of the write-ahead log may be missing;
    /// `None` for any number.
    pub read_max_staleness_bytes: Option<usize>,
    /// How long a read may wait for a replica that shows what it must; `None` for 200 ms with
    /// [`ReadConsistency::Strong`], else not at all.
    pub read_wait: Option<Duration>,
    /// What becomes of a statement that takes long to parse, the first time.
    pub read_unparsed: ReadUnparsed,
    /// The names of functions that count as reads, whatever the database's catalog says of them.
    pub read_functions: Vec<String>,
    /// TLS options for the server, or for the nodes of the cluster.
    pub tls: ServerTls,
    /// Limit of server connections to the database, over all its pools; `None` for no limit.
    pub max_db_connections: Option<u32>,
    /// The budget of the server at `host`, over all that leads there; of a cluster, of each node.
    pub server_budget: ServerBudget,
    /// Limit of server connections of the user, over all databases; `None` for no limit.
    pub max_user_connections: Option<u32>,
    /// Limit of the pool's server connections that pinned clients may hold, 0 to the pool's size.
    pub max_pinned: u32,
    /// The pool's options, with the user's overrides of mode and size.
    pub pool: PoolConfig,
}

/// A number of server connections or a share of the pool.
pub(crate) struct Pinned;

impl Reader for Pinned {
    type Out = MaxPinned;
    const KIND: &'static str = "number or percentage";

    fn read(value: &Value) -> Result<MaxPinned, String> {
        let percent = value.as_str().and_then(|text| text.strip_suffix('%'));
        match percent.map(|digits| digits.trim().parse::<u8>()) {
            Some(Ok(percent @ 1..=100)) => Ok(MaxPinned::Percent(percent)),
            Some(_) => Err("expected a percentage from 1% to 100%".to_owned()),
            None => Count::read(value).map(MaxPinned::Servers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down_and_never_nothing() {
        for (share, size, expected) in
            [(75, 20, 15), (75, 3, 2), (75, 1, 1), (1, 50, 1), (100, 7, 7)]
        {
            assert_eq!(MaxPinned::Percent(share).limit_for(size), expected, "{share}% of {size}");
        }
        assert_eq!(MaxPinned::Servers(0).limit_for(5), 0);
        assert_eq!(MaxPinned::Servers(9).limit_for(5), 5);
    }
}
