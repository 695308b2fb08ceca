//! A release of the chart under busy pools: install, a rotation, a switchover, a primary that dies,
//! an upgrade, a restart, `helm test`, uninstall. No application sees an error, but for the
//! transactions that die with the primary.
//!
//! `PGIMBAL_STORY_CLIENTS=300` is the whole scale, with the times that are the defaults.

use std::time::Instant;

use pgimbal_tests::busy_pool::{BusyPool, Seen};
use pgimbal_tests::cluster::End;
use pgimbal_tests::kubernetes::kubelet::Ended;
use pgimbal_tests::library::{go_clients, java, python};
use pgimbal_tests::program::run;
use pgimbal_tests::until::{SOON, eventually};
use serde_json::Value;

use super::primary_dies::{Lost, Readers, wait_for_the_standby};
use super::setup::{LIMIT, NAMESPACE, Setup};

/// The columns `held` and `rerun` of SHOW FAILOVERS ALL.
const HELD_AND_AGAIN: [usize; 2] = [7, 8];

/// The sizes and times of a run.
struct Scale {
    clients: u32,
    /// Seconds between two transactions of a client.
    pause: f64,
    grace: &'static str,
}

impl Scale {
    fn of_the_run() -> Self {
        let clients = std::env::var("PGIMBAL_STORY_CLIENTS").ok();
        match clients.map(|clients| clients.parse().expect("a number")) {
            None => Self { clients: 30, pause: 1.0, grace: "7s" },
            Some(clients) => Self { clients, pause: 1.0, grace: "25s" },
        }
    }
}

/// The platform with the release and its clients.
struct Story {
    setup: Setup,
    pools: Vec<BusyPool>,
    /// The node that is the primary.
    primary: usize,
    /// What the death of a primary did to each pool.
    lost: Vec<Lost>,
    begun: Instant,
}

impl Story {
    fn install(scale: &Scale) -> Self {
        let begun = Instant::now();
        let (setup, pools, lost) = (Setup::start(scale.grace), Vec::new(), Vec::new());
        let mut story = Self { setup, pools, primary: 0, lost, begun };
        story.tell("the platform is there");
        let notes = story.setup.helm(&["install", "pgimbal", "CHART"]);
        assert!(notes.contains("DB_HOST=pgimbal.dbaas.svc  DB_PORT=5432"), "{notes}");
        story.await_rollout();
        let proxy = &story.setup.nodes.proxy;
        eventually("the Service is served", LIMIT, || {
            proxy.local_port(NAMESPACE, "pgimbal", 5432).is_some()
                && story.setup.sql("scram", "app", "select 1").success
        });
        story.tell("it is installed");
        let port = proxy.local_port(NAMESPACE, "pgimbal", 5432).expect("a Service");
        let commands = [
            ("psycopg", python("busy_psycopg_pool.py")),
            ("hikari", java("BusyHikari", &[])),
            ("pgx", go_clients()),
        ];
        let password = story.setup.password("scram");
        let pools = commands.map(|(name, mut command)| {
            command.env("BUSY_USER", "scram").env("BUSY_PASSWORD", &password);
            BusyPool::start(name, command, port, scale.clients / 3, scale.pause)
        });
        story.pools = Vec::from(pools);
        story.pools.iter_mut().for_each(BusyPool::wait_until_busy);
        story.tell("the clients are busy");
        story
    }

    fn tell(&self, what: &str) {
        eprintln!("{:6.1} s: {what}", self.begun.elapsed().as_secs_f64());
    }

    fn await_rollout(&self) {
        let limit = format!("--timeout={}s", LIMIT.as_secs());
        drop(self.setup.kubectl(&["rollout", "status", "deployment/pgimbal", &limit]));
    }

    /// The pods of the Deployment that have ended since the install.
    fn ended(&self) -> Vec<Ended> {
        let ended = self.setup.nodes.kubelet.ended().into_iter();
        ended.filter(|it| !it.pod.ends_with("-test")).collect()
    }

