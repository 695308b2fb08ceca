//! The settings of one client, and how transactions and savepoints undo them.

use super::neutral::{
    CLIENT_ENCODING, ROLE, SESSION_AUTHORIZATION, is_identity, is_never_replayed,
};
use super::{Replay, SettingsId, SettingsTable, TooManySettings, replay_sql};
use crate::text::Taint;

/// Where a client stands. Every change is told after the server has said that it succeeded.
///
/// It owns references into the table of its worker: [`ClientSettings::close`] gives them back.
#[derive(Debug)]
pub struct ClientSettings {
    base: SettingsId,
    current: SettingsId,
    transaction: Option<Box<Transaction>>,
}

/// Whether a change is undone when a transaction rolls back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Its statement was a transaction of its own.
    Autocommit,
    /// A transaction block, or the implicit transaction of a pipeline, is under way:
    /// [`ClientSettings::commit`] or [`ClientSettings::rollback`] follows.
    InTransaction,
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

/// What a rollback returns to. Made at the first change in a transaction: savepoints before that
/// need no entry, for they all stand at `before`.
#[derive(Debug)]
struct Transaction {
    before: SettingsId,
    savepoints: Vec<(Box<[u8]>, SettingsId)>,
}

/// Savepoints after a changed setting; a client that nests more keeps its server connection.
const MAX_SAVEPOINTS: usize = 256;

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

    /// Where the client stands, which is where its server connection must stand.
    #[inline]
    pub fn current(&self) -> SettingsId {
        self.current
    }

    /// What the client's startup packet asked for.
    pub fn base(&self) -> SettingsId {
        self.base
    }

    /// SET, for the session.
    ///
    /// # Errors
    /// It cannot be tracked: nothing changed here, and the client must keep its server connection.
    pub fn set(
        &mut self,
        table: &mut SettingsTable,
        name: &[u8],
        value: &[u8],
        when: When,
    ) -> Result<(), Taint> {
        if is_never_replayed(name) {
            return Ok(());
        }
        self.check_encoding(table, name, Some(value))?;
        let mut next = table.with(self.current, name, value)?;
        if name == SESSION_AUTHORIZATION {
            // PostgreSQL forgets the role when the session's user changes.
            let roleless = table.without(next, |other| other == ROLE);
            table.release(std::mem::replace(&mut next, roleless));
        }
        self.step(table, next, when);
        Ok(())
    }

    /// RESET or DISCARD ALL: back to the client's own startup values.
    ///
    /// # Errors
    /// As for [`ClientSettings::set`].
    pub fn reset(
        &mut self,
        table: &mut SettingsTable,
        reset: Reset<'_>,
        when: When,
    ) -> Result<(), Taint> {
        let base = self.base;
        let next = match reset {
            Reset::Discard => {
                table.retain(base);
                base
            }
            Reset::All => self.restored(table, |name| !is_identity(name))?,
            // The role goes back with the session's user.
            Reset::Name(SESSION_AUTHORIZATION) => self.restored(table, is_identity)?,
            Reset::Name(name) => {
                self.check_encoding(table, name, table.get(base, name))?;
                self.restored(table, |other| other == name)?
            }
        };
        self.step(table, next, when);
        Ok(())
    }

    /// The server's own spelling of a value that was just set, from the ParameterStatus in the
    /// reply to a text that was exactly that SET, for the session. It also completes what a SET
    /// says in part (DateStyle).
    pub fn reported(&mut self, table: &mut SettingsTable, name: &[u8], value: &[u8]) {
        let name = name.to_ascii_lowercase();
        if table.get(self.current, &name).is_none_or(|known| known == value) {
            return;
        }
        // The value known so far is right as well, should this one be too long to keep.
        if let Ok(next) = table.with(self.current, &name, value) {
            table.release(std::mem::replace(&mut self.current, next));
        }
    }

    /// SAVEPOINT.
    ///
    /// # Errors
    /// There are too many: the client must keep its server connection.
    pub fn savepoint(&mut self, table: &mut SettingsTable, name: &[u8]) -> Result<(), Taint> {
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        if transaction.savepoints.len() == MAX_SAVEPOINTS {
            return Err(Taint::TooManySettings);
        }
        table.retain(self.current);
        transaction.savepoints.push((name.into(), self.current));
        Ok(())
    }

    /// ROLLBACK TO.
    pub fn rollback_to(&mut self, table: &mut SettingsTable, name: &[u8]) {
        let Some(transaction) = &mut self.transaction else { return };
        let at = transaction.savepoints.iter().rposition(|(known, _)| **known == *name);
        let target = at.map_or(transaction.before, |at| transaction.savepoints[at].1);
        table.assign(&mut self.current, target);
        // The savepoint itself goes on.
        let stay = at.map_or(0, |at| at + 1);
        for (_, id) in transaction.savepoints.drain(stay..) {
            table.release(id);
        }
    }

    /// RELEASE.
    pub fn release(&mut self, table: &mut SettingsTable, name: &[u8]) {
        let Some(transaction) = &mut self.transaction else { return };
        let at = transaction.savepoints.iter().rposition(|(known, _)| **known == *name);
        for (_, id) in transaction.savepoints.drain(at.unwrap_or(0)..) {
            table.release(id);
        }
    }

    /// The transaction committed.
    #[inline]
    pub fn commit(&mut self, table: &mut SettingsTable) {
        if let Some(transaction) = self.transaction.take() {
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

    /// Stands at `next`, whose reference it takes over.
    fn step(&mut self, table: &mut SettingsTable, next: SettingsId, when: When) {
        let before = std::mem::replace(&mut self.current, next);
        match when {
            When::InTransaction if self.transaction.is_none() => {
                let transaction = Transaction { before, savepoints: Vec::new() };
                self.transaction = Some(Box::new(transaction));
            }
            _ => table.release(before),
        }
    }

    /// Where the client stands once those that `resets` says yes to are back at their startup
    /// values; the caller owns the reference.
    fn restored(
        &self,
        table: &mut SettingsTable,
        resets: impl Fn(&[u8]) -> bool,
    ) -> Result<SettingsId, TooManySettings> {
        let kept = table.settings(self.current).iter().filter(|s| !resets(&s.name));
        let restored = table.settings(self.base).iter().filter(|s| resets(&s.name));
        let settings = kept.chain(restored).cloned().collect();
        table.intern(settings)
    }

    /// Values beyond ASCII were read under the encoding of their time.
    fn check_encoding(
        &self,
        table: &SettingsTable,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Taint> {
        let recodes = name == CLIENT_ENCODING && table.get(self.current, CLIENT_ENCODING) != value;
        let mut others = table.settings(self.current).iter();
        if recodes && others.any(|setting| !setting.value.is_ascii()) {
            return Err(Taint::SetUnread);
        }
        Ok(())
    }
}

impl Transaction {
    fn close(self, table: &mut SettingsTable) {
        table.release(self.before);
        for (_, id) in self.savepoints {
            table.release(id);
        }
    }
}

impl SettingsTable {
    /// Where a server connection that stood at `id` stands after `reset`; the caller owns the
    /// reference.
    pub fn after_reset(&mut self, id: SettingsId, reset: Reset<'_>) -> SettingsId {
        match reset {
            Reset::Discard => SettingsId::EMPTY,
            Reset::All => self.without(id, |name| !is_identity(name)),
            Reset::Name(SESSION_AUTHORIZATION) => self.without(id, is_identity),
            Reset::Name(name) => self.without(id, |other| other == name),
        }
    }
}

/// Writes to `out` what must follow `reset` on a server connection that stood at `before`, so that
/// it stands where `client` (told of the reset already) stands.
pub fn after_reset_sql(
    table: &mut SettingsTable,
    before: SettingsId,
    reset: Reset<'_>,
    client: &ClientSettings,
    out: &mut Vec<u8>,
) -> Replay {
    let server = table.after_reset(before, reset);
    let replay = replay_sql(table, server, client.current(), out);
    table.release(server);
    replay
}
