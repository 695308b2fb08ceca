//! What a statement will have done to its session once it has succeeded.

use crate::text::{Discard, Scope, Statement};

/// A name or value of the client's, as bytes.
pub type Bytes = Box<[u8]>;

/// A change of session state that is applied when the server has confirmed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `SET` for the session: names in lower case, values as `set_config` takes them.
    Set(Vec<(Bytes, Bytes)>),
    /// `RESET name`, the name in lower case.
    Reset(Bytes),
    /// `RESET ALL`.
    ResetAll,
    /// `DISCARD ALL`.
    DiscardAll,
    /// `DISCARD TEMP`.
    DiscardTemp,
    /// `DEALLOCATE ALL`.
    DeallocateAll,
    /// `DEALLOCATE name`.
    Deallocate(Bytes),
    /// `UNLISTEN *`.
    UnlistenAll,
    /// `SELECT pg_advisory_unlock_all()`.
    UnlockAll,
    /// `CLOSE ALL`.
    CloseAll,
    /// `SAVEPOINT name`.
    Savepoint(Bytes),
    /// `ROLLBACK TO name`.
    RollbackTo(Bytes),
    /// `RELEASE name`.
    Release(Bytes),
}

/// The effects of one text, in order; they are applied once the whole of it has succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effects(pub Vec<Effect>);

impl Effect {
    /// Whether settings return to their defaults.
    #[must_use]
    pub const fn resets(&self) -> bool {
        matches!(self, Self::Reset(_) | Self::ResetAll | Self::DiscardAll)
    }

    /// The effect of a text of exactly one statement; `None` when it has none that outlives its
    /// transaction, or one that pins the session instead.
    #[must_use]
    pub fn of(statement: &Statement<'_>) -> Option<Self> {
        let bytes = |name: &[u8]| Bytes::from(name);
        Some(match statement {
            Statement::Set { name, value, scope: Scope::Session } => {
                Self::Set(vec![(bytes(name), bytes(value))])
            }
            Statement::SetCharacteristics(characteristics) => Self::Set(
                characteristics
                    .settings()
                    .map(|(name, value)| (bytes(name.as_bytes()), bytes(value.as_bytes())))
                    .collect(),
            ),
            Statement::Reset { name, scope: Scope::Session } => Self::Reset(bytes(name)),
            Statement::ResetAll => Self::ResetAll,
            Statement::DiscardAll => Self::DiscardAll,
            Statement::Discard(Discard::Temporary) => Self::DiscardTemp,
            Statement::DeallocateAll => Self::DeallocateAll,
            Statement::Deallocate { name } => Self::Deallocate(bytes(name)),
            Statement::UnlistenAll => Self::UnlistenAll,
            Statement::UnlockAll => Self::UnlockAll,
            Statement::CloseAll => Self::CloseAll,
            Statement::Savepoint { name } => Self::Savepoint(bytes(name)),
            Statement::RollbackTo { name } => Self::RollbackTo(bytes(name)),
            Statement::Release { name } => Self::Release(bytes(name)),
            _ => return None,
        })
    }
}
