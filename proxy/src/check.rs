//! `pgimbal check`: does what the configuration says work, seen from here?

mod clusters;
mod credentials;

use std::process::ExitCode;
use std::sync::Arc;

use pgimbal_config::{Config, WILDCARD};

use self::credentials::Passwords;
use crate::dial::{self, Target};
use crate::tls::TlsConnector;

/// Tries every database with every user that it would be opened for, and says in a line each what
/// works and what to fix. Exit code 0 when everything works, 1 otherwise.
#[must_use]
pub fn run(config: &Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("pgimbal: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("configuration: ok");
    if runtime.block_on(try_all(config)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether every attempt succeeded.
async fn try_all(config: &Config) -> bool {
    let passwords = credentials::ask_all(config).await;
    let mut all_well = passwords.all_well;
    for (database, settings) in &config.databases {
        if database == WILDCARD && settings.dbname.is_none() {
            println!("database *: stands for names that clients choose; not tried");
            continue;
        }
        let users: Vec<&str> = match &settings.user {
            Some(user) => vec![user],
            None => config.users.keys().map(String::as_str).collect(),
        };
        if users.is_empty() {
            println!("database {database}: no user is configured; not tried");
        }
        for user in users {
            // A user of the console need not be one of the servers.
            let only_console =
                config.admin_users.iter().chain(&config.stats_users).any(|u| u == user);
            all_well &= try_one(config, &passwords, database, user).await || only_console;
        }
    }
    all_well & clusters::try_all(config).await
}

async fn try_one(config: &Config, passwords: &Passwords, database: &str, user: &str) -> bool {
    // With a forced role any listed user leads to the same connection.
    let client =
        config.users.keys().find(|name| *name == user).or_else(|| config.users.keys().next());
    let pool = config.pool(database, client.map_or(user, String::as_str));
    let Some(pool) = pool else {
        println!("database {database}, user {user}: no user may use it; list one under [users]");
        return false;
    };
    let place =
        format!("database {database}, user {}, server {}:{}", pool.user, pool.host, pool.port);
    let connector = match TlsConnector::new(&pool.tls) {
        Ok(connector) => Arc::new(connector),
        Err(error) => {
            println!("{place}: {error}");
            return false;
        }
    };
    let mut target = Target::new(&pool, connector, config.clients.tcp.clone());
    if let Some(role) = target.role.take() {
        let Some(password) = passwords.of(&role) else {
            println!("{place}: not tried, the password of user \"{role}\" is not known");
            return false;
        };
        target.password = Some(password.clone());
    }
    match Box::pin(dial::dial(&target)).await {
        Ok(dialed) => {
            let version = dialed.parameters.iter().find(|(name, _)| **name == *b"server_version");
            let version =
                version.map_or_else(String::new, |(_, v)| String::from_utf8_lossy(v).into_owned());
            let tls = if dialed.transport.is_tls() { "with TLS" } else { "without TLS" };
            println!("{place}: ok (PostgreSQL {version}, {tls})");
            true
        }
        Err(error) => {
            println!("{place}: {error} (SQLSTATE {})", error.sqlstate().as_str());
            if let Some(hint) = error.hint() {
                println!("    {hint}");
            }
            false
        }
    }
}
