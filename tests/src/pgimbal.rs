//! A real `pgimbal` with a generated configuration.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::certificates::Certificates;
use crate::port::free_port;
use crate::postgres::{PASSWORD_SUFFIX, Postgres, program_directory};
use crate::process::{self, Directory, Process};
use crate::program::print_tail;
use crate::startup::Login;
use crate::until::{SOON, eventually};
use crate::wire_client::WireClient;

/// A running `pgimbal`. Dropping it kills the process, and fails the test when its log tells of a
/// panic.
pub struct Pgimbal {
    process: Option<Process>,
    directory: Directory,
    /// The port for clients on 127.0.0.1.
    pub port: u16,
    /// The port of `/metrics` on 127.0.0.1.
    pub http_port: u16,
    config: Config,
}

/// The content of `pgimbal.toml`, built up by a test that names only what matters to it. Values are
/// TOML.
#[derive(Clone)]
pub struct Config {
    keys: Vec<(String, String)>,
    server: Vec<(String, String)>,
    user: Vec<(String, String)>,
    cluster: Vec<(String, String)>,
    peers: Vec<(String, String)>,
    store: Vec<(String, String)>,
    tables: String,
    launcher: Vec<String>,
    hosts: Vec<String>,
    certificates: Option<(Certificates, String)>,
}

impl Config {
    /// Makes a configuration with the database `app` on a server at `port` of 127.0.0.1, `trust`
    /// for all clients, one worker and a pool of 2. The server is not asked for its limits, as one
    /// with a script could not answer.
    #[must_use]
    pub fn to_port(port: u16) -> Self {
        Self::to_nowhere()
            .server("host", "\"127.0.0.1\"")
            .server("port", port)
            .server("max_server_connections", "\"off\"")
    }

    /// Makes the configuration of [`Config::to_port`] without a host and a port.
    pub fn to_nowhere() -> Self {
        let mut config = Self {
            keys: Vec::new(),
            server: Vec::new(),
            user: Vec::new(),
            cluster: Vec::new(),
            peers: Vec::new(),
            store: Vec::new(),
            tables: String::new(),
            launcher: Vec::new(),
            hosts: Vec::new(),
            certificates: None,
        };
        let defaults = [
            ("pool_mode", "\"transaction\""),
            ("auth_type", "\"trust\""),
            ("pool_size", "2"),
            ("workers", "1"),
            ("admin_users", "[\"app\"]"),
        ];
        config.keys = defaults.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        config.server("dbname", "\"app\"").user("password", "\"app-secret\"")
    }

    /// Makes a configuration in front of a PostgreSQL of the harness.
    #[must_use]
    pub fn before(server: &Postgres) -> Self {
        Self::to_port(server.port).without(&["max_server_connections"])
    }

    /// Sets an option of `[clusters.c]` to a TOML value.
    #[must_use]
    pub fn cluster(mut self, key: &str, value: impl ToString) -> Self {
        put(&mut self.cluster, key, &value.to_string());
        self
    }

