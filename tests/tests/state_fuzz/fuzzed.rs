//! What the fuzzer itself has found, beside the cases in `found.rs`.

use super::found::{Scenario, scenario};

/// Made small by it, on the version before the rule of proven, asked and reset state.
pub(super) const FUZZED: &[Scenario] = &[
    scenario(
        "RESET ALL in a longer text forgot the startup parameters",
        "login TimeZone Asia/Tokyo
         Q RESET ALL; COMMIT
         own",
    ),
    scenario(
        "RESET ALL in a block, too",
        "login work_mem 5MB
         Q DO $$BEGIN RESET ALL; END$$
         own",
    ),
    scenario(
        "SET TO DEFAULT in one segment with a Parse under the startup search_path",
        "login search_path pg_temp
         P s1 () SET search_path TO DEFAULT |
         B - s1 text |
         E - 0 |
         P s2 () INSERT INTO notes VALUES (1, 1) |
         S
         own",
    ),
    scenario(
        "set_config to NULL went to the server's default, not to the startup parameter's value",
        "login TimeZone Asia/Tokyo
         P - () SELECT set_config('TimeZone', $1, false), set_config('app.x', $2, false) |
         B - - text null text:1 |
         E - 0 |
         S
         own",
    ),
    scenario(
        "a notice of the statement that pgimbal put in again reached the client",
        "P s1 () SAVEPOINT long_long_long_long_long_long_long_long_long_long_long_long_long_1 |
         S
         hold
         D S s1 |
         S",
    ),
    scenario(
        "a procedure that sets and commits",
        "Q CALL set_commit('1')
         own",
    ),
    scenario(
        "a procedure that sets, commits, sets and fails",
        "Q CALL set_half('1')
         own",
    ),
    scenario(
        "a procedure that locks and commits",
        "P - () CALL lock_commit(2) |
         B - - text |
         E - 0 |
         S
         own",
    ),
    scenario(
        "a rollback to a savepoint of a longer text, in the extended protocol",
        "Q BEGIN
         Q SELECT pg_catalog.set_config('TimeZone', 'Asia/Tokyo', false)
         Q SAVEPOINT a; SELECT 1
         P - () ROLLBACK TO a |
         B - - text |
         E - 0 |
         S
         Q COMMIT
         own",
    ),
    scenario(
        "setseed: the next client's random() was foreseen",
        "Q SELECT setseed(0.3)
         own",
    ),
    scenario(
        "DEALLOCATE ALL in a longer text left the names taken",
        "P s1 () SELECT 'two', 2 |
         S
         Q DEALLOCATE ALL; SET LOCAL search_path = other
         P s1 () SELECT 3 |
         S
         own",
    ),
    scenario(
        "a statement parsed under SET LOCAL was parsed anew where questions are always asked",
        "Q BEGIN
         Q SET LOCAL TimeZone = 'America/New_York'
         P s1 () select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text |
         S
         Q COMMIT
         B - s1 binary |
         E - 0 |
         S",
    ),
    scenario(
        "RESET ALL behind SET LOCAL went to the server's defaults",
        "login TimeZone Asia/Tokyo
         Q begin
         Q SET LOCAL search_path = PG_TEMP, public
         Q RESET ALL",
    ),
    scenario(
        "a query that names what its open segment has prepared was never answered",
        "P - () PREPARE q2 AS SELECT set_config('app.x', 'prepared', false) |
         B p2 - text |
         E p2 0 |
         Q PREPARE q2 (int) AS SELECT $1 + 1",
    ),
    scenario(
        "a Parse behind a Close waited for ever: nothing of the server's would lead to the CloseComplete",
        "P i0 () SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
         P - () begin |
         B p2 - text |
         E p2 0 |
         E p1 0 |
         S
         C S i0 |
         P i1 () SELECT 1/0 |
         S",
    ),
    scenario(
        "EXECUTE of a PREPARE whose name the client had in use",
        "P s1 () PREPARE q1 (int) AS SELECT $1 + 1 |
         B - s1 text |
         E - 0 |
         S
         Q EXECUTE s1",
    ),
    scenario(
        "a statement was lost that was parsed behind SET LOCAL of what means nothing to it",
        "Q COMMIT
         Q BEGIN
         Q SET LOCAL lock_timeout = '9s'
         P s1 () select 'a\\\\'::text --s736
         Q COMMIT
         P - () SET standard_conforming_strings = off
         B p2 - text |
         E p2 0 |
         P q1 () RESET client_encoding |
         S",
    ),
    scenario(
        "a ROLLBACK without Sync undid what had been brought back behind DISCARD ALL",
        "login TimeZone Asia/Tokyo
         P q1 () DISCARD ALL |
         B p1 q1 text |
         E p1 0 |
         H",
    ),
    scenario(
        "a name that could not be lent, and was the server connection's own, was closed",
        "S
         Q PREPARE q1 AS SELECT set_config('app.x', 'prepared', false)\\x0a; INSERT INTO notes VALUES (1, 99)
         Q commit work
         P q1 () PREPARE q1 AS SELECT set_config('app.x', 'prepared', false) |
         B - q1 text",
    ),
    scenario(
        "a query that is not UTF-8 destroyed the unnamed statement in the books only",
        "P - () select extract(month from '01/02/2024'::date)::text --s644
         Q SELECT $\\x83A$ A $\\x83B$ B $\\x83A$, set_config($$role$$,$$boss$$,false)
         B c1 - text |
         S",
    ),
    scenario(
        "a text of a failed segment was parsed anew under another encoding",
        "P ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss () DECLARE c1 CURSOR WITH HOLD FOR SELECT set_config('app.x', 'cursor', false) |
         B - ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss text |
         P q1 () SET client_encoding = 'SJIS' |
         B - q1 text |
         E - 0 |
         P s2 () SELECT E'\\x83\\\\'', set_config($$app.x$$,$$sjis$$,false) --' |
         E - 0
         S
         own",
    ),
    scenario(
        "what was brought back behind RESET ALL counted as the transaction's first query",
        "login search_path other, public
         Q BEGIN
         Q RESET ALL
         Q BEGIN ISOLATION LEVEL SERIALIZABLE
         own",
    ),
    scenario(
        "a ROLLBACK TO undid what had been brought back behind RESET ALL",
        "login search_path other, public
         Q BEGIN
         Q RESET ALL\\x0a; SAVEPOINT a
         Q ROLLBACK TO a;RELEASE a
         Q CREATE TABLE accounts (id int, owner text)",
    ),
    scenario(
        "a name that PostgreSQL refused twice in a segment was closed, though SQL had prepared it",
        "Q DROP TABLE IF EXISTS pg_temp.t2\\x0a; PREPARE q1 AS SELECT 1
         Q PREPARE q2 AS SELECT set_config('app.x', 'prepared', false)
         P q1 () DROP TYPE IF EXISTS pg_temp.y1 |
         P q1 () begin |
         E - 0
         C P - |
         S",
    ),
    scenario(
        "a ROLLBACK of what a BEGIN had adopted undid what was brought back behind DISCARD ALL",
        "login TimeZone Asia/Tokyo
         P q1 () DISCARD ALL |
         B p1 q1 text |
         E p1 0
         P - () BEGIN |
         B p2 - text |
         E p2 1",
    ),
    scenario(
        "a text without an equivalent destroyed the unnamed statement in the books only",
        "P - () SET client_encoding = 'BIG5' |
         B - - text |
         E - 0 |
         P - () SELECT E'\\x83\\\\', set_config($$role$$,$$boss$$,false) --' |
         B - - text |
         S
         B c1 - text",
    ),
    scenario(
        "a name that could not be lent was closed behind an Execute of its PREPARE",
        "S
         Q PREPARE q1 AS SELECT set_config('app.x', 'prepared', false)\\x0a; INSERT INTO notes VALUES (1, 99)
         Q commit work
         P q1 () PREPARE q1 AS SELECT set_config('app.x', 'prepared', false) |
         B - q1 text |
         E - 0",
    ),
    scenario(
        "a table became temporary by a path that was set in front of it in the same text",
        "Q DO $$BEGIN NULL; END$$
         Q SET search_path = U&'pg\\\\005ftemp', public; CREATE TABLE accounts (id int, owner text)
         beside",
    ),
    scenario(
        "PREPARE TRANSACTION outside of a block says ROLLBACK, and commits",
        "S
         Q SELECT set_config('lock_timeout', '8000', 1 > 2) FROM pg_show_all_settings() WHERE name = 'bytea_output'
         Q PREPARE TRANSACTION 'x'
         beside
         Q SELECT query_to_xml('SELECT pg_catalog.set_config(''app.x'', ''xml'', false)', true, false, '') IS NULL
         Q ROLLBACK AND CHAIN
         resident
         P s1 () SET search_path = nosuch, pg_temp |
         B p2 s1 text |
         E p2 0 |
         P q1 () PREPARE TRANSACTION 'x' |
         B - q1 text |
         E - 0
         B c1 s1 text |
         E c1 0 |
         P s1 () SELECT pg_catalog.set_config('TimeZone', 'Asia/Tokyo', true) |
         B - s1 text |
         E - 1 |
         E - 0 |
         P s2 () ROLLBACK TO A; RELEASE A |
         B - s2 text |
         D P - |
         E - 0 |
         C P - |
         S",
    ),
    scenario(
        "a custom setting of an own set_config that was called with an expression reached the next client",
        "Q DO $do$BEGIN NULL; END$do$
         Q SET search_path = own, pg_catalog, public
         Q SELECT set_config('work_mem', '6MB', 1 > 2)",
    ),
    scenario(
        "what a RESET had brought back in a block was brought back again over a set_config, at COMMIT",
        "login DateStyle German
         Q BEGIN
         Q RESET ALL
         Q SELECT set_config('DateStyle', 'SQL, DMY', false)
         Q COMMIT
         own",
    ),
    scenario(
        "and over one in the same text",
        "login DateStyle German
         Q RESET ALL; SELECT set_config('DateStyle', 'SQL, DMY', false)
         own",
    ),
    scenario(
        "RESET ALL behind SET LOCAL left a startup parameter at the server's default",
        "login TimeZone Asia/Tokyo
         Q BEGIN
         Q SET LOCAL TimeZone = 'Europe/Paris'
         Q RESET ALL
         own",
    ),
    scenario(
        "RESET ALL did not pass over a startup parameter that SET LOCAL had brought back",
        "login TimeZone Asia/Tokyo
         Q SET TimeZone = 'Europe/Paris'
         Q BEGIN
         Q SET LOCAL TimeZone TO DEFAULT
         Q SET LOCAL work_mem = '6MB'
         Q RESET ALL
         Q COMMIT
         own",
    ),
    scenario(
        "a name that SQL had prepared was free for a Parse in a failed transaction",
        "Q PREPARE s1 AS SELECT 'sql'; begin
         Q SET LOCAL work_mem = 'nonsense'
         P s1 () ABORT |
         S",
    ),
    scenario(
        "several statements in one Parse were told what came of the names that they name",
        "P q1 () SELECT f_temp()
         Q SET search_path = nosuch, pg_temp
         P s2 () SELECT 1; PREPARE q1 AS SELECT 2; SELECT 3 |
         S",
    ),
    scenario(
        "DEALLOCATE in front of something else failed where the statement's table was out of reach",
        "P s2 () SELECT x FROM v_set
         Q SET SESSION search_path = nosuch, pg_temp
         Q DEALLOCATE PREPARE s2; PREPARE q2 (int) AS SELECT $1 + 1",
    ),
    scenario(
        "a statement stayed for the next client when a text that makes it anew had failed before",
        "P q1 () SELECT count(*) FROM notes
         S
         Q PREPARE q1 AS SELECT 1; DEALLOCATE q1; PREPARE q1 AS SELECT 2",
    ),
    scenario(
        "SQL EXECUTE of a DEALLOCATE did not take a statement of the protocol away",
        "P s1 () DEALLOCATE q1
         P q1 () SELECT 1
         S
         Q EXECUTE s1
         own",
    ),
    scenario(
        "a PREPARE at the end of a longer text whose commit failed stayed for the next client",
        "Q INSERT INTO notes VALUES (1, 99); PREPARE q1 AS SELECT 1",
    ),
    scenario(
        "and its name was free for a Parse",
        "Q INSERT INTO notes VALUES (1, 99); PREPARE s2 AS SELECT 'sql'
         P s2 () SELECT 1 |
         S",
    ),
    scenario(
        "a custom setting that SQL EXECUTE had set reached the next client when a Bind had prepared it",
        "Q SELECT set_config('work_mem', '5MB', true)
         P s1 () PREPARE q2 AS SELECT set_config('app.x', 'prepared', false) |
         B p2 s1 text |
         E p2 0
         S
         Q EXECUTE q2(4)
         Q SELECT 1",
    ),
    scenario(
        "what a RESET had brought back in a pipeline was brought back again over a CALL that commits",
        "login options -c app.tenant=startup
         P i0 () RESET ALL |
         B - i0 text |
         E - 0 |
         P i1 () CALL set_commit('1') |
         B - i1 text |
         E - 0 |
         Q ROLLBACK
         own",
    ),
    scenario(
        "an unnamed statement that was described was reprepared for ever in a failed transaction",
        "P - () END |
         B - - text |
         S
         P s2 () begin |
         B - s2 text |
         E - 1 |
         E - 0 |
         S
         D S - |
         H
         B - - text |
         S",
    ),
    scenario(
        "code that ended a LISTEN of the same text was not noticed",
        "Q LISTEN news\\x0a; DO $do$BEGIN UNLISTEN news; END$do$
         Q NOTIFY news, 'last'",
    ),
    scenario(
        "a notification of a text that ends its own LISTEN by code was told",
        "Q LISTEN news\\x0a; NOTIFY news, '0'\\x0a; DO $do$BEGIN UNLISTEN news; END$do$
         Q LISTEN news
         Q NOTIFY news, '1'",
    ),
    scenario(
        "a Bind of a statement that SQL had prepared in a longer text was not asked about",
        "Q PREPARE q1 AS SELECT set_config('app.x', 'prepared', false); FETCH ALL FROM c1
         Q SELECT pg_notify('c2', 'y')
         B - q1 text |
         E - 0 |
         S",
    ),
    scenario(
        "a statement that a longer text made anew was closed behind it where others were not in the books",
        "Q PREPARE q1 AS SELECT 1; FETCH 1 FROM c1
         P s1 () SELECT 1
         S
         Q DEALLOCATE PREPARE s1; PREPARE s1 AS SELECT 'sql'
         own",
    ),
    scenario(
        "a statement that pinned its client was evicted, and parsed anew under the settings of now",
        "P s1 () select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text
         S
         Q SET TimeZone = 'America/New_York'
         P s2 () select 2
         P s3 () select 3
         P s4 () select 4
         P q1 () select 5
         S
         B - s1 text |
         E - 1 |
         S",
    ),
    scenario(
        "and so was one that was parsed under SET LOCAL, behind RESET ALL",
        "Q BEGIN
         Q SET LOCAL TimeZone = 'America/New_York'
         P s1 () select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text
         P s2 () select 2 |
         P s3 () RESET ALL |
         B - s3 text |
         E - 0 |
         P s4 () select 4 |
         P q1 () select 5 |
         S
         B - s1 text |
         E - 1 |
         S",
    ),
    scenario(
        "a statement was evicted and parsed anew under what code had set for its transaction",
        "Q BEGIN
         P s1 () select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text
         S
         Q DO $do$BEGIN PERFORM set_config('TimeZone', 'America/New_York', true); END$do$
         P s2 () select 2
         P s3 () select 3
         P s4 () select 4
         P q1 () select 5
         S
         B - s1 text |
         E - 1 |
         S",
    ),
    scenario(
        "a statement that moved was read under a later standard_conforming_strings: cached plan must \
         not change result type",
        "P s2 () SELECT '\\\\', set_config($$role$$,$$boss$$,false) --'
         S
         hold
         Q SET standard_conforming_strings = off
         own",
    ),
    scenario(
        "a statement that moved was read under settings of now, in a block too",
        "login TimeZone Asia/Tokyo
         P s1 () select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text
         S
         hold
         Q BEGIN
         Q SET LOCAL TimeZone = 'America/New_York'
         Q SET DateStyle = 'German'
         Q SAVEPOINT a
         B - s1 text |
         E - 1 |
         P - () SHOW TimeZone |
         B - - text |
         E - 0 |
         S
         Q ROLLBACK TO a
         own
         Q COMMIT
         own",
    ),
    scenario(
        "its constants are read again under another search_path, as on PostgreSQL",
        "P s1 () select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text
         P s2 () SELECT '\\\\', set_config($$app.x$$,$$2$$,false) --'
         S
         hold
         Q SET TimeZone = 'America/New_York'
         Q SET standard_conforming_strings = off
         Q SET search_path = other, public
         B - s1 text |
         E - 1 |
         S
         D S s2 |
         S
         own",
    ),
    scenario(
        "EXECUTE read the constants of a statement under settings of now",
        "Q PREPARE q1 AS select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text
         P s1 () select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text
         S
         Q BEGIN
         Q SET TimeZone = 'America/New_York'
         Q SET standard_conforming_strings = off
         Q EXECUTE q1
         own
         Q COMMIT
         P - () EXECUTE s1 |
         B - - text |
         E - 0 |
         P - () SHOW TimeZone |
         B - - text |
         E - 0 |
         S
         B - q1 text |
         E - 0 |
         S
         Q EXECUTE q1; SHOW TimeZone
         Q DEALLOCATE q1
         Q EXECUTE s1
         own",
    ),
    scenario(
        "and of several in one text, or under another search_path",
        "Q PREPARE q1 AS select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text
         Q SET TimeZone = 'America/New_York'
         Q PREPARE q2 AS select extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint::text; EXECUTE q1; EXECUTE q2
         Q EXPLAIN (COSTS OFF) EXECUTE q1
         Q SET search_path = other, public
         Q EXECUTE q1
         Q RESET ALL
         Q EXECUTE q1
         Q EXECUTE q2
         own",
    ),
];
