//! SET and RESET in all their spellings.

use std::borrow::Cow;

use super::Parsed;
use crate::sql::classified::Assignment;
use crate::sql::classified::Bytes;
use crate::sql::classified::Form;
use crate::sql::classified::Operand;
use crate::sql::classified::Scope;
use crate::sql::classified::ScopeOperand;
use crate::sql::classified::SetBy;
use crate::sql::cursor::{Cursor, Kind, lower};
use crate::sql::value;

/// What setting a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Setting,
    /// It ends with the transaction.
    Transaction,
    Seed,
}

impl Target {
    pub(super) fn of(name: &Operand) -> Target {
        match name {
            Operand::Text(name) => Target::of_name(name),
            _ => Target::Setting,
        }
    }

    fn of_name(name: &[u8]) -> Target {
        match name {
            b"transaction_isolation" | b"transaction_read_only" | b"transaction_deferrable" => {
                Target::Transaction
            }
            b"seed" => Target::Seed,
            _ => Target::Setting,
        }
    }
}

/// A setting's name that is written as a literal; `None` if it is not ASCII, so that what the
/// server makes of it is not known.
pub(super) fn assigned(name: &[u8]) -> Option<Bytes> {
    name.is_ascii().then(|| name.to_ascii_lowercase().into_boxed_slice())
}

/// After SET.
pub(super) fn set(cursor: &mut Cursor<'_>) -> Option<Parsed> {
    let scope = scope(cursor);
    let parsed = match special(cursor, scope) {
        Some(parsed) => parsed,
        None => generic(cursor, scope)?,
    };
    cursor.is_at_end().then_some(parsed)
}

/// After RESET.
pub(super) fn reset(cursor: &mut Cursor<'_>) -> Option<Parsed> {
    let parsed = if cursor.word("all") {
        Parsed::Form(Form::ResetAll)
    } else if cursor.two_words("time", "zone") {
        reset_of(b"timezone", Scope::Session)
    } else if cursor.two_words("session", "authorization") {
        reset_of(b"session_authorization", Scope::Session)
    } else if cursor.two_words("transaction", "isolation") {
        cursor.word("level").then_some(())?;
        Parsed::Form(Form::Plain)
    } else {
        let name = setting_name(cursor)?;
        reset_of(&name, Scope::Session)
    };
    cursor.is_at_end().then_some(parsed)
}

fn scope(cursor: &mut Cursor<'_>) -> Scope {
    // SET local.x and SET session = name settings.
    if names_setting(cursor) {
        Scope::Session
    } else if cursor.word("local") {
        Scope::Local
    } else {
        // SET SESSION AUTHORIZATION and CHARACTERISTICS are looked for after it as well.
        cursor.word("session");
        Scope::Session
    }
}

fn names_setting(cursor: &Cursor<'_>) -> bool {
    matches!(cursor.kind_after(1), Some(Kind::Mark(_))) || cursor.is_word_after(1, "to")
}

/// The spellings without `name =` or `name TO`.
fn special(cursor: &mut Cursor<'_>, scope: Scope) -> Option<Parsed> {
    if names_setting(cursor) {
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
        cursor.skip_to_end();
        return Some(Parsed::Form(Form::Plain));
    }
    if cursor.two_words("time", "zone") {
        return time_zone(cursor, scope);
    }
    if cursor.word("names") {
        if cursor.is_at_end() || cursor.word("default") {
            return Some(reset_of(b"client_encoding", scope));
        }
        return Some(set_to(b"client_encoding", value::literal(cursor)?, scope));
    }
    if cursor.word("schema") {
        let value = value::quote_element(&value::literal(cursor)?);
        return Some(set_to(b"search_path", value, scope));
    }
    if cursor.word("role") {
        return identity(cursor, b"role", scope);
    }
    if cursor.two_words("xml", "option") {
        let value = ["document", "content"].into_iter().find(|word| cursor.word(word))?;
        return Some(set_to(b"xmloption", value.as_bytes().to_vec(), scope));
    }
    None
}

fn generic(cursor: &mut Cursor<'_>, scope: Scope) -> Option<Parsed> {
    let name = setting_name(cursor)?;
    if !cursor.word("to") && !cursor.mark(b'=') {
        return None;
    }
    if Target::of_name(&name) == Target::Transaction {
        cursor.skip_to_end();
        return Some(Parsed::Form(Form::Plain));
    }
    if cursor.word("default") {
        return Some(reset_of(&name, scope));
    }
    let value = value::list(cursor, &name)?;
    Some(set_to(&name, value, scope))
}

fn set_to(name: &[u8], value: Vec<u8>, scope: Scope) -> Parsed {
    if Target::of_name(name) == Target::Seed {
        return Parsed::Seed;
    }
    Parsed::Form(Form::Set(Box::new([assignment(name, value, scope)]), SetBy::Statement))
}

fn assignment(name: &[u8], value: Vec<u8>, scope: Scope) -> Assignment {
    Assignment {
        name: Operand::Text(name.into()),
        value: Operand::Text(value.into_boxed_slice()),
        scope: ScopeOperand::Is(scope),
    }
}

fn reset_of(name: &[u8], scope: Scope) -> Parsed {
    match Target::of_name(name) {
        Target::Setting => Parsed::Form(Form::Reset(name.into(), scope)),
        Target::Transaction => Parsed::Form(Form::Plain),
        Target::Seed => Parsed::Seed,
    }
}

/// The value of SET ROLE and SET SESSION AUTHORIZATION.
fn identity(cursor: &mut Cursor<'_>, name: &[u8], scope: Scope) -> Option<Parsed> {
    if name != b"role" && cursor.word("default") {
        return Some(reset_of(name, scope));
    }
    Some(set_to(name, value::string(cursor)?, scope))
}

fn time_zone(cursor: &mut Cursor<'_>, scope: Scope) -> Option<Parsed> {
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
        if cursor.word("hour") && !cursor.two_words("to", "minute") {
            return None;
        }
        let value = [b"INTERVAL '", &interval[..], b"'"].concat();
        return Some(set_to(NAME, value, scope));
    }
    Some(set_to(NAME, value::element(cursor)?, scope))
}

/// SET SESSION CHARACTERISTICS AS TRANSACTION sets the defaults of transactions to come.
fn characteristics(cursor: &mut Cursor<'_>) -> Option<Parsed> {
    if !cursor.two_words("as", "transaction") {
        return None;
    }
    let mut modes: Vec<Assignment> = Vec::new();
    while !cursor.is_at_end() {
        cursor.mark(b',');
        let (name, value): (&[u8], &str) = if cursor.two_words("isolation", "level") {
            (b"default_transaction_isolation", isolation(cursor)?)
        } else if cursor.two_words("read", "only") {
            (b"default_transaction_read_only", "on")
        } else if cursor.two_words("read", "write") {
            (b"default_transaction_read_only", "off")
        } else if cursor.two_words("not", "deferrable") {
            (b"default_transaction_deferrable", "off")
        } else {
            cursor.word("deferrable").then_some(())?;
            (b"default_transaction_deferrable", "on")
        };
        // PostgreSQL applies them in order: the last of a name holds.
        modes.retain(|mode| mode.name != Operand::Text(name.into()));
        modes.push(assignment(name, value.as_bytes().to_vec(), Scope::Session));
    }
    if modes.is_empty() {
        return None;
    }
    Some(Parsed::Form(Form::Set(modes.into_boxed_slice(), SetBy::Statement)))
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
