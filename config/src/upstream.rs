//! `--upstream`: a server given as libpq's URI becomes a layer of the configuration, its gaps
//! filled as libpq fills them.

use std::collections::BTreeMap;
use std::path::Path;

use figment::value::{Dict, Value};

use crate::config::WILDCARD;
use crate::error::ConfigError;
use crate::host::{Host, HostName};
use crate::pgpass::{self, Lookup, Wanted};
use crate::reader::{Choice, Port, Reader};
use crate::require_auth::RequireAuth;
use crate::secret::Secret;
use crate::suggest::{did_you_mean, nearest};
use crate::tls::{Negotiation, SYSTEM_ROOTS};
use crate::uri;
use crate::words::{ChannelBinding, SslMode};

/// libpq's parameters that are understood, each with the variable that stands in for it.
const PARAMETERS: [(&str, &str); 24] = [
    ("host", "PGHOST"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("dbname", "PGDATABASE"),
    ("passfile", "PGPASSFILE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("require_auth", "PGREQUIREAUTH"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("gssencmode", "PGGSSENCMODE"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    // libpq has no variables for these.
    ("keepalives", ""),
    ("keepalives_idle", ""),
    ("keepalives_interval", ""),
    ("keepalives_count", ""),
    ("tcp_user_timeout", ""),
    ("fallback_application_name", ""),
];

/// The directory in which libpq looks for a local server, as Debian builds it.
const SOCKET_DIR: &str = "/var/run/postgresql";

/// The configuration that follows from `--upstream`: a server for every database name, and one user
/// who may log in.
pub(crate) struct Upstream {
    /// The values of the configuration layer.
    pub(crate) values: Dict,
    /// Name of the user who may log in.
    pub(crate) user: String,
    /// Why the user has no password, when a password file was ignored; `None` otherwise.
    pub(crate) note: Option<String>,
}

/// Reads the URI, given as `origin`, and fills its gaps from libpq's variables and password file.
///
/// # Errors
/// Everything that is wrong; never the URI or a part of it.
pub(crate) fn resolve(
    uri: &Secret,
    origin: &'static str,
    env: &BTreeMap<String, String>,
) -> Result<Upstream, Vec<ConfigError>> {
    let parts =
        uri::parse(uri.expose()).map_err(|cause| vec![ConfigError::of_source(origin, cause)])?;
    let mut given = Given { origin, values: BTreeMap::new(), errors: Vec::new() };
    given.take(parts);
    given.fill(env);

    let port = given.read::<Port>("port").unwrap_or(5432);
    let host = given.read::<HostName>("host").unwrap_or_else(|| usual_host(port));
    given.read::<Choice<SslMode>>("sslmode");
    given.read::<Negotiation>("sslnegotiation");
    given.read::<RequireAuth>("require_auth");
    given.read::<Choice<ChannelBinding>>("channel_binding");
    given.without_effect();
    let timeout = given.time("connect_timeout", "s");
    let keepalives = given.keepalives();
    let user = given.text("user").or_else(|| os_user(env));
    let Some(user) = user else {
        let cause = "names no user, and neither PGUSER nor USER is set";
        given.errors.push(ConfigError::of_source(origin, cause));
        return Err(given.errors);
    };
    if !given.errors.is_empty() {
        return Err(given.errors);
    }
    let dbname = given.text("dbname").unwrap_or_else(|| user.clone());
    let wanted = Wanted { host: &host, port, dbname: &dbname, user: &user };
    let (password, note) = given.password(env, &wanted);

    let mut server = dict([
        ("host", Some(host.to_string())),
        ("port", Some(port.to_string())),
        ("user", Some(user.clone())),
        ("password", password.as_ref().map(|p| p.expose().to_owned())),
        ("server_connect_timeout", timeout),
        ("options", given.text("options")),
        ("require_auth", given.text("require_auth")),
    ]);
    // As in libpq: whom the system's CAs vouch for is known by its name only.
    let whole = given.text("sslrootcert").filter(|ca| ca == SYSTEM_ROOTS);
    let whole = whole.map(|_| SslMode::VerifyFull.as_str().to_owned());
    let tls = dict([
        ("sslmode", given.text("sslmode").or(whole)),
        ("ca_file", given.text("sslrootcert")),
        ("cert_file", given.text("sslcert")),
        ("key_file", given.text("sslkey")),
        ("sslnegotiation", given.text("sslnegotiation")),
        ("channel_binding", given.text("channel_binding")),
    ]);
    if !tls.is_empty() {
        server.insert("server_tls".to_owned(), Value::from(tls));
    }
    let mut named = server.clone();
    named.insert("dbname".to_owned(), Value::from(dbname.as_str()));
    let databases = Dict::from([(WILDCARD.to_owned(), server.into()), (dbname, named.into())]);
    let login = dict([("password", password.as_ref().map(|p| p.expose().to_owned()))]);
    let users = Dict::from([(user.clone(), Value::from(login))]);
    let mut values = keepalives;
    values.insert("databases".to_owned(), databases.into());
    values.insert("users".to_owned(), users.into());
    Ok(Upstream { values, user, note })
}

/// The parameters of the connection, each with the URI's origin or the variable's name.
struct Given {
    origin: &'static str,
    values: BTreeMap<&'static str, (Secret, &'static str)>,
    errors: Vec<ConfigError>,
}

impl Given {
    /// Takes the URI's parts; one that is not understood is refused, not ignored.
    fn take(&mut self, parts: uri::Parts) {
        for (name, value) in parts {
            match PARAMETERS.iter().find(|(known, _)| *known == name) {
                Some((known, _)) => {
                    self.values.insert(known, (value, self.origin));
                }
                None => {
                    let hint = did_you_mean(nearest(&name, PARAMETERS.iter().map(|(n, _)| *n)));
                    let cause = format!("unknown parameter {name:?}{hint}");
                    self.errors.push(ConfigError::of_source(self.origin, cause));
                }
            }
        }
    }

    /// Fills the gaps from libpq's variables; an empty one counts as not set, as in libpq.
    fn fill(&mut self, env: &BTreeMap<String, String>) {
        for (name, variable) in PARAMETERS {
            if let Some(value) = env.get(variable).filter(|value| !value.is_empty()) {
                self.values.entry(name).or_insert_with(|| (value.as_str().into(), variable));
            }
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.values.get(name).map(|(value, _)| value.expose().to_owned()).filter(|v| !v.is_empty())
    }

    /// Checks a parameter as the option is checked that it stands for.
    fn read<R: Reader>(&mut self, name: &str) -> Option<R::Out> {
        let text = self.text(name)?;
        R::read(&Value::from(text)).map_err(|cause| self.fault(name, cause)).ok()
    }

    /// A number without a unit; 0 or less is for ever or the system's value, and left to the
    /// default.
    fn time(&mut self, name: &str, unit: &str) -> Option<String> {
        match self.text(name)?.trim().parse::<i32>() {
            Ok(number) => (number > 0).then(|| format!("{number}{unit}")),
            Err(_) => {
                let of = match unit {
                    "s" => " of seconds",
                    "ms" => " of milliseconds",
                    _ => "",
                };
                self.fault(name, format!("expected a number{of}"));
                None
            }
        }
    }

    /// libpq's words for what the TCP options at the top level are. `keepalives` itself is checked
    /// and no more: pgimbal always asks whether the other side lives.
    fn keepalives(&mut self) -> Dict {
        if self.text("keepalives").is_some_and(|text| text.trim().parse::<i32>().is_err()) {
            self.fault("keepalives", "expected 0 or 1".to_owned());
        }
        dict([
            ("tcp_keepalive_idle", self.time("keepalives_idle", "s")),
            ("tcp_keepalive_interval", self.time("keepalives_interval", "s")),
            ("tcp_keepalive_count", self.time("keepalives_count", "")),
            ("tcp_user_timeout", self.time("tcp_user_timeout", "ms")),
        ])
    }

    /// Checks what is right in any URI and changes nothing here: each client brings a name of its
    /// own, one host leaves nothing to choose, and GSSAPI is not spoken.
    fn without_effect(&mut self) {
        const ATTRIBUTES: [&str; 6] =
            ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"];
        match self.text("gssencmode").as_deref() {
            None | Some("disable" | "prefer") => {}
            Some("require") => {
                let cause =
                    "pgimbal has no GSSAPI encryption: say \"disable\", and sslmode for TLS";
                self.fault("gssencmode", cause.to_owned());
            }
            Some(_) => self.fault("gssencmode", "expected disable or prefer".to_owned()),
        }
        let attributes = self.text("target_session_attrs");
        if attributes.is_some_and(|text| !ATTRIBUTES.contains(&text.as_str())) {
            let cause = format!("expected one of {}", ATTRIBUTES.join(", "));
            self.fault("target_session_attrs", cause);
        }
    }

    /// A value of a variable is shown; one of the URI is not, for a password with an unescaped
    /// `/` or `@` lands in any part of it.
    fn fault(&mut self, name: &str, cause: String) {
        let Some((value, origin)) = self.values.get(name) else { return };
        let shown = (*origin != self.origin).then(|| format!("{:?}", value.expose()));
        let key = if shown.is_some() { "" } else { name };
        self.errors.push(ConfigError {
            origin: (*origin).to_owned(),
            key: key.to_owned(),
            value: shown,
            cause,
        });
    }

    /// The password given, else the password file's; and why such a file was passed over.
    fn password(
        &self,
        env: &BTreeMap<String, String>,
        wanted: &Wanted<'_>,
    ) -> (Option<Secret>, Option<String>) {
        if let Some((password, _)) = self.values.get("password") {
            return (Some(password.clone()), None);
        }
        let named = self.text("passfile").map(Into::into);
        let usual = || env.get("HOME").map(|home| pgpass::usual_file(home));
        match named.or_else(usual).map(|path| pgpass::look_up(&path, wanted)) {
            Some(Lookup::Found(password)) => (Some(password), None),
            Some(Lookup::Ignored(note)) => (None, Some(note)),
            Some(Lookup::Nothing) | None => (None, None),
        }
    }
}

/// libpq's default: the local socket; localhost when no server has one there.
fn usual_host(port: u16) -> Host {
    let socket = Path::new(SOCKET_DIR).join(format!(".s.PGSQL.{port}"));
    match socket.exists() {
        true => Host::Unix(SOCKET_DIR.into()),
        false => Host::Tcp("localhost".to_owned()),
    }
}

/// Name of this process's user, from the environment.
fn os_user(env: &BTreeMap<String, String>) -> Option<String> {
    ["USER", "LOGNAME"].iter().find_map(|name| env.get(*name)).filter(|n| !n.is_empty()).cloned()
}

fn dict<const N: usize>(values: [(&str, Option<String>); N]) -> Dict {
    values
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), Value::from(value?))))
        .collect()
}

#[cfg(test)]
mod tests;
