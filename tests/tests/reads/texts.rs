//! Texts that mean one thing to PostgreSQL and another to who reads them carelessly: what writes
//! runs once, on the primary, and no replica is asked.

use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pipeline, WireClient};

use super::{HERE, Setup};

/// Encodings, each with a character of its own; in most of them its last byte is a backslash's.
const CHARACTERS: [(&str, &[u8]); 10] = [
    ("SJIS", b"\x95\x5c"),
    ("SHIFT_JIS_2004", b"\x95\x5c"),
    ("GBK", b"\x81\x5c"),
    ("GB18030", b"\x81\x5c"),
    ("BIG5", b"\xa5\x5c"),
    ("EUC_JP", b"\xc9\xbd"),
    ("EUC_JP", b"\x8f\xb0\xa1"),
    ("EUC_KR", b"\xb0\xa1"),
    ("UHC", b"\x81\x41"),
    ("UTF8", b"\xe8\xa1\xa8"),
];

/// Texts that draw one number of the sequence; `#` stands for the character.
const DRAWS: [&str; 8] = [
    "select '#', nextval($$numbers$$)",
    "select E'#', nextval($$numbers$$) --'",
    "select E'\\'#', nextval($$numbers$$) --'",
    "select /* # ' /* */ ' */ nextval($$numbers$$)",
    "select 1 --# '\r, nextval($$numbers$$) --'",
    "select $#$ ' $#$, nextval($$numbers$$) --'",
    "select nextval($$numbers$$) as \"#\"",
    "select U&'#', nextval($$numbers$$) --'",
];

/// Texts that draw one while `standard_conforming_strings` is off.
const DRAWS_WHEN_OFF: [&str; 4] = [
    "select '#', nextval($$numbers$$) --'",
    "select 'x\\'', nextval($$numbers$$) --'",
    "select '\\\\', nextval($$numbers$$) --'",
    "select 'x\\'#', '--', nextval($$numbers$$)",
];

/// Texts that draw one while it is on.
const DRAWS_WHEN_ON: [&str; 3] = [
    "select '\\', nextval($$numbers$$) --'",
    "select '#\\', nextval($$numbers$$), '\\'",
    "select '\\', '--', nextval($$numbers$$)",
];

fn with(text: &str, character: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, piece) in text.split('#').enumerate() {
        if index > 0 {
            bytes.extend(character);
        }
        bytes.extend(piece.as_bytes());
    }
    bytes
}

/// A client whose next read would be served by the replica.
fn wait_for_replica(setup: &Setup, client: &mut WireClient) {
    let replica = &setup.ports()[1];
    eventually("the replica has caught up", SOON, || client.value(HERE) == *replica);
}

/// Sends a text in both protocols, which must draw one number each time.
fn assert_draws(setup: &Setup, client: &mut WireClient, text: &[u8], what: &str) {
    let drawn = || setup.cluster.nodes[0].value("select last_value from numbers");
    let simple = Pipeline::new().query_bytes(text);
    let extended = Pipeline::new().parse_bytes("", text).bind("", "", &[]).execute("", 0).sync();
    for way in [simple, extended] {
        wait_for_replica(setup, client);
        let before: u64 = drawn().parse().expect("a number");
        let reply = client.run(&way);
        let shown = text.escape_ascii();
        assert!(reply.errors().is_empty(), "{what}: {shown}: {:?}", reply.errors());
        assert_eq!(drawn(), (before + 1).to_string(), "{what}: {shown}");
    }
}

/// How often the replica has refused to write.
fn refused(setup: &Setup) -> Vec<String> {
    let log = setup.cluster.nodes[1].log();
    let told =
        |line: &&str| line.contains("read-only transaction") || line.contains("during recovery");
    log.lines().filter(told).map(str::to_owned).collect()
}

/// A setup whose sequence has been used, so that its last value tells how often it was. A quote
/// behind a backslash is taken in every encoding.
fn start() -> Setup {
    let setup = Setup::start(1);
    let primary = &setup.cluster.nodes[0];
    primary.run("select nextval('numbers')");
    primary.run("alter database app set backslash_quote = on");
    setup
}

#[test]
fn reads_are_not_taken_for_such_in_multibyte_encodings() {
    let setup = start();
    let mut client = setup.client();
    for (encoding, character) in CHARACTERS {
        client.ok(&format!("set client_encoding = '{encoding}'"));
        // A tag of a dollar quote is no place for a byte that looks like a backslash.
        for text in DRAWS.iter().filter(|text| encoding == "UTF8" || !text.contains("$#$")) {
            let what = format!("{encoding}, on");
            assert_draws(&setup, &mut client, &with(text, character), &what);
        }
        // Half a character at the end of a text or of a constant.
        for text in ["select '#'", "select nextval($$numbers$$) --#"] {
            let broken = with(text, &character[..1]);
            let reply = client.run(&Pipeline::new().query_bytes(&broken));
            // Not in the encoding, without an equal in the database's, or without an end.
            let is_due = ["22021", "22P05", "42601"].contains(&&*reply.sqlstate());
            assert!(is_due, "{encoding}: {}: {reply:?}", broken.escape_ascii());
        }
    }
    assert_eq!(refused(&setup), [""; 0]);
}

