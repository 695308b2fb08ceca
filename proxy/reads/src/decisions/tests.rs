use pgimbal_lexer::{Encoding, Reading, StandardStrings};

use crate::{Catalog, CatalogRow, Decision, Decisions, Limits, Lookup, Reason};

const UTF8: Reading = Reading { strings: StandardStrings::On, encoding: Encoding::Utf8 };

fn decisions(cache_bytes: usize) -> Decisions {
    Decisions::new(Limits { cache_bytes, text_bytes: 1000 })
}

#[test]
fn texts_that_differ_in_literals_have_one_decision() {
    let mut decisions = decisions(100_000);
    let catalog = Catalog::unread([]);
    assert_eq!(decisions.lookup(b"SELECT 1 FROM a WHERE b = 'x'", UTF8), Lookup::Short);
    assert!(decisions.decide(b"SELECT 1 FROM a WHERE b = 'x'", UTF8, &catalog).is_read());
    for same in [
        "SELECT 27 FROM a WHERE b = ''",
        "SELECT 1.5 FROM a WHERE b = E'it\\'s'",
        "SELECT 1\n FROM a -- FOR UPDATE\n WHERE b = $$x$$",
        " SELECT 1 /* a */ FROM a WHERE b = 'x'",
    ] {
        assert_eq!(
            decisions.lookup(same.as_bytes(), UTF8),
            Lookup::Known(Decision::Read),
            "{same}"
        );
    }
    for other in [
        "SELECT 1 FROM a WHERE c = 'x'",
        "SELECT 1 FROM a WHERE b = 'x' FOR UPDATE",
        "SELECT 1 FROM \"A\" WHERE b = 'x'",
        "SELECT 1 FROM a WHERE b = 'x'; SELECT 1",
    ] {
        assert_eq!(decisions.lookup(other.as_bytes(), UTF8), Lookup::Short, "{other}");
    }
    assert_eq!(decisions.len(), 3, "one normalised, two shapes of it");
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
        let known = match decisions.lookup(text.as_bytes(), UTF8) {
            Lookup::Known(decision) => decision.as_str(),
            _ => "read",
        };
        assert_eq!(known, word, "{text}");
    }
    let long = "SELECT ".to_owned() + &"a".repeat(1000);
    assert_eq!(
        decisions.lookup(long.as_bytes(), UTF8),
        Lookup::Known(Decision::NotRead(Reason::TooLong))
    );
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
        assert_eq!(decisions.lookup(used, UTF8), Lookup::Known(Decision::Read), "{number}");
    }
    assert!(decisions.bytes() > 7_000);
    assert_eq!(decisions.lookup(b"SELECT column_1_of FROM a", UTF8), Lookup::Short);
}

#[test]
fn what_a_replica_refused_is_no_read_whatever_the_catalog_says() {
    let mut decisions = decisions(100_000);
    let refused = Decision::NotRead(Reason::Refused);
    let catalog = Catalog::unread([]);
    assert!(decisions.decide(b"SELECT f FROM a WHERE b = 1", UTF8, &catalog).is_read());
    assert!(decisions.decide(b"SELECT g FROM a", UTF8, &catalog).is_read());
    decisions.remember_refused(b"SELECT f FROM a WHERE b = 2", UTF8);
    assert_eq!(
        decisions.lookup(b"SELECT f FROM a WHERE b = 3", UTF8),
        Lookup::Known(refused.clone())
    );
    // A parse that began before comes back.
    decisions.remember(b"SELECT f FROM a WHERE b = 1", UTF8, Decision::Read);
    decisions.catalog_changed();
    assert_eq!(decisions.lookup(b"SELECT f FROM a WHERE b = 3", UTF8), Lookup::Known(refused));
    assert_eq!(decisions.lookup(b"SELECT g FROM a", UTF8), Lookup::Short);
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

#[test]
fn a_text_without_literals_is_known_by_its_bytes_until_something_is_refused() {
    let mut decisions = decisions(100_000);
    let (text, other) = (b"SELECT f FROM a WHERE b = $1", b"SELECT f FROM a WHERE b = $2");
    for text in [text, other] {
        decisions.remember(text, UTF8, Decision::Read);
        assert_eq!(decisions.lookup(text, UTF8), Lookup::Known(Decision::Read));
    }
    assert_eq!(decisions.len(), 3, "one normalised, two exact ones");
    decisions.remember_refused(text, UTF8);
    for text in [text, other] {
        assert_eq!(decisions.lookup(text, UTF8), Lookup::Known(Decision::NotRead(Reason::Refused)));
    }
    decisions.remember(b"SELECT g FROM a WHERE b = 1", UTF8, Decision::Read);
    for number in 2..100 {
        let text = format!("SELECT g FROM a WHERE b = {number}");
        assert_eq!(decisions.lookup(text.as_bytes(), UTF8), Lookup::Known(Decision::Read));
    }
    assert_eq!(decisions.len(), 5, "one normalised, one shape");
}

#[test]
fn a_shape_counts_until_the_catalog_changes_or_something_is_refused() {
    let mut decisions = decisions(100_000);
    let text = |n| format!("SELECT name, price FROM goods WHERE id = {n}");
    let known = |decisions: &mut Decisions, n| decisions.lookup(text(n).as_bytes(), UTF8);
    decisions.remember(text(1).as_bytes(), UTF8, Decision::Read);
    for n in 2..5 {
        assert_eq!(known(&mut decisions, n), Lookup::Known(Decision::Read));
    }
    decisions.catalog_changed();
    assert_eq!(known(&mut decisions, 5), Lookup::Short);
    decisions.remember(text(6).as_bytes(), UTF8, Decision::Read);
    assert_eq!(known(&mut decisions, 7), Lookup::Known(Decision::Read));
    decisions.remember_refused(text(8).as_bytes(), UTF8);
    let refused = Lookup::Known(Decision::NotRead(Reason::Refused));
    for n in [9, 10] {
        assert_eq!(known(&mut decisions, n), refused);
    }
    assert_eq!(decisions.len(), 2, "one normalised, one shape");
}

#[test]
fn a_text_that_looks_like_a_normalised_one_is_not_taken_for_it() {
    let mut decisions = decisions(100_000);
    decisions.remember(b"SELECT 1 FROM a", UTF8, Decision::Read);
    let forged = b"\0SELECT 0 FROM a";
    let reason = Reason::Unfollowed;
    assert_eq!(decisions.lookup(forged, UTF8), Lookup::Known(Decision::NotRead(reason)));
}

#[test]
fn texts_of_many_tokens_or_bytes_are_for_another_thread() {
    let mut decisions = Decisions::new(Limits::default());
    for (text, expected) in [
        ("SELECT a".to_owned() + &", a".repeat(47), Lookup::Short),
        ("SELECT a".to_owned() + &", a".repeat(48), Lookup::Long),
        (format!("SELECT '{}'", "x".repeat(4000)), Lookup::Short),
        (format!("SELECT '{}'", "x".repeat(4096)), Lookup::Long),
    ] {
        assert_eq!(decisions.lookup(text.as_bytes(), UTF8), expected, "{}", text.len());
    }
}
