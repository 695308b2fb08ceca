//! The settings under which the text of a statement was parsed: they are set around its next Parse,
//! where they are not those of now, so that a constant in it means what it meant.

use pgimbal_wire::encode::{self, NameKind, TransactionStatus};
use pgimbal_wire::tag::frontend;

use super::statements;
use super::turn::{ClientTurn, Step};
use crate::server::pending::{NameFor, Pending};
use crate::server::prepared::Statement;
use crate::session::effect::Bytes;
use crate::session::settings::{Setting, assign_local, is_read_at_parse, reset_local};

/// The name under which an SQL PREPARE of a client's is run again, as statement and portal.
const TEMPORARY_PREPARE: &[u8] = b"pgimbal_temporary";

/// What is set around a Parse, each in a statement of its own. Nothing of it is left behind the
/// transaction, nor in it.
#[derive(Debug, Default)]
pub(super) struct OlderSettings {
    before: Vec<Vec<u8>>,
    behind: Vec<Vec<u8>>,
}

impl OlderSettings {
    /// Those of `statement`: empty if it was parsed under the settings of now, if nobody knows under
    /// which, and in a failed transaction, where nothing can be set.
    pub(super) fn of(turn: &ClientTurn<'_>, statement: &Statement) -> Self {
        Self::find(turn, statement).unwrap_or_default()
    }

    fn find(turn: &ClientTurn<'_>, statement: &Statement) -> Option<Self> {
        let then = statement.parsed_under.get()?;
        let server = turn.server.as_deref()?;
        if server.status() == TransactionStatus::Failed || !may_differ(turn, statement) {
            return None;
        }
        let table = &turn.tables.settings;
        let now = table.settings(table.parse_affecting(turn.session.settings.current()));
        let path = |set: &[Setting]| set.iter().find(|s| *s.name == *b"search_path").cloned();
        // Under another path PostgreSQL reads the constants again, the text never.
        let analysed_anew = path(then) != path(now);
        let is_read = |s: &&Setting| is_read_at_parse(&s.name, analysed_anew);
        let read = then.iter().chain(now.iter()).filter(is_read);
        if read.clone().any(Setting::depends_on_encoding) {
            return None;
        }
        let mut settings = Self::default();
        for setting in read {
            let find = |set: &[Setting]| set.iter().find(|s| s.name == setting.name).cloned();
            let (old, new) = (find(then), find(now));
            if old == new {
                continue;
            }
            let before = local(&setting.name, old.as_ref());
            if !settings.before.contains(&before) {
                settings.before.push(before);
                settings.behind.push(local(&setting.name, new.as_ref()));
            }
        }
        Some(settings)
    }

    /// Whether nothing has to be set.
    pub(super) fn is_empty(&self) -> bool {
        self.before.is_empty()
    }

    /// Sets them, ahead of the Parse.
    pub(super) fn set(&self, turn: &mut ClientTurn<'_>, to: NameFor) -> Step {
        self.before.iter().try_for_each(|sql| run_own(turn, sql, to, None))
    }

    /// Sets those of now again, behind the Parse.
    pub(super) fn set_back(&self, turn: &mut ClientTurn<'_>, to: NameFor) -> Step {
        self.behind.iter().try_for_each(|sql| run_own(turn, sql, to, None))
    }
}

/// Whether a statement was parsed under other settings than those of now. What these are is sure
/// when every reply has come.
pub(super) fn may_differ(turn: &ClientTurn<'_>, statement: &Statement) -> bool {
    let Some(then) = statement.parsed_under.get() else { return false };
    let table = &turn.tables.settings;
    let now = table.parse_affecting(turn.session.settings.current());
    statements::settings_are_known(turn) && **then != *table.settings(now)
}

fn local(name: &[u8], setting: Option<&Setting>) -> Vec<u8> {
    let mut sql = Vec::new();
    match setting {
        Some(setting) => assign_local(setting, &mut sql),
        None => reset_local(name, &mut sql),
    }
    sql
}

/// Runs one statement that has no rows for the client, and of which `made` is there afterwards.
pub(super) fn run_own(
    turn: &mut ClientTurn<'_>,
    sql: &[u8],
    to: NameFor,
    mut made: Option<Bytes>,
) -> Step {
    let server = turn.server()?;
    for reply in 0..5 {
        // The third is that to Execute.
        let made = if reply == 2 { made.take() } else { None };
        server.pending_mut().push(Pending::TemporaryName(to, made));
    }
    turn.plan.make_for_server(|out| {
        encode::parse(out, TEMPORARY_PREPARE, sql, &[0, 0]);
        encode::bind_head(out, TEMPORARY_PREPARE, TEMPORARY_PREPARE, 6);
        out.extend_from_slice(&[0; 6]);
        encode::message(out, frontend::EXECUTE, |out| {
            out.extend_from_slice(TEMPORARY_PREPARE);
            out.extend_from_slice(&[0; 5]);
        });
        encode::close(out, NameKind::Portal, TEMPORARY_PREPARE);
        encode::close(out, NameKind::Statement, TEMPORARY_PREPARE);
    });
    Ok(())
}
