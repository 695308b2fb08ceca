//! The text that takes off a server connection what a session may have left there.

use crate::sql::Kinds;

/// Kinds that only end with the server connection.
pub const CLOSED: Kinds =
    Kinds::LOADED.union(Kinds::ORIGIN).union(Kinds::SLOTS).union(Kinds::DBLINK);

/// The lightest simple query that covers `kinds`, of those that a text can take off ([`CLOSED`] and
/// [`Kinds::STATEMENTS`] are not among them). `seed` is the number, 0 to 65535, that `random()`
/// goes on from if the session may have chosen one.
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

/// What takes a snapshot may wait for all serializable writers under the defaults that a session
/// has left, and fails on a standby: such a text brings a transaction of its own.
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

/// Brings roles and settings back; it needs no privilege, whatever the connection carries.
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
