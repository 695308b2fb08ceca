//! `pgimbal check`: whether the configuration works from this machine, without starting the proxy.

mod capacity;
mod clusters;
mod expiry;
mod findings;
mod listeners;
mod logins;
mod passwords;
mod risks;
mod store;

use std::collections::BTreeMap;
use std::process::ExitCode;

use pgimbal_config::{Config, WILDCARD};

use crate::topology;
use expiry::OpenConnections;
use findings::Findings;
use logins::Logins;
use passwords::Passwords;

pub use findings::{OutputFormat, refused, unusable};

/// The database with which `databases."*"` is tried when `--database` names none; nearly every
/// server has it.
const ANY_DATABASE: &str = "postgres";

/// The options of `pgimbal check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// `--user`: the only user to try, who may be one of the rule `users."*"`; `None` for all
    /// listed users.
    pub user: Option<String>,
    /// `--database`: the only database to try, which may be one of `databases."*"`; `None` for all
    /// databases.
    pub database: Option<String>,
    /// `--json`, or one line for each finding.
    pub format: OutputFormat,
}

/// Runs `pgimbal check`: binds each address, asks the store, every Vault and every other source of a
/// password, and logs in to each server of every database with every user of that database. Prints each
/// finding to standard output.
///
/// The exit code is 0 when everything works, 3 when there are warnings only, and 1 when something
/// fails that clients would meet. Nothing is written to `state_dir`, and no client is served; an
/// address that a running pgimbal holds is no failure.
#[must_use]
pub fn run(config: &Config, options: &CheckOptions) -> ExitCode {
    let report = Findings::new(options.format);
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            report.ok("configuration", "ok");
            runtime.block_on(try_all(config, options, &report));
        }
        Err(error) => report.fail("pgimbal", format!("cannot start: {error}")),
    }
    report.end()
}

async fn try_all(config: &Config, options: &CheckOptions, report: &Findings) {
    listeners::try_all(config, report);
    capacity::descriptors(config, report);
    let mut clusters = match topology::specs(config) {
        Ok(clusters) => clusters,
        Err(error) => return report.fail("clusters", error.to_string()),
    };
    risks::certificates(config, report);
    risks::warn(config, report);
    store::try_all(config, report).await;
    let users = users(config, options);
    let passwords = Passwords::ask(config, &users, report).await;
    for cluster in &mut clusters {
        let told = passwords.of(&cluster.user).cloned();
        cluster.password = cluster.password.take().or(told);
    }
    let mut logins = Logins {
        config,
        clusters: &clusters,
        passwords: &passwords,
        report,
        open_connections: OpenConnections::default(),
        refused: Vec::new(),
        load: capacity::Load::new(config.max_replicas),
        of_console: BTreeMap::new(),
    };
    for (name, database) in databases(config, options, report) {
        let any = options.database.is_none() && !config.databases.contains_key(&name);
        try_database(config, &name, database, &users, any, &mut logins).await;
    }
    logins.name_users_of_console();
    logins.explain_refusals().await;
    let Logins { mut open_connections, load, .. } = logins;
    load.check(&mut open_connections, report).await;
    clusters::try_all(&clusters, report).await;
}

/// The users to try: those that are listed, or the one that is wanted.
fn users(config: &Config, options: &CheckOptions) -> Vec<String> {
    match &options.user {
        Some(user) => vec![user.clone()],
        None => config.users.keys().filter(|name| *name != WILDCARD).cloned().collect(),
    }
}

/// The databases to try, by the names of clients.
fn databases<'a>(
    config: &'a Config,
    options: &CheckOptions,
    report: &Findings,
) -> Vec<(String, &'a pgimbal_config::DatabaseConfig)> {
    let Some(wanted) = &options.database else {
        let named = |name: &String| match name == WILDCARD {
            true => ANY_DATABASE.to_owned(),
            false => name.clone(),
        };
        return config.databases.iter().map(|(name, database)| (named(name), database)).collect();
    };
    match config.database(wanted) {
        Some(database) => vec![(wanted.clone(), database)],
        None => {
            report.fail(format!("database {wanted}"), "no entry of [databases] stands for it");
            Vec::new()
        }
    }
}

/// Tries the logins of one database. `any` says that `name` is only an example of the names that
/// clients could choose.
async fn try_database(
    config: &Config,
    name: &str,
    database: &pgimbal_config::DatabaseConfig,
    users: &[String],
    any: bool,
    logins: &mut Logins<'_>,
) {
    let report = logins.report;
    let users: Vec<&str> = match &database.user {
        Some(user) => vec![user],
        None => users.iter().map(String::as_str).collect(),
    };
    if users.is_empty() {
        let text = "no user is listed; not tried: --user tries one of a rule";
        report.note(format!("database {name}"), text);
    }
    for user in users {
        // A user of the console need not be one of the servers.
        let of_console = config.admin_users.iter().chain(&config.stats_users).any(|u| u == user);
        let tolerated = logins::Tolerated { unknown_database: any, console_user: of_console };
        logins.try_one(name, user, tolerated).await;
    }
}
