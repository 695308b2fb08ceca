//! Where the console is: from a connection URI, or from a configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pgimbal_config::{Config, Overrides, PasswordForm, Secret};
use thiserror::Error;

use crate::dial::Target;
use crate::tls::{TlsConnector, TlsError};

/// The names of the console's database: pgimbal's own, and that of PgBouncer.
const DATABASES: [&str; 2] = ["pgimbal", "pgbouncer"];

/// The port where neither the URI nor PGPORT names one.
const PORT: &str = "6432";

/// The command line's words about where the console is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// libpq's connection URI; what it leaves out comes from libpq's variables and password file.
    pub url: Option<Secret>,
    /// The configuration file of the pgimbal to look at, in place of a URI.
    pub config: Option<PathBuf>,
}

/// The reason for which a place leads nowhere.
#[derive(Debug, Error)]
pub(super) enum PlaceError {
    /// The configuration or the URI cannot be used, for these reasons.
    #[error("{0}")]
    Config(String),
    /// The configuration names nobody who may use the console.
    #[error("the configuration names no admin_users and no stats_users, who may use the console")]
    NoUser,
    /// The configuration names no TCP address and no directory for a socket.
    #[error("the configuration has no address to connect to")]
    NoAddress,
    /// TLS cannot be used as asked.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Place {
    /// The logins to try in turn: at the database that is named, else at each that a console may
    /// be called. `environment` has libpq's variables.
    ///
    /// # Errors
    /// [`PlaceError`] when the URI or the configuration cannot be used.
    pub(super) fn targets(
        &self,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Vec<Target>, PlaceError> {
        let (pgimbal, mut libpq): (BTreeMap<_, _>, BTreeMap<_, _>) =
            environment.partition(|(name, _)| name.starts_with("PGIMBAL_"));
        let (url, password) = match (&self.url, &self.config) {
            (Some(url), _) => (url.clone(), None),
            (None, Some(file)) => {
                let overrides = Overrides { config: Some(file.clone()), ..Overrides::default() };
                let env = pgimbal.into_iter().chain(libpq.clone());
                let config = pgimbal_config::load(&overrides, env)
                    .map_err(|errors| PlaceError::Config(errors.to_string()))?;
                of_config(&config, libpq.get("PGUSER"))?
            }
            (None, None) => (Secret::from("postgres://"), None),
        };
        // A variable that is there and empty counts as not set, as in libpq.
        let is_set = |name: &str| libpq.get(name).is_some_and(|value| !value.is_empty());
        let databases = match is_set("PGDATABASE") {
            true => vec![None],
            false => DATABASES.map(Some).to_vec(),
        };
        if !is_set("PGPORT") {
            libpq.insert("PGPORT".to_owned(), PORT.to_owned());
        }
        let mut targets: Vec<Target> = Vec::new();
        for database in databases {
            if let Some(database) = database {
                libpq.insert("PGDATABASE".to_owned(), database.to_owned());
            }
            let mut target = target(&url, &libpq)?;
            target.password = target.password.or_else(|| password.clone());
            // The URI names a database, and wins over the variable.
            if targets.iter().all(|known| known.database != target.database) {
                targets.push(target);
            }
        }
        Ok(targets)
    }
}

/// The login that a URI and libpq's variables describe.
fn target(url: &Secret, libpq: &BTreeMap<String, String>) -> Result<Target, PlaceError> {
    let (pool, tcp) = pgimbal_config::client_login(url, libpq)
        .map_err(|errors| PlaceError::Config(errors.to_string()))?;
    let tls = Arc::new(TlsConnector::new(&pool.tls)?);
    Ok(Target::new(&pool, tls, tcp))
}

/// The console of a pgimbal with this configuration: the first address that it listens on, and the
/// `wanted` user, else the first who may use the console. Beside it the user's password in the
/// configuration, which counts when libpq knows none.
fn of_config(
    config: &Config,
    wanted: Option<&String>,
) -> Result<(Secret, Option<Secret>), PlaceError> {
    let mut users = config.stats_users.iter().chain(&config.admin_users);
    let wanted = wanted.filter(|user| !user.is_empty());
    let user = wanted.or_else(|| users.next()).ok_or(PlaceError::NoUser)?;
    let is_plain = |secret: &Secret| PasswordForm::of(secret) == PasswordForm::Plain;
    let password = config.user(user).and_then(|entry| entry.password).filter(is_plain);
    let address = match config.listen.addresses.first() {
        Some(address) if address.ip().is_unspecified() => {
            let host = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            format!("{host}:{}", address.port())
        }
        Some(address) => address.to_string(),
        None => {
            let directory = config.listen.unix_socket_dir.as_ref().ok_or(PlaceError::NoAddress)?;
            let directory = encoded(&directory.to_string_lossy());
            format!("{directory}:{}", config.listen.unix_socket_port)
        }
    };
    Ok((Secret::new(format!("postgres://{}@{address}/pgimbal", encoded(user))), password))
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(place: &Place, env: &[(&str, &str)]) -> Vec<String> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let targets = place.targets(env).unwrap_or_else(|error| panic!("{error}"));
        let shown = |t: &Target| {
            let is = |text: &str| t.password == Some(text.into());
            let password = ["p", "q"].into_iter().find(|text| is(text)).unwrap_or("-");
            format!("{}@{}:{}/{} {password}", t.user, t.host, t.port, t.database)
        };
        targets.iter().map(shown).collect()
    }

