//! COPY in and out: statements 26 to 28.

use std::io::Write;

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::SOON;
use pgimbal_tests::{Message, Pgimbal, Pipeline, Postgres};

const GIGABYTE: u64 = 1_000_000_000;

fn start(mode: &str) -> (Postgres, Pgimbal) {
    let pg = Postgres::start();
    pg.run("create table t (x int); create table sink (x text); grant all on t, sink to app");
    let config = Config::before(&pg).set("pool_size", 1).set("pool_mode", format!("\"{mode}\""));
    (pg, config.start())
}

fn assert_bounded(proxy: &Pgimbal, what: &str) {
    let peak = proxy.process().status_kib("VmHWM");
    assert!(peak < 64 * 1024, "{what} took {peak} KiB");
}

fn copy_data(data: &[u8]) -> Vec<u8> {
    Message::new(b'd', data).encode()
}

#[test]
fn behaviour_26_copy_out_streams() {
    for (mode, bytes) in
        [("transaction", GIGABYTE), ("session", GIGABYTE / 4), ("statement", GIGABYTE / 4)]
    {
        let (_pg, proxy) = start(mode);
        let mut client = proxy.client();
        client.set_timeout(SOON * 4);
        let rows = bytes / 10_000;
        let copy = "copy (select repeat('x', 9999) from generate_series(1,";
        client.start_query(&format!("{copy} {rows})) to stdout"));
        let (count, reply) = client.count_reply();
        assert_eq!(count, rows * 10_000, "{mode}");
        assert_eq!(reply.commands(), [format!("COPY {rows}")]);
        assert_bounded(&proxy, mode);
    }
}

#[test]
fn behaviour_26_copy_in_streams() {
    for (mode, bytes) in
        [("transaction", GIGABYTE), ("session", GIGABYTE / 4), ("statement", GIGABYTE / 4)]
    {
        let (_pg, proxy) = start(mode);
        let mut client = proxy.client();
        client.set_timeout(SOON * 4);
        let mut line = vec![b'x'; 65_535];
        line.push(b'\n');
        let message = copy_data(&line);
        let rows = bytes / 65_536;
        client.start_query("copy sink from stdin where length(x) < 10");
        client.expect(b'G');
        let mut writer = client.second_handle();
        for _ in 0..rows {
            writer.write_all(&message).expect("the proxy takes data");
        }
        client.send(Pipeline::new().message(b'c', &[]).bytes());
        assert_eq!(client.read_reply().no_error().commands(), ["COPY 0"], "{mode}");
        assert_bounded(&proxy, mode);
    }
}

#[test]
fn a_result_of_a_gigabyte_and_a_row_of_200_megabytes_stream() {
    let (_pg, proxy) = start("transaction");
    let mut client = proxy.client();
    client.set_timeout(SOON * 4);
    client.start_query("select repeat('x', 10000) from generate_series(1, 100000)");
    assert_eq!(client.count_reply().0, 100_000 * 10_006);
    client.start_query("select repeat('x', 200000000)");
    assert_eq!(client.count_reply().0, 200_000_006);
    assert_bounded(&proxy, "a result");
}

#[test]
fn behaviour_27_after_an_error_the_rest_is_dropped() {
    let (_pg, proxy) = start("transaction");
    let (mut a, mut b) = (proxy.client(), proxy.client());
    a.start_query("copy t from stdin");
    a.expect(b'G');
    a.send(&copy_data(b"no number\n"));
    assert_eq!(a.expect(b'E').error().code, "22P02");
    a.expect(b'Z');
    // The server is free although this client has not said that its data ends.
    assert_eq!(b.value("select 'b'"), "b");
    let late = [copy_data(b"1\n"), copy_data(b"2\n"), Message::new(b'c', &[]).encode()].concat();
    a.send(&late);
    a.send(&Message::new(b'f', b"late\0").encode());
    assert_eq!(b.value("select 'b'"), "b");
    assert_eq!(a.value("select count(*) from t"), "0");
}

