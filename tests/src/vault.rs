//! A real Vault or OpenBao, whose database secrets engine rotates roles of a test's PostgreSQL.

pub mod api;
pub mod passwords;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::pgimbal::undisturbed;
use crate::port::free_port;
use crate::postgres::Postgres;
use crate::process::{self, Directory, Process};
use crate::program::print_tail;
use crate::until::{SOON, eventually};
use api::Api;
pub use passwords::Passwords;

/// The mount path of the database secrets engine.
pub const MOUNT: &str = "database";

/// A running, unsealed Vault, whose storage is in memory. Dropping it kills the process.
pub struct Vault {
    process: Option<Process>,
    _directory: Directory,
    /// The Vault's port on 127.0.0.1.
    pub port: u16,
    root: Api,
    unseal_key: String,
    authority: Option<PathBuf>,
}

/// The credentials of a static role, `GET /v1/database/static-creds/:role`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticRole {
    /// The current password.
    pub password: String,
    /// Time of the last rotation in RFC 3339 form, as Vault prints it.
    pub rotated: String,
    /// Time until the next rotation in seconds.
    pub ttl: u64,
}

impl Vault {
    /// Starts a Vault without TLS.
    ///
    /// # Panics
    /// When there is no Vault (`tests/set-up` makes one), or it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::prepare(None, None)
    }

    /// Starts a Vault that speaks TLS with `certificates`.
    ///
    /// # Panics
    /// As [`Vault::start`].
    #[must_use]
    pub fn with_tls(certificates: &Certificates) -> Self {
        Self::prepare(Some(certificates), None)
    }

    /// Starts a Vault that speaks TLS with `certificates`, and listens at its port of `address`
    /// too.
    ///
    /// # Panics
    /// As [`Vault::start`].
    #[must_use]
    pub fn also_at(address: Ipv4Addr, certificates: &Certificates) -> Self {
        Self::prepare(Some(certificates), Some(address))
    }

    /// Takes a Vault that somebody else has started, is not initialised, and speaks TLS with
    /// `certificates` at `port` of 127.0.0.1. It does not end when this is dropped.
    ///
    /// # Panics
    /// When it does not answer in time.
    #[must_use]
    pub fn found_at(port: u16, certificates: &Certificates) -> Self {
        let directory = process::directory("vault");
        let authority = Some(certificates.write(&directory)[0].clone());
        let root = Api::new(port, Some(certificates.client(&[])));
        let mut vault = Self {
            process: None,
            _directory: directory,
            port,
            root,
            unseal_key: String::new(),
            authority,
        };
        vault.initialise();
        vault
    }

    /// Starts a Vault with a database secrets engine for `server`.
    ///
    /// # Panics
    /// As [`Vault::start`].
    #[must_use]
    pub fn before(server: &Postgres) -> Self {
        let vault = Self::start();
        vault.serve(server.port);
        vault
    }

    fn prepare(certificates: Option<&Certificates>, address: Option<Ipv4Addr>) -> Self {
        let directory = process::directory("vault");
        let port = free_port();
        let config = directory.join("vault.json");
        let authority = certificates.map(|certificates| certificates.write(&directory)[0].clone());
        let addresses: Vec<Ipv4Addr> = [Ipv4Addr::LOCALHOST].into_iter().chain(address).collect();
        let text = settings(&addresses, port, &directory, certificates.is_some()).to_string();
        std::fs::write(&config, text).expect("Vault's configuration");
        let mut command = undisturbed(program());
        command.args(["server", "-config"]).arg(&config).env("HOME", &*directory);
        for name in ["VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_LOG_LEVEL"] {
            command.env_remove(name);
        }
        let process = Process::start(command, &directory, Signal::KILL);
        let api = Api::new(port, certificates.map(|certificates| certificates.client(&[])));
        let mut vault = Self {
            process: Some(process),
            _directory: directory,
            port,
            root: api,
            unseal_key: String::new(),
            authority,
        };
        vault.initialise();
        vault
    }

    fn initialise(&mut self) {
        let one_share = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let mut answer = Value::Null;
        eventually("Vault answers", SOON * 2, || {
            if let Some(process) = &mut self.process {
                assert!(process.ended().is_none(), "Vault ended:\n{}", process.log());
            }
            match self.root.call("PUT", "sys/init", &one_share) {
                Ok((200, keys)) => answer = keys,
                _ => return false,
            }
            true
        });
        self.unseal_key = text(&answer["keys_base64"][0]);
        self.root = self.root.with_token(&text(&answer["root_token"]));
        self.unseal();
    }

    /// The Vault's URL.
    #[must_use]
    pub fn address(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The file with the authority of the Vault's certificate.
    ///
    /// # Panics
    /// When the Vault has no TLS.
    #[must_use]
    pub fn authority(&self) -> &Path {
        self.authority.as_deref().expect("a Vault with TLS")
    }

    /// The root token.
    #[must_use]
    pub fn root_token(&self) -> &str {
        self.root.token()
    }

    /// The Vault's API with the root token.
    #[must_use]
    pub fn root(&self) -> &Api {
        &self.root
    }

    /// Mounts a database secrets engine for the server at `port`, as its superuser. The engine
    /// looks for overdue rotations every second.
    ///
    /// # Panics
    /// When Vault answers with an error.
    pub fn serve(&self, port: u16) {
        self.serve_any(&[port]);
    }

    /// The same for a cluster: the first node of `ports` that may be written to.
    ///
    /// # Panics
    /// When Vault refuses.
    pub fn serve_any(&self, ports: &[u16]) {
        let nodes: Vec<_> = ports.iter().map(|port| (Ipv4Addr::LOCALHOST, *port)).collect();
        self.serve_at(&nodes);
    }

    /// The same for nodes at these addresses and ports.
    ///
    /// # Panics
    /// When Vault refuses.
    pub fn serve_at(&self, nodes: &[(Ipv4Addr, u16)]) {
        let engine =
            json!({ "type": "database", "options": { "rotation_queue_tick_interval": "1" } });
        self.root.write(&format!("sys/mounts/{MOUNT}"), &engine);
        let nodes: Vec<String> =
            nodes.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let url = format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@{}/app?sslmode=disable\
             &target_session_attrs=read-write",
            nodes.join(",")
        );
        let connection = json!({
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            "connection_url": url,
            "username": "postgres",
            "password": "trusted",
        });
        self.root.write(&format!("{MOUNT}/config/app"), &connection);
    }

    /// Mounts a KV secrets engine of this version, 1 or 2, at `mount`.
    ///
    /// # Panics
    /// When Vault answers with an error.
    pub fn kv(&self, mount: &str, version: u8) {
        let engine = json!({ "type": "kv", "options": { "version": version.to_string() } });
        self.root.write(&format!("sys/mounts/{mount}"), &engine);
        // Version 2 prepares itself for a moment, and refuses everything until then.
        let path = if version == 2 { format!("{mount}/data/x") } else { format!("{mount}/x") };
        eventually("the engine is ready", SOON, || {
            matches!(self.root.call("GET", &path, &Value::Null), Ok((404, _)))
        });
    }

    /// Makes the static role `role` for the PostgreSQL role of that name, rotated every `period`
    /// seconds. Vault rotates it at once.
    ///
    /// # Panics
    /// When Vault answers with an error.
    pub fn static_role(&self, role: &str, period: u32) {
        let body =
            json!({ "db_name": "app", "username": role, "rotation_period": period.to_string() });
        self.root.write(&format!("{MOUNT}/static-roles/{role}"), &body);
    }

    /// The current credentials of `role`.
    ///
    /// # Panics
    /// When Vault does not give them.
    #[must_use]
    pub fn role(&self, role: &str) -> StaticRole {
        self.try_role(role).unwrap_or_else(|| panic!("Vault says nothing of {role}"))
    }

    /// The current credentials of `role`; `None` when Vault is sealed or does not know the role.
    #[must_use]
    pub fn try_role(&self, role: &str) -> Option<StaticRole> {
        static_role(&self.root, role)
    }

    /// Rotates `role` and returns its new password.
    ///
    /// # Panics
    /// When Vault does not rotate it in time.
    pub fn rotate(&self, role: &str) -> String {
        let path = format!("{MOUNT}/rotate-role/{role}");
        // Just unsealed, it may still be filling its queue of roles.
        eventually("Vault rotates the role", SOON, || {
            matches!(self.root.call("POST", &path, &Value::Null), Ok((200..=299, _)))
        });
        self.role(role).password
    }

    /// Makes a token with the policy whose text is `policy`.
    ///
    /// # Panics
    /// When Vault answers with an error.
    #[must_use]
    pub fn token(&self, policy: &str) -> String {
        let name = format!("policy-{}", self.policies());
        self.root.write(&format!("sys/policies/acl/{name}"), &json!({ "policy": policy }));
        let token = json!({ "policies": [name], "no_default_policy": false });
        text(&self.root.write("auth/token/create", &token)["auth"]["client_token"])
    }

    fn policies(&self) -> usize {
        let (_, list) = self.root.call("LIST", "sys/policies/acl", &Value::Null).expect("a list");
        list["data"]["keys"].as_array().map_or(0, Vec::len)
    }

    /// Makes a token that may read the credentials of every static role.
    #[must_use]
    pub fn reader(&self) -> String {
        self.token(&reads(&format!("{MOUNT}/static-creds/*")))
    }

    /// Makes an AppRole whose tokens live `ttl`, such as `2s`, and have this policy. Returns its
    /// role id and its secret id.
    ///
    /// # Panics
    /// When Vault answers with an error.
    #[must_use]
    pub fn approle(&self, policy: &str, ttl: &str) -> [String; 2] {
        self.root.write("sys/auth/approle", &json!({ "type": "approle" }));
        self.root.write("sys/policies/acl/approle", &json!({ "policy": policy }));
        let body = json!({ "token_policies": ["approle"], "token_ttl": ttl, "token_max_ttl": ttl });
        self.root.write("auth/approle/role/pgimbal", &body);
        let role = self.root.read("auth/approle/role/pgimbal/role-id");
        let secret = self.root.write("auth/approle/role/pgimbal/secret-id", &Value::Null);
        [text(&role["data"]["role_id"]), text(&secret["data"]["secret_id"])]
    }

    /// Seals the Vault: every answer is 503 until [`Vault::unseal`].
    ///
    /// # Panics
    /// When Vault answers with an error.
    pub fn seal(&self) {
        self.root.write("sys/seal", &Value::Null);
    }

    /// Unseals the Vault, and waits until it is active.
    ///
    /// # Panics
    /// When Vault answers with an error, or is not active in time.
    pub fn unseal(&self) {
        self.root.write("sys/unseal", &json!({ "key": self.unseal_key }));
        eventually("Vault is active", SOON, || {
            matches!(self.root.call("GET", "sys/health", &Value::Null), Ok((200, _)))
        });
    }

    /// Sends a signal to the Vault. After SIGSTOP it accepts connections and does not answer.
    ///
    /// # Panics
    /// When somebody else has started it.
    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a started Vault").signal(signal);
    }

    /// Starts a thread that reads the passwords of `roles` all the time and records them.
    #[must_use]
    pub fn record(&self, roles: &[&str]) -> Arc<Passwords> {
        Passwords::record(self.root.clone(), roles)
    }

    /// The configuration table `[vaults.main]` for this Vault, which logs in with `token`.
    #[must_use]
    pub fn table(&self, token: &str) -> String {
        let tls = self.authority.as_ref();
        let tls = tls.map_or(String::new(), |path| format!("ca_file = \"{}\"\n", path.display()));
        format!("[vaults.main]\naddress = [\"{}\"]\ntoken = \"{token}\"\n{tls}", self.address())
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        let log = self.process.take().map(|process| process.log()).unwrap_or_default();
        if std::thread::panicking() {
            print_tail("Vault", &log);
        }
    }
}

