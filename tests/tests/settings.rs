//! Settings that follow a client, and nothing else of it: statements 29 to 32 and 35.

use std::sync::{Arc, Mutex};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{FakeServer, Login, Pgimbal, Pipeline, Postgres, WireClient};

fn start() -> (Postgres, Pgimbal) {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    (pg, proxy)
}

/// The value that `client` sees, on whatever server, and on a new one.
fn everywhere(pg: &Postgres, client: &mut WireClient, name: &str) -> String {
    let here = client.value(&format!("show {name}"));
    pg.end_backends();
    let there = client.value(&format!("show {name}"));
    assert_eq!(here, there, "{name} did not follow to a new server");
    there
}

#[test]
fn what_frameworks_set_on_connect_follows_and_does_not_pin() {
    let (pg, proxy) = start();
    let usual = [
        ("SET client_encoding TO 'UTF8'", "client_encoding", "UTF8"),
        ("SET standard_conforming_strings = on", "standard_conforming_strings", "on"),
        ("SET SESSION timezone TO 'Asia/Tokyo'", "timezone", "Asia/Tokyo"),
        ("SET TIME ZONE 'UTC'", "timezone", "UTC"),
        (
            "SET search_path TO \"$user\", public, pg_catalog",
            "search_path",
            "\"$user\", public, pg_catalog",
        ),
        ("SET datestyle TO 'ISO, DMY'", "datestyle", "ISO, DMY"),
        ("SET client_min_messages TO warning", "client_min_messages", "warning"),
        ("SET intervalstyle = iso_8601", "intervalstyle", "iso_8601"),
        ("SET statement_timeout = '30s'", "statement_timeout", "30s"),
        ("SET lock_timeout = 5000;", "lock_timeout", "5s"),
        ("set extra_float_digits = 2", "extra_float_digits", "2"),
        ("SET application_name = 'it''s mine'", "application_name", "it's mine"),
        ("set myapp.tenant to 'acme'", "myapp.tenant", "acme"),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "default_transaction_read_only",
            "on",
        ),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "default_transaction_isolation",
            "repeatable read",
        ),
        ("set names 'LATIN1'", "client_encoding", "LATIN1"),
        ("/* orm */ set work_mem to '5MB' -- end", "work_mem", "5MB"),
        ("set schema 'other'", "search_path", "other"),
    ];
    for (sql, name, value) in usual {
        let (mut client, mut other) = (proxy.client(), proxy.client());
        let before = other.value(&format!("select coalesce(current_setting('{name}', true), '')"));
        client.ok(sql);
        assert_eq!(everywhere(&pg, &mut client, name), value, "{sql}");
        let after = other.value(&format!("select coalesce(current_setting('{name}', true), '')"));
        assert_eq!(after, before, "{sql} leaked");
        assert_eq!(everywhere(&pg, &mut client, name), value, "{sql}");
    }
}

#[test]
fn set_by_the_extended_protocol_follows_too() {
    let (pg, proxy) = start();
    let (mut client, mut other) = (proxy.client(), proxy.client());
    client.run(&Pipeline::new().run("set work_mem = '7MB'").sync()).no_error();
    client.run(&Pipeline::new().parse("s", "set lock_timeout = '3s'").sync()).no_error();
    assert_eq!(client.value("show lock_timeout"), "0", "a Parse is not an Execute");
    client.run(&Pipeline::new().bind("", "s", &[]).execute("", 0).sync()).no_error();
    assert_eq!(other.value("show work_mem"), "4MB");
    assert_eq!(everywhere(&pg, &mut client, "work_mem"), "7MB");
    assert_eq!(everywhere(&pg, &mut client, "lock_timeout"), "3s");
}

#[test]
fn reset_and_discard_all_return_to_the_startup_values() {
    let (pg, proxy) = start();
    for (one, all) in [("reset work_mem", "reset all"), ("set work_mem to default", "discard all")]
    {
        let login = Login::new("app", "app", "").with("work_mem", "6MB").with("timezone", "UTC");
        let mut client = proxy.log_in(&login);
        client.ok("set work_mem = '9MB'");
        assert_eq!(everywhere(&pg, &mut client, "work_mem"), "9MB");
        client.ok(one);
        assert_eq!(everywhere(&pg, &mut client, "work_mem"), "6MB", "{one}");
        client.ok("set work_mem = '9MB'");
        client.ok("set timezone = 'Asia/Tokyo'");
        client.ok(all);
        assert_eq!(everywhere(&pg, &mut client, "work_mem"), "6MB", "{all}");
        assert_eq!(everywhere(&pg, &mut client, "timezone"), "UTC", "{all}");
        assert_eq!(proxy.client().value("show work_mem"), "4MB");
    }
}

