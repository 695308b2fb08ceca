//! The configuration of pgimbal: a file, the environment and flags, parsed once into validated,
//! immutable types.
//!
//! This crate owns the name of each option, its allowed values, its default with the reason, and
//! whether a reload applies it. It knows no socket and no pool; the environment and the flags are
//! arguments.

mod backoff;
mod budget;
mod check;
mod cluster;
mod config;
mod credential;
mod elsewhere;
mod error;
mod host;
mod http;
mod load;
mod peers;
mod pgbouncer;
mod pgpass;
mod pool;
mod read;
mod reader;
mod reference;
mod reload;
mod require_auth;
#[cfg(test)]
mod scratch;
mod secret;
mod sources;
mod store;
mod suggest;
mod table;
mod telemetry;
mod tls;
mod units;
mod upstream;
mod uri;
mod user;
mod vault;
mod words;

pub use backoff::Backoff;
pub use budget::{ServerBudget, ServerLimit};
pub use cluster::{ClusterConfig, NodeConfig, ResolvedCluster};
pub use config::{ClientConfig, Config, ListenConfig, LogConfig, TcpConfig, WILDCARD};
pub use credential::{CredentialConfig, MAX_SHARED_GENERATIONS};
pub use error::{ConfigError, ConfigErrors, EXIT_CONFIG};
pub use host::Host;
pub use http::{GREATEST_HTTP_TOKEN, HttpAccess, HttpConfig, LEAST_HTTP_TOKEN};
pub use load::{client_login, load};
pub use peers::{GREATEST_PEER_ID, LEAST_DEPLOYMENT_KEY, PeerAddress, PeersConfig};
pub use pgpass::password_in_pgpass;
pub use pool::{DatabaseConfig, MaxPinned, PoolConfig, ResolvedPool};
pub use reference::{manual_page, reference};
pub use reload::{ReloadChanges, config_after_reload, reload_changes};
pub use require_auth::{AuthMethod, AuthMethods};
pub use secret::Secret;
pub use sources::Overrides;
pub use store::StoreConfig;
pub use suggest::nearest;
pub use telemetry::TelemetryConfig;
pub use tls::{ClientTls, SYSTEM_ROOTS, ServerTls, Verification};
pub use uri::credentials_in_uri;
pub use user::{PasswordForm, ServerPassword, SourceConfig, UserConfig};
pub use vault::VaultConfig;
pub use words::{
    AuthType, ChannelBinding, HiddenState, HistoryPlace, ListenMode, LogFormat,
    LostTransactionError, OnClientGone, PoolMode, ReadConsistency, ReadUnparsed, ReplicaFallback,
    Route, SslMode, StoreKind, VaultLogin, Verify,
};
