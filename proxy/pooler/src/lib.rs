//! Every decision of the proxy, without a socket, a clock or a random number.
//!
//! [`Pooler`](pooler::Pooler) is one worker's core: bytes and events come in with their time, a
//! plan of what to write and a list of actions come out. The driver in `proxy` does as it says.

pub mod action;
pub mod cancel;
pub mod cluster;
mod core;
pub mod error;
pub mod ids;
pub mod listener;
pub mod plan;
pub mod pool;
pub mod pooler;
pub mod recovery;
pub mod sample;
pub mod server;
pub mod session;
pub mod sql;
mod tables;
#[cfg(test)]
mod tests;
pub mod topology;
