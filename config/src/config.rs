//! The configuration as a whole, and the options of the top level other than those of pools.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::budget::ServerBudget;
use crate::cluster::{ClusterConfig, ResolvedCluster};
use crate::credential::CredentialConfig;
use crate::host::Host;
use crate::http::HttpConfig;
use crate::peers::PeersConfig;
use crate::pool::{DatabaseConfig, PoolConfig, ResolvedPool};
use crate::reader::{
    Addresses, Choice, FileMode, Flag, LogFilter, Maybe, Names, NoAddresses, NonEmpty, OrOff, Path,
    Port, Positive, Replicas, Span, SpanOrNone, Threads,
};
use crate::store::StoreConfig;
use crate::table::{Settings, settings};
use crate::telemetry::TelemetryConfig;
use crate::tls::{ClientTls, ServerTls};
use crate::user::{ServerPassword, SourceConfig, UserConfig};
use crate::vault::VaultConfig;
use crate::words::{AuthType, LogFormat, Route};

/// The name in `[databases]` and `[users]` whose entry stands for every name that is not listed:
/// `[databases."*"]`, `[users."*"]`. Either may be missing; then unlisted names are refused, except
/// those of users with `auth_type = "trust"`.
pub const WILDCARD: &str = "*";

settings! {
    /// The configuration, checked once and never changed afterwards: a reload makes a new one.
    pub struct Config {
        /// Threads that serve clients, 0 for one on each core: a core is what one of them fills.
        "workers" workers: usize as Threads = "0", restart, try "7";
        /// Users who may do everything on the console (databases `pgimbal` and `pgbouncer`).
        /// Nobody, until they are named.
        "admin_users" admin_users: Vec<String> as Names = "", applied, try "root";
        /// Users who may only look at the console.
        "stats_users" stats_users: Vec<String> as Names = "", applied, try "monitor";
        /// How long after SIGTERM new clients are still accepted: load balancers take time to
        /// notice that `/readyz` has fallen, Kubernetes' endpoints some seconds.
        "drain_delay" drain_delay: Duration as SpanOrNone = "5s", applied, try "2s";
        /// How long clients then have to come to the end of their transactions before they are cut.
        /// Kubernetes' `terminationGracePeriodSeconds` is this and `drain_delay` and 5 s more.
        "shutdown_grace" shutdown_grace: Duration as Span = "25s", applied, try "6s";
        /// Replicas of pgimbal that share the budget of each server (`max_server_connections`), the
        /// surplus of a rolling update included: each may use one part in so many.
        "max_replicas" max_replicas: u32 as Replicas = "1", restart, try "4";
        /// The zone that pgimbal stands in: reads go to replicas of that `zone` as long as there is
        /// one that serves them. None: to those of all zones alike.
        "zone" zone: Option<String> as Maybe<NonEmpty> = "", applied, try "eu-1a";
    }
    with {
        /// The file from which the configuration was read; `None` when there was no file.
        file: Option<PathBuf> = None;
        /// The addresses to which clients connect.
        listen: ListenConfig = ListenConfig::default();
        /// The address at which metrics, probes and the page are served.
        http: HttpConfig = HttpConfig::default();
        /// The level and form of the log.
        log: LogConfig = LogConfig::default();
        /// The limits, authentication and time limits of clients.
        clients: ClientConfig = ClientConfig::default();
        /// The TLS options of databases and clusters that set none of their own, `[server_tls]`.
        server_tls: ServerTls = ServerTls::default();
        /// The pool options of databases that set none of their own.
        pool: PoolConfig = PoolConfig::default();
        /// The databases by the name that clients use; the entry [`WILDCARD`] is for all others.
        databases: BTreeMap<String, DatabaseConfig> = BTreeMap::new();
        /// The options of passwords that rotate.
        credentials: CredentialConfig = CredentialConfig::default();
        /// The place of what the replicas of a deployment share, `[store]`.
        store: StoreConfig = StoreConfig::default();
        /// The other replicas of the deployment, `[peers]`.
        peers: PeersConfig = PeersConfig::default();
        /// Where metrics and traces are sent, `[telemetry]`.
        telemetry: TelemetryConfig = TelemetryConfig::default();
        /// The Vaults that passwords come from, by name.
        vaults: BTreeMap<String, VaultConfig> = BTreeMap::new();
        /// The clusters that databases may name, by name.
        clusters: BTreeMap<String, ClusterConfig> = BTreeMap::new();
        /// The users who may log in, by name; the entry [`WILDCARD`] is a rule for all others.
        users: BTreeMap<String, UserConfig> = BTreeMap::new();
    }
}

