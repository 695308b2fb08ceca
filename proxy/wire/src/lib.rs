//! Framing and control messages of the PostgreSQL frontend/backend protocol, versions 3.0 and 3.2.
//!
//! This crate owns the meaning of bytes and knows no socket, no clock and no session. The hot path
//! reads message headers in place ([`frame`]). Control messages whose text is pgimbal's own are
//! encoded with `pgwire`'s types; where bytes of a client or a server pass through, they are
//! handled as bytes.

pub mod authentication;
pub mod encode;
pub mod error;
pub mod extended;
pub mod frame;
pub mod options;
pub mod startup;
pub mod tag;
