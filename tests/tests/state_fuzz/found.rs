//! Sequences that once showed a difference, each with a word on what failed. They run on every
//! kind of pool, on server connections that nobody has used.

/// A script under the name of what failed; a case of `../shared/cases/state.md` by its number.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) script: &'static str,
}

pub(super) const fn scenario(name: &'static str, script: &'static str) -> Scenario {
    Scenario { name, script }
}

/// State that reached the next client, or that the first one lost.
pub(super) const STATE: &[Scenario] = &[
    scenario(
        "1: a release behind a rollback in one text was not followed",
        "Q BEGIN
         Q SET app.tenant='A'
         Q SAVEPOINT _EXEC_SVP_1
         Q SET app.tenant='B'
         Q SAVEPOINT _EXEC_SVP_2
         Q SELECT 1/0
         Q ROLLBACK TO _EXEC_SVP_2;RELEASE _EXEC_SVP_2
         Q COMMIT
         own",
    ),
    scenario(
        "2: a savepoint in a longer text was not seen",
        "Q BEGIN
         Q SET app.tenant='A'
         Q SAVEPOINT s; SELECT 1
         Q SET ROLE boss
         Q ROLLBACK TO s
         Q COMMIT
         own",
    ),
    scenario(
        "3: a statement parsed under SET LOCAL was shared",
        "Q BEGIN
         Q SET LOCAL TimeZone='America/New_York'
         P s1 () select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text |
         S
         Q COMMIT
         beside",
    ),
    scenario(
        "4: the same with DateStyle",
        "Q BEGIN
         Q SET LOCAL DateStyle='SQL, DMY'
         P s1 () select extract(month from '01/02/2024'::date)::text |
         S
         Q COMMIT
         beside",
    ),
    scenario(
        "5: a text was read under the setting of before",
        "P - () SET LOCAL standard_conforming_strings=off |
         B - - text |
         E - 0 |
         P - () SELECT '\\\\'', set_config($$role$$,$$boss$$,false) --' |
         B - - text |
         E - 0 |
         S
         own",
    ),
    scenario(
        "6: a text was read under the encoding of before",
        "P - () SET LOCAL client_encoding='SJIS' |
         B - - text |
         E - 0 |
         P - () SELECT E'\\x83\\\\'', set_config($$role$$,$$boss$$,false) --' |
         B - - text |
         E - 0 |
         S
         own",
    ),
    scenario(
        "7: a query behind a BEGIN without Sync",
        "Q SET ROLE boss
         P - () BEGIN |
         B - - text |
         E - 0 |
         Q RESET ROLE |
         Q ROLLBACK
         own",
    ),
    scenario(
        "8: a block that commits in the middle of a segment",
        "P - () SET ROLE boss |
         B - - text |
         E - 0 |
         P - () DO $$BEGIN COMMIT; END$$ |
         B - - text |
         E - 0 |
         P - () SELECT 1/0 |
         B - - text |
         E - 0 |
         S
         own",
    ),
    scenario(
        "9: RESET ALL behind SET LOCAL TO DEFAULT",
        "Q SET work_mem='5MB'
         Q BEGIN
         Q SET LOCAL work_mem TO DEFAULT
         Q RESET ALL
         Q COMMIT
         own",
    ),
    scenario(
        "10: the same in one text, while pinned",
        "Q SELECT 1; SET search_path = other, public
         Q SET LOCAL search_path TO DEFAULT; RESET ALL
         own",
    ),
    scenario(
        "11: a cursor under the name of a portal that was closed",
        "Q SET ROLE boss
         Q BEGIN
         P - () RESET ROLE |
         B p - text |
         C P p |
         S
         Q DECLARE p CURSOR FOR SELECT 1
         E p 0 |
         S
         Q COMMIT
         own",
    ),
    scenario(
        "12: FETCH from a portal that calls set_config",
        "Q BEGIN
         P - () SELECT set_config('role','boss',false) |
         B pp - text |
         S
         Q FETCH ALL FROM pp
         Q COMMIT
         own",
    ),
    scenario(
        "13: pg_temp behind a schema that does not exist",
        "Q SET search_path = nosuchschema, pg_temp
         Q CREATE TABLE accounts (id int, owner text)
         Q INSERT INTO accounts VALUES (1, 'A')
         Q RESET search_path
         own",
    ),
    scenario(
        "14: pg_temp as startup parameter",
        "login search_path pg_temp
         Q CREATE TABLE accounts (id int, owner text)
         own",
    ),
    scenario(
        "15: pg_temp written with an escape",
        "Q SET search_path = E'pg\\\\137temp'
         Q CREATE TABLE accounts (id int, owner text)
         Q RESET ALL
         own",
    ),
    scenario(
        "16: dollar quotes of other bytes",
        "Q SET client_encoding = 'SJIS'
         Q SELECT $\\x83A$ A $\\x83B$ B $\\x83A$, set_config($$role$$,$$boss$$,false)
         own",
    ),
    scenario(
        "17: a block forgot everybody's statements",
        "resident
         Q DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$
         resident",
    ),
    scenario(
        "19: a role set by a text that a block made",
        "Q DO $$BEGIN EXECUTE 'SE'||'T ROLE boss'; END$$
         own",
    ),
    scenario(
        "19: a setting in a text that a function runs",
        "Q SELECT query_to_xml('SELECT set_config(''role'',''boss'',false)', true, false, '') IS NULL
         own",
    ),
    scenario(
        "39: an own set_config in front of pg_catalog",
        "Q SET search_path = own, pg_catalog, public
         Q SELECT set_config('app.tenant', 'A', false)
         own",
    ),
    scenario(
        "39: public.set_config(text, varchar, boolean) with a varchar",
        "P - (25,1043) SELECT set_config($1, $2, false) |
         B - - text text:app.x text:1 |
         E - 0 |
         S
         own",
    ),
    scenario(
        "40: savepoints that are cut at a character of the database's encoding",
        "Q SET client_encoding = 'LATIN1'
         Q BEGIN
         Q SET app.x = '1'
         Q SAVEPOINT \"\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9a\"
         Q SET app.x = '2'
         Q SAVEPOINT \"\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9b\"
         Q SET app.x = '3'
         Q ROLLBACK TO \"\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9\\xe9a\"
         Q COMMIT
         own",
    ),
    scenario(
        "42: set_config in a portal that was not read to its end",
        "P - () SELECT set_config('app.x','1',false) |
         B p - text |
         E p 1 |
         C P p |
         S
         own",
    ),
    scenario(
        "43: a SET undone by a deferred constraint",
        "P - () SET app.x='1' |
         B - - text |
         E - 0 |
         P - () INSERT INTO notes VALUES (1, 99) |
         B - - text |
         E - 0 |
         S
         own",
    ),
    scenario(
        "44: a lock in a statement that fails",
        "Q SELECT pg_advisory_lock(77), 1/(id-id) FROM accounts
         own",
    ),
    scenario(
        "44: a lock in a transaction that is rolled back",
        "Q BEGIN
         Q SELECT pg_advisory_lock(77)
         Q ROLLBACK
         own",
    ),
    scenario(
        "44: a block that prepares, locks and seeds, then fails",
        "Q DO $$BEGIN EXECUTE 'PREPARE q1 AS SELECT 1'; PERFORM setseed(0.3); PERFORM 1/0; END$$
         own",
    ),
    scenario(
        "44: what was closed stays closed",
        "Q PREPARE q1 AS SELECT 1
         Q BEGIN; DECLARE c1 CURSOR WITH HOLD FOR SELECT 1; COMMIT
         Q BEGIN
         Q CLOSE c1
         Q DEALLOCATE q1
         Q ROLLBACK
         own",
    ),
];

