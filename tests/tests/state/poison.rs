//! Connections that carry what the server will no longer take: cases 21 to 23 and 41.

use std::time::Duration;

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::script::comparable_replies;
use pgimbal_tests::{Comparison, ConnectionExpectation, Script, Shape, WireClient};

/// How long anybody may wait for what only pgimbal does.
const SOON_ENOUGH: Duration = Duration::from_secs(5);

/// What a client of a healthy connection may do.
const ORDINARY: [&str; 7] = [
    "SELECT 1",
    "BEGIN",
    "COMMIT",
    "SET work_mem = '5MB'",
    "RESET ALL",
    "DISCARD ALL",
    "DO $$BEGIN PERFORM 1; END$$",
];

/// Everything ordinary works for `client`.
fn works(client: &mut WireClient, what: &str) {
    for sql in ORDINARY {
        assert_eq!(client.query(sql).errors(), [], "{what}: {sql}");
    }
}

#[test]
fn state_case_21_a_setting_that_a_library_takes_away() {
    let comparison = Comparison::new();
    for shape in Shape::ALL {
        // New server processes, which have not loaded the language.
        comparison.pg.end_backends();
        let mut next = comparison.proxy.client();
        let (mut client, mut twin) = (comparison.pooled(), comparison.direct());
        for (number, step) in
            ["SET plpgsql.my_flag = 'on'", "DO $$BEGIN PERFORM 1; END$$"].iter().enumerate()
        {
            let script = Script::new(&[step]);
            let must = comparable_replies(&script.play(&mut twin, shape));
            assert_eq!(
                comparable_replies(&script.play(&mut client, shape)),
                must,
                "{shape:?}: {step}"
            );
            let warned = must.iter().any(|line| line.contains("WARNING"));
            assert_eq!(warned, number == 1, "{shape:?}: the case is not what it was: {must:?}");
        }
        works(&mut next, "the next client");
        works(&mut comparison.proxy.client(), "a new client");
        works(&mut client, "the client itself");
        client.terminate();
        works(&mut next, "when it has left");
    }
}

#[test]
fn state_case_21b_found_by_another_client_or_another_library() {
    let comparison = Comparison::new();
    for (set, load) in [
        ("SET plpgsql.my_flag = 'on'", "DO $$BEGIN PERFORM 1; END$$"),
        ("SET pg_trgm.similarity_treshold = '0.5'", "SELECT show_limit()"),
        ("SELECT set_config('pg_trgm.similarity_treshold', '0.5', false)", "SELECT show_limit()"),
        ("BEGIN; SET pg_trgm.similarity_treshold = '0.5'; COMMIT", "SELECT show_limit()"),
    ] {
        comparison.pg.end_backends();
        let (mut client, mut next) = (comparison.pooled(), comparison.proxy.client());
        client.ok(set);
        assert_eq!(next.query(load).errors(), [], "{set}: whoever loads it");
        works(&mut next, set);
        assert_eq!(client.query("SELECT 1").errors(), [], "{set}: the client itself");
        works(&mut client, set);
        // And set again where the library may be there already, which PostgreSQL refuses.
        let mut late = comparison.proxy.client();
        let refused = late.query(set);
        assert!(refused.errors().iter().all(|error| error.code == "42602"), "{set}: {refused:?}");
        late.ok("ROLLBACK");
        works(&mut late, set);
    }
}

#[test]
fn state_case_22_a_superusers_setting_when_it_is_none_any_more() {
    let comparison = Comparison::new();
    for (number, set) in [
        "SET log_min_messages = 'error'",
        "SELECT set_config('log_min_messages', 'error', false)",
        "BEGIN; SET log_min_messages = 'error'; COMMIT",
    ]
    .iter()
    .enumerate()
    {
        comparison.run("ALTER ROLE app SUPERUSER");
        let (mut client, mut next) = (comparison.pooled(), comparison.proxy.client());
        client.ok(set);
        comparison.run("ALTER ROLE app NOSUPERUSER");
        works(&mut next, set);
        works(&mut comparison.proxy.client(), set);
        // The client itself may be told that its setting cannot be had; never that it cannot
        // give it up.
        let give_up = ["RESET ALL", "DISCARD ALL", "RESET ALL"][number];
        assert_eq!(client.query(give_up).errors(), [], "{set}: {give_up}");
        works(&mut client, set);
        works(&mut next, set);
    }
}

