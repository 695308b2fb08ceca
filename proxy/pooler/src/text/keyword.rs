//! The words that matter: those that lead a statement, and those that a statement is watched for.

/// The keyword that leads a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(missing_docs, reason = "each is the SQL keyword of its name")]
pub enum Lead {
    /// No statement.
    #[default]
    None,
    /// Not a keyword below, or no word at all: `(SELECT …)`.
    Other,
    Abort,
    Alter,
    Begin,
    Call,
    Close,
    Commit,
    Copy,
    Create,
    Deallocate,
    Declare,
    Delete,
    Discard,
    Do,
    Drop,
    End,
    Execute,
    Explain,
    Fetch,
    Insert,
    Listen,
    Load,
    Lock,
    Merge,
    Move,
    Notify,
    Prepare,
    Release,
    Reset,
    Rollback,
    Savepoint,
    Select,
    Set,
    Show,
    Start,
    Table,
    Truncate,
    Unlisten,
    Update,
    Vacuum,
    Values,
    With,
    /// Another statement that changes the schema or its rights: COMMENT, GRANT, REINDEX, …
    Schema,
}

impl Lead {
    /// The keyword that `word` (any case) is.
    pub(super) fn of(word: &[u8]) -> Lead {
        let mut lower = [0u8; LONGEST_LEAD];
        let Some(lower) = lower_into(word, &mut lower) else { return Lead::Other };
        match lower {
            b"select" => Lead::Select,
            b"insert" => Lead::Insert,
            b"update" => Lead::Update,
            b"delete" => Lead::Delete,
            b"begin" => Lead::Begin,
            b"commit" => Lead::Commit,
            b"end" => Lead::End,
            b"rollback" => Lead::Rollback,
            b"abort" => Lead::Abort,
            b"start" => Lead::Start,
            b"with" => Lead::With,
            b"set" => Lead::Set,
            b"show" => Lead::Show,
            b"reset" => Lead::Reset,
            b"values" => Lead::Values,
            b"table" => Lead::Table,
            b"explain" => Lead::Explain,
            b"merge" => Lead::Merge,
            b"copy" => Lead::Copy,
            b"savepoint" => Lead::Savepoint,
            b"release" => Lead::Release,
            b"discard" => Lead::Discard,
            b"deallocate" => Lead::Deallocate,
            b"prepare" => Lead::Prepare,
            b"execute" => Lead::Execute,
            b"listen" => Lead::Listen,
            b"unlisten" => Lead::Unlisten,
            b"notify" => Lead::Notify,
            b"declare" => Lead::Declare,
            b"fetch" => Lead::Fetch,
            b"move" => Lead::Move,
            b"close" => Lead::Close,
            b"create" => Lead::Create,
            b"alter" => Lead::Alter,
            b"drop" => Lead::Drop,
            b"truncate" => Lead::Truncate,
            b"load" => Lead::Load,
            b"lock" => Lead::Lock,
            b"do" => Lead::Do,
            b"call" => Lead::Call,
            b"vacuum" => Lead::Vacuum,
            b"comment" | b"grant" | b"revoke" | b"reindex" | b"refresh" | b"cluster"
            | b"analyze" | b"analyse" | b"import" | b"security" | b"reassign" => Lead::Schema,
            _ => Lead::Other,
        }
    }

    /// Whether such a statement may change the schema, or what a plan of it should be.
    pub(super) const fn changes_schema(self) -> bool {
        matches!(
            self,
            Lead::Alter
                | Lead::Call
                | Lead::Create
                | Lead::Do
                | Lead::Drop
                | Lead::Truncate
                | Lead::Vacuum
                | Lead::Schema
        )
    }

    /// Whether the exact form of such a statement matters when it is a text's only one.
    pub(super) const fn has_form(self) -> bool {
        matches!(
            self,
            Lead::Abort
                | Lead::Begin
                | Lead::Close
                | Lead::Commit
                | Lead::Copy
                | Lead::Deallocate
                | Lead::Declare
                | Lead::Discard
                | Lead::End
                | Lead::Execute
                | Lead::Listen
                | Lead::Prepare
                | Lead::Release
                | Lead::Reset
                | Lead::Rollback
                | Lead::Savepoint
                | Lead::Set
                | Lead::Start
                | Lead::Unlisten
        )
    }
}

/// A word or name that is watched for inside a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    AdvisoryLock,
    Constraints,
    Create,
    Global,
    Hold,
    Insert,
    Into,
    Local,
    Merge,
    PgSettings,
    PgTemp,
    Replace,
    Role,
    SessionFunction,
    SetConfig,
    Temporary,
    To,
    Transaction,
    True,
    UnlockAll,
    Update,
    With,
}

impl Watched {
    /// Which of them `word` (any case) is.
    #[inline]
    pub(super) fn of(word: &[u8]) -> Option<Watched> {
        // The first letter and the length refuse nearly every word of an ordinary text.
        let lengths = LENGTHS[usize::from(word[0] & 0x1f)];
        if lengths & (1 << word.len().min(63)) == 0 {
            return None;
        }
        Watched::look_up(word)
    }

