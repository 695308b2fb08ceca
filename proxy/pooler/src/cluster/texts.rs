//! What one text does, as far as it decides whether a replica may serve it.

use pgimbal_reads::{Decision, Reason};

use crate::cluster::decided::Text;
use crate::cluster::parsing::Parsing;
use crate::cluster::reads::Decided;
use crate::pool::Pool;
use crate::session::routing::Why;
use crate::sql::{
    self, BlockAccess, BlockIsolation, BlockMode, Calls, Chain, Classified, Form, Reading, Readings,
};

/// The texts of a session of `pool`, whose transactions begin as `defaults` says.
pub(crate) struct Texts<'a> {
    pub(crate) pool: &'a mut Pool,
    pub(crate) parsing: &'a mut Parsing,
    pub(crate) readings: Readings,
    pub(crate) defaults: BlockMode,
}

impl Texts<'_> {
    /// What a text does outside of a transaction block.
    pub(crate) fn does(&mut self, text: &[u8]) -> Text {
        let reading = match by_beginning(text, self.readings, self.defaults) {
            Ok(does) => return does,
            Err(reading) => reading,
        };
        match self.pool.decide_read(text, reading, self.parsing) {
            Decided::Known(Decision::Read) => Text::Reads,
            _ if names_set_config(text) => Text::Not(Why::Setting),
            Decided::Known(Decision::NotRead(reason)) => Text::Not(Why::NotRead(reason.as_str())),
            Decided::Soon => Text::Not(Why::BeingParsed),
            Decided::AnotherTime => Text::Not(Why::NotParsed),
        }
    }
}

/// What a text does outside of a transaction block, if its beginning or the session says it.
///
/// # Errors
/// How the text is read, where the grammar has to decide.
pub(super) fn by_beginning(
    text: &[u8],
    readings: Readings,
    defaults: BlockMode,
) -> Result<Text, Reading> {
    let begin = sql::without_comments(text);
    let word = begin.split(|byte| !byte.is_ascii_alphabetic()).next().unwrap_or_default();
    let is = |words: &[&[u8]]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    if is(&[b"begin", b"start"]) {
        return Ok(begins(text, readings, defaults));
    }
    if is(&[b"commit", b"end", b"rollback", b"abort"]) {
        return Ok(match classified(text, readings).only() {
            Some(Form::Commit(Chain::No) | Form::Rollback(Chain::No)) => Text::Ends,
            _ => Text::Not(Why::NotRead(Reason::Statement.as_str())),
        });
    }
    if is(&[b"set", b"reset"]) {
        return Ok(Text::Not(Why::Setting));
    }
    let Readings::One(reading) = readings else {
        return Ok(Text::Not(Why::NotRead(Reason::Unfollowed.as_str())));
    };
    if defaults.isolation == BlockIsolation::Serializable {
        return Ok(Text::Not(Why::Serializable));
    }
    Err(reading)
}

/// What a text does that begins with BEGIN or START TRANSACTION.
fn begins(text: &[u8], readings: Readings, defaults: BlockMode) -> Text {
    let Readings::One(reading) = readings else { return Text::Not(Why::Transaction) };
    let Some(mode) = sql::block_mode(text, reading) else {
        return Text::Not(Why::Transaction);
    };
    let access = match mode.access {
        BlockAccess::Default => defaults.access,
        access => access,
    };
    let isolation = match mode.isolation {
        BlockIsolation::Default => defaults.isolation,
        isolation => isolation,
    };
    if access != BlockAccess::ReadOnly {
        return Text::Not(Why::Transaction);
    }
    if isolation == BlockIsolation::Serializable {
        return Text::Not(Why::Serializable);
    }
    let classified = classified(text, readings);
    if classified.only() == Some(&Form::Begin) {
        return Text::Begins;
    }
    if names_set(text) {
        // It may say READ WRITE after all.
        return Text::Not(Why::Setting);
    }
    let forms: Vec<&Form> = classified.steps().iter().map(|step| &step.form).collect();
    let [Form::Begin, then @ ..] = &forms[..] else {
        return Text::Not(Why::Transaction);
    };
    // Nothing may follow the end of the block.
    match then.iter().position(|form| ends_or_begins(form)) {
        None => Text::Begins,
        Some(end) if end + 1 == then.len() && ends(then[end]) => Text::Block,
        Some(_) => Text::Not(Why::Transaction),
    }
}

fn classified(text: &[u8], readings: Readings) -> Classified {
    sql::classify(text, readings, Calls::Text)
}

/// Whether a text may have a SET, wherever.
pub(crate) fn names_set(text: &[u8]) -> bool {
    text.windows(3).any(|word| word.eq_ignore_ascii_case(b"set"))
}

/// Whether a text names, wherever, the function that sets a setting.
fn names_set_config(text: &[u8]) -> bool {
    const NAME: &[u8] = b"set_config";
    text.windows(NAME.len()).any(|word| word.eq_ignore_ascii_case(NAME))
}

fn ends_or_begins(form: &Form) -> bool {
    let is = matches!(form, Form::Begin | Form::PrepareTransaction);
    is || matches!(form, Form::Commit(_) | Form::Rollback(_))
}

fn ends(form: &Form) -> bool {
    matches!(form, Form::Commit(Chain::No) | Form::Rollback(Chain::No))
}