#[test]
fn state_case_22b_a_parameters_privilege_that_is_revoked() {
    let comparison = Comparison::new();
    for give_up in ["RESET ALL", "DISCARD ALL"] {
        comparison.run("GRANT SET ON PARAMETER log_min_messages TO app");
        let (mut client, mut next) = (comparison.pooled(), comparison.proxy.client());
        client.ok("SET log_min_messages = 'error'");
        comparison.run("REVOKE SET ON PARAMETER log_min_messages FROM app");
        works(&mut next, "the next client");
        works(&mut comparison.proxy.client(), "a new client");
        assert_eq!(client.query(give_up).errors(), [], "{give_up}");
        works(&mut client, "the client itself");
    }
    // When the client leaves with it, the connection is as good as any.
    comparison.run("GRANT SET ON PARAMETER log_min_messages TO app");
    let mut client = comparison.pooled();
    client.ok("SET log_min_messages = 'error'");
    comparison.run("REVOKE SET ON PARAMETER log_min_messages FROM app");
    client.terminate();
    works(&mut comparison.proxy.client(), "a new client");
}

#[test]
fn state_case_23_a_role_that_was_dropped() {
    let comparison = Comparison::new();
    for (replaces, must) in [
        (&["RESET ROLE"][..], "app"),
        (&["SET ROLE boss"], "boss"),
        (&["DISCARD ALL"], "app"),
        (&["RESET ALL", "RESET ROLE"], "app"),
        (&["SET ROLE NONE"], "app"),
        (&["SET SESSION AUTHORIZATION DEFAULT"], "app"),
    ] {
        for shape in Shape::ALL {
            comparison.pg.run("DROP ROLE IF EXISTS gone");
            comparison.pg.run("CREATE ROLE gone");
            comparison.pg.run("GRANT gone TO app");
            let (mut client, mut next) = (comparison.pooled(), comparison.proxy.client());
            client.ok("SET ROLE gone");
            comparison.pg.run("DROP ROLE gone");
            works(&mut next, "the next client");
            // It may be told, but nobody else, and it must be able to go on.
            client.query("SELECT 1");
            for reply in Script::new(replaces).play(&mut client, shape) {
                assert_eq!(reply.errors(), [], "{replaces:?} {shape:?}");
            }
            assert_eq!(client.value("SELECT current_user"), must, "{replaces:?} {shape:?}");
            client.ok("RESET ROLE");
            works(&mut client, "the client itself");
            works(&mut next, "the next client");
        }
    }
}

#[test]
fn state_case_23b_a_membership_or_a_search_configuration() {
    let comparison = Comparison::new();
    for replaces in [&["RESET ROLE"][..], &["DISCARD ALL"], &["SET ROLE NONE"]] {
        comparison.pg.run("GRANT boss TO app");
        let take = ["REVOKE boss FROM app"];
        for shape in Shape::WAITING {
            comparison.pg.run("GRANT boss TO app");
            let (mut client, mut next) = (comparison.pooled(), comparison.proxy.client());
            client.ok("SET ROLE boss");
            comparison.pg.run(take[0]);
            works(&mut next, "the next client");
            client.query("SELECT 1");
            for reply in Script::new(replaces).play(&mut client, shape) {
                assert_eq!(reply.errors(), [], "{replaces:?} {shape:?}");
            }
            assert_eq!(client.value("SELECT current_user"), "app", "{replaces:?}");
            works(&mut next, "the next client");
        }
    }
    let setting = "SELECT current_setting('default_text_search_config')";
    for (replaces, must) in [
        (&["RESET default_text_search_config"][..], "pg_catalog.english"),
        (&["SET default_text_search_config = 'pg_catalog.simple'"], "pg_catalog.simple"),
        (&["RESET ALL"], "pg_catalog.english"),
        (&["DISCARD ALL"], "pg_catalog.english"),
    ] {
        for shape in Shape::WAITING {
            comparison.pg.run("CREATE TEXT SEARCH CONFIGURATION mine (COPY = simple)");
            let (mut client, mut next) = (comparison.pooled(), comparison.proxy.client());
            let default = client.value(setting);
            client.ok("SET default_text_search_config = 'public.mine'");
            comparison.pg.run("DROP TEXT SEARCH CONFIGURATION mine");
            works(&mut next, "the next client");
            for reply in Script::new(replaces).play(&mut client, shape) {
                assert_eq!(reply.errors(), [], "{replaces:?} {shape:?}");
            }
            let must = if must.ends_with("english") { &default } else { must };
            assert_eq!(client.value(setting), must, "{replaces:?} {shape:?}");
        }
    }
}

