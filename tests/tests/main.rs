//! The statements of behaviour that pgimbal keeps, each as a test that watches the wire.
#![allow(missing_docs, reason = "a test's name is its documentation")]

mod broken_servers;
mod bytes;
mod cancel;
mod copy;
mod extended;
mod linking;
mod login;
mod malformed;
mod modes;
mod prepared;
mod servers;
mod settings;
mod sockets;
mod statements;
