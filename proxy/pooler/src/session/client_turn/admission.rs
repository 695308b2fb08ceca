//! Whether a text is let through to a server connection.

use pgimbal_config::PoolMode;
use pgimbal_wire::error::{Report, Severity, SqlState};

use super::channels;
use super::turn::{ClientTurn, Step};
use crate::cluster::route;
use crate::error::error_body;
use crate::plan::Stop;
use crate::session::front::FrontMessage;
use crate::session::{Link, Phase, setup};
use crate::sql::{self, Classified, Form, Kinds, SetBy};

/// Kinds of state for which a session will keep its server connection as soon as it has them.
const WAITS_FOR_PLACE: Kinds =
    Kinds::TEMPORARY.union(Kinds::LOCKS).union(Kinds::CHANNELS).union(Kinds::CURSORS);

/// Whether settings of the session that no server connection takes stand in the way of a text;
/// then its error is what comes next. A text that replaces them or resets everything passes.
pub(super) fn is_refused(turn: &mut ClientTurn<'_>, classified: &Classified) -> bool {
    let Some(refused) = turn.session.refused_error().filter(|_| turn.is_fresh()) else {
        return false;
    };
    if mends(classified, &refused.names) {
        return false;
    }
    let error = std::sync::Arc::clone(&refused.error);
    turn.session.refuse(error);
    true
}

/// Lets the server tell about its database first, if what a text leaves depends on that.
///
/// # Errors
/// [`Stop::Wait`] until it has.
pub(super) fn await_facts(turn: &mut ClientTurn<'_>, classified: &Classified) -> Step {
    let depends = |step: &sql::Step| matches!(step.form, Form::Set(_, SetBy::UnqualifiedFunction));
    let depends = classified.marks.may_change_schema() || classified.steps().iter().any(depends);
    if !depends || turn.pool.config().pool.mode == PoolMode::Session {
        return Ok(());
    }
    let due = turn.pool.shared().database.facts.want(turn.now);
    if !due || !turn.is_fresh() {
        return Ok(());
    }
    let Some(server) = turn.server.as_deref_mut() else { return Ok(()) };
    setup::send_facts_question(server, turn.pool, turn.now, turn.plan);
    turn.session.phase = Phase::Barrier;
    Err(Stop::Wait)
}

/// Whether a text begins a transaction block where the pool has none; then its error is what
/// comes next.
pub(super) fn refuses_block(turn: &mut ClientTurn<'_>, classified: &Classified) -> bool {
    let refuses = turn.pool.config().pool.mode == PoolMode::Statement && classified.marks.begins();
    if refuses {
        turn.session.refuse(error_body(
            &Report::error(
                SqlState::FEATURE_NOT_SUPPORTED,
                "transaction blocks are not allowed in statement pooling",
            )
            .hint("Use a pool in transaction mode (pool_mode = \"transaction\")."),
        ));
    }
    refuses
}

/// Whether the pool lets a text through.
///
/// # Errors
/// [`Stop::WaitForPlace`] when it has to wait for a place among the pinned sessions, or, as
/// [`Stop::Wait`], for the shared connection to listen.
pub(super) fn admit(turn: &mut ClientTurn<'_>, classified: &Classified) -> Result<Admission, Stop> {
    if refuses_block(turn, classified) {
        return Ok(Admission::Refused);
    }
    if let Some(wrong) = route::misnamed_in(classified).filter(|_| turn.is_fresh()) {
        turn.session.refuse(wrong.body(Severity::Error));
        return Ok(Admission::Refused);
    }
    channels::await_channels(turn, classified)?;
    let mut raises = classified.raises();
    if channels::carries_all(turn, classified) {
        raises.remove(Kinds::CHANNELS);
    }
    let will_pin = raises.meets(WAITS_FOR_PLACE)
        && !raises.meets(Kinds::UNNAMED_SETTINGS)
        && !classified.marks.begins()
        && turn.pool.config().pool.mode == PoolMode::Transaction;
    if will_pin {
        take_place(turn)?;
    }
    Ok(Admission::Let)
}

/// Lets a text through that is too long to be looked at first. It may leave anything, so it
/// needs a place among the pinned sessions, which it gives back if it has left nothing.
///
/// # Errors
/// [`Stop::WaitForPlace`] when it has to wait for one.
pub(super) fn admit_unread(turn: &mut ClientTurn<'_>) -> Result<(), Stop> {
    match turn.pool.config().pool.mode {
        PoolMode::Transaction => take_place(turn),
        PoolMode::Session | PoolMode::Statement => Ok(()),
    }
}

fn take_place(turn: &mut ClientTurn<'_>) -> Result<(), Stop> {
    // In the middle of a transaction it does not wait: it holds a server connection. Nor if it is
    // pinned beyond the limit: its server connection must not be given back.
    if turn.session.pin.has_slot() || turn.session.pin.is_set() || !turn.is_fresh() {
        return Ok(());
    }
    let slot = turn.pool.shared().pin(turn.pool.config().max_pinned).ok_or(Stop::WaitForPlace)?;
    turn.session.pin.hold(slot);
    Ok(())
}

/// Classifies the text of a message (`None` if it is not held as a whole, or has none that can
/// be read) while the session has no server connection, and keeps that until there is one. Says
/// whether the pool refuses the text, whatever server it would get: then its error is what comes
/// next.
pub(super) fn is_refused_ahead(turn: &mut ClientTurn<'_>, text: Option<&[u8]>) -> bool {
    if turn.session.link != Link::Unlinked {
        return false;
    }
    let read = text.map(|text| turn.read(text));
    let refused = read.as_ref().is_some_and(|read| refuses_block(turn, &read.classified));
    turn.session.front = read.map_or(FrontMessage::Unread, FrontMessage::from);
    refused
}

/// Whether the pool lets a text through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Let,
    /// Its error is what comes next.
    Refused,
}

impl Admission {
    pub(super) fn is_refused(self) -> bool {
        self == Self::Refused
    }
}

/// Whether a text replaces or resets all of the settings `names` before it does anything else.
fn mends(classified: &Classified, names: &[Box<[u8]>]) -> bool {
    for step in classified.steps() {
        match &step.form {
            Form::ResetAll | Form::DiscardAll => return true,
            Form::Reset(name, _) if replaces(name, names) => return true,
            Form::Set(list, _) => {
                let sets = |assignment: &sql::Assignment| match &assignment.name {
                    sql::Operand::Text(name) => replaces(&name.to_ascii_lowercase(), names),
                    _ => false,
                };
                if list.iter().any(sets) {
                    return true;
                }
            }
            Form::Reset(..) => {}
            _ => return false,
        }
    }
    false
}

/// Whether setting `name` leaves nothing of the settings `refused`.
fn replaces(name: &[u8], refused: &[Box<[u8]>]) -> bool {
    // The role goes with the session's user.
    let with_role = name == b"session_authorization";
    refused.iter().all(|refused| **refused == *name || (with_role && **refused == *b"role"))
}
