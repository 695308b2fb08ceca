//! Pins that end with what they were for: cases 24 to 31.

use pgimbal_tests::{Comparison, ConnectionExpectation, Pipeline, Script, Shape};

/// Everybody of `clients` plays `script` at once `rounds` times on a pool of `servers` with the
/// default `max_pinned`; the answers with an error.
fn crowd(
    comparison: &Comparison,
    clients: usize,
    rounds: usize,
    script: &Script,
    shape: Shape,
) -> Vec<String> {
    std::thread::scope(|scope| {
        let one = || {
            let mut client = comparison.proxy.client();
            let replies = (0..rounds).flat_map(|_| script.play(&mut client, shape));
            replies.flat_map(|reply| reply.errors()).map(|error| format!("{error:?}")).collect()
        };
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
        threads
            .into_iter()
            .flat_map(|thread| -> Vec<String> { thread.join().expect("a client") })
            .collect()
    })
}

/// A pool of `size` with the `max_pinned` of everybody.
fn pool(size: u32) -> Comparison {
    Comparison::with("", |config| config.set("pool_size", size).set("max_pinned", "\"75%\""))
}

#[test]
fn state_case_24_temporary_tables_that_go_with_their_transaction() {
    let comparison = pool(5);
    let script = Script::new(&[
        "BEGIN",
        "CREATE TEMP TABLE t (x int) ON COMMIT DROP",
        "INSERT INTO t VALUES (1)",
        "SELECT count(*) FROM t",
        "COMMIT",
    ]);
    for shape in Shape::ALL {
        let mut clients: Vec<_> = (0..10).map(|_| comparison.proxy.client()).collect();
        for round in 0..2 {
            for client in &mut clients {
                for reply in script.play(client, shape) {
                    assert_eq!(reply.errors(), [], "{shape:?}, round {round}");
                }
            }
        }
    }
}

#[test]
fn state_case_24b_from_many_at_once_and_in_other_words() {
    let comparison = pool(5);
    for steps in [
        &["BEGIN ;; CREATE TEMP TABLE t (x int) ON COMMIT DROP", "COMMIT"][..],
        &[
            "BEGIN",
            "CREATE TEMPORARY TABLE t ON COMMIT DROP AS SELECT 1 AS x",
            "SELECT * FROM t",
            "END",
        ],
        &["CREATE TEMP TABLE t (x int) ON COMMIT DROP ;; INSERT INTO t VALUES (1)"],
        &["BEGIN", "CREATE TEMP TABLE t (x int)", "DROP TABLE t", "COMMIT"],
    ] {
        let errors = crowd(&comparison, 10, 2, &Script::new(steps), Shape::Extended);
        assert_eq!(errors, [""; 0], "{steps:?}");
    }
    let comparison = Comparison::new();
    let steps = ["BEGIN", "CREATE TEMP TABLE t (x int) ON COMMIT DROP", "COMMIT"];
    comparison.compare_steps(&steps, ConnectionExpectation::Free);
}

