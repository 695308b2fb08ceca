//! What every contender is told, so that the comparison is one of like with like.

use crate::postgres::{DATABASE, Postgres, ROLE};

/// Server connections that a pooler may open.
pub const POOL_SIZE: u32 = 20;
/// Clients that a pooler must let in: 10,000 idle ones and some more.
pub const MAX_CLIENTS: u32 = 12_000;
/// Open files that a pooler and the load need for that.
pub const OPEN_FILES: u64 = 12_500;

/// How clients prove who they are to the pooler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Not at all.
    Trust,
    /// SCRAM-SHA-256 against a verifier that the pooler holds.
    Scram,
}

/// `pgbouncer.ini`. `pkt_buf` keeps its default of 4,096 bytes.
#[must_use]
pub fn pgbouncer(postgres: &Postgres, login: Login, port: u16, users: &str) -> String {
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
default_pool_size = {POOL_SIZE}
max_client_conn = {MAX_CLIENTS}
max_prepared_statements = 200
log_connections = 0
log_disconnections = 0
admin_users = {ROLE}
",
        server = postgres.port,
    )
}

/// PgBouncer's `auth_file`: with a verifier, not a password, no login stretches a key.
#[must_use]
pub fn pgbouncer_users(postgres: &Postgres) -> String {
    format!("\"{ROLE}\" \"{}\"\n", postgres.verifier)
}

/// `pgimbal.toml`.
#[must_use]
pub fn pgimbal(postgres: &Postgres, login: Login, port: u16) -> String {
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
pool_size = {POOL_SIZE}

[databases.{DATABASE}]
host = \"127.0.0.1\"
port = {server}

[users.{ROLE}]
password = \"{verifier}\"
",
        server = postgres.port,
        verifier = postgres.verifier,
    )
}
