//! What an operator sees of it: pins with their reason and how long they have lasted, questions
//! and resets in the metrics.

use pgimbal_tests::http::metric;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Comparison, ConnectionExpectation, Pipeline, WireClient};

/// The cells `pinned` and `pinned_seconds` of SHOW CLIENTS for whoever is pinned.
fn pinned(comparison: &Comparison) -> Vec<(String, String)> {
    let rows = comparison.proxy.console("show clients");
    let cell = |row: &[(String, String)], wanted: &str| {
        let found = row.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        found.unwrap_or_else(|| panic!("SHOW CLIENTS has no column {wanted}"))
    };
    let cells = rows.iter().map(|row| (cell(row, "pinned"), cell(row, "pinned_seconds")));
    cells.filter(|(reason, _)| !matches!(&reason[..], "" | "NULL")).collect()
}

/// `client` is pinned for `reason`, in SHOW CLIENTS and in the metrics.
fn shows(comparison: &Comparison, reason: &str, what: &str) {
    let mut last = Vec::new();
    eventually(&format!("{what}: {reason} is shown"), SOON, || {
        last = pinned(comparison);
        last.len() == 1 && last[0].0.split([',', ' ']).any(|shown| shown == reason)
    });
    let seconds: Result<f64, _> = last[0].1.parse();
    assert!(seconds.is_ok_and(|seconds| (0.0..60.0).contains(&seconds)), "{what}: {last:?}");
    let label = format!("reason=\"{reason}\"");
    let count = metric(&comparison.proxy.metrics(), "pgimbal_clients_pinned", &[&label]);
    assert_eq!(count, Some(1.0), "{what}");
}

