//! A throwaway PostgreSQL server: initdb runs once, and each test gets a copy.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Deref;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::certificates::Certificates;
use crate::leash::Leash;
use crate::port::free_port;
use crate::process::{self, Directory, Process};
use crate::server::Server;
use crate::until::{SOON, eventually};

/// The password of every role is the role's name followed by this suffix.
pub const PASSWORD_SUFFIX: &str = "-secret";

/// The roles of the template beside the superuser `postgres`. `postgres` and `app` are trusted; the
/// others log in with the method that their name says.
const ROLES: &str = "\
create role app login password 'app-secret';
create role scram login password 'scram-secret';
create role clear login password 'clear-secret';
set password_encryption = 'md5';
create role md5 login password 'md5-secret';
create database app;
";

pub(crate) const HBA: &str = "\
local all postgres,app trust
local all all scram-sha-256
host all postgres,app 127.0.0.1/32 trust
host all md5 127.0.0.1/32 md5
host all clear 127.0.0.1/32 password
host all all 127.0.0.1/32 scram-sha-256
";

/// Debian's OpenSSL refuses to serve with an RSA key of 1024 bits unless it is told to.
const ANY_KEY: &str = "\
openssl_conf = conf
[conf]
ssl_conf = ssl
[ssl]
system_default = any
[any]
CipherString = DEFAULT@SECLEVEL=0
MinProtocol = TLSv1.2
";

/// A running server with a database `app`. Dropping it ends the server and removes its files.
pub struct Postgres {
    process: Option<Process>,
    server: Server,
}

impl Postgres {
    /// Starts a server with `max_connections = 100`.
    ///
    /// # Panics
    /// When there is no PostgreSQL 15 or newer, or it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with settings such as `max_connections=5`.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[must_use]
    pub fn with(settings: &[&str]) -> Self {
        Self::prepare(process::directory("pg"), settings, |_| {})
    }

    /// Starts a server whose data is in memory if there is enough, for tests that make many files.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[must_use]
    pub fn in_memory(settings: &[&str]) -> Self {
        Self::prepare(process::directory_in_memory("pg"), settings, |_| {})
    }

    /// Starts a server that speaks TLS with `certificates`, and refuses `app` without TLS.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[must_use]
    pub fn with_tls(certificates: &Certificates) -> Self {
        let settings = ["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"];
        Self::prepare(process::directory("pg"), &settings, |data| {
            let hba = format!(
                "local all postgres trust\nhostssl all app 127.0.0.1/32 trust\n\
                 hostnossl all app 127.0.0.1/32 reject\n{}",
                HBA.replace(",app", "")
            );
            fs::write(data.join("pg_hba.conf"), hba).expect("pg_hba.conf");
            fs::write(data.join("openssl.cnf"), ANY_KEY).expect("OpenSSL's configuration");
            fs::write(data.join("server.crt"), &certificates.chain).expect("a certificate");
            fs::write(data.join("server.key"), &certificates.key).expect("a key");
            run(Command::new("chmod").arg("600").arg(data.join("server.key")));
            run(Command::new("chown").arg("--reference").arg(data).arg(data.join("server.key")));
        })
    }

    fn prepare(directory: Directory, settings: &[&str], change: impl FnOnce(&Path)) -> Self {
        let server = Server::copy(&template(), directory, free_port(), settings);
        change(&server.data());
        let mut server = Self { process: None, server };
        server.restart();
        server
    }

    /// Starts the server again on the same port after [`Postgres::stop`].
    ///
    /// # Panics
    /// When the server runs or does not start.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "it runs");
        // A crash leaves its pid file; the next start of a copied cluster must not mind it.
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
        let command = self.command(&["listen_addresses=127.0.0.1", "log_connections=on"]);
        let mut process = Process::start(command, &self.directory, Signal::QUIT);
        self.wait_until_it_accepts(&mut process);
        self.process = Some(process);
    }

    /// Its postmaster's process id.
    ///
    /// # Panics
    /// When it is stopped.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("a running server").id()
    }

    /// Stops it at once, as a crash would.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Ends every backend other than superusers' (`pg_terminate_backend`), and waits until they are
    /// gone.
    ///
    /// # Panics
    /// When a backend stays.
    pub fn end_backends(&self) {
        let others = "backend_type = 'client backend' and usename <> 'postgres'";
        self.run(&format!("select pg_terminate_backend(pid) from pg_stat_activity where {others}"));
        eventually("the backends end", SOON, || self.backends() == 0);
    }

    /// Number of lines of the server's log that contain `text`.
    #[must_use]
    pub fn logged(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }
}

