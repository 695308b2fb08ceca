//! Which statement a text's only one is.

use super::*;

#[test]
fn the_number_of_statements_is_known() {
    for text in ["", " ;; ", "-- SET x = 1", "/* a /* nested */ ; b */ ;", "--\r;"] {
        assert_eq!(judged(text).statements, Statements::Zero, "{text}");
        assert_eq!(judged(text).lead, Lead::None);
    }
    for text in [
        "SELECT 1",
        ";SELECT ';' ; -- ; SELECT",
        "SELECT $$;$$, $a$ ; $$ ; $b$ $a$, \";\", E'\\';', '\\', U&';' /* ; */",
        "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
        "(SELECT 1)",
        "SELECT e$1, $1, a$b$c, 1 - -1, 2 / 3 *//**/ 4",
    ] {
        assert_eq!(judged(text).statements, Statements::One(Statement::Other), "{text}");
    }
    for text in [
        "SELECT 1; SELECT 2",
        "SELECT '\\'; SELECT ''",
        "SELECT E'\\\\'; SELECT ''",
        "SELECT 1 -- \r; SELECT 2",
        "SELECT 1 /* /* */ */; SELECT 2",
        "SELECT a$b$; SELECT 2 $b$",
        "SELECT $1$; SELECT $1$",
        "SELECT $a$ $b$a$ ; SELECT 1",
        "SELECT 'a'\n'b;'; SELECT 1",
        "SELECT 1)); SELECT 2",
    ] {
        assert_eq!(judged(text).statements, Statements::Many, "{text}");
    }
}

#[test]
fn a_literal_goes_on_after_a_newline_in_its_own_rules() {
    // E'…' goes on, so that its backslash escapes the quote.
    assert!(matches!(
        judged("SELECT E'a' -- it's\n 'b\\'; SET x = 1; --'").statements,
        Statements::One(_)
    ));
    // Without a newline, or after a comment of the other kind, it does not.
    assert_eq!(judged("SELECT E'a'/**/\n'b\\'; SET x = 1; --'").statements, Statements::Many);
    assert_eq!(judged("SELECT E'a',\n'b\\'; SET x = 1; --'").statements, Statements::Many);
}

#[test]
fn backslashes_escape_where_the_session_says_so() {
    let text = b"SELECT '\\'; SET x = 1; --'";
    let off = Reading { strings: StandardStrings::Off, ..Reading::default() };
    assert_eq!(judge(text, off).statements, Statements::One(Statement::Other));
    assert_eq!(judge(text, Reading::default()).statements, Statements::Many);
    // N'…' follows the session too, B'…' and U&'…' do not.
    assert_eq!(judge(b"SELECT n'\\'; '", off).statements, Statements::One(Statement::Other));
    assert_eq!(judge(b"SELECT b'\\'; SELECT 1", off).statements, Statements::Many);
    assert_eq!(judge(b"SELECT u&'\\'; SELECT 1", off).statements, Statements::Many);
    let set = judge(b"SET a.b = 'x\\'y\\\\'", off).statements;
    assert_eq!(set, Statements::One(super::set("a.b", "x'y\\", Scope::Session)));
}

#[test]
fn a_second_byte_that_looks_like_a_backslash_is_none() {
    let text = b"SELECT E'\x83\x5c'; SET x = 1; --'";
    let sjis = Reading { encoding: Encoding::from_name(b"SJIS"), ..Reading::default() };
    assert_eq!(judge(text, sjis).statements, Statements::Many);
    assert_eq!(judge(text, Reading::default()).statements, Statements::One(Statement::Other));
    // A value that could not be written down again under another encoding is not followed.
    let set = judge(b"SET application_name = '\x83\x5c'", sjis);
    assert_eq!(set.statements, Statements::One(Statement::Other));
    assert!(set.taints.contains(Taint::SetUnread));
    let set = judge(b"set application_name = 'x'", sjis);
    assert_eq!(
        set.statements,
        Statements::One(super::set("application_name", "x", Scope::Session))
    );
}

