//! The words inside a statement that decide what it leaves in its session.

use super::kinds::Kinds;

/// A word or name that matters inside a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    As,
    Atomic,
    Begin,
    Concurrently,
    Constraints,
    Create,
    Declare,
    End,
    Execute,
    Extension,
    For,
    /// A function that leaves these kinds of state; none if it only ends some.
    Function(Kinds),
    Global,
    Hold,
    Insert,
    Into,
    Language,
    Local,
    Merge,
    PgSettings,
    PgTemp,
    Plpgsql,
    Replace,
    Role,
    /// FUNCTION or PROCEDURE.
    Routine,
    /// A function that runs the text that it is given.
    RunsText,
    Seed,
    SetConfig,
    /// DATABASE, SUBSCRIPTION, SYSTEM or TABLESPACE: what no transaction can roll back.
    NonTransactional,
    Temporary,
    To,
    Transaction,
    True,
    False,
    UnlockAll,
    Update,
    With,
}

impl Known {
    /// Which of them `word` (any case) is.
    #[inline]
    pub(super) fn of(word: &[u8]) -> Option<Known> {
        // The first letter and the length refuse nearly every word of an ordinary text.
        let lengths = LENGTHS[usize::from(word[0] & 0x1f)];
        if lengths & (1 << word.len().min(63)) == 0 {
            return None;
        }
        Known::look_up(word)
    }

    /// Which of them a quoted identifier with this content is. Only the names of functions,
    /// schemas, tables, settings and languages count: a quoted keyword is a name.
    pub(super) fn of_quoted(name: &[u8]) -> Option<Known> {
        if name.is_empty() {
            return None;
        }
        Known::of(name).filter(|known| {
            // Of these only the names of settings do not depend on case.
            if name.iter().any(u8::is_ascii_uppercase) {
                return matches!(known, Known::Role | Known::Seed);
            }
            matches!(
                known,
                Known::Function(_)
                    | Known::PgSettings
                    | Known::PgTemp
                    | Known::Plpgsql
                    | Known::Role
                    | Known::RunsText
                    | Known::Seed
                    | Known::SetConfig
                    | Known::UnlockAll
            )
        })
    }

