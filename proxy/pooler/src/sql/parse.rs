//! The exact form of a statement that matters. Whatever is not surely one of them is none: the
//! server will say what it is.

use super::classified::{Bytes, Chain, Form};
use super::cursor::{Cursor, Kind};
use super::encoding::Reading;
use super::keyword::Lead;

mod begin;
mod set;
mod set_config;

pub use begin::{BlockAccess, BlockIsolation, BlockMode, block_mode};

/// What a statement was found to be.
#[derive(Debug)]
pub(super) enum Parsed {
    /// A form that is followed.
    Form(Form),
    /// It sets the seed of `random()`: the numbers that follow are state of the server process,
    /// which no replay gives.
    Seed,
    /// It leaves nothing, but is not plain.
    Nothing,
}

/// The form of the statement `text`, which is `whole` or only the beginning of a longer one.
pub(super) fn statement(lead: Lead, text: &[u8], whole: bool, reading: Reading) -> Option<Parsed> {
    let mut cursor = Cursor::new(text, whole, reading);
    cursor.token()?;
    cursor.at += 1;
    let cursor = &mut cursor;
    let form = match lead {
        Lead::Set => return set::set(cursor),
        Lead::Reset => return set::reset(cursor),
        Lead::Select => return set_config::select(cursor),
        // What follows the name does not matter.
        Lead::Prepare => return prepare(cursor),
        Lead::Execute => return Some(Parsed::Form(Form::Execute(name(cursor)?))),
        Lead::Commit | Lead::End => end(cursor, Form::Commit)?,
        Lead::Rollback | Lead::Abort => rollback(cursor)?,
        Lead::Savepoint => Parsed::Form(Form::Savepoint(name(cursor)?)),
        Lead::Release => {
            cursor.skip_if_more("savepoint");
            Parsed::Form(Form::Release(name(cursor)?))
        }
        Lead::Deallocate => deallocate(cursor)?,
        Lead::Discard => discard(cursor)?,
        Lead::Listen => Parsed::Form(Form::Listen(name(cursor)?)),
        Lead::Unlisten if cursor.mark(b'*') => Parsed::Form(Form::UnlistenAll),
        Lead::Unlisten => Parsed::Form(Form::Unlisten(name(cursor)?)),
        _ => return None,
    };
    cursor.is_at_end().then_some(form)
}

fn name(cursor: &mut Cursor<'_>) -> Option<Bytes> {
    Some(cursor.identifier()?.into_owned().into_boxed_slice())
}

fn prepare(cursor: &mut Cursor<'_>) -> Option<Parsed> {
    if cursor.peek_word("transaction") && matches!(cursor.kind_after(1), Some(Kind::Literal(_))) {
        return Some(Parsed::Form(Form::PrepareTransaction));
    }
    let name = name(cursor)?;
    // PREPARE transaction 'id' whose literal lies beyond what was kept.
    if *name == *b"transaction" && cursor.token().is_none() {
        return None;
    }
    Some(Parsed::Form(Form::Prepare(name)))
}

fn end(cursor: &mut Cursor<'_>, form: impl FnOnce(Chain) -> Form) -> Option<Parsed> {
    if cursor.word("prepared") {
        cursor.at += 1;
        return Some(Parsed::Nothing);
    }
    let _ = cursor.word("work") || cursor.word("transaction");
    if !cursor.word("and") {
        return Some(Parsed::Form(form(Chain::No)));
    }
    let chain = if cursor.word("no") { Chain::No } else { Chain::Yes };
    cursor.word("chain").then(|| Parsed::Form(form(chain)))
}

fn rollback(cursor: &mut Cursor<'_>) -> Option<Parsed> {
    let start = cursor.at;
    let _ = cursor.word("work") || cursor.word("transaction");
    if cursor.word("to") {
        cursor.skip_if_more("savepoint");
        return Some(Parsed::Form(Form::RollbackTo(name(cursor)?)));
    }
    cursor.at = start;
    end(cursor, Form::Rollback)
}

fn deallocate(cursor: &mut Cursor<'_>) -> Option<Parsed> {
    cursor.skip_if_more("prepare");
    Some(Parsed::Form(if cursor.word("all") {
        Form::DeallocateAll
    } else {
        Form::Deallocate(name(cursor)?)
    }))
}

fn discard(cursor: &mut Cursor<'_>) -> Option<Parsed> {
    if ["plans", "sequences", "temp", "temporary"].into_iter().any(|part| cursor.word(part)) {
        return Some(Parsed::Form(Form::Discard));
    }
    cursor.word("all").then_some(Parsed::Form(Form::DiscardAll))
}
