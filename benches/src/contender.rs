//! Who is compared, and how each is started.

use crate::place::{Place, free_port};
use crate::postgres::{DATABASE, PASSWORD, Postgres, ROLE, SCRAM_ROLE};
use crate::server::Server;
use crate::settings::{self, Login, Tuning};
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
    pub fn log_tail(&self) -> String {
        self.server.as_ref().map(Server::log_tail).unwrap_or_default()
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
    /// `BENCH_POOLER_<name>_CONFIG` the path of a configuration, both with placeholders,
    /// which benches/README.md lists.
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

    /// Whether it can be told all of `tuning`.
    #[must_use]
    pub fn takes(&self, tuning: Tuning) -> bool {
        let usual = Tuning::default();
        match &self.kind {
            Kind::Pgimbal { .. } => true,
            Kind::Direct | Kind::PgBouncer { .. } => tuning.verify == usual.verify,
            Kind::Named { .. } => {
                tuning.verify == usual.verify && tuning.statements == usual.statements
            }
        }
    }

    /// Starts it before `postgres`.
    ///
    /// # Errors
    /// When it does not start to listen.
    pub fn start(&self, place: &Place, postgres: &Postgres, login: Login) -> Result<Running> {
        self.start_tuned(place, postgres, login, Tuning::default())
    }

    /// Starts it before `postgres`, told what one scenario needs.
    ///
    /// # Errors
    /// When it does not start to listen.
    pub fn start_tuned(
        &self,
        place: &Place,
        postgres: &Postgres,
        login: Login,
        tuning: Tuning,
    ) -> Result<Running> {
        let port = free_port()?;
        let (command, stop) = match &self.kind {
            Kind::Direct => {
                let role = if login == Login::Scram { SCRAM_ROLE } else { ROLE };
                return Ok(Running { port: postgres.port, role, server: None });
            }
            Kind::PgBouncer { program } => {
                let users = place.write("users.txt", &settings::pgbouncer_users(postgres))?;
                let users = users.display().to_string();
                let text = settings::pgbouncer(postgres, login, tuning, port, &users);
                let mut command = place.command(program);
                command.arg(place.write(&format!("pgbouncer-{port}.ini"), &text)?);
                // SIGTERM would wait for clients; SIGQUIT leaves at once.
                (command, Signal::QUIT)
            }
            Kind::Pgimbal { program } => {
                let text = settings::pgimbal(postgres, login, tuning, port);
                let mut command = place.command(program);
                command
                    .arg("run")
                    .arg("--config")
                    .arg(place.write(&format!("pgimbal-{port}.toml"), &text)?);
                (command, Signal::INT)
            }
            Kind::Named { command, config } => {
                let values = Values { postgres, login, tuning, port };
                (values.command(place, command, config.as_deref())?, Signal::TERM)
            }
        };
        let log = place.path().join(format!("{}-{port}.log", self.name));
        let server = Server::start(&self.name, command, &log, port, stop)?;
        Ok(Running { port, role: ROLE, server: Some(server) })
    }
}

/// What the placeholders of a named pooler's command line and configuration stand for.
struct Values<'a> {
    postgres: &'a Postgres,
    login: Login,
    tuning: Tuning,
    port: u16,
}

impl Values<'_> {
    fn fill(&self, text: &str) -> String {
        let auth = if self.login == Login::Scram { "scram-sha-256" } else { "trust" };
        text.replace("{port}", &self.port.to_string())
            .replace("{server_host}", "127.0.0.1")
            .replace("{server_port}", &self.postgres.port.to_string())
            .replace("{database}", DATABASE)
            .replace("{user}", ROLE)
            .replace("{password}", PASSWORD)
            .replace("{verifier}", &self.postgres.verifier)
            .replace("{pool_size}", &self.tuning.pool_size.to_string())
            .replace("{auth}", auth)
    }

    fn command(&self, place: &Place, command: &str, config: Option<&str>) -> Result<Command> {
        let mut line = self.fill(command);
        if let Some(config) = config {
            let path = place.write(&format!("config-{}", self.port), &self.fill(config))?;
            line = line.replace("{config}", &path.display().to_string());
        }
        // exec, so that the process that is measured is the pooler and not the shell.
        let mut shell = place.command("sh");
        shell.args(["-c", &format!("exec {line}")]);
        Ok(shell)
    }
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