settings! {
    /// The addresses to which clients connect: TCP addresses, a Unix socket, or both; the checks
    /// refuse a configuration with neither. A reload changes none of them.
    pub struct ListenConfig {
        /// TCP addresses for clients; none for a Unix socket only. Loopback, so that nothing is
        /// open to a network by accident; PgBouncer's port.
        "listen" addresses: Vec<SocketAddr> as Addresses = "127.0.0.1:6432", restart,
            try "127.0.0.1:7000";
        /// Those of `listen` where a load balancer begins each connection with a header of the
        /// PROXY protocol (version 1 or 2), whose client is then the peer. It is believed, so
        /// nobody else may reach them; one without a header is refused.
        "proxy_protocol" proxy_protocol: Vec<SocketAddr> as NoAddresses = "", restart,
            try "127.0.0.1:6432";
        /// Those of `listen` whose clients read on a replica, as with `route = "replica"`, unless
        /// they choose otherwise: the address behind a host name for reads.
        "read_listen" read_listen: Vec<SocketAddr> as NoAddresses = "", restart,
            try "127.0.0.1:6432";
        /// Those of `listen` whose clients have `route = "auto"` unless they choose otherwise: what
        /// only reads goes to a replica.
        "auto_listen" auto_listen: Vec<SocketAddr> as NoAddresses = "", restart,
            try "127.0.0.1:6432";
        /// Those of `listen` whose clients have `route = "primary"` unless they choose otherwise,
        /// whatever the database and the user say.
        "primary_listen" primary_listen: Vec<SocketAddr> as NoAddresses = "", restart,
            try "127.0.0.1:6432";
        /// Directory of a Unix socket for clients, PostgreSQL's `.s.PGSQL.` and the port. None.
        "unix_socket_dir" unix_socket_dir: Option<PathBuf> as Maybe<Path> = "", restart,
            try "/run/pgimbal";
        /// Permissions of the Unix socket. As PostgreSQL's: everybody may knock, a password opens.
        "unix_socket_mode" unix_socket_mode: u32 as FileMode = "0777", restart, try "0700";
        /// The port in the Unix socket's name. Unless it is set, that of the first TCP address.
        "unix_socket_port" unix_socket_port: u16 as Port = "6432", restart, try "7000";
        /// Connections that the kernel accepts ahead of pgimbal; Linux's own limit
        /// (net.core.somaxconn), so that a storm of clients finds room.
        "listen_backlog" backlog: u32 as Positive = "4096", restart, try "128";
    }
}

settings! {
    /// The level and form of the log, which goes to standard error. A reload changes neither.
    pub struct LogConfig {
        /// Which lines are logged: a level (error, warn, info, debug, trace), or a filter of
        /// tracing's form, such as `info,pgimbal=debug`. At info at most a line per connection.
        "log" filter: String as LogFilter = "info", restart, try "debug";
        /// `text` for people, `json` for collectors.
        "log_format" format: LogFormat as Choice<LogFormat> = "text", restart, try "json";
    }
}

