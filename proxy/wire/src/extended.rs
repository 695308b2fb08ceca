//! Borrowed views of the extended protocol's requests.
//!
//! Each view works on a prefix of the body, because a message above 16 KiB is processed before it
//! has arrived whole: `Ok(None)` means that the names are not complete yet. Nothing is allocated.

use thiserror::Error;

/// A body whose fields do not fit the message's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("invalid message format")]
pub struct Malformed;

/// The bytes of a name that PostgreSQL looks at (`NAMEDATALEN` without its NUL), inside a character
/// too.
pub const NAME_BYTES: usize = 63;

/// Parse: the name, and what of text and parameter types has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Statement name, its first [`NAME_BYTES`]; empty for the unnamed statement.
    pub name: &'a [u8],
    /// Offset in the body at which everything after the name begins.
    pub rest: usize,
    /// Statement text without its terminator, or as much of it as `prefix` held.
    pub text: &'a [u8],
    /// The raw parameter types: a count of 2 bytes, then 4 bytes for each OID. `None` until the
    /// whole body has arrived.
    pub param_types: Option<&'a [u8]>,
}

impl<'a> Parse<'a> {
    /// Looks at `prefix`, the first bytes of a body of `body_len` bytes.
    ///
    /// # Errors
    /// [`Malformed`] when the fields contradict the body's length.
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

/// Bind: the two names; parameters are nobody's business here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Portal name, its first [`NAME_BYTES`]; empty for the unnamed portal.
    pub portal: &'a [u8],
    /// Statement name, its first [`NAME_BYTES`]; empty for the unnamed statement.
    pub statement: &'a [u8],
    /// Offset in the body at which everything after the two names begins.
    pub rest: usize,
}

impl<'a> Bind<'a> {
    /// Looks at `prefix`, the first bytes of a body of `body_len` bytes.
    ///
    /// # Errors
    /// [`Malformed`] when the names do not end within the body or less than the three counts
    /// (6 bytes) follow them.
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

/// What a Describe or Close names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement.
    Statement(&'a [u8]),
    /// A portal.
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    /// Looks at `prefix`, the first bytes of a Describe's or Close's body of `body_len` bytes.
    ///
    /// # Errors
    /// [`Malformed`] when the kind is neither `S` nor `P`, or the name does not end the body.
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

/// Execute: the portal; the row limit is the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    /// Portal name, its first [`NAME_BYTES`]; empty for the unnamed portal.
    pub portal: &'a [u8],
}

impl<'a> Execute<'a> {
    /// Looks at `prefix`, the first bytes of a body of `body_len` bytes.
    ///
    /// # Errors
    /// [`Malformed`] when name and row limit (4 bytes) do not fill the body.
    pub fn view(prefix: &'a [u8], body_len: usize) -> Result<Option<Self>, Malformed> {
        let mut rest = prefix;
        let Some(portal) = cstr(&mut rest, prefix.len() >= body_len)? else { return Ok(None) };
        if portal.len() + 1 + 4 != body_len {
            return Err(Malformed);
        }
        Ok(Some(Self { portal: cut(portal) }))
    }
}

/// What counts of a name.
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
        assert_eq!(Target::view(&body, body.len()), Ok(Some(Target::Statement(&short))));
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
        assert_eq!(Target::view(b"Ss1\0", 4), Ok(Some(Target::Statement(b"s1"))));
        assert_eq!(Target::view(b"P\0", 2), Ok(Some(Target::Portal(b""))));
        assert_eq!(Target::view(b"Ps", 4), Ok(None));
        assert_eq!(Target::view(b"", 4), Ok(None));
        for body in [&b""[..], b"X\0", b"S", b"Sa", b"S\0x"] {
            assert_eq!(Target::view(body, body.len()), Err(Malformed), "{body:?}");
        }
        assert_eq!(Execute::view(b"p\0\0\0\0\0", 6), Ok(Some(Execute { portal: b"p" })));
        assert_eq!(Execute::view(b"p", 6), Ok(None));
        assert_eq!(Execute::view(b"p\0\0\0\0", 5), Err(Malformed));
    }
}
