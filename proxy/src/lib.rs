//! The driver of the proxy: sockets, TLS, timers, tasks, credentials, cluster probes, console,
//! metrics and HTTP. What a session does next is decided in `pgimbal-pooler`.

pub mod accept;
pub mod admin;
pub mod budget;
pub mod cancel_keys;
pub mod cli;
pub mod credentials;
pub mod derivation;
pub mod descriptors;
pub mod dial;
pub mod directory;
pub mod facts;
pub mod inherited;
pub mod logging;
pub mod login;
mod names;
pub mod peers;
pub mod pending_logins;
pub mod serve;
pub mod service_manager;
pub mod signals;
pub mod state_dir;
pub mod store;
pub mod tcp;
pub mod telemetry;
pub mod tls;
pub mod top;
pub mod topology;
pub mod transport;
pub mod worker;
