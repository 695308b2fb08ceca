//! LISTEN over a connection that the clients of a pool share (`listen_mode`): statement 33.

mod bursts;
pub(crate) mod crowd;
mod drivers;
mod many;

use std::process::Command;
use std::time::Duration;

use pgimbal_tests::http::metric;
use pgimbal_tests::library::{converse, node, python};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Message, Pgimbal, Pipeline, Postgres, Reply, WireClient};

const CHANNELS: &str = "select coalesce(string_agg(c, ',' order by c), '') \
                        from pg_listening_channels() c";

fn start() -> (Postgres, Pgimbal) {
    start_with(|config| config)
}

fn start_with(more: impl FnOnce(Config) -> Config) -> (Postgres, Pgimbal) {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("pool_size", 2).set("listen_mode", "\"share\"");
    let proxy = more(config).start();
    (pg, proxy)
}

/// The values of a column of a table of the console.
fn column(proxy: &Pgimbal, show: &str, column: &str) -> Vec<String> {
    let rows = proxy.console(show);
    let values = rows.into_iter().flatten().filter(|(name, _)| name == column);
    values.map(|(_, value)| value).collect()
}

/// How many server connections listen.
fn lines(proxy: &Pgimbal) -> usize {
    column(proxy, "show servers", "state").iter().filter(|state| *state == "listening").count()
}

fn nobody_is_pinned(proxy: &Pgimbal) -> bool {
    let pinned = column(proxy, "show clients", "pinned");
    pinned.iter().all(|reason| reason.is_empty() || reason == "NULL")
}

/// Channel and payload of the next notification.
fn heard(client: &mut WireClient) -> (String, String) {
    told(&client.expect(b'A'))
}

fn told(message: &Message) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut parts = message.body[4..].split(|&byte| byte == 0);
    (text(parts.next().unwrap_or_default()), text(parts.next().unwrap_or_default()))
}

/// Ends what pgimbal has open on the server.
fn end_backends(pg: &Postgres) {
    pg.run("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'");
}

fn news(payload: &str) -> (String, String) {
    ("news".to_owned(), payload.to_owned())
}

/// Has the client listen to a last channel and hear from it: what it has not heard by then, it
/// never will.
fn hears_only(pg: &Postgres, client: &mut WireClient, expected: &[(&str, &str)]) {
    let reply = client.query("listen \"the end\"");
    reply.no_error();
    let early = reply.messages.iter().filter(|message| message.tag == b'A');
    let mut all: Vec<(String, String)> = early.map(told).collect();
    pg.run("notify \"the end\", 'x'");
    loop {
        let next = heard(client);
        if next.0 == "the end" {
            break;
        }
        all.push(next);
    }
    client.ok("unlisten \"the end\"");
    let expected: Vec<(String, String)> =
        expected.iter().map(|(channel, text)| ((*channel).into(), (*text).into())).collect();
    assert_eq!(all, expected);
}

#[test]
fn behaviour_33_clients_of_a_pool_listen_over_one_server_connection() {
    let (pg, proxy) = start();
    let mut clients: Vec<WireClient> = (0..20).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.ok(&format!("listen \"Channel {}\"", number % 5));
    }
    assert_eq!(lines(&proxy), 1);
    assert!(nobody_is_pinned(&proxy));
    // More than the pool has server connections.
    for client in &mut clients {
        client.ok("select 1");
    }
    for n in 0..50 {
        pg.run(&format!("notify \"Channel {}\", '{n}'", n % 5));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        for n in (0..50).filter(|n| n % 5 == number % 5) {
            let expected = (format!("Channel {}", n % 5), n.to_string());
            assert_eq!(heard(client), expected, "client {number}");
        }
    }
    let metrics = proxy.metrics();
    assert_eq!(metric(&metrics, "pgimbal_listen_channels", &[]), Some(5.0));
    assert_eq!(metric(&metrics, "pgimbal_servers_listening", &[]), Some(1.0));
    assert_eq!(metric(&metrics, "pgimbal_notifications_total", &[]), Some(200.0));
}

#[test]
fn behaviour_33_a_listen_counts_from_the_commit_of_its_transaction() {
    let (pg, proxy) = start();
    let mut client = proxy.client();
    client.ok("begin");
    client.ok("listen news");
    pg.run("notify news, 'before'");
    // Its own reply tells that the shared connection has got it.
    client.ok("select pg_sleep(0.05)");
    client.ok("commit");
    pg.run("notify news, 'after'");
    hears_only(&pg, &mut client, &[("news", "after")]);
    client.ok("begin");
    client.ok("unlisten news");
    client.ok("rollback");
    pg.run("notify news, 'still'");
    hears_only(&pg, &mut client, &[("news", "still")]);
    client.ok("begin");
    client.ok("savepoint a");
    client.ok("unlisten news");
    client.ok("listen other");
    client.ok("rollback to a");
    client.ok("listen third");
    client.ok("commit");
    pg.run("notify news, '1'; notify other, '2'; notify third, '3'");
    hears_only(&pg, &mut client, &[("news", "1"), ("third", "3")]);
    client.ok("begin; listen never; rollback");
    pg.run("notify never");
    hears_only(&pg, &mut client, &[]);
    assert_eq!(client.value(CHANNELS), "news,third");
    assert!(nobody_is_pinned(&proxy));
}

