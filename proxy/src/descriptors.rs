//! File descriptors: how many the process may open, how many it needs, and how the limit of clients
//! is lowered when they do not suffice.
//!
//! Each connection takes one. The descriptors for servers, HTTP and files are reserved, because a
//! client that is refused is better than a client that is accepted and then fails.

use pgimbal_config::{Config, WILDCARD};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::pending_logins::PendingLoginLimits;

/// Descriptors reserved for HTTP connections; the limit of `admin/http.rs`.
const FOR_HTTP: u64 = 64;

/// Descriptors reserved for the log, listeners, probes of clusters, sources of passwords,
/// configuration and state files, and cancel requests.
const FOR_FILES: u64 = 64;

/// Descriptors reserved for each worker's runtime.
const FOR_A_WORKER: u64 = 4;

/// Divisor of the limit that clients have at least, however many servers are configured: a half.
const LEAST_PART: u64 = 2;

/// Divisor of the clients' part that is for clients that have not logged in, when there is not
/// enough for all: a quarter.
const LOGIN_PART: u64 = 4;

/// Raises the soft limit of open files (`RLIMIT_NOFILE`) to the hard limit, and returns the limit
/// in force; `u64::MAX` for no limit. Soft limits are low for programs that use `select`, which
/// pgimbal does not.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Only what the administrator has allowed; if even that is refused, the old one holds.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The number of file descriptors that a configuration may need, by purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    clients: u64,
    logging_in: u64,
    servers: u64,
    others: u64,
}

/// The limits of clients that fit the file descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Limit of logged-in clients: `max_client_conn`, or fewer.
    pub max_client_conn: u32,
    /// Limits of clients that have not logged in: `max_login_conn` and
    /// `max_login_conn_per_address`, or fewer.
    pub logging_in: PendingLoginLimits,
    /// Whether a limit is lower than configured.
    pub is_short: bool,
}

impl Requirement {
    /// The descriptors that `config` needs when every client and server connection that it allows
    /// is open. Databases and users that a `*` stands for are counted once each.
    #[must_use]
    pub fn by(config: &Config) -> Self {
        let clients = &config.clients;
        let workers = config.workers as u64 * FOR_A_WORKER;
        Self {
            clients: u64::from(clients.max_client_conn),
            logging_in: u64::from(clients.login_conn()),
            servers: servers(config),
            others: FOR_HTTP + FOR_FILES + workers,
        }
    }

    /// The number of descriptors for all purposes.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.clients + self.logging_in + self.servers + self.others
    }

    /// The warning for the operator, with the need of each purpose, when `limit` descriptors do not
    /// suffice; `None` when they do, an equal number included. The caller logs or prints it.
    #[must_use]
    pub fn warning(&self, limit: u64) -> Option<String> {
        (self.total() > limit).then(|| {
            format!(
                "{limit} open files are allowed, and up to {} may be needed: {} for \
                 max_client_conn, {} for max_login_conn, {} for the pools' server connections, {} \
                 for everything else; raise the hard limit (ulimit -Hn, LimitNOFILE of systemd), or \
                 lower max_client_conn",
                self.total(),
                self.clients,
                self.logging_in,
                self.servers,
                self.others
            )
        })
    }

    /// The limits of clients that fit `limit` descriptors beside everything else: the configured
    /// ones when all fit. Otherwise clients get what servers, HTTP and files leave, but at least
    /// half of `limit`; at most a quarter of that is for clients that have not logged in.
    #[must_use]
    pub fn fit(&self, config: &Config, limit: u64) -> ClientLimits {
        let wanted = PendingLoginLimits::from(&config.clients);
        if self.total() <= limit {
            return ClientLimits {
                max_client_conn: config.clients.max_client_conn,
                logging_in: wanted,
                is_short: false,
            };
        }
        let kept_back = self.servers + self.others;
        let room = limit.saturating_sub(kept_back).max(limit / LEAST_PART).max(LOGIN_PART);
        let logging_in = self.logging_in.min(room / LOGIN_PART);
        let clients = self.clients.min(room - logging_in);
        let share = |wanted: usize| wanted.min(logging_in as usize);
        ClientLimits {
            max_client_conn: u32::try_from(clients).unwrap_or(u32::MAX),
            logging_in: PendingLoginLimits {
                all: share(wanted.all),
                one_address: share(wanted.one_address),
            },
            is_short: true,
        }
    }
}

