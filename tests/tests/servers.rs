//! Server connections that end, and errors that arrive when nobody asked: statements 5 to 7, 55.

use std::collections::BTreeSet;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use pgimbal_tests::fake_server::error;
use pgimbal_tests::http::metric;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{FakeServer, Message, Pgimbal, Pipeline, Postgres, WireClient};

/// A client whose only server connection has sent `odd` since it was given back, and what else the
/// server says: `closed` when the proxy has closed it. The server answers its connection's number.
fn served_before(odd: &[u8]) -> (mpsc::Receiver<&'static str>, Pgimbal, WireClient) {
    let (events, received) = mpsc::channel();
    let (idle, is_idle) = mpsc::channel();
    let (is_idle, bytes) = (Mutex::new(is_idle), odd.to_vec());
    let fake = FakeServer::start(move |server| {
        server.accept()?;
        let first = server.number == 0;
        loop {
            let Ok(sql) = server.read_query() else {
                let _ = events.send("closed");
                return Ok(());
            };
            if sql != "select 1" {
                server.answer("")?;
                continue;
            }
            server.answer(&server.number.to_string())?;
            if first {
                let _ = is_idle.lock().expect("a receiver").recv();
                server.send(&bytes)?;
                let _ = events.send("sent");
            }
        }
    });
    let proxy = Config::to_port(fake.port).set("pool_size", 1).start();
    let mut client = proxy.client();
    assert_eq!(client.value("select 1"), "0");
    // The client has its answer, so that nobody has the server any more.
    idle.send(()).expect("the server lives");
    assert_eq!(received.recv_timeout(SOON), Ok("sent"));
    (received, proxy, client)
}

#[test]
fn behaviour_05_an_error_on_an_idle_server_removes_it() {
    let odd = [
        error("FATAL", "57P01", "terminating connection due to administrator command"),
        error("ERROR", "XX000", "unasked"),
        Message::new(b'D', &[0, 0]).encode(),
        Message::new(b'Z', b"I").encode(),
        Message::new(b'!', b"what").encode(),
    ];
    for bytes in odd {
        let (events, _proxy, mut client) = served_before(&bytes);
        assert_eq!(events.recv_timeout(SOON), Ok("closed"), "kept after {}", bytes.escape_ascii());
        assert_eq!(client.value("select 1"), "1", "after {}", bytes.escape_ascii());
    }
}

#[test]
fn behaviour_05_notices_on_an_idle_server_are_no_error() {
    let notice = Message::new(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0").encode();
    let odd = [
        notice,
        Message::new(b'S', b"TimeZone\0Asia/Tokyo\0").encode(),
        Message::new(b'A', b"\0\0\0\x01channel\0payload\0").encode(),
    ];
    for bytes in odd {
        let (_events, _proxy, mut client) = served_before(&bytes);
        assert_eq!(client.value("select 1"), "0", "after {}", bytes.escape_ascii());
    }
}

#[test]
fn behaviour_06_a_dead_idle_server_is_invisible() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 3).start();
    let mut client = proxy.client();
    for _ in 0..20 {
        client.ok("select 1");
        pg.end_backends();
        assert_eq!(client.value("select 'still here'"), "still here");
        pg.end_backends();
        let reply = client.run(&Pipeline::new().run("select 'extended'").sync());
        assert_eq!(reply.value(), "extended");
    }
}

#[test]
fn behaviour_06_a_server_restart_is_invisible_to_idle_clients() {
    let mut pg = Postgres::start();
    let proxy = Config::before(&pg).set("server_login_retry", "\"100ms\"").start();
    let mut client = proxy.client();
    client.ok("select 1");
    pg.stop();
    pg.restart();
    // A connection attempt that fell into the gap may still be told; the session must survive.
    eventually("the client is served again", SOON, || client.query("select 1").errors().is_empty());
}

#[test]
fn behaviour_06_a_server_lost_inside_a_transaction_is_an_error_and_not_the_end() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    for end in ["rollback", "ROLLBACK;", " /* why */ abort"] {
        let mut client = proxy.client();
        client.ok("begin");
        pg.end_backends();
        let reply = client.query("select 1");
        let error = reply.errors().remove(0);
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("ERROR", "57P01"));
        assert_eq!(error.message, "terminating connection due to administrator command");
        assert_eq!((reply.tags().as_str(), reply.status()), ("EZ", 'E'));
        let again = client.query("select 2");
        assert_eq!((again.sqlstate().as_str(), again.status()), ("25P02", 'E'));
        let ended = client.ok(end);
        assert_eq!((ended.commands(), ended.status()), (vec!["ROLLBACK".to_owned()], 'I'));
        assert_eq!(client.value("select 3"), "3");
    }
}

