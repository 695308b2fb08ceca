//! docs/failover.md before a real cluster: the page's configuration, and a switchover that nobody
//! sees.

use pgimbal_tests::cluster::{Cluster, End};
use pgimbal_tests::pages::{Reader, with_own};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, WireClient};

use super::running::Running;

pub(super) fn switchover([configuration, commands]: [&str; 2]) {
    let mut cluster = Cluster::start(2);
    cluster.nodes[0].run("create table t (x int); grant all on t to app");
    cluster.settle(0);
    let reader = Reader::new().with("PGPASSWORD", "app-secret");
    let running = Running::start(&reader, &of_cluster(&reader, configuration, &cluster));
    let mut writer = WireClient::tcp(running.port);
    writer.log_in(&Login::new("app", "app", "app-secret")).expect("a login");
    let mut on_replica = WireClient::tcp(running.port);
    on_replica.log_in(&Login::new("app", "app_ro", "app-secret")).expect("a login");
    assert_eq!(writer.value("select pg_is_in_recovery()"), "f");
    assert_eq!(on_replica.value("select pg_is_in_recovery()"), "t");

    let [hold, by_hand, resume] = commands.lines().collect::<Vec<_>>()[..] else {
        panic!("{commands}")
    };
    // The rest of the line says what it does.
    let hold = hold.split_once('#').expect("a remark").0.trim_end();
    let _ = reader.types(&running.psql("app", "pgimbal", hold)).succeeded();
    writer.start_query("insert into t values (1)");
    let nodes = running.psql("app", "pgimbal", "SHOW NODES");
    let shown = reader.types(&nodes).succeeded().stdout;
    assert!(shown.contains("writes wait"), "{shown}");
    assert_eq!(by_hand, "-- stop the old primary, promote the new one");
    cluster.nodes[0].end(End::Fast);
    cluster.nodes[1].promote();
    let address = format!(":{} ", cluster.nodes[1].port);
    let is_primary = |line: &str| line.contains(&address) && line.contains("| primary ");
    eventually("the new primary is seen", SOON, || {
        reader.types(&nodes).succeeded().stdout.lines().any(is_primary)
    });
    let _ = reader.types(&running.psql("app", "pgimbal", resume)).succeeded();
    assert_eq!(writer.read_reply().commands(), ["INSERT 0 1"], "it waits and is written once");
    assert_eq!(cluster.nodes[1].value("select count(*) from t"), "1");
    let failovers = running.psql("app", "pgimbal", "SHOW FAILOVERS");
    let shown = reader.types(&failovers).succeeded().stdout;
    assert!(shown.contains("(1 row)"), "{shown}");
}

/// The page's configuration before the nodes of `cluster`.
fn of_cluster(reader: &Reader, configuration: &str, cluster: &Cluster) -> String {
    let state = reader.home().join("state").display().to_string();
    let nodes: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| format!("host = \"{}\"\nport = {}", node.host, node.port))
        .collect();
    let own = [
        ("/var/lib/pgimbal", state.as_str()),
        ("…", "probe-secret"),
        ("host = \"10.0.0.1\"", &nodes[0]),
        ("host = \"10.0.0.2\"", &nodes[1]),
        ("host = \"10.9.0.1\"", &nodes[2]),
    ];
    let text = with_own(configuration, &own);
    format!("admin_users = [\"app\"]\n{text}[users.app]\npassword = \"app-secret\"\n")
}
