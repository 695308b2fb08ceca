//! Every decision of the proxy, without a socket, a clock or a random number.
//!
//! [`Pooler`](pooler::Pooler) is one worker's core: bytes and events come in with their time, a
//! plan of what to write and a list of actions come out. The driver in `proxy` does as it says.

pub mod aborted;
pub mod arrival;
pub mod block;
pub mod broken;
pub mod cancel;
pub mod cancelling;
pub mod checkout;
mod client_turn;
pub mod cluster;
pub mod credential;
pub mod departure;
pub mod effect;
mod hold;
pub mod ids;
pub mod in_flight;
mod link;
pub mod migration;
pub mod pending;
pub mod pin;
mod place;
pub mod plan;
pub mod pool;
pub mod pooler;
pub mod prepared;
pub mod renewal;
pub mod reported;
pub mod rerun;
mod retire;
pub mod route;
pub mod server;
pub mod server_life;
pub mod server_statements;
pub mod server_turn;
pub mod session;
pub mod settings;
pub mod shared;
mod snapshot;
pub mod sql;
pub mod state;
pub mod stats;
pub mod tick;
pub mod topology;
