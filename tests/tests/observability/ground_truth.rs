//! A known load runs through three pgimbals that a real Prometheus scrapes, and each panel of the
//! dashboard and each recording rule says what the load did.

use std::collections::BTreeSet;

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::prometheus::{Prometheus, Sample, now};
use pgimbal_tests::sources::root;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::wire_client::cancel;
use pgimbal_tests::{Cluster, Deployment, Login, WireClient};

use super::queries::{Query, is_recorded_right, panels, records};

/// Panels of which this load leaves nothing to see, with the reason.
const WITHOUT_DATA: &[(&str, &str, &str)] =
    &[("Next rotation", "{{user}}", "a file does not say when its next password comes")];
/// Panels that show something where the machine sets a limit.
const OF_THE_MACHINE: &[(&str, &str)] =
    &[("Memory", "{{instance}}, limit"), ("Open files", "{{instance}}, limit")];

/// A primary and a standby, three pgimbals before them, and Prometheus.
struct Scene {
    prometheus: Prometheus,
    deployment: Deployment,
    cluster: Cluster,
    panels: Vec<Query>,
    records: Vec<Query>,
    /// Panels that have shown something, by title and legend.
    seen: BTreeSet<(String, String)>,
}

/// The time in which something has happened. It begins with the last scrape before, `from`, ends
/// with the first one behind, `to`, and nothing of what is counted has happened since `rest`.
#[derive(Clone, Copy)]
struct Span {
    rest: f64,
    from: f64,
    to: f64,
}

/// What a panel says of one series.
#[derive(Clone, Copy)]
enum Is {
    Exactly(f64),
    Within(f64, f64),
}

use Is::{Exactly, Within};

/// A line of what was done: title, legend, labels, value.
type Line<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Is);

impl Scene {
    fn start() -> Self {
        let cluster = Cluster::start(1);
        cluster.nodes[0].run("create role shop login password 'one'");
        cluster.settle(0);
        let file = cluster.directory().join("password");
        std::fs::write(&file, "one").unwrap();
        let config = Config::before_cluster(&cluster)
            .set("auth_type", "\"scram-sha-256\"")
            .set("max_replicas", 4)
            // Longer than a busy machine lets Prometheus take to see it.
            .set("query_wait_timeout", "\"10min\"")
            .cluster("failover_hold", "\"10min\"")
            .client_tls(&Certificates::new(), "allow")
            .tables("[databases.app_ro]\ncluster = \"c\"\ndbname = \"app\"\nroute = \"replica\"")
            .tables("[databases.pins]\ncluster = \"c\"\ndbname = \"app\"\nlisten_mode = \"pin\"")
            .tables(&format!("[users.shop]\npassword_file = \"{}\"", file.display()));
        let deployment = Deployment::start(config);
        let ports: Vec<u16> = deployment.replicas.iter().map(|one| one.http_port).collect();
        let rules = root().join("deploy/observability/rules.yaml");
        let prometheus = Prometheus::scraping(&ports, &rules);
        let (panels, records) = (panels(), records());
        Self { prometheus, deployment, cluster, panels, records, seen: BTreeSet::new() }
    }

    fn client(&self, replica: usize, database: &str) -> WireClient {
        let login = Login::new("app", database, "app-secret");
        let mut client = self.deployment.replicas[replica].log_in(&login);
        client.set_timeout(SOON * 4);
        client
    }

    fn shop(&self, password: &str) -> Result<(), ()> {
        let login = Login::new("shop", "app", password);
        self.deployment.replicas[1].connect().log_in(&login).map(drop).map_err(drop)
    }

    /// Each pool is used and has its server connections, and the password of `shop` has changed
    /// once, so that everything has a series.
    fn warm_up(&self) {
        for replica in 0..3 {
            eventually("the replica knows the nodes", SOON * 2, || {
                let page = self.deployment.replicas[replica].metrics();
                page.contains("state=\"primary\"") && page.contains("state=\"replica\"")
            });
            for database in ["app", "app_ro", "pins"] {
                let mut pair = [self.client(replica, database), self.client(replica, database)];
                pair.iter_mut().for_each(|client| drop(client.ok("begin")));
                pair.iter_mut().for_each(|client| drop(client.ok("commit")));
            }
        }
        assert_eq!(self.shop("one"), Ok(()));
        self.cluster.nodes[0].run("alter role shop password 'two'");
        self.cluster.settle(0);
        std::fs::write(self.cluster.directory().join("password"), "two").unwrap();
        eventually("the new password counts", SOON * 2, || self.shop("two").is_ok());
    }

