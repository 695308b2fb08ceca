//! Peers that live and do not read are no dead peers.

use std::process::Command;

use pgimbal_tests::namespace::Namespace;
use pgimbal_tests::{postgres, process};

use super::*;

/// Several times the kernel's timer; what it would cut off is cut off by then.
const PAUSE: Duration = Duration::from_secs(8);

fn impatient(pg: &Postgres) -> Pgimbal {
    Config::before(pg).set("pool_size", 1).set("tcp_user_timeout", "\"2s\"").start()
}

fn waits(pg: &Postgres) -> bool {
    pg.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock'") == "1"
}

/// The first bytes of a large result come, and nobody reads on for a while.
#[test]
fn a_client_that_pauses_longer_than_the_dead_peer_timer_gets_its_result() {
    let pg = Postgres::start();
    let proxy = impatient(&pg);
    let mut client = proxy.client();
    client.start_query("select repeat('x', 10000) from generate_series(1, 3000)");
    always("the result waits for its reader", PAUSE, || {
        std::thread::sleep(Duration::from_millis(100));
        pg.backends() == 1
    });
    assert_eq!(client.read_reply().commands(), ["SELECT 3000"]);
}

/// The rest of the result lies in the kernel: nothing of it is pgimbal's any more.
#[test]
fn the_tail_of_a_result_may_wait_in_the_kernel() {
    let pg = Postgres::start();
    let proxy = impatient(&pg);
    let mut client = proxy.client();
    let small = socket2::SockRef::from(&client.second_handle()).set_recv_buffer_size(4096);
    small.expect("a small buffer");
    client.start_query("select repeat('x', 10000) from generate_series(1, 20)");
    eventually("the server connection is free again", SOON, || {
        proxy.console("show servers").iter().flatten().any(|(_, value)| value == "idle")
    });
    always("it waits", PAUSE, || {
        std::thread::sleep(Duration::from_millis(100));
        pg.backends() == 1
    });
    assert_eq!(client.read_reply().commands(), ["SELECT 20"]);
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn a_copy_whose_rows_wait_for_a_lock_keeps_its_server_connection() {
    let pg = Postgres::start();
    pg.run("create table locked (x text primary key); grant all on locked to app");
    let proxy = impatient(&pg);
    let mut holder = pg.superuser();
    holder.ok("begin");
    holder.ok("insert into locked values ('0')");
    let mut client = proxy.client();
    client.start_query("copy locked from stdin");
    client.expect(b'G');
    let mut writer = client.second_handle();
    let sender = std::thread::spawn(move || {
        use std::io::Write;
        // More than the kernel holds; the first row is the one that is locked.
        let row = |n: usize| if n == 0 { "0\n".to_owned() } else { format!("{n:01000}\n") };
        let line = |n: usize| Message::new(b'd', row(n).as_bytes()).encode();
        let lines: Vec<u8> = (0..20_000).flat_map(line).collect();
        writer.write_all(&lines).and_then(|()| writer.write_all(&Message::new(b'c', b"").encode()))
    });
    eventually("the row waits", SOON, || waits(&pg));
    always("it goes on waiting", PAUSE, || {
        std::thread::sleep(Duration::from_millis(100));
        waits(&pg)
    });
    holder.ok("rollback");
    client.set_timeout(SOON * 4);
    assert_eq!(client.read_reply().commands(), ["COPY 20000"]);
    sender.join().expect("the writer").expect("all rows are taken");
}

/// Its network is cut in the middle of its result: nobody says anything any more. Bytes that wait
/// unsent keep the dead-peer timer off, since their peer may live; the limit for those who do not
/// read holds for the dead as well.
#[test]
fn a_client_cut_off_in_its_result_loses_its_server_by_the_stall_timeout() {
    let in_namespace = Namespace::new();
    let pg = Postgres::start();
    let proxy = Config::before(&pg)
        .set("pool_size", 1)
        .set("client_stall_timeout", "\"2s\"")
        .set("tcp_user_timeout", "\"10min\"")
        .set("allow_trust_on_network", true)
        .listening_on(in_namespace.outside)
        .start();
    let mut psql = Command::new(postgres::bin().join("psql"));
    let (host, port) = (in_namespace.outside, proxy.port);
    psql.arg(format!("host={host} port={port} user=app dbname=app sslmode=disable")).arg("-c");
    psql.arg(r"\copy (select repeat('x', 10000) from (select generate_series(1, 100000000)) s) to /dev/null");
    let directory = process::directory("psql");
    let psql = in_namespace.command(&psql);
    let _psql = process::Process::start(psql, &directory, rustix::process::Signal::KILL);
    eventually("its result comes", SOON, || {
        let sent = metric(&proxy.metrics(), "pgimbal_client_sent_bytes_total", &[]);
        sent.is_some_and(|bytes| bytes > 1e6)
    });
    let mut other = proxy.client();
    other.start_query("select 'served'");
    // Time is the subject: longer than the timeout.
    assert!(other.is_silent_for(Duration::from_secs(3)), "it reads, and keeps its server");
    in_namespace.cut();
    assert_eq!(other.read_reply().value(), "served");
    eventually("the client is gone", SOON, || {
        metric(&proxy.metrics(), "pgimbal_client_connections", &[]).is_none_or(|n| n <= 1.0)
    });
}
