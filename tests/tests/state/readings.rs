//! Texts that mean to the server what they do not seem to mean: cases 5, 6, 16, 19, 20 and 39.

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Comparison, ConnectionExpectation, Pipeline, Script, Shape};

/// A function in front of `pg_catalog` that does more than it says.
const OWN_SET_CONFIG: &str = "\
    create function public.set_config(text, text, boolean) returns text language plpgsql as \
    $$begin perform pg_catalog.set_config('role', 'boss', false); return $2; end$$; \
    create function public.set_config(text, varchar, boolean) returns text language plpgsql as \
    $$begin perform pg_catalog.set_config('role', 'boss', false); return $2; end$$";

/// The types text, varchar and bool.
const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;
const BOOL: u32 = 16;

fn verifying(word: &'static str) -> impl FnOnce(Config) -> Config {
    move |config| config.set("verify", format!("\"{word}\""))
}

#[test]
fn state_case_05_a_segment_that_changes_how_backslashes_are_read() {
    Comparison::new().compare_steps(
        &["SET LOCAL standard_conforming_strings = off ;; \
           SELECT '\\'', set_config($$role$$, $$boss$$, false) --'"],
        ConnectionExpectation::Free,
    );
}

#[test]
fn state_case_05b_by_set_config_by_set_and_in_a_block() {
    let comparison = Comparison::new();
    let hidden = "SELECT '\\'', set_config($$role$$, $$boss$$, false) --'";
    for off in [
        "SELECT set_config('standard_conforming_strings', 'off', true)",
        "SET standard_conforming_strings = off",
        "SET LOCAL backslash_quote = on ;; SET LOCAL standard_conforming_strings TO 'off'",
    ] {
        comparison.compare_steps(&[&format!("{off} ;; {hidden}")], ConnectionExpectation::Free);
        comparison.compare_steps(&["BEGIN", off, hidden, "COMMIT"], ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_06_a_segment_that_changes_where_characters_end() {
    let script = Script::of_bytes(&["SET LOCAL client_encoding = 'SJIS' ;; \
         SELECT E'\u{83}\\', set_config($$role$$, $$boss$$, false) --'"]);
    Comparison::new().compare(&script, ConnectionExpectation::Free);
}

#[test]
fn state_case_06b_with_other_encodings_and_other_ways_to_set_them() {
    let comparison = Comparison::new();
    for set in [
        "SELECT set_config('client_encoding', 'BIG5', true)",
        "SET LOCAL NAMES 'GBK'",
        "SET client_encoding TO SJIS",
    ] {
        let hidden = "SELECT E'\u{a6}\\', set_config($$role$$, $$boss$$, false) --'";
        let hidden = if set.contains("SJIS") {
            hidden.replace('\u{a6}', "\u{83}")
        } else {
            hidden.to_owned()
        };
        let beside = format!("{set} ;; {hidden}");
        comparison.compare(
            &Script::of_bytes(&[&beside, "RESET client_encoding"]),
            ConnectionExpectation::Free,
        );
        let steps = ["BEGIN", set, &hidden, "COMMIT", "RESET client_encoding"];
        comparison.compare(&Script::of_bytes(&steps), ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_16_tags_of_dollar_quotes_in_another_encoding() {
    let hidden = "SELECT $\u{83}A$ A $\u{83}B$ B $\u{83}A$, set_config($$role$$, $$boss$$, false)";
    let script =
        Script::of_bytes(&["SET client_encoding = 'SJIS'", hidden, "RESET client_encoding"]);
    Comparison::new().compare(&script, ConnectionExpectation::Free);
}

#[test]
fn state_case_16b_set_at_login_and_with_tags_of_other_bytes() {
    let comparison = Comparison::new().logged_in_with("client_encoding", "SJIS");
    for hidden in [
        "SELECT $\u{83}A$ A $\u{83}B$ B $\u{83}A$, set_config($$role$$, $$boss$$, false)",
        "SELECT $a\u{83}b$ $b$ ' $a\u{83}b$, set_config($$role$$, $$boss$$, false) -- '",
        "SELECT $\u{83}\u{5b}$ ' $\u{83}\u{5b}$, set_config($$app.x$$, $$1$$, false) -- '",
    ] {
        comparison.compare(&Script::of_bytes(&[hidden]), ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_19_what_is_put_together_while_it_runs() {
    let comparison = Comparison::new();
    let steps = ["DO $$BEGIN EXECUTE 'SE' || 'T ROLE boss'; END$$"];
    comparison.compare_steps(&steps, ConnectionExpectation::Free);
    let xml = "SELECT query_to_xml('SELECT set_config(''ro'' || ''le'', ''boss'', false)', true, \
               false, '') IS NULL";
    comparison.compare_steps(&[xml], ConnectionExpectation::Free);
}

#[test]
fn state_case_19b_in_blocks_and_in_other_functions() {
    let comparison = Comparison::new();
    for steps in [
        &["BEGIN", "DO $$BEGIN EXECUTE 'SE' || 'T ROLE boss'; END$$", "COMMIT"][..],
        &["BEGIN", "DO $$BEGIN EXECUTE 'SE' || 'T ROLE boss'; END$$", "ROLLBACK"],
        &[
            "BEGIN",
            "SAVEPOINT a",
            "DO $$BEGIN EXECUTE 'SE' || 'T app.x = 1'; END$$",
            "ROLLBACK TO a",
            "COMMIT",
        ],
        &["DO LANGUAGE plpgsql $x$BEGIN EXECUTE 'SE' || 'T work_mem = ''9MB'''; END$x$"],
        &[
            "SELECT query_to_xmlschema('SELECT 1 AS a', true, false, '') IS NULL, database_to_xml(true, false, '') IS NULL",
        ],
        &[
            "SELECT count(*) FROM ts_stat('SELECT to_tsvector(set_config(''ro'' || ''le'', ''boss'', false))')",
        ],
    ] {
        comparison.compare_steps(steps, ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_19c_a_function_that_is_called_when_calls_are_verified() {
    let set_up = "\
        create function become(text) returns void language plpgsql as \
        $$begin execute 'set role ' || $1; end$$; \
        create function become_quietly(text) returns int immutable language plpgsql as \
        $$begin perform set_config('role', $1, false); return 1; end$$; \
        create procedure tenant(text) language plpgsql as \
        $$begin perform set_config('app.tenant', $1, false); end$$";
    let comparison = Comparison::with(set_up, verifying("calls"));
    // What code sets is asked about by name: by those that sessions of the database have set.
    comparison.proxy.client().ok("SET app.tenant = 'somebody'");
    for steps in [
        &["SELECT become('boss')"][..],
        &["SELECT become_quietly('boss')"],
        &["SELECT 1 FROM accounts WHERE id = become_quietly('boss')"],
        &["EXPLAIN SELECT 1 FROM accounts WHERE id = become_quietly('boss')"],
        &["CALL tenant('A')"],
        &["BEGIN", "SELECT become('boss')", "ROLLBACK"],
        &["BEGIN", "SELECT become('boss')", "COMMIT"],
    ] {
        comparison.compare_steps(steps, ConnectionExpectation::Free);
    }
    // Planned, and so run, when it is bound.
    let bound = Pipeline::new()
        .parse("", "SELECT 1 FROM accounts WHERE id = become_quietly('boss')")
        .bind("", "", &[])
        .sync();
    comparison.compare_in(
        &[Shape::Queries],
        &Script::default().messages(bound, 1),
        ConnectionExpectation::Free,
    );
}

#[test]
fn state_case_19d_triggers_and_views_when_everything_is_verified() {
    let set_up = "\
        create function sets() returns trigger language plpgsql as \
        $$begin perform set_config('role', 'boss', false); return new; end$$; \
        create table watched (id int); grant all on watched to public; \
        create trigger sets before insert on watched for each row execute function sets(); \
        create function tenant() returns text language plpgsql as \
        $$begin return set_config('app.tenant', 'A', false); end$$; \
        create view tenants as select tenant() as tenant; grant all on tenants to public";
    let comparison = Comparison::with(set_up, verifying("always"));
    // What code sets is asked about by name: by those that sessions of the database have set.
    comparison.proxy.client().ok("SET app.tenant = 'somebody'");
    for steps in [
        &["INSERT INTO watched VALUES (1)"][..],
        &["SELECT * FROM tenants"],
        &["BEGIN", "INSERT INTO watched VALUES (1)", "ROLLBACK"],
        &["BEGIN", "SELECT * FROM tenants", "COMMIT"],
        &["SELECT 1 ;; INSERT INTO watched VALUES (1) ;; SELECT 2"],
    ] {
        comparison.compare_steps(steps, ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_20_set_limit_is_nobody_elses() {
    let comparison = Comparison::new();
    for call in ["SELECT set_limit(0.87)", "SELECT public.set_limit(0.87::real)"] {
        for shape in Shape::ALL {
            let mut client = comparison.pooled();
            Script::new(&[call]).play(&mut client, shape);
            let mut next = comparison.proxy.client();
            assert!(comparison.serves(&mut next, ConnectionExpectation::Free), "{shape:?}: a pin");
            assert_eq!(next.value("SELECT show_limit()"), "0.3", "{shape:?}: it reached the next");
            let own = client.value("SELECT show_limit()");
            assert!(["0.87", "0.3"].contains(&&own[..]), "{shape:?}: {own}");
            client.terminate();
            assert_eq!(next.value("SELECT show_limit()"), "0.3", "{shape:?}: it stayed");
        }
    }
}

#[test]
fn state_case_20b_nor_when_it_is_called_from_elsewhere() {
    let comparison = Comparison::new();
    let calls =
        ["DO $$BEGIN PERFORM set_limit(0.87); END$$", "SELECT id, set_limit(0.87) FROM accounts"];
    for call in calls {
        let mut client = comparison.pooled();
        client.ok(call);
        let mut next = comparison.proxy.client();
        assert!(comparison.serves(&mut next, ConnectionExpectation::Free), "{call}: a pin");
        assert_eq!(next.value("SELECT show_limit()"), "0.3", "{call}");
    }
}

#[test]
fn state_case_39_a_set_config_of_ones_own() {
    let comparison = Comparison::with(OWN_SET_CONFIG, |config| config);
    let set = "SELECT set_config('app.x', '1', false)";
    comparison
        .compare_steps(&["SET search_path = public, pg_catalog", set], ConnectionExpectation::Free);
}

#[test]
fn state_case_39b_one_that_wins_by_the_types_that_a_driver_declares() {
    let comparison = Comparison::with(OWN_SET_CONFIG, |config| config);
    let sql = "SELECT set_config($1, $2, $3)";
    for name in ["", "s"] {
        for types in [[TEXT, VARCHAR, BOOL], [VARCHAR, VARCHAR, BOOL], [TEXT, TEXT, BOOL]] {
            let pipeline = Pipeline::new()
                .parse_typed(name, sql, &types)
                .bind("", name, &["app.x", "1", "f"])
                .execute("", 0)
                .sync();
            let script = Script::default().messages(pipeline, 1);
            comparison.compare_in(&[Shape::Queries], &script, ConnectionExpectation::Free);
        }
    }
}

#[test]
fn state_case_39c_one_in_the_path_of_the_login_or_of_a_block() {
    let comparison = Comparison::with(OWN_SET_CONFIG, |config| config);
    let set = "SELECT set_config('app.x', '1', false)";
    for path in [
        "SELECT pg_catalog.set_config('search_path', 'public, pg_catalog', false)",
        "SET search_path = \"$user\", public, pg_catalog",
        "SET LOCAL search_path = public, pg_catalog",
    ] {
        comparison.compare_steps(&[&format!("{path} ;; {set}")], ConnectionExpectation::Free);
        comparison.compare_steps(&["BEGIN", path, set, "COMMIT"], ConnectionExpectation::Free);
    }
    let comparison = comparison.logged_in_with("search_path", "public, pg_catalog");
    comparison.compare_steps(&[set], ConnectionExpectation::Free);
}
