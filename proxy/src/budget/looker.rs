//! Looks at the processes of a server: whose connections are there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::{Config, Host, WILDCARD};
use pgimbal_pooler::pool::budget::ConnectionBudget;
use pgimbal_wire::error::SqlState;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::limits;
use super::replicas::Inner;
use crate::credentials::CredentialManager;
use crate::dial::{DialError, DialFault, Target};
use crate::directory::PoolDirectory;
use crate::topology::{PROBER, cluster_target, probe};
use crate::transport::Conversation;

/// How often a server is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Time limit of a look on an open connection.
const LOOK_TIME: Duration = Duration::from_secs(2);

/// How many roles and databases are tried in turn at a server that lets some not in: each costs a
/// login in a second, and perhaps a password of its source.
const MAX_TRIED: usize = 16;

/// The application name of the connections that look.
const NAME: &str = "pgimbal-budget";

/// What lookers need to log in anywhere.
#[derive(Clone, Debug)]
pub(super) struct Looker {
    config: watch::Receiver<Arc<Config>>,
    directory: Arc<PoolDirectory>,
    credentials: CredentialManager,
}

impl Looker {
    pub(super) const fn new(
        config: watch::Receiver<Arc<Config>>,
        directory: Arc<PoolDirectory>,
        credentials: CredentialManager,
    ) -> Self {
        Self { config, directory, credentials }
    }

    /// How to log in at a server, with the query that lists its processes; `None` where the
    /// configuration names no role for it. `refused` says how many logins the server has
    /// refused so far.
    fn target(&self, server: &str, refused: usize) -> Option<(Target, Question)> {
        let config = Arc::clone(&self.config.borrow());
        let is_it = |host: &Host, port: u16| format!("{host}:{port}") == server;
        let of_cluster = std::iter::once_with(|| cluster_target(&config, server)).flatten();
        let pools = config.databases.iter().filter(|(name, database)| {
            *name != WILDCARD && database.cluster.is_none() && is_it(&database.host, database.port)
        });
        let users: Vec<&String> = config.users.keys().filter(|name| *name != WILDCARD).collect();
        let of_pools = pools
            .flat_map(|(name, _)| users.iter().map(move |user| (name, user)))
            .filter_map(|(name, user)| self.directory.target(name, user))
            .map(|(_, target)| target);
        let target = in_turn(of_cluster.chain(of_pools), refused)?;
        let options = Some(format!("-c application_name={NAME}").into());
        Some((Target { options, ..target }, Question::of(&config)))
    }
}

/// The one of the first [`MAX_TRIED`] whose turn it is after so many refusals.
fn in_turn<T>(mut all: impl Iterator<Item = T>, refused: usize) -> Option<T> {
    if refused == 0 {
        return all.next();
    }
    let mut tried: Vec<T> = all.take(MAX_TRIED).collect();
    let turn = refused.checked_rem(tried.len())?;
    Some(tried.swap_remove(turn))
}

/// Whether another role, or another database, may be let in where this one was not.
fn is_refusal(error: &DialError) -> bool {
    match error.fault() {
        DialFault::Server(_) => !matches!(
            error.sqlstate(),
            SqlState::CANNOT_CONNECT_NOW | SqlState::TOO_MANY_CONNECTIONS
        ),
        DialFault::Login(_)
        | DialFault::UnknownPassword { .. }
        | DialFault::NoPasswordWorks { .. } => true,
        _ => false,
    }
}

/// What is asked of a server.
struct Question {
    /// The query for the processes, and for those of probers.
    sql: String,
    /// How many probers there can be.
    probers: usize,
}

/// The processes that a server shows.
struct Seen {
    processes: BTreeSet<u32>,
    /// Those that call themselves probers, of a role that probes.
    probers: BTreeSet<u32>,
}

impl Question {
    /// Probers are claimed by nobody: their place is reserved. But anybody can call a connection
    /// so, and hide it. Parallel workers and background jobs have the role of whom they work for,
    /// and are nobody's connections; whose kind is not shown, for want of a privilege, counts.
    fn of(config: &Config) -> Self {
        let roles = config.clusters.values().filter_map(|cluster| cluster.probe_user.as_deref());
        let probes = match quoted(roles.collect()) {
            roles if roles.is_empty() => "false".to_owned(),
            roles => format!("(usename IN ({roles}) AND application_name = '{PROBER}')"),
        };
        let list = |whose: &str| {
            format!(
                "COALESCE(pg_catalog.string_agg(pid::pg_catalog.text, ' ') \
                 FILTER (WHERE {whose}), '')"
            )
        };
        let (others, probers) = (list(&format!("{probes} IS NOT TRUE")), list(&probes));
        let sql = format!(
            "SELECT {others}, {probers} FROM pg_catalog.pg_stat_activity \
             WHERE datid IS NOT NULL AND (backend_type IS NULL \
             OR backend_type IN ('client backend', 'walsender')) AND {}",
            whose(config)
        );
        let replicas = usize::try_from(config.max_replicas).unwrap_or(usize::MAX);
        Self { sql, probers: replicas.saturating_mul(config.clusters.len()) }
    }

    /// The processes that a replica must claim.
    fn claimable(&self, mut seen: Seen) -> BTreeSet<u32> {
        if seen.probers.len() > self.probers {
            seen.processes.append(&mut seen.probers);
        }
        seen.processes
    }
}

