//! What a statement may leave that is not followed.

use super::*;

fn assert_raises(kinds: Kinds, texts: &[&str]) {
    for text in texts {
        let step = only(text);
        assert_eq!(step, Step { form: Form::Other, raises: kinds, local: false }, "{text}");
    }
}

fn assert_local(kinds: Kinds, texts: &[&str]) {
    for text in texts {
        let step = only(text);
        assert_eq!(step, Step { form: Form::Other, raises: kinds, local: true }, "{text}");
    }
}

#[test]
fn ordinary_texts_are_plain() {
    for text in [
        "SELECT * FROM temp WHERE hold = 'LISTEN' AND local = 1",
        "INSERT INTO temp VALUES (1)",
        "UPDATE t SET temporary = 1; SELECT 1",
        "SELECT 'set_config(', \"Set_Config\"(1), set_configs(2)",
        "SELECT set_config FROM pg_settings",
        "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)",
        "WITH hold AS (SELECT 1) SELECT * FROM hold",
        "SELECT * FROM pg_temp.t",
        "SELECT lastval(), currval('s')",
        "SELECT replace(temp, 'a', 'b') FROM t",
        "EXPLAIN ANALYZE SELECT 1",
        "NOTIFY x; LOCK t; SHOW x; TABLE t; VALUES (1); MERGE INTO t USING u ON a = b",
        "SELECT $$ set_config( SET x = 1 $$",
    ] {
        assert_eq!(classified(text).steps, Steps::Plain, "{text}");
    }
    assert_raises(
        Kinds::NONE,
        &[
            "CREATE TABLE temp (a int)",
            "CREATE OR REPLACE VIEW v AS SELECT replace(temp, 'a', 'b') FROM t",
            "CREATE FUNCTION f() RETURNS void AS $$ BEGIN SET x = 1; END $$ LANGUAGE plpgsql",
            "CREATE FUNCTION f() RETURNS int SET search_path = a, pg_temp AS $$SELECT 1$$",
            "DROP TABLE IF EXISTS pg_temp.x",
            "SELECT pg_advisory_unlock(1)",
            "SELECT dblink_disconnect('c')",
            "GRANT SELECT ON t TO u",
        ],
    );
}

#[test]
fn a_set_that_is_not_surely_read_raises_settings() {
    assert_raises(
        Kinds::SETTINGS,
        &["SET x FROM CURRENT", "SET x = U&'a'", "SET x = 'a' 'b'", "SET x = 0x1f", "SET", "RESET"],
    );
    assert_raises(
        Kinds::SETTINGS.union(Kinds::UNNAMED_SETTINGS),
        &["SET x.y = U&'a'", "SET x.y = B'1'", "SET x.y = 1_000", "SET SESSION x.y = 'a'\n'b'"],
    );
    assert_raises(
        IDENTITY,
        &["SET ROLE U&'x'", "SET \"Role\" = U&'x'", "SET SESSION AUTHORIZATION U&'x'"],
    );
    assert_local(Kinds::NONE, &["SET LOCAL x = U&'a'", "SET LOCAL role FROM CURRENT"]);
    assert_raises(Kinds::SEED, &["SET seed = 0.5", "SELECT setseed(0.5)", "SET \"SEED\" TO 1"]);
    assert_local(Kinds::SEED, &["SET LOCAL seed FROM CURRENT"]);
}

#[test]
fn set_config_is_followed_in_its_plain_form() {
    let one = |assignment: Assignment, by| followed(Form::Set(Box::new([assignment]), by));
    let bare = SetBy::UnqualifiedFunction;
    let p = Operand::Parameter;
    for (statement, name, value, scope) in [
        ("set_config('TimeZone', 'UTC', false)", text("timezone"), text("UTC"), Scope::Session),
        ("set_config('a.b', NULL, 't')", text("a.b"), Operand::Null, Scope::Local),
        ("set_config($1, $2::text, 'ON'::bool)", p(1), p(2), Scope::Local),
        ("set_config('a.b', CAST($1 AS varchar), null) AS x", text("a.b"), p(1), Scope::Session),
        (
            "set_config('a.b'::text, $65535::character varying, ' f '::boolean)",
            text("a.b"),
            p(65535),
            Scope::Session,
        ),
    ] {
        let assignment = assign(name, value, scope);
        assert_eq!(only(&format!("SELECT {statement}")), one(assignment.clone(), bare));
        let qualified = format!("SELECT pg_catalog.{statement};");
        assert_eq!(only(&qualified), one(assignment, SetBy::Function));
    }
    let scope = ScopeOperand::Parameter(3);
    let assignment = Assignment { name: text("a.b"), value: text("c"), scope };
    assert_eq!(only("select set_config('a.b','c',$3::boolean)"), one(assignment, bare));
    assert_eq!(only("SELECT set_config('transaction_read_only', 'on', true)"), Step::PLAIN);
    assert_eq!(only("SELECT set_config('Seed', '0.1', false)"), other(Kinds::SEED));
}

