//! A real Vault (or OpenBao) in memory, whose database engine rotates the applications' role.

use crate::demo::APPLICATION;
use crate::demo::cluster::Cluster;
use crate::demo::credentials::random_password;
use crate::http::Api;
use crate::place::{Place, free_port};
use crate::postgres::ROLE;
use crate::server::Server;
use crate::{During, Error, Result};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long it may take to be ready.
const START: Duration = Duration::from_secs(30);

/// A running Vault.
pub struct Vault {
    /// What it says it is.
    pub version: String,
    /// The role's password when it was made.
    pub first_password: String,
    port: u16,
    root: Api,
    token: String,
    _server: Server,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vault({})", self.port)
    }
}

/// The program: `vault` or `bao` on PATH, or the one that the tests have built.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let finder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vault/program");
    let output = Command::new(finder).stderr(std::process::Stdio::null()).output().ok()?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !path.is_empty()).then(|| path.into())
}

impl Vault {
    /// Starts it, has it rotate the role every `period`, and makes a token for pgimbal.
    ///
    /// # Errors
    /// When it does not start or refuses something.
    pub fn start(
        place: &Place,
        program: &Path,
        cluster: &Cluster,
        period: Duration,
    ) -> Result<Self> {
        let port = free_port()?;
        let root_token = random_password()?;
        // The program may lie where only its owner may read.
        let mut command = place.own_command(program);
        command.args(["server", "-dev", "-dev-no-store-token"]);
        command.arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        for name in ["VAULT_DEV_ROOT_TOKEN_ID", "BAO_DEV_ROOT_TOKEN_ID"] {
            command.env(name, &root_token);
        }
        for name in ["VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "BAO_ADDR", "BAO_TOKEN"] {
            command.env_remove(name);
        }
        let log = place.path().join("vault.log");
        let server = Server::start("Vault", command, &log, port, Signal::INT)?;
        let root = Api::new(port, &root_token);
        let deadline = Instant::now() + START;
        while let Err(error) = root.vault("GET", "sys/mounts", &Value::Null) {
            if Instant::now() > deadline {
                return Err(error);
            }
            sleep(Duration::from_millis(50));
        }
        let mut vault = Self {
            version: version(program)?,
            first_password: String::new(),
            port,
            root,
            token: String::new(),
            _server: server,
        };
        vault.serve(cluster, period)?;
        Ok(vault)
    }

    fn serve(&mut self, cluster: &Cluster, period: Duration) -> Result<()> {
        let post = |path: &str, body: Value| self.root.vault("POST", path, &body);
        let options = json!({ "rotation_queue_tick_interval": "1" });
        post("sys/mounts/database", json!({ "type": "database", "options": options }))?;
        let [a, b] = &cluster.nodes;
        // Whichever may be written to; the replica first, so that the old primary is not taken
        // for the new one when it returns.
        let url = format!(
            "host=127.0.0.1,127.0.0.1 port={},{} dbname=postgres user={{{{username}}}} \
             password={{{{password}}}} sslmode=disable target_session_attrs=read-write",
            b.port, a.port
        );
        let connection = json!({
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            "connection_url": url,
            "username": ROLE,
            "password": "trusted",
        });
        post("database/config/main", connection)?;
        let policy = "path \"database/static-creds/*\" { capabilities = [\"read\"] }";
        post("sys/policies/acl/pgimbal", json!({ "policy": policy }))?;
        let token = post("auth/token/create", json!({ "policies": ["pgimbal"] }))?;
        let role = json!({
            "db_name": "main",
            "username": APPLICATION,
            "rotation_period": period.as_secs().to_string(),
        });
        post(&format!("database/static-roles/{APPLICATION}"), role)?;
        self.token = text(&token["auth"]["client_token"])?;
        self.first_password = text(&self.role()?["password"])?;
        Ok(())
    }

    /// pgimbal's tables for it.
    #[must_use]
    pub fn tables(&self) -> String {
        format!(
            "[vaults.main]\naddress = \"http://127.0.0.1:{}\"\ntoken = \"{}\"\n\n\
             [users.{APPLICATION}]\nvault_role = \"{APPLICATION}\"\n",
            self.port, self.token
        )
    }

    /// Counts the rotations until `stop`.
    pub fn watch(&self, rotations: &AtomicUsize, stop: &AtomicBool) {
        let mut last = self.first_password.clone();
        while !stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(200));
            let now = self.role().and_then(|role| text(&role["password"]));
            if let Ok(now) = now
                && now != last
            {
                rotations.fetch_add(1, Ordering::Relaxed);
                last = now;
            }
        }
    }

    fn role(&self) -> Result<Value> {
        let path = format!("database/static-creds/{APPLICATION}");
        Ok(self.root.vault("GET", &path, &Value::Null)?["data"].take())
    }
}

fn text(value: &Value) -> Result<String> {
    let text = value.as_str().ok_or_else(|| Error::Program("Vault left a field out".into()))?;
    Ok(text.to_owned())
}

/// `Vault v1.21.0`, without what follows.
fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("version").output().during("asking Vault's version")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    Ok(format!("a real Vault ({})", words.join(" ").trim_end_matches(',')))
}
