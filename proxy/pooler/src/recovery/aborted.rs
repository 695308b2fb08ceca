//! What a session is told while it has no server connection to speak for itself: an error for a
//! segment that could not be served, or the rest of a transaction whose server connection died.
//!
//! PostgreSQL's own behaviour in a failed transaction is the model: everything is refused until
//! the transaction's end.

mod end;
mod unserved;

use std::sync::Arc;

use pgimbal_wire::encode::{self, TransactionStatus};
use pgimbal_wire::error::{self, Report, Severity, SqlState};
use pgimbal_wire::extended::{Bind, Execute, Parse, Target};
use pgimbal_wire::frame::Header;
use pgimbal_wire::tag::{backend, frontend};

use crate::recovery::rerun::Rerun;
use crate::session::Phase;
use crate::session::client_turn::{ClientTurn, Message, Step};
use crate::session::front::ReadText;
use crate::sql::Steps;

use self::end::{End, end_in, end_in_one};
use self::unserved::{Unserved, note_block, unserved};

/// Portals and statements of a lost transaction that are remembered; a client that makes more has
/// lost its way, the oldest are forgotten.
const NAMES_LIMIT: usize = 16;

/// An error in place of a server connection.
#[derive(Debug)]
pub struct Aborted {
    /// The body of the ErrorResponse that has not been told yet.
    error: Option<Arc<[u8]>>,
    scope: Scope,
}

#[derive(Debug)]
enum Scope {
    /// One segment: up to the next ReadyForQuery.
    Segment,
    /// All segments that the client has sent already: they have waited together for a server
    /// connection that did not come.
    Pipeline(Unserved),
    /// A transaction that is lost with its server connection.
    Transaction(Lost),
}

#[derive(Debug, Default)]
struct Lost {
    statements: Vec<(Box<[u8]>, End)>,
    portals: Vec<(Box<[u8]>, End)>,
    /// The end was executed; ReadyForQuery will say so.
    ended: bool,
    /// It was lost in the middle of a segment, of which something was answered: that segment's end
    /// is not answered as if nothing had happened.
    cut: bool,
    /// What follows the end in the same pipeline gets this error.
    then: Option<Arc<[u8]>>,
}

impl Aborted {
    /// The next segment is answered with this error.
    #[must_use]
    pub const fn refused(error: Arc<[u8]>) -> Self {
        Self { error: Some(error), scope: Scope::Segment }
    }

    /// The transaction is lost; `error` is told at the next message, `None` if it was told.
    #[must_use]
    pub fn lost(error: Option<Arc<[u8]>>) -> Self {
        Self { error, scope: Scope::Transaction(Lost::default()) }
    }

    /// As [`Self::lost`], in the middle of a segment for which the client awaits nothing now.
    #[must_use]
    pub fn cut(error: Arc<[u8]>) -> Self {
        let lost = Lost { cut: true, ..Lost::default() };
        Self { error: Some(error), scope: Scope::Transaction(lost) }
    }

    /// The error that has not been told yet.
    pub(crate) fn into_error(self) -> Option<Arc<[u8]>> {
        self.error
    }

    /// What is left behind the end of a segment, behind which the client's pipeline `goes_on`.
    fn behind_segment(self, goes_on: bool) -> Option<Self> {
        match self.scope {
            Scope::Segment => None,
            Scope::Transaction(lost) if !lost.ended => {
                let lost = Lost { cut: false, ..lost };
                Some(Self { error: self.error, scope: Scope::Transaction(lost) })
            }
            Scope::Transaction(lost) => lost
                .then
                .filter(|_| goes_on)
                .map(|error| Self::unserved(Arc::clone(&error), Some(error))),
            Scope::Pipeline(unserved) => goes_on.then(|| unserved.behind_segment()).flatten(),
        }
    }

    /// What ReadyForQuery behind a segment says, behind which the client's pipeline `goes_on`.
    fn status(&self, goes_on: bool) -> TransactionStatus {
        match &self.scope {
            Scope::Pipeline(unserved) if goes_on && unserved.begins_block() => {
                TransactionStatus::Failed
            }
            Scope::Transaction(lost) if !lost.ended => TransactionStatus::Failed,
            _ => TransactionStatus::Idle,
        }
    }
}

