//! The keywords that begin statements.

/// The keyword that begins a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum Lead {
    /// No word: `(SELECT …)`.
    #[default]
    None,
    /// A word that is not below: CHECKPOINT, or a syntax error.
    Unknown,
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
    /// VACUUM, ANALYZE, CLUSTER or REINDEX, which may go from table to table in transactions of
    /// their own.
    Vacuum,
    Values,
    With,
    /// Another statement that changes the schema or its rights: COMMENT, GRANT, REFRESH, …
    Schema,
}

impl Lead {
    /// The keyword that `word` (any case) is.
    pub(super) fn of(word: &[u8]) -> Lead {
        let mut lower = [0u8; LONGEST];
        let Some(lower) = lower_into(word, &mut lower) else { return Lead::Unknown };
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
            b"vacuum" | b"reindex" | b"cluster" | b"analyze" | b"analyse" => Lead::Vacuum,
            b"comment" | b"grant" | b"revoke" | b"refresh" | b"import" | b"security"
            | b"reassign" => Lead::Schema,
            _ => Lead::Unknown,
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

    /// Whether such a statement may commit before it has ended, whatever its other words are.
    pub(super) const fn commits_on_its_way(self) -> bool {
        matches!(self, Lead::Call | Lead::Do | Lead::Vacuum)
    }

    /// Whether such a statement leaves nothing in its session, as far as its first word says.
    pub(super) const fn is_plain(self) -> bool {
        matches!(
            self,
            Lead::None
                | Lead::Delete
                | Lead::Explain
                | Lead::Insert
                | Lead::Lock
                | Lead::Merge
                | Lead::Notify
                | Lead::Select
                | Lead::Show
                | Lead::Table
                | Lead::Update
                | Lead::Values
                | Lead::With
        )
    }
}

const LONGEST: usize = 12;

/// `word` in lower case, within `room`; `None` if it is longer.
pub(super) fn lower_into<'r>(word: &[u8], room: &'r mut [u8]) -> Option<&'r [u8]> {
    let lower = room.get_mut(..word.len())?;
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_found_in_any_case_and_only_whole() {
        assert_eq!(Lead::of(b"SELECT"), Lead::Select);
        assert_eq!(Lead::of(b"Grant"), Lead::Schema);
        assert_eq!(Lead::of(b"deallocated"), Lead::Unknown);
        assert_eq!(Lead::of(b"checkpoint"), Lead::Unknown);
    }
}
