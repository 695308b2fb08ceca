//! The reason for which a call of the store failed, and whose fault that is.

use std::time::Duration;

use thiserror::Error;

use super::document::names_aside;

/// The reason for which a call of the store failed. No text of it holds a part of the document or a
/// secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Somebody else has written the document since it was read. No fault: read and try again.
    #[error("{location}: somebody else has written it since it was read")]
    Conflict {
        /// The store, as [`super::Store::location`] has it.
        location: Box<str>,
    },
    /// The store cannot be reached, or does not serve: it is sealed, starts, or has a fault.
    #[error("{location}: {cause}")]
    Away {
        /// The store.
        location: Box<str>,
        /// What was met, in words.
        cause: Box<str>,
    },
    /// The store did not answer in time.
    #[error("{location}: no answer within {limit:?}")]
    TimedOut {
        /// The store.
        location: Box<str>,
        /// The time limit.
        limit: Duration,
    },
    /// The place of the document is not there, and pgimbal does not make it.
    #[error("{location}: {cause}")]
    Missing {
        /// The store.
        location: Box<str>,
        /// What is not there, and what to do.
        cause: Box<str>,
        /// What to copy: the commands that make it.
        hint: Box<str>,
    },
    /// The store refuses this process a right that it needs.
    #[error("{location}: {cause}")]
    Forbidden {
        /// The store.
        location: Box<str>,
        /// The missing right.
        cause: Box<str>,
        /// What to copy: the rules that give it.
        hint: Box<str>,
    },
    /// The document is larger than the store takes, or than is read.
    #[error("{location}: the document is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The store.
        location: Box<str>,
        /// The limit in bytes.
        limit: usize,
    },
    /// A document that cannot be read cannot be kept aside.
    #[error("{location}: there is no room to keep an unreadable document aside: {cause}")]
    NoRoom {
        /// The store.
        location: Box<str>,
        /// What is in the way, and what to do.
        cause: Box<str>,
    },
    /// The store or its configuration cannot be used as it is; somebody must change it.
    #[error("{location}: {cause}")]
    Unusable {
        /// The store.
        location: Box<str>,
        /// What is wrong.
        cause: Box<str>,
    },
}

impl StoreError {
    /// An error that somebody must mend.
    pub(super) fn unusable(location: &str, cause: impl Into<Box<str>>) -> Self {
        Self::Unusable { location: location.into(), cause: cause.into() }
    }

    /// That all names for unreadable documents are taken.
    pub(super) fn all_taken(location: &str) -> Self {
        let last = names_aside().last().unwrap_or_default();
        let cause = format!("unreadable-1 to {last} are kept; look at them, and remove them");
        Self::NoRoom { location: location.into(), cause: cause.into() }
    }

    /// Whether somebody else has written the document: read, merge and try again.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Whether the store is away, which time may mend. Everything else but a conflict stays until
    /// an operator does something.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::TimedOut { .. })
    }

    /// What an operator may copy to mend it, of one or more lines; `None` when the text says all.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Missing { hint, .. } | Self::Forbidden { hint, .. } => {
                Some(hint).filter(|hint| !hint.is_empty()).map(|hint| &**hint)
            }
            _ => None,
        }
    }
}
