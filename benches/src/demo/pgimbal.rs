//! pgimbal before the cluster, as anybody would configure and start it.

use crate::client::Door;
use crate::demo::cluster::Cluster;
use crate::demo::console::Console;
use crate::demo::credentials::{Credentials, random_password};
use crate::demo::{APPLICATION, OPERATOR, PROBE};
use crate::place::{Place, free_port};
use crate::postgres::{DATABASE, PASSWORD};
use crate::server::Server;
use crate::{During, Error, Result};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Server connections of a pool.
pub const POOL_SIZE: u32 = 20;

/// A running pgimbal.
#[derive(Debug)]
pub struct Pgimbal {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    /// What it says about itself.
    pub version: String,
    /// A file for `PGPASSFILE` with the passwords of the application and the operator.
    pub pgpass: PathBuf,
    operator_password: String,
    server: Server,
}

impl Pgimbal {
    /// Starts `program` before the cluster.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(
        place: &Place,
        program: &Path,
        cluster: &Cluster,
        credentials: &Credentials,
        clients: u32,
    ) -> Result<Self> {
        let program = place.copy_in(program, "pgimbal")?;
        let output = Command::new(&program).arg("--version").output().during("running pgimbal")?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let (port, state) = (free_port()?, place.folder("state")?);
        let operator_password = random_password()?;
        let [a, b] = &cluster.nodes;
        let config = format!(
            "listen = \"127.0.0.1:{port}\"
max_client_conn = {max_clients}
admin_users = [\"{OPERATOR}\"]
pool_size = {POOL_SIZE}
# So that many connections are opened, with whatever the password is by then.
server_lifetime = \"5s\"
state_dir = \"{state}\"
grace_generations = 1000

[clusters.main]
probe_user = \"{PROBE}\"
probe_password = \"{PASSWORD}\"
[clusters.main.nodes]
a = {{ host = \"127.0.0.1\", port = {a} }}
b = {{ host = \"127.0.0.1\", port = {b} }}

[databases.{DATABASE}]
cluster = \"main\"

[users.{OPERATOR}]
password = \"{operator_password}\"

{tables}",
            max_clients = 2 * clients + 50,
            state = state.display(),
            a = a.port,
            b = b.port,
            tables = credentials.tables(),
        );
        let mut command = place.command(program);
        command.args(["run", "--config"]).arg(place.write("pgimbal.toml", &config)?);
        let log = place.path().join("pgimbal.log");
        let server = Server::start("pgimbal", command, &log, port, Signal::INT)?;
        let passwords = format!(
            "*:*:*:{APPLICATION}:{}\n*:*:*:{OPERATOR}:{operator_password}\n",
            credentials.first_password()
        );
        let pgpass = place.write("pgpass", &passwords)?;
        Ok(Self { port, version, pgpass, operator_password, server })
    }

    /// Its console.
    #[must_use]
    pub fn console(&self) -> Console {
        let door = Door::new(self.port, OPERATOR);
        Console(door.with_password(&self.operator_password).to_database("pgimbal"))
    }

    /// The applications' way in: the first password, whatever it is by now.
    #[must_use]
    pub fn door(&self, credentials: &Credentials) -> Door {
        Door::new(self.port, APPLICATION).with_password(credentials.first_password())
    }

    /// Its last log lines.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }
}

/// The program to show: `PGIMBAL`, or the released one.
///
/// # Errors
/// When there is none.
pub fn program() -> Result<PathBuf> {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let program = std::env::var("PGIMBAL")
        .map_or_else(|_| Path::new(&target).join("release/pgimbal"), PathBuf::from);
    if program.exists() {
        return Ok(program);
    }
    Err(Error::Program(format!("there is no {}: run make demo", program.display())))
}