    fn query(&self, title: &str, legend: &str) -> &Query {
        let mut all = self.panels.iter().chain(&self.records);
        let found = all.find(|query| query.title == title && query.legend == legend);
        found.unwrap_or_else(|| panic!("there is no {title}: {legend}"))
    }

    /// Whether a panel shows this now.
    fn shows(&self, line: Line<'_>) -> bool {
        let query = self.query(line.0, line.1).over(10.0);
        line.3.holds(find(&self.prometheus.at(&query, now()), line.2))
    }

    fn wait_until_it_shows(&self, lines: &[Line<'_>]) {
        for line in lines {
            let what = format!("{}: {} {:?} is {}", line.0, line.1, line.2, line.3.text());
            eventually(&what, SOON * 4, || self.shows(*line));
        }
    }

    /// Asserts what panels and rules have counted between two moments, exactly and as Grafana asks.
    fn has_counted(&self, span: Span, lines: &[Line<'_>]) {
        let Span { rest, from, to } = span;
        let window = to - rest;
        for (title, legend, labels, is) in lines {
            let query = self.query(title, legend);
            assert!(query.grows(), "{title}: {legend}");
            let exact = find(&self.prometheus.at(&query.growth(from, to), to), labels);
            let place = format!("{title}: {legend} {labels:?} is {exact:?}, not {}", is.text());
            assert!(is.holds(exact), "{place}");
            let Exactly(count) = is else { continue };
            // Rules have a window of their own.
            if title.starts_with("pgimbal:") {
                continue;
            }
            let shown = find(&self.prometheus.at(&query.over(window), to), labels);
            // Failovers are those of an hour.
            let shown =
                shown.unwrap_or_default() * if *title == "Failovers" { 1.0 } else { window };
            // Prometheus does not see what a series began with that is new, such as an error's, and
            // adds up to an interval at each end.
            let least = if *title == "Errors" { 0.0 } else { count * 0.99 };
            let is_right = (least - 1e-6..=count * 1.5 + 1e-6).contains(&shown);
            assert!(is_right, "{place}: over {window} s it is {shown}");
        }
    }

    /// Notes which panels show something now.
    fn look(&mut self, window: f64) {
        let now = now();
        for query in &self.panels {
            if !self.prometheus.at(&query.over(window), now).is_empty() {
                self.seen.insert((query.title.clone(), query.legend.clone()));
            }
        }
    }
}

impl Is {
    fn holds(self, value: Option<f64>) -> bool {
        let Some(value) = value else { return false };
        match self {
            Self::Exactly(expected) => (value - expected).abs() < 1e-6,
            Self::Within(least, most) => (least..=most).contains(&value),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Exactly(expected) => expected.to_string(),
            Self::Within(least, most) => format!("within {least} and {most}"),
        }
    }
}

/// The value of the only series that has all of these labels.
fn find(samples: &[Sample], labels: &[(&str, &str)]) -> Option<f64> {
    let has = |sample: &&Sample| {
        labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|is| is == value))
    };
    let found: Vec<&Sample> = samples.iter().filter(has).collect();
    match found[..] {
        [] => None,
        [one] => Some(one.value),
        _ => panic!("{labels:?} leave open which: {found:?}"),
    }
}

const APP: &[(&str, &str)] = &[("database", "app")];
const READS: &[(&str, &str)] = &[("database", "app_ro")];
const PINS: &[(&str, &str)] = &[("database", "pins")];
const C: &[(&str, &str)] = &[("cluster", "c")];
const BY_DATABASE: &str = "{{database}}";

/// Transactions of the database `app`: 300 and 100 reads, 50 blocks, 7 divisions by zero, 20 that
/// take 0.12 s, one that is cancelled, and 2 that are held and 6 that wait for them.
const TRANSACTIONS: f64 = 486.0;
/// A block has two queries more than a statement, and an empty one has one more.
const QUERIES: f64 = TRANSACTIONS + 50.0 * 2.0 + 2.0;

