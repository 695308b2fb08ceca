//! Framing and control messages of the PostgreSQL wire protocol.
//!
//! Owns what bytes mean; knows no socket, no clock and no session. The hot path looks at
//! headers in place ([`frame`]); control messages are decoded and encoded with `pgwire`'s types.

pub mod frame;
pub mod tag;
