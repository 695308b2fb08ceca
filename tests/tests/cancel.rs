//! CancelRequest: statements 46, 47, 58.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::startup::{CANCEL_REQUEST, SSL_REQUEST, startup_packet};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::wire_client::cancel;
use pgimbal_tests::{FakeServer, Postgres};

#[test]
fn a_cancel_reaches_the_running_query() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("workers", 2).start();
    for _ in 0..4 {
        let mut client = proxy.client();
        client.start_query("select pg_sleep(60)");
        eventually("the query runs", SOON, || pg.running("pg_sleep") == 1);
        client.cancel(proxy.port);
        let reply = client.read_reply();
        assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57014", 'I'));
        assert_eq!(client.value("select 1"), "1");
        client.cancel(proxy.port);
        assert_eq!(client.value("select 'unharmed'"), "unharmed");
    }
}

#[test]
fn a_wrong_key_cancels_nothing() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).start();
    let mut client = proxy.client();
    client.start_query("select pg_sleep(0.5)");
    eventually("the query runs", SOON, || pg.running("pg_sleep") == 1);
    let mut key = client.key.clone();
    key[7] ^= 1;
    cancel(proxy.port, &key);
    cancel(proxy.port, &[0; 8]);
    client.read_reply().no_error();
}

#[test]
fn behaviour_46_a_late_cancel_never_hits_another_client() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let (mut a, mut b) = (proxy.client(), proxy.client());
    for round in 0..60_u64 {
        let (port, key) = (proxy.port, a.key.clone());
        let wait = Duration::from_micros(round * 150);
        let late = std::thread::spawn(move || {
            std::thread::sleep(wait);
            cancel(port, &key);
        });
        a.start_query("select pg_sleep(0.003)");
        b.start_query("select pg_sleep(0.02)");
        let cancelled = a.read_reply();
        assert!(cancelled.errors().iter().all(|error| error.code == "57014"));
        b.read_reply().no_error();
        late.join().expect("the cancel");
        b.ok("select pg_sleep(0.001)");
    }
}

/// A server whose answer to `slow` takes as long as a CancelRequest takes to arrive, and whose
/// CancelRequests stay open until `release` says so, and then close.
fn slow_to_cancel() -> (FakeServer, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (release, released) = mpsc::channel::<()>();
    let (arrived, arrivals) = mpsc::channel();
    let (released, arrived) = (Mutex::new(released), Mutex::new(arrived));
    let has_arrived = AtomicBool::new(false);
    let fake = FakeServer::start(move |server| {
        if server.startup().is_err() {
            if server.cancel {
                let _ = arrived.lock().expect("a sender").send(());
                has_arrived.store(true, Ordering::Relaxed);
                let _ = released.lock().expect("a receiver").recv();
            }
            return Ok(());
        }
        server.welcome()?;
        loop {
            if server.read_query()? == "slow" {
                eventually("the cancel arrives", SOON, || has_arrived.load(Ordering::Relaxed));
            }
            server.answer(&server.number.to_string())?;
        }
    });
    (fake, release, arrivals)
}

#[test]
fn behaviour_46_a_server_waits_for_the_end_of_its_cancels() {
    let (fake, release, arrivals) = slow_to_cancel();
    let proxy = Config::to_port(fake.port).set("pool_size", 1).start();
    let (mut a, mut b) = (proxy.client(), proxy.client());
    assert_eq!(b.value("select 1"), "0");
    a.start_query("slow");
    let (port, key) = (proxy.port, a.key.clone());
    let cancelling = std::thread::spawn(move || cancel(port, &key));
    arrivals.recv_timeout(SOON).expect("the cancel arrives");
    assert_eq!(a.read_reply().value(), "0");
    b.start_query("select 1");
    proxy.wait_for_waiting(1);
    release.send(()).expect("the server lives");
    assert_eq!(b.read_reply().value(), "0");
    cancelling.join().expect("the cancel");
}

#[test]
fn behaviour_46_after_cancel_wait_timeout_the_server_is_closed() {
    let (fake, release, arrivals) = slow_to_cancel();
    let config = Config::to_port(fake.port).set("pool_size", 1);
    let proxy = config.set("cancel_wait_timeout", "\"700ms\"").start();
    let (mut a, mut b) = (proxy.client(), proxy.client());
    a.start_query("slow");
    let (port, key) = (proxy.port, a.key.clone());
    std::thread::spawn(move || cancel(port, &key));
    arrivals.recv_timeout(SOON).expect("the cancel arrives");
    assert_eq!(a.read_reply().value(), "0");
    let start = Instant::now();
    b.start_query("select 1");
    assert_ne!(b.read_reply().value(), "0", "the server was reused");
    assert!(start.elapsed() > Duration::from_millis(300), "closed early");
    drop(release);
}

#[test]
fn behaviour_47_a_cancel_removes_a_waiter_from_the_queue() {
    let pg = Postgres::start();
    let proxy = Config::before(&pg).set("pool_size", 1).start();
    let (mut holder, mut waiter, mut next) = (proxy.client(), proxy.client(), proxy.client());
    holder.ok("begin");
    waiter.start_query("select 'never'");
    proxy.wait_for_waiting(1);
    next.start_query("select 'next'");
    proxy.wait_for_waiting(2);
    waiter.cancel(proxy.port);
    let reply = waiter.read_reply();
    assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57014", 'I'));
    assert_eq!(reply.errors()[0].severity, "ERROR");
    let extended = pgimbal_tests::Pipeline::new().run("select 'never'").sync();
    waiter.send(extended.bytes());
    proxy.wait_for_waiting(2);
    waiter.cancel(proxy.port);
    let reply = waiter.read_reply();
    assert_eq!((reply.sqlstate().as_str(), reply.tags().as_str()), ("57014", "EZ"));
    assert_eq!(holder.value("select 'untouched'"), "untouched");
    holder.ok("commit");
    assert_eq!(next.read_reply().value(), "next");
    assert_eq!(waiter.value("select 'again'"), "again");
}

#[test]
fn behaviour_58_cancel_over_tls_and_beyond_the_limit() {
    let pg = Postgres::start();
    let certificates = Certificates::new();
    let config = Config::before(&pg).set("max_client_conn", 1);
    let proxy = config.client_tls(&certificates, "allow").start();
    let mut client = proxy.client();
    for tls in [false, true] {
        client.start_query("select pg_sleep(60)");
        eventually("the query runs", SOON, || pg.running("pg_sleep") == 1);
        if tls {
            let mut plain = proxy.connect();
            plain.send(&startup_packet(SSL_REQUEST, &[]));
            let mut answer = [0];
            plain.read_bytes(&mut answer).expect("an answer");
            assert_eq!(&answer, b"S");
            let mut secure = plain.tls(certificates.client(&[])).expect("a handshake");
            secure.send(&startup_packet(CANCEL_REQUEST, &client.key));
            secure.read_to_end();
        } else {
            client.cancel(proxy.port);
        }
        assert_eq!(client.read_reply().sqlstate(), "57014", "over TLS: {tls}");
    }
}
