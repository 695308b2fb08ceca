//! Framing and control messages of the PostgreSQL frontend/backend protocol, versions 3.0 and 3.2.
//!
//! Owns what bytes mean; knows no socket, no clock and no session. The hot path looks at headers in
//! place ([`frame`]) and at the fields of a message by reference ([`extended`]).
//!
//! # What is pgwire's, and what is not
//!
//! `pgwire`'s types encode what is made of text of pgimbal's own and sent seldom: ErrorResponse and
//! NoticeResponse ([`error`]), CommandComplete, RowDescription and DataRow ([`encode`], and the
//! console's tables). They own their fields as `String`s or copies, and a message is encoded into a
//! buffer of its own. So they cannot express:
//!
//! - **bytes that are not UTF-8**: names, texts and values of a client or a server are in its
//!   encoding, and pass through unchanged ([`startup`], [`extended`], ParameterStatus, Parse);
//! - **a view of a message that is not complete**, or too long to be kept: decoding takes a whole
//!   message out of a `BytesMut`, where pgimbal reads the first fields of one that streams past
//!   ([`frame`], [`extended`]), or writes only the head of one ([`encode::bind_head`]);
//! - **a message that costs nothing but its bytes**: what is sent with statements of clients
//!   (ParseComplete, ReadyForQuery, Sync, Close and the like) is appended to the buffer that leaves,
//!   without an allocation ([`encode::message`]);
//! - **secrets that are wiped, and limits before a login**: a password message is read by reference
//!   from a buffer with a length of its own ([`authentication`]);
//! - **why a message is malformed**, which decides what the client is told ([`startup::StartupError`],
//!   [`options::OptionsError`]).

pub mod authentication;
pub mod encode;
pub mod error;
pub mod extended;
pub mod frame;
pub mod options;
pub mod startup;
pub mod tag;