    /// Waits until there are this many of them, all as they should be.
    fn await_ended(&self, count: usize) {
        eventually("the old pods have ended", LIMIT, || self.ended().len() >= count);
        for it in self.ended() {
            assert_eq!((it.code, it.was_killed), (0, false), "{}: {}", it.pod, it.log);
            let cut = it.log.contains("the last clients are cut off");
            assert!(!cut, "{}: {}", it.pod, it.log);
        }
    }

    /// The number of transactions that are in the table of the primary.
    fn rows(&self) -> u64 {
        let primary = &self.setup.cluster.nodes[self.primary];
        primary.value("select count(*) from done").parse().expect("a number")
    }

    /// Waits until the clients have done some more.
    fn await_work(&self) {
        let before = self.rows();
        eventually("the clients work on", LIMIT, || self.rows() > before + 30);
    }

    /// What the notes after the install say to type.
    fn check(&self) {
        let pod = self.setup.pods()[0]["metadata"]["name"].as_str().expect("a name").to_owned();
        let words = ["/usr/bin/pgimbal", "check", "--config", "/etc/pgimbal/config/pgimbal.toml"];
        let mut check = self.setup.nodes.kubelet.exec(NAMESPACE, &pod, &words);
        let told = run(&mut check, SOON * 4);
        // There are warnings: nothing here proves who the servers are.
        assert_eq!(told.code, Some(3), "{}{}", told.stdout, told.stderr);
        let is_known = |line: &&str| !line.contains("warning") || line.contains("sslmode");
        assert!(told.stdout.lines().all(|line| is_known(&line)), "{}", told.stdout);
        self.tell("pgimbal check finds no fault");
    }

    fn rotate(&self) {
        let before = self.setup.password("scram");
        let after = self.setup.vault.rotate("scram");
        assert_ne!(before, after);
        eventually("the new password is right", LIMIT, || {
            self.setup.sql("scram", "app", "select 1").success
        });
        self.await_work();
        self.tell("Vault has rotated the password");
    }

    fn switch_over(&mut self) {
        let console = |setup: &Setup, command: &str| {
            drop(setup.sql("operator", "pgimbal", command).succeeded());
        };
        console(&self.setup, "HOLD main");
        let nodes = &mut self.setup.cluster.nodes;
        eventually("no transaction is left", LIMIT, || {
            let open = "select count(*) from pg_stat_activity where usename = 'scram' and xact_start is not null";
            nodes[0].value(open) == "0"
        });
        nodes[0].end(End::Fast);
        nodes[1].promote();
        console(&self.setup, "RESUME main");
        self.primary = 1;
        self.await_work();
        self.tell("the standby is the primary");
    }

    /// Nobody announces it: SIGKILL for all processes of the primary, and then a promotion.
    fn primary_dies(&mut self) {
        self.setup.cluster.rejoin(0, 1);
        wait_for_the_standby(&self.setup.cluster.nodes[1]);
        self.assert_no_error();
        let readers = Readers::start(&self.setup, &self.setup.cluster.nodes[1]);
        self.setup.cluster.nodes[1].kill();
        self.setup.cluster.nodes[0].promote();
        self.primary = 0;
        self.await_work();
        self.tell("the primary was killed, and the standby is the primary");
        readers.finish(&self.setup);
        // A failover's effects are told once they are settled, some seconds after it.
        eventually("what waited and what ran again is told", LIMIT, || {
            self.seen_by_the_pods().iter().all(|count| *count > 0)
        });
        let [held, again] = self.seen_by_the_pods();
        self.tell(&format!("{held} transactions and statements waited, {again} ran again"));
        let primary = &self.setup.cluster.nodes[0];
        let lost = self.pools.iter().map(|pool| Lost::of(pool.name(), &pool.errors(), primary));
        self.lost = lost.collect();
    }

