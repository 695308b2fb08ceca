//! Servers that are down, refuse, or speak nonsense: statement 43 and what a client is told.

use std::time::Duration;

use pgimbal_tests::fake_server::error;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::port::free_port;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{
    FakeServer, Login, Message, Pgimbal, Pipeline, Postgres, ServerError, WireClient,
};

fn app() -> Login {
    Login::new("app", "app", "app-secret")
}

/// The error that a login ends with, at once or with the first query.
fn refusal(proxy: &Pgimbal, login: &Login) -> ServerError {
    let mut client = proxy.connect();
    match client.log_in(login) {
        Err(messages) => messages.last().expect("an answer").error(),
        Ok(()) => {
            client.start_query("select 1");
            client
                .read_to_end()
                .iter()
                .find(|message| message.tag == b'E')
                .expect("an error")
                .error()
        }
    }
}

#[test]
fn behaviour_43_a_wrong_server_password_is_tried_once() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg)
        .set("pool_size", 10)
        .tables("[users.wrong]\npassword = \"x\"\nserver_password = \"not-it\"")
        .start();
    pg.run("create role wrong login password 'wrong-secret'");
    let logins: Vec<ServerError> = std::thread::scope(|scope| {
        let proxy = &proxy;
        let login = || refusal(proxy, &Login::new("wrong", "app", "x"));
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(login)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a login")).collect()
    });
    for error in logins {
        assert_eq!(error.code, "28P01");
        assert!(
            error.message.contains("password authentication failed for user \"wrong\""),
            "{error:?}"
        );
    }
    let tries = pg.logged("password authentication failed");
    assert_eq!(tries, 1, "PostgreSQL was asked {tries} times");
    assert_eq!(proxy.client().value("select 1"), "1");
    assert!(!proxy.log().contains("not-it"), "a password was logged");
}

#[test]
fn behaviour_43_waiters_of_a_living_pool_are_told_too() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 1).set("server_login_retry", "\"60s\"");
    let proxy = config.start();
    let login = Login::new("scram", "app", "scram-secret");
    let mut clients: Vec<WireClient> = (0..8).map(|_| proxy.log_in(&login)).collect();
    pg.run("alter role scram password 'another'");
    pg.end_backends();
    for client in &mut clients {
        client.start_query("select 1");
    }
    for client in &mut clients {
        let messages = client.read_to_end_or_ready();
        let error = messages.iter().find(|message| message.tag == b'E').expect("an error").error();
        assert_eq!(error.code, "28P01", "{error:?}");
    }
    assert_eq!(pg.logged("password authentication failed"), 1);
}

#[test]
fn a_server_that_is_down_is_named_with_the_next_step() {
    let proxy = Config::to_port(free_port()).start();
    let error = refusal(&proxy, &app());
    assert_eq!(error.severity, "FATAL");
    assert!(error.code.starts_with("08"), "{error:?}");
    let text = format!("{:?}", error.fields);
    assert!(text.contains("127.0.0.1"), "{text} does not name the server");
    assert!(!text.contains("app-secret"), "{text} names a password");
}

#[test]
fn a_server_that_comes_back_is_used_again() {
    let mut pg = Postgres::start();
    let config = Config::before(&pg).server("failover_hold", "\"off\"");
    let proxy = config.set("server_login_retry", "\"200ms\"").start();
    let mut client = proxy.client();
    client.ok("select 1");
    pg.stop();
    client.start_query("select 2");
    let told = client.read_to_end_or_ready();
    let error = told.iter().find(|message| message.tag == b'E').expect("an error").error();
    assert!(error.code.starts_with("08") || error.code.starts_with("57"), "{error:?}");
    pg.restart();
    eventually("clients are served again", SOON, || {
        let mut late = proxy.connect();
        late.log_in(&app()).is_ok() && late.query("select 3").errors().is_empty()
    });
}

