//! The forms of statements.

use super::*;

#[test]
fn the_number_of_statements_is_known() {
    for text in ["", " ;; ", "-- SET x = 1", "/* a /* nested */ ; b */ ;", "--\r;"] {
        assert_eq!(classified(text).steps, Steps::None, "{text}");
    }
    for text in [
        "SELECT 1",
        ";SELECT ';' ; -- ; SELECT",
        "SELECT $$;$$, $a$ ; $$ ; $b$ $a$, \";\", E'\\';', '\\', U&';' /* ; */",
        "(SELECT 1)",
        "SELECT e$1, $1, a$b$c, 1 - -1, 2 / 3 *//**/ 4",
        "SELECT 1; SELECT 2",
    ] {
        assert_eq!(classified(text).steps, Steps::Plain, "{text}");
    }
    let rule = "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)";
    assert_eq!(classified(rule).steps, Steps::One(other(Kinds::NONE)));
    for text in [
        "SELECT '\\'; SET x = 1; --'",
        "SELECT E'\\\\'; RESET ALL",
        "SELECT 1 -- \r; RESET ALL",
        "SELECT 1 /* /* */ */; RESET ALL",
        "SELECT a$b$; RESET ALL",
        "SELECT $1$; RESET ALL",
        "SELECT $a$ $b$a$ ; RESET ALL",
        "SELECT 'a'\n'b;'; RESET ALL",
        "SELECT 1)); RESET ALL",
    ] {
        assert_eq!(steps(text).len(), 2, "{text}");
        assert_eq!(steps(text)[0], Step::PLAIN, "{text}");
    }
}

#[test]
fn a_literal_goes_on_after_a_newline_in_its_own_rules() {
    // E'…' goes on, so that its backslash escapes the quote.
    let text = "SELECT E'a' -- it's\n 'b\\'; SET x = 1; --'";
    assert_eq!(classified(text).steps, Steps::Plain);
    // Without a newline, or after a comment of the other kind, it does not.
    assert_eq!(steps("SELECT E'a'/**/\n'b\\'; SET x = 1; --'").len(), 2);
    assert_eq!(steps("SELECT E'a',\n'b\\'; SET x = 1; --'").len(), 2);
}

#[test]
fn a_function_body_has_semicolons_of_its_own() {
    for text in [
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
        "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC END",
        "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql begin atomic \
         SELECT CASE a WHEN 1 THEN 2 END; SELECT 1 AS case; SELECT 2 end; END;",
    ] {
        assert_eq!(forms(text), [Form::Other], "{text}");
        assert!(!classified(text).marks.may_commit(), "{text}");
    }
    let body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS case; END; RESET ROLE";
    assert_eq!(forms(body).len(), 2);
    // Only there: columns may have these names.
    assert_eq!(forms("CREATE VIEW v AS SELECT begin atomic FROM t; RESET ALL").len(), 2);
    assert_eq!(forms("CREATE TABLE t AS SELECT begin atomic; RESET ALL").len(), 2);
}

#[test]
fn transactions_begin_and_end() {
    for (text, form) in [
        ("BEGIN", Form::Begin),
        ("begin isolation level serializable read only;", Form::Begin),
        ("/* x */ Start Transaction", Form::Begin),
        ("COMMIT;", Form::Commit(Chain::No)),
        ("END WORK", Form::Commit(Chain::No)),
        ("COMMIT AND CHAIN", Form::Commit(Chain::Yes)),
        ("COMMIT TRANSACTION AND NO CHAIN", Form::Commit(Chain::No)),
        // That is not this session's transaction.
        ("COMMIT PREPARED 'x'", Form::Other),
        ("ROLLBACK PREPARED 'x'", Form::Other),
        ("PREPARE TRANSACTION 'x'", Form::PrepareTransaction),
        ("ROLLBACK", Form::Rollback(Chain::No)),
        ("ABORT", Form::Rollback(Chain::No)),
        ("ROLLBACK WORK AND CHAIN", Form::Rollback(Chain::Yes)),
        ("SAVEPOINT A", Form::Savepoint(bytes("a"))),
        ("SAVEPOINT \"A\"\"b\"", Form::Savepoint(bytes("A\"b"))),
        ("ROLLBACK TO a", Form::RollbackTo(bytes("a"))),
        ("rollback work to savepoint a;", Form::RollbackTo(bytes("a"))),
        ("ROLLBACK TO savepoint", Form::RollbackTo(bytes("savepoint"))),
        ("RELEASE SAVEPOINT a", Form::Release(bytes("a"))),
        ("RELEASE a", Form::Release(bytes("a"))),
    ] {
        assert_eq!(only(text), followed(form), "{text}");
    }
    assert_eq!(
        only("PREPARE transaction AS SELECT 1"),
        followed(Form::Prepare(bytes("transaction")))
    );
}

