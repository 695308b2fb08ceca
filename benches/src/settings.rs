//! The configurations of all targets, so that like is compared with like.

use crate::postgres::{DATABASE, ROLE};
use pgimbal_tests::Postgres;

/// Number of server connections that a pooler may open.
pub const POOL_SIZE: u32 = 20;
/// Number of clients that a pooler must let in: 10,000 idle ones and some more.
pub const MAX_CLIENTS: u32 = 12_000;
/// Number of open files that a pooler and the load need for [`MAX_CLIENTS`].
pub const OPEN_FILES: u64 = 12_500;

/// How clients log in to the pooler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Without a password (trust).
    Trust,
    /// With SCRAM-SHA-256, against a verifier in the pooler's configuration.
    Scram,
}

/// The settings that one scenario needs to differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Number of server connections that a pooler may open.
    pub pool_size: u32,
    /// Number of prepared statements that the pooler keeps on each of them.
    pub statements: u32,
    /// pgimbal's option `verify`; no other pooler asks servers for the state of their sessions.
    pub verify: &'static str,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { pool_size: POOL_SIZE, statements: 200, verify: "text" }
    }
}

/// The text of `pgbouncer.ini`; `users` is the path of its `auth_file`. `pkt_buf` keeps its default
/// of 4,096 bytes.
#[must_use]
pub fn pgbouncer(
    postgres: &Postgres,
    login: Login,
    tuning: Tuning,
    port: u16,
    users: &str,
) -> String {
    let auth = match login {
        Login::Trust => "trust",
        Login::Scram => "scram-sha-256",
    };
    format!(
        "[databases]
{DATABASE} = host=127.0.0.1 port={server} dbname={DATABASE} user={ROLE}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = {auth}
auth_file = {users}
pool_mode = transaction
default_pool_size = {size}
max_client_conn = {MAX_CLIENTS}
max_prepared_statements = {statements}
log_connections = 0
log_disconnections = 0
admin_users = {ROLE}
",
        server = postgres.port,
        size = tuning.pool_size,
        statements = tuning.statements,
    )
}

/// The text of PgBouncer's `auth_file`: with a verifier instead of a password, no login stretches a
/// key.
#[must_use]
pub fn pgbouncer_users(postgres: &Postgres) -> String {
    format!("\"{ROLE}\" \"{}\"\n", postgres.verifier(ROLE))
}

/// The text of `pgimbal.toml`. Options at their default are left out, so that an older pgimbal can
/// be measured.
#[must_use]
pub fn pgimbal(postgres: &Postgres, login: Login, tuning: Tuning, port: u16) -> String {
    let usual = Tuning::default();
    let mut tuned = String::new();
    if tuning.pool_size != usual.pool_size {
        // Who cannot be served shall say so before the run ends.
        tuned.push_str("query_wait_timeout = \"1s\"\n");
    }
    if tuning.statements != usual.statements {
        tuned.push_str(&format!("max_prepared_statements = {}\n", tuning.statements));
    }
    if tuning.verify != usual.verify {
        tuned.push_str(&format!("verify = \"{}\"\n", tuning.verify));
    }
    let auth = match login {
        Login::Trust => "trust",
        Login::Scram => "scram-sha-256",
    };
    format!(
        "listen = \"127.0.0.1:{port}\"
max_client_conn = {MAX_CLIENTS}
auth_type = \"{auth}\"
admin_users = [\"{ROLE}\"]
pool_mode = \"transaction\"
pool_size = {size}
{tuned}
[databases.{DATABASE}]
host = \"127.0.0.1\"
port = {server}

[users.{ROLE}]
password = \"{verifier}\"
",
        size = tuning.pool_size,
        server = postgres.port,
        verifier = postgres.verifier(ROLE),
    )
}