settings! {
    /// The limits, authentication and time limits of clients of all databases together, at the top
    /// level of the file.
    pub struct ClientConfig {
        /// Client connections in all; the next one is told 53300. Twenty clients for each of 50
        /// server connections.
        "max_client_conn" max_client_conn: u32 as Positive = "1000", applied, try "9";
        /// Connections that have not logged in yet, counted apart; one more closes the oldest.
        /// Unless it is set, `max_client_conn`, so that all may come at once, and at least 256.
        "max_login_conn" max_login_conn: Option<u32> as Maybe<Positive> = "", applied, try "7";
        /// The same from one IPv4 address or one /64 of IPv6. Unless it is set, half of
        /// `max_login_conn`, so that no one address keeps the others out.
        "max_login_conn_per_address" max_login_conn_per_address: Option<u32> as Maybe<Positive> = "",
            applied, try "7";
        /// How clients prove who they are: `trust`, `password`, `md5` or `scram-sha-256`, the only
        /// one that shows nothing to a listener.
        "auth_type" auth_type: AuthType as Choice<AuthType> = "scram-sha-256", applied, try "md5";
        /// Allows `auth_type = "trust"` on an address other than loopback. Everybody who reaches
        /// the port is then whoever they say, so it takes a word of its own.
        "allow_trust_on_network" allow_trust_on_network: bool as Flag = "false", applied, try "true";
        /// How long a client may take to log in. PostgreSQL's authentication_timeout.
        "client_login_timeout" login_timeout: Duration as Span = "60s", applied, try "6s";
        /// How long a client may take to its startup packet, a TLS handshake included; programs
        /// send it at once. As long as two lost packets and a slow line take.
        "client_first_packet_timeout" first_packet_timeout: Duration as Span = "10s", applied,
            try "6s";
        /// How long a client may be idle outside a transaction before it is closed. Off: idle
        /// clients cost next to nothing.
        "client_idle_timeout" idle_timeout: Option<Duration> as OrOff<Span> = "off", applied,
            try "6s";
        /// How long a client may not read its result while it holds a server connection, be it slow
        /// or gone. Longer than a person thinks before the next page.
        "client_stall_timeout" stall_timeout: Duration as Span = "5min", applied, try "6s";
    }
    with {
        /// TLS towards clients, `[client_tls]`.
        tls: ClientTls = ClientTls::default();
        /// TCP options of client and server connections.
        tcp: TcpConfig = TcpConfig::default();
    }
}

settings! {
    /// TCP options of client and server connections alike. `TCP_NODELAY` is always set.
    pub struct TcpConfig {
        /// Idle time before the kernel asks whether the other side lives. Below the idle limits
        /// of usual load balancers and NAT tables.
        "tcp_keepalive_idle" keepalive_idle: Duration as Span = "60s", applied, try "6s";
        /// Time between those questions.
        "tcp_keepalive_interval" keepalive_interval: Duration as Span = "10s", applied, try "6s";
        /// Unanswered questions that mean the other side is gone.
        "tcp_keepalive_count" keepalive_count: u32 as Positive = "6", applied, try "3";
        /// How long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT). It does not run while
        /// more bytes wait to be sent, since their peer may live and not read. What the three above
        /// add up to.
        "tcp_user_timeout" user_timeout: Duration as Span = "120s", applied, try "6s";
    }
}

/// The least default of `max_login_conn`, in connections: a small `max_client_conn` is no reason to
/// close a login that is under way.
const LEAST_LOGIN_CONN: u32 = 256;

impl ListenConfig {
    /// The options that give addresses a route, each with its addresses.
    pub(crate) const fn routed(&self) -> [(&'static str, &Vec<SocketAddr>, Route); 3] {
        [
            ("read_listen", &self.read_listen, Route::Replica),
            ("auto_listen", &self.auto_listen, Route::Auto),
            ("primary_listen", &self.primary_listen, Route::Primary),
        ]
    }

    /// The route of the clients of an address, unless they choose otherwise; `None` for that of the
    /// user or the database.
    #[must_use]
    pub fn route_at(&self, address: &SocketAddr) -> Option<Route> {
        let routed = self.routed().into_iter();
        routed.filter(|(_, some, _)| some.contains(address)).map(|(_, _, route)| route).next()
    }
}

impl ClientConfig {
    /// Limit of connections that have not logged in yet, of all workers together: `max_login_conn`,
    /// by default `max_client_conn` and at least 256. They are counted apart from
    /// `max_client_conn`; one more closes the oldest of them.
    #[must_use]
    pub fn login_conn(&self) -> u32 {
        self.max_login_conn.unwrap_or(self.max_client_conn.max(LEAST_LOGIN_CONN))
    }

