//! What a text says of whether it may be run again: its first word, and what it names.

/// Functions (and NOTIFY) whose effect a READ ONLY transaction does not prevent; a name that ends
/// in `_` or `k` stands for all that begin so.
const ESCAPING: [&[u8]; 6] =
    [b"lo_", b"lowrite", b"pg_notify", b"notify", b"dblink", b"pg_logical_emit_message"];

/// The words that a statement which only reads begins with.
const READS: [&[u8]; 6] = [b"SELECT", b"WITH", b"VALUES", b"TABLE", b"SHOW", b"EXPLAIN"];

/// Whether a text begins as one that only reads.
pub(super) fn reads(text: &[u8]) -> bool {
    let word = first_word(text);
    READS.iter().any(|read| word.eq_ignore_ascii_case(read))
}

/// Whether a text names, anywhere and in any case, what escapes a READ ONLY transaction.
pub(super) fn escapes(text: &[u8]) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    ESCAPING.iter().any(|name| {
        let whole = !matches!(name, [.., b'_' | b'k']);
        text.windows(name.len()).enumerate().any(|(at, window)| {
            window.eq_ignore_ascii_case(name)
                && (at == 0 || !is_part(text[at - 1]))
                && (!whole || text.get(at + name.len()).is_none_or(|&next| !is_part(next)))
        })
    })
}

/// Whether a text is a COPY of a table's rows, or of a statement's that only reads, to the client.
pub(super) fn copies_out(text: &[u8]) -> bool {
    let word = first_word(text);
    if !word.eq_ignore_ascii_case(b"COPY") {
        return false;
    }
    let begin = word.as_ptr() as usize - text.as_ptr() as usize + word.len();
    let source = text[begin..].trim_ascii_start();
    if source.first() == Some(&b'(') {
        return reads(source);
    }
    // A name, perhaps with columns, then the direction.
    let words = source.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'));
    let mut directions =
        words.filter(|word| word.eq_ignore_ascii_case(b"TO") || word.eq_ignore_ascii_case(b"FROM"));
    directions.next().is_some_and(|word| word.eq_ignore_ascii_case(b"TO"))
}

/// The first word of a text, behind white space, comments and parentheses.
fn first_word(text: &[u8]) -> &[u8] {
    let mut rest = text;
    loop {
        rest = match rest {
            [b' ' | b'\t'..=b'\r' | b'(' | b';', after @ ..] => after,
            [b'-', b'-', after @ ..] => behind_line(after),
            [b'/', b'*', after @ ..] => behind_comment(after),
            _ => break,
        };
    }
    let end = rest.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(rest.len());
    &rest[..end]
}

/// What stands behind the end of the line; a carriage return ends it too.
fn behind_line(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
    end.map_or(&[][..], |end| &text[end + 1..])
}

/// What stands behind the end of a comment, of which `text` is the inside: comments nest.
fn behind_comment(mut text: &[u8]) -> &[u8] {
    let mut depth = 1_u32;
    loop {
        text = match text {
            [b'*', b'/', after @ ..] if depth == 1 => return after,
            [b'*', b'/', after @ ..] => {
                depth -= 1;
                after
            }
            [b'/', b'*', after @ ..] => {
                depth += 1;
                after
            }
            [_, after @ ..] => after,
            [] => return text,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_stands_behind_comments_and_parentheses() {
        for (text, word) in [
            ("select 1", "select"),
            (" /* a */ -- b\n ((WITH x", "WITH"),
            ("/* a /* b */ select */ insert", "insert"),
            ("/* a /* b */ never ends", ""),
            ("-- a\rdelete -- b\nselect", "delete"),
            ("\u{b}\u{c}select 1", "select"),
            ("", ""),
            ("/* never ends", ""),
            ("values(1)", "values"),
        ] {
            assert_eq!(first_word(text.as_bytes()), word.as_bytes(), "{text}");
        }
    }

    #[test]
    fn a_copy_out_is_told_from_one_in() {
        for text in ["copy t to stdout", "COPY (select 1) TO STDOUT", "copy s.t (a, b) to stdout"] {
            assert!(copies_out(text.as_bytes()), "{text}");
        }
        for text in ["copy t from stdin", "copy (delete from t returning a) to stdout", "select 1"]
        {
            assert!(!copies_out(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_a_read_only_transaction_lets_through_is_named() {
        for text in [
            "select lo_unlink(1)",
            "select pg_notify('a', 'b')",
            "select * from DBLINK_exec('x')",
            "select pg_logical_emit_message(false, 'a', 'b')",
            "select 1; notify x",
            "select query_to_xml('select lo_create(0)', true, true, '')",
        ] {
            assert!(escapes(text.as_bytes()), "{text}");
        }
        for text in ["select hello_world", "select notify_at from t", "select slo_id, my_dblink"] {
            assert!(!escapes(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_begins_with_a_word_that_reads() {
        for text in ["select 1", "(select 1)", "with a as (select 1) select 2", "show x"] {
            assert!(reads(text.as_bytes()), "{text}");
        }
        for text in ["insert into t values (1)", "call p()", "copy t to stdout", "", "fetch x"] {
            assert!(!reads(text.as_bytes()), "{text}");
        }
    }
}
