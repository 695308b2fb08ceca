//! A throwaway primary with streaming replicas, and the failures that a test can cause.

mod config;
mod failures;
mod node;
mod processes;
mod template;

use std::net::Ipv4Addr;
use std::path::Path;

pub use failures::{End, Frozen};
pub use node::Node;

use crate::leash::Leash;
use crate::namespace::Namespace;
use crate::port::{free_port, random};
use crate::process::{self, Directory};
use crate::until::{SOON, eventually};

/// A primary, `nodes[0]`, and its replicas. Dropping it ends all their processes and removes their
/// files. A test that promotes another node must remember it.
pub struct Cluster {
    /// The nodes `n1`, the first primary, `n2` and so on.
    pub nodes: Vec<Node>,
    directory: Directory,
    _leash: Leash,
}

impl Cluster {
    /// Starts a primary and `replicas` replicas on 127.0.0.1.
    ///
    /// # Panics
    /// When there is no PostgreSQL 15 or newer, or it does not start.
    #[must_use]
    pub fn start(replicas: usize) -> Self {
        Self::with(replicas, &[])
    }

    /// Starts a cluster with server settings such as `max_connections=130` on every node.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    #[must_use]
    pub fn with(replicas: usize, settings: &[&str]) -> Self {
        Self::launch(replicas, settings, |_| Address::loopback())
    }

    /// Starts a cluster whose first primary runs in a network namespace of its own, so that it can
    /// be cut off.
    ///
    /// # Panics
    /// As [`Cluster::start`], and when this user may not make namespaces.
    #[must_use]
    pub fn with_primary_in_namespace(replicas: usize, settings: &[&str]) -> Self {
        Self::launch(replicas, settings, |index| {
            if index == 0 { Address::namespace() } else { Address::loopback() }
        })
    }

    /// Starts a cluster whose nodes have loopback addresses of their own and the same port, as
    /// behind a DNS name.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    #[must_use]
    pub fn on_one_port(replicas: usize) -> Self {
        let port = free_port();
        let (high, low) = (1 + random(250), random(250));
        Self::launch(replicas, &[], |index| {
            let last = u8::try_from(index + 1).expect("few nodes");
            Address { host: Ipv4Addr::new(127, high, low, last), port, namespace: None }
        })
    }

    /// Starts a primary at the first of these addresses of this machine and a replica at each other
    /// one, all at PostgreSQL's own port, 5432.
    ///
    /// # Panics
    /// As [`Cluster::start`], and when there is no address.
    #[must_use]
    pub fn at(hosts: &[Ipv4Addr]) -> Self {
        let replicas = hosts.len().checked_sub(1).expect("an address");
        Self::launch(replicas, &[], |index| Address {
            host: hosts[index],
            port: 5432,
            namespace: None,
        })
    }

    fn launch(replicas: usize, settings: &[&str], address: impl Fn(usize) -> Address) -> Self {
        let directory = process::directory("cluster");
        let leash = Leash::start("rm -rf -- \"$0\"", [directory.as_os_str()]);
        let mut nodes: Vec<Node> = Vec::new();
        for index in 0..=replicas {
            let mut node = Node::new(index, settings, address(index));
            if let Some(primary) = nodes.first() {
                node.follow(primary);
            }
            node.start();
            nodes.push(node);
        }
        let cluster = Self { nodes, directory, _leash: leash };
        for replica in &cluster.nodes[1..] {
            replica.wait_until_streaming();
        }
        cluster
    }

    /// A directory for files of the test, removed with the cluster.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Waits until every running standby has replayed the WAL that node `primary` has flushed by
    /// now.
    ///
    /// # Panics
    /// When a standby does not catch up in time.
    pub fn settle(&self, primary: usize) {
        let goal = self.nodes[primary].written();
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            if node.value("select pg_is_in_recovery()") == "t" {
                node.wait_until_replayed(&goal);
            }
        }
    }

    /// Stops node `target` if it runs, rewinds it to node `source` and starts it as a standby of
    /// `source`.
    ///
    /// # Panics
    /// When `pg_rewind` fails, or the standby does not stream.
    pub fn rejoin(&mut self, target: usize, source: usize) {
        let [target, source] = self.nodes.get_disjoint_mut([target, source]).expect("two nodes");
        target.rewind_to(source);
        target.start();
        target.wait_until_streaming();
    }

    /// Makes the running standby `replica` follow node `upstream`, by a restart.
    ///
    /// # Panics
    /// When the standby does not stream.
    pub fn repoint(&mut self, replica: usize, upstream: usize) {
        let [replica, upstream] =
            self.nodes.get_disjoint_mut([replica, upstream]).expect("two nodes");
        replica.end(End::Fast);
        replica.follow(upstream);
        replica.start();
        let timeline = upstream.timeline();
        eventually("the standby follows the new timeline", SOON, || replica.timeline() == timeline);
    }
}

/// Where a node listens.
struct Address {
    host: Ipv4Addr,
    port: u16,
    namespace: Option<Namespace>,
}

impl Address {
    fn loopback() -> Self {
        Self { host: Ipv4Addr::LOCALHOST, port: free_port(), namespace: None }
    }

    fn namespace() -> Self {
        let namespace = Namespace::new();
        Self { host: namespace.inside, port: free_port(), namespace: Some(namespace) }
    }
}
