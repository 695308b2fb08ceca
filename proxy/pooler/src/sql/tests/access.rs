//! Whether texts read or write, and what they name that escapes a READ ONLY transaction.

use super::pieces::{Random, random_text};
use super::*;

fn kind(text: &str) -> AccessKind {
    classified(text).access.kind
}

fn escapes(text: &[u8]) -> bool {
    read(text, Reading::default()).access.escapes
}

#[test]
fn the_first_word_stands_behind_comments_and_parentheses() {
    use AccessKind::{BeginsAsRead, CopiesOut, Nothing, Reads, Unknown, Writes};
    for (text, access) in [
        ("select 1", BeginsAsRead),
        (" /* a */ -- b\n ((WITH x", BeginsAsRead),
        ("/* a /* b */ select */ insert", Writes),
        ("/* a /* b */ never ends", Nothing),
        ("-- a\rdelete -- b\nselect", Writes),
        ("\u{b}\u{c}select 1", BeginsAsRead),
        ("", Nothing),
        ("; -- a", Nothing),
        ("/* never ends", Nothing),
        ("values(1)", BeginsAsRead),
        ("TABLE t", BeginsAsRead),
        ("explain analyze delete from t", BeginsAsRead),
        ("(select 1)", BeginsAsRead),
        (";(/* a */ ( show x))", Reads),
        ("with a as (select 1) select 2", BeginsAsRead),
        ("with a as (delete from t returning 1) select 2", BeginsAsRead),
        ("show x", Reads),
        ("show x; -- a\n show y;", Reads),
        ("show x; insert into t values (1)", BeginsAsRead),
        ("show x; begin", BeginsAsRead),
        ("select 1; insert into t values (1)", BeginsAsRead),
        ("insert into t values (1)", Writes),
        ("update t set a = 1; select 1", Writes),
        ("merge into t using u on true when matched then delete", Writes),
        ("create table t ()", Writes),
        ("call p()", Unknown),
        ("do 'select 1'", Unknown),
        ("vacuum t", Unknown),
        ("begin", Unknown),
        ("begin; select 1", Unknown),
        ("commit ", Unknown),
        ("fetch x", Unknown),
        ("execute p", Unknown),
        ("prepare p as select 1", Unknown),
        ("notify a", Unknown),
        ("'select'", Unknown),
        ("\"select\" 1", Unknown),
        ("select1", Unknown),
        (")select 1", Unknown),
        ("copy t to stdout", CopiesOut),
    ] {
        assert_eq!(kind(text), access, "{text}");
    }
    let unreadable = read(
        "select '\u{e9}'".as_bytes(),
        Reading { encoding: Encoding::Unreadable, ..Reading::default() },
    );
    assert_eq!(unreadable.access, Access::UNKNOWN);
}

#[test]
fn a_copy_out_is_told_from_one_in() {
    for text in [
        "copy t to stdout",
        "COPY (select 1) TO STDOUT",
        "copy((with a as (select 1) table a)) to stdout",
        "copy s.t (a, b) to stdout",
        "copy /* from */ \"from\" to stdout",
        "copy binary t to stdout; select 1",
    ] {
        assert_eq!(kind(text), AccessKind::CopiesOut, "{text}");
    }
    for text in [
        "copy t from stdin",
        "copy \"to\" from stdin",
        "copy t (a, b) from stdin -- to",
        "copy (delete from t returning a) to stdout",
        "copy (/* select */ insert into t values (1) returning a) to stdout",
    ] {
        assert_eq!(kind(text), AccessKind::Writes, "{text}");
    }
    assert_eq!(kind("copy t"), AccessKind::Unknown);
}

#[test]
fn what_a_read_only_transaction_lets_through_is_named() {
    for text in [
        "select lo_unlink(1)",
        "select pg_notify('a', 'b')",
        "select * from DBLINK_exec('x')",
        "select pg_logical_emit_message(false, 'a', 'b')",
        "select 1; notify x",
        "select query_to_xml('select lo_create(0)', true, true, '')",
        "Notify",
        "select LOWRITE(1, 'a') -- and much that stands behind it",
        "select \"pg_catalog\".\"lo_create\"(0)",
    ] {
        assert!(escapes(text.as_bytes()), "{text}");
    }
    for text in [
        "select hello_world",
        "select notify_at from t",
        "select slo_id, my_dblink",
        "select pg_notify_all(), lowrites(), xnotify, notify1",
        "select 'a flow of location: friendly links are satisfying'",
        "commit",
    ] {
        assert!(!escapes(text.as_bytes()), "{text}");
    }
}

/// As plainly as it can be said: any of the names, at a word's beginning.
fn names_one(text: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] =
        [b"lo_", b"lowrite", b"pg_notify", b"notify", b"dblink", b"pg_logical_emit_message"];
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    NAMES.iter().any(|name| {
        let whole = !matches!(name, [.., b'_' | b'k']);
        text.windows(name.len()).enumerate().any(|(at, window)| {
            window.eq_ignore_ascii_case(name)
                && (at == 0 || !is_part(text[at - 1]))
                && (!whole || text.get(at + name.len()).is_none_or(|&next| !is_part(next)))
        })
    })
}

#[test]
fn names_are_found_at_any_place_of_any_text() {
    let names = ["lo_", "LOwrite", "pg_notify", "Notify", "dblink", "pg_logical_emit_message"];
    let (mut named, mut unnamed) = (0, 0);
    for seed in 1..=20_000 {
        let mut random = Random::new(seed);
        let mut text = random_text(&mut random);
        let name = random.of(&names).as_bytes();
        let cut = name.len() - random.below(4).min(1) * random.below(name.len());
        let at = random.below(text.len() + 1);
        let gap: &[u8] = random.of(&[&b" "[..], b"", b"'", b"_"]);
        text.splice(at..at, [gap, &name[..cut], gap].concat());
        if classify(&text, Readings::One(Reading::default()), Calls::Text).steps
            == Steps::Unreadable
        {
            assert!(escapes(&text));
            continue;
        }
        let expected = names_one(&text);
        *(if expected { &mut named } else { &mut unnamed }) += 1;
        assert_eq!(escapes(&text), expected, "seed {seed}: {}", text.escape_ascii());
    }
    assert!(named > 2_000 && unnamed > 2_000, "{named} {unnamed}");
}

#[test]
fn a_text_leaves_nothing_but_what_functions_may_that_it_calls() {
    for text in ["select f()", "select 1; table t", "copy (select f()) to stdout", "fetch c", ""] {
        for calls in [Calls::Text, Calls::Functions] {
            let found = classify(text.as_bytes(), Readings::Any, calls);
            assert!(found.leaves_nothing, "{text} {calls:?}");
        }
    }
    for text in [
        "select f(), pg_advisory_lock(1)",
        "select f(); set a = 1",
        "select set_config('a', f(), true)",
        "begin",
        "commit; select f()",
        "commit prepared f()",
        "call p(f())",
        "listen a",
        "execute p(f(1))",
    ] {
        for calls in [Calls::Text, Calls::Functions] {
            let found = classify(text.as_bytes(), Readings::Any, calls);
            assert!(!found.leaves_nothing, "{text} {calls:?}");
        }
    }
}
