//! A roll that nobody sees: SIGTERM and SHUTDOWN WAIT, the order in which clients go, and a process
//! that takes over from another.

mod manager;
mod pools;
pub(crate) mod take_over;

use std::time::{Duration, Instant};

use pgimbal_tests::http::get;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, Pgimbal, Postgres, WireClient};
use rustix::process::Signal;

/// A pgimbal that accepts clients for `delay` after SIGTERM, and lets them go within `grace`.
fn with_times(pg: &Postgres, delay: &str, grace: &str) -> Config {
    let config = Config::before(pg).set("drain_delay", format!("{delay:?}"));
    config.set("shutdown_grace", format!("{grace:?}"))
}

fn readiness(proxy: &Pgimbal) -> (u16, String) {
    get(proxy.http_port, "/readyz")
}

/// The SQLSTATE with which a connection was ended.
#[track_caller]
fn farewell(client: &mut WireClient) -> String {
    client.read_to_end().last().expect("a word before the end").error().code
}

#[test]
fn behaviour_52_readyz_falls_at_once_and_clients_are_accepted_for_drain_delay() {
    let pg = Postgres::start();
    let mut proxy = with_times(&pg, "2s", "2s").start();
    assert_eq!(readiness(&proxy).0, 200);
    let begun = Instant::now();
    proxy.signal(Signal::TERM);
    eventually("readyz falls", SOON, || readiness(&proxy).0 == 503);
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    assert!(readiness(&proxy).1.contains("draining"));
    let mut late = proxy.client();
    assert_eq!(late.value("select 1"), "1");
    late.ok("begin");
    eventually("the listener closes", SOON, || WireClient::try_tcp(proxy.port).is_err());
    let closed = begun.elapsed();
    assert!(closed >= Duration::from_secs(2) && closed < Duration::from_secs(4), "{closed:?}");
    assert_eq!(readiness(&proxy).0, 503, "probes are answered while it drains");
    assert_eq!(late.ok("commit").commands(), ["COMMIT"]);
    assert_eq!(farewell(&mut late), "57P01");
    eventually("it ends", SOON, || proxy.ended() == Some(0));
}

#[test]
fn behaviour_52_clients_go_in_the_order_in_which_their_pools_notice_least() {
    let pg = Postgres::start();
    let mut proxy = with_times(&pg, "0s", "6s").set("pool_size", 6).start();
    let (mut idle, mut open, mut pinned) = (proxy.client(), proxy.client(), proxy.client());
    pinned.ok("create temp table mine (x int)");
    open.ok("begin");
    let mut busy = proxy.client();
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let went = move |mut client: WireClient| {
            assert_eq!(farewell(&mut client), "57P01");
            begun.elapsed()
        };
        proxy.signal(Signal::TERM);
        // Never idle for a tenth of a second, so the last to go between transactions.
        let busy = scope.spawn(move || {
            loop {
                busy.start_query("select 2");
                let told = busy.read_to_end_or_ready();
                if told.last().is_none_or(|last| last.tag != b'Z') {
                    return begun.elapsed();
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let pinned = scope.spawn(move || went(pinned));
        assert_eq!(farewell(&mut idle), "57P01");
        let idle = begun.elapsed();
        let (busy, pinned) = (busy.join().expect("busy"), pinned.join().expect("pinned"));
        assert!(idle < busy, "the idle one goes first: {idle:?}, {busy:?}");
        assert!(busy >= Duration::from_millis(5300), "the busy one stays until the last tenth");
        assert!(pinned >= Duration::from_millis(5600), "the pinned one to the end: {pinned:?}");
        assert_eq!(farewell(&mut open), "57P01");
        let cut = begun.elapsed();
        assert!(cut >= Duration::from_millis(5900), "the open transaction was cut after {cut:?}");
    });
    eventually("it ends", SOON, || proxy.ended() == Some(0));
}

#[test]
fn behaviour_52_a_question_of_a_pool_is_a_moment_to_go() {
    let pg = Postgres::start();
    let mut proxy = with_times(&pg, "0s", "10s").start();
    let mut client = proxy.client();
    let begun = Instant::now();
    proxy.signal(Signal::TERM);
    // A pool that asks every time it hands the connection out, and then uses it at once.
    let transactions = (0..).take_while(|_| {
        client.start_query("-- ping");
        let lives = client.read_to_end_or_ready().last().is_some_and(|last| last.tag == b'Z');
        if lives {
            assert!(client.query("select 2").errors().is_empty(), "cut behind the question");
            std::thread::sleep(Duration::from_millis(20));
        }
        lives
    });
    assert!(transactions.count() > 0 || begun.elapsed() < Duration::from_secs(2));
    assert!(begun.elapsed() < Duration::from_millis(9500), "only at the last moment");
    eventually("it ends", SOON, || proxy.ended() == Some(0));
}

#[test]
fn shutdown_wait_drains_as_sigterm_and_shutdown_at_once() {
    let pg = Postgres::start();
    let mut proxy = with_times(&pg, "1s", "20s").start();
    let mut client = proxy.client();
    client.ok("begin");
    let mut console = proxy.log_in(&Login::new("app", "pgimbal", "app-secret"));
    assert_eq!(console.ok("shutdown wait").commands(), ["SHUTDOWN"]);
    eventually("readyz falls", SOON, || readiness(&proxy).0 == 503);
    let mut idle = proxy.client();
    assert_eq!(client.ok("commit").commands(), ["COMMIT"]);
    // Whoever cannot wait any more says so.
    let begun = Instant::now();
    assert_eq!(console.ok("shutdown").commands(), ["SHUTDOWN"]);
    assert_eq!(farewell(&mut idle), "57P01");
    assert_eq!(farewell(&mut client), "57P01");
    eventually("it ends, whatever consoles are open", SOON, || proxy.ended() == Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

#[test]
fn sigint_ends_a_drain() {
    let pg = Postgres::start();
    let mut proxy = with_times(&pg, "20s", "20s").start();
    let mut client = proxy.client();
    client.ok("begin");
    proxy.signal(Signal::TERM);
    eventually("it drains", SOON, || readiness(&proxy).0 == 503);
    proxy.signal(Signal::INT);
    eventually("it ends", Duration::from_secs(5), || proxy.ended() == Some(0));
}
