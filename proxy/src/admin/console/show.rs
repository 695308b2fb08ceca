//! The dispatch of SHOW, and its small tables.

use pgimbal_config::Config;
use pgimbal_wire::error::Severity;

use super::Console;
use super::answer::{Cell, Column, Notices, Row, int, notice, text};
use super::command::{HELP, Show};
use super::{budget, connections, credentials, nodes, options, peers, stats};
use crate::admin::collect::{Detail, Phase, Snapshot};

const HELP_COLUMNS: &[Column] = &[text("command"), text("meaning")];
const LISTS: &[Column] = &[text("list"), int("items")];
const VERSION: &[Column] = &[text("version")];
const DATABASES: &[Column] = &[
    text("name"),
    text("host"),
    int("port"),
    text("database"),
    text("force_user"),
    int("pool_size"),
    int("min_pool_size"),
    int("reserve_pool_size"),
    text("pool_mode"),
    int("max_connections"),
    int("current_connections"),
    int("current_client_connections"),
];
const USERS: &[Column] = &[
    text("name"),
    int("pool_size"),
    text("pool_mode"),
    int("max_user_connections"),
    int("current_connections"),
    int("current_client_connections"),
];

impl Show {
    /// The columns of the table.
    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Budget => budget::BUDGET,
            Self::Clients => connections::CLIENTS,
            Self::Config => options::CONFIG,
            Self::Credentials => credentials::CREDENTIALS,
            Self::Databases => DATABASES,
            Self::Failovers => nodes::FAILOVERS,
            Self::Help => HELP_COLUMNS,
            Self::Latencies => stats::LATENCIES,
            Self::Listeners => connections::LISTENERS,
            Self::Lists => LISTS,
            Self::Nodes => nodes::NODES,
            Self::Peers => peers::PEERS,
            Self::PgbouncerPeers => peers::PGBOUNCER_PEERS,
            Self::Pools => stats::POOLS,
            Self::Questions => stats::QUESTIONS,
            Self::Servers => connections::SERVERS,
            Self::Stats => stats::STATS,
            Self::StatsTotals => stats::TOTALS,
            Self::Users => USERS,
            Self::Version => VERSION,
        }
    }

    const fn detail(self) -> Detail {
        match self {
            Self::Clients | Self::Listeners | Self::Servers => Detail::Everything,
            _ => Detail::Totals,
        }
    }
}

impl Console {
    /// The rows of `table`. A warning goes to `out` when a worker did not answer.
    pub(super) async fn show(&self, table: Show, out: &mut Notices) -> Vec<Row> {
        let config = self.config.borrow().clone();
        match table {
            Show::Budget => return budget::rows(&self.collector.budgets().status()),
            Show::Config => return options::config(&config),
            Show::Credentials => {
                return credentials::rows(&self.collector.credentials().status().await);
            }
            Show::Failovers => return nodes::failovers(&self.collector.clusters().status().await),
            Show::Peers => {
                let ready = self.collector.process().phase() == Phase::Serving;
                return peers::peers(self.collector.peers(), ready);
            }
            Show::PgbouncerPeers => return peers::pgbouncer_peers(self.collector.peers()),
            Show::Nodes => return nodes::nodes(&self.collector.clusters().status().await),
            Show::Help => {
                return HELP.iter().map(|(c, m)| vec![(*c).into(), (*m).into()]).collect();
            }
            Show::Version => {
                return vec![vec![concat!("pgimbal ", env!("CARGO_PKG_VERSION")).into()]];
            }
            _ => {}
        }
        let snapshot = self.collector.snapshot(table.detail()).await;
        if !snapshot.unresponsive.is_empty() {
            let workers: Vec<_> = snapshot.unresponsive.iter().map(ToString::to_string).collect();
            let text = format!(
                "no answer from worker {}: its pools are shown as they last were, its clients and \
                 server connections are missing",
                workers.join(", ")
            );
            notice(out, Severity::Warning, &text);
        }
        match table {
            Show::Clients => connections::clients(&snapshot),
            Show::Databases => databases(&snapshot, &config),
            Show::Latencies => stats::latencies(&snapshot),
            Show::Listeners => connections::listeners(&snapshot),
            Show::Lists => lists(&snapshot, &config),
            Show::Pools => stats::pools(&snapshot),
            Show::Questions => stats::questions(&snapshot),
            Show::Servers => connections::servers(&snapshot),
            Show::Stats => stats::stats(&snapshot, &self.averages),
            Show::StatsTotals => stats::totals(&snapshot),
            Show::Users => users(&snapshot, &config),
            Show::Budget
            | Show::Config
            | Show::Credentials
            | Show::Failovers
            | Show::Help
            | Show::Nodes
            | Show::Peers
            | Show::PgbouncerPeers
            | Show::Version => vec![],
        }
    }
}