#[test]
fn behaviour_27_the_message_in_flight_is_completed() {
    let (_pg, proxy) = start("transaction");
    let (mut a, mut b) = (proxy.client(), proxy.client());
    a.start_query("copy t from stdin");
    a.expect(b'G');
    let long = copy_data(&b"1\n".repeat(500_000));
    let (head, tail) = long.split_at(400_000);
    a.send(&[&copy_data(b"no number\n"), head].concat());
    assert_eq!(a.expect(b'E').error().code, "22P02");
    a.expect(b'Z');
    b.start_query("select 'b'");
    proxy.wait_for_waiting(1);
    a.send(tail);
    a.send(&Message::new(b'c', &[]).encode());
    assert_eq!(b.read_reply().value(), "b");
    assert_eq!(a.value("select count(*) from t"), "0");
}

#[test]
fn behaviour_27_a_sync_before_copy_in_response_gets_no_answer() {
    let (_pg, proxy) = start("transaction");
    let (mut a, mut b) = (proxy.client(), proxy.client());
    a.send(Pipeline::new().run("copy t from stdin").sync().bytes());
    a.expect(b'1');
    a.expect(b'2');
    a.expect(b'G');
    a.send(&copy_data(b"1\n"));
    b.start_query("select count(*) from t");
    proxy.wait_for_waiting(1);
    a.send(Pipeline::new().message(b'c', &[]).sync().bytes());
    // An answer to the early Sync would stand before it.
    assert_eq!(a.read_reply().no_error().tags(), "CZ");
    assert_eq!(b.read_reply().value(), "1");
    assert_eq!(a.value("select 'in step'"), "in step");
}

#[test]
fn behaviour_27_an_error_after_an_early_sync() {
    let (_pg, proxy) = start("transaction");
    let mut a = proxy.client();
    a.send(Pipeline::new().run("copy t from stdin").sync().bytes());
    a.expect(b'1');
    a.expect(b'2');
    a.expect(b'G');
    a.send(&copy_data(b"no number\n"));
    assert_eq!(a.expect(b'E').error().code, "22P02");
    a.send(&copy_data(b"1\n"));
    a.send(Pipeline::new().message(b'c', &[]).bytes());
    a.send(Pipeline::new().sync().bytes());
    assert_eq!(a.read_reply().tags(), "Z");
    // No Sync, no answer: one to CopyDone would have been that.
    a.expect_nothing_before_the_next_reply();
    // A COPY that does not begin leaves its Sync to be answered.
    let missing = a.run(&Pipeline::new().run("copy missing from stdin").sync());
    assert_eq!((missing.sqlstate().as_str(), missing.status()), ("42P01", 'I'));
    assert_eq!(a.value("select 'in step'"), "in step");
    assert_eq!(proxy.client().value("select 'b'"), "b");
}

#[test]
fn behaviour_28_syncs_during_copy_in_expect_no_answer() {
    let (_pg, proxy) = start("transaction");
    let mut client = proxy.client();
    client.start_query("copy t from stdin");
    client.expect(b'G');
    let data = Pipeline::new().raw(&copy_data(b"1\n")).sync().flush().sync().sync();
    client.send(data.raw(&copy_data(b"2\n")).message(b'c', &[]).bytes());
    assert_eq!(client.read_reply().no_error().tags(), "CZ");
    // Had a Sync inside COPY been answered, that would come first.
    client.expect_nothing_before_the_next_reply();
    assert_eq!(client.value("select count(*) from t"), "2");
    assert_eq!(proxy.client().value("select 'b'"), "b");
}

#[test]
fn behaviour_28_copy_fail_works() {
    let (_pg, proxy) = start("transaction");
    let mut client = proxy.client();
    client.start_query("copy t from stdin");
    client.expect(b'G');
    client
        .send(Pipeline::new().raw(&copy_data(b"1\n")).message(b'f', b"changed my mind\0").bytes());
    let reply = client.read_reply();
    assert_eq!(reply.sqlstate(), "57014");
    assert!(reply.errors()[0].message.contains("changed my mind"));
    assert_eq!(client.value("select count(*) from t"), "0");
}

#[test]
fn several_copies_in_one_query() {
    let (_pg, proxy) = start("transaction");
    let mut client = proxy.client();
    client.start_query("copy t from stdin; select 'between'; copy t from stdin; copy t to stdout");
    for value in [b"1\n", b"2\n"] {
        client.send(&[copy_data(value), Message::new(b'c', &[]).encode()].concat());
    }
    let reply = client.read_reply();
    assert_eq!(reply.no_error().tags(), "GCTDCGCHddcCZ");
    assert_eq!(client.value("select count(*) from t"), "2");
}
