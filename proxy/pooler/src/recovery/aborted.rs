//! What a session is told while it has no server connection to speak for itself: an error for a
//! segment that could not be served, or the rest of a transaction whose server connection died.
//!
//! PostgreSQL's own behaviour in a failed transaction is the model: everything is refused until
//! the transaction's end. `session/client_turn/aborted.rs` answers the client's messages so.

pub(crate) mod end;
mod lost;
mod unserved;

use std::sync::Arc;

use pgimbal_wire::encode::TransactionStatus;

pub(crate) use self::lost::Lost;
pub(crate) use self::unserved::Unserved;

/// The errors that a session answers its client with while it has no server connection: for a
/// segment or a pipeline that could not be served, or for the rest of a transaction whose
/// connection broke. As in a failed transaction of PostgreSQL, everything is refused up to its end.
#[derive(Debug)]
pub struct Aborted {
    /// The body of the ErrorResponse that the client has not been told yet.
    error: Option<Arc<[u8]>>,
    scope: Scope,
}

#[derive(Debug)]
enum Scope {
    /// One segment: up to the next ReadyForQuery.
    Segment,
    /// All segments that the client has sent already: they have waited together for a server
    /// connection that did not come.
    Pipeline(Unserved),
    /// A transaction that is lost with its server connection.
    Transaction(Lost),
}

impl Aborted {
    /// The next segment, up to its ReadyForQuery, is answered with `error`, the body of an
    /// ErrorResponse; ReadyForQuery then says idle. What stands behind it is served normally.
    #[must_use]
    pub const fn refused(error: Arc<[u8]>) -> Self {
        Self { error: Some(error), scope: Scope::Segment }
    }

    /// The client's transaction is lost: all is refused until the client ends it, and ReadyForQuery
    /// says failed. `error`, the body of an ErrorResponse, is told at its next message; `None` if
    /// it was told, and then the error is 25P02. A ROLLBACK succeeds without a server; a COMMIT
    /// ends the transaction too, but gets the error.
    #[must_use]
    pub fn lost(error: Option<Arc<[u8]>>) -> Self {
        Self { error, scope: Scope::Transaction(Lost::default()) }
    }

    /// As [`Self::lost`], in the middle of a segment for which the client awaits nothing now: the
    /// error is told at its Sync at the latest.
    #[must_use]
    pub fn cut(error: Arc<[u8]>) -> Self {
        Self { error: Some(error), scope: Scope::Transaction(Lost::cut()) }
    }

    /// No server connection could be had for what the client has sent: the next segment is answered
    /// with `first`, those that are pipelined behind it with `error`; `None` if they are to be
    /// served normally. Both are bodies of an ErrorResponse. If the segment would have begun a
    /// transaction block, what follows in the pipeline is refused like a lost transaction.
    #[must_use]
    pub fn unserved(first: Arc<[u8]>, error: Option<Arc<[u8]>>) -> Self {
        Self { error: Some(first), scope: Scope::Pipeline(Unserved::new(error)) }
    }

    /// The error that has not been told yet.
    pub(crate) fn into_error(self) -> Option<Arc<[u8]>> {
        self.error
    }

    /// Takes the error to tell it; `None` if it was told.
    pub(crate) const fn take_error(&mut self) -> Option<Arc<[u8]>> {
        self.error.take()
    }

    /// The transaction, if it is one that is lost.
    pub(crate) const fn as_lost(&self) -> Option<&Lost> {
        match &self.scope {
            Scope::Transaction(lost) => Some(lost),
            Scope::Segment | Scope::Pipeline(_) => None,
        }
    }

    /// As [`Self::as_lost`], to be changed.
    pub(crate) const fn as_lost_mut(&mut self) -> Option<&mut Lost> {
        match &mut self.scope {
            Scope::Transaction(lost) => Some(lost),
            Scope::Segment | Scope::Pipeline(_) => None,
        }
    }

    /// The pipeline, if it is one that could not be served.
    pub(crate) const fn as_unserved_mut(&mut self) -> Option<&mut Unserved> {
        match &mut self.scope {
            Scope::Pipeline(unserved) => Some(unserved),
            Scope::Segment | Scope::Transaction(_) => None,
        }
    }

    /// Whether the end of a segment is answered with the error that the client has not been told.
    pub(crate) const fn is_due_at_sync(&self) -> bool {
        let due = match &self.scope {
            Scope::Segment | Scope::Pipeline(_) => true,
            Scope::Transaction(lost) => lost.is_cut(),
        };
        due && self.error.is_some()
    }

    /// What is left behind the end of a segment, behind which the client's pipeline `goes_on`.
    pub(crate) fn behind_segment(self, goes_on: bool) -> Option<Self> {
        match self.scope {
            Scope::Segment => None,
            Scope::Transaction(lost) if !lost.has_ended() => {
                let scope = Scope::Transaction(lost.behind_segment());
                Some(Self { error: self.error, scope })
            }
            Scope::Transaction(lost) => lost
                .error_behind_end()
                .filter(|_| goes_on)
                .map(|error| Self::unserved(Arc::clone(&error), Some(error))),
            Scope::Pipeline(_) if !goes_on => None,
            Scope::Pipeline(unserved) if unserved.begins_block() => {
                // The error was told at its BEGIN.
                let lost = Lost::followed_by(unserved.error());
                Some(Self { error: None, scope: Scope::Transaction(lost) })
            }
            Scope::Pipeline(unserved) => {
                unserved.error().map(|error| Self::unserved(Arc::clone(&error), Some(error)))
            }
        }
    }

    /// What ReadyForQuery behind a segment says, behind which the client's pipeline `goes_on`.
    pub(crate) fn status(&self, goes_on: bool) -> TransactionStatus {
        match &self.scope {
            Scope::Pipeline(unserved) if goes_on && unserved.begins_block() => {
                TransactionStatus::Failed
            }
            Scope::Transaction(lost) if !lost.has_ended() => TransactionStatus::Failed,
            _ => TransactionStatus::Idle,
        }
    }
}
