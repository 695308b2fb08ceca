//! Three pgimbals behind HAProxy, and busy pools that notice nothing of a roll.
//!
//! `PGIMBAL_ROLLING_CLIENTS=300` is the whole scale, with the times that are the defaults.

use std::time::{Duration, Instant};

use pgimbal_tests::Pgimbal;
use pgimbal_tests::Postgres;
use pgimbal_tests::busy_pool::{BusyPool, Seen};
use pgimbal_tests::haproxy::HaProxy;
use pgimbal_tests::http::metric;
use pgimbal_tests::library::{go_clients, java, python};
use pgimbal_tests::until::{SOON, eventually};
use rustix::process::Signal;

use super::{readiness, with_times};

/// The sizes and times of a run.
struct Scale {
    clients: u32,
    /// Seconds between two transactions of a client whose pool asks on each checkout.
    pause: f64,
    delay: &'static str,
    grace: &'static str,
}

impl Scale {
    fn of_the_run() -> Self {
        let clients = std::env::var("PGIMBAL_ROLLING_CLIENTS").ok();
        match clients.map(|clients| clients.parse().expect("a number")) {
            None => Self { clients: 60, pause: 0.1, delay: "1s", grace: "8s" },
            Some(clients) => Self { clients, pause: 0.5, delay: "5s", grace: "25s" },
        }
    }
}

/// Three pgimbals with a load balancer and a pool of each language.
struct Deployment {
    pg: Postgres,
    replicas: Vec<Pgimbal>,
    balancer: HaProxy,
    pools: Vec<BusyPool>,
}

impl Deployment {
    fn start(scale: &Scale) -> Self {
        let pg = Postgres::start();
        pg.run("create table done (id text primary key); grant all on done to app");
        let config = with_times(&pg, scale.delay, scale.grace).set("pool_size", 20);
        let replicas: Vec<Pgimbal> = (0..3).map(|_| config.clone().start()).collect();
        let balancer = HaProxy::before(&replicas);
        let commands = [
            ("psycopg", python("busy_psycopg_pool.py")),
            ("hikari", java("BusyHikari", &[])),
            ("asking", java("BusyHikari", &["-Dcom.zaxxer.hikari.aliveBypassWindowMs=0"])),
            ("pgx", go_clients()),
        ];
        let clients = scale.clients / 4;
        let pools = commands.map(|(name, command)| {
            BusyPool::start(name, command, balancer.port, clients, scale.pause)
        });
        let mut pools = Vec::from(pools);
        pools.iter_mut().for_each(BusyPool::wait_until_busy);
        Self { pg, replicas, balancer, pools }
    }

    /// Stops the clients. What was acknowledged must be in the table; what else is there, at most
    /// one row for an error, may be of a COMMIT whose answer was lost.
    fn stop(&mut self) -> Vec<Seen> {
        let seen: Vec<Seen> = self.pools.drain(..).map(BusyPool::stop).collect();
        for Seen { name, acknowledged, errors, texts, .. } in &seen {
            let count = format!("select count(*) from done where id like '{name}-%'");
            let rows: u64 = self.pg.value(&count).parse().expect("a number");
            eprintln!("{name}: {acknowledged} acknowledged, {rows} rows, {errors} errors");
            let fits = (*acknowledged..=acknowledged + errors).contains(&rows);
            assert!(fits, "{name}: {acknowledged} acknowledged, {rows} rows\n{texts}");
        }
        seen
    }

    fn clients_of(&self, replica: usize) -> f64 {
        let page = self.replicas[replica].metrics();
        metric(&page, "pgimbal_client_connections", &[]).unwrap_or(0.0)
    }
}

#[test]
fn rolling_restart_of_all_under_busy_pools_is_not_noticed() {
    let scale = Scale::of_the_run();
    let mut all = Deployment::start(&scale);
    let begun = Instant::now();
    for number in 0..all.replicas.len() {
        let rolled = Instant::now();
        all.replicas[number].signal(Signal::TERM);
        let limit = Duration::from_secs(60);
        eventually("it has ended", limit, || all.replicas[number].ended().is_some());
        assert_eq!(all.replicas[number].ended(), Some(0));
        let log = all.replicas[number].log();
        assert!(!log.contains("the last clients are cut off"), "{log}");
        all.replicas[number].restart();
        eventually("it is ready", SOON, || readiness(&all.replicas[number]).0 == 200);
        eventually("clients are sent to it", SOON, || all.balancer.is_up(number));
        eprintln!("replica {number} was rolled in {:?}", rolled.elapsed());
    }
    eprintln!("{} clients, all rolled in {:?}", scale.clients, begun.elapsed());
    for Seen { name, errors, texts, .. } in all.stop() {
        assert_eq!(errors, 0, "{name}: the application saw\n{texts}");
    }
}

#[test]
fn a_replica_that_is_killed_is_noticed_by_its_own_clients_only() {
    let scale = Scale { clients: 60, pause: 0.1, delay: "1s", grace: "5s" };
    let mut all = Deployment::start(&scale);
    let own = all.clients_of(0);
    assert!(own >= 10.0, "only {own} clients are there");
    all.replicas[0].signal(Signal::KILL);
    eventually("it is dead", SOON, || all.replicas[0].ended().is_some());
    // Whoever has worked before does so again.
    let last = "select count(*) from (select split_part(id, '-', 1), split_part(id, '-', 2) \
                from done group by 1, 2 having max(split_part(id, '-', 3)::int) > ";
    let at_work = |number: u32| -> u32 {
        all.pg.value(&format!("{last} {number}) as clients")).parse().expect("a number")
    };
    let most = "select max(split_part(id, '-', 3)::int) from done";
    let most: u32 = all.pg.value(most).parse().expect("a number");
    let limit = Duration::from_secs(60);
    eventually("all work on", limit, || at_work(most) == scale.clients);
    let seen = all.stop();
    let failed: u64 = seen.iter().map(|seen| seen.failed).sum();
    assert!(failed as f64 <= own, "{failed} clients saw an error, {own} were its own: {seen:?}");
}
