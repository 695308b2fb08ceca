//! Framing and control messages of the PostgreSQL wire protocol.
//!
//! Owns what bytes mean; knows no socket, no clock and no session. The hot path looks at
//! headers in place ([`frame`]); control messages are decoded and encoded with `pgwire`'s types
//! where they are text of our own, and as bytes where a client's or a server's bytes pass through.

pub mod authentication;
pub mod encode;
pub mod error;
pub mod extended;
pub mod frame;
pub mod options;
pub mod startup;
pub mod tag;
