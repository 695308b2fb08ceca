//! Names of prepared statements.

use super::*;

fn found(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    words(text.as_bytes(), |word| found.push(String::from_utf8_lossy(word).into_owned()));
    found
}

#[test]
fn words_are_found_wherever_they_stand() {
    for (text, name) in [
        ("EXECUTE S1", "s1"),
        ("EXECUTE \"S 1\"\"\"", "S 1\""),
        ("DO $$BEGIN EXECUTE 'execute s1'; END$$", "s1"),
        ("DO $x$s1$x$", "s1"),
        ("DO $$a$b$$", "a$b"),
        ("DO 'EXECUTE \"My one\"'", "My one"),
        ("DO 'it\"s EXECUTE \"My one\"'", "My one"),
        ("SELECT format('EXECUTE %I', 'S1')", "S1"),
        ("-- s1", "s1"),
        ("EXECUTE é1", "é1"),
        ("x(1s1)", "s1"),
    ] {
        assert!(found(text).iter().any(|word| word == name), "{text}: {:?}", found(text));
    }
    let long = "a".repeat(70);
    assert_eq!(found(&long), [&long[..63]]);
    assert_eq!(found(&format!("\"{long}\""))[0], long[..63]);
    assert!(!found("EXECUTE s12").iter().any(|word| word == "s1"));
}

#[test]
fn own_names_are_found_behind_their_keywords() {
    let spans = |text: &str| -> Vec<String> {
        own_names(text.as_bytes(), Reading::default(), b"pgimbal_")
            .into_iter()
            .map(|span| text[span].to_owned())
            .collect()
    };
    assert_eq!(
        spans(
            "EXECUTE pgimbal_1(2); PREPARE PGimbal_2 AS SELECT 1; DEALLOCATE \"pgimbal_3\"; \
             DEALLOCATE /* x */ PREPARE pgimbal_4; EXPLAIN EXECUTE pgimbal_5"
        ),
        ["pgimbal_1", "PGimbal_2", "\"pgimbal_3\"", "pgimbal_4", "pgimbal_5"]
    );
    for text in [
        "SELECT pgimbal_1",
        "SELECT 'EXECUTE pgimbal_1'",
        "EXECUTE -- pgimbal_1\n a",
        "EXECUTE \"PGIMBAL_1\"",
        "EXECUTE pgimba_1, pgimbal_2",
    ] {
        assert!(spans(text).is_empty(), "{text}");
    }
}

#[test]
fn names_are_cut_at_a_character() {
    let name = format!("{}é", "a".repeat(62));
    assert_eq!(cut_name(name.as_bytes(), true), Some("a".repeat(62).as_bytes()));
    assert_eq!(cut_name(name.as_bytes(), false), None);
    assert_eq!(cut_name(b"\xff", true), None);
    assert_eq!(cut_name("é".as_bytes(), true), Some("é".as_bytes()));
}
