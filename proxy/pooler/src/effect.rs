//! What a statement will have done to its session once it has succeeded.

/// A change of session state that is applied when the server has confirmed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `SET name TO value` for the session; the value is raw SQL.
    Set {
        /// Lower-cased name of the setting.
        name: Box<[u8]>,
        /// The right-hand side, verbatim.
        value: Box<[u8]>,
    },
    /// `RESET name`.
    Reset {
        /// Lower-cased name of the setting.
        name: Box<[u8]>,
    },
    /// `RESET ALL`.
    ResetAll,
    /// `DISCARD ALL`.
    DiscardAll,
    /// `DISCARD TEMP`.
    DiscardTemp,
    /// `DEALLOCATE ALL`.
    DeallocateAll,
    /// `DEALLOCATE name`.
    Deallocate {
        /// The client's name of the statement.
        name: Box<[u8]>,
    },
    /// `UNLISTEN *`.
    UnlistenAll,
    /// `SAVEPOINT name`.
    Savepoint {
        /// The savepoint's name.
        name: Box<[u8]>,
    },
    /// `ROLLBACK TO name`.
    RollbackTo {
        /// The savepoint's name.
        name: Box<[u8]>,
    },
    /// `RELEASE name`.
    Release {
        /// The savepoint's name.
        name: Box<[u8]>,
    },
}
