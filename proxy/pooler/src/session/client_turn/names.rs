//! One name space for SQL and the protocol: what a text calls by name is made real for it.
//!
//! The servers know a client's statements under names of pgimbal's. When a text names one in SQL
//! (EXECUTE, DEALLOCATE, PREPARE of a name in use), the server is given the statement under the
//! client's name for as long as the text runs, so that PostgreSQL itself answers: it is parsed, or
//! its SQL PREPARE is run again (`Origin::Sql`), ahead of the text, and closed behind it or behind
//! the Sync of its segment.
//!
//! Names that begin with `pgimbal_` are escaped in messages and in texts. Where the server may have
//! statements of SQL that are not in the books, a Parse follows a probe of its name. A question
//! about statements compares their number with the books; a difference, or a 26000 for a name of
//! pgimbal's, ends in `DEALLOCATE ALL` and a new beginning. Ahead of code that may deallocate all,
//! `pgimbal_ask_begin` is parsed: if it is missing afterwards, the client's statements are gone.

use std::rc::Rc;

use pgimbal_config::PoolMode;
use pgimbal_wire::encode::{self, NameKind, TransactionStatus};
use pgimbal_wire::extended::Parse;
use pgimbal_wire::tag::frontend;

use super::older_settings::{self, OlderSettings, run_own};
use super::statements::{self, as_forwarded, write_client_name};
use super::turn::{ClientTurn, Step};
use crate::cluster::route;
use crate::plan::Stop;
use crate::server::pending::{NameFor, Pending};
use crate::server::prepared::{Origin, SERVER_NAME_PREFIX, Statement};
use crate::session::NameToClose;
use crate::session::effect::{Bytes, Script};
use crate::sql::{self, Classified, Form, Kinds, Steps};

/// Makes real what a simple query names. Returns the names that are to be taken back behind it.
pub(super) fn name_for_query(
    turn: &mut ClientTurn<'_>,
    text: &[u8],
    classified: &Classified,
) -> Result<Vec<Bytes>, Stop> {
    let left = turn.session.close_after_sync.len();
    let names_any = classified.names_statements || left > 0;
    if !names_any || turn.pool.config().pool.mode == PoolMode::Session {
        return Ok(Vec::new());
    }
    if turn.server()?.pending().may_skip() {
        // An error in front of the query would make the server skip it, but for what is
        // reprepared.
        turn.await_replies()?;
    }
    settled_names(turn)?;
    let mut names = match classified.names_statements {
        true => named_in(turn, text),
        false => Vec::new(),
    };
    if !names.is_empty() && turn.server()?.status() == TransactionStatus::Failed {
        // Its end may be under way.
        turn.await_replies()?;
    }
    await_older_settings(turn, &names)?;
    let (here, missing): (Vec<Bytes>, Vec<Bytes>) =
        names.drain(..).partition(|name| statements::is_temporary(turn, &as_forwarded(name)));
    // The query ends the segment in front of it.
    let mut left: Vec<Bytes> =
        std::mem::take(&mut turn.session.close_after_sync).into_iter().map(|n| n.name).collect();
    let server = turn.server()?;
    // In a failed transaction nothing can be parsed, and nothing but its end is run.
    let failed = server.status() == TransactionStatus::Failed && !server.has_open_segment();
    if !missing.is_empty() && !failed {
        let in_segment = server.has_open_segment();
        let to = if in_segment { NameFor::Segment } else { NameFor::Query };
        for name in &missing {
            make_temporary_name(turn, name, classified, to)?;
        }
        if !in_segment {
            let server = turn.server()?;
            server.pending_mut().push(Pending::OwnSync);
            server.statements_mut().end_segment();
            turn.plan.make_for_server(encode::sync);
        }
    }
    names.extend(missing.into_iter().chain(here));
    match classified.only() {
        // What a longer text takes away and prepares anew stays on the server connection, and
        // its client with it; so does what was made for a text that failed before that.
        None => {
            let before = names.len();
            names.retain(|name| !is_made_anew(classified.steps(), name));
            if names.len() < before {
                turn.session.raised.insert(Kinds::STATEMENTS);
            }
        }
        // It is the server connection's own, and so is what it makes.
        _ if statements::has_unread_statements(turn) => {}
        Some(Form::Prepare(name)) if !names.contains(name) => names.push(name.clone()),
        Some(_) => {}
    }
    left.extend(names.iter().map(|name| as_forwarded(name)));
    Ok(left)
}

