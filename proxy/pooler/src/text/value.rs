//! The values of SET, decoded to what `set_config` would take.

use super::parse::{Cursor, Kind};
use super::token::Literal;
use super::{Encoding, StandardStrings};
use crate::settings::is_identifier_list;

/// `a, 'b', 1`: the elements joined, quoted one by one where `name` is a list of identifiers.
pub(super) fn list(cursor: &mut Cursor<'_>, name: &[u8]) -> Option<Vec<u8>> {
    let quotes = is_identifier_list(name);
    let mut joined = Vec::new();
    loop {
        let is_number = matches!(cursor.kind_after(0), Some(Kind::Number | Kind::Mark(_)));
        let element = element(cursor)?;
        if quotes && !is_number {
            joined.extend_from_slice(&quote_element(&element));
        } else {
            joined.extend_from_slice(&element);
        }
        if !cursor.mark(b',') {
            return Some(joined);
        }
        joined.extend_from_slice(b", ");
    }
}

/// One element: a string or a number with its sign.
pub(super) fn element(cursor: &mut Cursor<'_>) -> Option<Vec<u8>> {
    let negative = cursor.mark(b'-');
    let signed = negative || cursor.mark(b'+');
    if cursor.kind_after(0) == Some(Kind::Number) {
        let number = number(cursor)?;
        return Some(if negative { [b"-", &number[..]].concat() } else { number });
    }
    if signed { None } else { string(cursor) }
}

/// An identifier, a keyword (`on`, `off`, `true`) or a literal.
pub(super) fn string(cursor: &mut Cursor<'_>) -> Option<Vec<u8>> {
    match cursor.kind_after(0)? {
        Kind::Literal(_) => literal(cursor),
        _ => {
            let name = cursor.identifier()?;
            is_certain(&name, cursor).then(|| name.into_owned())
        }
    }
}

/// A literal, decoded; `None` if what it means depends on more than its bytes.
pub(super) fn literal(cursor: &mut Cursor<'_>) -> Option<Vec<u8>> {
    let token = cursor.token()?;
    let Kind::Literal(kind) = token.kind else { return None };
    let bytes = &cursor.text[token.span.clone()];
    let value = match (kind, cursor.reading.strings) {
        (Literal::Plain, StandardStrings::On) => {
            super::parse::unquote(inside(bytes)?, b'\'').into()
        }
        (Literal::Plain, StandardStrings::Off) | (Literal::Escape, _) => unescape(inside(bytes)?)?,
        (Literal::Dollar, _) => {
            let tag = bytes.iter().skip(1).position(|&b| b == b'$')? + 2;
            bytes[tag..bytes.len() - tag].to_vec()
        }
        (Literal::Bits | Literal::Unicode, _) => return None,
    };
    if !is_certain(&value, cursor) {
        return None;
    }
    cursor.at += 1;
    Some(value)
}

/// `element` as PostgreSQL writes an identifier: in quotes where they are needed.
pub(super) fn quote_element(element: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
    let starts = element.first().is_some_and(|byte| plain(byte) && !byte.is_ascii_digit());
    if starts && element.iter().all(plain) && !super::reserved::is_quoted(element) {
        return element.to_vec();
    }
    let mut quoted = Vec::with_capacity(element.len() + 2);
    quoted.push(b'"');
    for &byte in element {
        quoted.push(byte);
        if byte == b'"' {
            quoted.push(byte);
        }
    }
    quoted.push(b'"');
    quoted
}

/// Between the quotes of `'…'`, `E'…'` or `N'…'`.
fn inside(bytes: &[u8]) -> Option<&[u8]> {
    let open = bytes.iter().position(|&b| b == b'\'')?;
    bytes[open + 1..].strip_suffix(b"'")
}

/// Digits, perhaps with a point and an exponent without a sign. PostgreSQL would read leading
/// zeros in a string as octal, but not in a number.
fn number(cursor: &mut Cursor<'_>) -> Option<Vec<u8>> {
    let span = cursor.token()?.span.clone();
    cursor.at += 1;
    let digits = &cursor.text[span.clone()];
    if !digits.iter().all(|b| b.is_ascii_digit() || *b == b'.') {
        return None;
    }
    let is_integer = !digits.contains(&b'.');
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    let skip = if is_integer { zeros.min(digits.len() - 1) } else { 0 };
    let mut number = digits[skip..].to_vec();
    if let Some(next) = cursor.token()
        && next.span.start == span.end
    {
        // 1e5, where 0x1f and 1_000 are for newer servers to understand.
        let tail = &cursor.text[next.span.clone()];
        let (first, rest) = tail.split_first()?;
        if !first.eq_ignore_ascii_case(&b'e') || rest.is_empty() {
            return (next.kind == Kind::Mark(b',')).then_some(number);
        }
        if !rest.iter().all(u8::is_ascii_digit) {
            return None;
        }
        number.extend_from_slice(tail);
        cursor.at += 1;
    }
    Some(number)
}

fn unescape(content: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(content.len());
    let mut bytes = content.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' => {
                bytes.next();
                value.push(b'\'');
            }
            b'\\' => value.push(match bytes.next()? {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                // Numbered bytes and characters are in the server's encoding.
                b'0'..=b'7' | b'x' | b'u' | b'U' => return None,
                plain => plain,
            }),
            _ => value.push(byte),
        }
    }
    Some(value)
}

/// Whether a value's bytes can be written down again whatever they are.
fn is_certain(value: &[u8], cursor: &Cursor<'_>) -> bool {
    cursor.reading.encoding == Encoding::AsciiSafe || value.is_ascii()
}
