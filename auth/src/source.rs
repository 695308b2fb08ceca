//! Sources of passwords: Vault, files, environment variables and the configuration itself.
//!
//! A source answers when it is asked, and reports changes if it notices them. It remembers no
//! generations.

use std::fmt::Debug;
use std::pin::Pin;

use tokio::sync::watch;

use crate::{SourceError, SourcePassword};

mod file;
mod fixed;
#[cfg(test)]
mod scratch;
mod sources;
mod vault;

pub use self::sources::Sources;
pub use self::vault::{Health, KvContent, KvDocument, KvSecret, TokenStatus, VaultClient};

/// A future on the heap, so that sources of different kinds are one type.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A source of one user's password: Vault, a file, an environment variable or the configuration.
/// Sources of all kinds are used as `Arc<dyn Source>`.
pub trait Source: Debug + Send + Sync {
    /// Asks for the current password. It may take as long as the Vault's option `timeout` for each
    /// request; a file is read on a blocking thread. The answer is not stored: each call asks anew,
    /// but a variable or inline password is the one read at the start.
    ///
    /// # Errors
    /// [`SourceError`] by cause, when the source cannot be asked or has no usable password.
    fn fetch(&self) -> BoxFuture<'_, Result<SourcePassword, SourceError>>;

    /// A counter that grows when the location has changed; `None` for a source that must be polled
    /// (Vault), and for one that never changes. It begins at 0; the caller asks again when it
    /// grows. Only a file has one, and is followed while the source or a receiver is held.
    fn changes(&self) -> Option<watch::Receiver<u64>>;

    /// The kind of source: `vault`, `file`, `env` or `inline`.
    fn kind(&self) -> &'static str;

    /// The location of the password in words, without a secret. `vault NAME, role ROLE`, a file's
    /// absolute path, `$VARIABLE`, or `users.NAME.password`.
    fn location(&self) -> String;
}

#[cfg(test)]
mod tests;
