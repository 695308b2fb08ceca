//! Where passwords come from: Vault, files, the environment, the configuration itself.
//!
//! Each source answers when it is asked, and says when it is worth asking again if it knows. It
//! remembers no generation and decides on none.

use std::fmt::Debug;
use std::pin::Pin;

use tokio::sync::watch;

use crate::{Answer, SourceError};

mod file;
mod fixed;
#[cfg(test)]
mod scratch;
mod sources;
mod vault;

pub use self::sources::Sources;
pub use self::vault::{Health, TokenStanding, VaultClient};

/// A future on the heap, so that sources of different kinds are one type.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where the password of one user is.
pub trait Source: Debug + Send + Sync {
    /// Asks for the password as it is now.
    fn fetch(&self) -> BoxFuture<'_, Result<Answer, SourceError>>;

    /// Ticks when the place has changed; `None` for a source that must be asked regularly, and
    /// for one that never changes.
    fn changes(&self) -> Option<watch::Receiver<u64>>;

    /// `vault`, `file`, `env` or `inline`.
    fn kind(&self) -> &'static str;

    /// The place in words, without a secret.
    fn place(&self) -> String;
}

#[cfg(test)]
mod tests;
