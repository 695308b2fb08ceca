//! What a text that is sent may leave in its session.

use pgimbal_config::{PoolMode, Verify};
use pgimbal_wire::encode::{self, TransactionStatus};

use super::turn::ClientTurn;
use crate::recovery::effects::SegmentEffects;
use crate::server::Ending;
use crate::server::pending::{NameFor, Pending};
use crate::session::LocalSettings;
use crate::session::state::books::Books;
use crate::sql::{self, Chain, Classified, Form, Kinds, SetBy, Steps};

/// Kinds of state that only functions of these names make: code has to name them, or to call what
/// does. Where that cannot be seen, they are not looked for: one cannot be asked about, and the
/// others take privileges that few have.
const BY_NAME: Kinds = Kinds::ORIGIN.union(Kinds::SLOTS).union(Kinds::DBLINK);

/// Notes what a text that is sent now may leave in the session.
pub(super) fn raise(turn: &mut ClientTurn<'_>, classified: &Classified, text: &[u8]) {
    if let Some(server) = turn.server.as_deref_mut() {
        server.set_ending(ending(server.ending(), classified));
        if classified.marks.may_change_schema() {
            server.note_schema_change();
        }
        if classified.marks.may_commit_on_its_way() {
            server.note_early_commit();
        }
    }
    if turn.pool.config().pool.mode == PoolMode::Session {
        return;
    }
    let mut kinds = Kinds::NONE;
    if !classified.only_ends_or_begins() {
        kinds.insert(raised_by_portals(turn, classified));
    }
    for step in classified.steps() {
        kinds.insert(raised_by(turn, step));
        if step.local && !executes_plain(turn, step) {
            local_settings_may_hold(turn, text);
        }
    }
    if classified.steps == Steps::Unreadable {
        kinds.insert(sql::Step::UNREADABLE.raises);
        local_settings_may_hold(turn, text);
    }
    if classified.marks.may_change_schema() {
        kinds.insert(raised_by_ddl(turn, text));
    }
    if kinds.meets(Kinds::SETTINGS.union(Kinds::UNNAMED_SETTINGS)) {
        turn.session.custom.add_from(text);
    }
    // What stands in front of it in the same text may have changed the path.
    let path_changes =
        kinds.meets(Kinds::SETTINGS) || classified.steps().iter().any(may_lead_to_temporary);
    if (path_changes || creates_may_be_temporary(turn)) && !classified.only_ends_or_begins() {
        kinds.insert(Kinds::TEMPORARY);
    }
    // Another function of the name may do anything, in whatever form it is called.
    if kinds.meets(Kinds::SETTINGS)
        && sql::has_word(text, b"set_config")
        && !turn.pool.shared().database.facts.set_config_is_builtin(turn.now)
    {
        kinds.insert(Kinds::ANYTHING);
    }
    if turn.pool.config().pool.verify == Verify::Always && classified.may_run_code() {
        kinds.insert(Kinds::ANYTHING);
    }
    if kinds.meets(Kinds::UNNAMED_SETTINGS) {
        kinds = kinds.without(BY_NAME).union(named(text));
    }
    if kinds.meets(Kinds::UNNAMED_SETTINGS) {
        leave_a_witness(turn);
    }
    kinds.insert(asked_again(turn, classified));
    turn.session.channels.note_sent();
    if kinds.meets(Kinds::SETTINGS) || turn.session.local != LocalSettings::Known {
        turn.doubt_readings();
    }
    turn.session.raised.insert(kinds);
}

/// Code may deallocate all statements: one of pgimbal's own tells by its absence.
fn leave_a_witness(turn: &mut ClientTurn<'_>) {
    let Some(server) = turn.server.as_deref_mut() else { return };
    if server.own_statements().count() > 0 || server.status() == TransactionStatus::Failed {
        return;
    }
    let to = match server.has_open_segment() {
        true => NameFor::Segment,
        false => NameFor::Query,
    };
    for _ in 0..server.own_statements_mut().write_witness(turn.plan) {
        server.pending_mut().push(Pending::Witness(to));
    }
    if !server.has_open_segment() {
        server.pending_mut().push(Pending::OwnSync);
        server.statements_mut().end_segment();
        turn.plan.make_for_server(encode::sync);
    }
}

/// A text may close a portal whose statement is followed, and put another in its place.
fn raised_by_portals(turn: &mut ClientTurn<'_>, classified: &Classified) -> Kinds {
    let may_close =
        |step: &sql::Step| matches!(step.form, Form::Declare | Form::Other | Form::DiscardAll);
    if turn.session.portals.is_empty() || !classified.steps().iter().any(may_close) {
        return Kinds::NONE;
    }
    for assignments in turn.session.portals.assignments() {
        turn.session.custom.add_all(assignments);
    }
    turn.session.portals.forget();
    Kinds::ANYTHING
}

/// Whether it runs a statement of the client's that only reads or writes rows.
fn executes_plain(turn: &ClientTurn<'_>, step: &sql::Step) -> bool {
    let Form::Execute(name) = &step.form else { return false };
    let known = turn.session.statements.as_ref().and_then(|names| names.get(name));
    known.is_some_and(|known| known.body.is_some() && known.class.not_plain().is_none())
}

