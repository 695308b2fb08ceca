//! The driver: sockets, TLS, timers, tasks, metrics, console and HTTP.

pub mod dial;
pub mod login;
pub mod transport;
