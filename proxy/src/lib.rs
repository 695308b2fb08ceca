//! The driver: sockets, TLS, timers, tasks, metrics, console and HTTP.
