//! Which servers the configuration and its clusters lead to: the budgets of the others are
//! forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::Config;
use pgimbal_pooler::pool::budget::Budgets;
use pgimbal_pooler::topology::{NodeState, View};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::topology::Clusters;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long a server is missing before it is gone: the address of a node that restarts leaves its
/// DNS name and comes back.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// Forgets the budgets of servers to which nothing leads any more, for as long as the process runs.
pub(crate) async fn follow(
    config: watch::Receiver<Arc<Config>>,
    clusters: Clusters,
    budgets: Arc<Budgets>,
) {
    let mut presence = Presence::default();
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let config = Arc::clone(&config.borrow());
        let views = config.clusters.keys().filter_map(|name| clusters.view(name));
        presence.look(&servers(&config, views), &budgets, Instant::now());
    }
}

/// The servers, `host:port`, of the databases and clusters of a configuration, whose nodes `views`
/// has.
fn servers(config: &Config, views: impl Iterator<Item = Arc<View>>) -> BTreeSet<String> {
    let plain = config.databases.values().filter(|database| database.cluster.is_none());
    let plain = plain.map(|database| format!("{}:{}", database.host, database.port));
    let listed = config.clusters.values().flat_map(|cluster| cluster.nodes.values());
    let listed = listed.map(|node| format!("{}:{}", node.host, node.port));
    let mut servers: BTreeSet<String> = plain.chain(listed).collect();
    for view in views {
        let nodes = view.nodes.iter().filter(|node| node.state != NodeState::Removed);
        servers.extend(nodes.map(|node| format!("{}:{}", node.host, node.port)));
    }
    servers
}

/// Since when servers are missing that have a budget.
#[derive(Debug, Default)]
struct Presence {
    missing: BTreeMap<Box<str>, Instant>,
}

impl Presence {
    fn look(&mut self, servers: &BTreeSet<String>, budgets: &Budgets, now: Instant) {
        let known: BTreeSet<Box<str>> = budgets.all().into_iter().map(|(name, _)| name).collect();
        self.missing.retain(|name, _| known.contains(name) && !servers.contains(&**name));
        for name in known.into_iter().filter(|name| !servers.contains(&**name)) {
            self.missing.entry(name).or_insert(now);
        }
        let is_gone = |name: &str| {
            let since = self.missing.get(name);
            since.is_some_and(|since| now.saturating_duration_since(*since) >= GONE_AFTER)
        };
        budgets.keep(|name| !is_gone(name));
    }
}

#[cfg(test)]
mod tests {
    use pgimbal_config::{ClusterConfig, DatabaseConfig, Host, NodeConfig, ServerBudget};

    use super::*;

    #[test]
    fn budget_of_a_server_that_is_gone_is_forgotten() {
        let budgets = Budgets::default();
        let of =
            |host: &str| budgets.of(&Host::Tcp(host.to_owned()), 5432, ServerBudget::default());
        let (mut presence, start) = (Presence::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let one = BTreeSet::from(["one:5432".to_owned()]);
        let names =
            || -> Vec<String> { budgets.all().into_iter().map(|(name, _)| name.into()).collect() };
        let (used, _) = (of("two"), of("one"));
        let _ = of("three");
        presence.look(&one, &budgets, after(0));
        presence.look(&one, &budgets, after(59));
        assert_eq!(names().len(), 3, "an address may come back");
        presence.look(&one, &budgets, after(60));
        assert_eq!(names(), ["one:5432", "two:5432"], "the second has a connection");
        assert!(used.is_gone());
        let both = BTreeSet::from(["one:5432".to_owned(), "two:5432".to_owned()]);
        presence.look(&both, &budgets, after(65));
        assert!(!used.is_gone(), "it has come back");
        presence.look(&one, &budgets, after(70));
        drop(used);
        presence.look(&one, &budgets, after(129));
        assert_eq!(names().len(), 2);
        presence.look(&one, &budgets, after(130));
        assert_eq!(names(), ["one:5432"]);
    }

    #[test]
    fn budget_of_every_server_of_the_configuration_is_kept() {
        let (host, port) = (|host: &str| Host::Tcp(host.to_owned()), 5433);
        let mut config = Config::default();
        let plain = DatabaseConfig { host: host("10.0.0.1"), ..DatabaseConfig::default() };
        let of_cluster = DatabaseConfig { cluster: Some("c".into()), ..DatabaseConfig::default() };
        config.databases.extend([("a".into(), plain), ("b".into(), of_cluster)]);
        let node = NodeConfig { host: host("10.0.0.2"), port, ..NodeConfig::default() };
        let mut cluster = ClusterConfig::default();
        cluster.nodes.insert("n".into(), node);
        config.clusters.insert("c".into(), cluster);
        let servers = servers(&config, std::iter::empty());
        assert_eq!(servers.into_iter().collect::<Vec<_>>(), ["10.0.0.1:5432", "10.0.0.2:5433"]);
    }
}