    /// Limit of connections from one address that have not logged in yet; one more closes the
    /// oldest of that address. Unix sockets are not counted by address. The value is
    /// `max_login_conn_per_address`, by default half of [`Self::login_conn`], rounded up. An IPv4
    /// address counts by itself, an IPv6 address with its /64 network.
    #[must_use]
    pub fn login_conn_per_address(&self) -> u32 {
        self.max_login_conn_per_address.unwrap_or(self.login_conn().div_ceil(2))
    }
}

/// A visitor of every part of the top level, the one list from which reading, the reference and
/// reload work.
pub(crate) trait PartVisitor {
    /// A part with a table of options. `table` is its name in the file, empty when its keys stand
    /// at the top.
    fn part<T: Settings>(
        &mut self,
        table: &'static str,
        of: fn(&Config) -> &T,
        of_mut: fn(&mut Config) -> &mut T,
    );
}

/// Shows `visitor` the parts of the top level in the order of the reference.
pub(crate) fn top_level(visitor: &mut impl PartVisitor) {
    visitor.part("", |c| &c.listen, |c| &mut c.listen);
    visitor.part("", |c| &c.http, |c| &mut c.http);
    visitor.part("", |c| &c.log, |c| &mut c.log);
    visitor.part("", |c| c, |c| c);
    visitor.part("", |c| &c.clients, |c| &mut c.clients);
    visitor.part("", |c| &c.clients.tcp, |c| &mut c.clients.tcp);
    visitor.part("", |c| &c.pool, |c| &mut c.pool);
    visitor.part("", |c| &c.credentials, |c| &mut c.credentials);
    visitor.part("client_tls", |c| &c.clients.tls, |c| &mut c.clients.tls);
    visitor.part("server_tls", |c| &c.server_tls, |c| &mut c.server_tls);
    visitor.part("http", |c| &c.http.access, |c| &mut c.http.access);
    visitor.part("store", |c| &c.store, |c| &mut c.store);
    visitor.part("peers", |c| &c.peers, |c| &mut c.peers);
    visitor.part("telemetry", |c| &c.telemetry, |c| &mut c.telemetry);
}

impl Config {
    /// The entry of the database that a client calls `name`: its own entry, or else that of
    /// [`WILDCARD`]. `None` when there is neither. Names are compared byte for byte, as in
    /// PostgreSQL. The console's databases have no entry, so that the caller must recognise them
    /// first: the entry of [`WILDCARD`] would take them.
    #[must_use]
    pub fn database(&self, name: &str) -> Option<&DatabaseConfig> {
        self.databases.get(name).or_else(|| self.databases.get(WILDCARD))
    }

    /// The entry of the user `name`: its own, or else the rule of [`WILDCARD`] with the name in
    /// place of `{user}`. `None` for a user who may not log in: no entry is for it; the rule's
    /// option `names` leaves the name out; or the name could lead out of the source's place (`..`,
    /// `/` and the like) or to a file that is no password. The source is not asked whether it knows
    /// the user.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<UserConfig> {
        match self.users.get(name).filter(|_| name != WILDCARD) {
            Some(own) => own.named(name),
            None => self.users.get(WILDCARD)?.named(name),
        }
    }