    #[test]
    fn a_uri_is_completed_as_libpq_does() {
        let of = |url: &str, env: &[(&str, &str)]| {
            targets(&Place { url: Some(url.into()), config: None }, env)
        };
        assert_eq!(
            of("postgres://ann@h", &[("PGPASSWORD", "p")]),
            ["ann@h:6432/pgimbal p", "ann@h:6432/pgbouncer p"]
        );
        assert_eq!(of("postgres://ann:q@h:1/pgbouncer", &[]), ["ann@h:1/pgbouncer q"]);
        assert_eq!(of("postgres://h", &[("PGUSER", "u"), ("PGDATABASE", "d")]), ["u@h:6432/d -"]);
        // What configures a pgimbal in the same container does not lead elsewhere.
        let env = [("PGIMBAL_UPSTREAM", "postgres://x"), ("PGIMBAL_POOL_SIZE", "many")];
        assert_eq!(of("postgres://u@h/d", &env), ["u@h:6432/d -"]);
        let wrong = Place { url: Some("postgres://u:hunter2@h/d?sslmod=x".into()), config: None };
        let error = wrong.targets(std::iter::empty()).unwrap_err().to_string();
        assert!(error.contains("sslmode") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_configuration_leads_to_its_console() {
        let directory = std::env::temp_dir().join(format!("pgimbal-top-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("pgimbal.toml");
        let place = Place { url: None, config: Some(file.clone()) };
        let rest = "[databases.app]\nhost = 'db'\n[users.ops]\npassword = 'p'\n";
        let write = |head: &str| std::fs::write(&file, format!("{head}\n{rest}")).unwrap();
        write("listen = ['0.0.0.0:7000']\nadmin_users = ['ops']");
        assert_eq!(targets(&place, &[]), ["ops@127.0.0.1:7000/pgimbal p"]);
        assert_eq!(targets(&place, &[("PGPASSWORD", "q")]), ["ops@127.0.0.1:7000/pgimbal q"]);
        assert_eq!(targets(&place, &[("PGUSER", "app")]), ["app@127.0.0.1:7000/pgimbal -"]);
        write("listen = ['127.0.0.1:7000']");
        let error = place.targets(std::iter::empty()).unwrap_err();
        assert!(matches!(error, PlaceError::NoUser), "{error}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
