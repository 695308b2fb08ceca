use std::fs;
use std::thread;

use pgimbal_lexer::{Encoding, Reading, StandardStrings};

use crate::{Catalog, CatalogRow, Decision, parse};

const UTF8: Reading = Reading { strings: StandardStrings::On, encoding: Encoding::Utf8 };

fn row<'a>(kind: &'a str, name: &'a str, via: &'a str) -> CatalogRow<'a> {
    CatalogRow { kind, name, via }
}

/// A database with a few names of each kind.
fn catalog() -> Catalog {
    let rows = [
        "count",
        "lower",
        "random",
        "nextval",
        "set_config",
        "pg_notify",
        "audit",
        "lo_get",
        "now",
        "pg_advisory_lock",
        "txid_current",
        "crosstab",
        "generate_series",
    ]
    .map(|name| row("function", name, ""));
    let volatile = ["random", "nextval", "set_config", "pg_notify", "lo_get", "pg_advisory_lock"]
        .map(|name| row("volatile", name, ""));
    let more = [
        row("own_volatile", "audit", ""),
        row("row_function", "audit", ""),
        row("operator", "<~>", "audit"),
        row("operator", "<+>", "lower"),
        row("type", "checked", "audit"),
        row("part", "wrapped", "checked"),
        row("view", "v_audit", "audit"),
        row("view", "v_lower", "lower"),
        row("reads", "v_over", "v_audit"),
        row("reads", "v_activity", "pg_stat_activity"),
        row("policy", "guarded", "audit"),
        row("unlogged", "fast", ""),
        row("foreign", "elsewhere", ""),
        row("sequence", "items_id_seq", ""),
    ];
    Catalog::from_rows(rows.into_iter().chain(volatile).chain(more), [])
        .expect("the rows are known")
}

fn decide(text: &str) -> Decision {
    parse(text.as_bytes(), UTF8, &catalog())
}

/// The word of the decision.
fn word(text: &str) -> &'static str {
    decide(text).as_str()
}

#[test]
fn what_only_reads_is_a_read() {
    for text in [
        "SELECT 1",
        "select * from items where id = $1",
        "VALUES (1), (2)",
        "TABLE items",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "WITH a AS (SELECT 1), b AS MATERIALIZED (SELECT * FROM a) SELECT * FROM b JOIN a USING (x)",
        "WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "SELECT count(*) FILTER (WHERE x > 1) OVER (PARTITION BY y ORDER BY z) FROM items",
        "SELECT CASE WHEN a THEN 1 ELSE 2 END, coalesce(a, b), ARRAY[1, 2], ROW(1, 2), x[1:2]",
        "SELECT a::int4, CAST(b AS text), c COLLATE \"C\", d IS NULL, e IN (1, 2), f BETWEEN 1 AND 2",
        "SELECT * FROM items TABLESAMPLE system (10)",
        "SELECT * FROM items, LATERAL (SELECT 1) l, generate_series(1, 10) g(x)",
        "SELECT random(), now(), current_timestamp, current_user",
        "SELECT 'nextval(1)', $$ FOR UPDATE $$ /* INSERT */ -- DELETE",
        "SELECT json_object('a': 1), json_array(1, 2), JSON_EXISTS(a, '$.x')",
        "SELECT xmlelement(name a, b)",
        "EXPLAIN SELECT 1",
        "EXPLAIN (FORMAT json, VERBOSE) SELECT 1",
        "COPY items TO STDOUT",
        "COPY (SELECT * FROM items) TO STDOUT (FORMAT csv)",
        "SHOW search_path",
        "SELECT 1; SELECT 2;",
        "SELECT a <+> b",
        "SELECT * FROM v_lower",
        "SELECT * FROM (items JOIN others ON items.id = others.id)",
        "SELECT ü FROM \"Tabelle\"",
    ] {
        assert_eq!(decide(text), Decision::Read, "{text}");
    }
}

#[track_caller]
fn assert_words(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(word(text), *expected, "{text}: {:?}", decide(text));
    }
}