#[test]
fn behaviour_06_the_same_for_the_extended_protocol() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    let mut client = proxy.client();
    client.ok("begin");
    pg.end_backends();
    let reply = client.run(&Pipeline::new().run("select 1").run("select 2").sync());
    assert_eq!((reply.tags().as_str(), reply.status()), ("EZ", 'E'));
    assert_eq!(reply.sqlstate(), "57P01");
    let reply = client.run(&Pipeline::new().run("select 1").sync());
    assert_eq!((reply.sqlstate().as_str(), reply.status()), ("25P02", 'E'));
    let reply = client.run(&Pipeline::new().run("rollback").sync());
    assert_eq!((reply.no_error().tags().as_str(), reply.status()), ("12CZ", 'I'));
    assert_eq!(client.value("select 3"), "3");
}

#[test]
fn behaviour_06_a_server_lost_during_a_query_tells_the_client() {
    let pg = Postgres::start();
    // Else it would be run again.
    let proxy = Config::before(&pg).server("failover_hold", "\"off\"").start();
    let mut client = proxy.client();
    client.start_query("select pg_sleep(60)");
    eventually("the query runs", SOON, || pg.running("pg_sleep") == 1);
    pg.end_backends();
    let error = loop {
        let message = client.read();
        if message.tag == b'E' {
            break message.error();
        }
    };
    assert_eq!(error.code, "57P01");
    assert_eq!(proxy.client().value("select 1"), "1");
}

#[test]
fn behaviour_07_server_lifetime_never_ends_a_linked_connection() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).set("server_lifetime", "\"500ms\"").start();
    let mut client = proxy.client();
    client.ok("begin");
    let backend = client.backend();
    always("the linked server stays", Duration::from_millis(1500), || client.backend() == backend);
    client.ok("commit");
    eventually("an old server is replaced", SOON, || client.backend() != backend);
}

#[test]
fn behaviour_07_the_ends_of_a_pool_are_spaced() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 10).set("server_lifetime", "\"2s\"").start();
    let mut clients: Vec<WireClient> = (0..10).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.ok("begin");
    }
    for client in &mut clients {
        client.ok("commit");
    }
    let born = Instant::now();
    let pids = || -> BTreeSet<String> {
        let sql = "select pid from pg_stat_activity where usename = 'app'";
        pg.superuser().ok(sql).texts().into_iter().map(|mut row| row.remove(0)).collect()
    };
    let all = pids();
    assert_eq!(all.len(), 10);
    let mut ends = Vec::new();
    eventually("all ten connections are replaced", SOON, || {
        let alive = pids();
        let gone = all.iter().filter(|pid| !alive.contains(*pid)).count();
        while ends.len() < gone {
            ends.push(born.elapsed());
        }
        gone == all.len()
    });
    let span = *ends.last().expect("an end") - ends[0];
    assert!(span > Duration::from_millis(300), "ten connections ended within {span:?}");
}

#[test]
fn behaviour_55_a_full_server_lets_waiters_wait() {
    let pg = Postgres::start();
    pg.run("alter role app connection limit 2");
    // Otherwise the role's limit would be known.
    let proxy =
        Config::before(&pg).set("pool_size", 6).server("max_server_connections", "\"off\"").start();
    let mut holders = [proxy.client(), proxy.client()];
    for holder in &mut holders {
        holder.ok("begin");
    }
    let mut waiters: Vec<WireClient> = (0..4).map(|_| proxy.client()).collect();
    for waiter in &mut waiters {
        waiter.start_query("select 'served'");
    }
    // pgimbal was told 53300. Were a waiter told, that would be its reply below.
    let refused = |page: &str| metric(page, "pgimbal_server_login_failures_total", &[]);
    eventually("it is full", SOON, || refused(&proxy.metrics()).is_some_and(|count| count > 0.9));
    proxy.wait_for_waiting(4);
    for holder in &mut holders {
        holder.ok("commit");
    }
    for waiter in &mut waiters {
        assert_eq!(waiter.read_reply().value(), "served");
    }
}

#[test]
fn behaviour_55_a_full_server_with_nobody_to_wait_for_is_told() {
    let pg = Postgres::start();
    pg.run("alter role app connection limit 0");
    let proxy = Config::before(&pg).start();
    let mut client = proxy.connect();
    let login = pgimbal_tests::Login::new("app", "app", "app-secret");
    let messages = client.log_in(&login).expect_err("no server connection can be had");
    let error = messages.last().expect("a message").error();
    assert_eq!(error.code, "53300");
    assert!(error.message.contains("too many connections"), "{error:?}");
}
