//! The settings of one client, and how transactions and savepoints undo them.

mod shown;

use std::sync::Arc;

use super::neutral::{
    CLIENT_ENCODING, ROLE, SESSION_AUTHORIZATION, is_identity, is_never_replayed,
};
use super::table::{Setting, SettingsId, SettingsTable, TooManySettings};
use crate::sql::Scope;

/// Where a client stands. Every change is told after the server has said that it succeeded, and
/// holds once the transaction around it has: [`ClientSettings::commit`] or
/// [`ClientSettings::rollback`] follows every change, also that of a statement outside a block.
///
/// It owns references into the table of its worker: [`ClientSettings::close`] gives them back.
#[derive(Debug)]
pub struct ClientSettings {
    base: SettingsId,
    current: SettingsId,
    transaction: Option<Box<Transaction>>,
}

/// What a client resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset<'n> {
    /// RESET of one setting.
    Name(&'n [u8]),
    /// RESET ALL.
    All,
    /// DISCARD ALL.
    Discard,
}

/// Why a change is not in the books. Nothing has changed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untracked {
    /// More settings, or larger ones, than are kept for one client, or too many savepoints.
    TooMany,
    /// What the server now stands at depends on more than is known here: it must be asked.
    Ask,
}

/// The changes of a transaction. Made at the first of them: savepoints before that need no entry,
/// for they all stand at `before`.
#[derive(Debug)]
struct Transaction {
    before: SettingsId,
    /// What will hold if the transaction commits: without SET LOCAL.
    kept: SettingsId,
    savepoints: Vec<Savepoint>,
}

#[derive(Debug)]
struct Savepoint {
    name: Box<[u8]>,
    current: SettingsId,
    kept: SettingsId,
}

/// Savepoints after a changed setting; a client that nests more keeps its server connection.
const MAX_SAVEPOINTS: usize = 256;

impl From<TooManySettings> for Untracked {
    fn from(_: TooManySettings) -> Self {
        Self::TooMany
    }
}

impl ClientSettings {
    /// A client that starts at `base`, whose reference it takes over.
    pub fn new(table: &mut SettingsTable, base: SettingsId) -> ClientSettings {
        table.retain(base);
        ClientSettings { base, current: base, transaction: None }
    }

    /// Gives back its references.
    pub fn close(mut self, table: &mut SettingsTable) {
        self.commit(table);
        table.release(self.current);
        table.release(self.base);
    }

    /// Where the client stands now, SET LOCAL included. Outside a transaction that is where its
    /// server connection must stand.
    #[inline]
    pub fn current(&self) -> SettingsId {
        self.current
    }

    /// Where it will stand if its transaction commits now.
    pub fn after_commit(&self) -> SettingsId {
        self.transaction.as_ref().map_or(self.current, |transaction| transaction.kept)
    }

    /// Where it will stand if its transaction is rolled back now.
    pub fn after_rollback(&self) -> SettingsId {
        self.transaction.as_ref().map_or(self.current, |transaction| transaction.before)
    }

    /// What the client's startup packet asked for.
    pub fn base(&self) -> SettingsId {
        self.base
    }

    /// SET.
    ///
    /// # Errors
    /// It cannot be followed.
    pub fn set(
        &mut self,
        table: &mut SettingsTable,
        name: &[u8],
        value: &[u8],
        scope: Scope,
    ) -> Result<(), Untracked> {
        if is_never_replayed(name) {
            return Ok(());
        }
        self.check_encoding(table, name, Some(value))?;
        self.change(table, scope, |table, from| {
            let next = table.with(from, name, value)?;
            if name != SESSION_AUTHORIZATION {
                return Ok(next);
            }
            // PostgreSQL forgets the role when the session's user changes.
            let roleless = table.without(next, |other| other == ROLE);
            table.release(next);
            Ok(roleless)
        })
    }

