//! Settings and roles that transactions and savepoints undo: cases 1, 2, 7 to 12, 40, 42 and 43.

use pgimbal_tests::{Comparison, ConnectionExpectation, Pipeline, Script, Shape};

#[test]
fn state_case_01_a_setting_undone_by_a_savepoint_reaches_nobody() {
    Comparison::new().compare_steps(
        &[
            "BEGIN",
            "SET app.tenant = 'A'",
            "SAVEPOINT _EXEC_SVP_1",
            "SET app.tenant = 'B'",
            "SAVEPOINT _EXEC_SVP_2",
            "SELECT 1/0",
            "ROLLBACK TO _EXEC_SVP_2 ;; RELEASE _EXEC_SVP_2",
            "COMMIT",
        ],
        ConnectionExpectation::Free,
    );
}

#[test]
fn state_case_01b_nor_does_a_listed_one_undone_by_another_form() {
    let comparison = Comparison::new();
    for undo in [
        "ROLLBACK TO SAVEPOINT a ;; SELECT 1",
        "ROLLBACK WORK TO a ;; SAVEPOINT b ;; ROLLBACK TO b",
        "ROLLBACK TO a ;; RELEASE SAVEPOINT a ;; SET work_mem = '7MB'",
        "ROLLBACK TO a ;; SET LOCAL work_mem = '8MB'",
    ] {
        let steps = [
            "BEGIN ;; SET work_mem = '5MB'",
            "SAVEPOINT a ;; SET work_mem = '6MB'",
            undo,
            "COMMIT",
        ];
        comparison.compare_steps(&steps, ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_02_a_savepoint_beside_a_select_is_a_savepoint() {
    let steps = ["BEGIN", "SET ROLE boss", "SAVEPOINT s ;; SELECT 1", "ROLLBACK TO s", "COMMIT"];
    Comparison::new().compare_steps(&steps, ConnectionExpectation::Free);
}

#[test]
fn state_case_02b_so_is_one_beside_what_fails_or_changes() {
    let comparison = Comparison::new();
    for savepoint in [
        "SAVEPOINT s ;; SELECT 1",
        "SAVEPOINT s ;; SELECT 1/0",
        "SELECT 1 ;; SAVEPOINT s",
        "SAVEPOINT s ;; UPDATE accounts SET id = id",
        "SAVEPOINT s ;; SET app.x = '1'",
    ] {
        let steps = ["BEGIN", savepoint, "SET ROLE boss", "ROLLBACK TO s", "COMMIT"];
        comparison.compare_steps(&steps, ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_07_a_begin_that_waits_for_its_sync_makes_the_next_query_part_of_it() {
    let pipeline = Pipeline::new().run("BEGIN").query("RESET ROLE").query("ROLLBACK");
    let script = Script::new(&["SET ROLE boss"]).messages(pipeline, 2);
    Comparison::new().compare(&script, ConnectionExpectation::Free);
}

#[test]
fn state_case_07b_the_same_with_settings_and_other_words() {
    let comparison = Comparison::new();
    for (set, begin, change, end) in [
        ("SET app.x = '1'", "BEGIN", "RESET app.x", "ROLLBACK"),
        ("SET work_mem = '5MB'", "START TRANSACTION", "RESET ALL", "ABORT"),
        ("SET ROLE boss", "BEGIN READ ONLY", "SET ROLE NONE", "ROLLBACK WORK"),
        ("SET ROLE boss", "BEGIN", "RESET ROLE", "SELECT 1/0"),
    ] {
        let begun = Pipeline::new().parse("b", begin).bind("", "b", &[]).execute("", 0);
        let pipeline = begun.query(change).query(end).query("ROLLBACK");
        comparison.compare(&Script::new(&[set]).messages(pipeline, 3), ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_08_what_a_do_block_committed_stays() {
    let steps = ["SET ROLE boss ;; DO $$BEGIN COMMIT; END$$ ;; SELECT 1/0"];
    Comparison::new().compare_steps(&steps, ConnectionExpectation::Free);
}

#[test]
fn state_case_08b_what_a_procedure_or_a_commit_committed_stays() {
    let set_up = "create procedure commits() language plpgsql as $$begin commit; end$$";
    let comparison = Comparison::with(set_up, |config| config);
    for steps in [
        "SET app.x = '1' ;; CALL commits() ;; SELECT 1/0",
        "SET app.x = '1' ;; COMMIT ;; SELECT 1/0",
        "SET app.x = '1' ;; ROLLBACK",
        "SET app.x = '1' ;; BEGIN ;; SET app.y = '1' ;; ROLLBACK",
        "SET ROLE boss ;; DO $$BEGIN ROLLBACK; END$$ ;; SELECT 1",
    ] {
        comparison.compare_steps(&[steps, "ROLLBACK"], ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_09_reset_all_behind_a_local_default_in_a_block() {
    let steps =
        ["SET work_mem = '5MB'", "BEGIN", "SET LOCAL work_mem TO DEFAULT", "RESET ALL", "COMMIT"];
    Comparison::new().compare_steps(&steps, ConnectionExpectation::Free);
}

#[test]
fn state_case_09b_other_resets_behind_other_local_values() {
    let comparison = Comparison::new();
    for (local, reset) in [
        ("SET LOCAL work_mem = '6MB'", "RESET ALL"),
        ("SET LOCAL work_mem TO DEFAULT", "RESET work_mem"),
        ("SET LOCAL work_mem TO DEFAULT", "SET work_mem TO DEFAULT"),
        ("SELECT set_config('work_mem', '7MB', true)", "RESET ALL"),
        ("RESET ALL", "SET LOCAL work_mem TO DEFAULT"),
    ] {
        for end in ["COMMIT", "ROLLBACK"] {
            let steps = ["SET work_mem = '5MB'", "BEGIN", local, reset, end];
            comparison.compare_steps(&steps, ConnectionExpectation::Free);
        }
    }
}

#[test]
fn state_case_10_a_local_setting_beside_reset_all_lifts_no_pin() {
    let comparison = Comparison::with("create schema other", |config| config);
    let steps = [
        "SELECT 1 ;; SET search_path = other ;; SELECT 2",
        "SET LOCAL search_path TO DEFAULT ;; RESET ALL",
    ];
    comparison.compare_steps(&steps, ConnectionExpectation::MayStay);
}

#[test]
fn state_case_10b_nor_does_another_one() {
    let comparison = Comparison::new();
    for (set, reset) in [
        ("SELECT 1 ;; SET app.x = '1' ;; SELECT 2", "SET LOCAL app.x = '2' ;; RESET ALL"),
        ("SELECT 1 ;; SET ROLE boss ;; SELECT 2", "SET LOCAL ROLE NONE ;; RESET ALL"),
        ("SELECT 1 ;; SET work_mem = '5MB'", "BEGIN ;; RESET ALL ;; ROLLBACK"),
        ("SET LOCAL work_mem = '6MB' ;; SET work_mem = '5MB'", "RESET ALL ;; SELECT 1/0"),
    ] {
        comparison.compare_steps(&[set, reset], ConnectionExpectation::MayStay);
    }
}

#[test]
fn state_case_11_a_portal_that_is_another_cursor_by_now() {
    let other = Pipeline::new().parse("", "RESET ROLE").bind("p", "", &[]).close_portal("p").sync();
    let script = Script::new(&["SET ROLE boss", "BEGIN"])
        .messages(other, 1)
        .then(&["DECLARE p CURSOR FOR SELECT 1"])
        .messages(Pipeline::new().execute("p", 0).sync(), 1)
        .then(&["COMMIT"]);
    Comparison::new().compare(&script, ConnectionExpectation::Free);
}

#[test]
fn state_case_11b_the_same_with_portals_closed_by_sql() {
    let comparison = Comparison::new();
    for (bound, close) in [("RESET ROLE", "CLOSE p"), ("SET app.x = '1'", "CLOSE ALL")] {
        let other = Pipeline::new().parse("s", bound).bind("p", "s", &[]).sync();
        let script = Script::new(&["SET ROLE boss", "BEGIN"])
            .messages(other, 1)
            .then(&[close, "DECLARE p CURSOR FOR VALUES (1), (2)"])
            .messages(Pipeline::new().execute("p", 1).sync(), 1)
            .then(&["COMMIT"]);
        comparison.compare_in(
            &[Shape::Queries, Shape::Extended],
            &script,
            ConnectionExpectation::Free,
        );
    }
}

#[test]
fn state_case_12_a_portal_fetched_by_sql() {
    let bound = Pipeline::new()
        .parse("", "SELECT set_config('role', 'boss', false)")
        .bind("pp", "", &[])
        .sync();
    let script = Script::new(&["BEGIN"]).messages(bound, 1).then(&["FETCH ALL FROM pp", "COMMIT"]);
    Comparison::new().compare(&script, ConnectionExpectation::Free);
}

#[test]
fn state_case_12b_a_portal_moved_over_and_a_declared_cursor() {
    let comparison = Comparison::new();
    let config = "SELECT set_config('app.x', '1', false)";
    let bound = Pipeline::new().parse("s", config).bind("pp", "s", &[]).sync();
    let script = Script::new(&["BEGIN"]).messages(bound, 1).then(&["MOVE ALL IN pp", "COMMIT"]);
    comparison.compare(&script, ConnectionExpectation::Free);
    let declare = "DECLARE c CURSOR FOR SELECT set_config('role', 'boss', false)";
    comparison.compare_steps(
        &["BEGIN", declare, "FETCH 1 FROM c", "COMMIT"],
        ConnectionExpectation::Free,
    );
    comparison.compare_steps(&["BEGIN", declare, "COMMIT"], ConnectionExpectation::Free);
}

#[test]
fn state_case_40_names_are_cut_where_the_server_cuts_them() {
    // 40 letters are 40 bytes to the client and 80 to the server, which keeps 63 at most.
    let name = "\u{e9}".repeat(40);
    let steps = [
        "SET client_encoding = 'LATIN1'".to_owned(),
        "BEGIN".to_owned(),
        format!("SAVEPOINT {name}a"),
        "SET ROLE boss".to_owned(),
        format!("SAVEPOINT {name}b"),
        format!("ROLLBACK TO {name}a"),
        "COMMIT".to_owned(),
    ];
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    Comparison::new().compare(&Script::of_bytes(&steps), ConnectionExpectation::Free);
}

#[test]
fn state_case_40b_in_utf8_and_quoted_and_by_bytes() {
    let comparison = Comparison::new();
    for (one, other) in [
        (format!("{}a", "é".repeat(40)), format!("{}b", "é".repeat(40))),
        (format!("\"{}a\"", "é".repeat(31)), format!("\"{}\u{20ac}\"", "é".repeat(31))),
        (format!("{}a", "x".repeat(63)), format!("{}b", "x".repeat(63))),
        (format!("{}a", "x".repeat(62)), format!("{}b", "x".repeat(62))),
    ] {
        let steps = [
            format!("BEGIN ;; SAVEPOINT {one}"),
            "SET ROLE boss".to_owned(),
            format!("SAVEPOINT {other}"),
            format!("ROLLBACK TO {one}"),
            "COMMIT".to_owned(),
        ];
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        comparison.compare_steps(&steps, ConnectionExpectation::Free);
    }
}

#[test]
fn state_case_42_one_row_of_a_set_config_has_set_it() {
    let pipeline = Pipeline::new()
        .parse("", "SELECT set_config('app.x', '1', false)")
        .bind("", "", &[])
        .execute("", 1)
        .close_portal("")
        .sync();
    Comparison::new()
        .compare(&Script::default().messages(pipeline, 1), ConnectionExpectation::Free);
}

#[test]
fn state_case_42b_with_a_named_portal_in_a_block_and_without_a_close() {
    let comparison = Comparison::new();
    let sql = "SELECT set_config('role', 'boss', false)";
    let bound = || Pipeline::new().parse("s", sql).bind("p", "s", &[]);
    let one = bound().execute("p", 1).sync();
    let again =
        bound().execute("p", 1).execute("p", 1).close_portal("p").close_statement("s").sync();
    for end in ["COMMIT", "ROLLBACK"] {
        let script = Script::new(&["BEGIN"]).messages(one.clone(), 1).then(&[end]);
        comparison.compare_in(
            &[Shape::Queries, Shape::Extended],
            &script,
            ConnectionExpectation::Free,
        );
    }
    comparison.compare_in(
        &[Shape::Queries],
        &Script::default().messages(one, 1),
        ConnectionExpectation::Free,
    );
    comparison.compare_in(
        &[Shape::Queries],
        &Script::default().messages(again, 1),
        ConnectionExpectation::Free,
    );
    // What is bound and never executed has set nothing.
    let never = bound().describe_portal("p").close_portal("p").sync();
    comparison.compare_in(
        &[Shape::Queries],
        &Script::default().messages(never, 1),
        ConnectionExpectation::Free,
    );
}

#[test]
fn state_case_43_a_deferred_violation_undoes_what_had_its_tag() {
    let steps = ["SET app.x = '1' ;; INSERT INTO deferred VALUES (1)"];
    Comparison::new().compare_steps(&steps, ConnectionExpectation::Free);
}

#[test]
fn state_case_43b_a_role_a_set_config_and_a_commit() {
    let comparison = Comparison::new();
    for steps in [
        &["SET ROLE boss ;; INSERT INTO deferred VALUES (1)"][..],
        &["SELECT set_config('app.x', '1', false) ;; INSERT INTO deferred VALUES (1)"],
        &["BEGIN", "SET app.x = '1'", "INSERT INTO deferred VALUES (1)", "COMMIT"],
        &[
            "BEGIN",
            "SET app.x = '1'",
            "INSERT INTO deferred VALUES (1)",
            "COMMIT AND CHAIN",
            "ROLLBACK",
        ],
        &[
            "BEGIN ;; SET app.x = '1'",
            "SET CONSTRAINTS ALL IMMEDIATE ;; SAVEPOINT a",
            "INSERT INTO deferred VALUES (1)",
            "ROLLBACK TO a ;; COMMIT",
        ],
    ] {
        comparison.compare_steps(steps, ConnectionExpectation::Free);
    }
}
