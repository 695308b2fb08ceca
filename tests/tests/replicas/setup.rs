//! Servers with three pgimbals before them.

use std::collections::BTreeMap;
use std::time::Duration;

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Deployment, Login, Pgimbal, WireClient};

use super::load::Work;

/// A primary with one standby, and three replicas before it.
pub(super) struct Setup {
    pub(super) deployment: Deployment,
    pub(super) cluster: Cluster,
}

impl Setup {
    pub(super) fn start() -> Self {
        Self::with(|config| config)
    }

    pub(super) fn with(change: impl Fn(Config) -> Config) -> Self {
        Self::before(Cluster::start(1), |_, config| change(config))
    }

    /// With a change of each replica's configuration.
    pub(super) fn before(cluster: Cluster, change: impl Fn(usize, Config) -> Config) -> Self {
        cluster.nodes[0].run("create table writes (id text); grant all on writes to app");
        cluster.settle(0);
        let config = config(Config::before_cluster(&cluster));
        let setup = Self { deployment: Deployment::with(config, change), cluster };
        for index in 0..3 {
            setup.wait_until_writable(index);
        }
        setup
    }

    pub(super) fn replica(&self, index: usize) -> &Pgimbal {
        &self.deployment.replicas[index]
    }

    pub(super) fn client(&self, replica: usize) -> WireClient {
        let mut client = self.replica(replica).log_in(&app());
        client.set_timeout(SOON * 2);
        client
    }

    /// Runs a command on the console of a replica.
    pub(super) fn command(&self, replica: usize, command: &str) -> Vec<BTreeMap<String, String>> {
        rows(self.replica(replica), command)
    }

    /// Waits until a replica knows a primary.
    pub(super) fn wait_until_writable(&self, replica: usize) {
        eventually("the replica knows a primary", SOON * 4, || self.is_writable(replica));
    }

    pub(super) fn is_writable(&self, replica: usize) -> bool {
        let name = "pgimbal_cluster_writable";
        pgimbal_tests::http::metric(&self.replica(replica).metrics(), name, &[]) == Some(1.0)
    }

    /// A column of a node's row in `SHOW NODES` of a replica.
    pub(super) fn node(&self, replica: usize, name: &str, column: &str) -> String {
        let rows = self.command(replica, "show nodes");
        let row = rows.into_iter().find(|row| row["node"] == name);
        row.map(|row| row[column].clone()).unwrap_or_default()
    }

    /// Waits until `SHOW NODES` of a replica tells `state` of the node.
    pub(super) fn wait_for_state(&self, replica: usize, node: &str, state: &str) {
        eventually(&format!("{node} is {state}"), SOON * 4, || {
            self.node(replica, node, "state") == state
        });
    }
}

/// Clients log in with SCRAM, and may not be more than the pool.
pub(super) fn config(config: Config) -> Config {
    config
        .set("auth_type", "\"scram-sha-256\"")
        .set("require_auth", "\"password,md5,scram-sha-256,none\"")
        .set("pool_size", 20)
}

/// `app` on `app`.
pub(super) fn app() -> Login {
    Login::new("app", "app", "app-secret")
}

/// Reads of `app` that take some milliseconds, so that clients and connections are busy.
pub(super) fn reads() -> Work {
    Work { login: app(), sql: "select pg_sleep(0.004), 'read'", pause: Duration::from_millis(20) }
}

/// The rows of a console command by column.
pub(super) fn rows(proxy: &Pgimbal, command: &str) -> Vec<BTreeMap<String, String>> {
    let rows = proxy.console(command);
    rows.into_iter().map(|row| row.into_iter().collect()).collect()
}

/// How long something is not reachable: `PGIMBAL_PARTITION_SECONDS`, or else this.
pub(super) fn away(otherwise: Duration) -> Duration {
    let seconds = std::env::var("PGIMBAL_PARTITION_SECONDS").ok();
    let number = |text: String| Duration::from_secs(text.parse().expect("a number of seconds"));
    seconds.map_or(otherwise, number)
}
