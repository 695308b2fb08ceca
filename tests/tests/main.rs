//! The statements of behaviour that pgimbal keeps, each as a test that watches the wire.
#![allow(missing_docs, reason = "a test's name is its documentation")]

mod copy;
mod extended;
mod linking;
mod prepared;
mod servers;
mod settings;
mod statements;
