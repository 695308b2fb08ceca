//! A throwaway PostgreSQL with pgbench's tables.

use crate::place::{Place, free_port};
use crate::server::Server;
use crate::{During, Error, Result, scram};
use rustix::process::{Pid, Signal, kill_process_group};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// The role every client and pooler uses.
pub const ROLE: &str = "bench";
/// The role that PostgreSQL itself asks for the password.
pub const SCRAM_ROLE: &str = "bench_scram";
/// Both roles' password, where a scenario asks for one. It guards a throwaway server.
pub const PASSWORD: &str = "bench-password";
/// The database with pgbench's tables.
pub const DATABASE: &str = "bench";
/// pgbench's scale: 1,000,000 accounts, 150 MB, which fits the server's buffers.
const SCALE: u32 = 10;

/// A running PostgreSQL of our own.
#[derive(Debug)]
pub struct Postgres {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// What `postgres --version` says, without the program's name.
    pub version: String,
    /// The role's SCRAM verifier, as `pg_authid` holds it.
    pub verifier: String,
    server: Server,
}

impl Postgres {
    /// Initialises, starts and fills a server in `place`.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or a step fails.
    pub fn start(place: &Place) -> Result<Self> {
        let bin = binaries()?;
        let data = place.folder("data")?;
        run(place
            .command(bin.join("initdb"))
            .args([
                "--auth=trust",
                "--username",
                ROLE,
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
            ])
            .arg(&data))?;
        let port = free_port()?;
        let verifier = scram::verifier(PASSWORD);
        place.write("data/pg_hba.conf", HBA)?;
        let mut command = place.command(bin.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(place.path());
        for setting in
            [&format!("port={port}"), "listen_addresses=127.0.0.1"].into_iter().chain(SETTINGS)
        {
            command.args(["-c", setting]);
        }
        // SIGINT is PostgreSQL's fast shutdown: clients are not waited for.
        let server = Server::start(
            "PostgreSQL",
            command,
            &place.path().join("postgres.log"),
            port,
            Signal::INT,
        )?;
        let postgres = Self { port, version: version(&bin)?, verifier, server };
        postgres.fill(&bin)?;
        Ok(postgres)
    }

    /// The process id of the postmaster.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    fn fill(&self, bin: &Path) -> Result<()> {
        let psql = |database: &str, text: &str| {
            run(Command::new(bin.join("psql"))
                .args([
                    "-qX",
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-h",
                    "127.0.0.1",
                    "-U",
                    ROLE,
                    "-d",
                    database,
                ])
                .args(["-p", &self.port.to_string(), "-c", text]))
        };
        psql("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
        psql(DATABASE, &format!("ALTER ROLE {ROLE} PASSWORD '{}'", self.verifier))?;
        psql(DATABASE, &format!("CREATE ROLE {SCRAM_ROLE} LOGIN PASSWORD '{}'", self.verifier))?;
        run(Command::new(bin.join("pgbench"))
            .args([
                "-i",
                "-q",
                "-I",
                "dtgvp",
                "-s",
                &SCALE.to_string(),
                "-h",
                "127.0.0.1",
                "-U",
                ROLE,
            ])
            .args(["-p", &self.port.to_string(), DATABASE]))?;
        psql(DATABASE, "CHECKPOINT")
    }
}

/// Trust for everybody, poolers above all, except for the role of the SCRAM scenario without one.
const HBA: &str = "\
local all all trust
host all bench_scram 127.0.0.0/8 scram-sha-256
host all all 127.0.0.0/8 trust
";

/// Durability is off because it is not what is measured; the rest keeps the server out of the way.
const SETTINGS: [&str; 8] = [
    "max_connections=600",
    "shared_buffers=256MB",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "logging_collector=off",
    "jit=off",
];

/// PostgreSQL's own programs, the newest installed version's.
///
/// # Errors
/// When none is installed.
pub fn binaries() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("BENCH_PG_BIN") {
        return Ok(folder.into());
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("postgres").exists())
        .collect();
    versions.sort();
    versions.pop().map(|(_, bin)| bin).ok_or_else(|| {
        Error::Program("no PostgreSQL under /usr/lib/postgresql: apt-get install postgresql, or set BENCH_PG_BIN".into())
    })
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails; the error carries its messages.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let output = command.output().during(format!("running {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Program(format!(
        "{program}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

/// As [`run`], of a command with a process group of its own that is ended once `stop` is raised.
///
/// # Errors
/// As there, and when it was ended.
pub(crate) fn run_until(stop: &AtomicBool, command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let doing = || format!("running {program}");
    let mut child = command.stdout(Stdio::null()).spawn().during(doing())?;
    loop {
        if let Some(status) = child.try_wait().during(doing())? {
            return match status.success() {
                true => Ok(()),
                false => Err(Error::Program(format!("{program}: {status}"))),
            };
        }
        if stop.load(Ordering::Relaxed) {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            let _ = child.wait();
            return go_on(stop);
        }
        sleep(Duration::from_millis(10));
    }
}

/// Goes on, unless `stop` is raised.
///
/// # Errors
/// When it is.
pub(crate) fn go_on(stop: &AtomicBool) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Error::Program("interrupted".to_owned())),
        false => Ok(()),
    }
}

fn version(bin: &Path) -> Result<String> {
    let output = Command::new(bin.join("postgres"))
        .arg("--version")
        .output()
        .during("asking PostgreSQL's version")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim().trim_start_matches("postgres (PostgreSQL) ").to_owned())
}
