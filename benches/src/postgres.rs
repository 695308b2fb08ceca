//! The throwaway PostgreSQL behind all targets, with pgbench's tables.

use crate::pgbench;
use pgimbal_tests::Postgres;
use pgimbal_tests::postgres::PASSWORD_SUFFIX;

/// The role of every client and pooler; PostgreSQL lets it in without a password (trust).
pub const ROLE: &str = "app";
/// The role that PostgreSQL asks for a password with SCRAM-SHA-256.
pub const SCRAM_ROLE: &str = "scram";
/// The role whose password rotates.
pub const ROTATING_ROLE: &str = "shop";
/// The database with pgbench's tables.
pub const DATABASE: &str = "app";

/// Durability is off because it is not what is measured; the rest keeps the server out of the way.
const SETTINGS: [&str; 9] = [
    "max_connections=600",
    "shared_buffers=256MB",
    "max_wal_size=1GB",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "log_connections=off",
    "jit=off",
];

/// Starts a server without durability, with pgbench's tables and the rotating role. It ends when
/// the result is dropped.
///
/// # Panics
/// When PostgreSQL is not installed or a step fails.
#[must_use]
pub fn start() -> Postgres {
    let postgres = Postgres::with(&SETTINGS);
    pgbench::fill(postgres.port);
    postgres.run(&format!(
        "grant all on all tables in schema public to {ROLE}; create role {ROTATING_ROLE} login"
    ));
    postgres.run("checkpoint");
    postgres
}

/// The password that `role` has at first on the throwaway servers.
#[must_use]
pub fn password(role: &str) -> String {
    format!("{role}{PASSWORD_SUFFIX}")
}
