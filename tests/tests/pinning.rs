//! Session state that keeps its client on one server, visibly, and never leaks: statement 35.

use pgimbal_tests::http::metric;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pgimbal, Pipeline, Postgres, WireClient};

/// What a session does, the reason that is shown, what takes the state away, and what finds it.
struct State {
    make: &'static str,
    reason: &'static str,
    undo: &'static str,
    find: &'static str,
}

const fn state(
    make: &'static str,
    reason: &'static str,
    undo: &'static str,
    find: &'static str,
) -> State {
    State { make, reason, undo, find }
}

const LOCKS: &str = "select count(*) from pg_locks where locktype = 'advisory'";
const TABLES: &str = "select count(*) from pg_class where relname = 'mine'";
const CURSORS: &str = "select count(*) from pg_cursors";
const CHANNELS: &str = "select count(*) from pg_listening_channels()";
const PREPARED: &str = "select count(*) from pg_prepared_statements where name = 'mine'";

/// State that keeps its client on its server.
const STATES: [State; 11] = [
    // In a longer text it is not followed.
    state("select 1; prepare mine as select 1", "sql_prepare", "deallocate all", PREPARED),
    state("PREPARE mine (int) AS SELECT $1; SELECT 1", "sql_prepare", "discard all", PREPARED),
    state("listen news", "listen", "unlisten *", CHANNELS),
    state("create temp table mine (x int)", "temporary_table", "discard all", TABLES),
    state("create temporary table mine as select 1", "temporary_table", "discard temp", TABLES),
    state("select 1 as x into temp mine", "temporary_table", "discard all", TABLES),
    state("create table pg_temp.mine (x int)", "temporary_table", "discard all", TABLES),
    state("select pg_advisory_lock(7)", "advisory_lock", "select pg_advisory_unlock_all()", LOCKS),
    state("select pg_try_advisory_lock_shared(7, 8)", "advisory_lock", "discard all", LOCKS),
    state("declare mine cursor with hold for select 1", "hold_cursor", "close all", CURSORS),
    state(
        "/* a comment */ CREATE /* another */ TEMP TABLE mine (x int)",
        "temporary_table",
        "discard all",
        TABLES,
    ),
];

/// Settings in other forms than a lone SET: they may be followed or keep their client, but must
/// be neither lost nor leaked.
const SETTINGS: [&str; 6] = [
    "select 1; set work_mem = '9MB'",
    "set work_mem = '8MB'; set work_mem = '9MB'; select 1",
    "begin; set work_mem = '9MB'; commit",
    "select set_config('work_mem', '9MB', false)",
    "select 1, set_config('work_mem', '9MB', false) as x",
    "set local work_mem = '1MB'; set work_mem = '9MB'",
];

fn start(max_pinned: u32) -> (Postgres, Pgimbal) {
    let pg = Postgres::start();
    let proxy = two(&pg, max_pinned).start();
    (pg, proxy)
}

/// A pool of two, whose clients keep their server connections while they listen.
fn two(pg: &Postgres, max_pinned: u32) -> Config {
    let config = Config::before(pg).set("pool_size", 2).set("max_pinned", max_pinned);
    config.set("listen_mode", "\"pin\"")
}

/// The reasons in SHOW CLIENTS, without those of clients that are not pinned.
fn reasons(proxy: &Pgimbal) -> Vec<String> {
    let rows = proxy.console("show clients");
    let pinned = rows.into_iter().flatten().filter(|(name, _)| name == "pinned");
    pinned.map(|(_, value)| value).filter(|value| !value.is_empty() && value != "NULL").collect()
}

#[test]
fn behaviour_35_state_stays_with_its_client_and_goes_with_it() {
    let (_pg, proxy) = start(1);
    for state in &STATES {
        let mut owner = proxy.client();
        owner.ok(state.make);
        let backend = owner.backend();
        for _ in 0..4 {
            let mut other = proxy.client();
            assert_ne!(other.backend(), backend, "{} was shared", state.make);
            if state.find != LOCKS && state.find != TABLES {
                assert_eq!(other.value(state.find), "0", "{} leaked", state.make);
            }
            assert_eq!(owner.backend(), backend, "{} was lost", state.make);
        }
        assert_eq!(owner.value(state.find), "1", "{} was lost", state.make);
        owner.terminate();
        let mut next = [proxy.client(), proxy.client()];
        for client in &mut next {
            client.ok("begin");
        }
        for client in &mut next {
            assert_eq!(client.value(state.find), "0", "{} outlived its client", state.make);
        }
    }
}