    /// RESET, SET … TO DEFAULT or DISCARD ALL: back to the client's own startup values.
    ///
    /// # Errors
    /// It cannot be followed.
    pub fn reset(
        &mut self,
        table: &mut SettingsTable,
        reset: Reset<'_>,
        scope: Scope,
    ) -> Result<(), Untracked> {
        let base = self.base;
        // RESET ALL passes over what SET LOCAL has brought to its default.
        let passed_over = match reset {
            Reset::All => self.defaults_of_transaction(table),
            Reset::Name(_) | Reset::Discard => Vec::new(),
        };
        if let Reset::Name(name) = reset {
            let to = table.get(base, name).map(<[u8]>::to_vec);
            self.check_encoding(table, name, to.as_deref())?;
        }
        self.change(table, scope, |table, from| match reset {
            Reset::Discard => {
                table.retain(base);
                Ok(base)
            }
            Reset::All => {
                let passed_over = |name: &[u8]| passed_over.iter().any(|other| **other == *name);
                restored(table, from, base, |name| !is_identity(name) && !passed_over(name))
            }
            // The role goes back with the session's user.
            Reset::Name(SESSION_AUTHORIZATION) => restored(table, from, base, is_identity),
            Reset::Name(name) => restored(table, from, base, |other| other == name),
        })
    }

    /// The server's own spelling of a value that was just set, from the ParameterStatus in the
    /// reply. It also completes what a SET says in part (DateStyle).
    pub fn reported(&mut self, table: &mut SettingsTable, name: &[u8], value: &[u8]) {
        let name = name.to_ascii_lowercase();
        let Some(known) = table.get(self.current, &name).map(<[u8]>::to_vec) else { return };
        if known == value {
            return;
        }
        // The value known so far is right as well, should this one be too long to keep.
        let Ok(next) = table.with(self.current, &name, value) else { return };
        table.release(std::mem::replace(&mut self.current, next));
        if let Some(transaction) = &mut self.transaction
            && table.get(transaction.kept, &name) == Some(&known)
            && let Ok(next) = table.with(transaction.kept, &name, value)
        {
            table.release(std::mem::replace(&mut transaction.kept, next));
        }
    }

    /// A setting is gone from the server, and with it from the books.
    pub fn forget(&mut self, table: &mut SettingsTable, name: &[u8]) {
        self.commit(table);
        for place in [&mut self.current, &mut self.base] {
            let next = table.without(*place, |other| other == name);
            table.release(std::mem::replace(place, next));
        }
    }

    /// SAVEPOINT.
    ///
    /// # Errors
    /// There are too many: the client must keep its server connection.
    pub fn savepoint(&mut self, table: &mut SettingsTable, name: &[u8]) -> Result<(), Untracked> {
        let current = self.current;
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        if transaction.savepoints.len() == MAX_SAVEPOINTS {
            return Err(Untracked::TooMany);
        }
        table.retain(current);
        table.retain(transaction.kept);
        let kept = transaction.kept;
        transaction.savepoints.push(Savepoint { name: name.into(), current, kept });
        Ok(())
    }

    /// ROLLBACK TO.
    pub fn rollback_to(&mut self, table: &mut SettingsTable, name: &[u8]) {
        let Some(transaction) = &mut self.transaction else { return };
        let at = transaction.position(name);
        let (current, kept) = match at {
            Some(at) => {
                let savepoint = &transaction.savepoints[at];
                (savepoint.current, savepoint.kept)
            }
            None => (transaction.before, transaction.before),
        };
        table.assign(&mut self.current, current);
        table.assign(&mut transaction.kept, kept);
        // The savepoint itself goes on.
        transaction.drop_from(table, at.map_or(0, |at| at + 1));
    }

    /// RELEASE.
    pub fn release(&mut self, table: &mut SettingsTable, name: &[u8]) {
        let Some(transaction) = &mut self.transaction else { return };
        let at = transaction.position(name).unwrap_or(0);
        transaction.drop_from(table, at);
    }

    /// The transaction committed.
    #[inline]
    pub fn commit(&mut self, table: &mut SettingsTable) {
        if let Some(transaction) = self.transaction.take() {
            table.assign(&mut self.current, transaction.kept);
            transaction.close(table);
        }
    }