/// Processes one message of a client that has an error coming.
pub(crate) fn process(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    match header.tag {
        frontend::SYNC => {
            turn.drop_message(header);
            if turn.session.phase != Phase::Skipping && is_due_at_sync(turn) {
                tell(turn);
            }
            ready(turn);
            Ok(())
        }
        frontend::FLUSH | frontend::COPY_DATA | frontend::COPY_DONE | frontend::COPY_FAIL => {
            turn.drop_message(header);
            Ok(())
        }
        _ if turn.session.phase == Phase::Skipping => {
            if unserved(turn).is_some() {
                let message = turn.held(header, 0)?;
                let read = read(turn, message);
                note_block(turn, message, read.as_ref());
            }
            turn.drop_message(header);
            Ok(())
        }
        frontend::QUERY | frontend::FUNCTION_CALL => {
            let message = turn.held(header, 0)?;
            let read = read(turn, message);
            if read.as_ref().is_some_and(|read| rolls_back_first(turn, message, read)) {
                // The transaction is over; a server says the rest, and that there is none.
                turn.session.aborted = None;
                turn.keep_if_waits(message, read);
                return Ok(());
            }
            let end = read.as_ref().filter(|_| message.is_whole()).and_then(end_of);
            note_block(turn, message, read.as_ref());
            turn.drop_message(header);
            query(turn, end);
            Ok(())
        }
        frontend::PARSE
        | frontend::BIND
        | frontend::DESCRIBE
        | frontend::EXECUTE
        | frontend::CLOSE => {
            let message = turn.held(header, 0)?;
            let read = read(turn, message);
            note_block(turn, message, read.as_ref());
            let answer = extended(turn, message, read);
            turn.drop_message(header);
            match answer {
                MessageReply::Given => return Ok(()),
                MessageReply::Error => tell(turn),
            }
            turn.session.phase = Phase::Skipping;
            Ok(())
        }
        tag => Err(turn.violation(&format!("invalid frontend message type {tag}"))),
    }
}

fn query(turn: &mut ClientTurn<'_>, end: Option<End>) {
    let lost = matches!(aborted(turn), Some(Aborted { scope: Scope::Transaction(_), .. }));
    match end.filter(|_| lost) {
        Some(End::Rollback) => {
            turn.plan.make_for_client(|out| encode::command_complete(out, "ROLLBACK"))
        }
        Some(End::Savepoint | End::Commit) | None => tell(turn),
    }
    if let (
        Some(End::Commit | End::Rollback),
        Some(Aborted { scope: Scope::Transaction(lost), .. }),
    ) = (end, aborted(turn))
    {
        lost.ended = true;
    }
    ready(turn);
}

/// How a message of the extended protocol is answered.
enum MessageReply {
    /// It has been.
    Given,
    /// With the error that is to be told, or the word that the transaction has failed.
    Error,
}

/// Answers a message of the extended protocol if it belongs to the end of a lost transaction.
fn extended(
    turn: &mut ClientTurn<'_>,
    message: Message<'_>,
    read: Option<ReadText>,
) -> MessageReply {
    if message.header.tag == frontend::EXECUTE {
        return execute(turn, message);
    }
    if prepares_end(turn, message, read) { MessageReply::Given } else { MessageReply::Error }
}

/// Executes the end of a lost transaction.
fn execute(turn: &mut ClientTurn<'_>, message: Message<'_>) -> MessageReply {
    let Ok(Some(execute)) = Execute::view(message.body, message.body_len()) else {
        return MessageReply::Error;
    };
    let Some(end) = end_of_portal(turn, execute.portal) else { return MessageReply::Error };
    if end == End::Savepoint {
        return MessageReply::Error;
    }
    let Some(lost) = lost(turn) else { return MessageReply::Error };
    lost.ended = true;
    if end == End::Commit {
        // It is never answered as if it had been one.
        return MessageReply::Error;
    }
    turn.plan.make_for_client(|out| encode::command_complete(out, "ROLLBACK"));
    MessageReply::Given
}

/// Answers Parse, Bind, Describe and Close of the end of a lost transaction. Says whether it was
/// one of these.
fn prepares_end(turn: &mut ClientTurn<'_>, message: Message<'_>, read: Option<ReadText>) -> bool {
    let (body, len) = (message.body, message.body_len());
    match message.header.tag {
        frontend::PARSE => {
            let Ok(Some(parse)) = Parse::view(body, len) else { return false };
            if turn.knows(parse.name) {
                return false;
            }
            let Some(ReadText { classified, .. }) = read else { return false };
            let (Some(end), Some(lost)) = (end_in(&classified), lost(turn)) else { return false };
            remember(&mut lost.statements, parse.name, end);
            turn.keep_unsent(message, parse, classified);
            turn.plan.make_for_client(encode::parse_complete);
            true
        }
        frontend::BIND => {
            let Ok(Some(bind)) = Bind::view(body, len) else { return false };
            let Some(end) = end_of_statement(turn, bind.statement) else { return false };
            let Some(lost) = lost(turn) else { return false };
            remember(&mut lost.portals, bind.portal, end);
            turn.plan.make_for_client(|out| encode::message(out, backend::BIND_COMPLETE, |_| {}));
            true
        }
        frontend::DESCRIBE => match Target::view(body, len) {
            Ok(Some(Target::Statement(name))) if end_of_statement(turn, name).is_some() => {
                turn.plan.make_for_client(|out| {
                    encode::message(out, backend::PARAMETER_DESCRIPTION, |out| {
                        out.extend_from_slice(&[0, 0])
                    });
                    encode::message(out, backend::NO_DATA, |_| {});
                });
                true
            }
            Ok(Some(Target::Portal(name))) if end_of_portal(turn, name).is_some() => {
                turn.plan.make_for_client(|out| encode::message(out, backend::NO_DATA, |_| {}));
                true
            }
            _ => false,
        },
        frontend::CLOSE => {
            let Some(lost) = lost(turn) else { return false };
            if let Ok(Some(Target::Statement(name))) = Target::view(body, len) {
                lost.statements.retain(|(known, _)| **known != *name);
                turn.forget_unsent(name);
            }
            turn.plan.make_for_client(encode::close_complete);
            true
        }
        _ => false,
    }
}