    /// The pool for `user` on the database that clients call `database`, with the user's overrides.
    /// `None` for a database that is not served, and for a user without an entry unless clients are
    /// trusted.
    ///
    /// The server role is the database's `user`, or else the client's own. The role's password is
    /// the database's `password`, or else that of the role's source, its `server_password`, or its
    /// `password` unless that is a hash. The result is made anew at each call and opens nothing; a
    /// reload does not change it.
    #[must_use]
    pub fn pool(&self, database: &str, user: &str) -> Option<ResolvedPool> {
        let config = self.database(database)?;
        let own = self.user(user);
        if own.is_none() && self.clients.auth_type != AuthType::Trust {
            return None;
        }
        let role = config.user.as_deref().unwrap_or(user);
        let mut pool = config.pool.clone();
        if let Some(own) = &own {
            pool.mode = own.pool_mode.unwrap_or(pool.mode);
            pool.size = own.pool_size.unwrap_or(pool.size);
            pool.min_size = pool.min_size.min(pool.size);
        }
        let cluster = config.cluster.as_ref().and_then(|name| {
            let config = Arc::new(self.clusters.get(name)?.clone());
            Some(ResolvedCluster { name: name.clone(), config })
        });
        let (host, port) = place(config, cluster.as_ref());
        let is_listed = database != WILDCARD && self.databases.contains_key(database);
        Some(ResolvedPool {
            is_listed: is_listed && user != WILDCARD && self.users.contains_key(user),
            dbname: config.dbname.as_deref().unwrap_or(database).to_owned(),
            options: config.options.clone(),
            user: role.to_owned(),
            login: self.server_password(config, role),
            tls: cluster.as_ref().map_or(&config.tls, |cluster| &cluster.config.tls).clone(),
            cluster,
            route: own.as_ref().and_then(|own| own.route).unwrap_or(config.route),
            read_consistency: own
                .as_ref()
                .and_then(|own| own.read_consistency)
                .unwrap_or(config.read_consistency),
            zone: self.zone.clone(),
            read_max_staleness: config.read_max_staleness,
            read_max_staleness_bytes: config.read_max_staleness_bytes,
            read_wait: config.read_wait,
            read_unparsed: config.read_unparsed,
            read_functions: config.read_functions.clone(),
            server_budget: self.server_budget(&host, port, config.cluster.as_deref()),
            max_db_connections: config.max_db_connections,
            max_user_connections: own.and_then(|own| own.max_user_connections),
            max_pinned: pool.max_pinned.limit_for(pool.size),
            host,
            port,
            pool,
        })
    }

    /// Returns the budget of the server at this place. Nodes of a cluster that come from DNS are
    /// found by `cluster`, the name of the cluster that they belong to; `None` outside of one.
    #[must_use]
    pub fn server_budget(&self, host: &Host, port: u16, cluster: Option<&str>) -> ServerBudget {
        let mut budget = ServerBudget::default();
        for (name, config) in &self.clusters {
            let mut nodes = config.nodes.values();
            if cluster == Some(name) || nodes.any(|n| (&n.host, n.port) == (host, port)) {
                budget.add(config.max_server_connections, config.foreign_connections, 1);
            }
        }
        for database in self.databases.values().filter(|database| database.cluster.is_none()) {
            if (&database.host, database.port) == (host, port) {
                budget.add(database.max_server_connections, database.foreign_connections, 0);
            }
        }
        budget
    }

    fn server_password(&self, database: &DatabaseConfig, role: &str) -> ServerPassword {
        if let Some(password) = &database.password {
            return ServerPassword::Fixed(Some(password.clone()));
        }
        match self.user(role) {
            None => ServerPassword::Fixed(None),
            Some(user) if user.source() == SourceConfig::Inline => {
                ServerPassword::Fixed(user.server_password().cloned())
            }
            Some(_) => ServerPassword::Role(role.to_owned()),
        }
    }
}

/// Host and port of a database's server; of a cluster, of its first node.
fn place(database: &DatabaseConfig, cluster: Option<&ResolvedCluster>) -> (Host, u16) {
    let Some(cluster) = cluster else { return (database.host.clone(), database.port) };
    match (cluster.config.nodes.values().next(), &cluster.config.dns) {
        (Some(node), _) => (node.host.clone(), node.port),
        (None, Some(name)) => (Host::Tcp(name.clone()), cluster.config.port),
        (None, None) => (database.host.clone(), database.port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::ServerLimit;

    #[test]
    fn the_least_number_of_all_that_lead_to_a_server_holds() {
        let mut config = Config::default();
        for (name, limit) in [("a", ServerLimit::Connections(9)), ("b", ServerLimit::Auto)] {
            let database = crate::DatabaseConfig {
                max_server_connections: limit,
                foreign_connections: 2,
                ..crate::DatabaseConfig::default()
            };
            config.databases.insert(name.to_owned(), database);
        }
        let host = Host::Tcp("localhost".to_owned());
        let expected = ServerBudget { limit: ServerLimit::Connections(9), foreign: 2, reserved: 0 };
        assert_eq!(config.server_budget(&host, 5432, None), expected);
        assert_eq!(config.server_budget(&host, 5433, None), ServerBudget::default());
    }
}
