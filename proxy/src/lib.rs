//! The driver: sockets, TLS, timers, tasks, metrics, console and HTTP.

pub mod accept;
pub mod cancel_keys;
pub mod check;
pub mod cli;
pub mod collect;
pub mod console;
pub mod credentials;
pub mod derivation;
pub mod descriptors;
pub mod dial;
pub mod directory;
pub mod http;
pub mod lobby;
pub mod logging;
pub mod login;
pub mod metrics;
mod names;
pub mod serve;
pub mod signals;
pub mod state_dir;
pub mod tcp;
pub mod tls;
pub mod topology;
pub mod transport;
pub mod worker;
