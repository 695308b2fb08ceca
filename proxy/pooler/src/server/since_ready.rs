//! What has happened on a server connection since its last ReadyForQuery.

/// What has happened on a server connection since its last ReadyForQuery. ReadyForQuery resets it,
/// but for what belongs to a later part of a pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinceReady {
    /// Whether an ErrorResponse has come. In the extended protocol the server then skips what
    /// follows up to Sync.
    pub failed: bool,
    /// Whether a statement that ends the transaction block (COMMIT, ROLLBACK, PREPARE TRANSACTION)
    /// was sent. Kept over a ReadyForQuery while other replies are pending.
    pub ending: Ending,
    /// When a statement outside of a transaction block that was sent commits. Kept over a
    /// ReadyForQuery while other replies are pending.
    pub commits: Commits,
    /// Whether the proxy itself has sent a cancel request for what runs now, because its client has
    /// left or a time limit has passed.
    pub cancelled: bool,
    /// Whether a segment is open: extended-protocol messages were sent, and the Sync behind them
    /// was not. ReadyForQuery does not change this.
    pub segment_open: bool,
}

/// When the statements that were sent outside of a transaction block commit. Recovery uses it to
/// judge whether they may have taken effect when the connection breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Commits {
    /// At their end, so that their failure proves that nothing of them has taken effect.
    #[default]
    AtEnd,
    /// Perhaps before their end, as a procedure that CALL runs may: a failure proves nothing.
    OnItsWay,
}

/// Whether a statement that ends the transaction block is among what was sent and not answered yet.
/// Recovery uses it to judge whether the transaction may have been committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// No such statement was sent.
    #[default]
    No,
    /// A ROLLBACK was sent and nothing else that ends a transaction: a break of the connection has
    /// the same effect.
    Rollback,
    /// A COMMIT, END or PREPARE TRANSACTION may be among what was sent: if the connection breaks,
    /// the outcome is unknown, and it is not cancelled when its client leaves.
    MayCommit,
}