/// Closes names that were made real for a simple query, or made by it, right behind it.
pub(super) fn take_back(turn: &mut ClientTurn<'_>, names: Vec<Bytes>) {
    let Some(server) = turn.server.as_deref_mut().filter(|_| !names.is_empty()) else { return };
    server.pending_mut().swallow(names.len() as u32);
    server.pending_mut().push(Pending::OwnSync);
    server.statements_mut().end_segment();
    turn.plan.make_for_server(|out| {
        for name in &names {
            encode::close(out, NameKind::Statement, name);
        }
        encode::sync(out);
    });
}

/// Makes real what a statement of the extended protocol names; it is taken back behind Sync.
pub(super) fn name_for_segment(
    turn: &mut ClientTurn<'_>,
    text: &[u8],
    classified: &Classified,
) -> Step {
    if !classified.names_statements || turn.pool.config().pool.mode == PoolMode::Session {
        return Ok(());
    }
    if matches!(classified.steps, Steps::Several(_)) {
        // The server refuses it without a look at its names.
        return Ok(());
    }
    settled_names(turn)?;
    let names = named_in(turn, text);
    await_older_settings(turn, &names)?;
    for name in names {
        if mark_temporary(turn, &name) {
            make_temporary_name(turn, &name, classified, NameFor::Segment)?;
        }
    }
    if let Some(Form::Prepare(name)) = classified.only()
        && !statements::has_unread_statements(turn)
    {
        close_later(turn, as_forwarded(name));
    }
    Ok(())
}

/// A portal is run that may have been bound in an earlier segment: what it prepares is real
/// from then on, and taken back behind this segment.
pub(super) fn take_back_prepared(turn: &mut ClientTurn<'_>, script: &Script) {
    if turn.pool.config().pool.mode == PoolMode::Session || script.prepared_text().is_none() {
        return;
    }
    for name in script.prepares() {
        mark_temporary(turn, name);
    }
}

/// A name that is closed is gone at once, where it stands for the client's statement in this
/// segment.
pub(super) fn end_temporary_name(turn: &mut ClientTurn<'_>, name: &[u8]) -> Step {
    let name = as_forwarded(name);
    let names = &mut turn.session.close_after_sync;
    let Some(temporary) = names.iter_mut().find(|known| known.is_temporary && known.name == name)
    else {
        return Ok(());
    };
    temporary.is_temporary = false;
    turn.server()?.pending_mut().push(Pending::TemporaryName(NameFor::Segment, None));
    turn.plan.make_for_server(|out| encode::close(out, NameKind::Statement, &name));
    Ok(())
}

/// Notes that a name is real in this segment. Returns whether it was not before.
fn mark_temporary(turn: &mut ClientTurn<'_>, name: &[u8]) -> bool {
    let name = as_forwarded(name);
    let known = turn.session.close_after_sync.iter_mut().find(|known| known.name == name);
    match known {
        Some(known) => !std::mem::replace(&mut known.is_temporary, true),
        None => {
            let name = NameToClose { name, is_temporary: true, is_made: false };
            turn.session.close_after_sync.push(name);
            true
        }
    }
}

/// Whether a name is closed behind the next Sync.
pub(super) fn is_closed_later(turn: &ClientTurn<'_>, name: &[u8]) -> bool {
    let name = as_forwarded(name);
    turn.session.close_after_sync.iter().any(|known| known.name == name)
}