    /// Sets an option of the top level to a TOML value: `"30s"` needs its quotes.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        put(&mut self.keys, key, &value.to_string());
        self
    }

    /// Sets an option of `[databases.app]` to a TOML value.
    #[must_use]
    pub fn server(mut self, key: &str, value: impl ToString) -> Self {
        put(&mut self.server, key, &value.to_string());
        self
    }

    /// Sets an option of `[users.app]` to a TOML value.
    #[must_use]
    pub fn user(mut self, key: &str, value: impl ToString) -> Self {
        put(&mut self.user, key, &value.to_string());
        self
    }

    /// Sets an option of `[peers]` to a TOML value.
    #[must_use]
    pub fn peers(mut self, key: &str, value: impl ToString) -> Self {
        put(&mut self.peers, key, &value.to_string());
        self
    }

    /// Sets an option of `[store]` to a TOML value.
    #[must_use]
    pub fn store(mut self, key: &str, value: impl ToString) -> Self {
        put(&mut self.store, key, &value.to_string());
        self
    }

    /// Leaves an option of `[store]` at its default.
    #[must_use]
    pub fn without_store(mut self, key: &str) -> Self {
        self.store.retain(|(known, _)| known != key);
        self
    }

    /// Leaves these keys at their defaults, in whichever table this has set them.
    #[must_use]
    pub fn without(mut self, keys: &[&str]) -> Self {
        for table in [&mut self.keys, &mut self.server, &mut self.user, &mut self.cluster] {
            table.retain(|(known, _)| !keys.contains(&known.as_str()));
        }
        self
    }

    /// Offers TLS to clients with `certificates`.
    #[must_use]
    pub fn client_tls(mut self, certificates: &Certificates, sslmode: &str) -> Self {
        self.certificates = Some((certificates.clone(), sslmode.to_owned()));
        self
    }

    /// Accepts clients only from a load balancer that speaks the PROXY protocol.
    #[must_use]
    pub fn behind_a_load_balancer(self) -> Self {
        self.set("proxy_protocol", "\"127.0.0.1:PORT\"")
    }

    /// Sets `state_dir` to a directory beside the configuration.
    #[must_use]
    pub fn with_state_dir(self) -> Self {
        self.set("state_dir", "\"STATE\"")
    }

    /// Listens at this address too, on the same port.
    #[must_use]
    pub fn listening_on(mut self, host: impl ToString) -> Self {
        self.hosts.push(host.to_string());
        self
    }

    /// Adds the text of whole TOML tables.
    #[must_use]
    pub fn tables(mut self, toml: &str) -> Self {
        self.tables.push_str(toml);
        self.tables.push('\n');
        self
    }

    /// Starts the program through another one, such as `prlimit --nofile=40`. In its words
    /// `:PORT` and `:HTTP_PORT` become the ports.
    #[must_use]
    pub fn through(mut self, launcher: &[&str]) -> Self {
        self.launcher = launcher.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts `pgimbal` with this configuration, and returns when it listens.
    ///
    /// # Panics
    /// When the program is missing or does not listen in time.
    #[must_use]
    pub fn start(self) -> Pgimbal {
        Pgimbal::start(self)
    }

    fn text(&self, port: u16, http_port: u16, directory: &Path) -> String {
        let also: String = self.hosts.iter().map(|host| format!(", \"{host}:{port}\"")).collect();
        let mut text = format!(
            "listen = [\"127.0.0.1:{port}\"{also}]\nhttp_listen = \"127.0.0.1:{http_port}\"\n"
        );
        let line = |(key, value): &(String, String)| format!("{key} = {value}\n");
        text.extend(self.keys.iter().map(line));
        text.push_str("\n[databases.app]\n");
        text.extend(self.server.iter().map(line));
        text.push_str("\n[users.app]\n");
        text.extend(self.user.iter().map(line));
        let tables =
            [("clusters.c", &self.cluster), ("peers", &self.peers), ("store", &self.store)];
        for (name, options) in tables.into_iter().filter(|(_, options)| !options.is_empty()) {
            text.push_str(&format!("\n[{name}]\n"));
            text.extend(options.iter().map(line));
        }
        for user in ["scram", "md5", "clear"] {
            text.push_str(&format!("\n[users.{user}]\npassword = \"{user}{PASSWORD_SUFFIX}\"\n"));
        }
        if let Some((_, sslmode)) = &self.certificates {
            let file = |name: &str| format!("\"{}\"", directory.join(name).display());
            let (cert, key, ca) = (file("server.crt"), file("server.key"), file("ca.crt"));
            text.push_str(&format!(
                "\n[client_tls]\nsslmode = \"{sslmode}\"\ncert_file = {cert}\nkey_file = {key}\n"
            ));
            if sslmode.starts_with("verify") {
                text.push_str(&format!("ca_file = {ca}\n"));
            }
        }
        text.push_str(&self.tables);
        text
    }
}

impl Pgimbal {
    /// Starts a `pgimbal` with [`Config::before`] and no further options.
    ///
    /// # Panics
    /// As [`Config::start`].
    #[must_use]
    pub fn before(server: &Postgres) -> Self {
        Config::before(server).start()
    }

    fn start(config: Config) -> Self {
        let directory = process::directory("proxy");
        let mut proxy =
            Self { process: None, directory, port: free_port(), http_port: free_port(), config };
        proxy.write_config();
        proxy.launch();
        proxy
    }

    fn launch(&mut self) {
        let mut words: Vec<String> =
            self.config.launcher.iter().map(|word| self.with_addresses(word)).collect();
        words.push(program().to_string_lossy().into_owned());
        let mut command = undisturbed(&words[0]);
        command.args(&words[1..]).arg("run").arg("--config").arg(self.config_path());
        let mut process = Process::start(command, &self.directory, Signal::KILL);
        // The one for HTTP is opened last.
        process.wait_until_it_listens("pgimbal", &[self.port, self.http_port]);
        self.process = Some(process);
    }

    /// Kills the process, unless it has ended, and starts it again on the same ports with the same
    /// directory.
    ///
    /// # Panics
    /// As [`Config::start`].
    pub fn restart(&mut self) {
        self.process = None;
        self.launch();
    }

    /// Kills the process, which [`Pgimbal::restart`] starts again.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// A TCP connection on which nothing was sent.
    #[must_use]
    pub fn connect(&self) -> WireClient {
        WireClient::tcp(self.port)
    }

    /// A client that is logged in as `app` to the database `app`.
    ///
    /// # Panics
    /// When the login fails.
    #[must_use]
    pub fn client(&self) -> WireClient {
        self.log_in(&Login::new("app", "app", "app-secret"))
    }

