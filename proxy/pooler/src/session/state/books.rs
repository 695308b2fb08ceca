//! The books of a session: what the server has proven of its settings and statements.
//!
//! A statement counts when its own CommandComplete has come with the tag that it must have, and
//! holds when the transaction around it has.

mod inquiry;

use std::sync::Arc;
use std::time::Instant;

use pgimbal_config::PoolMode;

pub(crate) use inquiry::Asked;

use crate::pool::Pool;
use crate::server::Server;
use crate::session::channels::TooManyChanges;
use crate::session::pin::PinReason;
use crate::session::settings::{Reset, Setting, Untracked, assign, assign_local};
use crate::session::setup;
use crate::session::state::{custom, reset};
use crate::session::{LocalSettings, Session};
use crate::sql::{
    self, AccessKind, Assignment, Calls, Followed, Form, Kinds, Operand, Readings, Scope,
    ScopeOperand, SetBy, StatementClass, Step, Steps,
};
use crate::tables::Tables;

/// Everything that a change of the books touches.
pub(crate) struct Books<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) server: &'a mut Server,
    pub(crate) pool: &'a mut Pool,
    pub(crate) tables: &'a mut Tables,
    pub(crate) now: Instant,
}

impl Books<'_> {
    /// A statement is done: the server has said so with `tag` (`None` where a portal is suspended,
    /// which has run what it runs).
    pub(crate) fn done(&mut self, step: &Step, text: Option<&[u8]>, tag: Option<&[u8]>) {
        let suspended = tag.is_none() && matches!(step.form, Form::Set(..) | Form::UnlockAll);
        if !suspended && !tag.is_some_and(|tag| step.form.expects(tag)) {
            // Something else has run than what was read.
            self.session.raised.insert(Kinds::ANYTHING);
            self.session.local = LocalSettings::Unknown;
            return;
        }
        if step.form.followed() == Followed::No {
            return;
        }
        let committed = tag == Some(b"COMMIT") || tag == Some(b"PREPARE TRANSACTION");
        let tracked = match &step.form {
            Form::Listen(_) | Form::Unlisten(_) | Form::UnlistenAll => {
                return self.listens(&step.form);
            }
            Form::Commit(_)
            | Form::PrepareTransaction
            | Form::Rollback(_)
            | Form::Savepoint(_)
            | Form::RollbackTo(_)
            | Form::Release(_) => self.transaction(&step.form, committed),
            Form::Set(list, by) => self.set(list, *by),
            Form::Reset(name, scope) => self.reset(Reset::Name(name), *scope),
            Form::ResetAll => self.reset(Reset::All, Scope::Session),
            Form::DiscardAll => self.discard_all(),
            Form::DeallocateAll => {
                self.forget_all_statements();
                Ok(())
            }
            Form::Deallocate(name) => {
                self.deallocate(name);
                Ok(())
            }
            Form::Prepare(name) => {
                self.prepare(name, text);
                Ok(())
            }
            _ => return,
        };
        self.note_tracked(tracked);
        setup::settings_changed(self.session, self.server, self.pool, self.tables, self.now);
    }

    /// A statement about the transaction is done; `committed` if its tag says that it has
    /// committed.
    fn transaction(&mut self, form: &Form, committed: bool) -> Result<(), Untracked> {
        let table = &mut self.tables.settings;
        let (settings, channels) = (&mut self.session.settings, &mut self.session.channels);
        match form {
            Form::Commit(_) | Form::PrepareTransaction if committed => {
                settings.commit(table);
                channels.commit();
                self.server.restore_mut().on_commit();
            }
            Form::Savepoint(name) => {
                let followed = channels.savepoint(name);
                let tracked = settings.savepoint(table, name);
                self.note_listened(followed);
                return tracked;
            }
            Form::RollbackTo(name) => {
                settings.rollback_to(table, name);
                channels.rollback_to(name);
                self.server.restore_mut().on_rollback_to();
            }
            Form::Release(name) => {
                settings.release(table, name);
                channels.release(name);
            }
            _ => {
                settings.rollback(table);
                channels.rollback();
                if *form == Form::PrepareTransaction {
                    // It says the same outside a block, where it commits.
                    return Err(Untracked::Ask);
                }
            }
        }
        Ok(())
    }

    /// LISTEN or UNLISTEN is done.
    fn listens(&mut self, form: &Form) {
        let channels = &mut self.session.channels;
        let followed = match form {
            Form::Listen(name) => channels.listen(name),
            Form::Unlisten(name) => channels.unlisten(Some(name)),
            _ => channels.unlisten(None),
        };
        self.note_listened(followed);
    }

    /// What a transaction changes that is not followed to its end, the server is asked about.
    fn note_listened(&mut self, followed: Result<(), TooManyChanges>) {
        if followed.is_err() {
            self.session.channels.rollback();
            self.session.raised.insert(Kinds::CHANNELS);
        }
    }

    fn note_tracked(&mut self, tracked: Result<(), Untracked>) {
        match tracked {
            Ok(()) => {}
            Err(Untracked::Ask) => self.session.raised.insert(Kinds::SETTINGS.union(Kinds::ROLE)),
            Err(Untracked::TooMany) => {
                self.session.pin.set(PinReason::TooManySettings, true, self.now);
                setup::hold_place(self.session, self.pool);
            }
        }
    }

    fn set(&mut self, list: &[Assignment], by: SetBy) -> Result<(), Untracked> {
        self.session.custom.add_all(list);
        let known = by != SetBy::UnqualifiedFunction
            || self.pool.shared().database.facts.set_config_is_builtin(self.now);
        if !known {
            // If it is PostgreSQL's own, it may hold until the transaction ends. Custom settings
            // mean nothing to what is parsed.
            let is_custom = |assignment: &Assignment| match &assignment.name {
                Operand::Text(name) => name.contains(&b'.'),
                _ => false,
            };
            if !list.iter().all(is_custom) {
                self.session.local = LocalSettings::Named;
            }
            return Err(Untracked::Ask);
        }
        for assignment in list {
            let (Operand::Text(name), ScopeOperand::Is(scope)) =
                (&assignment.name, assignment.scope)
            else {
                return Err(Untracked::Ask);
            };
            let name = name.to_ascii_lowercase();
            if name == b"session_authorization" {
                // What becomes of the role in a transaction depends on how it ends.
                self.session.raised.insert(Kinds::ROLE);
            }
            match &assignment.value {
                Operand::Text(value) => {
                    self.server.note_newly_set(&name);
                    self.remember_custom(&name);
                    self.session.settings.set(&mut self.tables.settings, &name, value, scope)?;
                }
                Operand::Null => self.reset(Reset::Name(&name), scope)?,
                Operand::Parameter(_) => return Err(Untracked::Ask),
            }
        }
        Ok(())
    }

    fn remember_custom(&self, name: &[u8]) {
        if custom::is_custom(name) {
            self.pool.shared().database.facts.remember_custom(name);
        }
    }

    /// The server has reset to its own defaults; the client expects what it came with, which is set
    /// as soon as the server is ready.
    fn reset(&mut self, reset: Reset<'_>, scope: Scope) -> Result<(), Untracked> {
        if let Reset::Name(name) = reset {
            self.session.custom.add(name);
        }
        // What is reset is not reported as what was set before.
        match reset {
            Reset::Name(reset) => self.server.forget_newly_set(reset),
            Reset::All | Reset::Discard => drop(self.server.take_newly_set()),
        }
        let table = &mut self.tables.settings;
        // RESET ALL passes over what SET LOCAL has brought to its default.
        let passed_over = match reset {
            Reset::All => self.session.settings.defaults_of_transaction(table),
            Reset::Name(_) | Reset::Discard => Vec::new(),
        };
        let tracked = self.session.settings.reset(table, reset, scope);
        if reset != Reset::All {
            tracked?;
        }
        if reset == Reset::Name(b"session_authorization") {
            self.session.raised.insert(Kinds::ROLE);
        }
        if self.session.refused.is_some() {
            // Its settings are set anew for whatever it does next.
            return tracked;
        }
        let restored = table.settings(self.session.settings.base()).iter().filter(|setting| {
            let name = &*setting.name;
            let is_identity = matches!(name, b"role" | b"session_authorization");
            match reset {
                Reset::Discard => true,
                Reset::All => !is_identity && !passed_over.contains(&setting.name),
                Reset::Name(b"session_authorization") => is_identity,
                Reset::Name(reset) => *name == *reset,
            }
        });
        if scope == Scope::Local {
            // Its own default is not the server's, and holds for this transaction only.
            for setting in restored {
                let mut sql = Vec::new();
                assign_local(setting, &mut sql);
                self.server.restore_mut().local.push(sql.into());
                self.session.raised.insert(Kinds::SETTINGS);
            }
            return tracked;
        }
        let restored: Vec<_> = restored.map(|setting| setting.name.clone()).collect();
        self.server.restore_mut().names.extend(restored);
        self.restore_passed_over(&passed_over);
        tracked
    }

    /// What the client came with is no default of the server's: its RESET ALL does not pass over
    /// what stands there for this transaction, nor over what is to hold behind it.
    fn restore_passed_over(&mut self, names: &[Arc<[u8]>]) {
        let table = &self.tables.settings;
        let (base, kept) = (self.session.settings.base(), self.session.settings.kept());
        let is_passed_over = |setting: &&Setting| names.contains(&setting.name);
        for now in table.settings(base).iter().filter(is_passed_over) {
            let (mut after, mut local) = (Vec::new(), Vec::new());
            if let Some(kept) = table.settings(kept).iter().find(|kept| kept.name == now.name) {
                assign(kept, &mut after);
            }
            assign_local(now, &mut local);
            self.server.restore_mut().local.extend([after.into(), local.into()]);
            self.session.raised.insert(Kinds::SETTINGS);
        }
    }

    fn discard_all(&mut self) -> Result<(), Untracked> {
        self.forget_all_statements();
        // Some state outlives DISCARD ALL.
        let left = self.session.raised.union(self.session.pin.leaves());
        self.server.residue_mut().insert(left.and(reset::CLOSED.union(Kinds::SEED)));
        self.session.pin.clear();
        self.session.raised = Kinds::NONE;
        self.session.refused = None;
        self.server.residue_mut().remove(Kinds::UNNAMED_SETTINGS);
        let followed = self.session.channels.unlisten(None);
        self.note_listened(followed);
        self.session.channels.commit();
        self.reset(Reset::Discard, Scope::Session)?;
        // It cannot be undone.
        self.session.settings.commit(&mut self.tables.settings);
        Ok(())
    }

    /// DISCARD ALL and DEALLOCATE ALL take this client's statements; the server has lost those of
    /// the others too, which are reprepared when they are next needed.
    fn forget_all_statements(&mut self) {
        self.session.statements = None;
        self.session.close_after_sync.iter_mut().for_each(|name| name.is_temporary = false);
        self.server.forget_statements();
    }

    fn deallocate(&mut self, name: &[u8]) {
        let names = self.session.statements.as_mut();
        let before = names.and_then(|names| names.set(name, None));
        let temporary =
            self.session.close_after_sync.iter_mut().filter(|known| *known.name == *name);
        temporary.for_each(|name| name.is_temporary = false);
        if let Some(uncached) = before.filter(|statement| statement.body.is_none()) {
            // The client's name was made real for this; the statement itself is there still.
            let mut sql = b"DEALLOCATE ".to_vec();
            uncached.write_server_name(&mut sql);
            self.server.restore_mut().queries.push(sql.into());
        }
    }

    /// SQL PREPARE of a statement whose text is `text`, if it was the only one.
    fn prepare(&mut self, name: &[u8], text: Option<&[u8]>) {
        if self.pool.config().pool.mode == PoolMode::Session {
            return;
        }
        let Some(text) = text else {
            self.session.raised.insert(Kinds::STATEMENTS);
            return;
        };
        let class = prepared_by(text, self.session);
        let settings = self.tables.parse_fingerprint(self.session.settings.current());
        let statement = self.tables.statements.from_sql(text, settings, class);
        if self.session.local == LocalSettings::Known && !self.session.raised.meets(Kinds::SETTINGS)
        {
            let table = &self.tables.settings;
            let current = table.parse_affecting(self.session.settings.current());
            let _ = statement.parsed_under.set(table.shared(current));
        }
        self.session.statements.get_or_insert_default().set(name, Some(statement));
        let here = self.session.close_after_sync.iter_mut().find(|known| *known.name == *name);
        if let Some(here) = here {
            // It is there until the Sync, behind which it is closed.
            here.is_temporary = true;
            here.is_made = true;
        }
    }
}

/// What EXECUTE of a statement may leave that `text`, one SQL PREPARE, has made. It is never run
/// again: a Bind of it runs what the server connection has.
fn prepared_by(text: &[u8], session: &Session) -> StatementClass {
    let body = sql::prepared_query(text, session.reading);
    let mut classified = match body {
        Some(query) => sql::classify(query, Readings::One(session.reading), Calls::Text),
        None => sql::Classified {
            steps: Steps::Unreadable,
            leaves_nothing: false,
            ..sql::Classified::PLAIN
        },
    };
    classified.access.kind = AccessKind::Unknown;
    classified.into()
}
