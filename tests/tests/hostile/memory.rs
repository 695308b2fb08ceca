//! What one client may have remembered has a bound in bytes.

use super::*;
use pgimbal_tests::Pipeline;

fn grown(proxy: &Pgimbal, before: u64) -> u64 {
    proxy.process().status_kib("VmHWM").saturating_sub(before)
}

/// A client whose texts may take a mebibyte.
struct Bounded {
    client: WireClient,
    proxy: Pgimbal,
    /// The most that the proxy has taken so far, in KiB.
    before: u64,
    _pg: Postgres,
}

impl Bounded {
    fn to_a_mebibyte() -> Self {
        let pg = Postgres::start();
        let config = Config::before(&pg).set("max_client_statement_bytes", "\"1MiB\"");
        let proxy = config.start();
        let mut client = proxy.client();
        client.ok("select 1");
        let before = proxy.process().status_kib("VmHWM");
        Self { client, proxy, before, _pg: pg }
    }
}

#[test]
fn the_texts_of_one_client_have_a_bound_and_go_on_working_beyond_it() {
    let Bounded { mut client, proxy, before, _pg } = Bounded::to_a_mebibyte();
    let text = |n: usize| format!("select {n} -- {n} {}", "x".repeat(200_000));
    for n in 0..200 {
        client.run(&Pipeline::new().parse(&format!("s{n}"), &text(n)).sync()).no_error();
    }
    let grown_by = grown(&proxy, before);
    assert!(grown_by < 10 * 1024, "40 MB of texts made the proxy grow by {grown_by} KiB");
    for n in [0, 100, 199] {
        let run = Pipeline::new().bind("", &format!("s{n}"), &[]).execute("", 0).sync();
        assert_eq!(client.run(&run).value(), n.to_string());
    }
    // It keeps its server connection, as with a text that is too long.
    let reasons = proxy.console("show clients");
    assert!(reasons.iter().flatten().any(|(_, value)| value.contains("large_statement")));
    // Closing them makes room.
    let close = |pipeline: Pipeline, n: usize| pipeline.close_statement(&format!("s{n}"));
    client.run(&(0..200).fold(Pipeline::new(), close).sync()).no_error();
    client.run(&Pipeline::new().parse("again", &text(1)).sync()).no_error();
    let reasons = proxy.console("show clients");
    assert!(!reasons.iter().flatten().any(|(_, value)| value.contains("large_statement")));
}

#[test]
fn texts_in_flight_count_too() {
    let Bounded { mut client, proxy, before, _pg } = Bounded::to_a_mebibyte();
    // Each is closed at once, so that only what is on its way can be many.
    let step = |pipeline: Pipeline, n: usize| {
        let text = format!("select {n} -- {}", "x".repeat(200_000));
        pipeline.parse("s", &text).close_statement("s")
    };
    let pipeline = (0..300).fold(Pipeline::new(), step).sync();
    client.run(&pipeline).no_error();
    let grown_by = grown(&proxy, before);
    assert!(grown_by < 10 * 1024, "60 MB of texts made the proxy grow by {grown_by} KiB");
    assert_eq!(client.value("select 1"), "1");
}

/// What is known of a text may take many times the memory of the text.
#[test]
fn what_is_known_of_texts_in_flight_counts_too() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("max_client_statement_bytes", "\"1MiB\"");
    let proxy = config.start();
    let many = "a;".repeat(1000);
    let calls = format!("select {}", ["set_config('a.b','x',true)"; 150].join(","));
    for text in [&many, &calls] {
        let mut client = proxy.client();
        let before = proxy.process().status_kib("VmHWM");
        // The server is busy with the first: the rest is on its way meanwhile.
        let slow = Pipeline::new().run("select pg_sleep(3)");
        let pipeline = (0..1000).fold(slow, |pipeline, _| pipeline.parse("", text)).sync();
        client.run(&pipeline);
        let grown_by = grown(&proxy, before);
        assert!(grown_by < 6 * 1024, "1000 texts made the proxy grow by {grown_by} KiB");
        assert_eq!(client.value("select 1"), "1");
    }
}

#[test]
fn what_is_known_of_statements_counts_in_session_mode() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("max_client_statement_bytes", "\"1MiB\"");
    let proxy = config.set("pool_mode", "\"session\"").start();
    let mut client = proxy.client();
    client.ok("select 1");
    let before = proxy.process().status_kib("VmHWM");
    for n in 0..4000 {
        let text = format!("set app.x = '{}'", "x".repeat(4000));
        client.run(&Pipeline::new().parse(&format!("s{n}"), &text).sync()).no_error();
    }
    let grown_by = grown(&proxy, before);
    assert!(grown_by < 6 * 1024, "16 MB of values made the proxy grow by {grown_by} KiB");
    client.run(&Pipeline::new().bind("", "s3999", &[]).execute("", 0).sync()).no_error();
    assert_eq!(client.value("show app.x").len(), 4000);
}

#[test]
fn names_are_cut_as_postgresql_cuts_them_and_enormous_ones_are_not_held() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    let mut client = proxy.client();
    let long = "n".repeat(5_000);
    client.run(&Pipeline::new().parse(&long, "select 7").sync()).no_error();
    let run = Pipeline::new().bind("", &long[..63], &[]).execute("", 0).sync();
    assert_eq!(client.run(&run).value(), "7");
    let other = format!("{}different", &long[..63]);
    assert_eq!(client.run(&Pipeline::new().parse(&other, "select 8").sync()).sqlstate(), "42P05");
    let before = proxy.process().status_kib("VmHWM");
    let mut crowd: Vec<WireClient> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut crowd {
        let bind = Pipeline::new().bind("", &"n".repeat(3_900_000), &[]);
        // Its end is still to come; it is cut off before that.
        let bytes = bind.bytes();
        let _ = client.try_send(&bytes[..bytes.len() - 1000]);
    }
    let grown_by = grown(&proxy, before);
    assert!(grown_by < 10 * 1024, "20 names made the proxy grow by {grown_by} KiB");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn names_of_users_and_databases_above_63_bytes_are_refused() {
    let pg = Postgres::start();
    let table = "[databases.\"*\"]\nhost = \"127.0.0.1\"\n";
    let proxy = Config::before(&pg).tables(table).start();
    let long = "d".repeat(64);
    for login in [Login::new("app", &long, ""), Login::new(&long, "app", "")] {
        let refused = proxy.connect().log_in(&login).expect_err("a name that would be cut");
        let error = refused.last().expect("a message").error();
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "42622"));
        assert!(error.message.contains("63 bytes"), "{error:?}");
    }
}