    /// How many transactions and statements the failovers held, and how many they ran again, in all
    /// pods together.
    fn seen_by_the_pods(&self) -> [u64; 2] {
        let told = self.setup.sql("operator", "pgimbal", "SHOW FAILOVERS ALL").succeeded().stdout;
        let rows: Vec<Vec<&str>> = told.lines().map(|row| row.split('|').collect()).collect();
        HELD_AND_AGAIN.map(|column| {
            rows.iter().map(|row| row[column].parse::<u64>().unwrap_or_default()).sum()
        })
    }

    fn assert_no_error(&self) {
        for pool in &self.pools {
            let errors = pool.errors();
            assert!(!errors.lines().any(|line| line.starts_with(pool.name())), "{errors}");
        }
    }

    fn roll(&self, what: &str, begin: impl FnOnce(&Setup)) {
        let names = |pods: Vec<Value>| -> Vec<Value> {
            pods.into_iter().map(|pod| pod["metadata"]["name"].clone()).collect()
        };
        let before = names(self.setup.pods());
        let ended = self.ended().len();
        begin(&self.setup);
        self.await_rollout();
        self.tell(&format!("{what}: the new pods are ready"));
        self.await_ended(ended + before.len());
        eventually("only new pods are left", LIMIT, || {
            let after = names(self.setup.pods());
            after.len() == 3 && after.iter().all(|name| !before.contains(name))
        });
        self.await_work();
        self.tell(&format!("{what}: the old pods have ended"));
    }

    /// Stops the clients. None has seen an error but those of the death of the primary, and what
    /// was acknowledged is there.
    fn stop(&mut self) {
        let seen: Vec<_> = self.pools.drain(..).map(BusyPool::stop).collect();
        for (Seen { name, acknowledged, errors, texts, .. }, lost) in seen.iter().zip(&self.lost) {
            assert_eq!(*errors, lost.count(), "{name}: the application saw\n{texts}");
            let count = format!("select count(*) from done where id like '{name}-%'");
            let rows = self.setup.cluster.nodes[self.primary].value(&count);
            let rows: u64 = rows.parse().expect("a number");
            let most = acknowledged + lost.unknown();
            assert!((*acknowledged..=most).contains(&rows), "{name}: {rows} of {acknowledged}");
            eprintln!("{name}: {acknowledged} transactions");
        }
    }

    fn uninstall(&self) {
        let ended = self.ended().len();
        drop(self.setup.helm(&["uninstall", "pgimbal"]));
        self.await_ended(ended + 3);
        let kinds = "deployments,replicasets,pods,services,endpointslices,roles,rolebindings,\
                     networkpolicies,poddisruptionbudgets,certificates,podmonitors,prometheusrules";
        eventually("nothing is left", LIMIT, || {
            self.setup.kubectl(&["get", kinds, "-o", "name"]).is_empty()
        });
        let secrets = self.setup.kubectl(&["get", "secrets", "-o", "name"]);
        assert!(secrets.contains("secret/pgimbal-store"), "it is to stay: {secrets}");
        let network = &self.setup.nodes.network;
        eventually("no network is left", SOON, || network.namespaces().is_empty());
        let backends = "select count(*) from pg_stat_activity where backend_type = 'client backend' \
                        and usename <> 'postgres'";
        let primary = &self.setup.cluster.nodes[self.primary];
        eventually("no connection is left", LIMIT, || primary.value(backends) == "0");
        self.tell("it is uninstalled");
    }
}

#[test]
fn no_application_sees_an_error_from_install_to_uninstall() {
    let scale = Scale::of_the_run();
    let mut story = Story::install(&scale);
    story.check();
    story.rotate();
    story.switch_over();
    story.primary_dies();
    story.roll("helm upgrade", |setup| {
        drop(setup.helm(&["upgrade", "pgimbal", "CHART", "--set", "config.pool_size=15"]));
    });
    story.roll("kubectl rollout restart", |setup| {
        drop(setup.kubectl(&["rollout", "restart", "deployment/pgimbal"]));
    });
    let told = story.setup.helm(&["test", "pgimbal"]);
    assert!(told.contains("Succeeded"), "{told}");
    story.tell("helm test has succeeded");
    story.stop();
    story.uninstall();
}
