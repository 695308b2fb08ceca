//! The messages of a client that has an error coming instead of a server connection: they are
//! answered as PostgreSQL does in a failed transaction.

use pgimbal_wire::encode;
use pgimbal_wire::error::{self, Report, Severity, SqlState};
use pgimbal_wire::extended::{Bind, Execute, Parse, StatementOrPortal};
use pgimbal_wire::frame::Header;
use pgimbal_wire::tag::{backend, frontend};

use super::statements;
use super::turn::{ClientTurn, Message, Step};
use crate::recovery::aborted::end::{End, end_in, end_in_one};
use crate::recovery::aborted::{Aborted, Lost, Unserved};
use crate::recovery::block::Block;
use crate::recovery::proof::Rerun;
use crate::session::Phase;
use crate::session::front::ReadText;
use crate::sql::{StatementClass, Steps};

/// Processes one message of a client that has an error coming.
pub(super) fn process(turn: &mut ClientTurn<'_>, header: Header) -> Step {
    match header.tag {
        frontend::SYNC => {
            turn.drop_message(header);
            if turn.session.phase != Phase::Skipping
                && turn.session.aborted.as_deref().is_some_and(Aborted::is_due_at_sync)
            {
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
    let is_lost = lost(turn).is_some();
    match end.filter(|_| is_lost) {
        Some(End::Rollback) => turn.tell(|out| encode::command_complete(out, "ROLLBACK")),
        Some(End::Savepoint | End::Commit) | None => tell(turn),
    }
    if let (Some(End::Commit | End::Rollback), Some(lost)) = (end, lost(turn)) {
        lost.end();
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
    lost.end();
    if end == End::Commit {
        // It is never answered as if it had been one.
        return MessageReply::Error;
    }
    turn.tell(|out| encode::command_complete(out, "ROLLBACK"));
    MessageReply::Given
}

/// Answers Parse, Bind, Describe and Close of the end of a lost transaction. Says whether it was
/// one of these.
fn prepares_end(turn: &mut ClientTurn<'_>, message: Message<'_>, read: Option<ReadText>) -> bool {
    let (body, len) = (message.body, message.body_len());
    match message.header.tag {
        frontend::PARSE => {
            let Ok(Some(parse)) = Parse::view(body, len) else { return false };
            if statements::knows(turn, parse.name) {
                return false;
            }
            let Some(ReadText { classified, .. }) = read else { return false };
            let (Some(end), Some(lost)) = (end_in(&classified), lost(turn)) else { return false };
            lost.prepare(parse.name, end);
            statements::keep_unsent(turn, message, parse, classified);
            turn.tell(encode::parse_complete);
            true
        }
        frontend::BIND => {
            let Ok(Some(bind)) = Bind::view(body, len) else { return false };
            let Some(end) = end_of_statement(turn, bind.statement) else { return false };
            let Some(lost) = lost(turn) else { return false };
            lost.bind(bind.portal, end);
            turn.tell(|out| encode::message(out, backend::BIND_COMPLETE, |_| {}));
            true
        }
        frontend::DESCRIBE => match StatementOrPortal::view(body, len) {
            Ok(Some(StatementOrPortal::Statement(name)))
                if end_of_statement(turn, name).is_some() =>
            {
                turn.tell(|out| {
                    encode::message(out, backend::PARAMETER_DESCRIPTION, |out| {
                        out.extend_from_slice(&[0, 0])
                    });
                    encode::message(out, backend::NO_DATA, |_| {});
                });
                true
            }
            Ok(Some(StatementOrPortal::Portal(name))) if end_of_portal(turn, name).is_some() => {
                turn.tell(|out| encode::message(out, backend::NO_DATA, |_| {}));
                true
            }
            _ => false,
        },
        frontend::CLOSE => {
            let Some(lost) = lost(turn) else { return false };
            if let Ok(Some(StatementOrPortal::Statement(name))) = StatementOrPortal::view(body, len)
            {
                lost.close(name);
                statements::forget_unsent(turn, name);
            }
            turn.tell(encode::close_complete);
            true
        }
        _ => false,
    }
}

/// Tells the error, or that the transaction has failed if it was told before.
fn tell(turn: &mut ClientTurn<'_>) {
    let error = turn.session.aborted.as_deref_mut().and_then(Aborted::take_error);
    match error {
        Some(body) => {
            if let Ok(fields) = error::ErrorFields::parse(&body) {
                turn.pool.stats_mut().error(fields.code);
            }
            turn.tell(|out| error::with_severity(&body, Severity::Error, out));
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
    turn.pool.stats_mut().error(report.code);
    turn.tell(|out| report.encode_error(out));
}

/// Ends the segment; with it the error, unless a transaction is still lost.
fn ready(turn: &mut ClientTurn<'_>) {
    let Some(aborted) = turn.session.aborted.take() else { return };
    // What the client has sent behind it belongs to the same pipeline.
    let goes_on = turn.at < turn.buf.len();
    let status = aborted.status(goes_on);
    turn.tell(|out| encode::ready_for_query(out, status));
    turn.session.phase = Phase::Open;
    turn.session.rerun = Rerun::No;
    turn.session.aborted = aborted.behind_segment(goes_on).map(Box::new);
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
    let is_lost = turn.session.aborted.as_deref().is_some_and(|it| it.as_lost().is_some());
    let classified = &read.classified;
    message.is_whole()
        && is_lost
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
    let lost = turn.session.aborted.as_deref()?.as_lost()?;
    lost.statement(name).or_else(|| {
        // An unnamed statement counts only if it was parsed since.
        let class = turn.class_of(name).filter(|_| !name.is_empty())?;
        class.not_plain().and_then(end_in)
    })
}

fn end_of_portal(turn: &ClientTurn<'_>, name: &[u8]) -> Option<End> {
    turn.session.aborted.as_deref()?.as_lost()?.portal(name)
}

/// Notes what a message of an unserved segment would do to the transaction block.
fn note_block(turn: &mut ClientTurn<'_>, message: Message<'_>, read: Option<&ReadText>) {
    if unserved(turn).is_none() {
        return;
    }
    let (body, len) = (message.body, message.body_len());
    let block = match message.header.tag {
        frontend::QUERY => read.map_or(Block::Same, |read| Block::of(&read.classified)),
        frontend::PARSE => {
            if let (Ok(Some(parse)), Some(read)) = (Parse::view(body, len), read) {
                note_parsed(turn, parse, read);
            }
            Block::Same
        }
        frontend::BIND => match Bind::view(body, len) {
            Ok(Some(bind)) => bound_block(turn, bind.statement),
            _ => Block::Same,
        },
        _ => Block::Same,
    };
    if let Some(unserved) = unserved(turn) {
        unserved.note(block);
    }
}

fn note_parsed(turn: &mut ClientTurn<'_>, parse: Parse<'_>, read: &ReadText) {
    if let Some(unserved) = unserved(turn) {
        unserved.prepare(parse.name, Block::of(&read.classified));
    }
}

/// What a statement of this name does, whether it was parsed in the segment or before.
fn bound_block(turn: &mut ClientTurn<'_>, name: &[u8]) -> Block {
    if unserved(turn).is_some_and(|unserved| unserved.begins(name)) {
        return Block::Opens;
    }
    let classified = turn.class_of(name).and_then(StatementClass::not_plain);
    classified.map_or(Block::Same, Block::of)
}

/// The transaction that is lost, if one is.
fn lost<'a>(turn: &'a mut ClientTurn<'_>) -> Option<&'a mut Lost> {
    turn.session.aborted.as_deref_mut().and_then(Aborted::as_lost_mut)
}

/// The pipeline that could not be served, if there is one.
fn unserved<'a>(turn: &'a mut ClientTurn<'_>) -> Option<&'a mut Unserved> {
    turn.session.aborted.as_deref_mut().and_then(Aborted::as_unserved_mut)
}
