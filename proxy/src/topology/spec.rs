//! A cluster of the configuration, with what its probers need.

use std::sync::Arc;
use std::time::Duration;

use pgimbal_config::{
    AuthMethods, ChannelBinding, ClusterConfig, Config, Host, NodeConfig, Secret, SourceConfig,
    TcpConfig,
};
use pgimbal_pooler::topology::{NodeSpec, Options, Placement};

use crate::dial::Target;
use crate::tls::{TlsConnector, TlsError};

/// The source of a cluster's nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeSource {
    /// The nodes that the configuration lists.
    Listed(Vec<NodeSpec>),
    /// Every address of a DNS name.
    Name {
        /// The DNS name.
        dns: String,
        /// The port of every node.
        port: u16,
    },
}

/// A cluster of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct ClusterSpec {
    /// The cluster's name in the configuration.
    pub(crate) name: Arc<str>,
    /// The source of the cluster's nodes.
    pub(crate) source: NodeSource,
    /// The options of the topology: probe interval, hold time and limits of lag.
    pub(crate) options: Options,
    /// Time limit of a probe.
    pub(crate) probe_timeout: Duration,
    /// The role that probes the nodes.
    pub(crate) user: Box<str>,
    /// The probing role's password; `None` when none is known, or a source provides it.
    pub(crate) password: Option<Secret>,
    /// The user whose source provides the password; `None` when it does not rotate.
    pub(crate) role: Option<Box<str>>,
    /// The database to which probes connect.
    pub(crate) database: Box<str>,
    /// The authentication methods that a node may ask for; `None` when `require_auth` is not set.
    pub(crate) require_auth: Option<AuthMethods>,
    /// TLS towards the nodes.
    pub(crate) tls: Arc<TlsConnector>,
    /// Whether nodes must prove in SCRAM that they are the end of the TLS connection.
    pub(crate) channel_binding: ChannelBinding,
    /// TCP options.
    pub(crate) tcp: TcpConfig,
}

/// The clusters of `config`.
///
/// # Errors
/// [`TlsError`] when TLS towards one cannot be set up.
pub(crate) fn specs(config: &Config) -> Result<Vec<ClusterSpec>, TlsError> {
    config.clusters.iter().map(|(name, cluster)| spec(config, name, cluster)).collect()
}

fn spec(config: &Config, name: &str, cluster: &ClusterConfig) -> Result<ClusterSpec, TlsError> {
    let source = match &cluster.dns {
        Some(dns) => NodeSource::Name { dns: dns.clone(), port: cluster.port },
        None => NodeSource::Listed(listed(cluster)),
    };
    let user = cluster.probe_user.clone().unwrap_or_default();
    let known = config.user(&user);
    let rotates = cluster.probe_password.is_none()
        && known.as_ref().is_some_and(|known| known.source() != SourceConfig::Inline);
    let own = || known.and_then(|known| known.server_password().cloned());
    Ok(ClusterSpec {
        name: name.into(),
        source,
        options: Options {
            probe_interval: cluster.probe_interval,
            failover_hold: cluster.failover_hold,
            max_lag_bytes: cluster.replica_max_lag_bytes.map(|bytes| bytes as u64),
            max_lag: cluster.replica_max_lag,
        },
        probe_timeout: cluster.probe_timeout,
        role: rotates.then(|| user.as_str().into()),
        password: cluster.probe_password.clone().or_else(own),
        database: cluster.probe_database.as_str().into(),
        // As the databases that live there have it.
        require_auth: config
            .databases
            .values()
            .find(|database| database.cluster.as_deref() == Some(name))
            .map_or(config.pool.require_auth, |database| database.pool.require_auth),
        tls: Arc::new(TlsConnector::new(&cluster.tls)?),
        channel_binding: cluster.tls.channel_binding,
        tcp: config.clients.tcp.clone(),
        user: user.into(),
    })
}

/// How to log in, as the prober does, at the node `host:port` of a cluster; `None` if no cluster
/// lists it, or has it from DNS.
pub(crate) fn cluster_target(config: &Config, server: &str) -> Option<Target> {
    config.clusters.iter().find_map(|(name, cluster)| {
        let listed = cluster.nodes.values().map(|node| (node.host.clone(), node.port));
        let (host, port) = listed
            .chain(address_of(cluster, server))
            .find(|(host, port)| format!("{host}:{port}") == server)?;
        let spec = spec(config, name, cluster).ok()?;
        Some((*spec.target(&host, port)).clone())
    })
}

/// The place of a server of a cluster whose nodes are the addresses of a name, if it can be one.
fn address_of(cluster: &ClusterConfig, server: &str) -> Option<(Host, u16)> {
    cluster.dns.as_ref()?;
    let (host, port) = server.rsplit_once(':')?;
    host.parse::<std::net::IpAddr>().ok()?;
    Some((Host::Tcp(host.to_owned()), port.parse().ok().filter(|port| *port == cluster.port)?))
}

fn listed(cluster: &ClusterConfig) -> Vec<NodeSpec> {
    let node = |(name, node): (&String, &NodeConfig)| NodeSpec {
        name: name.as_str().into(),
        host: node.host.clone(),
        port: node.port,
        candidate: node.candidate,
        placement: Placement { weight: node.weight, zone: node.zone.as_deref().map(Box::from) },
    };
    cluster.nodes.iter().map(node).collect()
}

/// The application name of probers.
pub(crate) const PROBER: &str = "pgimbal-prober";

impl ClusterSpec {
    /// The nodes that the configuration lists; empty for a cluster whose nodes come from DNS.
    pub(super) fn listed(&self) -> Vec<NodeSpec> {
        match &self.source {
            NodeSource::Listed(nodes) => nodes.clone(),
            NodeSource::Name { .. } => Vec::new(),
        }
    }

    /// The target of a probe at this host and port.
    pub(crate) fn target(&self, host: &Host, port: u16) -> Arc<Target> {
        Arc::new(Target {
            derivations: Arc::default(),
            host: host.clone(),
            port,
            database: self.database.clone(),
            // The budget's looks pass over it: no replica claims it.
            options: Some(format!("-c application_name={PROBER}").into()),
            channel_binding: self.channel_binding,
            user: self.user.clone(),
            role: self.role.clone(),
            password: self.password.clone(),
            require_auth: self.require_auth,
            tls: Arc::clone(&self.tls),
            tls_name: match &self.source {
                NodeSource::Listed(_) => None,
                NodeSource::Name { dns, .. } => Some(dns.as_str().into()),
            },
            tcp: self.tcp.clone(),
            connect_timeout: self.probe_timeout,
        })
    }
}
