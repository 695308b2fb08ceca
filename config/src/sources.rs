//! The layers a configuration comes from: file, environment, upstream, flags, merged by figment,
//! which remembers for each value the layer it came from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};

use crate::error::ConfigError;
use crate::pgbouncer;
use crate::secret::Secret;

mod foreign;

/// Prefix of pgimbal's environment variables.
pub(crate) const ENV_PREFIX: &str = "PGIMBAL_";
/// Separator of the parts of a nested key in a variable's name.
pub(crate) const ENV_NESTING: &str = "__";
/// Names of the variables that stand for the flags `--config` and `--upstream` and are no options.
pub(crate) const ENV_CONFIG: &str = "PGIMBAL_CONFIG";
pub(crate) const ENV_UPSTREAM: &str = "PGIMBAL_UPSTREAM";

/// The files that are read when no configuration file is named; neither need exist.
const USUAL_FILES: [&str; 2] = ["pgimbal.toml", "/etc/pgimbal/pgimbal.toml"];

/// The flags of the command line; `None` for a flag that was not given. Flags win over environment
/// and file. [`crate::load()`] checks their texts, at the start and again at each reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config`: the file. Without it `PGIMBAL_CONFIG`, else `pgimbal.toml` here or in
    /// `/etc/pgimbal`, if there is one and no upstream is given.
    pub config: Option<PathBuf>,
    /// `--upstream`: a server, as libpq's URI. Without it `PGIMBAL_UPSTREAM`.
    pub upstream: Option<Secret>,
    /// `--listen`: the option `listen`, TCP addresses with commas between them.
    pub listen: Option<String>,
    /// `--pool-size`: the option `pool_size` of the top level; a database's or user's own stays.
    pub pool_size: Option<String>,
    /// `--pool-mode`: the option `pool_mode` of the top level; a database's or user's own stays.
    pub pool_mode: Option<String>,
    /// `--auth-type`: the option `auth_type`, how clients prove who they are.
    pub auth_type: Option<String>,
    /// `--workers`: the option `workers`, threads that serve clients; 0 for one on each core.
    pub workers: Option<String>,
}

/// The values of one source.
#[derive(Clone)]
pub(crate) struct Layer {
    origin: Origin,
    values: Dict,
}

/// The kind of source that a layer has, for errors.
#[derive(Clone)]
pub(crate) enum Origin {
    /// A file.
    File(PathBuf),
    /// The environment; the key tells the variable.
    Environment,
    /// The flags; the key tells which.
    Flags,
    /// `--upstream` or its variable, by name.
    Upstream(&'static str),
}

impl Origin {
    /// The name of the file, variable or flag that set the option `keys`.
    fn of(&self, keys: &[&str]) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Environment => env_name(keys),
            Self::Flags => format!("--{}", keys.join("-").replace('_', "-")),
            Self::Upstream(name) => (*name).to_owned(),
        }
    }
}

impl Layer {
    pub(crate) fn new(origin: Origin, values: Dict) -> Self {
        Self { origin, values }
    }

    /// The file, variable or flag that sets `keys` in this layer.
    pub(crate) fn origin(&self, keys: &[&str]) -> String {
        self.origin.of(keys)
    }

    /// The layer of the file `named`, or of one of the usual files; `None` when there is none.
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML. The text of the file is never part of the error.
    pub(crate) fn file(named: Option<&Path>) -> Result<Option<Self>, ConfigError> {
        let usual = || USUAL_FILES.iter().map(Path::new).find(|path| path.exists());
        let Some(path) = named.or_else(usual) else { return Ok(None) };
        let fault = |cause: String| ConfigError::of_source(path.display().to_string(), cause);
        let bytes = std::fs::read(path).map_err(|e| fault(format!("cannot read: {e}")))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let before = String::from_utf8_lossy(&e.as_bytes()[..e.utf8_error().valid_up_to()]);
            let at = position(&before, before.len());
            fault(format!("{at}what stands there is not UTF-8, which TOML is written in"))
        })?;
        let values = Toml::from_str::<Dict>(&text).map_err(|e| {
            let at = e.span().map(|span| position(&text, span.start)).unwrap_or_default();
            let ini = match pgbouncer::is_ini(&text) {
                true => {
                    "; it looks like PgBouncer's file: pgimbal's is TOML, with texts in quotes \
                         and a table [databases.NAME] for each database"
                }
                false => "",
            };
            fault(format!("{at}{}{ini}", one_line(e.message())))
        })?;
        Ok(Some(Self::new(Origin::File(path.to_owned()), values)))
    }

    /// `PGIMBAL_MAX_CLIENT_CONN`, and `PGIMBAL_DATABASES__APP__HOST` for nested keys; names are
    /// lower case then. An empty variable counts as not set, as in a compose file.
    pub(crate) fn environment(env: &BTreeMap<String, String>) -> Self {
        let mut values = Dict::new();
        for (name, value) in env {
            let Some(key) = name.strip_prefix(ENV_PREFIX) else { continue };
            if value.is_empty() || foreign::is_foreign(name, value) {
                continue;
            }
            let key = key.to_lowercase();
            let keys: Vec<&str> = key.split(ENV_NESTING).collect();
            insert(&mut values, &keys, value);
        }
        Self::new(Origin::Environment, values)
    }

    /// The flags that stand for options.
    pub(crate) fn flags(overrides: &Overrides) -> Self {
        let Overrides { config: _, upstream: _, listen, pool_size, pool_mode, auth_type, workers } =
            overrides;
        let given = [
            ("listen", listen),
            ("pool_size", pool_size),
            ("pool_mode", pool_mode),
            ("auth_type", auth_type),
            ("workers", workers),
        ];
        let values = given
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), Value::from(value.as_deref()?))));
        Self::new(Origin::Flags, values.collect())
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let origin = self.origin.clone();
        Metadata::named("pgimbal").interpolater(move |_, keys| origin.of(keys))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// All layers, merged.
pub(crate) struct Sources(Figment);

impl Sources {
    /// Later layers win, key by key.
    pub(crate) fn merged(layers: impl IntoIterator<Item = Layer>) -> Self {
        Self(layers.into_iter().fold(Figment::new(), Figment::merge))
    }

    /// Every value, tagged with the layer it came from.
    pub(crate) fn values(&self) -> Dict {
        self.0.find_value("").ok().and_then(Value::into_dict).unwrap_or_default()
    }

    /// The file, variable or flag that set `keys`.
    pub(crate) fn origin(&self, tag: Tag, keys: &[&str]) -> String {
        self.0
            .get_metadata(tag)
            .map(|metadata| metadata.interpolate(self.0.profile(), keys))
            .unwrap_or_default()
    }
}

/// The variable that sets the option `keys`.
pub(crate) fn env_name(keys: &[&str]) -> String {
    format!("{ENV_PREFIX}{}", keys.join(ENV_NESTING).to_uppercase())
}

/// Puts `value` below the nested `keys`.
fn insert(values: &mut Dict, keys: &[&str], value: &str) {
    match keys {
        [] => {}
        [key] => {
            values.insert((*key).to_owned(), Value::from(value));
        }
        [key, rest @ ..] => {
            let inner = values.entry((*key).to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            } else {
                let mut fresh = Dict::new();
                insert(&mut fresh, rest, value);
                *inner = Value::from(fresh);
            }
        }
    }
}

/// A message of several lines as one.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

/// `line 3, column 7: ` for a place in the text.
fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: ")
}