fn lists(snapshot: &Snapshot, config: &Config) -> Vec<Row> {
    let pools = snapshot.pools();
    let sum = |count: fn(&pgimbal_pooler::pool::stats::PoolSnapshot) -> u32| -> Cell {
        pools.iter().map(|pool| u64::from(count(pool))).sum::<u64>().into()
    };
    let row = |name: &str, items: Cell| vec![name.into(), items];
    vec![
        row("databases", config.databases.len().into()),
        row("users", config.users.len().into()),
        row("pools", pools.len().into()),
        row("used_clients", snapshot.process.now.clients.into()),
        row("used_servers", sum(|p| p.servers_active + p.servers_idle + p.servers_leaving)),
        row("login_servers", sum(|p| p.servers_dialing)),
    ]
}

/// The databases of the configuration, as the file has them, with what is connected to each.
fn databases(snapshot: &Snapshot, config: &Config) -> Vec<Row> {
    let pools = snapshot.pools();
    let row = |(name, database): (&String, &pgimbal_config::DatabaseConfig)| {
        // The wildcard's line stands for all pools that no line of their own names.
        let mine = |served: &str| {
            served == name
                || (name == pgimbal_config::WILDCARD && !config.databases.contains_key(served))
        };
        let (clients, servers) = connected(pools.iter().filter(|pool| mine(&pool.database)));
        vec![
            name.as_str().into(),
            database.host.to_string().into(),
            u32::from(database.port).into(),
            database.dbname.as_deref().unwrap_or(name).into(),
            database.user.as_deref().into(),
            database.pool.size.into(),
            database.pool.min_size.into(),
            database.pool.reserve_size.into(),
            database.pool.mode.as_str().into(),
            database.max_db_connections.into(),
            servers.into(),
            clients.into(),
        ]
    };
    config.databases.iter().map(row).collect()
}

/// The users of the configuration, as the file has them.
fn users(snapshot: &Snapshot, config: &Config) -> Vec<Row> {
    let pools = snapshot.pools();
    let row = |(name, user): (&String, &pgimbal_config::UserConfig)| {
        let (clients, servers) = connected(pools.iter().filter(|pool| pool.user == *name));
        vec![
            name.as_str().into(),
            user.pool_size.into(),
            user.pool_mode.map(pgimbal_config::PoolMode::as_str).into(),
            user.max_user_connections.into(),
            servers.into(),
            clients.into(),
        ]
    };
    config.users.iter().map(row).collect()
}

/// Clients and server connections of these pools.
fn connected<'a>(
    pools: impl Iterator<Item = &'a pgimbal_pooler::pool::stats::PoolSnapshot>,
) -> (u64, u64) {
    pools.fold((0, 0), |(clients, servers), pool| {
        let mine = pool.clients_active + pool.clients_waiting + pool.clients_idle;
        let open = pool.servers_active + pool.servers_idle + pool.servers_leaving;
        (clients + u64::from(mine), servers + u64::from(open))
    })
}
