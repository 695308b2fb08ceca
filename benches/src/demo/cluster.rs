//! A primary and its streaming replica, both throwaway ones.

use crate::Result;
use crate::client::{Client, Door};
use crate::demo::applications::ACCOUNTS;
use crate::demo::{APPLICATION, PROBE};
use crate::place::{Place, free_port};
use crate::postgres::{DATABASE, PASSWORD, ROLE, binaries, go_on, run, run_until};
use crate::server::Server;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server may take to let people in.
const START: Duration = Duration::from_secs(30);

/// A node of the cluster.
#[derive(Debug)]
pub struct Node {
    /// Its name, also the one that it has as a standby.
    pub name: &'static str,
    /// Its port on 127.0.0.1.
    pub port: u16,
    data: PathBuf,
    server: Option<Server>,
}

/// The two nodes; the first is the primary at first.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes.
    pub nodes: [Node; 2],
    bin: PathBuf,
}

impl Cluster {
    /// Makes a primary with the roles and the table of the applications, and a replica of it; ends
    /// what has begun once `stop` is raised.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, a step fails or it was stopped.
    pub fn start(place: &Place, stop: &AtomicBool) -> Result<Self> {
        let bin = binaries()?;
        let node = |name: &'static str| -> Result<Node> {
            Ok(Node { name, port: free_port()?, data: place.path().join(name), server: None })
        };
        let mut cluster = Self { nodes: [node("a")?, node("b")?], bin };
        cluster.initialise(place, stop)?;
        cluster.start_node(place, 0)?;
        go_on(stop)?;
        cluster.fill()?;
        cluster.copy_primary(place, stop)?;
        cluster.start_node(place, 1)?;
        // From here on nothing is acknowledged that the replica does not have.
        cluster.sql(0, "ALTER SYSTEM SET synchronous_standby_names = 'b'")?;
        cluster.sql(0, "SELECT pg_reload_conf()")?;
        Ok(cluster)
    }

    fn initialise(&self, place: &Place, stop: &AtomicBool) -> Result<()> {
        let data = &self.nodes[0].data;
        let options =
            ["--auth=trust", "--username", ROLE, "--encoding=UTF8", "--locale=C", "--no-sync"];
        let mut command = place.command(self.bin.join("initdb"));
        run_until(stop, command.args(options).arg("-D").arg(data))?;
        place.write("a/pg_hba.conf", HBA)?;
        Ok(())
    }

    fn fill(&self) -> Result<()> {
        for statement in [
            format!("CREATE DATABASE {DATABASE}"),
            format!("CREATE ROLE {APPLICATION} LOGIN PASSWORD '{PASSWORD}'"),
            format!("CREATE ROLE {PROBE} LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor"),
        ] {
            self.sql_in(0, "postgres", &statement)?;
        }
        // What the applications write is told apart by its id, which nothing keeps unique: what
        // is written twice must show.
        self.sql(
            0,
            &format!(
                "CREATE TABLE work (id text NOT NULL); CREATE INDEX ON work (id); \
                 CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL); \
                 INSERT INTO accounts SELECT i, 0 FROM generate_series(1, {ACCOUNTS}) AS i; \
                 GRANT ALL ON work, accounts TO {APPLICATION}"
            ),
        )
    }

    fn copy_primary(&self, place: &Place, stop: &AtomicBool) -> Result<()> {
        let [primary, replica] = &self.nodes;
        let mut command = place.command(self.bin.join("pg_basebackup"));
        command.args(["-h", "127.0.0.1", "-p", &primary.port.to_string(), "-U", ROLE]);
        command.args(["-c", "fast", "-R", "-X", "stream", "-D"]).arg(&replica.data);
        run_until(stop, &mut command)?;
        self.follow(place, 1, 0)
    }

    /// Tells node `index` to be a standby of node `of` when it starts next.
    fn follow(&self, place: &Place, index: usize, of: usize) -> Result<()> {
        let node = &self.nodes[index];
        let text = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user={ROLE} application_name={}'\n\
             recovery_target_timeline = 'latest'\n",
            self.nodes[of].port, node.name
        );
        place.write(&format!("{}/postgresql.auto.conf", node.name), &text)?;
        place.write(&format!("{}/standby.signal", node.name), "")?;
        Ok(())
    }

    /// Starts a node as it is.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_node(&mut self, place: &Place, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        let mut command = place.command(self.bin.join("postgres"));
        command.arg("-D").arg(&node.data).arg("-k").arg(place.path());
        let port = format!("port={}", node.port);
        for setting in [port.as_str(), "listen_addresses=127.0.0.1"].into_iter().chain(SETTINGS) {
            command.args(["-c", setting]);
        }
        let log = place.path().join(format!("postgres-{}.log", node.name));
        let name = format!("PostgreSQL {}", node.name);
        node.server = Some(Server::start(&name, command, &log, node.port, Signal::INT)?);
        let door = Door::new(node.port, ROLE).to_database("postgres");
        let deadline = Instant::now() + START;
        while let Err(error) = door.enter().and_then(Client::leave) {
            if Instant::now() > deadline {
                return Err(error);
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Kills a node, postmaster and every backend, with SIGKILL.
    pub fn kill(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(server) = node.server.take() else { return };
        // A postmaster that stands still starts no other backend meanwhile.
        server.signal(Signal::STOP);
        obliterate(&node.data, &server);
    }

    /// Makes every process of a node stand still; its sockets stay open.
    pub fn freeze(&self, index: usize) {
        self.signal(index, Signal::STOP);
    }

    /// Lets them go on.
    pub fn thaw(&self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    fn signal(&self, index: usize, signal: Signal) {
        for pid in processes_in(&self.nodes[index].data) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Promotes the standby `index` and waits until it accepts writes.
    ///
    /// # Errors
    /// When it does not.
    pub fn promote(&self, index: usize) -> Result<()> {
        self.sql_in(index, "postgres", "SELECT pg_promote(true, 60)")
    }

    /// Stops node `index` in order, takes back what it has beyond node `new`, and starts it as
    /// that one's standby.
    ///
    /// # Errors
    /// When pg_rewind or the start fails.
    pub fn rejoin(&mut self, place: &Place, index: usize, new: usize) -> Result<()> {
        // Without it pg_rewind sees the old timeline in the new primary's control file.
        self.sql_in(new, "postgres", "CHECKPOINT")?;
        self.nodes[index].server = None;
        let source =
            format!("host=127.0.0.1 port={} user={ROLE} dbname=postgres", self.nodes[new].port);
        run(place
            .command(self.bin.join("pg_rewind"))
            .arg("--target-pgdata")
            .arg(&self.nodes[index].data)
            .args(["--source-server", &source, "--no-sync"]))?;
        self.follow(place, index, new)?;
        self.start_node(place, index)
    }

    /// Runs a statement on a node as superuser.
    ///
    /// # Errors
    /// When it fails.
    pub fn sql(&self, index: usize, text: &str) -> Result<()> {
        self.sql_in(index, DATABASE, text)
    }

    /// A superuser's connection to a node.
    ///
    /// # Errors
    /// When it does not let anybody in.
    pub fn superuser(&self, index: usize) -> Result<Client> {
        Door::new(self.nodes[index].port, ROLE).enter()
    }

    fn sql_in(&self, index: usize, database: &str, text: &str) -> Result<()> {
        run(&mut self.psql(index, database, text))
    }

    fn psql(&self, index: usize, database: &str, text: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["-qX", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", ROLE]);
        command.args(["-p", &self.nodes[index].port.to_string(), "-d", database, "-c", text]);
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What stands still does not hear that it should end.
        for pid in processes_in(&self.data) {
            let _ = kill_process(pid, Signal::CONT);
        }
        self.server = None;
        // One that was killed leaves its shared memory to its next start, and there is none.
        let file = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let memory = file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
        if let Some(id) = memory {
            let _ = Command::new("ipcrm").args(["-m", id]).output();
        }
    }
}

/// SIGKILL for every process of a server, until none is left.
fn obliterate(data: &Path, server: &Server) {
    loop {
        // Each backend has a group of its own, but all of them work in one folder.
        let all: Vec<Pid> = processes_in(data);
        if all.is_empty() {
            return;
        }
        for pid in all {
            let _ = kill_process(pid, Signal::KILL);
        }
        server.signal(Signal::KILL);
        sleep(Duration::from_millis(1));
    }
}

/// The living processes that work in `folder`.
fn processes_in(folder: &Path) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder) {
            found.extend(pid.and_then(Pid::from_raw));
        }
    }
    found
}

/// Trust for the superuser and replication; everybody else shows a password.
const HBA: &str = "\
local all all trust
host all bench 127.0.0.0/8 trust
host replication bench 127.0.0.0/8 trust
host all all 127.0.0.0/8 scram-sha-256
";

/// Nothing survives the demonstration, so nothing need reach the disk; pg_rewind needs
/// `wal_log_hints`.
const SETTINGS: [&str; 11] = [
    "max_connections=200",
    "autovacuum=off",
    "dynamic_shared_memory_type=mmap",
    "shared_buffers=32MB",
    "fsync=off",
    "wal_log_hints=on",
    "wal_keep_size=512MB",
    "max_wal_senders=5",
    "logging_collector=off",
    "password_encryption=scram-sha-256",
    "jit=off",
];
