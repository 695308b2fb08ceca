//! Each password at each server of its databases.

use std::sync::Arc;

use pgimbal_config::{Config, Host, ResolvedPool, ServerPassword};
use pgimbal_wire::error::SqlState;

use super::expiry::{Expiry, Witnesses};
use super::passwords::Passwords;
use crate::dial::{self, DialError, Dialed, Target};
use crate::tls::TlsConnector;
use crate::topology::ClusterSpec;

/// A login to try: where, and how it is called in a line.
struct Attempt {
    place: String,
    target: Target,
}

/// What the logins need to know.
pub(super) struct Logins<'a> {
    pub(super) config: &'a Config,
    pub(super) clusters: &'a [ClusterSpec],
    pub(super) passwords: &'a Passwords,
    /// Connections that can say why another role was refused.
    pub(super) witnesses: Witnesses,
    /// Roles that were refused for their password.
    pub(super) refused: Vec<(String, Target)>,
}

impl Logins<'_> {
    /// Tries the login that serves `user` on `database`, at each of its nodes.
    pub(super) async fn try_one(&mut self, database: &str, user: &str) -> bool {
        // With a forced role any listed user leads to the same connection.
        let users = &self.config.users;
        let client = users.keys().find(|name| *name == user).or_else(|| users.keys().next());
        let Some(pool) = self.config.pool(database, client.map_or(user, String::as_str)) else {
            println!(
                "database {database}, user {user}: no user may use it; list one under [users]"
            );
            return false;
        };
        let whom = format!("database {database}, user {}", pool.user);
        let attempts = match self.attempts(&whom, &pool).await {
            Ok(attempts) => attempts,
            Err(line) => {
                println!("{line}");
                return false;
            }
        };
        let mut all_well = true;
        for attempt in attempts {
            all_well &= self.try_login(&pool, attempt).await;
        }
        all_well
    }

    async fn attempts(&self, whom: &str, pool: &ResolvedPool) -> Result<Vec<Attempt>, String> {
        let connector = TlsConnector::new(&pool.tls)
            .map_err(|error| format!("{whom}, server {}:{}: {error}", pool.host, pool.port))?;
        let tcp = self.config.clients.tcp.clone();
        let mut target = Target::new(pool, Arc::new(connector), tcp);
        if let ServerPassword::Role(role) = &pool.login {
            let Some(password) = self.passwords.of(role) else {
                return Err(format!("{whom}: not tried, its password is not known (see above)"));
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
            Some(spec) => {
                spec.nodes().await.map_err(|why| format!("{whom}, cluster {}: {why}", spec.name))?
            }
            None => return Err(format!("{whom}, cluster {}: it is not known", cluster.name)),
        };
        let attempt = |node: pgimbal_pooler::topology::NodeSpec| Attempt {
            place: format!("{whom}, node {} ({}:{})", node.name, node.host, node.port),
            target: target.at(node.host, node.port),
        };
        Ok(nodes.into_iter().map(attempt).collect())
    }

    async fn try_login(&mut self, pool: &ResolvedPool, attempt: Attempt) -> bool {
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
            Ok(dialed) => {
                println!("{place}: ok ({})", welcome(&dialed));
                if let Some(cause) = &dialed.tls_given_up {
                    println!(
                        "    warning: the server offers TLS, and it is given up for plain text, as \
                         sslmode \"prefer\" allows: {cause}"
                    );
                }
                self.witnesses.add(target.host, target.port, dialed);
                true
            }
            Err(error) => {
                println!("{place}: {}", error.with_sqlstate());
                if let Some(hint) = error.hint() {
                    println!("    {hint}");
                }
                if is_refusal(&error) {
                    if let ServerPassword::Role(role) = &pool.login
                        && let Some(advice) = self.passwords.advice(role)
                    {
                        println!("    {advice}");
                    }
                    self.refused.push((place, target));
                }
                false
            }
        }
    }

    /// A server says the same of a wrong password and of one whose VALID UNTIL has passed. Somebody
    /// who is let in can tell them apart.
    pub(super) async fn explain_refusals(&mut self) {
        for (place, target) in std::mem::take(&mut self.refused) {
            let (host, role): (&Host, &str) = (&target.host, &target.user);
            match self.witnesses.ask(host, target.port, role).await {
                Expiry::Passed(when) => println!(
                    "{place}: the role's VALID UNTIL has passed ({when}); \
                     ALTER ROLE {role} VALID UNTIL 'infinity'"
                ),
                Expiry::NoRole => println!("{place}: the server has no role {role}"),
                Expiry::NotPassed | Expiry::Unknown => {}
            }
        }
    }
}

fn is_refusal(error: &DialError) -> bool {
    error.server_message().is_some()
        && matches!(error.sqlstate(), SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION)
}

fn welcome(dialed: &Dialed) -> String {
    let version = dialed.parameters.iter().find(|(name, _)| **name == *b"server_version");
    let version =
        version.map_or_else(String::new, |(_, v)| String::from_utf8_lossy(v).into_owned());
    let tls = if dialed.transport.is_tls() { "with TLS" } else { "without TLS" };
    format!("PostgreSQL {version}, {tls}")
}
