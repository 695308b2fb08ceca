//! Authentication: who a client is, and how pgimbal proves itself to a server.
//!
//! This crate owns the SCRAM, MD5 and clear-text exchanges in both directions, and the verifiers by
//! which proofs are checked. It knows no socket, no clock and no random source: nonces and salts
//! are arguments.

pub mod account;
pub mod answer;
pub mod channel;
pub mod client_login;
pub mod deployment;
pub mod error_source;
pub mod md5;
pub mod rotation;
pub mod scram;
pub mod server_login;
#[cfg(feature = "sources")]
pub mod source;
pub mod token;
pub mod verifier;

pub use answer::{SourceError, SourcePassword};
pub use channel::Channel;
pub use error_source::ErrorSource;
