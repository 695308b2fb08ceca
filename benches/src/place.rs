//! A folder for one run, and the system user whose servers live in it.
//!
//! PostgreSQL and PgBouncer refuse to run as root, so a run by root hands its folder and
//! its servers to user `postgres`; anybody else runs them as themselves.

use crate::{During, Error, Result};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// A temporary folder that disappears with its value.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    owner: Option<Owner>,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Place {
    /// Makes the folder under the system's temporary folder.
    ///
    /// # Errors
    /// When it cannot be made, or root finds no user `postgres` to run servers as.
    pub fn new(purpose: &str) -> Result<Self> {
        let owner =
            if rustix::process::geteuid().is_root() { Some(postgres_user()?) } else { None };
        let nanos =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.subsec_nanos());
        let name = format!("pgimbal-{purpose}-{}-{nanos:08x}", std::process::id());
        let place = Self { path: std::env::temp_dir().join(name), owner };
        fs::create_dir(&place.path).during(format!("making {}", place.path.display()))?;
        place.hand_over(&place.path)?;
        Ok(place)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that the servers' user owns and nobody else reads.
    ///
    /// # Errors
    /// When writing fails.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, text).during(format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .during("setting permissions")?;
        self.hand_over(&path)?;
        Ok(path)
    }

    /// Makes a folder that the servers' user owns.
    ///
    /// # Errors
    /// When making it fails.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).during(format!("making {}", path.display()))?;
        self.hand_over(&path)?;
        Ok(path)
    }

    /// Copies a file or a folder in, for a servers' user who may not read where it lies.
    ///
    /// # Errors
    /// When `cp` fails.
    pub fn copy_in(&self, from: &Path, name: &str) -> Result<PathBuf> {
        let to = self.path.join(name);
        let status =
            Command::new("cp").arg("-RL").arg(from).arg(&to).status().during("running cp")?;
        if !status.success() {
            return Err(Error::Program(format!("copying {} failed: {status}", from.display())));
        }
        Ok(to)
    }

    /// A command that will run as the servers' user, in a process group of its own: Ctrl-C
    /// reaches the benchmark, which then stops its servers in order. Should the benchmark be
    /// killed, the kernel takes them down.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.own_command(program);
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    /// A command as [`Place::command`]'s that runs as whoever runs the benchmark.
    #[must_use]
    pub fn own_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command.current_dir(&self.path).process_group(0);
        command.env("HOME", &self.path);
        // What the environment would override differs from one machine to the next.
        for (key, _) in std::env::vars_os().filter(|(key, _)| overrides(key)) {
            command.env_remove(key);
        }
        command
    }

    fn hand_over(&self, path: &Path) -> Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        chown(path, Some(owner.uid), Some(owner.gid))
            .during(format!("giving {} away", path.display()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::env::var_os("BENCH_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A TCP port of 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).during("looking for a free port")?;
    Ok(listener.local_addr().during("looking for a free port")?.port())
}

/// Lets this process and its children hold `wanted` open files, or as many as allowed.
/// Returns the limit that holds now.
#[must_use]
pub fn raise_open_files(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = getrlimit(Resource::Nofile);
    let current = limits.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    let hard = limits.maximum.unwrap_or(u64::MAX);
    for (soft, maximum) in [(wanted, hard.max(wanted)), (hard, hard)] {
        let new = Rlimit { current: Some(soft), maximum: Some(maximum) };
        if setrlimit(Resource::Nofile, new).is_ok() {
            return soft;
        }
    }
    current
}

/// Whether a variable configures pgimbal (`PGIMBAL_...`), PostgreSQL or its clients (`PG...`).
fn overrides(key: &std::ffi::OsStr) -> bool {
    key.to_str().is_some_and(|key| key.starts_with("PG"))
}

fn postgres_user() -> Result<Owner> {
    let passwd = fs::read_to_string("/etc/passwd").during("reading /etc/passwd")?;
    let parse = |line: &str| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some(Owner { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    };
    passwd.lines().find_map(parse).ok_or_else(|| {
        Error::Program(
            "root cannot run PostgreSQL and there is no user postgres: apt-get install postgresql"
                .into(),
        )
    })
}
