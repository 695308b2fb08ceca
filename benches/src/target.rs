//! The targets that are compared, and how each is started.

use crate::postgres::{DATABASE, ROLE, SCRAM_ROLE, password};
use crate::settings::{self, Login, Tuning};
use crate::{During, Error, Result};
use pgimbal_tests::Postgres;
use pgimbal_tests::pgimbal::{program, undisturbed};
use pgimbal_tests::port::free_port;
use pgimbal_tests::postgres::as_postgres;
use pgimbal_tests::process::{Directory, Process, directory};
use pgimbal_tests::program::tail;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name of the target that all ratios refer to.
pub const REFERENCE: &str = "pgbouncer";

/// One way from a client to PostgreSQL: directly, or through a pooler.
#[derive(Debug)]
pub struct Target {
    /// The target's name in tables and files.
    pub name: String,
    /// The version that the target reports; empty for a pooler of the environment.
    pub version: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Direct,
    PgBouncer { folder: Directory },
    Pgimbal,
    Named { command: String, config: Option<String> },
}

/// A target that accepts clients. A pooler ends when this is dropped.
pub struct Running {
    /// The port on 127.0.0.1 that clients connect to.
    pub port: u16,
    /// The role with which clients log in.
    pub role: &'static str,
    process: Option<(Process, Directory)>,
}

impl Running {
    /// The pooler's process id; `None` for PostgreSQL without a pooler.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|(process, _)| process.id())
    }

    /// The pooler's last 8 log lines, to explain a failure; empty without a pooler.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map(|(process, _)| tail(&process.log(), 8)).unwrap_or_default()
    }
}

impl Target {
    /// PostgreSQL without a pooler.
    #[must_use]
    pub fn direct(postgres: &Postgres) -> Self {
        Self {
            name: "direct".into(),
            version: postgres.value("show server_version"),
            kind: Kind::Direct,
        }
    }

    /// The PgBouncer in `folder`, as `benches/fetch-pgbouncer` leaves it; copied, because the user
    /// that it runs as may not read the cache.
    ///
    /// # Errors
    /// When it cannot be copied or does not run.
    pub fn pgbouncer(folder: &Path) -> Result<Self> {
        let copy = directory("pgbouncer");
        let copied = Command::new("cp").arg("-RL").arg(folder.join(".")).arg(&*copy).status();
        if !copied.during("running cp")?.success() {
            return Err(Error::Program(format!("copying {} failed", folder.display())));
        }
        let version = first_line(Command::new(copy.join("pgbouncer")).arg("--version"))?;
        let version = version.trim_start_matches("PgBouncer ").to_owned();
        Ok(Self { name: REFERENCE.into(), version, kind: Kind::PgBouncer { folder: copy } })
    }

    /// The pgimbal that `PGIMBAL_BIN` names, or the one built beside this program.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pgimbal() -> Result<Self> {
        let version = first_line(Command::new(program()).arg("--version"))?;
        let version = version.trim_start_matches("pgimbal ").to_owned();
        Ok(Self { name: "pgimbal".into(), version, kind: Kind::Pgimbal })
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
                Ok(path) => Some(fs::read_to_string(&path).during(format!("reading {path}"))?),
                Err(_) => None,
            };
            let kind = Kind::Named { command, config };
            found.push(Self { name: name.to_lowercase(), version: String::new(), kind });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Whether the target can ask clients for SCRAM; a named pooler can when it has the placeholder
    /// `{auth}`.
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

    /// Whether the target has all settings of `tuning`; it is left out of the scenario otherwise.
    #[must_use]
    pub fn takes(&self, tuning: Tuning) -> bool {
        let usual = Tuning::default();
        match &self.kind {
            Kind::Pgimbal => true,
            Kind::Direct | Kind::PgBouncer { .. } => tuning.verify == usual.verify,
            Kind::Named { .. } => {
                tuning.verify == usual.verify && tuning.statements == usual.statements
            }
        }
    }

    /// Starts the target in front of `postgres` on a free port, and waits until it listens.
    ///
    /// # Errors
    /// When its configuration cannot be written.
    ///
    /// # Panics
    /// When it does not start to listen.
    pub fn start(&self, postgres: &Postgres, login: Login) -> Result<Running> {
        self.start_tuned(postgres, login, Tuning::default())
    }

    /// Starts the target as [`Self::start`] does, with the settings of one scenario.
    ///
    /// # Errors
    /// As for [`Target::start`].
    ///
    /// # Panics
    /// As for [`Target::start`].
    pub fn start_tuned(
        &self,
        postgres: &Postgres,
        login: Login,
        tuning: Tuning,
    ) -> Result<Running> {
        let port = free_port();
        let files = directory(&self.name);
        let (command, end) = match &self.kind {
            Kind::Direct => {
                let role = if login == Login::Scram { SCRAM_ROLE } else { ROLE };
                return Ok(Running { port: postgres.port, role, process: None });
            }
            Kind::PgBouncer { folder } => {
                let users = write(&files, "users.txt", &settings::pgbouncer_users(postgres))?;
                let users = users.display().to_string();
                let text = settings::pgbouncer(postgres, login, tuning, port, &users);
                let mut command = as_postgres(&folder.join("pgbouncer"));
                command.arg(write(&files, "pgbouncer.ini", &text)?);
                // SIGTERM would wait for clients; SIGQUIT leaves at once.
                (command, Signal::QUIT)
            }
            Kind::Pgimbal => {
                let text = settings::pgimbal(postgres, login, tuning, port);
                let mut command = undisturbed(program());
                command.args(["run", "--config"]).arg(write(&files, "pgimbal.toml", &text)?);
                (command, Signal::INT)
            }
            Kind::Named { command, config } => {
                let values = Values { postgres, login, tuning, port };
                (values.command(&files, command, config.as_deref())?, Signal::TERM)
            }
        };
        let mut process = Process::start(command, &files, end);
        process.wait_until_it_listens(&self.name, &[port]);
        Ok(Running { port, role: ROLE, process: Some((process, files)) })
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
            .replace("{password}", &password(ROLE))
            .replace("{verifier}", &self.postgres.verifier(ROLE))
            .replace("{pool_size}", &self.tuning.pool_size.to_string())
            .replace("{auth}", auth)
    }

    fn command(&self, files: &Path, command: &str, config: Option<&str>) -> Result<Command> {
        let mut line = self.fill(command);
        if let Some(config) = config {
            let path = write(files, "config", &self.fill(config))?;
            line = line.replace("{config}", &path.display().to_string());
        }
        // exec, so that the process that is measured is the pooler and not the shell.
        let mut shell = as_postgres(Path::new("sh"));
        shell.args(["-c", &format!("exec {line}")]);
        Ok(shell)
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text).during(format!("writing {}", path.display()))?;
    Ok(path)
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