/// Tells the error, or that the transaction has failed if it was told before.
fn tell(turn: &mut ClientTurn<'_>) {
    let error = aborted(turn).and_then(|aborted| aborted.error.take());
    match error {
        Some(body) => {
            if let Ok(fields) = error::ErrorFields::parse(&body) {
                turn.pool.stats.error(fields.code);
            }
            turn.plan.make_for_client(|out| error::with_severity(&body, Severity::Error, out));
        }
        None => tell_aborted(turn),
    }
}

/// Tells that the transaction has failed.
fn tell_aborted(turn: &mut ClientTurn<'_>) {
    let report = Report::error(
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    );
    turn.pool.stats.error(report.code);
    turn.plan.make_for_client(|out| report.encode_error(out));
}

/// Ends the segment; with it the error, unless a transaction is still lost.
fn ready(turn: &mut ClientTurn<'_>) {
    let Some(aborted) = turn.session.aborted.take() else { return };
    // What the client has sent behind it belongs to the same pipeline.
    let goes_on = turn.at < turn.buf.len();
    let status = aborted.status(goes_on);
    turn.plan.make_for_client(|out| encode::ready_for_query(out, status));
    turn.session.phase = Phase::Open;
    turn.session.rerun = Rerun::No;
    turn.session.aborted = aborted.behind_segment(goes_on).map(Box::new);
}

/// Whether the end of a segment is answered with the error that the client has not been told.
fn is_due_at_sync(turn: &ClientTurn<'_>) -> bool {
    let Some(aborted) = turn.session.aborted.as_deref() else { return false };
    let due = match &aborted.scope {
        Scope::Segment | Scope::Pipeline(_) => true,
        Scope::Transaction(lost) => lost.cut && !lost.ended,
    };
    due && aborted.error.is_some()
}

fn aborted<'a>(turn: &'a mut ClientTurn<'_>) -> Option<&'a mut Aborted> {
    turn.session.aborted.as_deref_mut()
}

fn lost<'a>(turn: &'a mut ClientTurn<'_>) -> Option<&'a mut Lost> {
    match aborted(turn) {
        Some(Aborted { scope: Scope::Transaction(lost), .. }) => Some(lost),
        _ => None,
    }
}

/// How a Query does.
fn end_of(read: &ReadText) -> Option<End> {
    let classified = &read.classified;
    match &classified.steps {
        // What fails ends the text, and a COMMIT ends the transaction with it.
        Steps::Several(_) => end_in_one(classified.first()?).filter(|end| *end == End::Commit),
        _ => end_in(classified),
    }
}

/// Whether a lost transaction is rolled back by the first statement of several.
fn rolls_back_first(turn: &ClientTurn<'_>, message: Message<'_>, read: &ReadText) -> bool {
    let scope = turn.session.aborted.as_deref().map(|aborted| &aborted.scope);
    let classified = &read.classified;
    message.is_whole()
        && matches!(scope, Some(Scope::Transaction(_)))
        && matches!(classified.steps, Steps::Several(_))
        && classified.first().is_some_and(|first| end_in_one(first) == Some(End::Rollback))
}

/// What the text of a Query or Parse is, as much of it as is here; `None` for other messages.
fn read(turn: &mut ClientTurn<'_>, message: Message<'_>) -> Option<ReadText> {
    let text = match message.header.tag {
        frontend::QUERY => message.body.split_last()?.1,
        frontend::PARSE => Parse::view(message.body, message.body_len()).ok()??.text,
        _ => return None,
    };
    Some(turn.read(text))
}

fn end_of_statement(turn: &ClientTurn<'_>, name: &[u8]) -> Option<End> {
    let scope = &turn.session.aborted.as_deref()?.scope;
    let Scope::Transaction(lost) = scope else { return None };
    let remembered = lost.statements.iter().rev().find(|(n, _)| **n == *name).map(|(_, end)| *end);
    remembered.or_else(|| {
        // An unnamed statement counts only if it was parsed since.
        let class = turn.class_of(name).filter(|_| !name.is_empty())?;
        class.not_plain().and_then(end_in)
    })
}

fn end_of_portal(turn: &ClientTurn<'_>, name: &[u8]) -> Option<End> {
    let Scope::Transaction(lost) = &turn.session.aborted.as_deref()?.scope else { return None };
    lost.portals.iter().rev().find(|(n, _)| **n == *name).map(|(_, end)| *end)
}

fn remember(list: &mut Vec<(Box<[u8]>, End)>, name: &[u8], end: End) {
    if list.len() == NAMES_LIMIT {
        list.remove(0);
    }
    list.push((name.into(), end));
}