/// Runs what [`TRANSACTIONS`] lists but the waits, and reads, and logins that are refused.
fn work(scene: &Scene) {
    let (mut first, mut second) = (scene.client(0, "app"), scene.client(1, "app"));
    (0..300).for_each(|_| drop(first.ok("select 1")));
    (0..100).for_each(|_| drop(second.ok("select 1")));
    for _ in 0..50 {
        ["begin", "select 1", "commit"].iter().for_each(|sql| drop(first.ok(sql)));
    }
    for _ in 0..7 {
        assert_eq!(first.query("select 1/0").errors()[0].code, "22012");
    }
    (0..20).for_each(|_| drop(second.ok("select pg_sleep(0.12)")));
    let mut reader = scene.client(2, "app_ro");
    (0..30).for_each(|_| drop(reader.ok("select 1")));
    let mut slow = scene.client(0, "app");
    slow.start_query("select pg_sleep(120)");
    let primary = &scene.cluster.nodes[0];
    eventually("the query runs", SOON * 4, || primary.running("pg_sleep(120)") == 1);
    cancel(scene.deployment.replicas[0].port, &slow.key);
    assert_eq!(slow.read_reply().errors()[0].code, "57014");
    for _ in 0..5 {
        let wrong = Login::new("app", "app", "wrong");
        assert!(scene.deployment.replicas[0].connect().log_in(&wrong).is_err());
    }
    for _ in 0..2 {
        let unknown = Login::new("app", "nowhere", "app-secret");
        assert!(scene.deployment.replicas[2].connect().log_in(&unknown).is_err());
    }
    (0..4).for_each(|_| assert_eq!(scene.shop("two"), Ok(())));
    (0..3).for_each(|_| assert_eq!(scene.shop("one"), Ok(())));
}

/// Clients wait for server connections, and one for a place among the pinned; panels show it.
fn wait_in_line(scene: &mut Scene) {
    let mut holders = [scene.client(1, "app"), scene.client(1, "app")];
    let mut waiters = [0; 6].map(|_| scene.client(1, "app"));
    holders.iter_mut().for_each(|client| drop(client.ok("begin")));
    waiters.iter_mut().for_each(|client| client.start_query("select 1"));
    let (mut pinned, mut barred) = (scene.client(0, "pins"), scene.client(0, "pins"));
    pinned.ok("listen a_channel");
    barred.start_query("listen another");
    let listen = &[("reason", "listen")][..];
    let pool = &[("database", "app"), ("user", "app")][..];
    scene.wait_until_it_shows(&[
        ("Clients that wait", "waiting", &[], Exactly(7.0)),
        ("Clients", "waiting", &[], Exactly(7.0)),
        ("Clients", "waiting for a place among the pinned", &[], Exactly(1.0)),
        ("Clients", "active", &[], Exactly(3.0)),
        ("Clients", "idle", &[], Exactly(0.0)),
        ("Clients connected", "clients", &[], Exactly(10.0)),
        ("Server connections", "active", &[], Exactly(3.0)),
        ("Longest wait", "{{database}} {{user}}", pool, Within(0.2, 600.0)),
        ("Pinned clients", "{{reason}}", listen, Exactly(1.0)),
        ("Longest pin", "{{reason}}", listen, Within(0.2, 600.0)),
    ]);
    scene.look(10.0);
    holders.iter_mut().for_each(|client| drop(client.ok("commit")));
    waiters.iter_mut().for_each(|client| assert_eq!(client.read_reply().value(), "1"));
    pinned.ok("unlisten *");
    assert_eq!(barred.read_reply().commands(), ["LISTEN"]);
}