#[test]
fn a_server_that_restarts_is_waited_for_as_a_cluster_of_one_node_is() {
    let mut pg = Postgres::start();
    pg.run("create table restarts (id text); grant all on restarts to app");
    // Its end is that of a crash, and its commits are not flushed.
    pg.run("checkpoint");
    let proxy = Config::before(&pg).set("pool_size", 5).start();
    let mut clients: Vec<WireClient> = (0..5).map(|_| proxy.client()).collect();
    let [idle, block, reader, writer, late] = &mut clients[..] else { panic!("five") };
    for client in [&mut *idle, &mut *late] {
        client.ok("select 1");
    }
    block.ok("begin");
    block.ok("insert into restarts values ('block')");
    reader.start_query("select 'again' from pg_sleep(2)");
    writer.start_query("insert into restarts select 'writer' from pg_sleep(600)");
    eventually("they run", SOON, || pg.running("pg_sleep") == 2);
    pg.stop();
    let told = writer.read_reply();
    // It ends at once, and so proves nothing.
    assert_eq!((told.sqlstate().as_str(), told.status()), ("08007", 'I'));
    let pipeline = ["begin", "insert into restarts values ('late')", "commit"];
    let pipeline = pipeline.iter().fold(Pipeline::new(), |all, text| all.run(text).sync());
    late.send(pipeline.bytes());
    // Were they told of the restart, that would stand before the replies below.
    proxy.wait_for_waiting(2);
    pg.restart();
    assert_eq!(reader.read_reply().value(), "again");
    for _ in 0..3 {
        late.read_reply().no_error();
    }
    idle.expect_nothing_before_the_next_reply();
    let told = block.query("insert into restarts values ('block')");
    assert_eq!((told.sqlstate().as_str(), told.status()), ("57P01", 'E'));
    assert_eq!(block.ok("rollback").status(), 'I');
    assert_eq!(idle.value("select string_agg(id, ' ') from restarts"), "late");
}

#[test]
fn a_server_that_does_not_come_back_within_failover_hold_is_named() {
    let mut pg = Postgres::start();
    let proxy = Config::before(&pg).server("failover_hold", "\"1s\"").start();
    let mut client = proxy.client();
    client.ok("select 1");
    pg.stop();
    let reply = client.query("select 2");
    assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57P03", 'I'));
    let error = reply.errors().remove(0);
    assert!(error.message.contains("within failover_hold: "), "{error:?}");
    assert!(error.message.contains("127.0.0.1"), "{error:?}");
    pg.restart();
    eventually("it is served again", SOON, || client.query("select 3").errors().is_empty());
}

#[test]
fn a_servers_refusal_reaches_the_client_as_it_is() {
    let refusals = [
        ("FATAL", "3D000", "database \"app\" does not exist"),
        ("FATAL", "57P03", "the database system is starting up"),
        ("FATAL", "28000", "no pg_hba.conf entry for host"),
        ("FATAL", "53300", "sorry, too many clients already"),
    ];
    for (severity, code, text) in refusals {
        let fake = FakeServer::start(move |server| {
            server.startup()?;
            server.error(severity, code, text)
        });
        let config = Config::to_port(fake.port).set("query_wait_timeout", "\"2s\"");
        let proxy = config.set("server_login_retry", "\"200ms\"").start();
        let error = refusal(&proxy, &app());
        assert_eq!((error.severity.as_str(), error.code.as_str()), (severity, code), "{error:?}");
        assert!(error.message.contains(text), "{error:?}");
    }
}

#[test]
fn a_server_that_speaks_nonsense_at_login() {
    let long = |tag: u8, length: u32| [&[tag][..], &length.to_be_bytes(), b"xx"].concat();
    let nonsense: Vec<Vec<u8>> = vec![
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        long(b'R', 0),
        long(b'R', 0x7fff_ffff),
        long(b'R', 0xffff_ffff),
        Message::new(b'R', &[]).encode(),
        Message::new(b'R', &99_u32.to_be_bytes()).encode(),
        Message::new(b'R', &[0, 0, 0, 10]).encode(),
        Message::new(b'R', b"\0\0\0\x0aNO-SUCH-MECHANISM\0\0").encode(),
        Message::new(b'E', b"no field ends").encode(),
        Message::new(b'Z', b"I").encode(),
        vec![],
        vec![b'R'],
    ];
    for bytes in nonsense {
        let sent = bytes.clone();
        let fake = FakeServer::start(move |server| {
            server.startup()?;
            server.send(&sent)
        });
        let proxy = Config::to_port(fake.port).set("server_connect_timeout", "\"2s\"").start();
        let before = proxy.process().status_kib("VmHWM");
        let error = refusal(&proxy, &app());
        assert_eq!(error.severity, "FATAL", "after {}", bytes.escape_ascii());
        let known = error.code.starts_with("08") || error.code == "28000";
        assert!(known, "after {}: {error:?}", bytes.escape_ascii());
        let grown = proxy.process().status_kib("VmHWM") - before;
        assert!(grown < 8 * 1024, "{} made the proxy grow by {grown} KiB", bytes.escape_ascii());
    }
}

