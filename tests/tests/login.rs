//! Startup, login and limits on connections: statements 9, 36, 38, 42, 45, 54.

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use pgimbal_tests::http::metric;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::startup::{GSSENC_REQUEST, PROTOCOL_3_2, SSL_REQUEST, startup_packet};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::wire_client::cancel;
use pgimbal_tests::{FakeServer, Login, Message, Pgimbal, Postgres, WireClient};

fn app() -> Login {
    Login::new("app", "app", "app-secret")
}

#[test]
fn every_way_to_prove_a_password() {
    let pg = Postgres::start();
    for auth_type in ["trust", "password", "md5", "scram-sha-256"] {
        // The server asks for one of the passwords in clear text.
        let proxy = Config::before(&pg)
            .set("auth_type", format!("\"{auth_type}\""))
            .set("require_auth", "\"password,md5,scram-sha-256,none\"")
            .start();
        for user in ["app", "scram", "md5", "clear"] {
            let mut client = proxy.log_in(&Login::new(user, "app", &format!("{user}-secret")));
            assert_eq!(client.value("select current_user"), user, "{auth_type}");
            if auth_type == "trust" {
                continue;
            }
            let wrong = proxy.connect().log_in(&Login::new(user, "app", "wrong"));
            let error = wrong.expect_err("a wrong password").last().expect("a message").error();
            assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "28P01"));
            assert!(error.message.contains(user), "{error:?}");
        }
        assert_eq!(proxy.log().matches("-secret").count(), 0, "a password was logged");
    }
}

#[test]
fn behaviour_36_bytes_before_the_handshake_close_the_connection() {
    let pg = Postgres::start();
    let proxy = Pgimbal::before(&pg);
    for code in [SSL_REQUEST, GSSENC_REQUEST] {
        let mut client = proxy.connect();
        client.send(&[startup_packet(code, &[]), app().packet()].concat());
        let mut answer = [0];
        client.read_bytes(&mut answer).expect("an answer to the request");
        let messages = client.read_to_end();
        let logged_in = messages.iter().any(|message| matches!(message.tag, b'R' | b'Z'));
        assert!(!logged_in, "bytes sent before the answer were used: {messages:?}");
    }
    // One after the other on the same socket is the right way.
    let mut client = proxy.connect();
    for code in [GSSENC_REQUEST, SSL_REQUEST] {
        client.send(&startup_packet(code, &[]));
        let mut answer = [0];
        client.read_bytes(&mut answer).expect("an answer");
        assert_eq!(&answer, b"N");
    }
    client.log_in(&app()).expect("a login after two refusals");
}

#[test]
fn behaviour_38_protocol_3_2_and_long_cancel_keys() {
    let pg = Postgres::start();
    let proxy = Pgimbal::before(&pg);
    let old = proxy.client();
    assert_eq!(old.key.len(), 8);
    let mut client = proxy.log_in(&Login { version: PROTOCOL_3_2, ..app() });
    assert!(client.greeting.iter().all(|message| message.tag != b'v'), "3.2 was negotiated down");
    assert!((9..=260).contains(&client.key.len()), "a key of {} bytes", client.key.len() - 4);
    client.start_query("select pg_sleep(60)");
    eventually("the query runs", SOON, || pg.running("pg_sleep") == 1);
    let mut wrong = client.key.clone();
    *wrong.last_mut().expect("a byte") ^= 1;
    cancel(proxy.port, &wrong);
    cancel(proxy.port, &client.key[..8]);
    cancel(proxy.port, &[&client.key[..], &[0; 300]].concat());
    let sent = || metric(&proxy.metrics(), "pgimbal_cancels_total", &[]).unwrap_or(0.0);
    assert!(sent() < 0.1, "a wrong key cancelled");
    client.cancel(proxy.port);
    assert_eq!(client.read_reply().sqlstate(), "57014");
    eventually("one cancel is counted", SOON, || (sent() - 1.0).abs() < 0.1);
}

