//! A client's prepared statements: what its names mean, and under which settings they were parsed.

use std::rc::Rc;

use pgimbal_wire::extended::Parse;

use super::room;
use super::turn::{ClientTurn, Message, Step};
use crate::server::Server;
use crate::server::pending::{NameChange, Origin as MessageOrigin, UnnamedBefore};
use crate::server::prepared::{ParsedUnder, SERVER_NAME_PREFIX, Statement, StatementId, Unnamed};
use crate::session::LocalSettings;
use crate::session::effect::Bytes;
use crate::session::pin::PinReason;
use crate::sql::{Classified, Kinds};

/// Whether a name, as the server has it, is real in this segment.
pub(super) fn is_temporary(turn: &ClientTurn<'_>, name: &[u8]) -> bool {
    let names = &turn.session.close_after_sync;
    names.iter().any(|known| known.is_temporary && *known.name == *name)
}

/// Whether the server may have statements of SQL's that are not in the books.
pub(super) fn has_unread_statements(turn: &ClientTurn<'_>) -> bool {
    turn.session.pin.has(PinReason::SqlPrepare) || turn.session.raised.meets(Kinds::STATEMENTS)
}

/// What a request of the unnamed statement is undone to, should it be skipped; `None` if it
/// cannot be.
pub(super) fn unnamed_before(
    turn: &mut ClientTurn<'_>,
    origin: MessageOrigin,
    text: &[u8],
) -> Option<Box<UnnamedBefore>> {
    // A text that cannot be converted is refused before anything is destroyed.
    let may_not_happen = |server: &&mut Server| server.pending().may_skip() || !text.is_ascii();
    let server = turn.server.as_deref_mut().filter(may_not_happen)?;
    let session = &mut turn.session;
    let client = (origin == MessageOrigin::Client)
        .then(|| (session.unnamed.take(), session.unnamed_is_uncached));
    Some(Box::new(UnnamedBefore { client, server: server.unnamed() }))
}

/// Keeps a statement whose Parse was answered without a server: it is reprepared where it is
/// bound.
pub(crate) fn keep_unsent(
    turn: &mut ClientTurn<'_>,
    message: Message<'_>,
    parse: Parse<'_>,
    classified: Classified,
) {
    if !message.is_whole() || turn.pool.config().pool.max_prepared_statements == 0 {
        return;
    }
    let body = &message.body[parse.rest..];
    if !room::may_keep_unsent(turn, message.header.total as usize + classified.bytes()) {
        return;
    }
    let class = classified.into();
    if parse.name.is_empty() {
        let unnamed = Unnamed { body: body.to_vec(), class, shape: None };
        return turn.session.set_unnamed(Some(unnamed));
    }
    let settings = turn.tables.parse_fingerprint(turn.session.settings.current());
    let changes = turn.pool.shared().database.schema_changes();
    let statement = turn.tables.statements.parse(body, settings, changes, class);
    note_parsed_under(turn, &statement);
    rename(turn, parse.name, Some(statement));
}

/// A client's Close of a statement that was answered without a server.
pub(crate) fn forget_unsent(turn: &mut ClientTurn<'_>, name: &[u8]) {
    match name {
        [] => turn.session.set_unnamed(None),
        _ if knows(turn, name) => drop(rename(turn, name, None)),
        _ => {}
    }
}

/// The settings under which the server parses what is sent now. A statement that is parsed
/// under settings that are not known is its client's own.
pub(super) fn parsed_under(turn: &mut ClientTurn<'_>) -> ParsedUnder {
    match turn.session.local {
        LocalSettings::Known if settings_are_known(turn) => {
            turn.tables.parse_fingerprint(turn.session.settings.current())
        }
        LocalSettings::Known | LocalSettings::Unknown => {
            let table = &turn.tables;
            let known = table.parse_fingerprint(turn.session.settings.current());
            let settings = &turn.session.settings;
            let may_change = [settings.after_commit(), settings.after_rollback()]
                .into_iter()
                .any(|later| known.is_fixed_otherwise(table.parse_fingerprint(later)));
            match known {
                // What is known of them may no longer hold.
                ParsedUnder::Settings { fixed, .. } if may_change => {
                    ParsedUnder::Settings { all: next_uncached(turn).0 as u64, fixed }
                }
                _ => ParsedUnder::Unknown,
            }
        }
        LocalSettings::Named => {
            let unique = next_uncached(turn).0 as u64;
            ParsedUnder::Settings { all: unique, fixed: unique }
        }
    }
}

/// The statement is parsed under the present settings.
pub(super) fn note_parsed_under(turn: &ClientTurn<'_>, statement: &Statement) {
    let table = &turn.tables.settings;
    let current = table.parse_affecting(turn.session.settings.current());
    let _ = statement.parsed_under.set(table.shared(current));
}

/// Whether it is known under which settings the server parses what is sent now.
pub(super) fn settings_are_known(turn: &ClientTurn<'_>) -> bool {
    turn.session.local == LocalSettings::Known && !turn.session.raised.meets(Kinds::SETTINGS)
}

/// Waits until it is sure what the client's `name` means.
pub(super) fn settled_name(turn: &mut ClientTurn<'_>, name: &[u8]) -> Step {
    let server = turn.server()?;
    let unsure = match name {
        [] => server.pending().is_unnamed_unsure(),
        _ => server.pending().is_name_unsure(name),
    };
    if unsure { turn.await_replies() } else { Ok(()) }
}

pub(crate) fn knows(turn: &ClientTurn<'_>, name: &[u8]) -> bool {
    turn.session.statements.as_ref().is_some_and(|known| known.get(name).is_some())
}

/// Gives a name another meaning and returns how to undo that.
pub(super) fn rename(
    turn: &mut ClientTurn<'_>,
    name: &[u8],
    to: Option<Rc<Statement>>,
) -> NameChange {
    let names = turn.session.statements.get_or_insert_default();
    NameChange { name: name.into(), before: names.set(name, to) }
}

pub(super) fn next_uncached(turn: &mut ClientTurn<'_>) -> StatementId {
    turn.session.uncached_serial += 1;
    let id = turn.session.id;
    // Kept statements have hashes as identities: the pattern cannot be met by accident.
    StatementId(
        (0x7567_6c79_u128 << 96)
            | (u128::from(id.serial) << 64)
            | (u128::from(turn.session.uncached_serial) << 16)
            | u128::from(turn.tables.worker),
    )
}

/// Looks again at the reasons for a pin that lie in prepared statements.
pub(super) fn refresh_statement_pins(turn: &mut ClientTurn<'_>) {
    crate::session::setup::refresh_statement_pins(turn.session, turn.pool, turn.tables, turn.now);
}

/// A client's name of a statement that the servers do not know, as it is forwarded: unchanged,
/// unless it looks like one of the proxy's own.
pub(super) fn write_client_name(name: &[u8], out: &mut Vec<u8>) {
    if name.starts_with(SERVER_NAME_PREFIX) {
        out.extend_from_slice(SERVER_NAME_PREFIX);
        out.push(b':');
    }
    out.extend_from_slice(name);
}

/// A client's name as the servers see it.
pub(super) fn as_forwarded(name: &[u8]) -> Bytes {
    let mut forwarded = Vec::with_capacity(name.len());
    write_client_name(name, &mut forwarded);
    forwarded.into()
}
