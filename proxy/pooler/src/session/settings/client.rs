//! The settings of one client, and how transactions and savepoints undo them.

mod shown;

use std::sync::Arc;

use super::neutral::{
    CLIENT_ENCODING, ROLE, SESSION_AUTHORIZATION, is_identity, is_never_replayed,
};
use super::table::{Setting, SettingsId, SettingsTable, TooManySettings};
use crate::sql::Scope;

/// The settings of one client (SET, RESET, startup packet), with those that a transaction or
/// savepoint would bring back. Every change is noted after the server has said that the statement
/// succeeded, and is final once the transaction around it is: [`ClientSettings::commit`] or
/// [`ClientSettings::rollback`] follows every change, also of a statement outside a block. It owns
/// references into its worker's [`SettingsTable`]; [`ClientSettings::close`] gives them back.
#[derive(Debug)]
pub struct ClientSettings {
    base: SettingsId,
    current: SettingsId,
    transaction: Option<Box<Transaction>>,
}

/// Which settings a client's statement brings back to its startup values (SQL commands RESET, SET …
/// TO DEFAULT, DISCARD).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset<'n> {
    /// RESET of one setting, or SET … TO DEFAULT; the name in lower case. With
    /// `session_authorization` the role is reset too.
    Name(&'n [u8]),
    /// RESET ALL: every setting but `role` and `session_authorization`, and but those that SET
    /// LOCAL has brought to their defaults.
    All,
    /// DISCARD ALL: every setting, with the role and the session's user.
    Discard,
}

/// Why the proxy could not note a change of a client's settings. The noted settings are unchanged
/// then, although the server's have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untracked {
    /// The client would have more settings, or larger ones, than are kept for one client (64 and
    /// 16,384 bytes), or more than 256 savepoints behind the first changed setting of a
    /// transaction. The caller pins the session to its server connection.
    TooMany,
    /// The new state depends on more than is known here: the caller raises the settings and the
    /// role, and the server is asked for them after the transaction.
    Ask,
}

/// The changes of a transaction. Made at the first of them: earlier savepoints need no entry,
/// because they all have the settings `before`.
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

/// The most savepoints that are followed behind a changed setting. A client that nests more keeps
/// its server connection.
const MAX_SAVEPOINTS: usize = 256;

impl From<TooManySettings> for Untracked {
    fn from(_: TooManySettings) -> Self {
        Self::TooMany
    }
}

impl ClientSettings {
    /// The settings of a client whose startup values are `base`, at which it also begins. Takes
    /// over the caller's reference to `base`. [`Self::close`] must be called in the end.
    pub fn new(table: &mut SettingsTable, base: SettingsId) -> ClientSettings {
        table.retain(base);
        ClientSettings { base, current: base, transaction: None }
    }

    /// Gives back the references to the table, when the session has ended or other settings take
    /// the place of these. `table` is the one that made them. Without this call the sets are never
    /// forgotten.
    pub fn close(mut self, table: &mut SettingsTable) {
        self.commit(table);
        table.release(self.current);
        table.release(self.base);
    }

    /// The client's settings now, SET LOCAL included. Outside a transaction the server connection
    /// must have the same before the client's messages are forwarded.
    #[inline]
    pub fn current(&self) -> SettingsId {
        self.current
    }

    /// The settings that hold if the transaction commits now: without those of SET LOCAL. Outside a
    /// transaction as [`Self::current`].
    pub fn after_commit(&self) -> SettingsId {
        self.transaction.as_ref().map_or(self.current, |transaction| transaction.kept)
    }

    /// The settings that hold if the transaction is rolled back now: those from before its first
    /// change. Outside a transaction as [`Self::current`].
    pub fn after_rollback(&self) -> SettingsId {
        self.transaction.as_ref().map_or(self.current, |transaction| transaction.before)
    }

    /// The client's startup values: what its startup packet asked for, to which RESET returns;
    /// [`SettingsId::EMPTY`] if it asked for none.
    pub fn base(&self) -> SettingsId {
        self.base
    }

