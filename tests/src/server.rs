//! The part that all throwaway servers have in common, alone or in a cluster: a copy of a template,
//! a way past any proxy and network, and a log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::postgres::{as_postgres, bin, run};
use crate::process::{Directory, Process};
use crate::startup::Login;
use crate::until::{SOON, eventually};
use crate::wire_client::WireClient;

/// A server's directory, port and settings.
pub struct Server {
    /// The server's TCP port.
    pub port: u16,
    pub(crate) directory: Directory,
    options: Vec<String>,
}

impl Server {
    /// Copies `template` to `directory`, to be run with `settings`.
    pub(crate) fn copy(
        template: &Path,
        directory: Directory,
        port: u16,
        settings: &[&str],
    ) -> Self {
        let options = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let server = Self { port, directory, options };
        let data = server.data();
        run(Command::new("cp").arg("-a").arg("--reflink=auto").arg(template).arg(&data));
        run(Command::new("chown").arg("--reference").arg(&data).arg(&*server.directory));
        server
    }

    /// The command that starts the server; its own settings win over `fixed`.
    pub(crate) fn command(&self, fixed: &[&str]) -> Command {
        let mut postgres = as_postgres(&bin().join("postgres"));
        postgres.arg("-D").arg(self.data());
        postgres.arg("-k").arg(&*self.directory).arg("-p").arg(self.port.to_string());
        // For keys that the distribution's OpenSSL would not serve with.
        let openssl = self.data().join("openssl.cnf");
        if openssl.exists() {
            postgres.env("OPENSSL_CONF", openssl);
        }
        let prefix = "log_line_prefix=%m [%p] %u@%d ";
        let fixed = fixed.iter().copied().chain([prefix]);
        for setting in fixed.chain(self.options.iter().map(String::as_str)) {
            postgres.arg("-c").arg(setting);
        }
        postgres
    }

    pub(crate) fn wait_until_it_accepts(&self, process: &mut Process) {
        let socket = self.socket();
        eventually("PostgreSQL accepts connections", SOON, || {
            assert!(process.ended().is_none(), "PostgreSQL ended:\n{}", process.log());
            WireClient::try_unix(&socket)
                .is_ok_and(|mut client| client.log_in(&Login::new("postgres", "app", "")).is_ok())
        });
    }

    /// A superuser's session over the Unix socket, past any proxy and network.
    ///
    /// # Panics
    /// When the login fails.
    #[must_use]
    pub fn superuser(&self) -> WireClient {
        let mut client = WireClient::unix(&self.socket());
        client.log_in(&Login::new("postgres", "app", "")).expect("a superuser's login");
        client
    }

    /// Runs `sql` as superuser, and returns the first column of its only row.
    #[must_use]
    pub fn value(&self, sql: &str) -> String {
        self.superuser().value(sql)
    }

    /// Runs `sql` as superuser.
    pub fn run(&self, sql: &str) {
        self.superuser().ok(sql);
    }

    /// The SCRAM verifier of `role`, which a pooler may hold instead of its password.
    #[must_use]
    pub fn verifier(&self, role: &str) -> String {
        self.value(&format!("select rolpassword from pg_authid where rolname = '{role}'"))
    }

    /// How many client backends there are beside superusers' own and a prober's.
    ///
    /// # Panics
    /// When the server does not answer.
    #[must_use]
    pub fn backends(&self) -> usize {
        self.backends_that("true")
    }

    /// Number of those backends for which `condition` holds in `pg_stat_activity`.
    pub(crate) fn backends_that(&self, condition: &str) -> usize {
        let sql = format!(
            "select count(*) from pg_stat_activity where backend_type = 'client backend' \
             and usename not in ('postgres', 'probe') and {condition}"
        );
        self.value(&sql).parse().expect("a count")
    }

    /// Number of those backends that run a statement whose text contains `text` now.
    ///
    /// # Panics
    /// When the server does not answer.
    #[must_use]
    pub fn running(&self, text: &str) -> usize {
        self.backends_that(&format!("state = 'active' and query like '%{text}%'"))
    }

    /// Everything that the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.directory.join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The path of the server's Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join(format!(".s.PGSQL.{}", self.port))
    }

    /// The path of the server's data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }
}