/// The limits of clients of `config` that fit `limit` descriptors. Logs a warning when they are
/// lower than configured.
#[must_use]
pub fn limit_clients(config: &Config, limit: u64) -> ClientLimits {
    let requirement = Requirement::by(config);
    if let Some(warning) = requirement.warning(limit) {
        tracing::warn!("{warning}");
    }
    requirement.fit(config, limit)
}

/// Server connections that all pools together may open.
fn servers(config: &Config) -> u64 {
    let of_database = |name: &String| -> u64 {
        let database = &config.databases[name];
        let size = |user: &str| {
            config.pool(name, user).map_or(0, |pool| {
                // Writes have a pool, and in a cluster reads may have one of their own.
                let places = if pool.cluster.is_some() { 2 } else { 1 };
                places * (u64::from(pool.pool.size) + u64::from(pool.pool.reserve_size))
            })
        };
        let all: u64 = config.users.keys().filter(|user| *user != WILDCARD).map(|u| size(u)).sum();
        let any = u64::from(database.pool.size) + u64::from(database.pool.reserve_size);
        let limit = database.max_db_connections.map_or(u64::MAX, u64::from);
        all.max(any).min(limit)
    };
    config.databases.keys().map(of_database).sum()
}

#[cfg(test)]
mod tests {
    use pgimbal_config::{DatabaseConfig, UserConfig};

    use super::*;

    fn config(max_client_conn: u32) -> Config {
        let mut config = Config { workers: 2, ..Config::default() };
        config.clients.max_client_conn = max_client_conn;
        config.databases.insert("app".into(), DatabaseConfig::default());
        config.users.insert("ann".into(), UserConfig::default());
        config.users.insert("bob".into(), UserConfig::default());
        config
    }

    #[test]
    fn what_fits_is_left_alone() {
        let config = config(1000);
        let requirement = Requirement::by(&config);
        assert_eq!(requirement.servers, 40);
        let limit = 1000 + 1000 + 40 + FOR_HTTP + FOR_FILES + 2 * FOR_A_WORKER;
        assert_eq!(requirement.total(), limit);
        assert!(requirement.warning(limit).is_none());
        let limits = requirement.fit(&config, limit);
        assert_eq!((limits.max_client_conn, limits.is_short), (1000, false));
        assert_eq!(limits.logging_in, PendingLoginLimits { all: 1000, one_address: 500 });
    }

    #[test]
    fn clients_get_what_the_others_leave() {
        let config = config(5000);
        let requirement = Requirement::by(&config);
        let said = requirement.warning(1024).unwrap();
        assert!(said.contains("1024") && said.contains("max_client_conn"), "{said}");
        let limits = requirement.fit(&config, 1024);
        let taken = u64::from(limits.max_client_conn) + limits.logging_in.all as u64;
        assert!(limits.is_short);
        assert_eq!(taken + requirement.servers + requirement.others, 1024);
        assert_eq!(limits.logging_in.all as u64, taken / LOGIN_PART);
    }

    #[test]
    fn with_next_to_nothing_some_clients_are_served() {
        let config = config(1000);
        let limits = Requirement::by(&config).fit(&config, 48);
        assert_eq!((limits.max_client_conn, limits.logging_in.all), (18, 6));
        let none = Requirement::by(&config).fit(&config, 0);
        assert_eq!((none.max_client_conn, none.logging_in.all), (3, 1));
    }

    #[test]
    fn limits_of_databases_count() {
        let mut config = config(5);
        config.databases.get_mut("app").unwrap().max_db_connections = Some(7);
        assert_eq!(Requirement::by(&config).servers, 7);
    }
}
