//! What each cluster is copied from: a primary, and a standby that pg_basebackup took of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::port::free_port;
use crate::postgres::{HBA, as_postgres, bin, cached, make_cluster, run};
use crate::process::Process;
use crate::startup::Login;
use crate::until::{SOON, eventually};
use crate::wire_client::WireClient;

/// Beside the roles of every throwaway server. `probe` is what pgimbal asks with.
const ROLES: [&str; 3] = [
    "create role replicator login replication",
    "create role probe login password 'probe-secret'",
    "grant pg_monitor to probe",
];

/// `pg_rewind` needs the first two; the rest makes everything small and prompt.
const SETTINGS: &str = "\
wal_log_hints = on
full_page_writes = on
fsync = off
synchronous_commit = on
shared_buffers = 16MB
max_connections = 120
autovacuum = off
jit = off
max_wal_size = 64MB
wal_keep_size = 64MB
wal_retrieve_retry_interval = 100ms
wal_receiver_status_interval = 1s
# Its segments would outlive a node that was killed.
dynamic_shared_memory_type = mmap
";

/// The directory to copy for a primary.
pub(super) fn primary() -> PathBuf {
    template().join("primary")
}

/// The directory to copy for a standby.
pub(super) fn standby() -> PathBuf {
    template().join("standby")
}

fn template() -> PathBuf {
    cached("replicated-1", |scratch| {
        let initdb = scratch.join("initdb");
        fs::create_dir(&initdb).expect("a directory");
        make_cluster(&bin(), &initdb);
        let data = initdb.join("data");
        let hba = HBA.replace("127.0.0.1/32", "all").replace("postgres,app", "postgres,app,probe");
        let replication = "local replication all trust\nhost replication all all trust\n";
        fs::write(data.join("pg_hba.conf"), format!("{replication}{hba}")).expect("pg_hba.conf");
        fs::write(data.join("postgresql.auto.conf"), SETTINGS).expect("settings");
        run(Command::new("chown").arg("--reference").arg(&initdb).arg(scratch));
        let pair = scratch.join("data");
        fs::create_dir(&pair).expect("a directory");
        run(Command::new("chown").arg("--reference").arg(&initdb).arg(&pair));
        back_up(&initdb, &data, &pair.join("standby"));
        fs::rename(&data, pair.join("primary")).expect("the primary");
    })
}

/// Starts the server in `data`, makes the roles and takes a base backup to `standby`.
fn back_up(directory: &Path, data: &Path, standby: &Path) {
    let port = free_port();
    let mut command = as_postgres(&bin().join("postgres"));
    command.arg("-D").arg(data).arg("-k").arg(directory).arg("-p").arg(port.to_string());
    command.args(["-c", "listen_addresses="]);
    let mut process = Process::start(command, directory, Signal::INT);
    let socket = directory.join(format!(".s.PGSQL.{port}"));
    let log_in = || {
        let mut client = WireClient::try_unix(&socket).ok()?;
        client.log_in(&Login::new("postgres", "app", "")).ok().map(|()| client)
    };
    eventually("PostgreSQL accepts connections", SOON, || log_in().is_some());
    let mut superuser = log_in().expect("a superuser's login");
    for sql in ROLES {
        superuser.ok(sql);
    }
    let mut backup = as_postgres(&bin().join("pg_basebackup"));
    backup.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync", "-U", "replicator"]);
    run(backup.arg("-h").arg(directory).arg("-p").arg(port.to_string()).arg("-D").arg(standby));
    superuser.terminate();
    process.signal(Signal::INT);
    eventually("PostgreSQL ends", SOON, || process.ended().is_some());
}