/// What the load has done, as the panels and the rules should say.
fn counted(scene: &Scene, span: Span) {
    let all = TRANSACTIONS + 30.0 + 3.0;
    let app = &[("database", "app"), ("sqlstate", "22012")][..];
    let count = |title, labels, n| (title, BY_DATABASE, labels, Exactly(n));
    let record = |title, labels, n| (title, "", labels, Exactly(n));
    scene.has_counted(
        span,
        &[
            ("Transactions a second", "transactions", &[], Exactly(all)),
            count("Transactions", APP, TRANSACTIONS),
            count("Transactions", READS, 30.0),
            count("Transactions", PINS, 3.0),
            count("Queries", APP, QUERIES),
            count("Queries", READS, 30.0),
            count("Reads on replicas", READS, 30.0),
            count("Reads on replicas", APP, 0.0),
            // Three in `work`, eight in line, and seven of `shop`.
            count("Sessions", APP, 18.0),
            count("Sessions", PINS, 2.0),
            count("Waits a second", APP, 6.0),
            record("pgimbal:transactions:rate5m", APP, TRANSACTIONS),
            record("pgimbal:queries:rate5m", APP, QUERIES),
            record("pgimbal:errors:rate5m", app, 7.0),
            record("pgimbal:logins:rate5m", &[("result", "succeeded")], 21.0),
            ("pgimbal:servers_held:avg5m", "", APP, Within(2.4, 1200.0)),
        ],
    );
    let result = |word| (("Logins of clients", "{{result}}"), word);
    let logins = [("succeeded", 21.0), ("authentication_failed", 5.0), ("unknown_database", 2.0)];
    for (((title, legend), word), n) in logins.map(|(word, n)| (result(word), n)) {
        scene.has_counted(span, &[(title, legend, &[("result", word)], Exactly(n))]);
    }
    for (code, n) in [("22012", 7.0), ("57014", 1.0)] {
        let labels = &[("sqlstate", code)];
        scene.has_counted(span, &[("Errors", "{{sqlstate}}", labels, Exactly(n))]);
    }
    for (word, n) in [("newest", 4.0), ("previous", 3.0), ("older", 0.0)] {
        let labels = &[("generation", word)];
        let line = ("Logins by generation", "{{generation}}", &labels[..], Exactly(n));
        scene.has_counted(span, &[line]);
    }
    scene.has_counted(
        span,
        &[
            // And one connection that asked for the cancel.
            ("Connections accepted and turned away", "accepted", &[], Exactly(29.0)),
            ("Cancel requests", "from clients", &[], Exactly(1.0)),
            ("Cancel requests", "to servers", &[], Exactly(1.0)),
            // Each query has 9 bytes more than a `select 1` of 14.
            ("Bytes from and to clients", "received", &[], Within(all * 14.0, 1e6)),
            ("Bytes from and to clients", "sent", &[], Within(all * 30.0, 1e6)),
            ("Bytes from and to servers", "sent", &[], Within(all * 14.0, 1e6)),
            ("Bytes from and to servers", "received", &[], Within(all * 30.0, 1e6)),
        ],
    );
}

/// One in twenty transactions takes 0.12 s and more, and one in eighty waits; the others are short.
fn latencies(scene: &Scene, span: Span) {
    for (title, legend, is) in [
        ("Transactions, percentiles", "50 %", Within(0.0, 0.1)),
        ("Transactions, percentiles", "99 %", Within(0.1, 600.0)),
        ("Queries, percentiles", "50 %", Within(0.0, 0.1)),
        ("Queries, percentiles", "99 %", Within(0.1, 600.0)),
        ("Waits, percentiles", "50 %", Within(0.0, 0.0001)),
        ("Waits, percentiles", "99 %", Within(0.1, 600.0)),
        ("Logins, percentiles", "99 %", Within(0.0, 600.0)),
    ] {
        scene.has_counted(span, &[(title, legend, &[], is)]);
    }
    let title = "pgimbal:transaction_seconds:p99_5m";
    scene.has_counted(span, &[(title, "", APP, Within(0.1, 600.0))]);
    scene.has_counted(span, &[("pgimbal:wait_seconds:p99_5m", "", APP, Within(0.1, 600.0))]);
}

/// The state of everything while nothing happens.
fn at_rest(scene: &Scene) {
    let node = |name, state| [("node", name), ("state", state)];
    let what = "{{cluster}} {{node}}: {{state}}";
    scene.wait_until_it_shows(&[
        ("Ready", "ready", &[], Exactly(3.0)),
        ("Clusters without a primary", "clusters", &[], Exactly(0.0)),
        ("Alerts", "alerts", &[], Exactly(0.0)),
        ("Writable", "{{cluster}}", C, Exactly(1.0)),
        ("Nodes", what, &node("n1", "primary"), Exactly(1.0)),
        ("Nodes", what, &node("n2", "replica"), Exactly(1.0)),
        ("Nodes that answer", "{{cluster}} {{node}}", &[("node", "n2")], Exactly(1.0)),
        ("Timelines", "{{cluster}} {{node}}", &[("node", "n1")], Exactly(1.0)),
        ("Age", "{{user}}", &[("user", "shop")], Within(0.0, 600.0)),
        ("Workers", "workers", &[], Exactly(3.0)),
        ("Versions", "{{version}}", &[], Exactly(3.0)),
        ("Certificates end in", "{{option}}", &[], Within(86_400.0, 1e12)),
    ]);
    for replica in &scene.deployment.replicas {
        let instance = format!("127.0.0.1:{}", replica.http_port);
        let of = &[("instance", instance.as_str())][..];
        scene.wait_until_it_shows(&[
            ("Peers", "{{instance}} hears", of, Exactly(2.0)),
            ("Peers", "{{instance}}: silent", of, Exactly(0.0)),
            ("Store", "{{instance}}", of, Exactly(1.0)),
            ("Memory", "{{instance}}", of, Within(1e6, 1e9)),
            ("Open files", "{{instance}}", of, Within(10.0, 1000.0)),
        ]);
    }
}

