//! Statements of the list of behaviours, held at the core: every answer is also compared with what
//! PostgreSQL alone would have said.

mod copy;
mod credentials;
mod failover;
mod failover_blocks;
mod failover_in_the_middle;
mod failover_logins;
mod failover_reruns;
mod limits;
mod linking;
mod listening;
mod prepared;
mod questions;
mod state;
mod trouble;

use crate::message as m;

/// Messages of one segment, Sync at its end.
fn segment(messages: &[Vec<u8>]) -> Vec<u8> {
    [&messages.concat()[..], &m::sync()].concat()
}

/// Parse, Bind, Execute, Sync of a named statement.
fn prepare_and_run(name: &str, text: &str, parameter: &str) -> Vec<u8> {
    segment(&[m::parse(name, text), m::bind("", name, parameter), m::execute("", 0)])
}

/// Bind, Execute, Sync.
fn run(name: &str, parameter: &str) -> Vec<u8> {
    segment(&[m::bind("", name, parameter), m::execute("", 0)])
}