fn quoted(roles: BTreeSet<&str>) -> String {
    let quoted: Vec<String> = roles
        .into_iter()
        .map(|role| format!("E'{}'", role.replace('\\', "\\\\").replace('\'', "''")))
        .collect();
    quoted.join(", ")
}

/// The condition for processes of the deployment's roles: all, where clients choose the names.
fn whose(config: &Config) -> String {
    let any = config.users.contains_key(WILDCARD)
        || config.clients.auth_type == pgimbal_config::AuthType::Trust;
    let mut roles: BTreeSet<&str> = config.users.keys().map(String::as_str).collect();
    roles.extend(config.databases.values().filter_map(|database| database.user.as_deref()));
    roles.extend(config.clusters.values().filter_map(|cluster| cluster.probe_user.as_deref()));
    let roles = quoted(roles);
    match any || roles.is_empty() {
        true => "usename IS NOT NULL".to_owned(),
        false => format!("usename IN ({roles})"),
    }
}

/// Looks at a server once a second, for as long as the process holds a slot.
pub(super) async fn run(
    looker: Looker,
    inner: Arc<Inner>,
    server: Box<str>,
    budget: Arc<ConnectionBudget>,
) {
    let mut open: Option<Conversation> = None;
    let mut refused = 0_usize;
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let target = looker.target(&server, refused);
        let may_look = inner.note_can_look(&server, target.is_some());
        let Some((target, question)) = target.filter(|_| may_look) else { continue };
        if open.is_none() {
            match connect(&looker, &inner, &server, &budget, &target).await {
                Ok(conversation) => open = Some(conversation),
                Err(error) => {
                    tracing::debug!(%server, "the server cannot be looked at: {error}");
                    refused = refused.wrapping_add(is_refusal(&error).into());
                }
            }
        }
        let Some(mut conversation) = open.take() else { continue };
        let at = Instant::now();
        let asked = probe::query(&mut conversation, &question.sql, parse);
        match timeout(LOOK_TIME, asked).await {
            Ok(Ok(seen)) => {
                inner.looked(&server, at, &question.claimable(seen));
                open = Some(conversation);
            }
            Ok(Err(fault)) => {
                tracing::debug!(%server, "the server's processes are not known: {fault}");
                inner.looks_as(&server, None);
            }
            Err(_) => inner.looks_as(&server, None),
        }
    }
}

async fn connect(
    looker: &Looker,
    inner: &Inner,
    server: &str,
    budget: &ConnectionBudget,
    target: &Target,
) -> Result<Conversation, DialError> {
    let patience = target.connect_timeout / 4;
    let dialed = Box::pin(looker.credentials.dial_at_once(target, server, patience)).await?;
    let dialed = limits::learn(target, dialed, budget).await?;
    inner.looks_as(server, dialed.cancel.as_ref().map(|key| key.process_id));
    let mut conversation = Conversation::new(dialed.transport);
    conversation.inbox = dialed.residual;
    Ok(conversation)
}

fn parse(body: &[u8]) -> Option<Seen> {
    let [processes, probers] = probe::values(body)?;
    let pids = |text: &str| -> Option<BTreeSet<u32>> {
        text.split_ascii_whitespace().map(|pid| pid.parse().ok()).collect()
    };
    Some(Seen { processes: pids(processes)?, probers: pids(probers)? })
}

#[cfg(test)]
mod tests {
    use pgimbal_config::{ClusterConfig, UserConfig};

    use super::*;

    #[test]
    fn budget_looks_as_the_next_where_one_is_refused() {
        let turn = |refused| in_turn(["a", "b", "c"].into_iter(), refused);
        let turns = [Some("a"), Some("b"), Some("c"), Some("a"), Some("b")];
        assert_eq!([turn(0), turn(1), turn(2), turn(3), turn(4)], turns);
        assert_eq!(in_turn(std::iter::empty::<()>(), 1), None);
        assert_eq!(in_turn(0.., MAX_TRIED), Some(0), "not every user is tried");
    }

    #[test]
    fn budget_hides_no_more_probers_than_there_can_be() {
        let mut config = Config { max_replicas: 2, ..Config::default() };
        config.users.insert("o'hara".into(), UserConfig::default());
        let plain = Question::of(&config);
        assert!(plain.sql.contains("usename IN (E'o''hara')"), "{}", plain.sql);
        assert!(!plain.sql.contains(PROBER), "there is no prober: {}", plain.sql);
        let cluster = ClusterConfig { probe_user: Some("p".into()), ..ClusterConfig::default() };
        config.clusters.insert("c".into(), cluster);
        let question = Question::of(&config);
        let condition = "(usename IN (E'p') AND application_name = 'pgimbal-prober')";
        assert!(question.sql.contains(condition), "{}", question.sql);
        let seen = |probers: &[u32]| {
            let probers = probers.iter().copied().collect();
            question.claimable(Seen { processes: BTreeSet::from([1]), probers })
        };
        assert_eq!(seen(&[2, 3]), BTreeSet::from([1]));
        assert_eq!(seen(&[2, 3, 4]), BTreeSet::from([1, 2, 3, 4]));
    }
}