#[test]
fn a_server_that_speaks_nonsense_to_a_query() {
    let nonsense: Vec<Vec<u8>> = vec![
        [&b"D"[..], &0_u32.to_be_bytes()].concat(),
        [&b"D"[..], &0xffff_ffff_u32.to_be_bytes()].concat(),
        Message::new(b'Z', &[]).encode(),
        Message::new(b'Z', b"X").encode(),
        Message::new(b'!', b"what").encode(),
        b"Internal Server Error".to_vec(),
        vec![b'D', 0, 0, 1, 0, b'h', b'a', b'l', b'f'],
        vec![],
    ];
    for bytes in nonsense {
        let sent = bytes.clone();
        let fake = FakeServer::start(move |server| {
            server.accept()?;
            loop {
                if server.read_query()? == "odd" {
                    server.send(&sent)?;
                    return Ok(());
                }
                server.answer("even")?;
            }
        });
        let proxy = Config::to_port(fake.port).set("pool_size", 1).start();
        let (mut client, mut other) = (proxy.client(), proxy.client());
        client.start_query("odd");
        let raw = client.read_raw_to_end_or_ready();
        let text = String::from_utf8_lossy(&raw).into_owned();
        // Half a row that has gone to the client cannot be followed by an error.
        let half_a_row = text.starts_with("D\0\0\u{1}\0half");
        assert!(half_a_row || text.contains("C08"), "after {}: {text:?}", bytes.escape_ascii());
        assert_eq!(other.value("select 1"), "even", "after {}", bytes.escape_ascii());
    }
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let fake = FakeServer::start(|server| {
        server.wait_for_end();
        Ok(())
    });
    let proxy = Config::to_port(fake.port).set("server_connect_timeout", "\"1s\"").start();
    let start = std::time::Instant::now();
    let error = refusal(&proxy, &app());
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(900), "given up after {waited:?}");
    assert!(waited < Duration::from_secs(6), "given up after {waited:?}");
    assert!(error.code.starts_with("08"), "{error:?}");
}

#[test]
fn behaviour_36_bytes_after_the_servers_answer_to_ssl_request_are_not_used() {
    let injected = error("FATAL", "28P01", "injected by somebody in the middle");
    let fake = FakeServer::start(move |server| {
        server.read_ssl_request()?;
        server.send(&[&b"S"[..], &injected].concat())?;
        server.wait_for_end();
        Ok(())
    });
    for sslmode in ["prefer", "require"] {
        let config = Config::to_port(fake.port).set("server_connect_timeout", "\"2s\"");
        let proxy = config.tables(&format!("[server_tls]\nsslmode = \"{sslmode}\"")).start();
        let error = refusal(&proxy, &app());
        assert!(!error.message.contains("injected"), "{sslmode}: {error:?}");
        assert_eq!(error.severity, "FATAL");
    }
}

#[test]
fn query_wait_timeout_fires_and_not_early() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 1);
    let proxy = config.set("query_wait_timeout", "\"1s\"").start();
    let (mut holder, mut waiter) = (proxy.client(), proxy.client());
    holder.ok("begin");
    waiter.start_query("select 1");
    // Time is the subject.
    assert!(waiter.is_silent_for(Duration::from_millis(800)), "it fired early");
    let told = waiter.read_to_end_or_ready();
    let error = told.iter().find(|message| message.tag == b'E').expect("an error").error();
    assert!(error.message.contains("query_wait_timeout"), "{error:?}");
    assert_eq!(holder.ok("commit").status(), 'I');
    assert_eq!(proxy.client().value("select 'next'"), "next");
}
