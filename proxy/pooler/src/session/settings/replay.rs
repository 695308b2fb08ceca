//! The text that moves a server connection from one set of settings to another.

use std::cmp::Ordering;
use std::ops::Range;

use super::neutral::{
    CLIENT_ENCODING, ROLE, SESSION_AUTHORIZATION, is_identifier_list, is_identity,
    is_never_replayed,
};
use super::table::{Setting, SettingsId, SettingsTable, ValueEncoding};
use crate::sql::Scope;

/// The simple queries that bring a server connection to a client's settings, as ranges of the
/// buffer to which [`replay_sql`] has written them (without the NUL that ends a Query). Each is one
/// implicit transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// The server connection has these settings already: nothing is written or sent.
    Nothing,
    /// One query, which sets and resets everything.
    One(Range<usize>),
    /// Two queries: the first changes `client_encoding`, under which the server reads the second.
    /// Both may be sent at once.
    Two(Range<usize>, Range<usize>),
}

/// Appends to `out` the SET and RESET statements that bring a server connection from the settings
/// `from` to the settings `to`. They are sent outside a transaction, or inside the one whose end
/// undoes them. The session user and the role are reset first and set last, because a role may lack
/// the privilege. They are reset and set again even where they stay the same. Nothing is written
/// if the sets are equal. `table` stays as it is: the caller notes the server's new settings.
pub fn replay_sql(
    table: &SettingsTable,
    from: SettingsId,
    to: SettingsId,
    out: &mut Vec<u8>,
) -> Replay {
    let start = out.len();
    if from == to {
        return Replay::Nothing;
    }
    let (before, after) = (table.settings(from), table.settings(to));
    // A role may not be allowed to set what the login role set: it is taken off first and put on
    // last, even where it stays the same.
    for identity in [ROLE, SESSION_AUTHORIZATION] {
        if table.get(from, identity).is_some() {
            reset(identity, out);
        }
    }
    let recodes = table.get(from, CLIENT_ENCODING) != table.get(to, CLIENT_ENCODING);
    let waits = |setting: &Setting| recodes && setting.depends_on_encoding();
    let mut waiting = false;
    // Some settings exclude each other: those that go, go first.
    for_each_difference(before, after, |name, set| {
        if set.is_none() {
            reset(name, out);
        }
    });
    for_each_difference(before, after, |_, set| match set {
        None => {}
        Some(setting) if waits(setting) => waiting = true,
        Some(setting) => assign(setting, out),
    });
    let split = out.len();
    if waiting {
        for_each_difference(before, after, |_, set| {
            if let Some(setting) = set.filter(|setting| waits(setting)) {
                assign(setting, out);
            }
        });
    }
    // PostgreSQL drops the role when the session's user changes.
    for identity in [SESSION_AUTHORIZATION, ROLE] {
        if let Some(setting) = after.iter().find(|setting| *setting.name == *identity) {
            assign(setting, out);
        }
    }
    match (out.len() == start, waiting) {
        (true, _) => Replay::Nothing,
        (false, false) => Replay::One(start..out.len()),
        (false, true) => Replay::Two(start..split, split..out.len()),
    }
}

/// Calls `step` with each name that is not an identity and that differs, and the setting it has
/// afterwards.
fn for_each_difference<'s>(
    mut before: &'s [Setting],
    mut after: &'s [Setting],
    mut step: impl FnMut(&'s [u8], Option<&'s Setting>),
) {
    let mut report = |name: &'s [u8], set: Option<&'s Setting>| {
        if !is_identity(name) && !is_never_replayed(name) {
            step(name, set);
        }
    };
    loop {
        match (before.split_first(), after.split_first()) {
            (None, None) => return,
            (Some((old, rest)), None) => {
                report(&old.name, None);
                before = rest;
            }
            (None, Some((new, rest))) => {
                report(&new.name, Some(new));
                after = rest;
            }
            (Some((old, olds)), Some((new, news))) => match old.name.cmp(&new.name) {
                Ordering::Less => {
                    report(&old.name, None);
                    before = olds;
                }
                Ordering::Greater => {
                    report(&new.name, Some(new));
                    after = news;
                }
                Ordering::Equal => {
                    if old != new {
                        report(&new.name, Some(new));
                    }
                    (before, after) = (olds, news);
                }
            },
        }
    }
}

