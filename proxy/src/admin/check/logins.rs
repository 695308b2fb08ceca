//! The check of logins: each password at each server of its databases.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgimbal_config::{Config, Host, ResolvedPool, ServerPassword, WILDCARD};
use pgimbal_wire::error::SqlState;

use super::capacity::Load;
use super::expiry::{Expiry, OpenConnections};
use super::findings::Findings;
use super::passwords::Passwords;
use crate::dial::{self, DialError, Dialed, Target};
use crate::tls::{PLAIN_FIRST, TlsConnector};
use crate::topology::ClusterSpec;

/// A login to try: its name in the findings, and its server and role.
struct Attempt {
    place: String,
    target: Target,
}

/// The state of the login checks.
pub(super) struct Logins<'a> {
    pub(super) config: &'a Config,
    pub(super) clusters: &'a [ClusterSpec],
    pub(super) passwords: &'a Passwords,
    pub(super) report: &'a Findings,
    /// Connections that can say why another role was refused.
    pub(super) open_connections: OpenConnections,
    /// Roles that were refused for their password.
    pub(super) refused: Vec<(String, Target)>,
    /// The server connections that the pools may open at each server.
    pub(super) load: Load,
    /// The users of the console, with whether any server has let them in.
    pub(super) of_console: BTreeMap<String, bool>,
}

/// The failures that a login may have without being a finding.
#[derive(Clone, Copy)]
pub(super) struct Tolerated {
    /// The database is any that clients could name: there need not be one of this name.
    pub(super) unknown_database: bool,
    /// The user is one of the console, and need not be known to servers.
    pub(super) console_user: bool,
}