#[test]
fn behaviour_33_a_listen_hears_what_is_notified_behind_it_and_nothing_of_before() {
    let (_pg, proxy) = start();
    let (mut other, mut speaker, mut client) = (proxy.client(), proxy.client(), proxy.client());
    // The shared connection listens to the channel already.
    other.ok("listen news");
    let listens: [&dyn Fn(&mut WireClient) -> Reply; 3] = [
        &|client| client.ok("listen news"),
        &|client| client.run(&Pipeline::new().run("listen news").sync()),
        &|client| {
            client.ok("begin");
            client.ok("listen news");
            client.ok("commit")
        },
    ];
    for (round, listen) in (0..300).zip(listens.iter().cycle()) {
        speaker.ok("notify news, 'before'");
        let reply = listen(&mut client);
        reply.no_error();
        let behind = format!("behind {round}");
        speaker.ok(&format!("notify news, '{behind}'"));
        let early = reply.messages.iter().find(|message| message.tag == b'A').map(told);
        assert_eq!(early.unwrap_or_else(|| heard(&mut client)), news(&behind), "round {round}");
        client.ok("unlisten news");
    }
}

#[test]
fn behaviour_33_notifications_wait_for_the_end_of_a_transaction() {
    let (pg, proxy) = start();
    let mut client = proxy.client();
    client.ok("listen news");
    client.ok("begin");
    pg.run("notify news, '1'");
    pg.run("notify news, '2'");
    client.ok("select pg_sleep(0.05)");
    client.expect_nothing_before_the_next_reply();
    client.ok("commit");
    assert_eq!([heard(&mut client), heard(&mut client)], [news("1"), news("2")]);
}

#[test]
fn behaviour_33_what_ends_a_listen() {
    let (pg, proxy) = start();
    for end in ["unlisten news", "unlisten *", "discard all", "begin; unlisten news; commit"] {
        let mut client = proxy.client();
        client.ok("listen news");
        pg.run("notify news, 'heard'");
        assert_eq!(heard(&mut client), news("heard"));
        client.ok(end);
        pg.run("notify news, 'nobody'");
        hears_only(&pg, &mut client, &[]);
        assert_eq!(client.value(CHANNELS), "", "{end}");
    }
    let channels = || metric(&proxy.metrics(), "pgimbal_listen_channels", &[]);
    eventually("no channel is left", SOON, || channels() == Some(0.0));
    let mut client = proxy.client();
    client.ok("listen news");
    assert_eq!(channels(), Some(1.0));
    client.terminate();
    eventually("its end releases it", SOON, || channels() == Some(0.0));
}

#[test]
fn behaviour_33_nobody_hears_what_another_listens_to() {
    let (pg, proxy) = start();
    let (mut one, mut other) = (proxy.client(), proxy.client());
    one.ok("listen news");
    other.ok("listen weather");
    for _ in 0..5 {
        // On whichever server connection.
        assert_eq!(other.value(CHANNELS), "weather");
        assert_eq!(one.value(CHANNELS), "news");
        assert_eq!(proxy.client().value(CHANNELS), "");
    }
    pg.run("notify news, '1'; notify weather, '2'");
    hears_only(&pg, &mut one, &[("news", "1")]);
    hears_only(&pg, &mut other, &[("weather", "2")]);
}

#[test]
fn a_client_hears_its_own_notifications_with_the_process_id_of_the_server() {
    let (_pg, proxy) = start();
    let mut client = proxy.client();
    client.ok("listen news");
    let pid = client.value("select pg_notify('news', 'own')::text || pg_backend_pid()");
    let message = client.expect(b'A');
    let sender = u32::from_be_bytes([0, 1, 2, 3].map(|at| message.body[at]));
    assert_eq!(sender.to_string(), pid);
    assert_eq!(&message.body[4..], b"news\0own\0");
}