fn reset(name: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"RESET ");
    push_name(name, out);
    out.push(b';');
}

/// The rank of a setting among those that are set one by one, lower first: 0 for `client_encoding`,
/// on which the other values depend, 1 for most, then 2 for `session_authorization` and 3 for
/// `role`.
#[must_use]
pub fn order_of(name: &[u8]) -> u8 {
    match name {
        CLIENT_ENCODING => 0,
        SESSION_AUTHORIZATION => 2,
        ROLE => 3,
        _ => 1,
    }
}

/// Appends the SQL statement that sets one setting for the session, and a semicolon: SET, or for a
/// list such as `search_path` that is not well-formed, SELECT of `set_config`, which has a row. The
/// value is quoted so that it means the same whatever `standard_conforming_strings` is.
pub fn assign(setting: &Setting, out: &mut Vec<u8>) {
    assign_in(Scope::Session, setting, out);
}

/// Appends the SQL statement that sets one setting until the transaction ends, and a semicolon: SET
/// LOCAL, or SELECT of `set_config` where [`assign`] writes that. Outside a transaction block it
/// has no effect.
pub fn assign_local(setting: &Setting, out: &mut Vec<u8>) {
    assign_in(Scope::Local, setting, out);
}

/// Appends the statement (SET LOCAL … TO DEFAULT) that brings one setting to the server's default
/// until the transaction ends, and a semicolon. Used around the Parse of a statement under
/// older settings of the client's, for a setting that the client had not set.
pub fn reset_local(name: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"SET LOCAL ");
    push_name(name, out);
    out.extend_from_slice(b" TO DEFAULT;");
}

fn assign_in(scope: Scope, setting: &Setting, out: &mut Vec<u8>) {
    // SET would take one literal for one identifier.
    let is_list = is_identifier_list(&setting.name);
    let elements = if is_list { crate::sql::identifiers(&setting.value) } else { None };
    if is_list && elements.is_none() {
        out.extend_from_slice(b"SELECT pg_catalog.set_config(");
        push_literal(&setting.name, ValueEncoding::Client, out);
        out.push(b',');
        push_literal(&setting.value, setting.encoding, out);
        out.extend_from_slice(if scope == Scope::Local { b",true);" } else { b",false);" });
        return;
    }
    out.extend_from_slice(if scope == Scope::Local { b"SET LOCAL " } else { b"SET " });
    push_name(&setting.name, out);
    out.extend_from_slice(b" TO ");
    match elements {
        None => push_literal(&setting.value, setting.encoding, out),
        Some(elements) => {
            for (number, element) in elements.iter().enumerate() {
                out.extend_from_slice(if number > 0 { b"," } else { b"" });
                push_literal(element, setting.encoding, out);
            }
        }
    }
    out.push(b';');
}

/// `a.b` as `"a"."b"`.
fn push_name(name: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in name {
        match byte {
            b'.' => out.extend_from_slice(b"\".\""),
            b'"' => out.extend_from_slice(b"\"\""),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// A literal that means the same whatever `standard_conforming_strings` is. Bytes of the database's
/// encoding are written by their numbers, which the server takes as they are.
fn push_literal(value: &[u8], encoding: ValueEncoding, out: &mut Vec<u8>) {
    let numbered = encoding == ValueEncoding::Database;
    let escapes = numbered || value.contains(&b'\\');
    out.extend_from_slice(if escapes { b"E'" } else { b"'" });
    for &byte in value {
        match byte {
            b'\'' | b'\\' => out.extend_from_slice(&[byte, byte]),
            0x80.. if numbered => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'\'');
}
