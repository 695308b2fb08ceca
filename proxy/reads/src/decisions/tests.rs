use pgimbal_lexer::{Encoding, Reading, StandardStrings};

use crate::{Catalog, CatalogRow, Decision, Decisions, Limits, Reason};

const UTF8: Reading = Reading { strings: StandardStrings::On, encoding: Encoding::Utf8 };

fn decisions(cache_bytes: usize) -> Decisions {
    Decisions::new(Limits { cache_bytes, text_bytes: 1000 })
}

#[test]
fn texts_that_differ_in_literals_have_one_decision() {
    let mut decisions = decisions(100_000);
    let catalog = Catalog::unread([]);
    assert_eq!(decisions.lookup(b"SELECT 1 FROM a WHERE b = 'x'", UTF8), None);
    assert!(decisions.decide(b"SELECT 1 FROM a WHERE b = 'x'", UTF8, &catalog).is_read());
    for same in [
        "SELECT 27 FROM a WHERE b = ''",
        "SELECT 1.5 FROM a WHERE b = E'it\\'s'",
        "SELECT 1\n FROM a -- FOR UPDATE\n WHERE b = $$x$$",
        " SELECT 1 /* a */ FROM a WHERE b = 'x'",
    ] {
        assert_eq!(decisions.lookup(same.as_bytes(), UTF8), Some(Decision::Read), "{same}");
    }
    for other in [
        "SELECT 1 FROM a WHERE c = 'x'",
        "SELECT 1 FROM a WHERE b = 'x' FOR UPDATE",
        "SELECT 1 FROM \"A\" WHERE b = 'x'",
        "SELECT 1 FROM a WHERE b = 'x'; SELECT 1",
    ] {
        assert_eq!(decisions.lookup(other.as_bytes(), UTF8), None, "{other}");
    }
    assert_eq!(decisions.len(), 1);
}

#[test]
fn what_is_clear_without_the_grammar_is_never_parsed() {
    let mut decisions = decisions(100_000);
    for (text, word) in [
        ("INSERT INTO a VALUES (1)", "statement"),
        ("  update a SET b = 1", "statement"),
        ("/* a */ DELETE FROM a", "statement"),
        ("SELECT 1; DROP TABLE a", "statement"),
        ("SELECT '\0'", "read"),
    ] {
        let known = decisions.lookup(text.as_bytes(), UTF8).map(|decision| decision.as_str());
        assert_eq!(known.unwrap_or("read"), word, "{text}");
    }
    let long = "SELECT ".to_owned() + &"a".repeat(1000);
    assert_eq!(decisions.lookup(long.as_bytes(), UTF8), Some(Decision::NotRead(Reason::TooLong)));
    assert!(decisions.is_empty());
}

#[test]
fn the_bytes_of_the_cache_are_bounded_and_what_is_used_stays() {
    let mut decisions = decisions(20_000);
    let used = b"SELECT used FROM a";
    decisions.remember(used, UTF8, Decision::Read);
    for number in 0..10_000 {
        let text = format!("SELECT column_{number}_of FROM a");
        decisions.remember(text.as_bytes(), UTF8, Decision::Read);
        assert!(decisions.bytes() <= 20_000, "{}", decisions.bytes());
        assert_eq!(decisions.lookup(used, UTF8), Some(Decision::Read), "{number}");
    }
    assert!(decisions.bytes() > 9_000);
    assert_eq!(decisions.lookup(b"SELECT column_1_of FROM a", UTF8), None);
}

#[test]
fn what_a_replica_refused_is_no_read_whatever_the_catalog_says() {
    let mut decisions = decisions(100_000);
    let refused = Decision::NotRead(Reason::Refused);
    let catalog = Catalog::unread([]);
    assert!(decisions.decide(b"SELECT f FROM a WHERE b = 1", UTF8, &catalog).is_read());
    assert!(decisions.decide(b"SELECT g FROM a", UTF8, &catalog).is_read());
    decisions.remember_refused(b"SELECT f FROM a WHERE b = 2", UTF8);
    assert_eq!(decisions.lookup(b"SELECT f FROM a WHERE b = 3", UTF8), Some(refused.clone()));
    // A parse that began before comes back.
    decisions.remember(b"SELECT f FROM a WHERE b = 1", UTF8, Decision::Read);
    decisions.catalog_changed();
    assert_eq!(decisions.lookup(b"SELECT f FROM a WHERE b = 3", UTF8), Some(refused));
    assert_eq!(decisions.lookup(b"SELECT g FROM a", UTF8), None);
}

#[test]
fn a_new_catalog_decides_anew() {
    let mut decisions = decisions(100_000);
    let text = b"SELECT audit(1)";
    assert!(!decisions.decide(text, UTF8, &Catalog::unread([])).is_read());
    let rows = [CatalogRow { kind: "function", name: "audit", via: "" }];
    let catalog = Catalog::from_rows(rows, []).expect("the row is known");
    assert!(!decisions.decide(text, UTF8, &catalog).is_read());
    decisions.catalog_changed();
    assert!(decisions.decide(text, UTF8, &catalog).is_read());
}
