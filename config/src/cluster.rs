//! Options of a cluster of PostgreSQL servers: its nodes, how they are probed, and what clients see
//! when the primary moves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::budget::{Limit, ServerLimit};
use crate::host::{DnsName, Host, HostName};
use crate::reader::{
    Choice, Count, Flag, Hidden, Maybe, NonEmpty, OrOff, Port, Positive, Size, Span,
};
use crate::secret::Secret;
use crate::table::settings;
use crate::tls::ServerTls;
use crate::words::{LostTransactionError, ReplicaFallback};

settings! {
    /// The options of a cluster with one primary, `[clusters.NAME]`. Its nodes are listed as
    /// `[clusters.NAME.nodes.NODE]`, or are the addresses of one DNS name.
    pub struct ClusterConfig {
        /// A host name whose every address is a node; looked up again and again.
        "dns" dns: Option<String> as Maybe<DnsName> = "", applied, try "pg.example";
        /// The port of the nodes of `dns`.
        "port" port: u16 as Port = "5432", applied, try "5433";
        /// The role that asks the nodes what they are; it should have pg_monitor.
        "probe_user" probe_user: Option<String> as Maybe<NonEmpty> = "", applied, try "probe";
        /// Its password, when it is not a user of `[users]`.
        "probe_password" probe_password: Option<Secret> as Maybe<Hidden> = "", applied, try "x";
        /// The database that it connects to.
        "probe_database" probe_database: String as NonEmpty = "postgres", applied, try "app";
        /// How often each node is asked while all is well. What breaks is noticed earlier where
        /// clients are connected.
        "probe_interval" probe_interval: Duration as Span = "1s", applied, try "6s";
        /// How long an answer may take. With the interval: a frozen primary is noticed in 2.5 s.
        "probe_timeout" probe_timeout: Duration as Span = "1500ms", applied, try "6s";
        /// How long clients wait for a primary before they are told 57P03. Longer than a usual
        /// failover, shorter than a usual client's patience.
        "failover_hold" failover_hold: Duration as Span = "30s", applied, try "6s";
        /// Clients that may wait for a primary at a time; the next ones are told 57P03 at once.
        "max_held" max_held: u32 as Positive = "10000", applied, try "5";
        /// SQLSTATE for a transaction that was lost with its server: `57P01`, the server's own,
        /// or `40001`, on which many frameworks run a transaction again.
        "lost_transaction_error" lost_transaction_error: LostTransactionError
            as Choice<LostTransactionError> = "57P01", applied, try "40001";
        /// How many bytes a replica may be behind to be read from. Off: any number.
        "replica_max_lag_bytes" replica_max_lag_bytes: Option<usize> as OrOff<Size> = "off",
            applied, try "16MiB";
        /// How long a replica may be behind to be read from. Off: any time.
        "replica_max_lag" replica_max_lag: Option<Duration> as OrOff<Span> = "off", applied,
            try "6s";
        /// Where reads go when no replica can serve them: to the `primary`, or nowhere (`none`).
        "replica_fallback" replica_fallback: ReplicaFallback as Choice<ReplicaFallback> =
            "primary", applied, try "none";
        /// Connections of pgimbal to each node, over all databases, users and replicas of
        /// pgimbal; in use, idle or being opened. `auto`: its `max_connections` less the reserved
        /// ones, less 5 %, less `foreign_connections`. Off: the pools' limits
        /// alone, and nothing is asked of the server.
        "max_server_connections" max_server_connections: ServerLimit as Limit = "auto", applied,
            try "50";
        /// Connections that `auto` leaves to others than pgimbal, beside the 5 %.
        "foreign_connections" foreign_connections: u32 as Count = "0", applied, try "10";
    }
    with {
        /// TLS to the nodes: `[clusters.NAME.server_tls]`, over the defaults of `[server_tls]`.
        tls: ServerTls = ServerTls::default();
        /// The nodes by name; empty when they come from `dns`.
        nodes: BTreeMap<String, NodeConfig> = BTreeMap::new();
    }
}

settings! {
    /// The options of a node of a cluster, `[clusters.NAME.nodes.NODE]`. Which node is the primary
    /// is not configured: pgimbal asks the nodes.
    pub struct NodeConfig {
        /// Host name, IP address, or the directory of a Unix socket.
        "host" host: Host as HostName = "localhost", applied, try "db.example";
        /// The server's port.
        "port" port: u16 as Port = "5432", applied, try "5433";
        /// Whether it may ever be written to: `false` for a disaster-recovery or drill node.
        "candidate" candidate: bool as Flag = "true", applied, try "false";
        /// Its share of the reads beside the other replicas': 2 is twice as much as 1.
        "weight" weight: u32 as Positive = "1", applied, try "3";
        /// The zone that it stands in, by a name of your own; see the option `zone` of pgimbal.
        "zone" zone: Option<String> as Maybe<NonEmpty> = "", applied, try "eu-1a";
    }
}

/// The cluster that the servers of a pool belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedCluster {
    /// The cluster's name in `[clusters]`.
    pub name: String,
    /// The cluster's options as they were when the pool was resolved; a reload makes new ones.
    pub config: Arc<ClusterConfig>,
}