#[test]
fn what_may_write_is_no_read_and_says_why() {
    assert_words(&[
        ("SELECT * FROM items FOR UPDATE", "locking_clause"),
        ("SELECT * FROM (SELECT * FROM items FOR KEY SHARE) x", "locking_clause"),
        ("SELECT 1 UNION SELECT 2 FOR UPDATE", "locking_clause"),
        ("WITH d AS (DELETE FROM items RETURNING *) SELECT * FROM d", "data_modifying_cte"),
        (
            "SELECT * FROM (WITH d AS (INSERT INTO a VALUES (1) RETURNING 1) SELECT 1) x",
            "data_modifying_cte",
        ),
        ("WITH a AS (SELECT 1) INSERT INTO b SELECT * FROM a", "statement"),
        ("SELECT 1 INTO made", "into"),
        ("SELECT nextval('s')", "sequence_function"),
        ("SELECT pg_catalog.nextval('s')", "sequence_function"),
        ("SELECT 1 ORDER BY set_config('a', 'b', false)", "volatile_function"),
        ("SELECT 1 LIMIT pg_notify('a', 'b')", "volatile_function"),
        ("SELECT lo_get(1)", "volatile_function"),
        ("SELECT pg_advisory_lock(1)", "volatile_function"),
        ("SELECT \"audit\"(1)", "volatile_function"),
        ("SELECT AUDIT(1)", "volatile_function"),
        ("SELECT i.audit FROM items i", "volatile_function"),
        ("SELECT (i).audit FROM items i", "volatile_function"),
        ("SELECT * FROM audit(1)", "volatile_function"),
        ("SELECT * FROM ROWS FROM (audit(1), generate_series(1, 2))", "volatile_function"),
        ("SELECT count(*) FILTER (WHERE audit(1)) FROM items", "volatile_function"),
        ("SELECT json_object('a': audit(1))", "volatile_function"),
        ("SELECT no_such_function(1)", "unknown_function"),
        ("SELECT txid_current()", "server_function"),
        ("SELECT pg_is_in_recovery()", "server_function"),
        ("SELECT crosstab('DELETE FROM items RETURNING 1')", "runs_text"),
        ("SELECT a <~> b", "volatile_operator"),
        ("SELECT a OPERATOR(public.<~>) b", "volatile_operator"),
        ("SELECT * FROM items ORDER BY a USING <~>", "volatile_operator"),
        ("SELECT a::checked", "volatile_type"),
        ("SELECT CAST(a AS wrapped[])", "volatile_type"),
    ]);
}

#[test]
fn what_a_replica_does_not_have_is_no_read() {
    assert_words(&[
        ("SELECT * FROM pg_temp.mine", "temporary_table"),
        ("SELECT * FROM fast", "unlogged_table"),
        ("SELECT * FROM elsewhere", "foreign_table"),
        ("SELECT * FROM items_id_seq", "sequence"),
        ("SELECT * FROM v_audit", "view"),
        ("SELECT * FROM v_over", "view"),
        ("SELECT * FROM v_activity", "view"),
        ("SELECT * FROM guarded", "policy"),
        ("SELECT * FROM pg_stat_activity", "server_view"),
        ("SELECT * FROM pg_catalog.pg_locks", "server_view"),
    ]);
}

#[test]
fn statements_of_other_kinds_are_no_reads() {
    assert_words(&[
        ("SHOW ALL", "server_setting"),
        ("SHOW transaction_read_only", "server_setting"),
        ("EXPLAIN ANALYZE SELECT 1", "explain_analyze"),
        ("EXPLAIN (ANALYZE false) SELECT 1", "explain_analyze"),
        ("EXPLAIN DELETE FROM items", "statement"),
        ("EXPLAIN EXECUTE x", "statement"),
        ("COPY items FROM STDIN", "copy_from"),
        ("COPY items TO '/tmp/x'", "copy_to_file"),
        ("COPY items TO PROGRAM 'x'", "copy_to_file"),
        ("COPY (DELETE FROM items RETURNING *) TO STDOUT", "statement"),
        ("EXECUTE x", "statement"),
        ("DECLARE c CURSOR FOR SELECT 1", "statement"),
        ("BEGIN", "statement"),
        ("INSERT INTO items VALUES (1)", "statement"),
        ("LISTEN a", "statement"),
        ("", "empty"),
        (" ; ; ", "empty"),
        ("SELECT", "read"),
        ("SELECT FROM WHERE", "not_parsed"),
        ("SELECT 'open", "not_parsed"),
        ("SELECT 1; SELECT nextval('s')", "sequence_function"),
        ("SELECT 1; DELETE FROM items", "statement"),
    ]);
}

#[test]
fn of_several_statements_the_one_that_is_no_read_is_told() {
    let decision = decide("SELECT 1; SELECT 2; SELECT nextval('s'); SELECT 3");
    let Decision::NotRead(reason) = decision else { panic!("{decision:?}") };
    assert_eq!(reason.to_string(), "statement 3: the function nextval() is one of sequences");
}

