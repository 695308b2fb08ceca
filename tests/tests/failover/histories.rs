//! Timelines and clusters that pgimbal remembers, and what the servers say of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use pgimbal_replicas::document::Document;
use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Login, Postgres};

use super::setup::Setup;

/// n4 streams from n3, which dies shortly after both have followed n2 to its timeline. Until its
/// next restartpoint n4 then tells of the timeline before.
#[test]
fn failover_a_cascaded_replica_keeps_its_timeline_when_its_upstream_dies() {
    // What the background writer writes would move the timeline in the control file.
    let mut cluster = Cluster::with(3, &["bgwriter_lru_maxpages=0"]);
    cluster.repoint(3, 2);
    let mut setup = Setup::with(cluster, |config| {
        config.tables("[databases.ro]\ncluster = \"c\"\ndbname = \"app\"\nroute = \"replica\"")
    });
    setup.cluster.nodes[0].kill();
    setup.cluster.nodes[1].promote();
    setup.wait_until_writable();
    setup.cluster.repoint(2, 1);
    setup.cluster.nodes[3].wait_until_streaming();
    let of_n4 = |setup: &Setup| ["state", "timeline"].map(|column| setup.node("n4", column));
    eventually("n4 has followed", SOON, || of_n4(&setup) == ["replica", "2"]);
    setup.cluster.nodes[2].kill();
    eventually("n4 itself tells the old one", SOON, || setup.cluster.nodes[3].timeline() == 1);
    let port = setup.cluster.nodes[3].port.to_string();
    let mut reader = setup.client("ro");
    always("it is read from", Duration::from_secs(2), || {
        std::thread::sleep(Duration::from_millis(50));
        of_n4(&setup) == ["replica", "2"] && reader.value("select current_setting('port')") == port
    });
}

/// The state of a pgimbal that has served another cluster, copied below `directory`.
fn state_of_another_cluster(directory: &Path) -> String {
    // The clusters of the tests are copies of one; this server is not.
    let other = Postgres::start();
    other.run("create role probe login password 'probe-secret'; grant pg_monitor to probe");
    let proxy = Config::before_name("localhost", other.port).with_state_dir().start();
    let copy = directory.join("another-state");
    fs::create_dir(&copy).expect("a directory");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).expect("a mode");
    let from = proxy.directory().join("state/store");
    eventually("it has stored its cluster", SOON, || stored_system(&from).is_some());
    fs::copy(from, copy.join("store")).expect("a copy");
    copy.display().to_string()
}

/// The system identifier of the cluster in the document of this file.
fn stored_system(path: &Path) -> Option<String> {
    let document = Document::parse(&fs::read(path).ok()?).ok()?;
    Some(document.cluster("c")?.history()?.system.to_string())
}

#[test]
fn failover_a_state_dir_of_another_cluster_is_named_and_an_operator_gets_out_of_it() {
    let cluster = Cluster::start(0);
    let state_dir = state_of_another_cluster(cluster.directory());
    let proxy = Config::before_cluster(&cluster)
        .cluster("failover_hold", "\"1s\"")
        .set("state_dir", format!("{state_dir:?}"))
        .start();
    let mut setup = Setup { cluster, proxy };
    setup.wait_for_state("n1", "foreign");
    let why = setup.node("n1", "why");
    let ours = setup.cluster.nodes[0].system_identifier();
    assert!(why.contains(&ours) && why.contains("say ADOPT NODE"), "{why}");
    assert!(!why.contains("pg_rewind"), "{why}");
    let refused = setup.proxy.connect().log_in(&Login::new("app", "app", "app-secret"));
    let messages = refused.expect_err("no server may serve it");
    let error = messages.last().expect("an answer").error();
    assert_eq!(error.code, "57P03", "{error:?}");
    assert!(error.message.contains("data of another cluster than was seen"), "{error:?}");
    assert!(error.message.contains("state_dir"), "{error:?}");
    assert!(error.fields[&'H'].contains("ADOPT NODE c.n1"), "{error:?}");
    assert!(!setup.is_writable());
    assert_eq!(setup.cluster.nodes[0].backends(), 0);
    let mut console = setup.proxy.log_in(&Login::new("app", "pgimbal", "app-secret"));
    console.ok("adopt node c.n1");
    setup.wait_until_writable();
    setup.client("app").ok("select 1");
    // It is this cluster's from now on.
    let stored = Path::new(&state_dir).join("store");
    assert_eq!(stored_system(&stored), Some(ours), "the operator was told when it was stored");
    setup.proxy.restart();
    setup.wait_until_writable();
    setup.client("app").ok("select 1");
}

/// Two pgimbals before one cluster that share a file.
#[test]
fn failover_hold_and_adopt_at_one_replica_hold_at_the_other_and_after_a_restart_of_both() {
    let shared = pgimbal_tests::process::directory("shared");
    fs::set_permissions(&*shared, fs::Permissions::from_mode(0o700)).expect("a mode");
    let path = shared.join("facts");
    let store = format!("[store]\nkind = \"file\"\nfile = \"{}\"\n", path.display());
    let mut one = Setup::with(Cluster::start(1), |config| {
        config.cluster("failover_hold", "\"1s\"").tables(&store)
    });
    let mut two = Config::before_cluster(&one.cluster)
        .cluster("failover_hold", "\"1s\"")
        .tables(&store)
        .start();
    let writable = |proxy: &pgimbal_tests::Pgimbal| {
        proxy.metrics().contains("pgimbal_cluster_writable{cluster=\"c\"} 1")
    };
    eventually("the other knows the primary", SOON, || writable(&two));
    let console = |proxy: &pgimbal_tests::Pgimbal, command: &str| {
        proxy.log_in(&Login::new("app", "pgimbal", "app-secret")).ok(command);
    };
    console(&one.proxy, "hold c");
    eventually("the other holds", SOON, || !writable(&two));
    one.proxy.restart();
    two.restart();
    for proxy in [&one.proxy, &two] {
        eventually("the log says why nobody can write", SOON, || {
            proxy.log().contains("an operator said HOLD before the start")
        });
    }
    always("both hold", Duration::from_secs(1), || {
        std::thread::sleep(Duration::from_millis(50));
        !writable(&two) && !one.is_writable()
    });
    console(&two, "resume c");
    one.wait_until_writable();
    eventually("the other goes on", SOON, || writable(&two));
    console(&two, "adopt node c.n1");
    let adopted = || {
        let document = Document::parse(&fs::read(&path).ok()?).ok()?;
        Some(document.cluster("c")?.history()?.adopted)
    };
    assert!(adopted().is_some_and(|adopted| adopted.counter > 0), "{:?}", adopted());
    eventually("it is known to the other", SOON, || {
        one.proxy.log().contains("a node was adopted at another replica")
    });
    // A promotion counts for both, and for the one that was away meanwhile.
    drop(two);
    one.cluster.nodes[0].kill();
    one.cluster.nodes[1].promote();
    one.wait_until_writable();
    eventually("the timeline is stored", SOON, || {
        let document = fs::read(&path).ok().and_then(|bytes| Document::parse(&bytes).ok());
        document.is_some_and(|document| {
            let history = document.cluster("c").and_then(|cluster| cluster.history().cloned());
            history.is_some_and(|history| history.timeline == 2)
        })
    });
}