    /// A client that is logged in with `login`.
    ///
    /// # Panics
    /// When the login fails.
    #[must_use]
    pub fn log_in(&self, login: &Login) -> WireClient {
        let mut client = self.connect();
        client.log_in(login).unwrap_or_else(|messages| panic!("login refused: {messages:?}"));
        client
    }

    /// Runs a console command and returns its rows as text, each value with its column's name.
    ///
    /// # Panics
    /// When the console answers with an error.
    #[must_use]
    pub fn console(&self, sql: &str) -> Vec<Vec<(String, String)>> {
        self.console_as(&Login::new("app", "pgimbal", "app-secret"), sql)
    }

    /// The same as another administrator, whose database is `pgimbal`.
    ///
    /// # Panics
    /// When the console refuses.
    #[must_use]
    pub fn console_as(&self, login: &Login, sql: &str) -> Vec<Vec<(String, String)>> {
        let mut client = self.log_in(login);
        let reply = client.ok(sql);
        let names = reply.columns();
        reply.texts().into_iter().map(|row| names.iter().cloned().zip(row).collect()).collect()
    }

    /// The Prometheus page.
    ///
    /// # Panics
    /// When the page is not served.
    #[must_use]
    pub fn metrics(&self) -> String {
        let (status, page) = crate::http::get(self.http_port, "/metrics");
        assert_eq!(status, 200);
        page
    }

    /// Waits until `count` clients wait for a server connection and none is being opened, as the
    /// workers report it: each client has asked for a connection and will get none of its own.
    ///
    /// # Panics
    /// When this does not happen in time.
    pub fn wait_for_waiting(&self, count: u32) {
        eventually(&format!("{count} clients wait"), SOON, || self.has_waiting(count));
    }

    /// Whether `count` clients wait for a server connection now and none is being opened.
    fn has_waiting(&self, count: u32) -> bool {
        let page = self.metrics();
        let gauge = |name| crate::http::metric(&page, name, &[]).unwrap_or(0.0);
        let waiting = gauge("pgimbal_clients_waiting");
        (waiting - f64::from(count)).abs() < 0.1 && gauge("pgimbal_servers_dialing") < 0.1
    }

    /// Replaces the configuration file and sends SIGHUP.
    pub fn reload(&mut self, config: Config) {
        self.config = config;
        self.write_config();
        self.signal(Signal::HUP);
    }

    /// Writes `text` to the configuration file as it is.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn overwrite_config(&self, text: &str) {
        fs::write(self.config_path(), text).expect("the configuration");
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// The exit code, -1 after a signal; `None` while the process runs.
    pub fn ended(&mut self) -> Option<i32> {
        self.process.as_mut().and_then(Process::ended).map(|status| status.code().unwrap_or(-1))
    }

    /// The running process.
    ///
    /// # Panics
    /// Never before the drop.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("a started pgimbal")
    }

    /// Everything that the process has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process().log()
    }

    /// The directory of the configuration, for files that a test adds.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn config_path(&self) -> PathBuf {
        self.directory.join("pgimbal.toml")
    }

    fn write_config(&self) {
        if let Some((certificates, _)) = &self.config.certificates {
            let _ = certificates.write(&self.directory);
        }
        let text = self.config.text(self.port, self.http_port, &self.directory);
        let state = self.directory.join("state").display().to_string();
        let text = text.replace("\"STATE\"", &format!("{state:?}"));
        self.overwrite_config(&self.with_addresses(&text));
    }

    fn with_addresses(&self, text: &str) -> String {
        let text = text.replace(":PORT", &format!(":{}", self.port));
        text.replace(":HTTP_PORT", &format!(":{}", self.http_port))
    }
}

impl Drop for Pgimbal {
    fn drop(&mut self) {
        let log = self.process.take().map(|process| process.log()).unwrap_or_default();
        let panicked = log.contains("panicked at");
        if std::thread::panicking() {
            let config = self.config.text(self.port, self.http_port, &self.directory);
            print_tail("pgimbal", &format!("{config}\n{log}"));
        }
        assert!(!panicked || std::thread::panicking(), "pgimbal panicked:\n{log}");
    }
}

/// The path of the program under test: `PGIMBAL_BIN`, or the one built beside this test.
///
/// # Panics
/// When the program has not been built.
#[must_use]
pub fn program() -> PathBuf {
    let path = std::env::var_os("PGIMBAL_BIN")
        .map_or_else(|| program_directory().join("pgimbal"), PathBuf::from);
    assert!(path.exists(), "{} is missing: cargo build -p pgimbal", path.display());
    path
}

/// A command for `program` without the environment variables `PG…`, which would configure pgimbal
/// or libpq.
#[must_use]
pub fn undisturbed(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        // PGIMBAL_… and libpq's.
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    command
}

fn put(keys: &mut Vec<(String, String)>, key: &str, value: &str) {
    keys.retain(|(known, _)| known != key);
    keys.push((key.to_owned(), value.to_owned()));
}