#[test]
fn behaviour_38_unknown_options_and_minors_are_negotiated_once() {
    let pg = Postgres::start();
    let proxy = Pgimbal::before(&pg);
    let option = |login: Login| login.with("_pq_.crystal_ball", "on");
    let asked = [
        (Login { version: 0x0003_0009, ..app() }, vec![]),
        (option(Login { version: 0x0003_ffff, ..app() }), vec!["_pq_.crystal_ball"]),
        (option(Login { version: PROTOCOL_3_2, ..app() }), vec!["_pq_.crystal_ball"]),
        (option(app()), vec!["_pq_.crystal_ball"]),
    ];
    for (login, options) in asked {
        let mut client = proxy.log_in(&login);
        let answers: Vec<&Message> =
            client.greeting.iter().filter(|message| message.tag == b'v').collect();
        assert_eq!(answers.len(), 1, "{:?}", client.greeting);
        let newest = u32::from_be_bytes(answers[0].body[..4].try_into().expect("four bytes"));
        assert_eq!(newest, login.version.min(PROTOCOL_3_2), "the version that is spoken");
        let count = u32::from_be_bytes(answers[0].body[4..8].try_into().expect("four bytes"));
        assert_eq!(count as usize, options.len());
        let listed = Message::new(b'v', &answers[0].body[8..]).strings();
        assert_eq!(listed.iter().filter(|name| !name.is_empty()).collect::<Vec<_>>(), options);
        assert_eq!(client.value("select 1"), "1");
    }
}

#[test]
fn behaviour_38_versions_2_and_4_are_refused() {
    let pg = Postgres::start();
    let proxy = Pgimbal::before(&pg);
    let messages = proxy.connect().log_in(&Login { version: 0x0004_0000, ..app() });
    let error = messages.expect_err("refused").last().expect("a message").error();
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "0A000"));
    // A client of version 2 may be told in the form of its time, which has no length word.
    for version in [0x0002_0000, 0x0001_0000, 0x0000_0000] {
        let mut client = proxy.connect();
        client.send(&Login { version, ..app() }.packet());
        let text = String::from_utf8_lossy(&client.read_raw_to_end()).into_owned();
        assert!(text.starts_with('E') && text.contains("FATAL"), "{text:?}");
    }
}

#[test]
fn behaviour_42_a_login_timeout_frees_the_slot() {
    let pg = Postgres::start();
    let config =
        Config::before(&pg).set("auth_type", "\"scram-sha-256\"").set("max_client_conn", 3);
    let proxy = config.set("client_login_timeout", "\"1s\"").start();
    let start = Instant::now();
    let mut silent = [proxy.connect(), proxy.connect(), proxy.connect()];
    silent[1].send(&app().packet()[..10]);
    silent[2].send(&app().packet());
    for client in &mut silent {
        client.read_to_end();
    }
    let closed = start.elapsed();
    assert!(closed > Duration::from_millis(900), "closed early, after {closed:?}");
    assert!(closed < Duration::from_secs(5), "closed late, after {closed:?}");
    let mut clients = [proxy.log_in(&app()), proxy.log_in(&app()), proxy.log_in(&app())];
    // Time is the subject: a login in time is not touched by the timeout when it would end.
    std::thread::sleep(Duration::from_millis(1200));
    for client in &mut clients {
        assert_eq!(client.value("select 1"), "1");
    }
}

#[test]
fn behaviour_42_counters_come_back_on_every_failure_path() {
    let pg = Postgres::start();
    let config =
        Config::before(&pg).set("auth_type", "\"scram-sha-256\"").set("max_client_conn", 4);
    let proxy = config.start();
    proxy.log_in(&app()).ok("select 1");
    let ways: [fn(&mut WireClient); 9] = [
        |_| {},
        |client| client.send(&[0, 0, 0, 3]),
        |client| client.send(&app().packet()[..20]),
        |client| client.send(&app().packet()),
        |client| client.send(&startup_packet(SSL_REQUEST, &[])),
        |client| drop(client.log_in(&Login::new("app", "app", "wrong"))),
        |client| drop(client.log_in(&Login::new("nobody", "app", "x"))),
        |client| drop(client.log_in(&Login::new("app", "nothing", "app-secret"))),
        |client| client.log_in(&app()).expect("a login"),
    ];
    for round in 0..6 {
        for (number, way) in ways.iter().enumerate() {
            let mut client = proxy.connect();
            way(&mut client);
            client.disconnect(round % 2 == 0);
            eventually("there is room for four again", SOON, || {
                let mut clients = [(); 4].map(|()| proxy.connect());
                let all = clients.iter_mut().all(|client| client.log_in(&app()).is_ok());
                assert!(all || round + number < 1000);
                all
            });
        }
    }
}

