//! Borrowed views of the requests of the extended query protocol: Parse, Bind, Describe, Close and
//! Execute.
//!
//! Each view works on a prefix of the body, because a message above 16 KiB is processed before it
//! has arrived whole. `Ok(None)` means that the names are not complete yet. Nothing is allocated.
//! Source: "Message Formats" of the protocol's chapter.

use thiserror::Error;

/// A message body whose fields contradict its length; PostgreSQL reports it as 08P01 "invalid
/// message format".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("invalid message format")]
pub struct Malformed;

/// Length in bytes up to which PostgreSQL compares the names of prepared statements and portals:
/// `NAMEDATALEN` (64) without its terminator. The cut may fall inside a multi-byte character.
pub const NAME_BYTES: usize = 63;

/// A view of a Parse: the statement's name, and as much of its text and parameter types as has
/// arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Statement name, cut to [`NAME_BYTES`]; empty for the unnamed statement.
    pub name: &'a [u8],
    /// Offset in the body, in bytes, at which the statement text begins.
    pub rest: usize,
    /// Statement text without its terminator, or as much of the text as `prefix` held.
    pub text: &'a [u8],
    /// The parameter types as sent: a count of 2 bytes, then 4 bytes for each type OID. `None`
    /// until the whole body has arrived.
    pub param_types: Option<&'a [u8]>,
}

impl<'a> Parse<'a> {
    /// Reads a Parse from `prefix`, the first bytes of a body of `body_len` bytes. `Ok(None)` until
    /// the name is complete.
    ///
    /// # Errors
    /// [`Malformed`] when a terminator is missing in a complete body, or the parameter types do not
    /// fill the rest of the body. Both are found only once the whole body is in `prefix`.
    pub fn view(prefix: &'a [u8], body_len: usize) -> Result<Option<Self>, Malformed> {
        let whole = prefix.len() >= body_len;
        let mut rest = prefix;
        let Some(name) = cstr(&mut rest, whole)? else { return Ok(None) };
        let (name, behind) = (cut(name), name.len() + 1);
        let parse = |text, param_types| Self { name, rest: behind, text, param_types };
        let Some(text) = cstr(&mut rest, whole)? else { return Ok(Some(parse(rest, None))) };
        if !whole {
            return Ok(Some(parse(text, None)));
        }
        let count = rest.first_chunk::<2>().ok_or(Malformed)?;
        if rest.len() != 2 + 4 * usize::from(u16::from_be_bytes(*count)) {
            return Err(Malformed);
        }
        Ok(Some(parse(text, Some(rest))))
    }
}

/// A view of a Bind: its two names. Parameter values are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Portal name, cut to [`NAME_BYTES`]; empty for the unnamed portal.
    pub portal: &'a [u8],
    /// Statement name, cut to [`NAME_BYTES`]; empty for the unnamed statement.
    pub statement: &'a [u8],
    /// Offset in the body, in bytes, of the part after the two names: parameter formats, parameter
    /// values and result formats.
    pub rest: usize,
}

impl<'a> Bind<'a> {
    /// Reads a Bind from `prefix`, the first bytes of a body of `body_len` bytes. `Ok(None)` until
    /// both names are complete.
    ///
    /// # Errors
    /// [`Malformed`] when the names do not end within the body, or fewer than 6 bytes (the three
    /// counts) follow them.
    pub fn view(prefix: &'a [u8], body_len: usize) -> Result<Option<Self>, Malformed> {
        let whole = prefix.len() >= body_len;
        let mut tail = prefix;
        let Some(portal) = cstr(&mut tail, whole)? else { return Ok(None) };
        let Some(statement) = cstr(&mut tail, whole)? else { return Ok(None) };
        let rest = prefix.len() - tail.len();
        if body_len.saturating_sub(rest) < 6 {
            return Err(Malformed);
        }
        Ok(Some(Self { portal: cut(portal), statement: cut(statement), rest }))
    }
}

/// The object that a Describe or Close names, chosen by the body's first byte, `S` or `P`. It holds
/// the object's name, cut to [`NAME_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementOrPortal<'a> {
    /// A prepared statement; an empty name is the unnamed statement.
    Statement(&'a [u8]),
    /// A portal; an empty name is the unnamed portal.
    Portal(&'a [u8]),
}

impl<'a> StatementOrPortal<'a> {
    /// Reads a Describe or Close from `prefix`, the first bytes of a body of `body_len` bytes.
    /// `Ok(None)` until the name is complete.
    ///
    /// # Errors
    /// [`Malformed`] when the kind is neither `S` nor `P`, which is said as soon as that byte is
    /// there; when the body is empty, or does not end with the name's terminator.
    pub fn view(prefix: &'a [u8], body_len: usize) -> Result<Option<Self>, Malformed> {
        let whole = prefix.len() >= body_len;
        let [kind, rest @ ..] = prefix else {
            return if whole { Err(Malformed) } else { Ok(None) };
        };
        let make = match kind {
            b'S' => Self::Statement,
            b'P' => Self::Portal,
            _ => return Err(Malformed),
        };
        let mut rest = rest;
        let Some(name) = cstr(&mut rest, whole)? else { return Ok(None) };
        if 1 + name.len() + 1 != body_len {
            return Err(Malformed);
        }
        Ok(Some(make(cut(name))))
    }
}

/// A view of an Execute: the portal's name. The limit of rows is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    /// Portal name, cut to [`NAME_BYTES`]; empty for the unnamed portal.
    pub portal: &'a [u8],
}

