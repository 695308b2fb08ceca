//! The statements of behaviour that pgimbal keeps, each as a test that watches the wire.
#![allow(missing_docs, reason = "a test's name is its documentation")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

mod broken_servers;
mod budget;
mod bytes;
mod cancel;
mod certificates;
mod charts;
mod check;
mod check_gate;
mod clusters;
mod command_line;
mod compose;
mod console;
mod copy;
mod examples;
mod extended;
mod failover;
mod hostile;
mod isolation;
mod kubernetes_page;
mod kubernetes_story;
mod libraries;
mod linking;
mod listening;
mod load_balancer;
mod login;
mod malformed;
mod modes;
mod observability;
mod operations;
mod page;
mod pages;
mod peers;
mod pinning;
mod prepared;
mod reads;
mod real_clients;
mod renewal;
mod replicas;
mod rolling;
mod rotation;
mod rust_client;
mod seen;
mod servers;
mod settings;
mod side_by_side;
mod sockets;
mod starting;
mod state;
mod state_fuzz;
mod statements;
mod terraform;
mod timeouts;
mod tls;
mod top;
mod two_commands;
mod vault;
