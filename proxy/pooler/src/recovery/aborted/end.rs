//! Which statements end a transaction that is lost.

use crate::sql::{Chain, Classified, Form};

/// How a statement ends a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Commit,
    Rollback,
    /// It does not, but goes back to a savepoint, or gives one up: the savepoint is lost too.
    Savepoint,
}

/// How a text of one statement does.
pub(crate) fn end_in(classified: &Classified) -> Option<End> {
    classified.only().and_then(end_in_one)
}

/// How a statement does.
pub(crate) const fn end_in_one(form: &Form) -> Option<End> {
    match form {
        // AND CHAIN would begin the next transaction, for which there is no server.
        Form::Rollback(Chain::No) => Some(End::Rollback),
        Form::Commit(_) | Form::PrepareTransaction => Some(End::Commit),
        Form::RollbackTo(_) | Form::Release(_) => Some(End::Savepoint),
        _ => None,
    }
}
