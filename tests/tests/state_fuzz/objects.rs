//! Statements about what is no setting: temporary objects, locks, channels, cursors, statements,
//! blocks and procedures; and texts that read differently under other settings.

use super::random::Random;
use super::texts::{Group, setting};

pub(super) fn text(group: Group, random: &mut Random) -> String {
    let (number, letter) = (1 + random.roll(2), ["1", "2"][random.roll(2)]);
    let pattern = match group {
        Group::Blocks => return block(random),
        Group::Roles => random.pick(ROLES),
        Group::Temporary => random.pick(TEMPORARY),
        Group::Locks => random.pick(LOCKS),
        Group::Channels => random.pick(CHANNELS),
        Group::Cursors => random.pick(CURSORS),
        Group::Statements => random.pick(STATEMENTS),
        Group::Calls => random.pick(CALLS),
        Group::Discards => random.pick(DISCARDS),
        Group::Failures => random.pick(FAILURES),
        Group::Hidden => random.pick(HIDDEN),
        _ => random.pick(PLAIN),
    };
    pattern.replace('#', &number.to_string()).replace('@', letter)
}

const ROLES: &[&str] = &[
    "SET ROLE boss",
    "SET ROLE boss",
    "SET LOCAL ROLE boss",
    "SET ROLE none",
    "SET ROLE 'app'",
    "SET ROLE stranger",
    "RESET ROLE",
    "SET ROLE TO DEFAULT",
    "SET SESSION AUTHORIZATION app",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET SESSION AUTHORIZATION boss",
    "RESET SESSION AUTHORIZATION",
    "SELECT set_config('role', 'boss', false)",
    "SELECT set_config('role', 'none', true)",
    "SELECT current_user, session_user",
];

const TEMPORARY: &[&str] = &[
    "CREATE TEMP TABLE t# (a int)",
    "CREATE TEMPORARY TABLE accounts AS SELECT 7 AS id, 'temp'::text AS owner",
    "CREATE TABLE accounts (id int, owner text)",
    "CREATE TABLE accounts AS SELECT 1 AS id, 'mine'::text AS owner",
    "CREATE TABLE pg_temp.accounts (id int, owner text)",
    "CREATE TEMP TABLE t# (a int) ON COMMIT DROP",
    "CREATE TEMP TABLE t# ON COMMIT DELETE ROWS AS SELECT 1 AS a",
    "SELECT 1 AS a INTO TEMP t#",
    "INSERT INTO t# VALUES (#)",
    "SELECT count(*) FROM t#",
    "SELECT owner FROM accounts ORDER BY id",
    "DROP TABLE t#",
    "DROP TABLE IF EXISTS pg_temp.t#",
    "DROP TABLE IF EXISTS pg_temp.accounts",
    "CREATE TEMP VIEW v# AS SELECT 1 AS a",
    "DROP VIEW v#",
    "CREATE TEMP SEQUENCE s#",
    "DROP SEQUENCE IF EXISTS s#",
    "CREATE FUNCTION pg_temp.f#() RETURNS int LANGUAGE sql AS 'SELECT #'",
    "SELECT pg_temp.f#()",
    "DROP FUNCTION pg_temp.f#()",
    "CREATE TYPE pg_temp.y# AS (a int)",
    "DROP TYPE IF EXISTS pg_temp.y#",
    "SET search_path = nosuch, pg_temp",
    "SET search_path = E'pg\\137temp'",
    "RESET search_path",
    "ALTER TABLE t# ADD COLUMN b int",
];

