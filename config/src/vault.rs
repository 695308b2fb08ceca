//! Options of a Vault or OpenBao, and of pgimbal's login there.

use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;

use crate::reader::{Choice, Hidden, Maybe, Names, NonEmpty, Path, Reader, Span};
use crate::secret::Secret;
use crate::table::settings;
use crate::words::VaultLogin;

settings! {
    /// The options of a Vault or OpenBao, `[vaults.NAME]`, whose database secrets engine has the
    /// static roles that users name with `vault_role`. The checks refuse a login method without the
    /// options that it needs, and options of another method.
    pub struct VaultConfig {
        /// Its URLs, tried in turn: the nodes of one Vault cluster.
        "address" address: Vec<String> as Urls = "https://127.0.0.1:8200", applied,
            try "https://vault.example:8200";
        /// The namespace that logins and reads happen in (X-Vault-Namespace).
        "namespace" namespace: Option<String> as Maybe<NonEmpty> = "", applied, try "team";
        /// Where the database secrets engine is mounted. Vault's default.
        "mount" mount: String as NonEmpty = "database", applied, try "postgres";
        /// How pgimbal logs in: `token`, `token_file`, `approle` or `kubernetes`.
        "login" login: VaultLogin as Choice<VaultLogin> = "token", applied, try "approle";
        /// Where the login method is mounted; when it is not set, under its own name.
        "login_mount" login_mount: Option<String> as Maybe<NonEmpty> = "", applied, try "k8s";
        /// The token, for `login = "token"`.
        "token" token: Option<Secret> as Maybe<Hidden> = "", applied, try "x";
        /// A file with the token, read again at every login: an agent's sink.
        "token_file" token_file: Option<PathBuf> as Maybe<Path> = "", applied,
            try "/run/vault/token";
        /// The role id of an AppRole.
        "role_id" role_id: Option<String> as Maybe<NonEmpty> = "", applied, try "a-role";
        /// The secret id of an AppRole.
        "secret_id" secret_id: Option<Secret> as Maybe<Hidden> = "", applied, try "x";
        /// A file with the secret id, read again at every login.
        "secret_id_file" secret_id_file: Option<PathBuf> as Maybe<Path> = "", applied,
            try "/run/vault/secret-id";
        /// The role of Vault's kubernetes login.
        "kubernetes_role" kubernetes_role: Option<String> as Maybe<NonEmpty> = "", applied,
            try "pgimbal";
        /// The service account's token, read again at every login: Kubernetes renews it.
        "kubernetes_jwt_file" kubernetes_jwt_file: PathBuf as Path =
            "/var/run/secrets/kubernetes.io/serviceaccount/token", applied, try "/run/jwt";
        /// CAs that Vault's certificate is checked against, PEM; when it is not set, the system's.
        "ca_file" ca_file: Option<PathBuf> as Maybe<Path> = "", applied, try "/tls/ca.crt";
        /// Certificate that pgimbal shows to Vault, PEM.
        "cert_file" cert_file: Option<PathBuf> as Maybe<Path> = "", applied, try "/tls/a.crt";
        /// Private key of `cert_file`, PEM.
        "key_file" key_file: Option<PathBuf> as Maybe<Path> = "", applied, try "/tls/a.key";
        /// How long one request may take. A Vault that rotates reads in milliseconds; one that
        /// waits for a locked database should not hold up the others.
        "timeout" timeout: Duration as Span = "5s", applied, try "6s";
        /// How often each role is read while no rotation is near. A rotation out of turn is seen
        /// this late at worst, and at once when a login is refused.
        "poll_interval" poll_interval: Duration as Span = "30s", applied, try "6s";
    }
}

/// One or more URLs.
pub(crate) struct Urls;

impl Reader for Urls {
    type Out = Vec<String>;
    const KIND: &'static str = "list of URLs";

    fn read(value: &Value) -> Result<Vec<String>, String> {
        let urls = Names::read(value)?;
        let is_url = |url: &String| {
            let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            host.is_some_and(|host| !host.trim_end_matches('/').is_empty() && !host.contains('@'))
        };
        match !urls.is_empty() && urls.iter().all(is_url) {
            true => Ok(urls.into_iter().map(|url| url.trim_end_matches('/').to_owned()).collect()),
            false => {
                Err("expected URLs such as \"https://vault:8200\", without user or password"
                    .to_owned())
            }
        }
    }
}