#[test]
fn a_refused_set_changes_nothing() {
    let (pg, proxy) = start();
    let mut client = proxy.client();
    client.ok("set work_mem = '9MB'");
    assert_eq!(client.query("set work_mem = 'much'").sqlstate(), "22023");
    assert_eq!(client.query("set no_such_setting = 1").sqlstate(), "42704");
    assert_eq!(client.query("set max_connections = 7").sqlstate(), "55P02");
    assert_eq!(everywhere(&pg, &mut client, "work_mem"), "9MB");
}

#[test]
fn behaviour_30_a_rolled_back_set_is_undone() {
    let (pg, proxy) = start();
    let mut client = proxy.client();
    client.ok("set work_mem = '5MB'");
    client.ok("begin");
    client.ok("set work_mem = '7MB'");
    assert_eq!(client.value("show work_mem"), "7MB");
    client.ok("rollback");
    assert_eq!(everywhere(&pg, &mut client, "work_mem"), "5MB");
    client.ok("begin");
    client.ok("set work_mem = '7MB'");
    assert_eq!(client.query("select 1/0").status(), 'E');
    assert_eq!(client.ok("commit").commands(), ["ROLLBACK"]);
    assert_eq!(everywhere(&pg, &mut client, "work_mem"), "5MB");
    client.ok("begin");
    client.ok("reset work_mem");
    client.ok("rollback");
    assert_eq!(everywhere(&pg, &mut client, "work_mem"), "5MB");
    client.ok("begin");
    client.ok("set work_mem = '8MB'");
    client.ok("commit");
    assert_eq!(everywhere(&pg, &mut client, "work_mem"), "8MB");
    let undone = Pipeline::new().run("set work_mem = '9MB'").run("select 1/0").sync();
    assert_eq!(client.run(&undone).sqlstate(), "22012");
    assert_eq!(everywhere(&pg, &mut client, "work_mem"), "8MB", "a pipeline's SET was kept");
    assert_eq!(proxy.client().value("show work_mem"), "4MB");
}

#[test]
fn behaviour_30_savepoints() {
    let (pg, proxy) = start();
    let mut client = proxy.client();
    client.ok("begin");
    client.ok("set work_mem = '5MB'");
    client.ok("savepoint one");
    client.ok("set work_mem = '6MB'");
    client.ok("set lock_timeout = '6s'");
    client.ok("rollback to savepoint one");
    client.ok("savepoint two");
    client.ok("set statement_timeout = '8s'");
    client.ok("release two");
    client.ok("commit");
    assert_eq!(everywhere(&pg, &mut client, "work_mem"), "5MB");
    assert_eq!(everywhere(&pg, &mut client, "lock_timeout"), "0");
    assert_eq!(everywhere(&pg, &mut client, "statement_timeout"), "8s");
}

#[test]
fn behaviour_30_set_local_ends_with_the_transaction() {
    let (pg, proxy) = start();
    for end in ["commit", "rollback"] {
        let mut client = proxy.client();
        client.ok("begin");
        client.ok("set local work_mem = '7MB'");
        assert_eq!(client.value("show work_mem"), "7MB");
        client.ok(end);
        assert_eq!(everywhere(&pg, &mut client, "work_mem"), "4MB");
    }
}