const LOCKS: &[&str] = &[
    "SELECT pg_advisory_lock(#)",
    "SELECT pg_advisory_lock(#)",
    "SELECT pg_advisory_unlock(#)",
    "SELECT pg_advisory_unlock(#)",
    "SELECT pg_try_advisory_lock(#)",
    "SELECT pg_try_advisory_lock_shared(#, #)",
    "SELECT pg_advisory_unlock_shared(#, #)",
    "SELECT pg_advisory_xact_lock(#)",
    "SELECT pg_try_advisory_xact_lock(#)",
    "SELECT pg_advisory_lock(7#), 1/(id-id) FROM accounts",
    "SELECT pg_advisory_unlock_all()",
    "SELECT pg_catalog.pg_advisory_lock(#) FROM generate_series(1, 2)",
    "WITH l AS MATERIALIZED (SELECT pg_try_advisory_lock(#) AS ok) SELECT ok FROM l",
];

const CHANNELS: &[&str] = &[
    "LISTEN news",
    "LISTEN c#",
    "UNLISTEN news",
    "UNLISTEN c#",
    "UNLISTEN *",
    "NOTIFY news, 'x'",
    "SELECT pg_notify('c#', 'y')",
    "LISTEN c#; SELECT 1/0",
];

const CURSORS: &[&str] = &[
    "DECLARE c# CURSOR WITH HOLD FOR SELECT id FROM accounts ORDER BY id",
    "DECLARE c# SCROLL CURSOR WITH HOLD FOR VALUES (1), (2), (3)",
    "DECLARE c# CURSOR FOR SELECT 1",
    "FETCH 1 FROM c#",
    "FETCH ALL FROM c#",
    "MOVE c#",
    "CLOSE c#",
    "CLOSE c#",
    "CLOSE ALL",
    "FETCH ALL FROM p#",
    "CLOSE p#",
    "DECLARE p# CURSOR FOR SELECT 5",
    "DECLARE c# CURSOR WITH HOLD FOR SELECT set_config('app.x', 'cursor', false)",
];

const STATEMENTS: &[&str] = &[
    "PREPARE q# AS SELECT #",
    "PREPARE q# (int) AS SELECT $1 + 1",
    "PREPARE s# AS SELECT 'sql'",
    "PREPARE q# AS SET app.x = 'prepared'",
    "PREPARE q# AS SELECT set_config('app.x', 'prepared', false)",
    "EXECUTE q#",
    "EXECUTE q#(4)",
    "EXECUTE s#",
    "EXPLAIN (COSTS OFF) EXECUTE s#",
    "CREATE TEMP TABLE t# AS EXECUTE q#",
    "DEALLOCATE q#",
    "DEALLOCATE PREPARE s#",
    "DEALLOCATE ALL",
    "SELECT 1; PREPARE q# AS SELECT 2; SELECT 3",
    "PREPARE q# AS SELECT 1; EXECUTE q#; DEALLOCATE q#",
];

const CALLS: &[&str] = &[
    "CALL set_commit('@')",
    "CALL set_rollback('@')",
    "CALL set_half('@')",
    "CALL set_role()",
    "CALL lock_commit(#)",
];

const DISCARDS: &[&str] = &[
    "DISCARD ALL",
    "DISCARD TEMP",
    "DISCARD PLANS",
    "DISCARD SEQUENCES",
    "RESET ALL",
    "DEALLOCATE ALL",
    "SELECT setseed(0.3)",
    "SELECT nextval('numbers') > 0",
    "CLOSE ALL; UNLISTEN *; RESET ALL",
];

const FAILURES: &[&str] = &[
    "SELECT 1/0",
    "selec",
    "SELECT nosuch",
    "INSERT INTO notes VALUES (1, 99)",
    "INSERT INTO notes VALUES (1, 99)",
    "SELECT * FROM nosuch",
    "SAVEPOINT a; SELECT 1/0",
    "SET app.x = 'lost'; SELECT 1/0",
    "BEGIN; SET app.x = 'kept'; COMMIT; SELECT 1/0",
];

const PLAIN: &[&str] = &[
    "SELECT 1",
    "SELECT 'two', 2",
    "VALUES (3), (4), (5)",
    "INSERT INTO notes VALUES (#, 1)",
    "SELECT count(*) FROM notes",
    "SHOW work_mem",
    "SHOW TimeZone",
    "SELECT current_user",
    "SELECT coalesce(current_setting('app.tenant', true), '')",
    "SHOW search_path",
    "",
    "COPY accounts TO STDOUT",
];

