//! Three replicas that share the budget of a server.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use pgimbal_tests::http::get;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::process::directory;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pgimbal, Postgres, WireClient};

use rustix::process::Signal;

use super::{APPS, login, roles, shown, watched};
use crate::peers;

/// Replicas with a store of their own, four slots and a budget of 24, that have met and hold slots.
fn replicas(pg: &Postgres, store: &std::path::Path, count: u16) -> Vec<Pgimbal> {
    replicas_of(&config(pg, store, 4), count)
}

/// Replicas that have met and hold slots.
fn replicas_of(config: &Config, count: u16) -> Vec<Pgimbal> {
    let replicas = peers::start(config, count, false);
    for replica in &replicas {
        let _ = replica.log_in(&login(0)).ok("select 1");
        usable(replica);
    }
    replicas
}

/// A configuration for replicas with so many slots, a budget of 24, and a store of their own.
fn config(pg: &Postgres, store: &std::path::Path, slots: u16) -> Config {
    Config::before(pg)
        .set("pool_size", 20)
        .set("workers", 2)
        .set("max_replicas", slots)
        .set("drain_delay", "\"100ms\"")
        .server("max_server_connections", 24)
        .tables(&format!("[store]\nkind = \"file\"\nfile = \"{}\"", store.join("facts").display()))
}

fn usable(replica: &Pgimbal) {
    eventually("its tokens can be used", SOON * 2, || {
        let _ = replica.log_in(&login(0)).ok("select 1");
        let state = shown(replica, "state");
        println!("{state}, slot {}", shown(replica, "slot"));
        state == "shared"
    });
}

/// Clients of four roles at a replica, which want far more than there is, until `ended`. Returns
/// how many transactions were served.
fn load(replica: &Pgimbal, ended: &AtomicBool) -> usize {
    let served = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..32 {
            let served = &served;
            scope.spawn(move || {
                let mut client: Option<WireClient> = None;
                while !ended.load(Relaxed) {
                    let known = client.take();
                    let mut now = known.unwrap_or_else(|| replica.log_in(&login(number % 4)));
                    if now.try_query("select pg_sleep(0.004)").is_ok_and(|r| r.errors().is_empty())
                    {
                        served.fetch_add(1, Relaxed);
                        client = Some(now);
                    }
                }
            });
        }
    });
    served.load(Relaxed)
}

/// Ends the loads, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn budget_is_shared_by_three_replicas() {
    let pg = Postgres::with(&["max_connections=60"]);
    roles(&pg, 4);
    let store = directory("store");
    let all = replicas(&pg, &store, 3);
    for replica in &all {
        assert_eq!(shown(replica, "share"), "6");
    }
    let ended = AtomicBool::new(false);
    let most = watched(&pg, || {
        thread::scope(|scope| {
            let end_of_loads = Ends(&ended);
            // One alone borrows what the others do not use.
            let first = scope.spawn(|| load(&all[0], &ended));
            eventually("it borrows", SOON, || shown(&all[0], "borrowed") != "0");
            eventually("it uses what it has borrowed", SOON, || {
                shown(&all[0], "used").parse::<u32>().expect("a number") >= 10
            });
            // When all want it, everybody has its share.
            let others: Vec<_> =
                all[1..].iter().map(|it| scope.spawn(|| load(it, &ended))).collect();
            eventually("the tokens are back", SOON * 2, || {
                all.iter().all(|it| shown(it, "used").parse::<u32>().expect("a number") == 5)
            });
            let end = Instant::now() + Duration::from_secs(2);
            eventually("they work for a while", SOON, || Instant::now() > end);
            drop(end_of_loads);
            for load in others.into_iter().chain([first]) {
                assert!(load.join().expect("a load") > 100);
            }
        });
    });
    println!("at most {most} of 24");
    assert!(most <= 24, "{most} connections, and 24 are allowed");
    assert!(all.iter().all(|it| shown(it, "refused") == "0"));
}

#[test]
fn budget_holds_while_replicas_come_and_go() {
    let pg = Postgres::with(&["max_connections=60"]);
    roles(&pg, 4);
    let store = directory("store");
    let mut all = replicas(&pg, &store, 3);
    let ended = AtomicBool::new(false);
    let mut last = all.pop().expect("three");
    let most = watched(&pg, || {
        thread::scope(|scope| {
            let loads: Vec<_> = all.iter().map(|it| scope.spawn(|| load(it, &ended))).collect();
            let end_of_loads = Ends(&ended);
            // In order: its slot is free at once.
            last.signal(Signal::TERM);
            eventually("it ends", SOON * 2, || last.ended().is_some());
            last.restart();
            usable(&last);
            // Killed: it takes the slot that is left over.
            last.restart();
            usable(&last);
            drop(end_of_loads);
            loads.into_iter().for_each(|load| assert!(load.join().expect("a load") > 100));
        });
    });
    println!("at most {most} of 24");
    assert!(most <= 24 + 2, "{most} connections, 24 are allowed, and 2 for one without a slot");
    assert_eq!(pg.value(APPS).parse::<usize>().map(|count| count > 2), Ok(true));
}

