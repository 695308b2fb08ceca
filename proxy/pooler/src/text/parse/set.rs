//! SET and RESET in all their spellings, and `SELECT set_config(…)` of literals.

use std::borrow::Cow;

use super::{Cursor, Kind, lower};
use crate::text::value;
use crate::text::{Characteristics, Scope, Statement};

/// After SET.
pub(super) fn set<'t>(cursor: &mut Cursor<'t>) -> Option<Statement<'t>> {
    let scope = scope(cursor);
    let special = special(cursor, scope);
    let statement = match special {
        Some(statement) => statement,
        None => generic(cursor, scope)?,
    };
    cursor.is_at_end().then_some(statement)
}

/// After RESET.
pub(super) fn reset<'t>(cursor: &mut Cursor<'t>) -> Option<Statement<'t>> {
    let statement = if cursor.word("all") {
        Statement::ResetAll
    } else if cursor.peek_word("time") && cursor.is_word_after(1, "zone") {
        cursor.at += 2;
        reset_of(b"timezone", Scope::Session)
    } else if cursor.peek_word("session") && cursor.is_word_after(1, "authorization") {
        cursor.at += 2;
        reset_of(b"session_authorization", Scope::Session)
    } else if cursor.peek_word("transaction") && cursor.is_word_after(1, "isolation") {
        cursor.at += 3;
        Statement::SetTransaction
    } else {
        let name = setting_name(cursor)?;
        if is_of_the_transaction(&name) {
            Statement::SetTransaction
        } else {
            Statement::Reset { name, scope: Scope::Session }
        }
    };
    cursor.is_at_end().then_some(statement)
}

/// After SELECT: `[pg_catalog.]set_config('name', 'value', true|false)` or
/// `pg_advisory_unlock_all()`, and nothing else.
pub(super) fn select<'t>(cursor: &mut Cursor<'t>) -> Option<Statement<'t>> {
    if cursor.word("pg_catalog") && !cursor.mark(b'.') {
        return None;
    }
    if cursor.word("pg_advisory_unlock_all") {
        let calls = cursor.mark(b'(') && cursor.mark(b')') && cursor.is_at_end();
        return calls.then_some(Statement::UnlockAll);
    }
    if !cursor.word("set_config") || !cursor.mark(b'(') {
        return None;
    }
    let name = value::literal(cursor)?;
    cursor.mark(b',').then_some(())?;
    let value = value::literal(cursor)?;
    cursor.mark(b',').then_some(())?;
    let scope = if cursor.word("true") {
        Scope::Local
    } else {
        cursor.word("false").then_some(Scope::Session)?
    };
    if !cursor.mark(b')') || !cursor.is_at_end() {
        return None;
    }
    let name = Cow::Owned(name.to_ascii_lowercase());
    assignment(name, value, scope)
}

fn scope(cursor: &mut Cursor<'_>) -> Scope {
    // SET local.x and SET session = name settings.
    let names_setting =
        matches!(cursor.kind_after(1), Some(Kind::Mark(_))) || cursor.is_word_after(1, "to");
    if names_setting {
        Scope::Session
    } else if cursor.word("local") {
        Scope::Local
    } else {
        // SET SESSION AUTHORIZATION and CHARACTERISTICS are looked for after it as well.
        cursor.word("session");
        Scope::Session
    }
}

/// The spellings without `name =` or `name TO`.
fn special<'t>(cursor: &mut Cursor<'t>, scope: Scope) -> Option<Statement<'t>> {
    let names_setting =
        matches!(cursor.kind_after(1), Some(Kind::Mark(_))) || cursor.is_word_after(1, "to");
    if names_setting {
        return None;
    }
    // SET SESSION SESSION AUTHORIZATION is PostgreSQL's grammar too.
    if cursor.peek_word("session") && cursor.is_word_after(1, "authorization") {
        cursor.at += 1;
    }
    if cursor.word("authorization") {
        return identity(cursor, b"session_authorization", scope);
    }
    if cursor.word("characteristics") {
        return characteristics(cursor);
    }
    if cursor.peek_word("transaction") || cursor.peek_word("constraints") {
        cursor.at = cursor.tokens.len();
        return Some(Statement::SetTransaction);
    }
    if cursor.peek_word("time") && cursor.is_word_after(1, "zone") {
        cursor.at += 2;
        return time_zone(cursor, scope);
    }
    if cursor.word("names") {
        if cursor.is_at_end() || cursor.word("default") {
            return Some(reset_of(b"client_encoding", scope));
        }
        let value = value::literal(cursor)?;
        return assignment(Cow::Borrowed(b"client_encoding"), value, scope);
    }
    if cursor.word("schema") {
        let value = value::quote_element(&value::literal(cursor)?);
        return assignment(Cow::Borrowed(b"search_path"), value, scope);
    }
    if cursor.word("role") {
        return identity(cursor, b"role", scope);
    }
    if cursor.peek_word("xml") && cursor.is_word_after(1, "option") {
        cursor.at += 2;
        let value = ["document", "content"].into_iter().find(|word| cursor.word(word))?;
        return assignment(Cow::Borrowed(b"xmloption"), value.as_bytes().to_vec(), scope);
    }
    None
}

