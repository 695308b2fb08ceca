//! `pgimbal check`: does what the configuration says work, seen from here?

mod clusters;
mod expiry;
mod logins;
mod passwords;

use std::process::ExitCode;

use pgimbal_config::{Config, WILDCARD};

use crate::descriptors::{self, Needed};
use crate::topology;
use expiry::Witnesses;
use logins::Logins;
use passwords::Passwords;

/// Asks every Vault and every other source of a password, tries every database with every user that
/// it would be opened for at each of its servers, and says in a line each what works and what to
/// fix. Exit code 0 when everything works, 1 otherwise.
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
    // A warning and no failure: the service may have another limit than whoever asks.
    let files = descriptors::raise();
    match Needed::by(config).warning(files) {
        None => println!("open files: ok"),
        Some(warning) => println!("open files: {warning}"),
    }
    if runtime.block_on(try_all(config)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether every attempt succeeded.
async fn try_all(config: &Config) -> bool {
    let mut clusters = match topology::specs(config) {
        Ok(clusters) => clusters,
        Err(error) => {
            println!("clusters: {error}");
            return false;
        }
    };
    let passwords = Passwords::ask(config).await;
    for cluster in &mut clusters {
        let told = passwords.of(&cluster.user).cloned();
        cluster.password = cluster.password.take().or(told);
    }
    let mut logins = Logins {
        config,
        clusters: &clusters,
        passwords: &passwords,
        witnesses: Witnesses::default(),
        refused: Vec::new(),
    };
    let mut all_well = passwords.all_well;
    for (database, settings) in &config.databases {
        if database == WILDCARD && settings.dbname.is_none() {
            println!("database *: stands for names that clients choose; not tried");
            continue;
        }
        let users: Vec<&str> = match &settings.user {
            Some(user) => vec![user],
            None => config.users.keys().map(String::as_str).filter(|u| *u != WILDCARD).collect(),
        };
        if users.is_empty() {
            println!("database {database}: no user is configured; not tried");
        }
        for user in users {
            // A user of the console need not be one of the servers.
            let only_console =
                config.admin_users.iter().chain(&config.stats_users).any(|u| u == user);
            all_well &= logins.try_one(database, user).await || only_console;
        }
    }
    logins.explain_refusals().await;
    all_well & clusters::try_all(&clusters).await
}