#[test]
fn behaviour_35_settings_in_any_form_are_neither_lost_nor_leaked() {
    let (_pg, proxy) = start(1);
    for sql in SETTINGS {
        let mut owner = proxy.client();
        owner.ok(sql);
        for _ in 0..4 {
            let mut others = [proxy.client(), proxy.client()];
            assert_eq!(others[0].value("show work_mem"), "4MB", "{sql} leaked");
            assert_eq!(owner.value("show work_mem"), "9MB", "{sql} was lost");
            assert_eq!(others[1].value("show work_mem"), "4MB", "{sql} leaked");
        }
        owner.terminate();
        let mut next = [proxy.client(), proxy.client()];
        for client in &mut next {
            client.ok("begin");
        }
        for client in &mut next {
            assert_eq!(client.value("show work_mem"), "4MB", "{sql} outlived its client");
        }
    }
}

#[test]
fn pinned_sessions_are_shown_with_their_reason() {
    let (_pg, proxy) = start(1);
    for state in &STATES {
        let mut owner = proxy.client();
        owner.ok(state.make);
        // The server is asked behind the statement.
        eventually(state.make, SOON, || {
            let shown = reasons(&proxy);
            shown.len() == 1 && shown[0].contains(state.reason)
        });
        let label = format!("reason=\"{}\"", state.reason);
        let count = metric(&proxy.metrics(), "pgimbal_clients_pinned", &[&label]);
        assert_eq!(count, Some(1.0), "{}", state.make);
        owner.ok(state.undo);
        assert_eq!(owner.value(state.find), "0", "{} did not undo it", state.undo);
        eventually("the client is free again", SOON, || reasons(&proxy).is_empty());
    }
}

#[test]
fn a_pinned_session_made_by_the_extended_protocol() {
    let (_pg, proxy) = start(1);
    let mut owner = proxy.client();
    owner.run(&Pipeline::new().parse("s", "listen news").sync()).no_error();
    owner.run(&Pipeline::new().bind("", "s", &[]).execute("", 0).sync()).no_error();
    let backend = owner.backend();
    for _ in 0..4 {
        let mut other = proxy.client();
        assert_ne!(other.backend(), backend);
        assert_eq!(owner.backend(), backend);
    }
    assert_eq!(owner.value(CHANNELS), "1");
}

#[test]
fn a_listening_session_is_told_of_notifications() {
    let (pg, proxy) = start(1);
    let mut listener = proxy.client();
    listener.ok("listen news");
    proxy.client().ok("notify news, 'from the pool'");
    pg.run("notify news, 'from elsewhere'");
    for payload in ["from the pool", "from elsewhere"] {
        let message = listener.expect(b'A');
        assert!(String::from_utf8_lossy(&message.body).contains(payload), "{message:?}");
    }
    listener.ok("unlisten news");
    pg.run("notify news, 'nobody'");
    // It was sent before this began, so that it would stand before the answer or in it.
    listener.expect_nothing_before_the_next_reply();
}

#[test]
fn a_listeners_own_notification_bears_its_own_process_id() {
    let (pg, proxy) = start(1);
    let mut listener = proxy.client();
    listener.ok("listen news");
    let own = listener.key[..4].to_vec();
    // In one answer with others, and between them.
    let reply = listener.query("select 1; notify news, 'own'; select 2");
    reply.no_error();
    let heard = reply.messages.iter().find(|message| message.tag == b'A').expect("the notice");
    assert_eq!(heard.body[..4], own[..], "{heard:?}");
    assert_eq!(&heard.body[4..], b"news\0own\0");
    pg.run("notify news, 'from elsewhere'");
    assert_ne!(listener.expect(b'A').body[..4], own[..]);
}