#[test]
fn listen_by_the_extended_protocol_and_among_other_statements() {
    let (pg, proxy) = start();
    let mut client = proxy.client();
    client.run(&Pipeline::new().run("listen news").sync()).no_error();
    client.run(&Pipeline::new().parse("s", "listen \"Other \"\"one\"\"\"").sync()).no_error();
    client.run(&Pipeline::new().bind("", "s", &[]).execute("", 0).sync()).no_error();
    client.ok("select 1; listen a; select 2; listen b");
    let failed = client.query("listen c; select 1/0");
    assert_eq!(failed.errors().len(), 1);
    assert_eq!(client.value(CHANNELS), "Other \"one\",a,b,news");
    let name = "x".repeat(70);
    client.ok(&format!("listen {name}"));
    pg.run(&format!("notify {}, 'cut'", &name[..63]));
    assert_eq!(heard(&mut client), (name[..63].to_owned(), "cut".to_owned()));
    for channel in ["news", "Other \"\"one\"\"", "a", "b", "c"] {
        pg.run(&format!("notify \"{channel}\", 'x'"));
    }
    let all = [("news", "x"), ("Other \"one\"", "x"), ("a", "x"), ("b", "x")];
    hears_only(&pg, &mut client, &all);
    assert!(nobody_is_pinned(&proxy));
}

#[test]
fn code_that_listens_keeps_its_connection_and_code_that_unlistens_is_noticed() {
    let (pg, proxy) = start();
    let mut client = proxy.client();
    client.ok("listen a");
    client.ok("do $$begin execute 'listen b'; end$$");
    assert_eq!(client.value(CHANNELS), "a,b");
    let reasons = || column(&proxy, "show clients", "pinned");
    eventually("it is pinned", SOON, || reasons().iter().any(|reason| reason == "listen"));
    pg.run("notify a, '1'");
    pg.run("notify b, '2'");
    hears_only(&pg, &mut client, &[("a", "1"), ("b", "2")]);
    client.ok("do $$begin execute 'unlisten b'; end$$");
    eventually("it is free", SOON, || nobody_is_pinned(&proxy));
    client.ok("do $$begin execute 'unlisten a'; end$$");
    assert_eq!(client.value(CHANNELS), "");
    pg.run("notify a, '3'");
    hears_only(&pg, &mut client, &[]);
    client.ok("begin");
    client.ok("listen a");
    client.ok("commit");
    client.ok("begin");
    client.ok("do $$begin execute 'unlisten *'; end$$");
    client.ok("commit");
    assert_eq!(client.value(CHANNELS), "");
}

#[test]
fn a_lost_connection_is_opened_again_with_all_its_channels() {
    let (pg, proxy) = start();
    let (mut one, mut other) = (proxy.client(), proxy.client());
    one.ok("listen news");
    other.ok("listen weather");
    end_backends(&pg);
    eventually("it listens again", SOON, || {
        pg.run("notify news, 'again'; notify weather, 'again'");
        lines(&proxy) == 1
            && metric(&proxy.metrics(), "pgimbal_notifications_total", &[]) >= Some(2.0)
    });
    assert_eq!(heard(&mut one), news("again"));
    assert_eq!(heard(&mut other), ("weather".to_owned(), "again".to_owned()));
    one.ok("select 1");
}

#[test]
fn with_listen_mode_close_clients_are_told_that_the_connection_was_lost() {
    let (pg, proxy) = start_with(|config| config.set("listen_mode", "\"close\""));
    let (mut one, mut other) = (proxy.client(), proxy.client());
    one.ok("listen news");
    other.ok("select 1");
    end_backends(&pg);
    let messages = one.read_to_end_or_ready();
    let told = messages.iter().find(|message| message.tag == b'E').expect("an error");
    assert!(String::from_utf8_lossy(&told.body).contains("57P01"), "{told:?}");
    other.ok("select 1");
}

#[test]
fn a_client_that_does_not_read_its_notifications_is_ended() {
    let (pg, proxy) = start();
    let (mut slow, mut quick) = (proxy.client(), proxy.client());
    slow.ok("listen news");
    quick.ok("listen news");
    slow.ok("begin");
    let payload = "x".repeat(7000);
    for _ in 0..200 {
        pg.run(&format!("notify news, '{payload}'"));
        assert_eq!(heard(&mut quick).1.len(), payload.len());
        // Equal ones of one transaction would be one.
    }
    let messages = slow.read_to_end_or_ready();
    let told = messages.iter().find(|message| message.tag == b'E').expect("an error");
    let text = String::from_utf8_lossy(&told.body).into_owned();
    assert!(text.contains("53400") && text.contains("notifications"), "{text}");
}

#[test]
fn another_encoding_than_the_databases_pins_as_without_a_shared_connection() {
    let (pg, proxy) = start();
    let mut client = proxy.client();
    client.ok("set client_encoding to 'LATIN1'");
    client.ok("listen news");
    eventually("it is pinned", SOON, || !nobody_is_pinned(&proxy));
    pg.run("notify news, 'ü'");
    let message = client.expect(b'A');
    assert_eq!(&message.body[4..], b"news\0\xfc\0");
    assert_eq!(lines(&proxy), 0);
}