/// The primary dies while two clients are about to ask, and the standby is promoted.
fn fail_over(scene: &mut Scene, rest: f64) {
    let mut clients = [scene.client(0, "app"), scene.client(0, "app")];
    let from = scene.prometheus.settled();
    scene.cluster.nodes[0].kill();
    scene.wait_until_it_shows(&[
        ("Writable", "{{cluster}}", C, Exactly(0.0)),
        ("Clusters without a primary", "clusters", &[], Exactly(1.0)),
    ]);
    eventually("the alert is on its way", SOON * 4, || {
        let alerts = scene.prometheus.at("ALERTS{cluster=\"c\"}", now());
        let labels = [("alertname", "PgimbalNotWritable"), ("severity", "critical")];
        find(&alerts, &labels) == Some(1.0)
    });
    clients.iter_mut().for_each(|client| client.start_query("select 1"));
    scene.wait_until_it_shows(&[("Clients", "waiting", &[], Exactly(2.0))]);
    scene.cluster.nodes[1].promote();
    clients.iter_mut().for_each(|client| assert_eq!(client.read_reply().value(), "1"));
    let state = |name, state| [("node", name), ("state", state)];
    let what = "{{cluster}} {{node}}: {{state}}";
    scene.wait_until_it_shows(&[
        ("Writable", "{{cluster}}", C, Exactly(1.0)),
        ("Nodes", what, &state("n1", "down"), Exactly(1.0)),
        ("Nodes", what, &state("n2", "primary"), Exactly(1.0)),
        ("Nodes that answer", "{{cluster}} {{node}}", &[("node", "n1")], Exactly(0.0)),
        ("Timelines", "{{cluster}} {{node}}", &[("node", "n2")], Exactly(2.0)),
    ]);
    let span = Span { rest, from, to: scene.prometheus.settled() };
    scene.has_counted(
        span,
        &[
            ("Failovers", "{{cluster}}", C, Exactly(1.0)),
            ("What failovers meant to clients", "waited", &[], Exactly(2.0)),
            ("What failovers meant to clients", "run again", &[], Exactly(0.0)),
            ("What failovers meant to clients", "told an error", &[], Exactly(0.0)),
            ("What failovers meant to clients", "outcome unknown", &[], Exactly(0.0)),
        ],
    );
    scene.look(30.0);
}

#[test]
fn panels_and_rules_say_what_a_load_has_done() {
    let mut scene = Scene::start();
    scene.warm_up();
    let rest = scene.prometheus.settled();
    at_rest(&scene);
    let from = scene.prometheus.settled();
    work(&scene);
    wait_in_line(&mut scene);
    let span = Span { rest, from, to: scene.prometheus.settled() };
    counted(&scene, span);
    latencies(&scene, span);
    scene.look(span.to - rest);
    for record in &scene.records {
        eventually(&format!("{} is right", record.title), SOON * 4, || {
            is_recorded_right(&scene.prometheus, record)
        });
    }
    fail_over(&mut scene, span.to);
    let all = scene.panels.iter().map(|query| (query.title.clone(), query.legend.clone()));
    let is_of_the_machine = |panel: &(String, String)| {
        OF_THE_MACHINE.iter().any(|(title, legend)| panel.0 == *title && panel.1 == *legend)
    };
    let unseen = all.filter(|panel| !scene.seen.contains(panel) && !is_of_the_machine(panel));
    let known: Vec<_> = WITHOUT_DATA
        .iter()
        .map(|(title, legend, _)| ((*title).to_owned(), (*legend).to_owned()))
        .collect();
    assert_eq!(unseen.collect::<Vec<_>>(), known, "panels without data");
}