#[test]
fn transactions_begin_and_end() {
    let commit = |chain| Statement::Commit { chain };
    let rollback = |chain| Statement::Rollback { chain };
    for (text, statement) in [
        ("BEGIN", Statement::Begin),
        ("begin isolation level serializable read only;", Statement::Begin),
        ("/* x */ Start Transaction", Statement::Begin),
        ("COMMIT;", commit(Chain::No)),
        ("END WORK", commit(Chain::No)),
        ("COMMIT AND CHAIN", commit(Chain::Yes)),
        ("COMMIT TRANSACTION AND NO CHAIN", commit(Chain::No)),
        ("COMMIT PREPARED 'x'", commit(Chain::No)),
        ("PREPARE TRANSACTION 'x'", Statement::PrepareTransaction),
        ("ROLLBACK", rollback(Chain::No)),
        ("ABORT", rollback(Chain::No)),
        ("ROLLBACK WORK AND CHAIN", rollback(Chain::Yes)),
        ("SAVEPOINT A", Statement::Savepoint { name: b"a"[..].into() }),
        ("SAVEPOINT \"A\"\"b\"", Statement::Savepoint { name: b"A\"b"[..].into() }),
        ("ROLLBACK TO a", Statement::RollbackTo { name: b"a"[..].into() }),
        ("rollback work to savepoint a;", Statement::RollbackTo { name: b"a"[..].into() }),
        ("ROLLBACK TO savepoint", Statement::RollbackTo { name: b"savepoint"[..].into() }),
        ("RELEASE SAVEPOINT a", Statement::Release { name: b"a"[..].into() }),
        ("RELEASE a", Statement::Release { name: b"a"[..].into() }),
    ] {
        assert_eq!(single(text), statement, "{text}");
        assert_eq!(taints(text), [], "{text}");
    }
    assert_eq!(taints("PREPARE transaction AS SELECT 1"), [Taint::SqlPrepare]);
}

#[test]
fn marks_are_found_anywhere_in_a_text() {
    for text in ["SELECT 1; COMMIT", "END", "select 1;;ABORT", "PREPARE TRANSACTION 'x'"] {
        assert!(judged(text).marks.may_commit(), "{text}");
    }
    for text in ["SELECT 'COMMIT'", "SELECT commit", "ROLLBACK TO a", "ROLLBACK WORK TO a", "BEGIN"]
    {
        assert!(!judged(text).marks.may_commit(), "{text}");
    }
    assert!(judged("ROLLBACK TO a; SELECT 1").marks.savepoints());
    assert!(!judged("ROLLBACK; SELECT 1").marks.savepoints());
    assert!(judged("SELECT 1; BEGIN").marks.begins());
    assert!(!judged("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END").marks.begins());
    assert!(judged("SELECT 1; drop table t").marks.may_change_schema());
    assert!(!judged("SELECT 1; INSERT INTO t VALUES (1)").marks.may_change_schema());
}

#[test]
fn every_spelling_of_set_is_followed() {
    let session = |name, value| set(name, value, Scope::Session);
    for (text, statement) in [
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
        ("SELECT set_config('TimeZone', 'UTC', false)", session("timezone", "UTC")),
        ("SELECT pg_catalog.set_config('search_path', '', false);", session("search_path", "")),
        ("SELECT set_config('a.b', 'c', true)", Statement::Other),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", Statement::SetTransaction),
        ("SET LOCAL TRANSACTION READ ONLY", Statement::SetTransaction),
        ("SET CONSTRAINTS ALL DEFERRED", Statement::SetTransaction),
        ("SET transaction_isolation = 'serializable'", Statement::SetTransaction),
        ("RESET ALL", Statement::ResetAll),
    ] {
        assert_eq!(single(text), statement, "{text}");
        assert_eq!(taints(text), [], "{text}");
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
        assert_eq!(
            single(text),
            Statement::Reset { name: name.as_bytes().into(), scope },
            "{text}"
        );
        assert_eq!(taints(text), [], "{text}");
    }
}

#[test]
fn characteristics_are_settings() {
    let text = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, \
                READ ONLY NOT DEFERRABLE";
    let Statement::SetCharacteristics(characteristics) = single(text) else { panic!("{text}") };
    let settings: Vec<_> = characteristics.settings().collect();
    assert_eq!(
        settings,
        [
            ("default_transaction_isolation", "repeatable read"),
            ("default_transaction_read_only", "on"),
            ("default_transaction_deferrable", "off"),
        ]
    );
    assert_eq!(taints(text), []);
}

