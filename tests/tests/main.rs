//! The statements of behaviour that pgimbal keeps, each as a test that watches the wire.
#![allow(missing_docs, reason = "a test's name is its documentation")]

mod broken_servers;
mod bytes;
mod cancel;
mod copy;
mod extended;
mod isolation;
mod linking;
mod login;
mod malformed;
mod modes;
mod operations;
mod pinning;
mod prepared;
mod seen;
mod servers;
mod settings;
mod sockets;
mod statements;
