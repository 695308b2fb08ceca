//! Session state: proven by the server's replies, asked about, or reset.
//!
//! What a text may have left in its session is only raised here; what is there, the server says
//! before anybody else gets the connection.

pub mod answer;
pub mod asking;
pub(crate) mod books;
pub mod custom;
pub mod facts;
pub mod portals;
pub mod question;
pub mod reset;