impl Deref for Postgres {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            crate::program::print_tail("PostgreSQL", &self.log());
        }
        self.process = None;
    }
}

/// The directory with the server programs: `PGIMBAL_PG_BIN`, or the newest that are installed, 15
/// or later.
///
/// # Panics
/// When there is none; `tests/set-up` installs it.
#[must_use]
pub fn bin() -> PathBuf {
    if let Some(chosen) = std::env::var_os("PGIMBAL_PG_BIN") {
        return chosen.into();
    }
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let version = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        found.push((version, entry.path().join("bin")));
    }
    found.sort();
    let packaged =
        found.pop().filter(|(version, path)| *version >= 15 && path.join("initdb").exists());
    let in_path = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).find(|directory| directory.join("initdb").exists())
    };
    packaged
        .map(|(_, path)| path)
        .or_else(in_path)
        .expect("PostgreSQL 15 or newer: run tests/set-up")
}

/// The initialised cluster that each test copies.
fn template() -> PathBuf {
    cached("cluster-2", |scratch| make_cluster(&bin(), scratch))
}

/// A directory that `make` leaves as `data` in an empty one, made once per build directory and
/// version of PostgreSQL.
pub(crate) fn cached(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let bin = bin();
    let version =
        bin.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let cache = program_directory().join("pgimbal-tests");
    fs::create_dir_all(&cache).expect("a cache directory");
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("the lock");
    let made = cache.join(format!("{name}-{version}"));
    if !made.exists() {
        let scratch = process::directory("initdb");
        // What is under way goes on for a moment, and finds that its directory has gone.
        let tidy = "rm -rf -- \"$0\"; sleep 1; rm -rf -- \"$0\"";
        let _leash = Leash::start(tidy, [scratch.as_os_str()]);
        make(&scratch);
        let partial = cache.join(format!("{name}.partial"));
        let _ = fs::remove_dir_all(&partial);
        run(Command::new("cp").arg("-a").arg(scratch.join("data")).arg(&partial));
        fs::rename(&partial, &made).expect("the template");
    }
    made
}

pub(crate) fn make_cluster(bin: &Path, scratch: &Path) {
    if rustix::process::geteuid().is_root() {
        run(Command::new("chown").arg("postgres").arg(scratch));
    }
    let data = scratch.join("data");
    let mut initdb = as_postgres(&bin.join("initdb"));
    let options = [
        "--username=postgres",
        "--auth=trust",
        "--no-sync",
        "--no-locale",
        "--encoding=UTF8",
        "--wal-segsize=1",
    ];
    run(initdb.args(options).arg("-D").arg(&data));
    let mut single = as_postgres(&bin.join("postgres"));
    single.args(["--single", "-D"]).arg(&data).arg("postgres");
    let mut child = single
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("postgres --single");
    child.stdin.take().expect("its input").write_all(ROLES.as_bytes()).expect("the roles");
    assert!(child.wait().expect("its end").success(), "the roles were refused");
    fs::write(data.join("pg_hba.conf"), HBA).expect("pg_hba.conf");
    let settings = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nshared_buffers = 16MB\n\
                    max_connections = 100\nautovacuum = off\njit = off\nmax_wal_size = 64MB\n";
    fs::write(data.join("postgresql.auto.conf"), settings).expect("settings");
}

/// `program` as the user `postgres` when this is root, whom PostgreSQL and PgBouncer refuse.
#[must_use]
pub fn as_postgres(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
    command.current_dir("/");
    command
}

/// The directory of this build's programs, such as `target/debug`.
pub(crate) fn program_directory() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    let deps = this.parent().expect("a directory");
    if deps.ends_with("deps") {
        deps.parent().expect("a parent").to_owned()
    } else {
        deps.to_owned()
    }
}

pub(crate) fn run(command: &mut Command) {
    // Of its own group: a Ctrl-C is for the program that runs it.
    command.process_group(0);
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if output.status.signal() == Some(Signal::INT.as_raw()) {
        // It was struck before it had that group: the program that runs it ends in a moment.
        std::thread::sleep(Duration::from_secs(5));
    }
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