/// Pins that outlived what they were for, and names that are not one space.
pub(super) const KEPT: &[Scenario] = &[
    scenario(
        "24: a temporary table that its COMMIT drops",
        "Q BEGIN
         Q CREATE TEMP TABLE t1 (a int) ON COMMIT DROP
         Q COMMIT
         own",
    ),
    scenario(
        "25: what a rollback undoes",
        "Q BEGIN
         Q CREATE TEMP TABLE t1 (a int)
         Q LISTEN news
         Q DECLARE c1 CURSOR WITH HOLD FOR SELECT 1
         Q SELECT set_config('app.x', '1', false)
         Q ROLLBACK
         own",
    ),
    scenario(
        "25: what failed",
        "Q CREATE TEMP TABLE t1 (a int, a int)
         Q LISTEN news; SELECT 1/0
         Q DECLARE c1 CURSOR WITH HOLD FOR SELECT 1/0
         own",
    ),
    scenario(
        "26: a temporary table that is dropped",
        "Q CREATE TEMP TABLE t1 (a int)
         Q DROP TABLE t1
         own",
    ),
    scenario(
        "26: one that never was",
        "Q DROP TABLE IF EXISTS pg_temp.t1
         own",
    ),
    scenario(
        "27: a lock that is given back",
        "Q SELECT pg_advisory_lock(1)
         Q SELECT pg_advisory_unlock(1)
         own",
    ),
    scenario(
        "28: a cursor that is closed",
        "Q BEGIN; DECLARE c1 CURSOR WITH HOLD FOR SELECT 1; COMMIT
         Q CLOSE c1
         own",
    ),
    scenario(
        "29: a channel and a statement",
        "Q LISTEN news
         Q UNLISTEN news
         Q PREPARE q1 AS SELECT 1
         Q DEALLOCATE q1
         own",
    ),
    scenario(
        "30: pgAdmin's opening text",
        "Q SET DateStyle=ISO; SET client_min_messages=notice; SELECT set_config('bytea_output','hex',false) FROM pg_show_all_settings() WHERE name = 'bytea_output'; SET client_encoding='utf-8'
         own",
    ),
    scenario(
        "31: bound settings",
        "P - () SELECT set_config('app.tenant', $1, false) |
         B - - text text:A |
         E - 0 |
         S
         P - () SELECT set_config('app.x', $1, false), set_config('app.tenant', $2, false) |
         B - - text text:1 binary:B |
         E - 0 |
         S
         own",
    ),
    scenario(
        "33: SQL finds a statement of the protocol",
        "P s1 () SELECT 1 |
         S
         Q EXECUTE s1
         Q EXPLAIN (COSTS OFF) EXECUTE s1
         Q CREATE TEMP TABLE t1 AS EXECUTE s1",
    ),
    scenario(
        "33: the protocol closes a statement of SQL",
        "Q PREPARE q1 AS SELECT 1
         C S q1 |
         S
         own",
    ),
    scenario(
        "33: a name in use",
        "Q PREPARE q1 AS SELECT 1
         P q1 () SELECT 2 |
         S
         P s1 () SELECT 1 |
         S
         Q PREPARE s1 AS SELECT 2",
    ),
];