#[test]
fn marks_are_found_anywhere_in_a_text() {
    for text in ["SELECT 1; COMMIT", "END", "select 1;;ABORT", "PREPARE TRANSACTION 'x'"] {
        assert!(classified(text).marks.may_commit(), "{text}");
    }
    for text in ["SELECT 'COMMIT'", "SELECT commit", "ROLLBACK TO a", "ROLLBACK WORK TO a", "BEGIN"]
    {
        assert!(!classified(text).marks.may_commit(), "{text}");
    }
    assert!(classified("SELECT 1; BEGIN").marks.begins());
    for text in [
        "SELECT 1; drop table t",
        "SELECT 1 INTO t",
        "WITH x AS (SELECT 1) SELECT * INTO t FROM x",
        "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
    ] {
        assert!(classified(text).marks.may_change_schema(), "{text}");
        assert!(steps(text).last().is_some_and(|step| step.form == Form::Other), "{text}");
    }
    assert!(!classified("SELECT 1; INSERT INTO t VALUES (1)").marks.may_change_schema());
}

#[test]
fn every_spelling_of_set_is_followed() {
    let session = |name, value| set(name, value, Scope::Session);
    for (text, form) in [
        ("SET TimeZone TO 'Europe/Berlin';", session("timezone", "Europe/Berlin")),
        ("set session \"TimeZone\" = UTC", session("timezone", "utc")),
        ("SET LOCAL work_mem = '4MB'", set("work_mem", "4MB", Scope::Local)),
        ("SET local.x = 1", session("local.x", "1")),
        ("SET session.x TO a", session("session.x", "a")),
        ("SET statement_timeout TO 007", session("statement_timeout", "7")),
        ("SET x.y = -5, +1.50, 1e5", session("x.y", "-5, 1.50, 1e5")),
        ("SET a.b.c = E'it''s \\t \\\\'", session("a.b.c", "it's \t \\")),
        ("SET a.b = $x$it's$x$", session("a.b", "it's")),
        ("SET enable_seqscan = off", session("enable_seqscan", "off")),
        (
            "SET search_path = Foo, \"Foo\", 'a\"b', 1",
            session("search_path", "foo, \"Foo\", \"a\"\"b\", 1"),
        ),
        ("SET search_path = ''", session("search_path", "\"\"")),
        ("SET DateStyle = ISO, DMY", session("datestyle", "iso, dmy")),
        ("SET SCHEMA 'Foo'", session("search_path", "\"Foo\"")),
        ("SET NAMES 'latin1'", session("client_encoding", "latin1")),
        ("SET TIME ZONE 'UTC'", session("timezone", "UTC")),
        ("SET LOCAL TIME ZONE -7", set("timezone", "-7", Scope::Local)),
        (
            "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE",
            session("timezone", "INTERVAL '-08:00'"),
        ),
        ("SET ROLE none", session("role", "none")),
        ("SET ROLE \"App User\"", session("role", "App User")),
        ("SET SESSION ROLE 'app'", session("role", "app")),
        ("SET SESSION AUTHORIZATION Joe", session("session_authorization", "joe")),
        ("SET SESSION SESSION AUTHORIZATION 'Joe'", session("session_authorization", "Joe")),
        ("SET LOCAL SESSION AUTHORIZATION joe", set("session_authorization", "joe", Scope::Local)),
        ("SET XML OPTION DOCUMENT", session("xmloption", "document")),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", Form::Plain),
        ("SET LOCAL TRANSACTION READ ONLY", Form::Plain),
        ("SET CONSTRAINTS ALL DEFERRED", Form::Plain),
        ("SET transaction_isolation = 'serializable'", Form::Plain),
        ("RESET ALL", Form::ResetAll),
    ] {
        assert_eq!(only(text), followed(form), "{text}");
    }
    // An identifier is cut, a literal is not.
    let long = "a".repeat(70);
    let cut = session("x.y", &long[..63]);
    assert_eq!(only(&format!("SET x.y = {long}")), followed(cut));
    assert_eq!(only(&format!("SET x.y = '{long}'")), followed(session("x.y", &long)));
}