#[test]
fn a_full_database_pins_instead() {
    let (pg, proxy) = start_with(|config| config.server("max_db_connections", "1"));
    let mut client = proxy.client();
    client.ok("listen news");
    assert_eq!(lines(&proxy), 0);
    pg.run("notify news, 'heard'");
    assert_eq!(heard(&mut client), news("heard"));
}

#[test]
fn show_listeners_lists_channels_with_what_waits_for_their_clients() {
    let (pg, proxy) = start_with(|config| config.set("workers", 1));
    let mut clients = [proxy.client(), proxy.client(), proxy.client()];
    for client in &mut clients {
        client.ok("listen news");
    }
    clients[0].ok("listen \"Other\"");
    clients[1].ok("listen \"Other\"");
    clients[1].ok("begin");
    for _ in 0..3 {
        pg.run("notify news, 'heard'");
        for number in [0, 2] {
            assert_eq!(heard(&mut clients[number]), news("heard"));
        }
    }
    pg.run("notify \"Other\"");
    assert_eq!(heard(&mut clients[0]), ("Other".to_owned(), String::new()));
    let rows = proxy.console("show listeners");
    let cells = |row: &Vec<(String, String)>| row.iter().map(|(_, value)| value.clone()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let pid = column(&proxy, "show servers", "remote_pid");
    // A message has 5 bytes, the process id, the channel and the payload, each with a zero.
    let [other, waits] = [5 + 4 + 6 + 1, 3 * (5 + 4 + 5 + 6)].map(|bytes: u32| bytes.to_string());
    let row = |channel, clients, notifications, waits: &str| {
        ["app", "app", channel, clients, "listening", notifications, waits].map(str::to_owned)
    };
    assert_eq!(rows[0][..7], row("Other", "2", "1", &other));
    assert_eq!(rows[1][..7], row("news", "3", "3", &waits));
    assert!(rows.len() == 2 && pid.contains(&rows[0][7]) && rows[0][8] == "0", "{rows:?}");
    clients[1].ok("commit");
    (0..3).for_each(|_| assert_eq!(heard(&mut clients[1]), news("heard")));
    assert_eq!(heard(&mut clients[1]).0, "Other");
    assert!(column(&proxy, "show listeners", "queued_bytes").iter().all(|bytes| bytes == "0"));
}

#[test]
fn listening_and_unlistening_at_once_loses_nothing() {
    let (pg, proxy) = start();
    let mut steady = proxy.client();
    steady.ok("listen news");
    let mut others: Vec<WireClient> = (0..8).map(|_| proxy.client()).collect();
    for round in 0..30 {
        for (number, client) in others.iter_mut().enumerate() {
            let sql = match (round + number) % 3 {
                0 => "listen news",
                1 => "unlisten news",
                _ => "unlisten *",
            };
            client.start_query(sql);
        }
        pg.run(&format!("notify news, '{round}'"));
        assert_eq!(heard(&mut steady), news(&round.to_string()));
        for client in &mut others {
            client.read_reply().no_error();
        }
    }
}

/// Runs a program of other people's on a pool of 5 whose clients share a connection to listen.
fn converses(command: Command) {
    converses_with_listeners(command, "", 0);
}

/// As [`converses`]; where the program wants a look at its listeners, it waits until so many
/// clients listen to `channel`.
fn converses_with_listeners(command: Command, channel: &str, listeners: u32) {
    let pg = Postgres::start();
    pg.run("grant all on schema public to scram");
    let config = Config::before(&pg).set("pool_size", 5).set("listen_mode", "\"share\"");
    let proxy = config.set("auth_type", "\"scram-sha-256\"").start();
    let told = || metric(&proxy.metrics(), "pgimbal_notifications_total", &[]).unwrap_or(0.0);
    let _ = converse(command, "pgimbal", proxy.port, |what| {
        assert_eq!(what, "listeners");
        eventually("all clients listen", SOON, || {
            let before = told();
            pg.run(&format!(
                "notify \"{channel}\", '{{\"type\": \"job_inserted\", \"job_id\": 0}}'"
            ));
            let all = || told() >= before + f64::from(listeners);
            (0..20).any(|_| {
                all() || {
                    std::thread::sleep(Duration::from_millis(10));
                    false
                }
            })
        });
    });
    assert!(metric(&proxy.metrics(), "pgimbal_notifications_total", &[]) > Some(0.0));
    assert!(pg.backends() <= 6, "{} connections", pg.backends());
}

#[test]
fn psycopg_and_asyncpg_listen() {
    converses(python("listening.py"));
}

#[test]
fn node_postgres_listens() {
    converses(node("listening.js"));
}

#[test]
fn procrastinate_runs_its_jobs_on_a_pool_of_5() {
    let channel = "procrastinate_queue_v1#sums";
    converses_with_listeners(python("with_procrastinate.py"), channel, 4);
}