#[test]
fn state_case_25_what_was_rolled_back_keeps_nobody() {
    let comparison = Comparison::new();
    for made in [
        "CREATE TEMP TABLE t (x int)",
        "LISTEN a",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SELECT set_config('app.x', id::text, false) FROM accounts",
    ] {
        comparison.compare_steps(&["BEGIN", made, "ROLLBACK"], ConnectionExpectation::Free);
        comparison.compare_steps(&[&format!("{made} ;; SELECT 1/0")], ConnectionExpectation::Free);
        comparison
            .compare_steps(&["BEGIN", made, "SELECT 1/0", "COMMIT"], ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_25b_what_failed_keeps_nobody() {
    let comparison = Comparison::new();
    for failed in [
        "CREATE TEMP TABLE t AS SELECT 1/0",
        "CREATE TEMP TABLE t (x nosuchtype)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1/0",
        "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM nowhere",
        "SELECT set_config('app.x', '1', false), 1/(id-id) FROM accounts",
        "SELECT set_config('nosuchsetting', '1', false)",
        "LISTEN",
    ] {
        comparison.compare_steps(&[failed], ConnectionExpectation::Free);
        comparison.compare_steps(
            &["BEGIN", "SAVEPOINT a", failed, "ROLLBACK TO a", "COMMIT"],
            ConnectionExpectation::Free,
        );
    }
}

#[test]
fn state_case_26_a_temporary_table_that_was_dropped() {
    let comparison = Comparison::new();
    comparison.compare_steps(
        &["CREATE TEMP TABLE t (x int)", "DROP TABLE t"],
        ConnectionExpectation::Free,
    );
    // On a connection without a temporary schema the notice would be another.
    comparison.compare_steps(
        &["CREATE TEMP TABLE x ()", "DROP TABLE IF EXISTS pg_temp.x"],
        ConnectionExpectation::Free,
    );
}

#[test]
fn state_case_26b_dropped_otherwise_and_what_is_no_table() {
    let comparison = Comparison::new();
    for steps in [
        &["CREATE TEMP TABLE t (x int)", "SELECT * FROM t", "DROP TABLE IF EXISTS pg_temp.t"][..],
        &["CREATE TEMP TABLE t AS SELECT 1 AS x", "BEGIN", "DROP TABLE t", "COMMIT"],
        &["CREATE TEMP TABLE t (x serial)", "DROP TABLE t CASCADE"],
        &["CREATE TEMP VIEW v AS SELECT 1", "DROP VIEW v"],
        &["CREATE TEMP SEQUENCE q", "DROP SEQUENCE q"],
        &["CREATE TEMP TABLE t (x int)", "DISCARD TEMP"],
        &["CREATE TEMP TABLE t (x int)", "DO $$BEGIN EXECUTE 'DROP TABLE t'; END$$"],
        &["CREATE TEMP TABLE t (x int) ;; DROP TABLE t"],
        &[
            "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP FUNCTION pg_temp.f()",
        ],
        &["SELECT to_regclass('pg_temp.nothing') IS NULL"],
    ] {
        comparison.compare_steps(steps, ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_27_a_lock_that_was_given_back_or_never_got() {
    let comparison = Comparison::new();
    comparison.compare_steps(
        &["SELECT pg_advisory_lock(7)", "SELECT pg_advisory_unlock(7)"],
        ConnectionExpectation::Free,
    );
    let mut holders = comparison.superusers();
    for holder in &mut holders {
        holder.ok("SELECT pg_advisory_lock(8), pg_advisory_lock(1, 2)");
    }
    comparison.compare_steps(&["SELECT pg_try_advisory_lock(8)"], ConnectionExpectation::Free);
    comparison
        .compare_steps(&["SELECT pg_try_advisory_lock_shared(1, 2)"], ConnectionExpectation::Free);
}

#[test]
fn state_case_27b_as_migrations_do_it() {
    let comparison = Comparison::new();
    let bound = |sql: &str| {
        let run = Pipeline::new().parse("", sql).describe_statement("").bind("", "", &["72707369"]);
        run.execute("", 0).sync()
    };
    // golang-migrate, which binds its key.
    let script = Script::default()
        .messages(bound("SELECT pg_advisory_lock($1)"), 1)
        .then(&["SELECT 1"])
        .messages(bound("SELECT pg_advisory_unlock($1)"), 1);
    comparison.compare_in(&[Shape::Queries], &script, ConnectionExpectation::Free);
    for steps in [
        &[
            "SELECT pg_try_advisory_lock(4242)",
            "BEGIN",
            "SELECT 1",
            "COMMIT",
            "SELECT pg_advisory_unlock(4242)",
        ][..],
        &["SELECT pg_advisory_lock(1, 2)", "SELECT pg_advisory_unlock(1, 2)"],
        &["SELECT pg_advisory_lock_shared(7)", "SELECT pg_advisory_unlock_shared(7)"],
        &[
            "SELECT pg_advisory_lock(7), pg_advisory_lock(7)",
            "SELECT pg_advisory_unlock(7)",
            "SELECT pg_advisory_unlock(7)",
        ],
        &["SELECT pg_advisory_lock(7)", "SELECT pg_advisory_unlock_all()"],
        &["SELECT pg_advisory_lock(7) ;; SELECT pg_advisory_unlock(7)"],
        &["SELECT pg_advisory_lock(7)", "DO $$BEGIN PERFORM pg_advisory_unlock(7); END$$"],
        &["BEGIN", "SELECT pg_advisory_lock(7)", "SELECT pg_advisory_unlock(7)", "COMMIT"],
        &["SELECT pg_advisory_unlock(7)"],
    ] {
        comparison.compare_steps(steps, ConnectionExpectation::Free);
    }
    // Locked twice and given back once is locked.
    let once = ["SELECT pg_advisory_lock(7), pg_advisory_lock(7)", "SELECT pg_advisory_unlock(7)"];
    comparison.compare_steps(&once, ConnectionExpectation::MayStay);
}

#[test]
fn state_case_28_a_cursor_that_was_closed() {
    let steps = ["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "FETCH ALL FROM c", "CLOSE c"];
    Comparison::new().compare_steps(&steps, ConnectionExpectation::Free);
}

#[test]
fn state_case_28b_as_django_and_psqlodbc_do_it() {
    let comparison = Comparison::new();
    for steps in [
        &[
            "DECLARE \"_django_curs_1_sync_1\" NO SCROLL CURSOR WITH HOLD FOR SELECT id FROM accounts",
            "FETCH FORWARD 2000 FROM \"_django_curs_1_sync_1\"",
            "FETCH FORWARD 2000 FROM \"_django_curs_1_sync_1\"",
            "CLOSE \"_django_curs_1_sync_1\"",
        ][..],
        &[
            "BEGIN ;; declare \"SQL_CUR0x1\" cursor with hold for select id from accounts ;; fetch 100 in \"SQL_CUR0x1\"",
            "COMMIT",
            "fetch 100 in \"SQL_CUR0x1\"",
            "close \"SQL_CUR0x1\"",
        ],
        &["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE c", "COMMIT"],
        &["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "BEGIN ;; CLOSE c ;; COMMIT"],
        &["DECLARE c CURSOR WITH HOLD FOR SELECT 1 ;; CLOSE c"],
        &["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE ALL"],
    ] {
        comparison.compare_steps(steps, ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_29_what_is_no_longer_listened_to_or_prepared() {
    let comparison = Comparison::new();
    comparison.compare_steps(&["LISTEN a", "UNLISTEN a"], ConnectionExpectation::Free);
    comparison
        .compare_steps(&["PREPARE p AS SELECT 1", "DEALLOCATE p"], ConnectionExpectation::Free);
}

#[test]
fn state_case_29b_by_other_words_and_one_of_two() {
    let comparison = Comparison::new();
    for steps in [
        &["LISTEN a ;; LISTEN b", "UNLISTEN a", "UNLISTEN b"][..],
        &["LISTEN \"A b\"", "UNLISTEN \"A b\""],
        &["BEGIN", "LISTEN a", "COMMIT", "BEGIN ;; UNLISTEN a ;; COMMIT"],
        &["LISTEN a", "DO $$BEGIN EXECUTE 'UNLISTEN *'; END$$"],
        &["UNLISTEN a"],
        &["PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE PREPARE p"],
        &["PREPARE p (int) AS SELECT $1", "EXECUTE p(1)", "DEALLOCATE ALL"],
        &["PREPARE p AS SELECT 1 ;; EXECUTE p ;; DEALLOCATE p"],
    ] {
        comparison.compare_in(&Shape::WAITING, &Script::new(steps), ConnectionExpectation::Free);
    }
    comparison
        .compare_steps(&["LISTEN a ;; LISTEN b", "UNLISTEN a"], ConnectionExpectation::MayStay);
}

#[test]
fn state_case_30_pgadmins_opening() {
    let steps = ["SET DateStyle=ISO ;; SET client_min_messages=notice ;; \
         SELECT set_config('bytea_output','hex',false) FROM pg_show_all_settings() \
         WHERE name = 'bytea_output' ;; SET client_encoding='UTF8'"];
    Comparison::new().compare_steps(&steps, ConnectionExpectation::Free);
}

#[test]
fn state_case_30b_in_a_block_and_with_what_it_finds() {
    let comparison = Comparison::new();
    for set in [
        "SELECT set_config('bytea_output', 'escape', false) FROM pg_show_all_settings() WHERE name = 'bytea_output'",
        "SELECT set_config('bytea_output', 'escape', false) FROM pg_show_all_settings() WHERE name = 'none'",
        "SELECT set_config(name, '9MB', false) FROM pg_settings WHERE name = 'work_mem'",
        "UPDATE pg_settings SET setting = '9MB' WHERE name = 'work_mem'",
    ] {
        comparison.compare_steps(&[set], ConnectionExpectation::Free);
        comparison.compare_steps(&["BEGIN", set, "COMMIT"], ConnectionExpectation::Free);
        comparison.compare_steps(&["BEGIN", set, "ROLLBACK"], ConnectionExpectation::Free);
    }
}

/// Parse, Bind with `values` and Execute as a driver does it.
fn bound(sql: &str, values: &[&str]) -> Pipeline {
    Pipeline::new().parse("", sql).describe_statement("").bind("", "", values).execute("", 0).sync()
}

const TENANT: &str = "SELECT set_config('app.tenant', $1, false)";
const TWO: &str = "SELECT set_config('app.x', $1, false), set_config('app.y', $2, false)";

#[test]
fn state_case_31_bound_values_of_set_config_are_followed() {
    let comparison = Comparison::new();
    for pipeline in [bound(TENANT, &["A"]), bound(TWO, &["it's", "\\ \" ü"])] {
        let script = Script::default().messages(pipeline, 1);
        comparison.compare_in(&[Shape::Queries], &script, ConnectionExpectation::Free);
    }
    let comparison = pool(8);
    let mut clients: Vec<_> = (0..12).map(|_| comparison.proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.run(&bound(TENANT, &[&number.to_string()])).no_error();
        assert_eq!(comparison.pins(), [""; 0], "client {number}");
        client.run(&bound(TWO, &[&format!("x{number}"), &format!("y{number}")])).no_error();
        assert_eq!(comparison.pins(), [""; 0], "client {number}");
    }
    let asked = "SELECT concat_ws(' ', current_setting('app.tenant'), current_setting('app.x'), \
                 current_setting('app.y'))";
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.value(asked), format!("{number} x{number} y{number}"));
    }
}

#[test]
fn state_case_31b_by_name_in_blocks_with_nulls_and_types() {
    let comparison = Comparison::new();
    let named = Pipeline::new().parse_typed("s", TENANT, &[25]).describe_statement("s").sync();
    let again = |value: &str| Pipeline::new().bind("p", "s", &[value]).execute("p", 0).sync();
    let script =
        Script::default().messages(named, 1).messages(again("A"), 1).messages(again("B"), 1);
    comparison.compare_in(&[Shape::Queries], &script, ConnectionExpectation::Free);
    for end in ["COMMIT", "ROLLBACK"] {
        let script = Script::new(&["BEGIN"]).messages(bound(TENANT, &["A"]), 1).then(&[end]);
        comparison.compare_in(&Shape::WAITING, &script, ConnectionExpectation::Free);
    }
    for (sql, values) in [
        ("SELECT set_config($1, $2, false)", &["app.tenant", "A"][..]),
        ("SELECT set_config($1, $2, $3)", &["work_mem", "9MB", "false"]),
        ("SELECT set_config($1, $2, $3)", &["work_mem", "9MB", "true"]),
        ("SELECT pg_catalog.set_config('role', $1, false)", &["boss"]),
        (
            "SELECT set_config('timezone', $1, false) AS a, set_config('app.x', 'x', false) AS b, 1",
            &["UTC"],
        ),
        ("SELECT set_config('work_mem', $1, false)", &["nonsense"]),
    ] {
        let script = Script::default().messages(bound(sql, values), 1);
        comparison.compare_in(&[Shape::Queries], &script, ConnectionExpectation::Free);
    }
    let steps = ["SELECT set_config('app.x', '1', false), set_config('app.y', '2', false)"];
    comparison.compare_steps(&steps, ConnectionExpectation::Free);
}