fn raised_by(turn: &mut ClientTurn<'_>, step: &sql::Step) -> Kinds {
    match &step.form {
        Form::Fetch => {
            for assignments in turn.session.portals.assignments() {
                turn.session.custom.add_all(assignments);
            }
            step.raises.union(turn.session.portals.fetched())
        }
        Form::Declare => {
            turn.session.portals.declare(step.raises.without(Kinds::CURSORS));
            step.raises
        }
        Form::Execute(name) => {
            let known = turn.session.statements.as_ref().and_then(|names| names.get(name));
            match known {
                Some(statement) => match statement.class.not_plain() {
                    None => Kinds::NONE,
                    // A set_config that is run by EXECUTE is not followed.
                    Some(inner) => {
                        turn.session.custom.add_from(statement.text());
                        inner.raises().union(Kinds::SETTINGS).union(Kinds::ROLE)
                    }
                },
                None => step.raises,
            }
        }
        // The shared connection listens; this one does too, until it is given back.
        Form::Listen(name) if turn.session.channels.carries(name) => {
            if let Some(server) = turn.server.as_deref_mut() {
                server.residue_mut().insert(Kinds::CHANNELS);
            }
            Kinds::NONE
        }
        Form::Set(_, SetBy::UnqualifiedFunction) => {
            let builtin = turn.pool.shared().database.facts.set_config_is_builtin(turn.now);
            // Another function of the name may do anything.
            if builtin { step.raises } else { Kinds::ANYTHING }
        }
        _ => step.raises,
    }
}

/// What DDL may leave: whatever an event trigger does.
fn raised_by_ddl(turn: &ClientTurn<'_>, text: &[u8]) -> Kinds {
    let facts = &turn.pool.shared().database.facts;
    let runs_code = facts.may_have_event_triggers(turn.now);
    if sql::has_word(text, b"event") || sql::has_word(text, b"extension") {
        facts.forget();
    }
    if sql::has_word(text, b"set_config") {
        facts.forget();
    }
    if runs_code { Kinds::ANYTHING } else { Kinds::NONE }
}

/// Whether relations may be created in the temporary schema without a word of it in the text.
fn creates_may_be_temporary(turn: &ClientTurn<'_>) -> bool {
    let path = turn.tables.settings.get(turn.session.settings.current(), b"search_path");
    path.is_some_and(|path| sql::has_word(path, b"pg_temp"))
        || turn.session.raised.meets(Kinds::SETTINGS)
        || turn.session.local != LocalSettings::Known
}

/// A text may set settings until its transaction ends that are not followed.
fn local_settings_may_hold(turn: &mut ClientTurn<'_>, text: &[u8]) {
    let names = |word| sql::has_word(text, word);
    let named = names(b"local") || names(b"set_config") || text.is_empty();
    turn.session.local = match named || turn.session.local == LocalSettings::Named {
        true => LocalSettings::Named,
        false => LocalSettings::Unknown,
    };
}

/// What pins the session is asked about again when it may have been taken away.
fn asked_again(turn: &mut ClientTurn<'_>, classified: &Classified) -> Kinds {
    let kinds = turn.session.pin.kinds();
    if kinds.is_empty() {
        return Kinds::NONE;
    }
    let Some(server) = turn.server.as_deref_mut() else { return Kinds::NONE };
    let (session, pool, tables) = (&mut *turn.session, &mut *turn.pool, &mut *turn.tables);
    let books = Books { session, server, pool, tables, now: turn.now };
    if !classified.is_plain() || books.is_answer_old() { kinds } else { Kinds::NONE }
}

/// Applies the effects of a text that has already been sent to the server, so that it can no
/// longer be refused, and of which no statement is followed.
pub(super) fn raise_unfollowed(turn: &mut ClientTurn<'_>, classified: &Classified) {
    if let Some(server) = turn.server.as_deref_mut() {
        let effects = SegmentEffects::of_unread(classified);
        // That of a Query has been ended with it, that of a Parse has not.
        match server.has_open_segment() {
            true => server.in_flight_mut().does(effects),
            false => server.in_flight_mut().did(effects),
        }
    }
    raise(turn, classified, b"event extension");
    let session_mode = turn.pool.config().pool.mode == PoolMode::Session;
    if !session_mode && !classified.is_plain() && !classified.only_ends_or_begins() {
        turn.session.raised.insert(Kinds::ANYTHING);
        turn.session.local = LocalSettings::Unknown;
        turn.doubt_readings();
    } else if turn.session.changed_in_transaction() {
        turn.session.raised.insert(Kinds::SETTINGS.union(Kinds::ROLE).union(Kinds::CHANNELS));
    }
}

/// Whether a statement sets a search path under which relations are created in the temporary
/// schema.
fn may_lead_to_temporary(step: &sql::Step) -> bool {
    let leads = |assignment: &sql::Assignment| match (&assignment.name, &assignment.value) {
        (sql::Operand::Text(name), sql::Operand::Text(value)) => {
            name.eq_ignore_ascii_case(b"search_path") && sql::has_word(value, b"pg_temp")
        }
        _ => true,
    };
    matches!(&step.form, Form::Set(list, _) if list.iter().any(leads))
}

/// The kinds of [`BY_NAME`] whose functions a text names, wherever.
fn named(text: &[u8]) -> Kinds {
    let mut kinds = Kinds::NONE;
    sql::words(text, |word| match word {
        b"dblink_connect" | b"dblink_connect_u" | b"dblink_open" => kinds.insert(Kinds::DBLINK),
        b"pg_replication_origin_session_setup" => kinds.insert(Kinds::ORIGIN),
        b"pg_create_physical_replication_slot"
        | b"pg_create_logical_replication_slot"
        | b"pg_copy_physical_replication_slot"
        | b"pg_copy_logical_replication_slot" => kinds.insert(Kinds::SLOTS),
        _ => {}
    });
    kinds
}

/// What a text adds to what is known of the end of a transaction block.
fn ending(before: Ending, classified: &Classified) -> Ending {
    let rolls_back = matches!(classified.only(), Some(Form::Rollback(Chain::No)));
    match before {
        _ if !classified.marks.may_commit() => before,
        Ending::No if rolls_back => Ending::Rollback,
        _ => Ending::MayCommit,
    }
}
