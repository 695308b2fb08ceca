//! The settings of sessions: which a client stands at, which a server connection stands at, and
//! the texts that move a server connection from one to the other.
//!
//! A value is kept as `set_config` would take it, whether it came with the startup packet or from
//! SET, so that equal settings are equal bytes. What a setting means is the server's business. A
//! setting that the server reports is kept in the server's own spelling.
//!
//! A set of settings is a number in a table of the worker ([`SettingsTable`]): equal sets have
//! equal numbers. The startup values of a client are its base, to which RESET returns.
//! [`ClientSettings`] has the current number and, while a transaction has changed something, those
//! of before, of after COMMIT (without SET LOCAL) and of each savepoint. [`replay_sql`] writes what
//! moves a server connection from one number to another.

mod client;
pub(crate) mod neutral;
mod refused;
mod replay;
mod startup;
mod table;

pub use client::{ClientSettings, Reset, Untracked};
pub use refused::RefusedSettings;
pub use replay::{Replay, assign, assign_local, order_of, replay_sql, reset_local};
pub use startup::{StartupError, normalize_startup};
pub use table::{Setting, SettingsId, SettingsTable, TooManySettings, ValueEncoding};

pub(crate) use neutral::{is_looked_at_again, is_read_at_parse};

#[cfg(test)]
mod tests;
