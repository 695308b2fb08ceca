//! Loading: gathers the sources, merges them, reads the options and checks the [`Config`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::check;
use crate::config::{Config, TcpConfig, WILDCARD};
use crate::error::{ConfigError, ConfigErrors};
use crate::pool::ResolvedPool;
use crate::read::{self, Read};
use crate::secret::Secret;
use crate::sources::{ENV_CONFIG, ENV_UPSTREAM, Layer, Origin, Overrides, Sources};
use crate::upstream;

/// Reads the configuration file, the environment, the upstream (the URI of `--upstream` or its
/// environment variable) and the flags over the defaults, each winning over those before it, and
/// checks the whole. With an upstream, the file is read only if a flag or the environment names it.
/// `workers = 0` is replaced by the machine's number of cores. It also reads libpq's password file
/// and the TLS files, and changes nothing. Called at the start and again at each reload.
///
/// # Errors
/// [`ConfigErrors`] with every source that cannot be read, every unknown key, every invalid value
/// and, when all values are valid, every contradiction between them.
pub fn load(
    overrides: &Overrides,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    let env: BTreeMap<String, String> = env.collect();
    let Gathered { layers, mut errors, file, upstream_user, note } = gather(overrides, &env);
    let read_from = file.as_ref().map(PathBuf::from);
    let place = file.unwrap_or_else(|| "no configuration file".to_owned());
    let Read { mut config, origins, errors: found } = read::read(&Sources::merged(layers), place);
    let readable = errors.is_empty() && found.is_empty();
    errors.extend(found);
    config.file = read_from;
    resolve(&mut config, origins.is_set("unix_socket_port"));
    // Contradictions between values that were not understood would only confuse.
    if readable {
        errors.extend(check::check(&config, &origins));
    }
    if let (Some(user), Some(note)) = (upstream_user, note) {
        let key = format!("users.{user}.password");
        for error in errors.iter_mut().filter(|error| error.key == key) {
            error.cause = format!("{}; {note}", error.cause);
        }
    }
    match ConfigErrors::from_found(errors) {
        None => Ok(config),
        Some(errors) => Err(errors),
    }
}

/// The login that a connection URI of libpq's form describes, for a program that is itself a client:
/// its server, user, password, database and TLS, and the options of TCP. What the URI leaves out
/// comes from libpq's variables in `env` and its password file. Unlike a pool's, the database may
/// have any name.
///
/// # Errors
/// [`ConfigErrors`] with everything that is wrong, under the origin `URL`; never the URI or a part
/// of it.
pub fn client_login(
    uri: &Secret,
    env: &BTreeMap<String, String>,
) -> Result<(ResolvedPool, TcpConfig), ConfigErrors> {
    const ORIGIN: &str = "URL";
    let gathered = upstream::resolve(uri, ORIGIN, env).map(|upstream| upstream.values);
    let (layers, mut errors) = match gathered {
        Ok(values) => (vec![Layer::new(Origin::Upstream(ORIGIN), values)], Vec::new()),
        Err(errors) => (Vec::new(), errors),
    };
    let Read { mut config, errors: found, .. } =
        read::read(&Sources::merged(layers), ORIGIN.to_owned());
    errors.extend(found);
    resolve(&mut config, false);
    let named = |name: &&String| *name != WILDCARD;
    let database = config.databases.keys().find(named);
    let user = config.users.keys().find(named);
    let pool = database.zip(user).and_then(|(database, user)| config.pool(database, user));
    if let Some(errors) = ConfigErrors::from_found(errors) {
        return Err(errors);
    }
    let none = || ConfigErrors::from(ConfigError::of_source(ORIGIN, "names no login"));
    Ok((pool.ok_or_else(none)?, config.clients.tcp))
}

#[derive(Default)]
struct Gathered {
    /// In rising order of precedence.
    layers: Vec<Layer>,
    errors: Vec<ConfigError>,
    file: Option<String>,
    upstream_user: Option<String>,
    note: Option<String>,
}

/// Reads every source; one that cannot be read is an error and no layer.
fn gather(overrides: &Overrides, env: &BTreeMap<String, String>) -> Gathered {
    let from_env = |name: &str| env.get(name).filter(|value| !value.is_empty());
    let upstream = match (&overrides.upstream, from_env(ENV_UPSTREAM)) {
        (Some(uri), _) => Some((uri.clone(), "--upstream")),
        (None, Some(uri)) => Some((Secret::from(uri.as_str()), ENV_UPSTREAM)),
        (None, None) => None,
    };
    let named = overrides.config.as_deref().or_else(|| from_env(ENV_CONFIG).map(Path::new));
    let mut gathered = Gathered::default();

    // With an upstream a file that happens to lie here must not add to it unasked.
    if named.is_some() || upstream.is_none() {
        match Layer::file(named) {
            Ok(layer) => {
                gathered.file = layer.as_ref().map(|layer| layer.origin(&[]));
                gathered.layers.extend(layer);
            }
            Err(error) => gathered.errors.push(error),
        }
    }
    gathered.layers.push(Layer::environment(env));
    if let Some((uri, origin)) = upstream {
        match upstream::resolve(&uri, origin, env) {
            Ok(upstream) => {
                gathered.layers.push(Layer::new(Origin::Upstream(origin), upstream.values));
                gathered.upstream_user = Some(upstream.user);
                gathered.note = upstream.note;
            }
            Err(errors) => gathered.errors.extend(errors),
        }
    }
    gathered.layers.push(Layer::flags(overrides));
    gathered
}

/// Replaces what stands for "as the machine is" or "as another option is".
fn resolve(config: &mut Config, socket_port_is_set: bool) {
    if config.workers == 0 {
        // A machine that does not tell its cores gets one worker, which always works.
        config.workers = std::thread::available_parallelism().map_or(1, usize::from);
    }
    let first_port = config.listen.addresses.first().map(std::net::SocketAddr::port);
    if let (false, Some(port @ 1..)) = (socket_port_is_set, first_port) {
        config.listen.unix_socket_port = port;
    }
    for database in config.databases.values_mut() {
        if matches!(database.host, crate::Host::Unix(_)) {
            database.tls = crate::ServerTls { mode: crate::SslMode::Disable, ..Default::default() };
        }
    }
}

#[cfg(test)]
mod tests;