#[test]
fn escapes_are_decoded_as_far_as_they_are_ascii() {
    for (literal, value) in [
        ("E'pg\\137temp'", "pg_temp"),
        ("E'\\x41\\x4'", "A\x04"),
        ("E'\\u0041\\U00000042'", "AB"),
        ("E'\\5011'", "A1"),
        ("E'\\xyz'", "xyz"),
    ] {
        let form = set("x.y", value, Scope::Session);
        assert_eq!(only(&format!("SET x.y = {literal}")), followed(form), "{literal}");
    }
    for literal in ["E'\\xe9'", "E'\\u00e9'", "E'\\u41'", "E'\\v'", "E'\\0'", "E'\\377'"] {
        let step = only(&format!("SET x.y = {literal}"));
        assert_eq!(step.form, Form::Other, "{literal}");
    }
}

#[test]
fn every_spelling_of_reset_is_followed() {
    for (text, name, scope) in [
        ("RESET TimeZone", "timezone", Scope::Session),
        ("RESET a.b", "a.b", Scope::Session),
        ("SET x TO DEFAULT", "x", Scope::Session),
        ("SET LOCAL x = default", "x", Scope::Local),
        ("RESET TIME ZONE", "timezone", Scope::Session),
        ("SET TIME ZONE LOCAL", "timezone", Scope::Session),
        ("SET TIME ZONE DEFAULT", "timezone", Scope::Session),
        ("SET NAMES", "client_encoding", Scope::Session),
        ("SET NAMES DEFAULT", "client_encoding", Scope::Session),
        ("RESET SESSION AUTHORIZATION", "session_authorization", Scope::Session),
        ("SET SESSION AUTHORIZATION DEFAULT", "session_authorization", Scope::Session),
        ("RESET ROLE", "role", Scope::Session),
    ] {
        assert_eq!(only(text), followed(Form::Reset(bytes(name), scope)), "{text}");
    }
}

#[test]
fn characteristics_are_settings() {
    let step = only(
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE, ISOLATION LEVEL REPEATABLE READ, \
         READ ONLY NOT DEFERRABLE",
    );
    let modes = [
        ("default_transaction_isolation", "repeatable read"),
        ("default_transaction_read_only", "on"),
        ("default_transaction_deferrable", "off"),
    ];
    let modes = modes.map(|(name, value)| assign(text(name), text(value), Scope::Session));
    assert_eq!(step, followed(Form::Set(Box::new(modes), SetBy::Statement)));
}