#[test]
fn a_set_that_is_not_surely_read_is_not_followed() {
    for text in [
        "SET x.y = U&'a'",
        "SET x.y = E'\\x41'",
        "SET x.y = B'1'",
        "SET x FROM CURRENT",
        "SET seed = 0.5",
        "SET x.y = 0x1f",
        "SET x.y = 1_000",
        "SET x.y = 'a' 'b'",
        "SET x.y = 'a'\n'b'",
        "SET TIME ZONE INTERVAL '8' HOUR",
        "SET",
        "SET x",
        "SET x = ",
        "SET x = 'open",
        "RESET",
    ] {
        assert_eq!(single(text), Statement::Other, "{text}");
        assert_eq!(taints(text), [Taint::SetUnread], "{text}");
    }
}

#[test]
fn the_other_forms_are_known() {
    let name = || std::borrow::Cow::Borrowed(&b"a"[..]);
    for (text, statement) in [
        ("DISCARD ALL", Statement::DiscardAll),
        ("discard temporary", Statement::Discard(Discard::Temporary)),
        ("DISCARD PLANS;", Statement::Discard(Discard::Plans)),
        ("DEALLOCATE a", Statement::Deallocate { name: name() }),
        ("DEALLOCATE PREPARE A", Statement::Deallocate { name: name() }),
        ("DEALLOCATE ALL", Statement::DeallocateAll),
        ("DEALLOCATE PREPARE ALL", Statement::DeallocateAll),
        ("PREPARE a (int) AS SELECT $1", Statement::Prepare { name: name() }),
        ("EXECUTE a(1)", Statement::Execute { name: name() }),
        ("LISTEN A", Statement::Listen { channel: name() }),
        ("UNLISTEN a", Statement::Unlisten { channel: name() }),
        ("UNLISTEN *", Statement::UnlistenAll),
        (
            "DECLARE a CURSOR FOR SELECT 1",
            Statement::Declare { name: name(), hold: Hold::Transaction },
        ),
        (
            "DECLARE a BINARY NO SCROLL CURSOR WITH HOLD FOR SELECT 1",
            Statement::Declare { name: name(), hold: Hold::Session },
        ),
        (
            "DECLARE a CURSOR WITHOUT HOLD FOR WITH x AS (SELECT 1) SELECT 1",
            Statement::Declare { name: name(), hold: Hold::Transaction },
        ),
        ("CLOSE a", Statement::Close { name: name() }),
        ("CLOSE ALL", Statement::CloseAll),
        ("COPY t FROM STDIN", Statement::Copy),
    ] {
        assert_eq!(single(text), statement, "{text}");
    }
}

#[test]
fn a_longer_text_may_be_followed_statement_by_statement() {
    let sequence = |text: &'static str| sequence(text.as_bytes(), Reading::default());
    // asyncpg's and Npgsql's pools.
    assert_eq!(
        sequence("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"),
        Some(vec![
            Statement::UnlockAll,
            Statement::CloseAll,
            Statement::UnlistenAll,
            Statement::ResetAll,
        ])
    );
    let text = "SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;\
                SELECT pg_advisory_unlock_all();DISCARD SEQUENCES;DISCARD TEMP";
    assert_eq!(sequence(text).map(|list| list.len()), Some(7));
    assert_eq!(
        sequence("SET a.b = ';'; SELECT 1; SET LOCAL c = 1; SELECT set_config('d', 'e', false)"),
        Some(vec![
            set("a.b", ";", Scope::Session),
            Statement::Other,
            set("c", "1", Scope::Local),
            set("d", "e", Scope::Session),
        ])
    );
    for text in [
        "SET a = 1; COMMIT",
        "BEGIN; SET a = 1",
        "SET a = 1; ROLLBACK TO x",
        "SET a = 1; LISTEN x",
        "SET a = 1; DEALLOCATE ALL",
        "SET a = 1; SET b = U&'x'",
        "SET a = 1; SELECT pg_advisory_lock(1)",
        "SET a = 1; SELECT U&\"x\"",
    ] {
        assert_eq!(sequence(text), None, "{text}");
    }
}