const HIDDEN: &[&str] = &[
    "SELECT f_set('app.tenant', '@')",
    "SELECT f_set('work_mem', '#MB')",
    "SELECT f_set('role', 'boss')",
    "SELECT f_immutable('i@')",
    "EXPLAIN (COSTS OFF) SELECT f_immutable('e@')",
    "SELECT f_role()",
    "SELECT f_lock(#)",
    "SELECT f_unlock()",
    "SELECT f_temp()",
    "SELECT f_drop()",
    "SELECT f_listen()",
    "SELECT f_prepare()",
    "SELECT f_forget()",
    "SELECT f_hold()",
    "SELECT f_local()",
    "SELECT f_caught()",
    "SELECT x FROM v_set",
    "INSERT INTO triggered VALUES (#)",
    "SELECT a FROM guarded",
    "SET search_path = operators, pg_catalog, public",
    "SELECT 'a'::text = 'b'::text, lower('ABC'::text)",
];

fn block(random: &mut Random) -> String {
    let set = setting(random);
    let inner = match random.roll(15) {
        0 | 1 => format!("{set};"),
        2 => "PERFORM set_config('app.tenant', 'do', false);".to_owned(),
        3 => "PERFORM set_config('app.' || 'hidden', 'h', false);".to_owned(),
        4 => "EXECUTE 'DEALLOCATE ALL';".to_owned(),
        5 => "EXECUTE 'SE' || 'T ROLE boss';".to_owned(),
        6 => "PERFORM set_config('app.x', 'in', false); PERFORM 1/0; EXCEPTION WHEN others THEN NULL;".to_owned(),
        7 => "COMMIT;".to_owned(),
        8 => "PERFORM set_config('app.x', 'c', false); COMMIT; PERFORM 1/0;".to_owned(),
        9 => "EXECUTE 'PREPARE d1 AS SELECT 1'; PERFORM pg_advisory_lock(5), setseed(0.3); PERFORM 1/0;".to_owned(),
        10 => "CREATE TEMP TABLE IF NOT EXISTS t1 (a int);".to_owned(),
        11 => "EXECUTE 'PREPARE d2 AS SELECT ''do'''; EXECUTE 'DEALLOCATE d2';".to_owned(),
        12 => "LISTEN news; PERFORM pg_advisory_lock(6);".to_owned(),
        13 => "ROLLBACK; SET ROLE boss;".to_owned(),
        _ => "NULL;".to_owned(),
    };
    // A SET may say `--;` at its end.
    format!("DO $do$BEGIN {}\n END$do$", inner.replace("--;", ""))
}

/// Texts that end elsewhere under another `standard_conforming_strings` or `client_encoding`.
pub(super) fn reading(random: &mut Random) -> Vec<u8> {
    let texts: [&[u8]; 12] = [
        b"SET standard_conforming_strings = off",
        b"SET LOCAL standard_conforming_strings = off",
        b"SET LOCAL client_encoding = 'SJIS'",
        b"SET client_encoding = 'SJIS'",
        b"SET client_encoding = 'BIG5'",
        b"SELECT set_config('standard_conforming_strings', 'off', true)",
        b"SELECT '\\', set_config($$role$$,$$boss$$,false) --'",
        b"SELECT '\\'', set_config($$role$$,$$boss$$,false) --'",
        b"SELECT E'\x83\x5c', set_config($$role$$,$$boss$$,false) --'",
        b"SELECT $\x83\x41$ A $\x83\x42$ B $\x83\x41$, set_config($$role$$,$$boss$$,false)",
        b"SELECT E'\x83\x5c'', set_config($$app.x$$,$$sjis$$,false) --'",
        b"RESET client_encoding",
    ];
    texts[random.roll(texts.len())].to_vec()
}