/// Closes a name behind the next Sync.
pub(super) fn close_later(turn: &mut ClientTurn<'_>, name: Bytes) {
    if !turn.session.close_after_sync.iter().any(|known| known.name == name) {
        let name = NameToClose { name, is_temporary: false, is_made: false };
        turn.session.close_after_sync.push(name);
    }
}

/// Makes real a statement that SQL has prepared, for a message of the protocol that names it.
pub(super) fn name_for_protocol(
    turn: &mut ClientTurn<'_>,
    name: &[u8],
    statement: &Statement,
) -> Step {
    if !statements::is_temporary(turn, &as_forwarded(name))
        && older_settings::may_differ(turn, statement)
    {
        turn.await_replies()?;
    }
    match mark_temporary(turn, name) {
        true => run_prepare(turn, name, statement, NameFor::Segment),
        false => Ok(()),
    }
}

/// Waits until it is sure which of the client's names mean something.
fn settled_names(turn: &mut ClientTurn<'_>) -> Step {
    match turn.server()?.pending().are_names_unsure() {
        true => turn.await_replies(),
        false => Ok(()),
    }
}

/// Waits until it is sure whether these are to be parsed under other settings than those of now.
fn await_older_settings(turn: &mut ClientTurn<'_>, names: &[Bytes]) -> Step {
    let known = turn.session.statements.as_deref();
    let is_missing = |name: &&Bytes| !statements::is_temporary(turn, &as_forwarded(name));
    let mut missing = names.iter().filter(is_missing);
    let may_differ = missing.any(|name| {
        let statement = known.and_then(|names| names.get(name));
        statement.is_some_and(|statement| older_settings::may_differ(turn, statement))
    });
    if may_differ { turn.await_replies() } else { Ok(()) }
}

fn make_temporary_name(
    turn: &mut ClientTurn<'_>,
    name: &[u8],
    classified: &Classified,
    to: NameFor,
) -> Step {
    let names = turn.session.statements.as_ref();
    let Some(statement) = names.and_then(|names| names.get(name)).map(Rc::clone) else {
        return Ok(());
    };
    // Where only the name counts, the statement need not be what it was: its table may be gone.
    let only_name = only_name_counts(classified.steps(), name);
    if statement.body.is_none() && !only_name {
        return Ok(());
    }
    if statement.origin == Origin::Sql && !only_name {
        return run_prepare(turn, name, &statement, to);
    }
    let older = match only_name {
        true => OlderSettings::default(),
        false => OlderSettings::of(turn, &statement),
    };
    older.set(turn, to)?;
    turn.server()?.pending_mut().push(Pending::TemporaryName(to, Some(as_forwarded(name))));
    turn.plan.make_for_server(|out| {
        encode::message(out, frontend::PARSE, |out| {
            write_client_name(name, out);
            out.push(0);
            match only_name {
                true => out.extend_from_slice(&[0, 0, 0]),
                false => statement.write_body(out),
            }
        });
    });
    older.set_back(turn, to)
}

/// Runs a client's SQL PREPARE again. It has to be the extended protocol: a simple query would
/// destroy the unnamed statement.
fn run_prepare(turn: &mut ClientTurn<'_>, name: &[u8], statement: &Statement, to: NameFor) -> Step {
    let older = OlderSettings::of(turn, statement);
    older.set(turn, to)?;
    run_own(turn, statement.text(), to, Some(as_forwarded(name)))?;
    older.set_back(turn, to)
}