#[test]
fn state_case_23c_a_block_can_be_ended_and_the_rest_is_told() {
    let comparison = Comparison::new();
    comparison.pg.run("CREATE ROLE gone");
    comparison.pg.run("GRANT gone TO app");
    let (mut client, mut next) = (comparison.pooled(), comparison.proxy.client());
    client.ok("SET ROLE gone");
    comparison.pg.run("DROP ROLE gone");
    works(&mut next, "the next client");
    let told = client.query("SELECT 1");
    assert!(told.errors().iter().all(|error| error.code == "22023"), "{told:?}");
    assert_eq!(told.status(), 'I');
    let begun = client.query("BEGIN");
    client.query("ROLLBACK");
    assert!(begun.errors().iter().all(|error| error.code == "22023"), "{begun:?}");
    client.ok("RESET ROLE");
    works(&mut client, "the client itself");
}

/// A serializable writer is at work, and a client has left the defaults that make any SELECT
/// wait for it.
fn nobody_waits(set: &[&str], change: impl FnOnce(Config) -> Config) {
    let comparison = Comparison::with("", change);
    let (mut client, mut other) = (comparison.pooled(), comparison.proxy.client());
    other.ok("SET work_mem = '5MB'");
    other.ok("SET search_path = public, pg_catalog");
    other.ok("SELECT set_config('app.x', 'it''s', false)");
    client.ok("SET search_path = pg_catalog, public");
    for shape in Shape::ALL {
        for reply in Script::new(set).play(&mut client, shape) {
            reply.no_error();
        }
        let mut writer = comparison.pg.superuser();
        writer.ok("BEGIN ISOLATION LEVEL SERIALIZABLE");
        writer.ok("INSERT INTO accounts VALUES (2, 'writer')");
        other.set_timeout(SOON_ENOUGH);
        assert_eq!(other.value("SHOW work_mem"), "5MB", "{shape:?}");
        assert_eq!(other.value("SELECT current_setting('app.x')"), "it's", "{shape:?}");
        let mut new = comparison.proxy.client();
        new.set_timeout(SOON_ENOUGH);
        assert_eq!(new.value("SHOW default_transaction_isolation"), "read committed");
        assert_eq!(other.value("SHOW search_path"), "public, pg_catalog", "{shape:?}");
        // SHOW is no SELECT: it waits for nobody on a session of its own.
        client.set_timeout(SOON_ENOUGH);
        assert_eq!(client.value("SHOW search_path"), "pg_catalog, public", "{shape:?}: itself");
        writer.ok("ROLLBACK");
    }
    client.terminate();
    works(&mut other, "when it has left");
}

#[test]
fn state_case_41_defaults_that_make_a_select_wait_for_writers() {
    let set = [
        "SET default_transaction_isolation = 'serializable'",
        "SET default_transaction_read_only = on",
        "SET default_transaction_deferrable = on",
    ];
    nobody_waits(&set, |config| config);
}

#[test]
fn state_case_41b_set_in_one_statement_and_with_a_question_behind() {
    let set = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, \
               DEFERRABLE";
    nobody_waits(&[set], |config| config);
    let asked = "SELECT set_config(name, 'on', false) FROM pg_settings \
                 WHERE name IN ('default_transaction_read_only', 'default_transaction_deferrable')";
    nobody_waits(&[asked, "SET default_transaction_isolation = 'serializable'"], |config| config);
}

#[test]
fn state_case_41c_left_by_a_client_that_is_gone() {
    let comparison = Comparison::new();
    let mut writer = comparison.pg.superuser();
    writer.ok("BEGIN ISOLATION LEVEL SERIALIZABLE");
    writer.ok("INSERT INTO accounts VALUES (2, 'writer')");
    let mut client = comparison.pooled();
    client.ok("BEGIN; SET default_transaction_isolation = 'serializable'; \
               SET default_transaction_read_only = on; SET default_transaction_deferrable = on; \
               CREATE TEMP TABLE t (x int); COMMIT");
    client.terminate();
    let mut next = comparison.proxy.client();
    next.set_timeout(SOON_ENOUGH);
    assert_eq!(next.value("SELECT 1"), "1");
    let mut other = comparison.proxy.client();
    assert!(comparison.serves(&mut other, ConnectionExpectation::Free));
}