    /// Notes a SET (or `set_config`) of `name`, which is in lower case, to `value`, once the server
    /// has done it. With [`Scope::Local`] it ends with the transaction. A setting that is never
    /// replayed (such as `transaction_isolation` and `seed`) is passed over. SET SESSION
    /// AUTHORIZATION also takes the role away, as in PostgreSQL.
    ///
    /// # Errors
    /// [`Untracked`]: the change cannot be followed, and nothing is noted. [`Untracked::Ask`]
    /// stands for a new `client_encoding` while values beyond ASCII are set.
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

    /// Notes a RESET, SET … TO DEFAULT or DISCARD ALL: the settings go back to the client's startup
    /// values. RESET ALL passes over what SET LOCAL has brought to its default. The server itself
    /// goes back to its own defaults, so the caller sets the startup values there again.
    ///
    /// # Errors
    /// [`Untracked`]: the change cannot be followed, and nothing is noted. [`Untracked::Ask`]
    /// stands for another `client_encoding`, reset by name, while values beyond ASCII are set.
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

    /// Replaces a value that was just set by the server's own spelling, from the ParameterStatus in
    /// the reply. This also completes what a SET says in part (DateStyle). A setting that the
    /// client has not set is ignored.
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

    /// Takes a setting out of the client's settings and startup values, because PostgreSQL has
    /// dropped it (a custom setting whose library was loaded since, 42602). Ends a transaction that
    /// is under way as if it had committed.
    pub fn forget(&mut self, table: &mut SettingsTable, name: &[u8]) {
        self.commit(table);
        for place in [&mut self.current, &mut self.base] {
            let next = table.without(*place, |other| other == name);
            table.release(std::mem::replace(place, next));
        }
    }

    /// Notes a SAVEPOINT, whose name may be that of an earlier one, which it hides; before the
    /// first change of a setting in a transaction nothing is noted.
    ///
    /// # Errors
    /// [`Untracked::TooMany`]: there are 256 already, and the client must keep its server
    /// connection.
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

    /// Notes a ROLLBACK TO: the settings go back to those at the newest savepoint of this name,
    /// which stays. For an unknown name (a savepoint before the first change) to those from before
    /// the transaction. Later savepoints are forgotten. Nothing happens if no setting was changed.
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

    /// Notes a RELEASE: the savepoint of this name and all behind it are forgotten, the settings
    /// stay. An unknown name stands for a savepoint before the first change, and takes all. Of
    /// several with one name the newest counts. Nothing happens if no setting was changed.
    pub fn release(&mut self, table: &mut SettingsTable, name: &[u8]) {
        let Some(transaction) = &mut self.transaction else { return };
        let at = transaction.position(name).unwrap_or(0);
        transaction.drop_from(table, at);
    }

    /// Notes that the transaction has committed: the settings are those without SET LOCAL. Nothing
    /// happens if none was changed.
    #[inline]
    pub fn commit(&mut self, table: &mut SettingsTable) {
        if let Some(transaction) = self.transaction.take() {
            table.assign(&mut self.current, transaction.kept);
            transaction.close(table);
        }
    }

    /// Notes that the transaction was rolled back, or that its server connection is gone: the
    /// settings are those from before its first change. Nothing happens if none was changed.
    #[inline]
    pub fn rollback(&mut self, table: &mut SettingsTable) {
        if let Some(transaction) = self.transaction.take() {
            table.assign(&mut self.current, transaction.before);
            transaction.close(table);
        }
    }

    /// Whether a setting was changed in the transaction that is under way, so that its end may
    /// change them.
    #[inline]
    pub fn changed_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// The settings that hold behind the transaction that is under way, if it commits (the same as
    /// [`Self::after_commit`]); outside one, the present ones. No reference is taken.
    #[must_use]
    pub fn kept(&self) -> SettingsId {
        self.transaction.as_ref().map_or(self.current, |transaction| transaction.kept)
    }

    /// The names of settings that are at the client's startup values until the transaction ends,
    /// and will not be behind it; empty outside a transaction. RESET ALL passes over them.
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
