//! Who is compared, and how each is started.

use crate::place::{Place, free_port};
use crate::postgres::{DATABASE, PASSWORD, Postgres, ROLE, SCRAM_ROLE};
use crate::server::Server;
use crate::settings::{self, Login, POOL_SIZE};
use crate::{During, Error, Result};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name of the contender that all ratios refer to.
pub const REFERENCE: &str = "pgbouncer";

/// One way from a client to PostgreSQL.
#[derive(Debug)]
pub struct Contender {
    /// Its name in tables and files.
    pub name: String,
    /// What it says about itself.
    pub version: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Direct,
    PgBouncer { program: PathBuf },
    Pgimbal { program: PathBuf },
    Named { command: String, config: Option<String> },
}

/// A contender that accepts clients.
#[derive(Debug)]
pub struct Running {
    /// The port on 127.0.0.1 that clients use.
    pub port: u16,
    /// The role that clients use.
    pub role: &'static str,
    server: Option<Server>,
}

impl Running {
    /// The pooler's process id; `None` without a pooler.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// The pooler's last log lines, for a report of what went wrong.
    #[must_use]
    pub fn last_words(&self) -> String {
        self.server.as_ref().map(Server::last_words).unwrap_or_default()
    }
}

impl Contender {
    /// PostgreSQL without a pooler.
    #[must_use]
    pub fn direct(postgres: &Postgres) -> Self {
        Self { name: "direct".into(), version: postgres.version.clone(), kind: Kind::Direct }
    }

    /// The PgBouncer in `folder`, as `benches/fetch-pgbouncer` leaves it; copied into `place`
    /// because the servers' user may not read the cache.
    ///
    /// # Errors
    /// When it cannot be copied or does not run.
    pub fn pgbouncer(place: &Place, folder: &Path) -> Result<Self> {
        let program = place.copy_in(folder, "pgbouncer")?.join("pgbouncer");
        let version = first_line(Command::new(&program).arg("--version"))?;
        let version = version.trim_start_matches("PgBouncer ").to_owned();
        Ok(Self { name: REFERENCE.into(), version, kind: Kind::PgBouncer { program } })
    }

    /// The pgimbal at `program`, copied into `place` for the same reason.
    ///
    /// # Errors
    /// When it cannot be copied or does not run.
    pub fn pgimbal(place: &Place, program: &Path) -> Result<Self> {
        let program = place.copy_in(program, "pgimbal")?;
        let version = first_line(Command::new(&program).arg("--version"))?;
        let version = version.trim_start_matches("pgimbal ").to_owned();
        Ok(Self { name: "pgimbal".into(), version, kind: Kind::Pgimbal { program } })
    }

    /// The poolers that the environment names: `BENCH_POOLER_<name>` holds a command line and
    /// `BENCH_POOLER_<name>_CONFIG` the path of a configuration, both with placeholders that
    /// [`fill`] replaces.
    ///
    /// # Errors
    /// When a configuration cannot be read.
    pub fn from_environment() -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for (key, command) in std::env::vars() {
            let Some(name) =
                key.strip_prefix("BENCH_POOLER_").filter(|name| !name.ends_with("_CONFIG"))
            else {
                continue;
            };
            let config = match std::env::var(format!("{key}_CONFIG")) {
                Ok(path) => Some(std::fs::read_to_string(&path).during(format!("reading {path}"))?),
                Err(_) => None,
            };
            let kind = Kind::Named { command, config };
            found.push(Self { name: name.to_lowercase(), version: String::new(), kind });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Whether it can ask clients for SCRAM.
    #[must_use]
    pub fn knows_scram(&self) -> bool {
        match &self.kind {
            Kind::Named { command, config } => {
                command.contains("{auth}")
                    || config.as_ref().is_some_and(|text| text.contains("{auth}"))
            }
            _ => true,
        }
    }

    /// Starts it before `postgres`.
    ///
    /// # Errors
    /// When it does not start to listen.
    pub fn start(&self, place: &Place, postgres: &Postgres, login: Login) -> Result<Running> {
        let port = free_port()?;
        let (command, stop) = match &self.kind {
            Kind::Direct => {
                let role = if login == Login::Scram { SCRAM_ROLE } else { ROLE };
                return Ok(Running { port: postgres.port, role, server: None });
            }
            Kind::PgBouncer { program } => {
                let users = place.write("users.txt", &settings::pgbouncer_users(postgres))?;
                let text = settings::pgbouncer(postgres, login, port, &users.display().to_string());
                let mut command = place.command(program);
                command.arg(place.write(&format!("pgbouncer-{port}.ini"), &text)?);
                // SIGTERM would wait for clients; SIGQUIT leaves at once.
                (command, Signal::QUIT)
            }
            Kind::Pgimbal { program } => {
                let text = settings::pgimbal(postgres, login, port);
                let mut command = place.command(program);
                command
                    .arg("run")
                    .arg("--config")
                    .arg(place.write(&format!("pgimbal-{port}.toml"), &text)?);
                (command, Signal::INT)
            }
            Kind::Named { command, config } => {
                (named(place, postgres, login, port, command, config.as_deref())?, Signal::TERM)
            }
        };
        let log = place.path().join(format!("{}-{port}.log", self.name));
        let server = Server::start(&self.name, command, &log, port, stop)?;
        Ok(Running { port, role: ROLE, server: Some(server) })
    }
}

/// Replaces the placeholders of a named pooler's command line and configuration.
#[must_use]
pub fn fill(text: &str, postgres: &Postgres, login: Login, port: u16) -> String {
    let auth = if login == Login::Scram { "scram-sha-256" } else { "trust" };
    text.replace("{port}", &port.to_string())
        .replace("{server_host}", "127.0.0.1")
        .replace("{server_port}", &postgres.port.to_string())
        .replace("{database}", DATABASE)
        .replace("{user}", ROLE)
        .replace("{password}", PASSWORD)
        .replace("{verifier}", &postgres.verifier)
        .replace("{pool_size}", &POOL_SIZE.to_string())
        .replace("{auth}", auth)
}

fn named(
    place: &Place,
    postgres: &Postgres,
    login: Login,
    port: u16,
    command: &str,
    config: Option<&str>,
) -> Result<Command> {
    let mut line = fill(command, postgres, login, port);
    if let Some(config) = config {
        let path = place.write(&format!("config-{port}"), &fill(config, postgres, login, port))?;
        line = line.replace("{config}", &path.display().to_string());
    }
    // exec, so that the process that is measured is the pooler and not the shell.
    let mut shell = place.command("sh");
    shell.args(["-c", &format!("exec {line}")]);
    Ok(shell)
}

fn first_line(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().during(format!("running {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next() {
        Some(line) if output.status.success() => Ok(line.to_owned()),
        _ => Err(Error::Program(format!("{program} --version: {}", output.status))),
    }
}