    /// The transaction rolled back.
    #[inline]
    pub fn rollback(&mut self, table: &mut SettingsTable) {
        if let Some(transaction) = self.transaction.take() {
            table.assign(&mut self.current, transaction.before);
            transaction.close(table);
        }
    }

    /// Whether a setting was changed in the transaction that is under way.
    #[inline]
    pub fn changed_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// What is set behind the transaction that is under way, as far as is known now.
    #[must_use]
    pub fn kept(&self) -> SettingsId {
        self.transaction.as_ref().map_or(self.current, |transaction| transaction.kept)
    }

    /// The settings that stand at the client's own defaults until the transaction that is under way
    /// ends, and not behind it.
    pub fn defaults_of_transaction(&self, table: &SettingsTable) -> Vec<Arc<[u8]>> {
        let kept = self.kept();
        if kept == self.current {
            return Vec::new();
        }
        let is_only_now = |setting: &&Setting| {
            let default = table.get(self.base, &setting.name);
            table.get(self.current, &setting.name) == default
                && table.get(kept, &setting.name) != default
        };
        let base = table.settings(self.base).iter();
        let only_base = base.filter(|setting| table.get(kept, &setting.name).is_none());
        let names = only_base.chain(table.settings(kept));
        names.filter(is_only_now).map(|setting| Arc::clone(&setting.name)).collect()
    }

    /// Applies `step` to what holds now, and for the session to what will be kept too.
    fn change(
        &mut self,
        table: &mut SettingsTable,
        scope: Scope,
        step: impl Fn(&mut SettingsTable, SettingsId) -> Result<SettingsId, TooManySettings>,
    ) -> Result<(), Untracked> {
        let next = step(table, self.current)?;
        let kept_before = self.kept();
        let kept = match scope {
            Scope::Local => {
                table.retain(kept_before);
                kept_before
            }
            Scope::Session => match step(table, kept_before) {
                Ok(kept) => kept,
                Err(error) => {
                    table.release(next);
                    return Err(error.into());
                }
            },
        };
        let before = std::mem::replace(&mut self.current, next);
        match &mut self.transaction {
            Some(transaction) => {
                table.release(before);
                table.release(std::mem::replace(&mut transaction.kept, kept));
            }
            None => {
                let transaction = Transaction { before, kept, savepoints: Vec::new() };
                self.transaction = Some(Box::new(transaction));
            }
        }
        Ok(())
    }

    /// Values beyond ASCII were read under the encoding of their time.
    fn check_encoding(
        &self,
        table: &SettingsTable,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Untracked> {
        let recodes = name == CLIENT_ENCODING && table.get(self.current, CLIENT_ENCODING) != value;
        let mut others = table.settings(self.current).iter();
        if recodes && others.any(Setting::depends_on_encoding) {
            return Err(Untracked::Ask);
        }
        Ok(())
    }
}

impl Transaction {
    fn position(&self, name: &[u8]) -> Option<usize> {
        self.savepoints.iter().rposition(|savepoint| *savepoint.name == *name)
    }

    fn drop_from(&mut self, table: &mut SettingsTable, at: usize) {
        for savepoint in self.savepoints.drain(at..) {
            table.release(savepoint.current);
            table.release(savepoint.kept);
        }
    }

    fn close(mut self, table: &mut SettingsTable) {
        self.drop_from(table, 0);
        table.release(self.before);
        table.release(self.kept);
    }
}

/// Where a client that stood at `from` stands once those that `resets` says yes to are back at
/// their values in `base`; the caller owns the reference.
fn restored(
    table: &mut SettingsTable,
    from: SettingsId,
    base: SettingsId,
    resets: impl Fn(&[u8]) -> bool,
) -> Result<SettingsId, TooManySettings> {
    let kept = table.settings(from).iter().filter(|s| !resets(&s.name));
    let restored = table.settings(base).iter().filter(|s| resets(&s.name));
    let settings = kept.chain(restored).cloned().collect();
    table.intern(settings)
}
