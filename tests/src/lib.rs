//! The test harness, which checks pgimbal from outside: it starts throwaway servers and a real
//! `pgimbal` in front of them, and speaks the raw protocol to both. It has its own parser and never
//! uses `pgimbal-wire`, so that a mistake there cannot hide itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

pub mod authentication;
pub mod backend_watcher;
pub mod busy_pool;
pub mod certificates;
pub mod charts;
pub mod cluster;
pub mod comparison;
pub mod deployment;
pub mod fake_server;
pub mod haproxy;
pub mod http;
pub mod kubernetes;
pub mod leash;
pub mod library;
pub mod message;
pub mod namespace;
pub mod openssl;
pub mod pages;
pub mod pgimbal;
pub mod pipeline;
pub mod port;
pub mod postgres;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod pseudo_terminal;
pub mod relay;
pub mod reply;
pub mod script;
pub mod server;
pub mod sources;
pub mod startup;
pub mod terraform;
pub mod until;
pub mod vault;
pub mod vault_stand_in;
pub mod wire_client;

pub use backend_watcher::BackendWatcher;
pub use cluster::{Cluster, Node};
pub use comparison::{Comparison, ConnectionExpectation};
pub use deployment::Deployment;
pub use fake_server::{FakeServer, ServerSide};
pub use kubernetes::Kubernetes;
pub use message::{Message, ServerError};
pub use pgimbal::Pgimbal;
pub use pipeline::Pipeline;
pub use postgres::Postgres;
pub use prometheus::Prometheus;
pub use relay::Relay;
pub use reply::{Reply, tags};
pub use script::{Script, Shape};
pub use server::Server;
pub use startup::Login;
pub use until::eventually;
pub use vault::{Passwords, Vault};
pub use vault_stand_in::VaultStandIn;
pub use wire_client::WireClient;