impl<'a> Execute<'a> {
    /// Reads an Execute from `prefix`, the first bytes of a body of `body_len` bytes. `Ok(None)`
    /// until the name is complete.
    ///
    /// # Errors
    /// [`Malformed`] when the name and the limit of rows (4 bytes) do not fill the body.
    pub fn view(prefix: &'a [u8], body_len: usize) -> Result<Option<Self>, Malformed> {
        let mut rest = prefix;
        let Some(portal) = cstr(&mut rest, prefix.len() >= body_len)? else { return Ok(None) };
        if portal.len() + 1 + 4 != body_len {
            return Err(Malformed);
        }
        Ok(Some(Self { portal: cut(portal) }))
    }
}

/// The part of a name that PostgreSQL looks at.
fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_BYTES)]
}

/// Takes a zero-terminated string off `rest`. Without a terminator: more is needed, or, when the
/// body is whole, it is malformed.
fn cstr<'a>(rest: &mut &'a [u8], whole: bool) -> Result<Option<&'a [u8]>, Malformed> {
    match rest.iter().position(|byte| *byte == 0) {
        Some(end) => {
            let text = &rest[..end];
            *rest = &rest[end + 1..];
            Ok(Some(text))
        }
        None if whole => Err(Malformed),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_by_prefix() {
        let body = b"s1\0SELECT $1\0\0\x01\0\0\0\x17";
        let whole = Parse::view(body, body.len()).unwrap().unwrap();
        assert_eq!((whole.name, whole.text), (&b"s1"[..], &b"SELECT $1"[..]));
        assert_eq!(whole.param_types, Some(&b"\0\x01\0\0\0\x17"[..]));
        assert_eq!(Parse::view(b"s", body.len()), Ok(None));
        let part = Parse::view(b"s1\0SEL", body.len()).unwrap().unwrap();
        assert_eq!((part.text, part.param_types), (&b"SEL"[..], None));
        let part = Parse::view(&body[..14], body.len()).unwrap().unwrap();
        assert_eq!((part.text, part.param_types), (&b"SELECT $1"[..], None));
    }

    #[test]
    fn behaviour_40_parse_that_contradicts_its_length() {
        for body in [&b"s1"[..], b"s1\0SELECT", b"\0\0", b"\0\0\0\x01", b"\0\0\0\0x", b""] {
            assert_eq!(Parse::view(body, body.len()), Err(Malformed), "{body:?}");
        }
    }

    #[test]
    fn a_name_counts_up_to_its_sixty_third_byte() {
        let (long, short) = ([b'n'; 100], [b'n'; NAME_BYTES]);
        let body = [&long[..], b"\0select 1\0\0\0"].concat();
        let parse = Parse::view(&body, body.len()).unwrap().unwrap();
        assert_eq!((parse.name, parse.rest, parse.text), (&short[..], 101, &b"select 1"[..]));
        let body = [&long[..], b"\0", &long, b"\0\0\0\0\0\0\0"].concat();
        let bind = Bind { portal: &short, statement: &short, rest: 202 };
        assert_eq!(Bind::view(&body, body.len()), Ok(Some(bind)));
        let body = [b"S", &long[..], b"\0"].concat();
        assert_eq!(
            StatementOrPortal::view(&body, body.len()),
            Ok(Some(StatementOrPortal::Statement(&short)))
        );
        let body = [&long[..], b"\0\0\0\0\0"].concat();
        assert_eq!(Execute::view(&body, body.len()), Ok(Some(Execute { portal: &short })));
    }

    #[test]
    fn bind_says_where_the_rest_begins() {
        let body = b"p\0s1\0\0\0\0\0\0\0";
        let bind = Bind::view(body, body.len()).unwrap().unwrap();
        assert_eq!(bind, Bind { portal: b"p", statement: b"s1", rest: 5 });
        assert_eq!(Bind::view(b"p\0s1", 100_000), Ok(None));
        assert_eq!(Bind::view(b"p\0s1\0", 100_000).unwrap().unwrap().rest, 5);
        assert_eq!(Bind::view(b"p\0s1\0\0\0", 7), Err(Malformed));
        assert_eq!(Bind::view(b"p\0s1", 4), Err(Malformed));
    }

    #[test]
    fn describe_close_and_execute() {
        assert_eq!(
            StatementOrPortal::view(b"Ss1\0", 4),
            Ok(Some(StatementOrPortal::Statement(b"s1")))
        );
        assert_eq!(StatementOrPortal::view(b"P\0", 2), Ok(Some(StatementOrPortal::Portal(b""))));
        assert_eq!(StatementOrPortal::view(b"Ps", 4), Ok(None));
        assert_eq!(StatementOrPortal::view(b"", 4), Ok(None));
        for body in [&b""[..], b"X\0", b"S", b"Sa", b"S\0x"] {
            assert_eq!(StatementOrPortal::view(body, body.len()), Err(Malformed), "{body:?}");
        }
        assert_eq!(Execute::view(b"p\0\0\0\0\0", 6), Ok(Some(Execute { portal: b"p" })));
        assert_eq!(Execute::view(b"p", 6), Ok(None));
        assert_eq!(Execute::view(b"p\0\0\0\0", 5), Err(Malformed));
    }
}