    fn look_up(word: &[u8]) -> Option<Known> {
        let first = usize::from(word[0] & 0x1f);
        let known = &KNOWN[STARTS[first]..STARTS[first + 1]];
        if let Some((_, known)) = known.iter().find(|(known, _)| {
            known.len() == word.len() && known.as_bytes().eq_ignore_ascii_case(word)
        }) {
            return Some(*known);
        }
        let starts = |prefix: &[u8]| {
            word.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if starts(b"pg_temp") && is_temp_schema(&word[7..]) {
            return Some(Known::PgTemp);
        }
        starts(b"crosstab").then_some(Known::RunsText)
    }
}

/// Whether `pg_temp` and this is the temporary schema, as `pg_temp_3` is.
fn is_temp_schema(rest: &[u8]) -> bool {
    match rest {
        [] => true,
        [b'_', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Sorted. `pg_backup_start` counts as `LOADED`: the backup ends with the connection, and cannot
/// be seen or given away.
#[rustfmt::skip]
const KNOWN: [(&str, Known); 75] = [
    ("as", Known::As),
    ("atomic", Known::Atomic),
    ("authorization", Known::Role),
    ("begin", Known::Begin),
    ("concurrently", Known::Concurrently),
    ("connectby", Known::RunsText),
    ("constraints", Known::Constraints),
    ("create", Known::Create),
    ("cursor_to_xml", Known::RunsText),
    ("cursor_to_xmlschema", Known::RunsText),
    ("database", Known::NonTransactional),
    ("dblink_close", Known::Function(Kinds::NONE)),
    ("dblink_connect", Known::Function(Kinds::DBLINK)),
    ("dblink_connect_u", Known::Function(Kinds::DBLINK)),
    ("dblink_disconnect", Known::Function(Kinds::NONE)),
    ("dblink_exec", Known::RunsText),
    ("dblink_open", Known::Function(Kinds::DBLINK)),
    ("declare", Known::Declare),
    ("end", Known::End),
    ("execute", Known::Execute),
    ("extension", Known::Extension),
    ("false", Known::False),
    ("for", Known::For),
    ("function", Known::Routine),
    ("global", Known::Global),
    ("hold", Known::Hold),
    ("insert", Known::Insert),
    ("into", Known::Into),
    ("language", Known::Language),
    ("local", Known::Local),
    ("merge", Known::Merge),
    ("pg_advisory_lock", Known::Function(Kinds::LOCKS)),
    ("pg_advisory_lock_shared", Known::Function(Kinds::LOCKS)),
    ("pg_advisory_unlock", Known::Function(Kinds::NONE)),
    ("pg_advisory_unlock_all", Known::UnlockAll),
    ("pg_advisory_unlock_shared", Known::Function(Kinds::NONE)),
    ("pg_backup_start", Known::Function(Kinds::LOADED)),
    ("pg_copy_logical_replication_slot", Known::Function(Kinds::SLOTS)),
    ("pg_copy_physical_replication_slot", Known::Function(Kinds::SLOTS)),
    ("pg_create_logical_replication_slot", Known::Function(Kinds::SLOTS)),
    ("pg_create_physical_replication_slot", Known::Function(Kinds::SLOTS)),
    ("pg_drop_replication_slot", Known::Function(Kinds::NONE)),
    ("pg_replication_origin_session_reset", Known::Function(Kinds::ORIGIN)),
    ("pg_replication_origin_session_setup", Known::Function(Kinds::ORIGIN)),
    ("pg_settings", Known::PgSettings),
    ("pg_start_backup", Known::Function(Kinds::LOADED)),
    ("pg_try_advisory_lock", Known::Function(Kinds::LOCKS)),
    ("pg_try_advisory_lock_shared", Known::Function(Kinds::LOCKS)),
    ("plpgsql", Known::Plpgsql),
    ("procedure", Known::Routine),
    ("query_to_xml", Known::RunsText),
    ("query_to_xml_and_xmlschema", Known::RunsText),
    ("query_to_xmlschema", Known::RunsText),
    ("replace", Known::Replace),
    ("role", Known::Role),
    ("seed", Known::Seed),
    ("session_authorization", Known::Role),
    ("set_config", Known::SetConfig),
    ("set_limit", Known::Function(Kinds::SETTINGS)),
    ("set_strict_word_similarity_threshold", Known::Function(Kinds::SETTINGS)),
    ("set_word_similarity_threshold", Known::Function(Kinds::SETTINGS)),
    ("setseed", Known::Function(Kinds::SEED)),
    ("subscription", Known::NonTransactional),
    ("system", Known::NonTransactional),
    ("tablespace", Known::NonTransactional),
    ("temp", Known::Temporary),
    ("temporary", Known::Temporary),
    ("to", Known::To),
    ("transaction", Known::Transaction),
    ("true", Known::True),
    ("ts_rewrite", Known::RunsText),
    ("ts_stat", Known::RunsText),
    ("update", Known::Update),
    ("with", Known::With),
    ("xpath_table", Known::RunsText),
];

/// For each first letter (its low five bits) the lengths of the known words, as bits.
const LENGTHS: [u64; 32] = {
    let mut lengths = [0; 32];
    let mut index = 0;
    while index < KNOWN.len() {
        let word = KNOWN[index].0.as_bytes();
        lengths[(word[0] & 0x1f) as usize] |= 1 << word.len();
        index += 1;
    }
    // pg_temp and pg_temp_1 to pg_temp_9999999, crosstab to crosstab_of_mine.
    lengths[(b'p' & 0x1f) as usize] |= (1 << 7) | (0x7f << 9);
    lengths[(b'c' & 0x1f) as usize] |= 0xffff << 8;
    lengths
};

/// Where in `KNOWN` the words of each first letter (its low five bits) begin.
const STARTS: [usize; 33] = {
    let mut starts = [0; 33];
    let mut letter = 0;
    let mut index = 0;
    while letter < 33 {
        while index < KNOWN.len() && ((KNOWN[index].0.as_bytes()[0] & 0x1f) as usize) < letter {
            index += 1;
        }
        starts[letter] = index;
        letter += 1;
    }
    starts
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_any_case_and_only_whole() {
        assert!(KNOWN.is_sorted_by_key(|(word, _)| *word));
        for (word, known) in KNOWN {
            assert_eq!(Known::of(word.as_bytes()), Some(known), "{word}");
            assert_eq!(Known::of(word.to_ascii_uppercase().as_bytes()), Some(known), "{word}");
            assert_eq!(Known::of(format!("{word}x").as_bytes()), None, "{word}");
        }
        assert_eq!(Known::of(b"pg_temp_12"), Some(Known::PgTemp));
        assert_eq!(Known::of(b"crosstab2"), Some(Known::RunsText));
        assert_eq!(Known::of(b"pg_template"), None);
        assert_eq!(Known::of(b"pg_advisory_xact_lock"), None);
        assert_eq!(Known::of_quoted(b"set_config"), Some(Known::SetConfig));
        assert_eq!(Known::of_quoted(b"Set_config"), None);
        assert_eq!(Known::of_quoted(b"temp"), None);
        assert_eq!(Known::of_quoted(b"ROLE"), Some(Known::Role));
    }
}