    /// Which of them a quoted identifier with this content is. Only functions, schemas and tables
    /// count: a quoted keyword is a name.
    pub(super) fn of_quoted(name: &[u8]) -> Option<Watched> {
        if name.is_empty() {
            return None;
        }
        let upper = name.iter().any(u8::is_ascii_uppercase);
        Watched::of(name).filter(|watched| {
            // Of these only the names of settings do not depend on case.
            if upper {
                return *watched == Watched::Role;
            }
            matches!(
                watched,
                Watched::AdvisoryLock
                    | Watched::PgSettings
                    | Watched::PgTemp
                    | Watched::Role
                    | Watched::SessionFunction
                    | Watched::SetConfig
            )
        })
    }

    fn look_up(word: &[u8]) -> Option<Watched> {
        let mut lower = [0u8; LONGEST_WATCHED];
        let lower = lower_into(word, &mut lower)?;
        if lower.starts_with(b"pg_temp") {
            return is_temp_schema(lower).then_some(Watched::PgTemp);
        }
        WATCHED.iter().find(|(known, _)| known.as_bytes() == lower).map(|(_, watched)| *watched)
    }
}

/// `pg_temp`, or `pg_temp_3`.
fn is_temp_schema(lower: &[u8]) -> bool {
    match lower.strip_prefix(b"pg_temp") {
        Some([]) => true,
        Some([b'_', digits @ ..]) => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

const LONGEST_LEAD: usize = 12;
const LONGEST_WATCHED: usize = 40;

const WATCHED: [(&str, Watched); 31] = [
    ("to", Watched::To),
    ("into", Watched::Into),
    ("with", Watched::With),
    ("true", Watched::True),
    ("update", Watched::Update),
    ("insert", Watched::Insert),
    ("create", Watched::Create),
    ("local", Watched::Local),
    ("merge", Watched::Merge),
    ("global", Watched::Global),
    ("temp", Watched::Temporary),
    ("temporary", Watched::Temporary),
    ("replace", Watched::Replace),
    ("hold", Watched::Hold),
    ("transaction", Watched::Transaction),
    ("constraints", Watched::Constraints),
    ("role", Watched::Role),
    ("authorization", Watched::Role),
    ("session_authorization", Watched::Role),
    ("pg_advisory_unlock_all", Watched::UnlockAll),
    ("set_config", Watched::SetConfig),
    ("pg_settings", Watched::PgSettings),
    ("pg_advisory_lock", Watched::AdvisoryLock),
    ("pg_advisory_lock_shared", Watched::AdvisoryLock),
    ("pg_try_advisory_lock", Watched::AdvisoryLock),
    ("pg_try_advisory_lock_shared", Watched::AdvisoryLock),
    ("setseed", Watched::SessionFunction),
    ("dblink_connect", Watched::SessionFunction),
    ("dblink_connect_u", Watched::SessionFunction),
    ("pg_replication_origin_session_setup", Watched::SessionFunction),
    ("pg_replication_origin_session_reset", Watched::SessionFunction),
];

/// For each first letter (its low five bits) the lengths of the watched words, as bits.
const LENGTHS: [u64; 32] = {
    let mut lengths = [0; 32];
    let mut index = 0;
    while index < WATCHED.len() {
        let word = WATCHED[index].0.as_bytes();
        lengths[(word[0] & 0x1f) as usize] |= 1 << word.len();
        index += 1;
    }
    // pg_temp and pg_temp_1 to pg_temp_9999999.
    lengths[(b'p' & 0x1f) as usize] |= (1 << 7) | (0x7f << 9);
    lengths
};

/// `word` in lower case, within `room`; `None` if it is longer.
fn lower_into<'r>(word: &[u8], room: &'r mut [u8]) -> Option<&'r [u8]> {
    let lower = room.get_mut(..word.len())?;
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_any_case_and_only_whole() {
        for (word, watched) in WATCHED {
            assert_eq!(Watched::of(word.as_bytes()), Some(watched), "{word}");
            assert_eq!(Watched::of(word.to_ascii_uppercase().as_bytes()), Some(watched), "{word}");
            assert_eq!(Watched::of(format!("{word}x").as_bytes()), None, "{word}");
            assert!(word.len() <= LONGEST_WATCHED);
        }
        assert_eq!(Watched::of(b"pg_temp_12"), Some(Watched::PgTemp));
        assert_eq!(Watched::of(b"pg_template"), None);
        assert_eq!(Watched::of(b"pg_advisory_xact_lock"), None);
        assert_eq!(Watched::of_quoted(b"set_config"), Some(Watched::SetConfig));
        assert_eq!(Watched::of_quoted(b"Set_config"), None);
        assert_eq!(Watched::of_quoted(b"temp"), None);
        assert_eq!(Lead::of(b"SELECT"), Lead::Select);
        assert_eq!(Lead::of(b"Grant"), Lead::Schema);
        assert_eq!(Lead::of(b"deallocated"), Lead::Other);
    }
}