/// While the server has statements of SQL that are not in the books, whether a name is free is
/// the server's to say, once it has nothing to say of the text.
pub(super) fn probe_name(turn: &mut ClientTurn<'_>, parse: Parse<'_>) -> Step {
    if !statements::has_unread_statements(turn) {
        return Ok(());
    }
    let name = as_forwarded(parse.name);
    let server = turn.server()?;
    let (text, types) = match parse.param_types {
        Some(types) => (parse.text, types),
        // It has not arrived yet.
        None => (&b""[..], &[0, 0][..]),
    };
    server.pending_mut().push(Pending::TemporaryName(NameFor::Probe, None));
    server.pending_mut().push(Pending::TemporaryName(NameFor::Probe, None));
    turn.plan.make_for_server(|out| {
        encode::parse(out, &name, text, types);
        encode::close(out, NameKind::Statement, &name);
    });
    Ok(())
}

/// The names of the client's statements that occur in a text, wherever.
fn named_in(turn: &ClientTurn<'_>, text: &[u8]) -> Vec<Bytes> {
    let Some(known) = turn.session.statements.as_ref().filter(|names| !names.is_empty()) else {
        return Vec::new();
    };
    let mut names: Vec<Bytes> = Vec::new();
    let add_from = |text: &[u8], names: &mut Vec<Bytes>| {
        sql::words(text, |word| {
            if known.get(word).is_some() && !names.iter().any(|name| **name == *word) {
                names.push(word.into());
            }
        });
    };
    add_from(text, &mut names);
    // What is executed may name others: it may be a PREPARE itself.
    let mut at = 0;
    while let Some(name) = names.get(at).cloned() {
        let statement = known.get(&name);
        if let Some(statement) = statement.filter(|statement| statement.names_statements()) {
            add_from(statement.text(), &mut names);
        }
        at += 1;
    }
    names
}

/// The text as it is sent if it names statements of pgimbal's own: their names are out of
/// reach, what a client calls so is another name.
pub(super) fn escape(
    turn: &ClientTurn<'_>,
    text: &[u8],
    classified: &Classified,
) -> Option<Vec<u8>> {
    if let Some(wrong) = route::misnamed_in(classified) {
        // In a transaction the server must refuse it, or it would go on with what follows.
        return Some(wrong.statement());
    }
    if !classified.names_statements || turn.pool.config().pool.mode == PoolMode::Session {
        return None;
    }
    let spans = sql::own_names(text, turn.session.reading, SERVER_NAME_PREFIX);
    if spans.is_empty() {
        return None;
    }
    let (mut escaped, mut at) = (Vec::with_capacity(text.len() + 16), 0);
    for span in spans {
        escaped.extend_from_slice(&text[at..span.start]);
        let name = &text[span.clone()];
        let quoted = name.strip_prefix(b"\"").and_then(|n| n.strip_suffix(b"\""));
        let name = quoted.map_or_else(|| name.to_ascii_lowercase(), <[u8]>::to_vec);
        escaped.push(b'"');
        write_client_name(&name, &mut escaped);
        escaped.push(b'"');
        at = span.end;
    }
    escaped.extend_from_slice(&text[at..]);
    Some(escaped)
}

/// Whether a text takes a statement away, or prepares one of its name, before it may run it.
fn only_name_counts(steps: &[sql::Step], name: &[u8]) -> bool {
    for step in steps {
        match &step.form {
            Form::Deallocate(named) | Form::Prepare(named) if **named == *name => return true,
            Form::Deallocate(_) | Form::Prepare(_) => {}
            Form::Execute(_) => return false,
            _ if step.raises.meets(Kinds::STATEMENTS) => return false,
            _ => {}
        }
    }
    false
}

/// Whether a text deallocates a statement and then prepares one of its name.
fn is_made_anew(steps: &[sql::Step], name: &[u8]) -> bool {
    let takes_away = |step: &sql::Step| match &step.form {
        Form::Deallocate(gone) => **gone == *name,
        Form::DeallocateAll | Form::DiscardAll => true,
        _ => false,
    };
    let prepares = |step: &sql::Step| matches!(&step.form, Form::Prepare(made) if **made == *name);
    let behind = steps.iter().skip_while(|step| !takes_away(step));
    behind.into_iter().any(prepares)
}
