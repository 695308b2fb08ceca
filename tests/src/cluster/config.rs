//! The configuration of a pgimbal in front of a cluster, whose name there is `c`.

use super::Cluster;
use crate::pgimbal::Config;

impl Config {
    /// Makes a configuration in front of the nodes of `cluster`.
    #[must_use]
    pub fn before_cluster(cluster: &Cluster) -> Self {
        let config = Self::before_nothing();
        cluster
            .nodes
            .iter()
            .fold(config, |config, node| config.node(&node.name, &node.host.to_string(), node.port))
    }

    /// Makes a configuration in front of all addresses of the DNS name `name`.
    #[must_use]
    pub fn before_name(name: &str, port: u16) -> Self {
        Self::before_nothing().cluster("dns", format!("\"{name}\"")).cluster("port", port)
    }

    /// Adds a node to the cluster.
    #[must_use]
    pub fn node(self, name: &str, host: &str, port: u16) -> Self {
        let value = format!("{{ host = \"{host}\", port = {port} }}");
        self.cluster(&format!("nodes.{name}"), value)
    }

    /// A cluster without nodes, which is probed five times a second so that a test need not wait
    /// long.
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
