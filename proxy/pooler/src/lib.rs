//! Every decision of the proxy, without a socket, a clock or a random number.
//!
//! [`Pooler`](pooler::Pooler) is one worker's core: bytes and events come in with their time, a
//! plan of what to write and a list of actions come out. The driver in `proxy` does as it says.

pub mod effect;
pub mod ids;
pub mod owed;
pub mod plan;
pub mod prepared;
pub mod reported;
pub mod settings;
pub mod shared;
pub mod stats;
pub mod text;