#[test]
fn max_pinned_keeps_part_of_the_pool_free() {
    let pg = Postgres::start();
    let proxy = two(&pg, 1).set("query_wait_timeout", "\"1s\"").start();
    let mut first = proxy.client();
    first.ok("listen news");
    let mut second = proxy.client();
    let refused = second.query("listen news");
    let error = refused.errors().remove(0);
    assert_eq!((error.severity.as_str(), refused.status()), ("ERROR", 'I'), "{error:?}");
    assert!(format!("{:?}", error.fields).contains("max_pinned"), "{error:?}");
    assert_eq!(second.value("select 1"), "1");
    let extended = second.run(&Pipeline::new().run("create temp table mine (x int)").sync());
    assert_eq!(extended.errors().len(), 1, "{extended:?}");
    assert_eq!(second.value(TABLES), "0");
    // The pinned one may do more of the kind, and its end makes room.
    first.ok("create temp table mine (x int)");
    first.terminate();
    eventually("there is room", SOON, || second.query("listen news").errors().is_empty());
}

#[test]
fn a_statement_that_would_pin_waits_for_a_place() {
    let (_pg, proxy) = start(1);
    let (mut first, mut second, mut third) = (proxy.client(), proxy.client(), proxy.client());
    first.ok("listen news");
    second.start_query("listen news");
    third.send(Pipeline::new().run("select pg_advisory_lock(1)").sync().bytes());
    // They hold no server connection meanwhile: others go on with the rest of the pool.
    for _ in 0..10 {
        assert_eq!(proxy.client().value("select 1"), "1");
    }
    proxy.wait_for_waiting(2);
    first.ok("unlisten news");
    second.read_reply().no_error();
    proxy.wait_for_waiting(1);
    second.ok("unlisten *");
    third.read_reply().no_error();
    assert_eq!(third.value("select pg_advisory_unlock(1)"), "t");
}

#[test]
fn a_session_pinned_beyond_the_limit_keeps_its_server_when_its_next_text_pins() {
    let pg = Postgres::start();
    let proxy = two(&pg, 1).set("query_wait_timeout", "\"1s\"").start();
    let (mut first, mut second, mut other) = (proxy.client(), proxy.client(), proxy.client());
    first.ok("listen news");
    // In a transaction a pin does not wait for a place.
    second.ok("begin; create temp table mine (x int); commit");
    let backend = second.backend();
    let long = format!("select pg_advisory_lock(1) -- {}", "x".repeat(100_000));
    for sql in ["create temp table another (x int)", "listen news", &long] {
        second.ok(sql);
        assert_eq!((second.backend(), second.value(TABLES)), (backend.clone(), "1".to_owned()));
    }
    let extended = Pipeline::new().run("declare mine cursor with hold for select 1").sync();
    second.run(&extended).no_error();
    assert_eq!(second.backend(), backend);
    // Nobody else can have it.
    other.start_query(TABLES);
    proxy.wait_for_waiting(1);
    second.terminate();
    assert_eq!(other.read_reply().value(), "0");
}

#[test]
fn a_pinned_session_that_loses_its_server_is_told() {
    let (pg, proxy) = start(1);
    let mut owner = proxy.client();
    owner.ok("create temp table mine (x int)");
    pg.end_backends();
    let messages = {
        owner.start_query("select * from mine");
        owner.read_to_end_or_ready()
    };
    let told = messages.iter().any(|message| message.tag == b'E');
    assert!(told, "state was lost without a word: {messages:?}");
    assert_eq!(proxy.client().value("select 1"), "1");
}

#[test]
fn behaviour_35_what_looks_like_state_in_a_string_pins_nobody() {
    let (_pg, proxy) = start(1);
    let harmless = [
        "select 'listen news'",
        "select $$create temp table mine$$",
        "select 1 as \"listen\" -- listen news",
        "/* prepare x as select 1 */ select 1",
        "select set_config('work_mem', '9MB', true)",
        "select pg_advisory_xact_lock(1)",
        "select E'\\'; listen news; --'",
    ];
    let mut client: WireClient = proxy.client();
    for sql in harmless {
        client.ok(sql);
        assert!(reasons(&proxy).is_empty(), "{sql} pinned its client: {:?}", reasons(&proxy));
    }
    client.ok("begin");
    client.ok("declare c cursor for select 1");
    client.ok("commit");
    assert!(reasons(&proxy).is_empty());
}
