//! pgimbal in front of the cluster, configured and started as any user would.

use crate::client::Endpoint;
use crate::demo::credentials::{Credentials, random_password};
use crate::demo::{APPLICATION, OPERATOR};
use crate::{During, Result};
use pgimbal_tests::pgimbal::{Config, program};
use pgimbal_tests::program::tail;
use pgimbal_tests::{Cluster, Login, Pgimbal as Server};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The option `pool_size`: server connections of a pool.
pub const POOL_SIZE: u32 = 20;

/// A running pgimbal, which ends when this is dropped.
pub struct Pgimbal {
    /// The version that `pgimbal --version` prints.
    pub version: String,
    /// The path of a file for `PGPASSFILE`, with the passwords of the application and of the
    /// operator.
    pub pgpass: PathBuf,
    operator: Login,
    server: Server,
}

/// The latest failover as `SHOW FAILOVERS` lists it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Failover {
    /// Number of clients' transactions that waited, of statements that ran again, and of errors.
    pub counts: [u64; 3],
    /// The old and the new primary, as text.
    pub way: String,
}

impl Pgimbal {
    /// Starts pgimbal in front of the cluster, with a client limit (`max_client_conn`) for
    /// `clients` applications.
    ///
    /// # Errors
    /// When its program does not run, or a file cannot be written.
    ///
    /// # Panics
    /// When it does not start to listen.
    pub fn start(cluster: &Cluster, credentials: &Credentials, clients: u32) -> Result<Self> {
        let said = Command::new(program()).arg("--version").output().during("running pgimbal")?;
        let password = random_password()?;
        let server = Config::before_cluster(cluster)
            .without(&["workers", "probe_interval", "probe_timeout"])
            .with_state_dir()
            .set("auth_type", "\"scram-sha-256\"")
            .set("max_client_conn", 2 * clients + 50)
            .set("admin_users", format!("[\"{OPERATOR}\"]"))
            .set("pool_size", POOL_SIZE)
            // So that many connections are opened, with whatever the password is by then.
            .set("server_lifetime", "\"5s\"")
            .set("grace_generations", 1000)
            .tables(&format!("[users.{OPERATOR}]\npassword = \"{password}\"\n"))
            .tables(&credentials.tables())
            .start();
        let pgpass = server.directory().join("pgpass");
        let passwords = format!(
            "*:*:*:{APPLICATION}:{}\n*:*:*:{OPERATOR}:{password}\n",
            credentials.first_password()
        );
        write_private(&pgpass, &passwords).during("writing the passwords for psql")?;
        Ok(Self {
            version: String::from_utf8_lossy(&said.stdout).trim().to_owned(),
            pgpass,
            operator: Login::new(OPERATOR, "pgimbal", &password),
            server,
        })
    }

    /// The port on 127.0.0.1 on which clients connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The endpoint at which the applications log in, with the first password even after rotations.
    #[must_use]
    pub fn endpoint(&self, credentials: &Credentials) -> Endpoint {
        Endpoint::new(self.server.port, APPLICATION).with_password(credentials.first_password())
    }

    /// The state of the node `name` and the reason for it, as the console shows them; both are
    /// empty when the node is not known.
    #[must_use]
    pub fn node(&self, name: &str) -> (String, String) {
        let rows = self.console("show nodes");
        let row = rows.iter().find(|row| field(row, "node") == name);
        row.map_or_else(Default::default, |row| {
            (field(row, "state").to_owned(), field(row, "why").to_owned())
        })
    }

    /// The latest failover; `None` when there was none.
    #[must_use]
    pub fn failover(&self) -> Option<Failover> {
        let rows = self.console("show failovers");
        let latest = rows.iter().max_by_key(|row| field(row, "started"))?;
        Some(Failover {
            counts: ["held", "rerun", "failed"]
                .map(|name| field(latest, name).parse().unwrap_or(0)),
            way: format!("{} -> {}", field(latest, "from"), field(latest, "to")),
        })
    }

    /// Number of generations of the user's password that clients may show.
    #[must_use]
    pub fn generations(&self, user: &str) -> usize {
        let rows = self.console("show credentials");
        let rows = rows.iter().filter(|row| field(row, "user") == user);
        let told = rows.clone().filter_map(|row| field(row, "accepted_generations").parse().ok());
        told.max().unwrap_or(0).max(rows.count())
    }

    /// The last lines of pgimbal's log, to explain a failure.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.server.log(), 8)
    }

    fn console(&self, command: &str) -> Vec<Vec<(String, String)>> {
        self.server.console_as(&self.operator, command)
    }
}

/// A field of a console's row; empty when there is none.
fn field<'a>(row: &'a [(String, String)], column: &str) -> &'a str {
    row.iter().find(|(name, _)| name == column).map_or("", |(_, value)| value)
}

/// Writes a file that only its owner may read, as psql wants it.
fn write_private(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}
