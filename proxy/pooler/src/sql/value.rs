//! The values of SET, decoded to what `set_config` would take.

use std::ops::RangeInclusive;

use super::cursor::{Cursor, Kind, unquote};
use super::encoding::{Encoding, StandardStrings};
use super::token::Literal;
use crate::session::settings::neutral::is_identifier_list;

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
        (Literal::Plain, StandardStrings::On) => unquote(inside(bytes)?, b'\'').into(),
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

/// The identifiers of a list such as `"$user", public`, in its order and without quotes, if a SET
/// of them makes the very same list (its spaces and quotes too). `None` otherwise, and for a list
/// with bytes from 0x80, which another encoding reads otherwise: `set_config` then has to set the
/// list as a whole.
pub(crate) fn identifiers(list: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut elements = vec![Vec::new()];
    let mut is_quoted = false;
    for &byte in list {
        match byte {
            b',' if !is_quoted => elements.push(Vec::new()),
            _ => {
                is_quoted ^= byte == b'"';
                elements.last_mut()?.push(byte);
            }
        }
    }
    let unquoted = |element: &Vec<u8>| {
        let element = element.trim_ascii();
        let quoted = element.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        quoted.map_or_else(|| element.to_vec(), |quoted| unquote(quoted, b'"').into_owned())
    };
    let elements: Vec<Vec<u8>> = elements.iter().map(unquoted).collect();
    let written: Vec<_> = elements.iter().map(|element| quote_element(element)).collect();
    (list.is_ascii() && written.join(&b", "[..]) == list).then_some(elements)
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

/// The content of `E'…'`; `None` where a number stands for what is not ASCII, since it is in the
/// server's encoding.
fn unescape(content: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(content.len());
    let mut at = 0;
    while let Some(&byte) = content.get(at) {
        at += 1;
        if byte != b'\\' {
            // A quote is doubled.
            at += usize::from(byte == b'\'');
            value.push(byte);
            continue;
        }
        let escape = *content.get(at)?;
        at += 1;
        let rest = &content[at..];
        let (decoded, digits) = match escape {
            b'b' => (8, 0),
            b'f' => (12, 0),
            b'n' => (b'\n', 0),
            b'r' => (b'\r', 0),
            b't' => (b'\t', 0),
            // A vertical tab to newer servers only.
            b'v' => return None,
            b'0'..=b'7' => {
                at -= 1;
                numbered(&content[at..], 1..=3, 8)?
            }
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => numbered(rest, 1..=2, 16)?,
            b'u' => numbered(rest, 4..=4, 16)?,
            b'U' => numbered(rest, 8..=8, 16)?,
            plain => (plain, 0),
        };
        at += digits;
        value.push(decoded);
    }
    Some(value)
}

/// The ASCII character of a number at the start of `bytes`, and how many digits it has.
fn numbered(bytes: &[u8], lengths: RangeInclusive<usize>, radix: u32) -> Option<(u8, usize)> {
    let is_digit = |byte: &&u8| char::from(**byte).is_digit(radix);
    let length = bytes.iter().take(*lengths.end()).take_while(is_digit).count();
    if !lengths.contains(&length) {
        return None;
    }
    let digits = std::str::from_utf8(&bytes[..length]).ok()?;
    let number = u32::from_str_radix(digits, radix).ok()?;
    // Three octal digits are cut to a byte.
    let number = if radix == 8 { number & 0xff } else { number };
    let byte = u8::try_from(number).ok().filter(|byte| byte.is_ascii() && *byte != 0)?;
    Some((byte, length))
}

/// Whether a value's bytes can be written down again whatever they are.
fn is_certain(value: &[u8], cursor: &Cursor<'_>) -> bool {
    let is_safe = matches!(cursor.reading.encoding, Encoding::AsciiSafe | Encoding::Utf8);
    is_safe || value.is_ascii()
}