/// The text of a policy that allows reading `path`.
#[must_use]
pub fn reads(path: &str) -> String {
    format!("path \"{path}\" {{ capabilities = [\"read\"] }}\n")
}

/// The path of `vault` or `bao`: the one on `PATH`, or the one that `tests/set-up` built.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn program() -> PathBuf {
    find_program().expect("there is no Vault: run tests/set-up")
}

/// The same where there need not be one.
#[must_use]
pub fn find_program() -> Option<PathBuf> {
    let find = Path::new(env!("CARGO_MANIFEST_DIR")).join("vault/program");
    let output = Command::new(&find).output().ok()?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !path.is_empty()).then(|| path.into())
}

/// The credentials of `role`; `None` when Vault does not give them.
fn static_role(api: &Api, role: &str) -> Option<StaticRole> {
    let path = format!("{MOUNT}/static-creds/{role}");
    let Ok((200, answer)) = api.call("GET", &path, &Value::Null) else { return None };
    let data = &answer["data"];
    let rotated = [&data["last_vault_rotation"], &data["last_openbao_rotation"]];
    Some(StaticRole {
        password: text(&data["password"]),
        rotated: rotated.into_iter().find_map(Value::as_str).unwrap_or_default().to_owned(),
        ttl: data["ttl"].as_u64().unwrap_or_default(),
    })
}

fn settings(addresses: &[Ipv4Addr], port: u16, directory: &Path, tls: bool) -> Value {
    let listeners = addresses.iter().map(|address| {
        let mut listener = json!({ "address": format!("{address}:{port}"), "tls_disable": !tls });
        if tls {
            listener["tls_cert_file"] = json!(directory.join("server.crt"));
            listener["tls_key_file"] = json!(directory.join("server.key"));
        }
        json!({ "tcp": listener })
    });
    json!({
        "storage": { "inmem": {} },
        "listener": listeners.collect::<Vec<_>>(),
        "disable_mlock": true,
        "log_level": "info",
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text was expected: {value}")).to_owned()
}
