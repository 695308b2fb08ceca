//! The configuration of a pgimbal before a cluster, which is called `c` there.

use super::Cluster;
use crate::pgimbal::Config;

impl Config {
    /// Before the nodes of `cluster`.
    #[must_use]
    pub fn before_cluster(cluster: &Cluster) -> Self {
        let config = Self::before_nothing();
        cluster
            .nodes
            .iter()
            .fold(config, |config, node| config.node(&node.name, &node.host.to_string(), node.port))
    }

    /// Before all addresses of `name`.
    #[must_use]
    pub fn before_name(name: &str, port: u16) -> Self {
        Self::before_nothing().cluster("dns", format!("\"{name}\"")).cluster("port", port)
    }

    /// Adds a node.
    #[must_use]
    pub fn node(self, name: &str, host: &str, port: u16) -> Self {
        let value = format!("{{ host = \"{host}\", port = {port} }}");
        self.cluster(&format!("nodes.{name}"), value)
    }

    /// Asks five times a second, so that a test need not wait long.
    fn before_nothing() -> Self {
        Self::to_nowhere()
            .server("cluster", "\"c\"")
            .cluster("probe_user", "\"probe\"")
            .cluster("probe_password", "\"probe-secret\"")
            .cluster("probe_database", "\"app\"")
            .cluster("probe_interval", "\"200ms\"")
            .cluster("probe_timeout", "\"500ms\"")
    }
}
