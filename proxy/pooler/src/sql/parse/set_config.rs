//! `SELECT set_config(…)[, set_config(…) …]` and `SELECT pg_advisory_unlock_all()`, and nothing
//! else.

use super::Parsed;
use super::set::{Target, assigned};
use crate::sql::classified::Assignment;
use crate::sql::classified::Form;
use crate::sql::classified::Operand;
use crate::sql::classified::Scope;
use crate::sql::classified::ScopeOperand;
use crate::sql::classified::SetBy;
use crate::sql::cursor::{Cursor, Kind};
use crate::sql::value;

/// After SELECT.
pub(super) fn select(cursor: &mut Cursor<'_>) -> Option<Parsed> {
    let mut assignments = Vec::with_capacity(1);
    let mut by = SetBy::Function;
    let mut seeds = false;
    loop {
        let qualified = cursor.word("pg_catalog") && cursor.mark(b'.');
        if assignments.is_empty() && cursor.word("pg_advisory_unlock_all") {
            let calls = cursor.mark(b'(') && cursor.mark(b')') && cursor.is_at_end();
            return calls.then_some(Parsed::Form(Form::UnlockAll));
        }
        if !cursor.word("set_config") {
            return None;
        }
        if !qualified {
            by = SetBy::UnqualifiedFunction;
        }
        let assignment = call(cursor)?;
        match Target::of(&assignment.name) {
            Target::Seed => seeds = true,
            Target::Transaction => {}
            Target::Setting => assignments.push(assignment),
        }
        if cursor.word("as") {
            cursor.identifier()?;
        }
        if !cursor.mark(b',') {
            break;
        }
    }
    if !cursor.is_at_end() {
        return None;
    }
    match (seeds, assignments.is_empty()) {
        (false, false) => Some(Parsed::Form(Form::Set(assignments.into_boxed_slice(), by))),
        (false, true) => Some(Parsed::Form(Form::Plain)),
        (true, true) => Some(Parsed::Seed),
        // A seed beside settings is rare enough not to be followed.
        (true, false) => None,
    }
}

/// `(name, value, is_local)`.
fn call(cursor: &mut Cursor<'_>) -> Option<Assignment> {
    cursor.mark(b'(').then_some(())?;
    let name = match operand(cursor)? {
        Operand::Text(name) => Operand::Text(assigned(&name)?),
        name => name,
    };
    cursor.mark(b',').then_some(())?;
    let value = operand(cursor)?;
    cursor.mark(b',').then_some(())?;
    let scope = scope(cursor)?;
    cursor.mark(b')').then_some(Assignment { name, value, scope })
}

/// A literal, NULL or a parameter, perhaps cast to a type of text.
fn operand(cursor: &mut Cursor<'_>) -> Option<Operand> {
    cast(cursor, is_text, |cursor| {
        if cursor.word("null") {
            return Some(Operand::Null);
        }
        if let Some(number) = parameter(cursor) {
            return Some(Operand::Parameter(number));
        }
        Some(Operand::Text(value::literal(cursor)?.into_boxed_slice()))
    })
}

/// A boolean, written in any way, or a parameter.
fn scope(cursor: &mut Cursor<'_>) -> Option<ScopeOperand> {
    let is = |local| ScopeOperand::Is(if local { Scope::Local } else { Scope::Session });
    cast(cursor, is_boolean, |cursor| {
        if cursor.word("true") {
            return Some(is(true));
        }
        // set_config takes NULL for false.
        if cursor.word("false") || cursor.word("null") {
            return Some(is(false));
        }
        if let Some(number) = parameter(cursor) {
            return Some(ScopeOperand::Parameter(number));
        }
        Some(is(boolean(&value::literal(cursor)?)?))
    })
}

/// `x`, `x::type` or `CAST(x AS type)`.
fn cast<T>(
    cursor: &mut Cursor<'_>,
    is_type: impl Fn(&mut Cursor<'_>) -> bool,
    inner: impl Fn(&mut Cursor<'_>) -> Option<T>,
) -> Option<T> {
    if cursor.word("cast") {
        cursor.mark(b'(').then_some(())?;
        let value = inner(cursor)?;
        let cast = cursor.word("as") && is_type(cursor) && cursor.mark(b')');
        return cast.then_some(value);
    }
    let value = inner(cursor)?;
    if cursor.mark(b':') && !(cursor.mark(b':') && is_type(cursor)) {
        return None;
    }
    Some(value)
}

fn is_text(cursor: &mut Cursor<'_>) -> bool {
    cursor.word("text") || cursor.word("varchar") || cursor.two_words("character", "varying")
}

fn is_boolean(cursor: &mut Cursor<'_>) -> bool {
    cursor.word("boolean") || cursor.word("bool")
}

/// What PostgreSQL's `parse_bool` makes of a literal.
fn boolean(literal: &[u8]) -> Option<bool> {
    let word = literal.trim_ascii().to_ascii_lowercase();
    let starts = |whole: &[u8], least: usize| word.len() >= least && whole.starts_with(&word);
    match &word[..] {
        b"1" | b"on" => Some(true),
        b"0" => Some(false),
        _ if starts(b"true", 1) || starts(b"yes", 1) => Some(true),
        _ if starts(b"false", 1) || starts(b"no", 1) || starts(b"off", 2) => Some(false),
        _ => None,
    }
}

/// `$1`.
fn parameter(cursor: &mut Cursor<'_>) -> Option<u16> {
    let token = cursor.token()?;
    if token.kind != Kind::Number {
        return None;
    }
    let digits = cursor.text[token.span.clone()].strip_prefix(b"$")?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    cursor.at += 1;
    (number > 0).then_some(number)
}
