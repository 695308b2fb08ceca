//! What no rollback undoes: case 44.

use pgimbal_tests::{Comparison, ConnectionExpectation, Script, Shape};

#[test]
fn state_case_44_a_lock_of_a_statement_that_failed() {
    let comparison = Comparison::new();
    let steps = ["SELECT pg_advisory_lock(77), 1/(id-id) FROM accounts"];
    comparison.compare_steps(&steps, ConnectionExpectation::MayStay);
    let unlocked = [steps[0], "SELECT pg_advisory_unlock(77)"];
    comparison.compare_steps(&unlocked, ConnectionExpectation::Free);
}

#[test]
fn state_case_44b_a_lock_of_a_block_that_was_rolled_back() {
    let comparison = Comparison::new();
    for steps in [
        &["BEGIN", "SELECT pg_advisory_lock(77)", "ROLLBACK"][..],
        &[
            "BEGIN",
            "SAVEPOINT a",
            "SELECT pg_advisory_lock_shared(7, 8)",
            "ROLLBACK TO a",
            "COMMIT",
        ],
        &["SELECT pg_try_advisory_lock(77) ;; SELECT 1/0"],
        &["DO $$BEGIN PERFORM pg_advisory_lock(77); PERFORM 1/0; END$$"],
    ] {
        comparison.compare_steps(steps, ConnectionExpectation::MayStay);
    }
    let undone =
        ["BEGIN", "SELECT pg_advisory_lock(77)", "SELECT pg_advisory_unlock(77)", "ROLLBACK"];
    comparison.compare_steps(&undone, ConnectionExpectation::Free);
    let xact = ["BEGIN", "SELECT pg_advisory_xact_lock(77)", "ROLLBACK"];
    comparison.compare_steps(&xact, ConnectionExpectation::Free);
}

#[test]
fn state_case_44c_what_a_failed_do_block_prepared_and_seeded() {
    let comparison = Comparison::new();
    let block = "DO $$BEGIN EXECUTE 'PREPARE hidden AS SELECT 1'; PERFORM setseed(0.3); \
                 PERFORM 1/0; END$$";
    comparison.compare_steps(&[block], ConnectionExpectation::MayStay);
    comparison.compare_steps(
        &["BEGIN", block, "ROLLBACK", "EXECUTE hidden"],
        ConnectionExpectation::MayStay,
    );
    for shape in Shape::ALL {
        let mut own = comparison.direct();
        own.query(block);
        let foreseen = own.value("SELECT random()");
        let mut client = comparison.pooled();
        Script::new(&[block]).play(&mut client, shape);
        client.terminate();
        let drawn = comparison.proxy.client().value("SELECT random()");
        assert_ne!(drawn, foreseen, "{shape:?}: another client's seed was used");
    }
}

#[test]
fn state_case_44d_what_was_closed_in_a_block_that_was_rolled_back() {
    let comparison = Comparison::new();
    let cursor = "DECLARE c CURSOR WITH HOLD FOR SELECT 1";
    for steps in [
        &[cursor, "BEGIN", "CLOSE c", "ROLLBACK", "FETCH ALL FROM c"][..],
        &[cursor, "BEGIN", "CLOSE ALL", "ROLLBACK"],
        &[cursor, "CLOSE c ;; SELECT 1/0"],
        &["PREPARE p AS SELECT 1", "BEGIN", "DEALLOCATE p", "ROLLBACK", "EXECUTE p"],
        &["PREPARE p AS SELECT 1", "BEGIN", "DEALLOCATE ALL", "ROLLBACK"],
        &["PREPARE p AS SELECT 1", "DEALLOCATE p ;; SELECT 1/0"],
        &["LISTEN a", "BEGIN", "UNLISTEN a", "COMMIT"],
    ] {
        comparison.compare_in(&Shape::WAITING, &Script::new(steps), ConnectionExpectation::Free);
    }
    for steps in [
        &["LISTEN a", "BEGIN", "UNLISTEN a", "ROLLBACK"][..],
        &["PREPARE p AS SELECT 1 ;; SELECT 1/0", "EXECUTE p"],
        &["BEGIN", "PREPARE p AS SELECT 1", "ROLLBACK", "EXECUTE p"],
    ] {
        comparison.compare_in(&Shape::WAITING, &Script::new(steps), ConnectionExpectation::MayStay);
    }
}

#[test]
fn state_a_client_that_leaves_in_a_transaction_takes_its_settings_along() {
    let comparison = Comparison::new();
    let must = comparison.direct().value("SHOW work_mem");
    for change in ["RESET work_mem", "SET LOCAL work_mem = '7MB'", "RESET ALL"] {
        let mut client = comparison.pooled();
        client.ok("SET work_mem = '5MB'");
        client.ok("BEGIN");
        client.ok(change);
        client.terminate();
        assert_eq!(comparison.proxy.client().value("SHOW work_mem"), must, "{change}");
    }
}