#[test]
fn reads_are_not_taken_for_such_while_backslashes_escape() {
    let setup = start();
    let mut client = setup.client();
    for (encoding, character) in CHARACTERS {
        client.ok(&format!("set client_encoding = '{encoding}'"));
        for (value, texts) in [("off", &DRAWS_WHEN_OFF[..]), ("on", &DRAWS_WHEN_ON)] {
            client.ok(&format!("set standard_conforming_strings = {value}"));
            for text in texts {
                let what = format!("{encoding}, {value}");
                assert_draws(&setup, &mut client, &with(text, character), &what);
            }
        }
    }
    assert_eq!(refused(&setup), [""; 0]);
}

#[test]
fn reads_are_read_as_the_session_has_set_its_strings_by_whatever_way() {
    let setup = start();
    let mut client = setup.client();
    let (off, on) = (DRAWS_WHEN_OFF[1].as_bytes(), DRAWS_WHEN_ON[0].as_bytes());
    for (to_off, to_on) in [
        ("set standard_conforming_strings = off", "reset standard_conforming_strings"),
        (
            "select set_config('standard_conforming_strings', 'off', false)",
            "select set_config('standard_conforming_strings', 'on', false)",
        ),
        ("do $$ begin set standard_conforming_strings = off; end $$", "discard all"),
        ("begin; set standard_conforming_strings = off; commit", "reset all"),
    ] {
        client.ok(to_off);
        assert_draws(&setup, &mut client, off, to_off);
        client.ok(to_on);
        assert_draws(&setup, &mut client, on, to_on);
    }
    let login = Setup::login().with("standard_conforming_strings", "off");
    let mut client = setup.proxy.log_in(&login);
    assert_draws(&setup, &mut client, off, "at the login");
    // For one transaction only.
    client.ok("set standard_conforming_strings = on");
    client.ok("begin; set local standard_conforming_strings = off; commit");
    assert_draws(&setup, &mut client, on, "after a transaction");
    assert_eq!(refused(&setup), [""; 0]);
}

#[test]
fn reads_of_what_one_schema_writes_and_another_does_not_are_the_primarys() {
    let setup = start();
    // Before the catalog is read, and then in it.
    setup.cluster.nodes[0].run(
        "create function public.mark() returns text stable language sql as $$ select 'read' $$; \
         create function other.mark() returns text volatile language sql as \
         $$ insert into items values (nextval('numbers'), 'marked') returning 'written' $$; \
         create view public.seen as select here() as here; \
         create view other.seen as select other.mark() as here; \
         grant select on public.seen, other.seen to app; grant insert on items to public",
    );
    setup.cluster.settle(0);
    let mut client = setup.client();
    let marked =
        || setup.cluster.nodes[0].value("select count(*) from items where name = 'marked'");
    for (number, text) in
        ["select mark()", "select here from seen", "execute sql_mark"].into_iter().enumerate()
    {
        client.ok("set search_path = public");
        if text.starts_with("execute") {
            client.ok("prepare sql_mark as select mark()");
        }
        wait_for_replica(&setup, &mut client);
        client.run(&Pipeline::new().parse("p", text).describe_statement("p").sync()).no_error();
        let run = Pipeline::new().bind("", "p", &[]).execute("", 0).sync();
        assert_ne!(client.run(&run).value(), "written", "{text}");
        client.ok("set search_path = other, public");
        wait_for_replica(&setup, &mut client);
        assert_eq!(client.run(&run).value(), "written", "{text}");
        client.ok("set search_path = public");
        wait_for_replica(&setup, &mut client);
        assert_ne!(client.run(&run).value(), "written", "{text}");
        assert_eq!(marked(), (number + 1).to_string(), "{text}");
        client.run(&Pipeline::new().close_statement("p").sync()).no_error();
    }
    assert_eq!(refused(&setup), [""; 0]);
}

#[test]
fn reads_of_what_has_come_to_write_since_run_once_on_the_primary() {
    let setup = start();
    let mut client = setup.client();
    client.ok("set search_path = other, public");
    wait_for_replica(&setup, &mut client);
    // Past pgimbal, which believes the catalog that it has.
    setup.cluster.nodes[0].run(
        "create function other.here() returns text language sql as \
         $$ insert into items values (nextval('numbers'), 'hidden') returning 'written' $$; \
         grant execute on function other.here() to app",
    );
    setup.cluster.settle(0);
    for count in 1..=3 {
        assert_eq!(client.value(HERE), "written");
        let written = "select count(*) from items where name = 'hidden'";
        assert_eq!(setup.cluster.nodes[0].value(written), count.to_string());
    }
    assert_eq!(refused(&setup).len(), 1, "a replica was asked once: {:?}", refused(&setup));
}