#[test]
fn any_other_set_config_raises_what_its_name_says() {
    assert_raises(
        Kinds::SETTINGS,
        &[
            "SELECT set_config('bytea_output', 'hex', false) FROM t",
            "SELECT set_config('work_mem', 'b', false), 1",
            "COPY (SELECT 1) TO STDOUT; ",
        ][..2],
    );
    assert_raises(IDENTITY, &["SELECT set_config('Role', 'x', false), 1"]);
    assert_raises(
        Kinds::SETTINGS.union(Kinds::UNNAMED_SETTINGS),
        &["SELECT set_config('a.b', 'x', false), 1"],
    );
    assert_local(
        ANY_SETTING,
        &[
            "SELECT set_config('ro' || 'le', 'x', true and false)",
            "SELECT set_config(E'r\\157le', 'x', $1), 1",
            "SELECT \"set_config\" /* x */ ($1 || 'x', 'b', false), set_config('a', f(), true)",
            "SELECT set_config('a', set_config('b', 'c', false), true)",
            "SELECT set_config(setting_name => 'a', new_value => 'b', is_local => $1)",
            "SELECT set_config('a', 'b', true",
            "SELECT set_config('a'\n'b', 'b', not true)",
        ],
    );
    assert_local(
        Kinds::NONE,
        &["SELECT set_config('a', f($1), TRUE), set_config($1, 'x', true), 1"],
    );
    let copy = only("COPY (SELECT SET_CONFIG('a', 'b', 'f')) TO STDOUT");
    assert_eq!(copy, Step { form: Form::Copy, raises: Kinds::SETTINGS, local: true });
    assert_raises(
        IDENTITY,
        &[
            "UPDATE pg_settings SET setting = 'x' WHERE name = 'y'",
            "UPDATE ONLY pg_catalog.\"pg_settings\" SET setting = 'x'",
        ],
    );
}

#[test]
fn temporary_relations_are_seen() {
    assert_raises(
        Kinds::TEMPORARY,
        &[
            "CREATE TEMP TABLE t (a int)",
            "create local temporary table t (a int)",
            "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
            "CREATE TEMPORARY SEQUENCE s",
            "SELECT 1 INTO TEMP t",
            "SELECT 1 INTO LOCAL TEMPORARY TABLE t",
            "SELECT 1 INTO pg_temp.t",
            "CREATE TABLE PG_TEMP.t (a int)",
            "CREATE TABLE \"pg_temp\".\"x\" (a int)",
            "CREATE TABLE pg_temp_3 . t (a int)",
            "EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1",
        ],
    );
    let path = set("search_path", "pg_temp, public", Scope::Session);
    assert_eq!(only("SET search_path = pg_temp, public"), followed(path));
}

#[test]
fn functions_that_leave_something_are_seen() {
    assert_raises(
        Kinds::LOCKS,
        &[
            "SELECT pg_advisory_lock(1)",
            "SELECT pg_catalog.Pg_Try_Advisory_Lock_Shared (1, 2)",
            "SELECT \"pg_advisory_lock_shared\"(1)",
            "SELECT pg_try_advisory_lock/**/(1)",
            // It is a call without parentheses.
            "SELECT (77::bigint).pg_advisory_lock",
        ],
    );
    assert_raises(
        Kinds::DBLINK,
        &["SELECT dblink_connect('c', '')", "SELECT dblink_open('a','b')"],
    );
    assert_raises(Kinds::ORIGIN, &["SELECT pg_replication_origin_session_setup('x')"]);
    assert_raises(
        Kinds::SLOTS,
        &["SELECT * FROM pg_create_logical_replication_slot('x', 'test_decoding', true)"],
    );
    assert_raises(Kinds::SETTINGS, &["SELECT set_limit(0.87)"]);
    assert_raises(Kinds::LOADED, &["LOAD 'auto_explain'", "SELECT pg_backup_start('x')"]);
    assert_raises(Kinds::CHANNELS, &["LISTEN x y"]);
    assert_local(
        Kinds::ANYTHING,
        &[
            "SELECT query_to_xml('SELECT 1', true, true, '')",
            "SELECT * FROM crosstab4('x')",
            "SELECT ts_stat('x')",
            "SELECT ('x'::text).ts_stat",
        ],
    );
}

#[test]
fn code_may_leave_anything() {
    let plpgsql = ANYTHING;
    assert_local(
        plpgsql,
        &[
            "DO $$BEGIN END$$",
            "DO LANGUAGE plpgsql 'BEGIN END'",
            "DO 'BEGIN END' LANGUAGE \"plpgsql\"",
            "DO 'BEGIN END' LANGUAGE 'PLPGSQL'",
            "CALL p()",
            "EXPLAIN (ANALYZE) EXECUTE a",
            "CREATE TABLE t AS EXECUTE a",
        ],
    );
    assert_local(
        plpgsql.union(Kinds::LOADED),
        &[
            "DO LANGUAGE plpython3u 'x'",
            "DO 'x' LANGUAGE 'plperl'",
            "DO 'x' LANGUAGE E'\\x70lpgsql'",
        ],
    );
    assert_raises(
        Kinds::ANYTHING,
        &[
            "CREATE EXTENSION x",
            "ALTER EXTENSION x UPDATE",
            "CREATE OR REPLACE TRUSTED PROCEDURAL LANGUAGE x",
        ],
    );
}