#[test]
fn state_seen_each_pin_with_its_reason_and_how_long_it_lasts() {
    let comparison = Comparison::with("", |config| config.set("listen_mode", "\"pin\""));
    for (reason, made) in [
        ("temporary_table", "CREATE TEMP TABLE t (x int)"),
        ("temporary_table", "DO $$BEGIN EXECUTE 'CREATE TEMP TABLE t (x int)'; END$$"),
        ("advisory_lock", "SELECT pg_advisory_lock(7)"),
        ("advisory_lock", "BEGIN; SELECT pg_advisory_lock(7); ROLLBACK"),
        ("listen", "LISTEN a"),
        ("listen", "DO $$BEGIN EXECUTE 'LIST' || 'EN a'; END$$"),
        ("hold_cursor", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
        ("sql_prepare", "DO $$BEGIN EXECUTE 'PREPARE p AS SELECT 1'; END$$"),
    ] {
        let mut client = comparison.proxy.client();
        client.ok(made);
        shows(&comparison, reason, made);
        client.ok("DISCARD ALL");
        let mut other = comparison.proxy.client();
        assert!(
            comparison.serves(&mut other, ConnectionExpectation::Free),
            "{made}: DISCARD ALL frees nobody"
        );
        assert_eq!(pinned(&comparison), [], "{made}");
        let page = comparison.proxy.metrics();
        let count = metric(&page, "pgimbal_clients_pinned", &[]).unwrap_or(0.0);
        assert!(count < 0.5, "{made}: {count} are counted");
    }
}

#[test]
fn state_seen_how_long_a_pin_has_lasted_grows() {
    let comparison = Comparison::with("", |config| config.set("listen_mode", "\"pin\""));
    let mut client = comparison.proxy.client();
    client.ok("LISTEN a");
    eventually("a second has passed", SOON, || {
        pinned(&comparison)
            .iter()
            .any(|(_, seconds)| seconds.parse::<f64>().is_ok_and(|s| s >= 1.0))
    });
    // A pin of another kind beside it does not begin anew, one after it does.
    client.ok("CREATE TEMP TABLE t (x int)");
    let seconds =
        |comparison: &Comparison| pinned(comparison)[0].1.parse::<f64>().expect("seconds");
    assert!(seconds(&comparison) >= 1.0, "{:?}", pinned(&comparison));
    client.ok("DISCARD ALL");
    client.ok("LISTEN a");
    shows(&comparison, "listen", "once more");
    assert!(seconds(&comparison) < 1.0, "{:?}", pinned(&comparison));
}

#[test]
fn state_seen_pins_for_statements_and_settings() {
    let change = |config: Config| config.set("max_statement_bytes", "\"1KiB\"");
    let comparison = Comparison::with("", change);
    let mut client = comparison.proxy.client();
    let long = format!("select 1 -- {}", "x".repeat(2000));
    client.run(&Pipeline::new().parse("long", &long).sync()).no_error();
    shows(&comparison, "large_statement", "a large statement");
    client.terminate();
    let mut client = comparison.proxy.client();
    for number in 0..80 {
        client.ok(&format!("SET app.many_{number} = '1'"));
    }
    shows(&comparison, "too_many_settings", "80 settings");
    client.ok("RESET ALL");
    client.ok("DISCARD ALL");
    let mut other = comparison.proxy.client();
    assert!(comparison.serves(&mut other, ConnectionExpectation::Free), "DISCARD ALL frees nobody");
    client.terminate();
    let mut client = comparison.proxy.client();
    client.run(&Pipeline::new().parse("s", "select now()::text").sync()).no_error();
    client.ok("SET TimeZone = 'Asia/Tokyo'");
    shows(&comparison, "statement_under_older_settings", "a statement of before");
}

#[test]
fn state_seen_a_question_that_is_refused_pins_as_unknown() {
    let comparison = Comparison::new();
    comparison.pg.run("REVOKE SELECT ON pg_catalog.pg_locks FROM public");
    comparison.pg.run("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_lock_status() FROM public");
    let mut client = comparison.proxy.client();
    client.ok("SELECT pg_advisory_lock(7)");
    client.ok("SELECT pg_advisory_unlock(7)");
    shows(&comparison, "unknown", "a refused question");
    client.terminate();
    assert_eq!(comparison.proxy.client().value("SELECT 1"), "1");
}

/// What `setseed(0.3)` makes of the first random number.
fn foreseen(mut own: WireClient) -> String {
    own.ok("SELECT setseed(0.3)");
    own.value("SELECT random()")
}

#[test]
fn state_seen_hidden_state_is_reset_or_pins() {
    for word in ["reset", "pin"] {
        let comparison =
            Comparison::with("", |config| config.set("hidden_state", format!("\"{word}\"")));
        let must = foreseen(comparison.direct());
        let mut client = comparison.proxy.client();
        client.ok("SELECT setseed(0.3)");
        if word == "pin" {
            shows(&comparison, "hidden_state", "setseed");
            assert_eq!(client.value("SELECT random()"), must);
            client.ok("SELECT setseed(0.3)");
            client.terminate();
        } else {
            let mut other = comparison.proxy.client();
            assert!(comparison.serves(&mut other, ConnectionExpectation::Free), "it pins");
            assert_eq!(pinned(&comparison), []);
        }
        assert_ne!(comparison.proxy.client().value("SELECT random()"), must, "{word}");
    }
}

#[test]
fn state_seen_questions_and_resets_are_counted() {
    let comparison = Comparison::new();
    let questions = |kind: Option<&str>| {
        let label = kind.map_or("kind=".to_owned(), |kind| format!("kind=\"{kind}"));
        metric(&comparison.proxy.metrics(), "pgimbal_questions_total", &[&label]).unwrap_or(0.0)
    };
    let mut client = comparison.proxy.client();
    // The database is asked about once in a while, ahead of the first statement.
    client.ok("SELECT 1");
    let mut before = questions(None);
    assert!(before < 1.5, "{before} questions ahead of the first statement");
    client.ok("SELECT 1");
    client.ok("SET work_mem = '5MB'");
    client.ok("RESET work_mem");
    let plain = questions(None) - before;
    assert!(plain < 0.5, "{plain} questions for plain statements");
    for (sql, what) in [
        ("DO $$BEGIN PERFORM 1; END$$", "a DO block"),
        ("BEGIN; CREATE TEMP TABLE t (x int) ON COMMIT DROP; COMMIT", "a temporary table"),
        ("SELECT pg_advisory_lock(7), pg_advisory_unlock(7)", "a lock"),
    ] {
        client.ok(sql);
        let mut other = comparison.proxy.client();
        assert!(comparison.serves(&mut other, ConnectionExpectation::Free), "{what} pins");
        let after = questions(None);
        assert!(after > before, "{what}: {before} and then {after} questions");
        before = after;
    }
    let resets = || metric(&comparison.proxy.metrics(), "pgimbal_resets_total", &[]).unwrap_or(0.0);
    let before = resets();
    client.ok("CREATE TEMP TABLE t (x int)");
    client.terminate();
    comparison.proxy.client().ok("SELECT 1");
    assert!(resets() > before, "{before} resets before and {} after", resets());
}

#[test]
fn state_seen_what_outlives_discard_all_ends_with_its_connection() {
    let comparison = Comparison::with("create extension dblink", |config| config);
    let mut client = comparison.proxy.client();
    let to = format!("host=127.0.0.1 port={} dbname=app user=scram", comparison.pg.port);
    client.ok(&format!("SELECT dblink_connect('c', '{to} password=scram-secret')"));
    shows(&comparison, "dblink", "dblink_connect");
    let process = client.value("SELECT pg_backend_pid()");
    client.ok("DISCARD ALL");
    let mut other = comparison.proxy.client();
    assert!(comparison.serves(&mut other, ConnectionExpectation::Free), "DISCARD ALL frees nobody");
    assert_eq!(other.value("SELECT dblink_get_connections() IS NULL"), "t");
    assert_ne!(other.value("SELECT pg_backend_pid()"), process);
}
