//! What the replicas of a deployment share, decided without IO: the document of durable facts and
//! how two of them merge, and the budget of server connections.
//!
//! It reads no clock and draws no random number: times, ids and chance are arguments.

pub mod budget;
pub mod document;
mod instance;

pub use instance::InstanceId;