#[test]
fn budget_a_new_replica_waits_for_the_slot_of_one_that_drains() {
    let pg = Postgres::with(&["max_connections=60"]);
    roles(&pg, 4);
    let store = directory("store");
    // Nobody is cut off because the third one is slow to start.
    let config = config(&pg, &store, 2).set("shutdown_grace", "\"5min\"");
    let [first, second, third] = peers::configs(&config, 3, false).try_into().ok().expect("three");
    let mut first = first.start();
    let second = second.start();
    usable(&first);
    usable(&second);
    let readiness = |proxy: &Pgimbal| get(proxy.http_port, "/readyz");
    // All slots are taken, and none is about to be left: two connections must do.
    let surplus = third.clone().start();
    eventually("it serves without a slot", SOON * 2, || readiness(&surplus).0 == 200);
    drop(surplus);
    let mut client = first.log_in(&login(0));
    client.ok("begin");
    first.signal(Signal::TERM);
    eventually("the first one drains", SOON, || readiness(&first).0 == 503);
    let third = third.start();
    eventually("the third one decides", SOON, || {
        let log = third.log();
        assert!(!log.contains("ready on"), "it does not wait: {log}\nthe first: {}", first.log());
        log.contains("a replica that drains has the slot")
    });
    assert_eq!(readiness(&third).0, 503, "{}", third.log());
    client.ok("commit");
    drop(client);
    eventually("the first one ends", SOON * 2, || first.ended() == Some(0));
    eventually("the third one serves", SOON * 2, || readiness(&third).0 == 200);
    let taken = third.log().find("holds a slot of the budget");
    let ready = third.log().find("ready on");
    assert!(taken.is_some() && taken < ready, "{}", third.log());
    usable(&third);
}

#[test]
fn budget_of_a_quiet_replica_is_lent_to_one_whose_clients_wait() {
    let pg = Postgres::with(&["max_connections=60"]);
    roles(&pg, 4);
    let store = directory("store");
    let all = {
        let config = config(&pg, &store, 4);
        replicas_of(&config.set("server_idle_timeout", "\"10min\"").set("min_pool_size", 1), 2)
    };
    let number = |replica: &Pgimbal, column| shown(replica, column).parse::<u32>().unwrap_or(0);
    // Its share less the one that looks, all at once; and then nobody comes any more.
    let mut clients: Vec<_> = (0..5).map(|_| all[0].log_in(&login(0))).collect();
    clients.iter_mut().for_each(|client| _ = client.ok("begin"));
    clients.iter_mut().for_each(|client| _ = client.ok("commit"));
    assert_eq!((number(&all[0], "used"), number(&all[0], "lent")), (5, 0));
    let ended = AtomicBool::new(false);
    let most = watched(&pg, || {
        thread::scope(|scope| {
            let end_of_loads = Ends(&ended);
            let loaded = scope.spawn(|| load(&all[1], &ended));
            eventually("it uses its share", SOON, || number(&all[1], "used") >= 5);
            // Five are idle and one of them stays; of the four one is kept for who comes.
            eventually("it uses the other's tokens", SOON * 2, || number(&all[1], "used") >= 8);
            assert!(number(&all[0], "lent") >= 3 && number(&all[0], "used") >= 1);
            drop(end_of_loads);
            assert!(loaded.join().expect("a load") > 0);
        });
    });
    assert!(most <= 24, "{most} connections, and 24 are allowed");
    // The other one's connections are idle, and go when their tokens are wanted back.
    clients.iter_mut().for_each(|client| _ = client.ok("begin"));
    assert_eq!(number(&all[0], "used"), 5);
}

#[test]
fn budget_of_a_replica_comes_back_though_all_that_had_slots_are_dead() {
    let pg = Postgres::with(&["max_connections=60"]);
    roles(&pg, 1);
    let store = directory("store");
    let mut all = replicas_of(&config(&pg, &store, 2), 1);
    // Nobody is left who could see that the connections of the first two have ended.
    for slot in ["1", "NULL"] {
        all[0].restart();
        let _ = all[0].log_in(&login(0)).ok("select 1");
        let state = if slot == "NULL" { "no slot" } else { "shared" };
        eventually("it has what slot is left", SOON, || {
            shown(&all[0], "slot") == slot && shown(&all[0], "state") == state
        });
    }
    let took = eventually("it has a slot", Duration::from_secs(150), || {
        let _ = all[0].log_in(&login(0)).ok("select 1");
        shown(&all[0], "state") == "shared"
    });
    println!("the slots of the dead are free {took:?} later");
    assert_eq!(shown(&all[0], "share"), "12");
}
