//! One budget of connections for a server, over all databases and users.

mod replicas;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Login, Pgimbal, Postgres, WireClient};

/// Makes roles `r0`, `r1` and so on, which are trusted on the server.
fn roles(pg: &Postgres, count: usize) {
    for number in 0..count {
        pg.run(&format!("create role r{number} login"));
    }
    let hba = pg.data().join("pg_hba.conf");
    let text = std::fs::read_to_string(&hba).expect("pg_hba.conf");
    let names: Vec<String> = (0..count).map(|number| format!("r{number}")).collect();
    let line = format!("host all {} 127.0.0.1/32 trust\n", names.join(","));
    std::fs::write(&hba, line + &text).expect("pg_hba.conf");
    pg.run("select pg_reload_conf()");
    eventually("the new pg_hba.conf is in force", SOON, || {
        pg.value("select count(*) from pg_hba_file_rules where 'r0' = any(user_name)") == "1"
    });
}

fn login(number: usize) -> Login {
    Login::new(&format!("r{number}"), "app", "x")
}

/// A connection of somebody else than pgimbal.
fn direct(pg: &Postgres, number: usize) -> WireClient {
    let mut client = WireClient::tcp(pg.port);
    client.log_in(&login(number)).expect("a place for others");
    client
}

/// The connections to the database `app`, as the server counts them.
const APPS: &str = "select count(*) from pg_stat_activity \
                    where datname = 'app' and usename <> 'postgres'";

fn shown(proxy: &Pgimbal, column: &str) -> String {
    let rows = proxy.console("SHOW BUDGET");
    let (_, value) = rows[0].iter().find(|(name, _)| name == column).expect("the column");
    value.clone()
}

/// Runs `load` while the server is watched every 10 ms. Returns the most connections that it had.
fn watched(pg: &Postgres, load: impl FnOnce()) -> usize {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut watcher = pg.superuser();
            let mut most = 0;
            while !ended.load(Relaxed) {
                most = most.max(watcher.value(APPS).parse().expect("a number"));
                thread::sleep(Duration::from_millis(10));
            }
            most
        });
        load();
        ended.store(true, Relaxed);
        watcher.join().expect("the watcher")
    })
}

#[test]
fn budget_of_21_roles_is_never_exceeded_and_everybody_is_served() {
    const ROLES: usize = 21;
    const CLIENTS: usize = 4;
    for (workers, limit) in [(1, 12), (2, 30)] {
        let pg = Postgres::with(&["max_connections=40"]);
        roles(&pg, ROLES);
        let proxy = Config::before(&pg)
            .set("pool_size", 20)
            .set("workers", workers)
            .server("max_server_connections", limit)
            .start();
        let served: Vec<AtomicUsize> = (0..ROLES).map(|_| AtomicUsize::new(0)).collect();
        let (slowest, end) = (AtomicUsize::new(0), Instant::now() + Duration::from_secs(6));
        let most = watched(&pg, || {
            thread::scope(|scope| {
                for number in 0..ROLES * CLIENTS {
                    let (served, slowest, proxy) = (&served, &slowest, &proxy);
                    scope.spawn(move || {
                        let mut client = proxy.log_in(&login(number % ROLES));
                        while Instant::now() < end {
                            let begun = Instant::now();
                            client.ok("select pg_sleep(0.005)");
                            slowest.fetch_max(begun.elapsed().as_millis() as usize, Relaxed);
                            served[number % ROLES].fetch_add(1, Relaxed);
                        }
                    });
                }
            });
        });
        let counts: Vec<usize> = served.iter().map(|count| count.load(Relaxed)).collect();
        let given_up = shown(&proxy, "given_up");
        println!(
            "{workers} workers: at most {most} of {limit}, {counts:?}, slowest {slowest:?} ms, {given_up} given up"
        );
        assert!(most <= limit, "{most} connections, and {limit} are allowed");
        assert!(most >= limit - 1, "{most} connections: the budget is not used");
        let least = counts.iter().min().copied().unwrap_or(0);
        let mean = counts.iter().sum::<usize>() / ROLES;
        assert!(least * 4 >= mean, "somebody starves: {counts:?}");
        assert_eq!(shown(&proxy, "refused"), "0");
    }
}

#[test]
fn budget_gives_an_idle_connection_of_another_worker_to_who_waits() {
    let pg = Postgres::start();
    roles(&pg, 9);
    let proxy = Config::before(&pg)
        .set("workers", 2)
        .set("pool_size", 4)
        .server("max_server_connections", 2)
        .start();
    // Every pool has a worker of its own; whichever has them, the idle ones are closed.
    for number in 0..9 {
        let begun = Instant::now();
        proxy.log_in(&login(number)).ok("select 1");
        assert!(begun.elapsed() < SOON / 3, "r{number} has waited for {:?}", begun.elapsed());
        assert!(pg.value(APPS).parse::<usize>().expect("a number") <= 2);
    }
    assert_eq!(shown(&proxy, "waiting"), "0");
}

#[test]
fn budget_closes_the_connection_that_was_idle_for_longest() {
    let pg = Postgres::start();
    roles(&pg, 4);
    let proxy = Config::before(&pg).server("max_server_connections", 3).start();
    for number in [1, 0, 2] {
        proxy.log_in(&login(number)).ok("select 1");
        thread::sleep(Duration::from_millis(20));
    }
    proxy.log_in(&login(3)).ok("select 1");
    let sql = "select string_agg(usename, ' ' order by usename) from pg_stat_activity \
               where datname = 'app' and usename <> 'postgres'";
    assert_eq!(pg.value(sql), "r0 r2 r3");
}

