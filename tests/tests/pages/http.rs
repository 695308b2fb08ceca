//! The port for HTTP as docs/operations.md shows it: metrics, tokens by curl, a Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::ops::Deref;
use std::time::{Duration, Instant};

use pgimbal_tests::certificates::Certificates;
use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::pages::{Reader, block, page, with_own};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::port::free_port;
use pgimbal_tests::sources::root;
use pgimbal_tests::until::SOON;
use pgimbal_tests::{Deployment, Login, Pgimbal, Postgres, WireClient};
use serde_json::Value;

const PAGE: &str = "docs/operations.md";
const VIEW: &str = "a-token-for-those-who-look";
const ADMIN: &str = "a-token-for-those-who-act";

/// A scraper of the page.
struct Curl<'a> {
    proxy: &'a Pgimbal,
    command: String,
}

impl<'a> Curl<'a> {
    fn new(proxy: &'a Pgimbal, command: &str) -> Self {
        Self { proxy, command: command.trim_end().to_owned() }
    }

    /// The status and the body of the answer to the page's command for `path` with `token`.
    fn gets(&self, path: &str, token: &str) -> (String, String) {
        let address = format!("127.0.0.1:{}", self.proxy.http_port);
        let own = [("127.0.0.1:9127", address.as_str()), ("/api/tables", path)];
        // Quoted, as a shell takes ? and & for its own.
        let command = with_own(&self.command, &own).replace("http://", "'http://");
        let reader = Reader::new().with("TOKEN", token);
        let finished = reader.types(&format!("{command}' -sS -w '\\n%{{http_code}}'")).succeeded();
        let (body, status) = finished.stdout.rsplit_once('\n').expect("a status");
        (status.to_owned(), body.to_owned())
    }
}

/// The paths under `/api/` that the page names, with their queries.
fn paths() -> BTreeSet<String> {
    let text = page(PAGE);
    let words = text.split(|c: char| c.is_whitespace() || c == '`' || c == '(');
    let paths = words.filter(|word| word.starts_with("/api/"));
    let mut paths: BTreeSet<String> = paths.map(str::to_owned).collect();
    let query = text.split('`').find(|span| span.starts_with("?database=")).expect("a query");
    assert!(paths.remove("/api/history"), "{paths:?}");
    paths.insert(format!("/api/history{query}"));
    paths
}

pub(super) fn tokens([command]: [&str; 1]) {
    let pg = Postgres::start();
    let proxy = Config::before(&pg)
        .tables(&format!("[http]\ntoken = \"{VIEW}\"\nadmin_token = \"{ADMIN}\""))
        .start();
    proxy.client().ok("select 1");
    let curl = Curl::new(&proxy, command);
    let paths = paths();
    assert!(paths.len() >= 4, "{paths:?}");
    for path in &paths {
        for token in [VIEW, ADMIN] {
            let (status, body) = curl.gets(path, token);
            assert_eq!(status, "200", "{path}: {body}");
            let json: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}"));
            assert!(json.is_object(), "{path}: {json}");
        }
    }
    // Ten wrong tokens within a minute, after which the right one is not looked at either.
    for (count, path) in paths.iter().cycle().take(10).enumerate() {
        let (status, body) = curl.gets(path, &format!("a-wrong-token-{count}-of-17-bytes"));
        assert_eq!(status, "401", "wrong token {count} at {path}: {body}");
    }
    for path in &paths {
        let (status, body) = curl.gets(path, VIEW);
        assert_eq!(status, "429", "{path}: {body}");
    }
    let log = proxy.log();
    assert!(!log.contains(VIEW) && !log.contains("a-wrong-token"), "{log}");
}

#[test]
fn a_running_pgimbal_serves_each_metric_family_of_the_page() {
    let text = page(PAGE);
    let (_, metrics) = text.split_once("\n## Metrics\n").expect("a chapter");
    let (metrics, _) = metrics.split_once("\n## ").expect("another chapter");
    let first_cells = metrics.lines().filter(|line| line.starts_with("| `pgimbal_"));
    let first_cells = first_cells.filter_map(|line| line.trim_matches('|').split(" | ").next());
    let families: BTreeSet<&str> = first_cells
        .flat_map(|cell| cell.split('`').filter(|name| name.starts_with("pgimbal_")))
        .collect();
    assert!(families.len() > 80, "{families:?}");
    // The control group may have no limit; only a Vault tells when it rotates (rotation.rs); and
    // nothing is routed by what it says where no route is `auto` (reads/placing.rs).
    let conditional = [
        "pgimbal_memory_limit_bytes",
        "pgimbal_credential_next_rotation_seconds",
        "pgimbal_routed_total",
    ];
    assert!(conditional.iter().all(|family| families.contains(family)));
    let deployment = with_something_of_everything();
    let missing = || -> Vec<&str> {
        let served: Vec<String> = deployment.replicas.iter().map(Pgimbal::metrics).collect();
        let served: BTreeSet<&str> = served.iter().flat_map(|page| types(page)).collect();
        let missing = families.iter().filter(|family| !served.contains(*family));
        missing.copied().filter(|family| !conditional.contains(family)).collect()
    };
    let start = Instant::now();
    while !missing().is_empty() && start.elapsed() < SOON {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(missing(), [""; 0], "families that are not served");
}

/// The families of a page that Prometheus reads.
fn types(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
}

/// Replicas before a cluster, in whose metrics every family has a reason to be.
fn with_something_of_everything() -> Everything {
    let cluster = Cluster::start(1);
    cluster.nodes[0].run("create role turning login password 'first'");
    cluster.settle(0);
    let file = cluster.directory().join("turning");
    fs::write(&file, "first").expect("a file");
    let config = Config::before_cluster(&cluster)
        .set("auth_type", "\"scram-sha-256\"")
        .set("max_replicas", 4)
        .client_tls(&Certificates::new(), "prefer")
        .tables(&format!("[users.turning]\npassword_file = {:?}", file.display().to_string()));
    let deployment = Deployment::start(config);
    let proxy = &deployment.replicas[0];
    let mut client = proxy.log_in(&Login::new("turning", "app", "first"));
    client.ok("do $$ begin end $$");
    assert_eq!(client.query("select 1/0").errors().len(), 1);
    let mut pinned = proxy.client();
    pinned.ok("create temp table mine (x int)");
    let _ = proxy.console("hold c");
    let _ = proxy.console("resume c");
    // Somebody who does not belong to the deployment.
    let mut stranger = TcpStream::connect(deployment.link(1, 0).address).expect("a relay");
    stranger.write_all(b"hello\n").expect("a relay");
    Everything { deployment, _clients: [client, pinned], _cluster: cluster }
}

/// What must be there while the metrics are read.
struct Everything {
    deployment: Deployment,
    _clients: [WireClient; 2],
    _cluster: Cluster,
}

impl Deref for Everything {
    type Target = Deployment;

    fn deref(&self) -> &Deployment {
        &self.deployment
    }
}

pub(super) fn prometheus([text]: [&str; 1]) {
    let rules = root().join("deploy/observability/rules.yaml").display().to_string();
    let target = format!("127.0.0.1:{}", free_port());
    let own = [("/etc/prometheus/pgimbal/rules.yaml", rules.as_str()), ("10.0.0.4:9127", &target)];
    let reader = Reader::new();
    reader.write("prometheus.yml", &with_own(text, &own));
    let checked = reader.types("promtool check config prometheus.yml").succeeded();
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(said.contains("1 rule files found") && said.contains("rules found"), "{said}");
    assert!(block(PAGE, "rule_files: ").contains("job_name: pgimbal"));
}
