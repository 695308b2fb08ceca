//! What stands in front of a text's first token: white space and comments.

/// Returns a text without the white space and comments in front of its first token. A comment that
/// does not end takes all of it.
#[must_use]
pub fn without_comments(text: &[u8]) -> &[u8] {
    let mut rest = text.trim_ascii_start();
    while let Some((_, behind)) = comment(rest) {
        rest = behind.trim_ascii_start();
    }
    rest
}

/// Returns the value that a comment in front of a text's first token gives `name`, as in
/// `/* name=value */` or `-- name='value'`: ASCII letters. The first one counts.
#[must_use]
pub fn set_by_comment<'t>(text: &'t [u8], name: &[u8]) -> Option<&'t [u8]> {
    let mut rest = text.trim_ascii_start();
    while let Some((inside, behind)) = comment(rest) {
        if let Some(value) = value_of(inside, name) {
            return Some(value);
        }
        rest = behind.trim_ascii_start();
    }
    None
}

/// The comment that a text begins with: what is inside, and what stands behind it.
fn comment(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if text.starts_with(b"--") {
        let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        return Some(text[2..].split_at(end.unwrap_or(text.len()) - 2));
    }
    if !text.starts_with(b"/*") {
        return None;
    }
    let (mut depth, mut at) = (1, 2);
    while let Some(pair) = text.get(at..at + 2) {
        at += match pair {
            b"/*" => {
                depth += 1;
                2
            }
            b"*/" => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        if depth == 0 {
            return Some((&text[2..at - 2], &text[at..]));
        }
    }
    Some((&text[2..], b""))
}

/// The value that the text of a comment gives `name`.
fn value_of<'t>(comment: &'t [u8], name: &[u8]) -> Option<&'t [u8]> {
    let mut at = 0;
    loop {
        let found =
            comment[at..].windows(name.len()).position(|word| word.eq_ignore_ascii_case(name))?;
        let start = at + found;
        at = start + name.len();
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        if start > 0 && is_part(&comment[start - 1]) {
            continue;
        }
        let Some(value) = comment[at..].trim_ascii_start().strip_prefix(b"=") else { continue };
        let value = value.trim_ascii_start();
        let value = value.strip_prefix(b"'").unwrap_or(value);
        let end = value.iter().position(|byte| !byte.is_ascii_alphabetic());
        return Some(&value[..end.unwrap_or(value.len())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_in_front_gives_a_value_and_one_elsewhere_does_not() {
        for (text, value) in [
            ("/* a.route=primary */ select 1", Some("primary")),
            ("\n/*x*/ -- A.Route = 'replica'\nselect 1", Some("replica")),
            ("/* /* a.route=auto */ */select 1", Some("auto")),
            ("/*app='b',a.route='primary',c='d'*/ select 1", Some("primary")),
            ("/* aa.route=primary a.route=replica */ select 1", Some("replica")),
            ("/* a.route= */ select 1", Some("")),
            ("/* a.route */ select 1", None),
            ("select /* a.route=primary */ 1", None),
            ("select 1", None),
            ("/*", None),
            ("--", None),
            ("", None),
        ] {
            let found = set_by_comment(text.as_bytes(), b"a.route");
            assert_eq!(found, value.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn comments_in_front_are_left_out() {
        for (text, rest) in [
            (" /* a */ -- b\r\n begin", "begin"),
            ("begin", "begin"),
            ("/* /* */ begin", ""),
            ("/* /* */ */begin", "begin"),
            ("/**/x", "x"),
            ("-- a", ""),
            ("- a", "- a"),
        ] {
            assert_eq!(without_comments(text.as_bytes()), rest.as_bytes(), "{text}");
        }
    }
}
