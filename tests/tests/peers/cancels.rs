//! Cancel requests whose session is at another replica.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::{Config, undisturbed};
use pgimbal_tests::postgres::bin;
use pgimbal_tests::startup::{CANCEL_REQUEST, PROTOCOL_3_0, PROTOCOL_3_2, startup_packet};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::wire_client::cancel;
use pgimbal_tests::{FakeServer, Login, Pgimbal, Postgres, WireClient};
use rustix::process::{Signal, kill_process};

use crate::rolling::take_over::successors;

use super::{peers, start, tables, three, wait_for_peers};

/// How long a cancelled query may take to its error before it is cancelled again.
const PAUSE: Duration = Duration::from_millis(300);

fn client(proxy: &Pgimbal, version: u32) -> WireClient {
    proxy.log_in(&Login { version, ..Login::new("app", "app", "app-secret") })
}

fn sleeps(pg: &Postgres, client: &mut WireClient, what: &str) {
    client.start_query(&format!("select pg_sleep(60), '{what}'"));
    eventually("the query runs", SOON, || pg.running(what) == 1);
}

#[test]
fn behaviour_48_a_cancel_at_any_replica_reaches_the_query() {
    let pg = Postgres::start();
    let all = three(&pg);
    for version in [PROTOCOL_3_0, PROTOCOL_3_2] {
        for (number, owner) in all.iter().enumerate() {
            let mut client = client(owner, version);
            // PgBouncer's layout: the sign bit, the peer id, the hops.
            let key = client.key.clone();
            assert_eq!(key[0] & 0x80, 0);
            assert_eq!(usize::from(u16::from_le_bytes([key[1], key[2]])), number + 1);
            assert_eq!(key[7] & 3, 3);
            assert_eq!(key.len(), if version == PROTOCOL_3_0 { 8 } else { 36 });
            for other in &all {
                let what = format!("of {number} at {}", other.port);
                sleeps(&pg, &mut client, &what);
                client.cancel(other.port);
                let reply = client.read_reply();
                assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57014", 'I'), "{what}");
            }
            assert_eq!(client.value("select 'unharmed'"), "unharmed");
        }
    }
    let page = all[0].metrics();
    let labels = ["kind=\"cancel\"", "result=\"answered\""];
    let forwarded = pgimbal_tests::http::metric(&page, "pgimbal_peer_requests_total", &labels);
    assert_eq!(forwarded, Some(4.0), "two owners in two versions");
}

#[test]
fn without_peer_ids_all_are_asked_for_a_key() {
    let pg = Postgres::start();
    let all = start(&Config::before(&pg), 3, false);
    for owner in &all {
        let mut client = client(owner, PROTOCOL_3_0);
        assert_eq!(client.key[1..3], [0, 0]);
        for other in &all {
            sleeps(&pg, &mut client, "anywhere");
            client.cancel(other.port);
            assert_eq!(client.read_reply().sqlstate(), "57014");
        }
    }
}

