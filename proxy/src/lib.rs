//! The driver: sockets, TLS, timers, tasks, metrics, console and HTTP.

pub mod collect;
pub mod console;
pub mod cli;
pub mod dial;
pub mod http;
pub mod logging;
pub mod login;
pub mod metrics;
pub mod transport;
pub mod tcp;
pub mod tls;
