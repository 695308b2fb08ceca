//! Clients that leave in the middle of something, texts that stream, and keys that are guessed.

use super::*;
use pgimbal_tests::Pipeline;
use pgimbal_tests::wire_client::cancel;

/// What closing a server connection takes at most when the server does not end.
const GIVEN_UP: Duration = Duration::from_secs(10);

#[test]
fn a_client_that_vanishes_in_the_middle_of_a_message_frees_its_place_at_once() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let mut other = proxy.client();
    let long = format!("select 1 -- {}", "x".repeat(1_000_000));
    let query = Pipeline::new().query(&long);
    let parse = Pipeline::new().query("select 1").parse("", &long);
    for (reset, half) in [query.bytes(), parse.bytes()].into_iter().enumerate() {
        let mut client = proxy.client();
        client.send(&half[..600_000]);
        eventually("its server connection has half a message", SOON, || {
            proxy.console("show servers").iter().flatten().any(|(_, value)| value == "active")
        });
        let begun = Instant::now();
        client.disconnect(reset == 1);
        assert_eq!(other.value("select 'served'"), "served");
        assert!(begun.elapsed() < GIVEN_UP / 2, "it took {:?}", begun.elapsed());
    }
    assert!(pg.backends() <= 1, "a backend still waits for the rest");
}

#[test]
fn what_runs_in_front_of_half_a_message_is_cancelled() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let mut other = proxy.client();
    let mut client = proxy.client();
    let long = format!("select 1 -- {}", "x".repeat(1_000_000));
    let pipeline = Pipeline::new().query("select pg_sleep(600)").query(&long);
    client.send(&pipeline.bytes()[..600_000]);
    eventually("the query runs", SOON, || pg.running("pg_sleep") == 1);
    let begun = Instant::now();
    client.disconnect(false);
    assert_eq!(other.value("select 'served'"), "served");
    assert!(begun.elapsed() < GIVEN_UP / 2, "it took {:?}", begun.elapsed());
    assert_eq!(pg.running("pg_sleep"), 0);
}

#[test]
fn max_pinned_holds_for_texts_that_are_too_long_to_be_read_first() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 2).set("max_pinned", 1);
    let config = config.set("max_statement_bytes", "\"1KiB\"").set("listen_mode", "\"pin\"");
    let proxy = config.set("query_wait_timeout", "\"1s\"").start();
    let mut pinned = proxy.client();
    pinned.ok("listen news");
    let long = format!("create temp table mine (x int) -- {}", "x".repeat(100_000));
    let mut second = proxy.client();
    assert_eq!(second.query(&long).sqlstate(), "53400");
    let parse = Pipeline::new().parse("long", &long).sync();
    assert_eq!(second.run(&parse).sqlstate(), "53400");
    // A second server connection was free for everybody else all the time.
    assert_eq!(second.value("select 1"), "1");
    pinned.terminate();
    let plain = format!("select 'plain' -- {}", "x".repeat(100_000));
    eventually("there is room", SOON, || second.query(&plain).errors().is_empty());
    // One that has left nothing gives its place back.
    let mut third = proxy.client();
    third.ok("listen news");
    assert_eq!(second.query(&long).sqlstate(), "53400");
}

#[test]
fn process_ids_of_short_keys_say_nothing_about_each_other() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("workers", 2).start();
    let clients: Vec<WireClient> = (0..30).map(|_| proxy.client()).collect();
    let ids = clients
        .iter()
        .map(|client| i32::from_be_bytes(client.key[..4].try_into().expect("a process id")));
    let ids: Vec<i32> = ids.collect();
    assert!(ids.iter().all(|id| *id > 0), "{ids:?}");
    let high: std::collections::BTreeSet<i32> = ids.iter().map(|id| id >> 24).collect();
    assert!(high.len() > 8, "the high bits of {ids:?} are not random");
    assert!(!ids.windows(2).any(|pair| pair[0].abs_diff(pair[1]) < 16), "{ids:?} count up");
}

#[test]
fn who_guesses_at_keys_is_passed_over() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    let mut client = proxy.client();
    client.start_query("select pg_sleep(600)");
    eventually("the query runs", SOON, || pg.running("pg_sleep") == 1);
    for guess in 0..100_u32 {
        cancel(proxy.port, &[&client.key[..4], &guess.to_be_bytes()].concat());
    }
    let says = || proxy.log().matches("too many cancel requests with wrong keys").count();
    eventually("the log says so", SOON, || says() == 1);
    client.cancel(proxy.port);
    assert_eq!(says(), 1, "the log is flooded");
    pg.run("select pg_cancel_backend(pid) from pg_stat_activity where query like '%pg_sleep(600)'");
    assert_eq!(client.read_reply().sqlstate(), "57014");
    let sent = metric(&proxy.metrics(), "pgimbal_cancels_total", &[]).unwrap_or(0.0);
    assert!(sent < 0.1, "it is listened to");
}