fn generic<'t>(cursor: &mut Cursor<'t>, scope: Scope) -> Option<Statement<'t>> {
    let name = setting_name(cursor)?;
    if !cursor.word("to") && !cursor.mark(b'=') {
        return None;
    }
    if is_of_the_transaction(&name) {
        cursor.at = cursor.tokens.len();
        return Some(Statement::SetTransaction);
    }
    if cursor.word("default") {
        return Some(Statement::Reset { name, scope });
    }
    let value = value::list(cursor, &name)?;
    assignment(name, value, scope)
}

fn assignment<'t>(name: Cow<'t, [u8]>, value: Vec<u8>, scope: Scope) -> Option<Statement<'t>> {
    if is_of_the_transaction(&name) {
        return Some(Statement::SetTransaction);
    }
    // The random numbers that follow a seed are state of the server process: no replay gives them.
    (*name != *b"seed").then_some(Statement::Set { name, value, scope })
}

/// The value of SET ROLE and SET SESSION AUTHORIZATION.
fn identity<'t>(
    cursor: &mut Cursor<'t>,
    name: &'static [u8],
    scope: Scope,
) -> Option<Statement<'t>> {
    if name != b"role" && cursor.word("default") {
        return Some(reset_of(name, scope));
    }
    let value = value::string(cursor)?;
    assignment(Cow::Borrowed(name), value, scope)
}

fn time_zone<'t>(cursor: &mut Cursor<'t>, scope: Scope) -> Option<Statement<'t>> {
    const NAME: &[u8] = b"timezone";
    if cursor.word("local") || cursor.word("default") {
        return Some(reset_of(NAME, scope));
    }
    if cursor.word("interval") {
        let interval = value::literal(cursor)?;
        // Only hh:mm means the same with and without a field after it.
        if !interval.contains(&b':') || interval.contains(&b'\'') {
            return None;
        }
        if cursor.word("hour") && !(cursor.word("to") && cursor.word("minute")) {
            return None;
        }
        let value = [b"INTERVAL '", &interval[..], b"'"].concat();
        return assignment(Cow::Borrowed(NAME), value, scope);
    }
    let value = value::element(cursor)?;
    assignment(Cow::Borrowed(NAME), value, scope)
}

fn characteristics<'t>(cursor: &mut Cursor<'t>) -> Option<Statement<'t>> {
    if !cursor.word("as") || !cursor.word("transaction") {
        return None;
    }
    let mut modes = Characteristics::default();
    while !cursor.is_at_end() {
        cursor.mark(b',');
        if cursor.word("isolation") {
            cursor.word("level").then_some(())?;
            modes.isolation = Some(isolation(cursor)?);
        } else if cursor.word("read") {
            let only = cursor.word("only");
            if !only && !cursor.word("write") {
                return None;
            }
            modes.read_only = Some(if only { "on" } else { "off" });
        } else {
            let not = cursor.word("not");
            cursor.word("deferrable").then_some(())?;
            modes.deferrable = Some(if not { "off" } else { "on" });
        }
    }
    (modes != Characteristics::default()).then_some(Statement::SetCharacteristics(modes))
}

fn isolation(cursor: &mut Cursor<'_>) -> Option<&'static str> {
    if cursor.word("serializable") {
        return Some("serializable");
    }
    if cursor.word("repeatable") {
        return cursor.word("read").then_some("repeatable read");
    }
    cursor.word("read").then_some(())?;
    if cursor.word("committed") {
        return Some("read committed");
    }
    cursor.word("uncommitted").then_some("read uncommitted")
}

/// The name of a setting, perhaps with dots. Such names do not depend on case, quoted or not.
fn setting_name<'t>(cursor: &mut Cursor<'t>) -> Option<Cow<'t, [u8]>> {
    let mut name = cursor.identifier()?;
    while cursor.mark(b'.') {
        let joined = name.to_mut();
        joined.push(b'.');
        joined.extend_from_slice(&cursor.identifier()?);
    }
    Some(match name {
        Cow::Borrowed(name) => lower(name),
        Cow::Owned(name) => Cow::Owned(name.to_ascii_lowercase()),
    })
}

fn is_of_the_transaction(name: &[u8]) -> bool {
    matches!(name, b"transaction_isolation" | b"transaction_read_only" | b"transaction_deferrable")
}

fn reset_of(name: &'static [u8], scope: Scope) -> Statement<'static> {
    Statement::Reset { name: Cow::Borrowed(name), scope }
}
