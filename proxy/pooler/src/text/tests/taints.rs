//! What a text leaves in its session.

use super::*;

fn assert_taints(expected: &[Taint], texts: &[&str]) {
    for text in texts {
        assert_eq!(taints(text), expected, "{text}");
    }
}

#[test]
fn ordinary_texts_leave_nothing() {
    assert_taints(
        &[],
        &[
            "SELECT * FROM temp WHERE hold = 'LISTEN' AND local = 1",
            "INSERT INTO temp VALUES (1)",
            "UPDATE t SET temporary = 1; SELECT 1",
            "CREATE TABLE temp (a int); DROP TABLE temp",
            "SELECT 'set_config(', \"Set_Config\"(1), set_configs(2)",
            "SELECT set_config FROM pg_settings",
            "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)",
            "SELECT pg_advisory_unlock(1)",
            "UNLISTEN x; SELECT 1; NOTIFY y",
            "SELECT set_config('a', $1, true), set_config('b', f(1, (2)), TRUE)",
            "BEGIN; SET LOCAL x = 1; SET TRANSACTION READ ONLY; SET CONSTRAINTS ALL DEFERRED; COMMIT",
            "BEGIN; SET LOCAL \"x\" = 1",
            "CREATE OR REPLACE VIEW v AS SELECT replace(temp, 'a', 'b') FROM t",
            "WITH hold AS (SELECT 1) SELECT * FROM hold",
            "CREATE FUNCTION f() RETURNS int SET search_path = a, pg_temp AS $$SELECT 1$$",
            "EXECUTE p; CLOSE c; FETCH 1 FROM c",
        ],
    );
}

#[test]
fn behaviour_35_set_beside_others_is_seen() {
    assert_taints(
        &[Taint::SetInLongerText],
        &[
            "SET x = 1; SELECT 1",
            "SELECT 1; RESET ALL",
            "BEGIN; SET local.x = 'y'; COMMIT",
            "BEGIN; SET local = 1; COMMIT",
            "BEGIN; SET local TO 1; COMMIT",
            "BEGIN; SET SESSION x = 1",
            "SELECT 1;/**/sEt x = 1",
            "SELECT e'\\''; SET x = 1 --'",
        ],
    );
}

#[test]
fn behaviour_35_a_role_that_reset_all_would_leave_is_seen() {
    assert_taints(
        &[Taint::SetInLongerText, Taint::RoleUntracked],
        &[
            "SELECT 1; SET ROLE x",
            "SET role TO x; SELECT 1",
            "SET SESSION \"Role\" = x; SELECT 1",
            "SET SESSION SESSION AUTHORIZATION x; SELECT 1",
            "SET session_authorization = x; SELECT 1",
            "SELECT 1; RESET ROLE",
        ],
    );
    assert_taints(&[Taint::SetUnread, Taint::RoleUntracked], &["SET ROLE U&'x'"]);
    assert_taints(&[], &["SET ROLE x", "BEGIN; SET LOCAL ROLE x; COMMIT", "SELECT role FROM t"]);
}

#[test]
fn behaviour_35_set_config_is_seen() {
    assert_taints(
        &[Taint::SetConfig],
        &[
            "SELECT set_config('a', 'b', $1)",
            "SELECT 1; SELECT set_config('a', 'b', false)",
            "SELECT set_config('a', 'b', false), 1",
            "SELECT \"set_config\" /* x */ ('a', 'b', false)",
            "SELECT set_config('a', set_config('b', 'c', false), true)",
            "SELECT set_config('a', 'b', true and false)",
            "SELECT set_config('a', 'b', not true)",
            "UPDATE pg_settings SET setting = 'x' WHERE name = 'y'",
            "UPDATE ONLY pg_catalog.\"pg_settings\" SET setting = 'x'",
            "COPY (SELECT SET_CONFIG('a', 'b', 'f')) TO STDOUT",
        ],
    );
    assert_eq!(taints("SELECT set_config('a', 'b', true"), [Taint::SetConfig]);
}

