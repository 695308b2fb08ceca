//! The statements of behaviour that pgimbal keeps, each as a test that watches the wire.
#![allow(missing_docs, reason = "a test's name is its documentation")]

mod broken_servers;
mod bytes;
mod cancel;
mod check;
mod clusters;
mod command_line;
mod copy;
mod extended;
mod failover;
mod hostile;
mod isolation;
mod libraries;
mod linking;
mod login;
mod malformed;
mod modes;
mod operations;
mod pinning;
mod prepared;
mod real_clients;
mod rotation;
mod rust_client;
mod seen;
mod servers;
mod settings;
mod side_by_side;
mod sockets;
mod state;
mod state_fuzz;
mod statements;
mod timeouts;
mod tls;
mod vault;