#[test]
fn the_other_forms_are_known() {
    for (text, form) in [
        ("DISCARD ALL", Form::DiscardAll),
        ("discard temporary", Form::Discard),
        ("DISCARD PLANS;", Form::Discard),
        ("DEALLOCATE a", Form::Deallocate(bytes("a"))),
        ("DEALLOCATE PREPARE A", Form::Deallocate(bytes("a"))),
        ("DEALLOCATE prepare", Form::Deallocate(bytes("prepare"))),
        ("DEALLOCATE ALL", Form::DeallocateAll),
        ("DEALLOCATE PREPARE ALL", Form::DeallocateAll),
        ("PREPARE a (int) AS SELECT $1", Form::Prepare(bytes("a"))),
        ("PREPARE \"A b\" AS SELECT set_config('role', 'x', false)", Form::Prepare(bytes("A b"))),
        ("DECLARE a CURSOR FOR SELECT 1", Form::Declare),
        ("DECLARE a CURSOR WITHOUT HOLD FOR WITH hold AS (SELECT 1) SELECT 1", Form::Declare),
        ("FETCH ALL FROM a", Form::Fetch),
        ("MOVE a", Form::Fetch),
        ("CLOSE a", Form::Other),
        ("UNLISTEN *", Form::UnlistenAll),
        ("UNLISTEN \"A b\";", Form::Unlisten(bytes("A b"))),
        ("COPY t FROM STDIN", Form::Copy),
        ("SELECT pg_catalog.pg_advisory_unlock_all();", Form::UnlockAll),
        ("SELECT pg_advisory_unlock_all(), 1", Form::Other),
        ("CHECKPOINT", Form::Other),
        ("VACUUM t", Form::Other),
    ] {
        assert_eq!(only(text), followed(form), "{text}");
    }
    let listen =
        |name| Step { form: Form::Listen(bytes(name)), raises: Kinds::CHANNELS, local: false };
    assert_eq!(only("LISTEN News"), listen("news"));
    assert_eq!(only("listen \"A \"\"b\"\"\""), listen("A \"b\""));
    let execute = Step { form: Form::Execute(bytes("a")), raises: ANYTHING, local: true };
    assert_eq!(only("EXECUTE a(1)"), execute);
    // What its arguments do is not in its books.
    assert_eq!(only("EXECUTE a(set_config('role', 'x', false))"), Step::UNREADABLE);
    let hold = Step { form: Form::Declare, raises: Kinds::CURSORS, local: false };
    assert_eq!(only("DECLARE a BINARY NO SCROLL CURSOR WITH HOLD FOR SELECT 1"), hold);
    let locks = Step { form: Form::Declare, raises: Kinds::LOCKS, local: false };
    assert_eq!(only("DECLARE a CURSOR FOR SELECT pg_advisory_lock(1)"), locks);
}

#[test]
fn a_longer_text_is_followed_statement_by_statement() {
    // asyncpg's and Npgsql's pools.
    let reset = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";
    assert_eq!(forms(reset), [Form::UnlockAll, Form::Other, Form::UnlistenAll, Form::ResetAll]);
    assert_eq!(
        forms("BEGIN;SET a.b = ';'; SELECT 1; SET LOCAL c = 1;COMMIT AND CHAIN"),
        [
            Form::Begin,
            set("a.b", ";", Scope::Session),
            Form::Plain,
            set("c", "1", Scope::Local),
            Form::Commit(Chain::Yes),
        ]
    );
    assert_eq!(
        forms("ROLLBACK TO x;RELEASE x"),
        [Form::RollbackTo(bytes("x")), Form::Release(bytes("x"))]
    );
    assert_eq!(forms("SAVEPOINT a;SELECT 1"), [Form::Savepoint(bytes("a")), Form::Plain]);
    assert_eq!(classified("SELECT 1; SET TRANSACTION READ ONLY").steps, Steps::Plain);
    // More than can be of use.
    let many = "SELECT 1;".repeat(2000);
    assert_eq!(classified(&many).steps, Steps::Plain);
    assert_eq!(classified(&format!("{many}RESET ALL")).steps, Steps::Unreadable);
    assert_eq!(classified(&format!("RESET ALL;{many}")).steps, Steps::Unreadable);
}

#[test]
fn statements_are_named() {
    for text in [
        "EXECUTE a",
        "PREPARE a AS SELECT 1",
        "PREPARE transaction AS SELECT 1",
        "DEALLOCATE a",
        "SELECT 1; DEALLOCATE ALL",
        "EXPLAIN (ANALYZE, VERBOSE) EXECUTE a",
        "explain analyze verbose execute a",
        "CREATE TABLE t AS EXECUTE a",
        "EXPLAIN CREATE TABLE t AS EXECUTE a",
        "DO $$BEGIN EXECUTE 'x'; END$$",
        "DO 'BEGIN\nDeallocate a; END'",
        "DO E'BEGIN \\145xecute 1; END'",
    ] {
        assert!(classified(text).names_statements, "{text}");
    }
    for text in [
        "SELECT execute FROM t",
        "EXPLAIN SELECT execute FROM t",
        "PREPARE TRANSACTION 'x'",
        "CREATE TRIGGER r AFTER INSERT ON t EXECUTE FUNCTION f()",
        "DO $$BEGIN PERFORM executed; END$$",
        "SELECT 'EXECUTE a'",
    ] {
        assert!(!classified(text).names_statements, "{text}");
    }
}