#[test]
fn behaviour_34_temporary_relations_are_seen() {
    assert_taints(
        &[Taint::TemporaryTable],
        &[
            "CREATE TEMP TABLE t (a int)",
            "create local temporary table t (a int)",
            "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
            "CREATE TEMPORARY SEQUENCE s",
            "SELECT 1 INTO TEMP t",
            "SELECT 1 INTO LOCAL TEMPORARY TABLE t",
            "CREATE TABLE pg_temp.t (a int)",
            "CREATE TABLE \"pg_temp\".t (a int)",
            "CREATE TABLE pg_temp_3 . t (a int)",
            "EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1",
            "SET search_path = pg_temp, public",
            "SET search_path TO 'pg_temp'",
            "BEGIN; SET LOCAL search_path = \"pg_temp\"; CREATE TABLE t (a int); COMMIT",
            "BEGIN; SET LOCAL search_path = 'pg_temp', 'a'; CREATE TABLE t (a int); COMMIT",
            "SELECT set_config('search_path', 'pg_temp, public', true)",
            "SELECT set_config('search_path', ' \"pg_temp\"', false)",
        ],
    );
    assert_taints(
        &[],
        &["SET search_path = public, pg_temp", "SET application_name = 'set load temp listen'"],
    );
}

#[test]
fn behaviour_34_locks_cursors_and_the_rest_are_seen() {
    assert_taints(
        &[Taint::AdvisoryLock],
        &[
            "SELECT pg_advisory_lock(1)",
            "SELECT pg_catalog.Pg_Try_Advisory_Lock_Shared (1, 2)",
            "SELECT \"pg_advisory_lock_shared\"(1)",
            "SELECT pg_try_advisory_lock/**/(1)",
        ],
    );
    assert_taints(
        &[Taint::HoldCursor],
        &[
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        ],
    );
    assert_taints(&[Taint::Listen], &["LISTEN x", "SELECT 1; LISTEN x"]);
    assert_taints(&[Taint::Load], &["LOAD 'auto_explain'"]);
    assert_taints(
        &[Taint::SqlPrepare],
        &["PREPARE p AS SELECT 1", "SELECT 1; PREPARE p AS SELECT 1"],
    );
    assert_taints(&[Taint::DeallocateInLongerText], &["SELECT 1; DEALLOCATE ALL"]);
    assert_taints(&[], &["DEALLOCATE ALL", "DEALLOCATE x"]);
    assert_taints(
        &[Taint::SessionFunction],
        &["SELECT setseed(0.5)", "SELECT dblink_connect('c', '')"],
    );
    assert_taints(&[Taint::Unjudged], &["SELECT U&\"set\\005fconfig\"('a', 'b', false)"]);
    let long_tag = format!("SELECT ${0}$ ; ${0}$", "a".repeat(65));
    assert_eq!(taints(&long_tag), [Taint::Unjudged]);
    assert_eq!(judged(&long_tag).statements, Statements::Many);
    assert!(judged(&long_tag).marks.may_commit());
}

#[test]
fn behaviour_35_do_blocks_are_read_roughly() {
    assert_taints(
        &[Taint::DoBlock],
        &[
            "DO $$ BEGIN PERFORM set_config('a', 'b', false); END $$",
            "DO $$ BEGIN SET x = 1; END $$",
            "DO $x$ BEGIN EXECUTE 'SET x = 1'; END $x$",
            "DO 'BEGIN CREATE TEMP TABLE t (a int); END'",
            "DO $$ BEGIN IF a THEN LISTEN x; END IF; END $$",
            "DO $$BEGIN PERFORM pg_advisory_lock(1);END$$",
            "DO $$ BEGIN CREATE TABLE $$ 'pg_temp'",
        ],
    );
    assert_taints(
        &[],
        &[
            "DO $$ BEGIN UPDATE t SET a = 1; INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET b = 2; END $$",
            "DO $$ BEGIN SET LOCAL x = 1; PERFORM pg_advisory_xact_lock(1); END $$",
            "SELECT $$ set_config( SET x = 1 $$",
            "CREATE FUNCTION f() RETURNS void AS $$ BEGIN SET x = 1; END $$ LANGUAGE plpgsql",
        ],
    );
}
