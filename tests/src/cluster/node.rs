//! A server of a cluster.

use std::fs;
use std::net::Ipv4Addr;
use std::ops::Deref;

use rustix::process::Signal;

use super::{Address, processes, template};
use crate::leash::Leash;
use crate::namespace::Namespace;
use crate::postgres::{as_postgres, bin, run};
use crate::process::{self, Process};
use crate::program::print_tail;
use crate::server::Server;
use crate::until::{SOON, eventually};

/// A server of a cluster: a primary or a standby, running or not. Dropping it kills its processes
/// and removes its files.
pub struct Node {
    /// The node's name, `n1` and so on, as in pgimbal's configuration.
    pub name: String,
    /// The IPv4 address at which the node listens.
    pub host: Ipv4Addr,
    pub(super) process: Option<Process>,
    server: Server,
    namespace: Option<Namespace>,
    _leash: Leash,
}

impl Node {
    pub(super) fn new(index: usize, settings: &[&str], address: Address) -> Self {
        let directory = process::directory_in_memory(&format!("n{}", index + 1));
        let data = directory.join("data");
        let leash = Leash::start(processes::TIDY, [data.as_os_str(), directory.as_os_str()]);
        let from = if index == 0 { template::primary() } else { template::standby() };
        Self {
            name: format!("n{}", index + 1),
            host: address.host,
            process: None,
            server: Server::copy(&from, directory, address.port, settings),
            namespace: address.namespace,
            _leash: leash,
        }
    }

    /// Makes the node a standby of `upstream`, from its next start on.
    ///
    /// # Panics
    /// When the node's directory cannot be written.
    pub fn follow(&mut self, upstream: &Self) {
        // A node in a namespace is reached through its network, so that a cut is felt here too.
        let host = match &upstream.namespace {
            Some(_) => upstream.host.to_string(),
            None => upstream.directory.display().to_string(),
        };
        let name = &self.name;
        let conninfo =
            format!("host={host} port={} user=replicator application_name={name}", upstream.port);
        let auto = self.data().join("postgresql.auto.conf");
        let mut settings = fs::read_to_string(&auto).expect("settings");
        settings.push_str(&format!("primary_conninfo = '{conninfo}'\n"));
        fs::write(auto, settings).expect("settings");
        fs::write(self.data().join("standby.signal"), "").expect("standby.signal");
    }

    /// Makes the node, a running standby, receive no more WAL.
    ///
    /// # Panics
    /// When its WAL receiver does not end.
    pub fn stop_receiving(&self) {
        self.run("alter system set primary_conninfo = ''");
        self.run("select pg_reload_conf()");
        let sql = "select count(*) from pg_stat_wal_receiver";
        eventually("it receives no more", SOON, || self.value(sql) == "0");
    }

    /// Starts the node in the role that its directory says: an old primary returns as a primary.
    ///
    /// # Panics
    /// When the node runs already, or does not accept connections in time.
    pub fn start(&mut self) {
        self.launch();
        let process = self.process.as_mut().expect("a process");
        self.server.wait_until_it_accepts(process);
    }

    fn launch(&mut self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        eventually("the last backends end", SOON, || processes::of(&self.data()).is_empty());
        processes::forget(&self.data());
        let addresses = format!("listen_addresses={}", self.host);
        let postgres = self.command(&[addresses.as_str(), "recovery_target_timeline=latest"]);
        let command = match &self.namespace {
            Some(namespace) => namespace.command(&postgres),
            None => postgres,
        };
        self.process = Some(Process::start_untied(command, &self.directory, Signal::QUIT));
    }

    /// Rewinds the node to `source`, whose standby it is from its next start on. It is stopped
    /// first if it runs.
    ///
    /// # Panics
    /// When `pg_rewind` fails.
    pub fn rewind_to(&mut self, source: &Self) {
        if self.process.is_some() {
            self.end(super::End::Fast);
        }
        processes::forget(&self.data());
        // Without it the source's control file still tells of the old timeline, and pg_rewind
        // says that there is nothing to do.
        source.run("checkpoint");
        let mut rewind = as_postgres(&bin().join("pg_rewind"));
        rewind.arg("--no-sync").arg("--target-pgdata").arg(self.data());
        let (host, port) = (source.directory.display(), source.port);
        rewind
            .arg("--source-server")
            .arg(format!("host={host} port={port} user=postgres dbname=app"));
        run(&mut rewind);
        self.follow(source);
    }

    /// Whether the node has a postmaster, frozen or not.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// The node's network namespace.
    ///
    /// # Panics
    /// When the node has none of its own.
    #[must_use]
    pub fn network(&self) -> &Namespace {
        self.namespace.as_ref().expect("a namespace")
    }

    /// The timeline that the node is on.
    ///
    /// # Panics
    /// When the node does not answer.
    #[must_use]
    pub fn timeline(&self) -> u32 {
        let sql = "select case when pg_is_in_recovery() then (select max(tli)::text from \
                   (select received_tli as tli from pg_stat_wal_receiver \
                    union all select min_recovery_end_timeline from pg_control_recovery() \
                    union all select timeline_id from pg_control_checkpoint()) as t) \
                   else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int::text end";
        self.value(sql).parse().expect("a timeline")
    }

    /// The system identifier of the cluster that the node belongs to.
    #[must_use]
    pub fn system_identifier(&self) -> String {
        self.value("select system_identifier from pg_control_system()")
    }

    /// The LSN up to which the node, a primary, has flushed WAL, in text form.
    #[must_use]
    pub fn written(&self) -> String {
        self.value("select pg_current_wal_flush_lsn()")
    }

    /// Waits until the node, a standby, has replayed WAL up to `lsn`.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_until_replayed(&self, lsn: &str) {
        let sql = format!("select coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
        let mut superuser = self.superuser();
        eventually("the standby has replayed", SOON, || superuser.value(&sql) == "t");
    }

    /// Waits until the node, a standby, streams from its upstream.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_until_streaming(&self) {
        let sql = "select count(*) from pg_stat_wal_receiver where status = 'streaming'";
        let mut superuser = self.superuser();
        eventually("the standby streams", SOON, || superuser.value(sql) == "1");
    }

    /// Waits until `standbys` of them stream from the node, and no other tries to. From then on a
    /// fast shutdown sends them everything; before, it would end them.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn wait_until_it_feeds(&self, standbys: usize) {
        let sql = "select count(*) || ' of ' || count(*) filter (where state = 'streaming') \
                   from pg_stat_replication";
        let mut superuser = self.superuser();
        let expected = format!("{standbys} of {standbys}");
        eventually("the standbys stream", SOON, || superuser.value(sql) == expected);
    }

    /// Number of the node's [`Server::backends`] that wait for their client. A backend that runs a
    /// statement, or waits for a replica, does not notice that its client is gone.
    ///
    /// # Panics
    /// When the server does not answer.
    #[must_use]
    pub fn backends_with_a_client(&self) -> usize {
        self.backends_that("wait_event_type = 'Client'")
    }
}

impl Deref for Node {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_tail(&self.name, &self.log());
        }
        self.obliterate();
    }
}