#[test]
fn behaviour_45_too_many_clients_are_told_and_an_admin_enters() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("max_client_conn", 2).start();
    let (first, mut second) = (proxy.client(), proxy.client());
    let refused = proxy.connect().log_in(&app()).expect_err("the third client");
    let error = refused.last().expect("a message").error();
    assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "53300"));
    let text = format!("{:?}", error.fields);
    assert!(text.contains("max_client_conn"), "{text} does not name the limit");
    assert!(!proxy.console("show pools").is_empty(), "an admin is kept out");
    assert_eq!(second.value("select 1"), "1");
    first.terminate();
    eventually("the slot is free", SOON, || proxy.connect().log_in(&app()).is_ok());
}

#[test]
fn behaviour_54_only_the_first_login_waits_for_a_server() {
    let fake = FakeServer::answering(|_| "x".to_owned());
    let proxy = Config::to_port(fake.port).set("pool_size", 5).start();
    let clients: Vec<WireClient> = (0..10).map(|_| proxy.client()).collect();
    assert_eq!(fake.connections(), 1, "a login opened a server connection");
    for client in &clients {
        assert_eq!(client.parameters["server_version"], "15.99");
        assert_eq!(client.parameters["TimeZone"], "UTC");
    }
    let keys: std::collections::BTreeSet<&[u8]> =
        clients.iter().map(|client| &client.key[..]).collect();
    assert_eq!(keys.len(), 10, "two clients have the same cancel key");
}

#[test]
fn behaviour_54_many_first_logins_share_one_connection() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let fake = FakeServer::start(move |server| {
        server.startup()?;
        let _ = released.lock().expect("a receiver").recv();
        server.welcome()?;
        server.wait_for_end();
        Ok(())
    });
    let proxy = Config::to_port(fake.port).set("pool_size", 20).start();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| drop(proxy.client()));
        }
        eventually("all of them have come", SOON, || {
            metric(&proxy.metrics(), "pgimbal_client_connections", &[]) == Some(20.0)
        });
        drop(release);
    });
    assert_eq!(fake.connections(), 1, "each login waited for a connection of its own");
}

#[test]
fn behaviour_09_limits_hold_under_a_storm() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 5).set("workers", 2);
    // They come faster than they are greeted, from one address.
    let config = config.set("max_client_conn", 3000).set("max_login_conn", 3000);
    let proxy = config.set("max_login_conn_per_address", 3000).start();
    let mut clients: Vec<WireClient> = Vec::new();
    for _ in 0..2000 {
        let mut client = proxy.connect();
        client.send(&app().packet());
        client.start_query("select pg_backend_pid() from pg_sleep(0.001)");
        clients.push(client);
    }
    let mut backends = std::collections::BTreeSet::new();
    for client in &mut clients {
        client.set_timeout(SOON * 3);
        client.read_reply();
        backends.insert(client.read_reply().value());
        if backends.len() > 5 {
            break;
        }
    }
    assert!(backends.len() <= 5, "a pool of 5 opened {} connections", backends.len());
    let opened = pg.logged("connection authorized: user=app");
    assert!(opened <= 5, "a pool of 5 opened {opened} connections");
}

#[test]
fn behaviour_09_min_pool_size_is_kept() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 5).set("min_pool_size", 3).start();
    proxy.client().ok("select 1");
    eventually("three connections are open", SOON, || pg.backends() == 3);
    let backends = || -> Vec<String> {
        let sql = "select pid from pg_stat_activity where usename = 'app' order by pid";
        pg.superuser().ok(sql).texts().into_iter().flatten().collect()
    };
    let first = backends();
    pg.run("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'");
    eventually("three other connections are open", SOON * 2, || {
        let now = backends();
        now.len() == 3 && now.iter().all(|pid| !first.contains(pid))
    });
}

#[test]
fn behaviour_09_the_limits_of_a_database_and_a_user_hold() {
    let pg = Postgres::start();
    for (key, table) in
        [("max_db_connections = 2", "databases.app"), ("max_user_connections = 2", "users.app")]
    {
        let config = Config::before(&pg).set("pool_size", 5);
        let config = match table {
            "databases.app" => config.server("max_db_connections", 2),
            _ => config.user("max_user_connections", 2),
        };
        let proxy = config.start();
        let mut holders = [proxy.client(), proxy.client()];
        for holder in &mut holders {
            holder.ok("begin");
        }
        let mut waiter = proxy.client();
        waiter.start_query("select 'served'");
        proxy.wait_for_waiting(1);
        assert_eq!(pg.backends(), 2, "{key} was not held");
        holders[0].ok("commit");
        assert_eq!(waiter.read_reply().value(), "served");
    }
}