#[test]
fn behaviour_31_startup_parameters_and_options_apply() {
    let (pg, proxy) = start();
    pg.run("create schema \"a b\"; grant all on schema \"a b\" to app");
    let options = "-c work_mem=5MB --lock-timeout=7s -cstatement_timeout=8000 \
                   -c search_path=\\\"a\\ b\\\" -c myapp.path=c:\\\\temp --extra_float_digits=2";
    let login = Login::new("app", "app", "")
        .with("application_name", "my app")
        .with("DateStyle", "German")
        .with("options", options);
    let mut client = proxy.log_in(&login);
    assert_eq!(client.parameters["DateStyle"], "German, DMY");
    assert_eq!(client.parameters["application_name"], "my app");
    let expected = [
        ("work_mem", "5MB"),
        ("lock_timeout", "7s"),
        ("statement_timeout", "8s"),
        ("search_path", "\"a b\""),
        ("myapp.path", "c:\\temp"),
        ("extra_float_digits", "2"),
        ("application_name", "my app"),
        ("datestyle", "German, DMY"),
    ];
    let mut other = proxy.client();
    for (name, value) in expected {
        assert_eq!(everywhere(&pg, &mut client, name), value, "{name}");
        other.ok("select 1");
        assert_eq!(client.value(&format!("show {name}")), value, "{name} after another client");
    }
    assert_eq!(other.value("show work_mem"), "4MB");
}

#[test]
fn behaviour_31_a_wrong_startup_parameter_is_told() {
    let (_pg, proxy) = start();
    proxy.client().ok("select 1");
    for login in [
        Login::new("app", "app", "").with("work_mem", "lots"),
        Login::new("app", "app", "").with("options", "-c no_such_setting=1"),
    ] {
        let mut client = proxy.connect();
        // As at the login on PostgreSQL, or with the first query: but never ignored.
        let error = match client.log_in(&login) {
            Err(messages) => messages.last().expect("a message").error(),
            Ok(()) => client.query("select 1").errors().remove(0),
        };
        assert!(["22023", "42704"].contains(&error.code.as_str()), "{error:?}");
    }
    assert_eq!(proxy.client().value("select 1"), "1");
}

#[test]
fn behaviour_31_equal_values_cost_no_round_trip() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let fake = FakeServer::start(move |server| {
        server.accept()?;
        loop {
            let message = server.read()?;
            log.lock().expect("the log").push(message.clone());
            match message.tag {
                b'Q' if message.strings()[0] == "select 1" => server.answer("1")?,
                b'Q' => {
                    server.send(&pgimbal_tests::Message::new(b'C', b"SET\0").encode())?;
                    server.ready(b'I')?;
                }
                b'S' => server.ready(b'I')?,
                _ => {}
            }
        }
    });
    let proxy = Config::to_port(fake.port).set("pool_size", 1).start();
    let login = Login::new("app", "app", "").with("TimeZone", "UTC").with("DateStyle", "ISO, MDY");
    let mut clients = [proxy.log_in(&login), proxy.log_in(&login), proxy.log_in(&login)];
    clients[0].ok("select 1");
    seen.lock().expect("the log").clear();
    for _ in 0..3 {
        for client in &mut clients {
            client.ok("select 1");
        }
    }
    let seen = seen.lock().expect("the log");
    assert_eq!(seen.len(), 9, "more than the nine queries reached the server: {seen:?}");
}

#[test]
fn behaviour_32_parameter_status_reaches_the_client() {
    let (pg, proxy) = start();
    let (mut a, mut b) = (proxy.client(), proxy.client());
    a.ok("set timezone = 'Asia/Tokyo'");
    assert_eq!(a.parameters["TimeZone"], "Asia/Tokyo");
    b.ok("set timezone = 'America/Lima'");
    assert_eq!(b.parameters["TimeZone"], "America/Lima");
    for _ in 0..3 {
        a.ok("select 1");
        b.ok("select 1");
        assert_eq!(a.parameters["TimeZone"], "Asia/Tokyo", "told of another client's value");
        assert_eq!(b.parameters["TimeZone"], "America/Lima", "told of another client's value");
    }
    a.ok("begin");
    a.ok("set datestyle = 'German'");
    assert_eq!(a.parameters["DateStyle"], "German, DMY");
    a.ok("rollback");
    assert_eq!(a.parameters["DateStyle"], "ISO, MDY");
    pg.run("alter system set intervalstyle = 'iso_8601'");
    pg.run("select pg_reload_conf()");
    eventually("the server's new default arrives", SOON, || {
        a.ok("select 1");
        a.parameters["IntervalStyle"] == "iso_8601"
    });
}