/// Forwards each connection to the next of `ports`, as the Service of a Deployment does.
fn balancer(ports: Vec<u16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for (near, to) in listener.incoming().map_while(Result::ok).zip(ports.iter().cycle()) {
            let Ok(far) = TcpStream::connect(("127.0.0.1", *to)) else { continue };
            for (mut from, mut to) in [
                (near.try_clone().expect("a socket"), far.try_clone().expect("a socket")),
                (far, near),
            ] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    port
}

#[test]
fn psql_behind_a_balancer_cancels_with_control_c() {
    let pg = Postgres::start();
    let all = three(&pg);
    let port = balancer(all.iter().map(|proxy| proxy.port).collect());
    for round in 0..3 {
        let what = format!("psql {round}");
        let mut command: Command = undisturbed(bin().join("psql"));
        let psql = command
            .args(["-X", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", "app", "app", "-c"])
            .arg(format!("select pg_sleep(60), '{what}'"))
            .stderr(Stdio::piped())
            .spawn();
        let mut psql = psql.expect("psql");
        eventually("the query runs", SOON, || pg.running(&what) == 1);
        let pid = i32::try_from(psql.id()).expect("a pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, Signal::INT).expect("a signal");
        let mut said = String::new();
        psql.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert!(!psql.wait().expect("an end").success());
        assert!(said.contains("canceling statement due to user request"), "{said}");
    }
}

#[test]
fn random_cancels_hit_what_they_are_meant_for_and_nothing_else() {
    let pg = Postgres::start();
    let all = start(&Config::before(&pg).set("pool_size", 6).set("workers", 2), 3, true);
    let ports: Vec<u16> = all.iter().map(|proxy| proxy.port).collect();
    std::thread::scope(|scope| {
        for number in 0..12_usize {
            let (proxy, ports) = (&all[number % 3], &ports);
            scope.spawn(move || {
                let version = if number % 2 == 0 { PROTOCOL_3_0 } else { PROTOCOL_3_2 };
                let mut client = client(proxy, version);
                for round in 0..15 {
                    let is_meant = (number + round) % 3 == 0;
                    client.start_query(if is_meant {
                        "select pg_sleep(60)"
                    } else {
                        "select pg_sleep(0.02)"
                    });
                    if is_meant {
                        // It may come before the query runs, so it is said until it is heard.
                        let port = ports[(number * 7 + round) % 3];
                        eventually("it is cancelled", SOON, || {
                            client.cancel(port);
                            let said = Instant::now();
                            while client.has_no_input() && said.elapsed() < PAUSE {
                                std::thread::sleep(Duration::from_millis(1));
                            }
                            !client.has_no_input()
                        });
                        assert_eq!(client.read_reply().sqlstate(), "57014");
                    } else {
                        client.read_reply().no_error();
                    }
                }
            });
        }
    });
}

#[test]
fn many_cancels_at_once_all_arrive() {
    let pg = Postgres::start();
    let all = start(&Config::before(&pg).set("pool_size", 40), 2, true);
    let mut clients: Vec<WireClient> = (0..40).map(|_| client(&all[0], PROTOCOL_3_0)).collect();
    for client in &mut clients {
        client.start_query("select pg_sleep(60), 'many'");
    }
    eventually("all run", SOON, || pg.running("many") == 40);
    std::thread::scope(|scope| {
        for client in &clients {
            let port = all[1].port;
            scope.spawn(move || client.cancel(port));
        }
    });
    for client in &mut clients {
        assert_eq!(client.read_reply().sqlstate(), "57014");
    }
}

#[test]
fn the_request_ends_when_the_other_replicas_server_has_been_told() {
    let (release, released) = mpsc::channel::<()>();
    let (arrived, arrivals) = mpsc::channel();
    let (released, arrived) = (std::sync::Mutex::new(released), std::sync::Mutex::new(arrived));
    let fake = FakeServer::start(move |server| {
        if server.startup().is_err() {
            if server.cancel {
                let _ = arrived.lock().expect("a sender").send(());
                let _ = released.lock().expect("a receiver").recv();
            }
            return Ok(());
        }
        server.welcome()?;
        loop {
            if server.read_query()? == "slow" {
                server.wait_for_end();
            }
            server.answer("1")?;
        }
    });
    let all = start(&Config::to_port(fake.port), 2, true);
    let mut owner = client(&all[0], PROTOCOL_3_0);
    owner.start_query("slow");
    eventually("the query runs", SOON, || {
        let page = all[0].metrics();
        pgimbal_tests::http::metric(&page, "pgimbal_servers_active", &[]) == Some(1.0)
    });
    let mut request = WireClient::tcp(all[1].port);
    request.send(&startup_packet(CANCEL_REQUEST, &owner.key));
    arrivals.recv_timeout(SOON).expect("the cancel arrives");
    // Longer than one request between replicas may take.
    assert!(request.is_silent_for(Duration::from_secs(3)), "it has ended too early");
    release.send(()).expect("the server lives");
    request.read_to_end();
}

#[test]
fn a_draining_replica_still_answers() {
    let pg = Postgres::start();
    let config = Config::before(&pg).set("shutdown_grace", "\"60s\"");
    let all = start(&config.set("drain_delay", "\"100ms\""), 2, true);
    let mut client = client(&all[0], PROTOCOL_3_0);
    client.ok("begin");
    sleeps(&pg, &mut client, "through the drain");
    all[0].signal(Signal::TERM);
    eventually("it drains", SOON, || {
        peers(&all[1]).iter().any(|row| row["replica"] == "r0" && row["ready"] == "no")
    });
    eventually("clients reach the other one alone", SOON, || {
        WireClient::try_tcp(all[0].port).is_err()
    });
    client.cancel(all[1].port);
    assert_eq!(client.read_reply().sqlstate(), "57014");
    client.ok("rollback");
}

#[test]
fn a_process_that_was_taken_over_still_answers() {
    let pg = Postgres::start();
    let all = start(&Config::before(&pg).set("shutdown_grace", "\"60s\""), 2, false);
    let mut client = client(&all[0], PROTOCOL_3_0);
    client.ok("begin");
    sleeps(&pg, &mut client, "in the first process");
    all[0].signal(Signal::USR2);
    // The first process drains, and the second one is at its port.
    eventually("three have met", SOON, || {
        all.iter().all(|replica| {
            let rows = peers(replica);
            let ready = |word: &str| rows.iter().filter(|row| row["ready"] == word).count();
            (rows.len(), ready("yes"), ready("no")) == (3, 2, 1)
                && rows.iter().all(|row| row["why"].is_empty())
        })
    });
    client.cancel(all[1].port);
    assert_eq!(client.read_reply().sqlstate(), "57014");
    client.ok("rollback and chain");
    sleeps(&pg, &mut client, "in the first process still");
    // This port is the second one's.
    client.cancel(all[0].port);
    assert_eq!(client.read_reply().sqlstate(), "57014");
}

#[test]
fn a_cancel_at_the_process_that_took_over_reaches_the_one_before_it() {
    for ids in [true, false] {
        let pg = Postgres::start();
        let mut tables = tables(2, ids);
        let places = [1, 0].map(|other: usize| tables[other].listen.clone());
        for (table, other) in tables.iter_mut().zip(places) {
            // None names itself.
            table.others = format!("addresses = [\"{other}\"]");
        }
        let config = Config::before(&pg).set("shutdown_grace", "\"60s\"");
        let start = |table| super::replica(config.clone(), table).start();
        let all: Vec<Pgimbal> = tables.iter().map(start).collect();
        all.iter().for_each(|one| wait_for_peers(one, 1));
        let mut client = client(&all[0], PROTOCOL_3_0);
        client.ok("begin");
        sleeps(&pg, &mut client, "in the first process");
        all[0].signal(Signal::USR2);
        eventually("the second one serves", SOON, || {
            all[0].log().contains("another process has taken over")
        });
        // At once, so that the two may not have met.
        client.cancel(all[0].port);
        assert_eq!(client.read_reply().sqlstate(), "57014", "ids: {ids}");
        client.ok("rollback and chain");
        sleeps(&pg, &mut client, "in the first process still");
        client.cancel(all[1].port);
        assert_eq!(client.read_reply().sqlstate(), "57014", "ids: {ids}");
        // They have one name and, where it is configured, one peer id, which is no fault.
        eventually("three have met", SOON, || all.iter().all(|replica| peers(replica).len() == 3));
        // A third process takes over from the second, and each of the two has a client.
        let mut second = self::client(&all[0], PROTOCOL_3_0);
        second.ok("begin");
        let pid = successors(&all[0].log())[0];
        kill_process(pid, Signal::USR2).expect("a living process");
        eventually("the third one serves", SOON, || {
            all[0].log().matches("another process has taken over").count() == 2
        });
        eventually("four have met", SOON, || peers(&all[0]).len() == 4);
        client.ok("rollback and chain");
        for (one, what) in [(&mut client, "in the first of three"), (&mut second, "in the second")]
        {
            sleeps(&pg, one, what);
            one.cancel(all[0].port);
            assert_eq!(one.read_reply().sqlstate(), "57014", "{what}, ids: {ids}");
        }
        for replica in &all {
            assert!(peers(replica).iter().all(|row| row["why"].is_empty()), "{:?}", peers(replica));
            assert!(!replica.log().contains("both hand out"), "{}", replica.log());
        }
    }
}

#[test]
fn a_key_whose_replica_does_not_answer_is_not_wrong() {
    let pg = Postgres::start();
    let all = three(&pg);
    let key = client_key_of(&all[0]);
    all[0].signal(Signal::STOP);
    eventually("it is silent", SOON, || {
        peers(&all[1]).iter().any(|row| row["replica"] == "r0" && row["state"] == "silent")
    });
    // More of them than an address may show wrong ones.
    std::thread::scope(|scope| {
        for _ in 0..120 {
            scope.spawn(|| cancel(all[1].port, &key));
        }
    });
    let mut neighbour = client(&all[1], PROTOCOL_3_0);
    sleeps(&pg, &mut neighbour, "of another replica");
    neighbour.cancel(all[1].port);
    assert_eq!(neighbour.read_reply().sqlstate(), "57014");
    assert!(!all[1].log().contains("wrong keys"), "{}", all[1].log());
    all[0].signal(Signal::CONT);
}

#[test]
fn wrong_keys_and_those_of_nobody_cancel_nothing_and_end_at_once() {
    let pg = Postgres::start();
    let mut all = three(&pg);
    let mut client = client(&all[0], PROTOCOL_3_0);
    sleeps(&pg, &mut client, "unharmed");
    let key = client.key.clone();
    let with = |index: usize, value: u8| {
        let mut wrong = key.clone();
        wrong[index] = value;
        wrong
    };
    let wrong = [
        with(7, key[7] ^ 4),
        with(4, key[4] ^ 1),
        // Peer ids 2 (which has no such session), 77 (nobody's) and 16384 (none).
        with(1, 2),
        with(1, 77),
        with(2, 0x40),
        // No hops, and the sign bit.
        with(7, key[7] ^ 1),
        with(0, key[0] | 0x80),
        key[..6].to_vec(),
        [&key[..], &[0; 28]].concat(),
    ];
    let begun = Instant::now();
    for key in &wrong {
        cancel(all[1].port, key);
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // Guesses cost at the replica that has the session too, whichever one they are sent to.
    for _ in 0..100 {
        cancel(all[2].port, &with(5, key[5] ^ 1));
    }
    eventually("it is told", SOON, || all[0].log().contains("through other replicas"));
    assert_eq!(pg.running("unharmed"), 1);
    // One that is gone: its keys lead nowhere, and nobody waits.
    let gone = client_key_of(&all[2]);
    drop(all.pop());
    let begun = Instant::now();
    cancel(all[1].port, &gone);
    assert!(begun.elapsed() < SOON);
}

fn client_key_of(proxy: &Pgimbal) -> Vec<u8> {
    client(proxy, PROTOCOL_3_0).key
}

#[test]
fn one_peer_id_of_two_replicas_is_told_and_both_are_asked() {
    let pg = Postgres::start();
    let mut tables = tables(3, true);
    tables[1].peer_id = Some(1);
    let config = Config::before(&pg);
    let all: Vec<Pgimbal> =
        tables.iter().map(|table| super::replica(config.clone(), table).start()).collect();
    wait_for_peers(&all[2], 2);
    eventually("it is told", SOON, || all[2].log().contains("both hand out the peer id 1"));
    let told = peers(&all[2]);
    assert!(told.iter().any(|row| row["why"] == "hands out peer id 1, as r1 does"), "{told:?}");
    for owner in &all[..2] {
        wait_for_peers(owner, 2);
        let mut client = client(owner, PROTOCOL_3_0);
        for other in &all {
            sleeps(&pg, &mut client, "twice");
            client.cancel(other.port);
            assert_eq!(client.read_reply().sqlstate(), "57014");
        }
    }
}

#[test]
fn a_cancel_through_another_replica_is_hardly_later() {
    const ROUNDS: usize = 200;
    let pg = Postgres::start();
    let all = three(&pg);
    let mut client = client(&all[0], PROTOCOL_3_0);
    // In turn, so that both meet the same load.
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (at, took) in all.iter().zip(&mut took) {
            sleeps(&pg, &mut client, "measured");
            let begun = Instant::now();
            client.cancel(at.port);
            took.push(begun.elapsed());
            assert_eq!(client.read_reply().sqlstate(), "57014");
        }
    }
    took.iter_mut().for_each(|took| took.sort());
    let [local, foreign] = took.map(|took| (took[ROUNDS / 2], took[ROUNDS * 99 / 100]));
    println!("cancel, median and p99: here {local:?}, through another replica {foreign:?}");
    // The figure is that of a release build on a quiet machine. On a loaded one each step takes
    // longer, but no cancel waits for a pause or another attempt (100 ms, 250 ms).
    let most = 4 * local.0 + Duration::from_millis(80);
    assert!(foreign.0 < most, "{local:?}, {foreign:?}");
}
