//! The text that takes off a server connection what a session may have left there.

use crate::sql::Kinds;

/// The kinds of state that no statement takes away and that end only with the server connection:
/// loaded libraries, the replication origin, replication slots, dblink connections. A connection
/// with residue of these kinds is closed instead of going back to the pool.
pub const CLOSED: Kinds =
    Kinds::LOADED.union(Kinds::ORIGIN).union(Kinds::SLOTS).union(Kinds::DBLINK);

/// The text of the lightest simple query that takes `kinds` of state off a server connection; empty
/// if there is nothing to do. Kinds in [`CLOSED`] and [`Kinds::STATEMENTS`] are passed over: the
/// caller closes the connection, or sends DEALLOCATE ALL. `seed`, 0 to 65535, is the number
/// (divided by 65536) that `random()` goes on from if the session may have chosen one.
#[must_use]
pub fn reset_sql(kinds: Kinds, seed: u16) -> Vec<u8> {
    let code = kinds.meets(Kinds::UNNAMED_SETTINGS);
    let steps = [
        // The role first: it may not be allowed to do the rest.
        (Kinds::SETTINGS.union(Kinds::ROLE).union(Kinds::UNNAMED_SETTINGS), SETTINGS),
        (Kinds::CURSORS, "CLOSE ALL;"),
        (Kinds::CHANNELS, "UNLISTEN *;"),
        (Kinds::TEMPORARY, "DISCARD TEMP;"),
        // What code has left of sequences no text shows.
        (Kinds::UNNAMED_SETTINGS, "DISCARD SEQUENCES;"),
        (Kinds::LOCKS, "SELECT pg_catalog.pg_advisory_unlock_all();"),
    ];
    let mut text = String::new();
    for (covered, step) in steps {
        if kinds.meets(covered) {
            text.push_str(step);
        }
    }
    if kinds.meets(Kinds::SEED) || code {
        let fraction = f64::from(seed) / 65_536.0;
        text.push_str(&format!("SET seed TO {fraction};"));
    }
    without_waiting(text.as_bytes())
}

/// The text of a simple query, put into a READ COMMITTED transaction of its own if it takes a
/// snapshot (SELECT, DISCARD, CLOSE, DEALLOCATE). Under the defaults that a session has left it may
/// otherwise wait for all serializable writers, or fail on a standby. Another text is returned as
/// it is. `text` must end with a semicolon; the words are found in upper case only.
#[must_use]
pub fn without_waiting(text: &[u8]) -> Vec<u8> {
    let takes_snapshot = ["SELECT ", "DISCARD ", "CLOSE ", "DEALLOCATE "]
        .iter()
        .any(|word| text.windows(word.len()).any(|window| window == word.as_bytes()));
    match takes_snapshot {
        true => [b"BEGIN ISOLATION LEVEL READ COMMITTED;", text, b"COMMIT"].concat(),
        false => text.to_vec(),
    }
}

/// The statements that bring the session's user, its role and all settings back to the defaults;
/// they need no privilege, whatever the session has set. [`reset_sql`] begins with them if the
/// session may have changed a setting.
pub const SETTINGS: &str = "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_as_light_as_its_kinds_allow() {
        let text = |kinds| String::from_utf8(reset_sql(kinds, 0x8000)).unwrap();
        assert_eq!(text(Kinds::CHANNELS), "UNLISTEN *;");
        assert_eq!(text(Kinds::SEED), "SET seed TO 0.5;");
        assert_eq!(
            text(Kinds::LOCKS.union(Kinds::ROLE)),
            "BEGIN ISOLATION LEVEL READ COMMITTED;RESET SESSION AUTHORIZATION;RESET ROLE;\
             RESET ALL;SELECT pg_catalog.pg_advisory_unlock_all();COMMIT"
        );
        assert_eq!(text(Kinds::LOADED), "");
    }
}