#[test]
fn an_operator_may_call_functions_harmless() {
    let rows = || {
        [row("function", "audit", ""), row("own_volatile", "audit", ""), row("view", "v", "audit")]
    };
    let text = b"SELECT audit(1) FROM v";
    let strict = Catalog::from_rows(rows(), []).expect("the rows are known");
    assert!(!parse(text, UTF8, &strict).is_read());
    let listed = Catalog::from_rows(rows(), ["audit"]).expect("the rows are known");
    assert_eq!(parse(text, UTF8, &listed), Decision::Read);
}

#[test]
fn before_the_catalog_is_read_only_known_functions_are_called() {
    let catalog = Catalog::unread([]);
    let word = |text: &str| parse(text.as_bytes(), UTF8, &catalog).as_str();
    assert_eq!(word("SELECT count(*), lower(a) FROM items"), "read");
    assert_eq!(word("SELECT audit(1)"), "catalog_unread");
    assert_eq!(word("SELECT nextval('s')"), "sequence_function");
    assert!(!catalog.is_read());
}

#[test]
fn bytes_that_the_grammar_would_read_in_another_way_are_no_read() {
    let word = |text: &[u8], reading| parse(text, reading, &catalog()).as_str();
    let safe = Reading { encoding: Encoding::AsciiSafe, ..UTF8 };
    let old = Reading { strings: StandardStrings::Off, ..UTF8 };
    assert_eq!(word(b"SELECT '\xff'", UTF8), "encoding");
    assert_eq!(word("SELECT 'ü'".as_bytes(), safe), "encoding");
    assert_eq!(word(b"SELECT 'a'", safe), "read");
    assert_eq!(word(b"SELECT '\\'; DELETE FROM items --'", old), "backslash");
    assert_eq!(word(b"SELECT '\\'", UTF8), "read");
    assert_eq!(word(b"SELECT 'it''s'", old), "read");
    assert_eq!(word(b"SELECT 1\0; DELETE FROM items", UTF8), "unfollowed");
    assert_eq!(word(b"SELECT U&\"a\"", UTF8), "unfollowed");
}

#[test]
fn deep_and_long_texts_are_decided_without_a_crash() {
    let nested = |open: &str, depth: usize, close: &str| {
        format!("SELECT {}1{}", open.repeat(depth), close.repeat(depth))
    };
    let texts = [
        (nested("(", 1_000, ")"), "read"),
        (nested("(", 10_000, ")"), "not_parsed"),
        (nested("(", 1_000_000, ")"), "too_long"),
        (nested("(SELECT ", 10_000, ")"), "not_parsed"),
        (nested("NOT ", 50_000, ""), "not_parsed"),
        (nested("- ", 50_000, ""), "not_parsed"),
        (nested("ARRAY[", 10_000, "]"), "not_parsed"),
        (nested("CASE WHEN true THEN ", 10_000, " END"), "not_parsed"),
        (format!("SELECT {}1", "1 UNION SELECT ".repeat(10_000)), "not_parsed"),
        (format!("SELECT * FROM {}a", "a NATURAL JOIN ".repeat(10_000)), "not_parsed"),
        (format!("SELECT 1{}", " + 1".repeat(50_000)), "not_parsed"),
        (format!("SELECT 1{}", " + 1".repeat(2_500_000)), "too_long"),
        (format!("SELECT {}1", "1, ".repeat(50_000)), "read"),
    ];
    // As much as the documentation of `parse` says.
    let small = thread::Builder::new().stack_size(1 << 20);
    let parsing = small.spawn(move || {
        for (text, expected) in texts {
            let decision = parse(text.as_bytes(), UTF8, &catalog());

            assert_eq!(decision.as_str(), expected, "{}", &text[..60]);
        }
    });
    parsing.expect("a thread starts").join().expect("nothing panics");
}

/// `.cargo/config.toml` and `deploy/docker/program` see to it.
#[test]
fn parsing_leaves_the_standard_error_of_the_process_alone() {
    let target = || fs::read_link("/proc/self/fd/2").expect("standard error is open");
    let before = target();
    let parsing = thread::spawn(|| {
        for _ in 0..20 {
            let text = format!("SELECT {}", "1, ".repeat(1_000) + "1");
            assert_eq!(decide(&text), Decision::Read);
        }
    });
    while !parsing.is_finished() {
        assert_eq!(target(), before);
    }
    parsing.join().expect("the texts are reads");
}
