//! Whether a text reads or writes rows, as far as its words say, and whether it names what a READ
//! ONLY transaction does not keep from taking effect.

use super::keyword::Lead;

/// How a text gets at the database's rows, as far as its words say. Two bytes. A replica or a READ
/// ONLY transaction may be tried for what begins as a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// What the text's statements do with rows: whether they read or write.
    pub kind: AccessKind,
    /// The text names, wherever (also in a literal or a comment) and in any case, a function or
    /// NOTIFY whose effect a READ ONLY transaction does not prevent. Taken for granted where the
    /// text is not at hand as a whole.
    pub escapes: bool,
}

/// What the statements of a text do with rows, by their first words. Of several statements the
/// first one counts, except for [`AccessKind::Reads`]: nothing but a server can tell that a text
/// writes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessKind {
    /// The text has no statement: it is empty, or has only comments and semicolons.
    #[default]
    Nothing,
    /// Each statement of the text is SHOW: it cannot write.
    Reads,
    /// The text begins as a statement that reads: SELECT, WITH, VALUES, TABLE, EXPLAIN, or SHOW in
    /// front of others. It may write all the same, so it is no proof: a function does, INSERT
    /// behind WITH does, EXPLAIN ANALYZE does, and so does a statement behind it. A READ ONLY
    /// transaction refuses that.
    BeginsAsRead,
    /// The text begins as COPY … TO, of a table or of a query that begins as a read: rows leave the
    /// database.
    CopiesOut,
    /// The text begins as a statement that writes: INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY …
    /// FROM, DDL.
    Writes,
    /// Anything else: CALL, DO, EXECUTE, FETCH, a statement about transactions or settings, one
    /// that cannot be read.
    Unknown,
}

impl Access {
    /// The access of a text of which nothing is known: it may write, and may name what a READ ONLY
    /// transaction does not prevent.
    pub const UNKNOWN: Access = Access { kind: AccessKind::Unknown, escapes: true };

    /// Whether the text begins as one that only reads ([`AccessKind::Reads`] or
    /// [`AccessKind::BeginsAsRead`]), so that it may be tried in a READ ONLY transaction. `false`
    /// for a text without a statement and for COPY TO. [`Self::escapes`] is not looked at: the
    /// caller must.
    #[must_use]
    pub fn begins_as_read(self) -> bool {
        matches!(self.kind, AccessKind::Reads | AccessKind::BeginsAsRead)
    }
}

impl AccessKind {
    /// Returns the kind of a text of which the statements so far have this kind, and `next` is the
    /// kind of the next statement.
    pub(super) fn then(self, next: AccessKind) -> AccessKind {
        match (self, next) {
            (AccessKind::Nothing, first) => first,
            (AccessKind::Reads, AccessKind::Reads | AccessKind::Nothing) => AccessKind::Reads,
            (AccessKind::Reads, _) => AccessKind::BeginsAsRead,
            (first, _) => first,
        }
    }

    /// Returns the kind of a statement that begins with this keyword, parentheses in front of it
    /// left out.
    pub(super) fn of(lead: Lead) -> AccessKind {
        match lead {
            Lead::Show => AccessKind::Reads,
            Lead::Select | Lead::With | Lead::Values | Lead::Table | Lead::Explain => {
                AccessKind::BeginsAsRead
            }
            Lead::Insert | Lead::Update | Lead::Delete | Lead::Merge => AccessKind::Writes,
            lead if lead.changes_schema() && !lead.commits_on_its_way() => AccessKind::Writes,
            _ => AccessKind::Unknown,
        }
    }
}

/// Which way the rows of a COPY go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// COPY … TO.
    Out,
    /// COPY … FROM.
    In,
}

/// Whether a text names, wherever and in any case, what a READ ONLY transaction lets through: a
/// function of large objects (`lo_…`, `lowrite`), NOTIFY or `pg_notify`, a function of dblink,
/// `pg_logical_emit_message`.
#[inline(never)]
pub(super) fn names_escape(text: &[u8]) -> bool {
    let mut from = 0;
    while let Some(block) = text[from..].first_chunk::<BLOCK>() {
        if has_trace(block) && has_name(text, from) {
            return true;
        }
        from += STARTS;
    }
    if let Some(block) = text.last_chunk::<BLOCK>() {
        // Some of it was looked at already.
        return has_trace(block) && has_name(text, text.len() - BLOCK);
    }
    text.windows(3).any(|trace| matches!(trace, [one, two, three] if is_trace(*one, *two, *three)))
        && has_name(text, 0)
}

/// How many traces are looked for at once, and how many bytes they have together.
const STARTS: usize = 32;
const BLOCK: usize = STARTS + 2;

/// Whether three letters stand in a block by which the names are found. Nearly no text has any, and
/// the compiler makes this loop one of vectors.
#[inline]
fn has_trace(block: &[u8; BLOCK]) -> bool {
    (0..STARTS)
        .fold(0, |found, at| found | u8::from(is_trace(block[at], block[at + 1], block[at + 2])))
        != 0
}

/// Whether three bytes are the beginning of `lo_`, `lowrite` or pg_`log`ical, the end of not`ify`,
/// or `dbl`ink.
#[inline]
fn is_trace(one: u8, two: u8, three: u8) -> bool {
    // Only `_` becomes something else than a letter.
    let (one, two, three) = (one | 0x20, two | 0x20, three | 0x20);
    let lo = (one == b'l')
        & (two == b'o')
        & ((three == b'w') | (three == b'g') | (three == b'_' | 0x20));
    let ify = (one == b'i') & (two == b'f') & (three == b'y');
    let dbl = (one == b'd') & (two == b'b') & (three == b'l');
    lo | ify | dbl
}

/// Whether one of the names has its trace in the block that begins at `from`.
#[cold]
fn has_name(text: &[u8], from: usize) -> bool {
    let behind = text.len().min(from + BLOCK);
    text[from..behind].windows(3).enumerate().any(|(at, trace)| {
        matches!(trace, [one, two, three] if is_trace(*one, *two, *three))
            && stands_around(text, from + at)
    })
}

/// Whether the trace at `at` belongs to one of the names.
fn stands_around(text: &[u8], at: usize) -> bool {
    /// Each name, where the trace stands in it, and whether nothing of a word may follow.
    const NAMES: [(&[u8], usize, bool); 6] = [
        (b"lo_", 0, false),
        (b"lowrite", 0, true),
        (b"notify", 3, true),
        (b"pg_notify", 6, true),
        (b"dblink", 0, false),
        (b"pg_logical_emit_message", 3, true),
    ];
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    NAMES.iter().any(|(name, trace, whole)| {
        let Some(start) = at.checked_sub(*trace) else { return false };
        let end = start + name.len();
        text.get(start..end).is_some_and(|found| found.eq_ignore_ascii_case(name))
            && (start == 0 || !is_part(text[start - 1]))
            && (!whole || text.get(end).is_none_or(|&next| !is_part(next)))
    })
}