#[test]
fn budget_takes_the_next_connection_of_the_pool_that_has_most() {
    let pg = Postgres::start();
    roles(&pg, 3);
    let proxy = Config::before(&pg).set("pool_size", 3).server("max_server_connections", 4).start();
    let mut holders: Vec<_> = [0, 0, 0, 1].map(login).iter().map(|it| proxy.log_in(it)).collect();
    holders.iter_mut().for_each(|holder| _ = holder.ok("begin"));
    // A login waits too, for its pool's first connection.
    let mut newcomer = proxy.connect();
    newcomer.send(&login(2).packet());
    always("it waits", Duration::from_millis(300), || newcomer.has_no_input());
    // The pool with one keeps it while its clients want it; that with three gives one of them.
    let mut next = proxy.log_in(&login(0));
    next.start_query("select 'next'");
    holders[0].ok("commit");
    newcomer.expect(b'R');
    eventually("the newcomer is served", SOON, || newcomer.read().tag == b'Z');
    holders[1].ok("commit");
    assert_eq!(next.read_reply().value(), "next");
    assert_eq!(pg.value(APPS), "4");
}

#[test]
fn budget_is_by_default_what_the_server_allows() {
    let pg = Postgres::with(&["max_connections=14", "superuser_reserved_connections=4"]);
    roles(&pg, 12);
    // (14 - 4) less 5 % is 9; two are left to others.
    let proxy = Config::before(&pg).server("foreign_connections", 2).start();
    let mut clients: Vec<_> = (0..7).map(|number| proxy.log_in(&login(number))).collect();
    clients.iter_mut().for_each(|client| _ = client.ok("begin"));
    assert_eq!((shown(&proxy, "budget"), shown(&proxy, "used")), ("7".into(), "7".into()));
    let mut others = [direct(&pg, 11), direct(&pg, 11)];
    others.iter_mut().for_each(|other| _ = other.ok("select 1"));
    clients[0].ok("commit");
    proxy.log_in(&login(8)).ok("select 1");
    assert_eq!(shown(&proxy, "refused"), "0");
}

#[test]
fn budget_keeps_the_limits_of_roles_and_databases() {
    let pg = Postgres::start();
    roles(&pg, 2);
    pg.run("alter role r0 connection limit 2");
    let proxy = Config::before(&pg).set("pool_size", 9).start();
    let mut clients: Vec<_> = (0..4).map(|_| proxy.log_in(&login(0))).collect();
    clients[0].ok("begin");
    clients[1].ok("begin");
    clients[2].start_query("select 'third'");
    always("the third waits", Duration::from_millis(300), || clients[2].has_no_input());
    assert_eq!((pg.value(APPS), shown(&proxy, "refused")), ("2".into(), "0".into()));
    clients[0].ok("commit");
    assert_eq!(clients[2].read_reply().value(), "third");
    clients[1].ok("commit");

    pg.run("alter role r0 connection limit -1");
    pg.run("alter database app connection limit 1");
    drop((clients, proxy));
    let proxy = Config::before(&pg).set("pool_size", 9).start();
    let mut holder = proxy.log_in(&login(1));
    holder.ok("begin");
    let mut second = proxy.log_in(&login(1));
    second.start_query("select 'second'");
    always("the second waits", Duration::from_millis(300), || second.has_no_input());
    holder.ok("commit");
    assert_eq!(second.read_reply().value(), "second");
}

#[test]
fn budget_53300_is_told_only_where_no_connection_lives() {
    let pg = Postgres::with(&["max_connections=6", "superuser_reserved_connections=2"]);
    roles(&pg, 3);
    let proxy = Config::before(&pg).server("max_server_connections", "\"off\"").start();
    let mut holder = proxy.log_in(&login(0));
    holder.ok("begin");
    // Somebody else takes the rest.
    let others: Vec<_> = (0..3).map(|_| direct(&pg, 2)).collect();
    let mut waiter = proxy.log_in(&login(0));
    waiter.start_query("select 'waited'");
    eventually("the server has refused one", SOON, || shown(&proxy, "refused") != "0");
    assert!(waiter.has_no_input(), "a connection of its pool lives");
    holder.ok("commit");
    assert_eq!(waiter.read_reply().value(), "waited");
    // Another pool gets that one's place.
    let mut other = proxy.log_in(&login(1));
    assert_eq!(other.value("select 'other'"), "other");
    // With nothing of pgimbal there, the server's own word is told.
    let _ = proxy.console("RECONNECT app");
    drop((holder, waiter, other));
    eventually("the pools have no connection", SOON, || pg.value(APPS) == "3");
    eventually("their places are free", SOON, || {
        let used =
            pg.superuser().value("select count(*) from pg_stat_activity where datname is not null");
        used == "4"
    });
    let mut last = WireClient::tcp(pg.port);
    eventually("there is one more place for others", SOON, || {
        last = WireClient::tcp(pg.port);
        last.log_in(&login(2)).is_ok()
    });
    let mut refused = proxy.log_in(&login(0));
    assert_eq!(refused.query("select 1").sqlstate(), "53300");
    drop((others, last));
    eventually("it is served again", SOON, || refused.query("select 1").errors().is_empty());
}