impl Logins<'_> {
    /// Tries the login that serves `user` on `database`, at each of its nodes.
    pub(super) async fn try_one(&mut self, database: &str, user: &str, tolerated: Tolerated) {
        // With a forced role any listed user leads to the same connection.
        let any = || self.config.users.keys().map(String::as_str).find(|name| *name != WILDCARD);
        let forced = self.config.database(database).is_some_and(|entry| entry.user.is_some());
        let known = self.config.user(user).is_some();
        let client = if forced && !known { any().unwrap_or(user) } else { user };
        let Some(pool) = self.config.pool(database, client) else {
            let text = "no user may use it; list one under [users]";
            return self.report.fail(format!("database {database}, user {user}"), text);
        };
        let whom = format!("database {database}, user {}", pool.user);
        let attempts = match self.attempts(&whom, &pool).await {
            Ok(attempts) => attempts,
            Err((place, text)) => return self.report.fail(place, text),
        };
        for attempt in attempts {
            let Target { host, port, .. } = &attempt.target;
            self.load.add(host, *port, database, &pool);
            self.try_login(&pool, attempt, tolerated).await;
        }
    }

    /// The logins to try; else what could not be tried, and why.
    async fn attempts(
        &self,
        whom: &str,
        pool: &ResolvedPool,
    ) -> Result<Vec<Attempt>, (String, String)> {
        let at = |place: String| move |why: String| (format!("{whom}, {place}"), why);
        let connector = TlsConnector::new(&pool.tls).map_err(|error| {
            at(format!("server {}:{}", pool.host, pool.port))(error.to_string())
        })?;
        let tcp = self.config.clients.tcp.clone();
        let mut target = Target::new(pool, Arc::new(connector), tcp);
        if let ServerPassword::Role(role) = &pool.login {
            let Some(password) = self.passwords.of(role) else {
                let text = "not tried, its password is not known (see above)";
                return Err((whom.to_owned(), text.to_owned()));
            };
            target.password = Some(password.clone());
            target.role = None;
        }
        let Some(cluster) = &pool.cluster else {
            let place = format!("{whom}, server {}:{}", pool.host, pool.port);
            return Ok(vec![Attempt { place, target }]);
        };
        let spec = self.clusters.iter().find(|spec| *spec.name == *cluster.name);
        let nodes = match spec {
            Some(spec) => spec.nodes().await.map_err(at(format!("cluster {}", spec.name)))?,
            None => {
                let place = format!("{whom}, cluster {}", cluster.name);
                return Err((place, "it is not known".to_owned()));
            }
        };
        let attempt = |node: pgimbal_pooler::topology::NodeSpec| Attempt {
            place: format!("{whom}, node {} ({}:{})", node.name, node.host, node.port),
            target: target.at(node.host, node.port),
        };
        Ok(nodes.into_iter().map(attempt).collect())
    }

    async fn try_login(&mut self, pool: &ResolvedPool, attempt: Attempt, tolerated: Tolerated) {
        let Attempt { place, mut target } = attempt;
        let mut outcome = Box::pin(dial::dial(&target)).await;
        if let ServerPassword::Role(role) = &pool.login
            && outcome.as_ref().is_err_and(is_refusal)
            && let Some(newer) = self.passwords.newer(role).await
        {
            target.password = Some(newer);
            outcome = Box::pin(dial::dial(&target)).await;
        }
        match outcome {
            Ok(mut dialed) => {
                if tolerated.console_user {
                    self.of_console.insert(pool.user.clone(), true);
                }
                if let Some(cause) = &dialed.tls_fallback {
                    let text = format!(
                        "the server offers TLS, and it is given up for plain text, as sslmode \
                         \"prefer\" allows: {cause}"
                    );
                    self.report.warn(place.clone(), text);
                }
                // One that ends otherwise has no answer.
                if let Some(answer) = dialed.tls_check.take()
                    && answer.await.is_ok_and(|offers| offers)
                {
                    self.report.warn(place.clone(), format!("the server {PLAIN_FIRST}"));
                }
                self.report.ok(place, format!("ok ({})", welcome(&dialed)));
                self.open_connections.add(target.host, target.port, dialed);
            }
            Err(error) if tolerated.console_user && error.server_message().is_some() => {
                self.of_console.entry(pool.user.clone()).or_insert(false);
            }
            Err(error) if tolerated.unknown_database && is_about_the_database(&error) => {
                let text = "the server answers, and does not open this database to this user; \
                            --database tries another";
                self.report.note(place, text);
            }
            Err(error) => {
                let mut hint = error.hint().map(str::to_owned);
                if is_refusal(&error) {
                    if let ServerPassword::Role(role) = &pool.login
                        && let Some(advice) = self.passwords.advice(role)
                    {
                        hint = Some(advice.to_owned());
                    }
                    self.refused.push((place.clone(), target));
                }
                self.report.fail_with(&place, error.with_sqlstate(), hint);
            }
        }
    }

    /// A line for each user that only the console lets in, whatever the number of databases.
    pub(super) fn name_users_of_console(&self) {
        for (user, _) in self.of_console.iter().filter(|(_, is_let_in)| !**is_let_in) {
            let text = "a user of the console only: no server lets it in";
            self.report.note(format!("user {user}"), text);
        }
    }

    /// A server says the same of a wrong password and of one whose VALID UNTIL has passed. Somebody
    /// who is let in can tell them apart.
    pub(super) async fn explain_refusals(&mut self) {
        for (place, target) in std::mem::take(&mut self.refused) {
            let (host, role): (&Host, &str) = (&target.host, &target.user);
            match self.open_connections.ask(host, target.port, role).await {
                Expiry::Passed(when) => {
                    let text = format!(
                        "the role's VALID UNTIL has passed ({when}); \
                         ALTER ROLE {role} VALID UNTIL 'infinity'"
                    );
                    self.report.fail(place, text);
                }
                Expiry::NoRole => {
                    self.report.fail(place, format!("the server has no role {role}"));
                }
                Expiry::NotPassed | Expiry::Unknown => {}
            }
        }
    }
}

fn is_refusal(error: &DialError) -> bool {
    error.server_message().is_some()
        && matches!(error.sqlstate(), SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION)
}

/// The server knows who it is, and refuses the database: there is none, or it is not for this role.
fn is_about_the_database(error: &DialError) -> bool {
    error.server_message().is_some()
        && matches!(
            error.sqlstate(),
            SqlState::INVALID_CATALOG_NAME | SqlState::INSUFFICIENT_PRIVILEGE
        )
}

fn welcome(dialed: &Dialed) -> String {
    let version = dialed.parameters.iter().find(|(name, _)| **name == *b"server_version");
    let version =
        version.map_or_else(String::new, |(_, v)| String::from_utf8_lossy(v).into_owned());
    let tls = if dialed.transport.is_tls() { "with TLS" } else { "without TLS" };
    format!("PostgreSQL {version}, {tls}")
}
