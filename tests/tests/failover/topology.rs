//! Which node is written to: quarantine, split brain, foreign nodes, and what the operator says.

use std::time::Duration;

use pgimbal_tests::cluster::{Cluster, End};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Login, Postgres, WireClient};

use super::rows::refusal;
use super::setup::Setup;

const INSERT: &str = "insert into writes values ('x')";

fn logged_in_order(setup: &Setup, texts: &[&str]) {
    let log = setup.proxy.log();
    let mut rest = log.as_str();
    for text in texts {
        let (_, after) = rest.split_once(text).unwrap_or_else(|| panic!("no {text:?} in\n{rest}"));
        rest = after;
    }
}

#[test]
fn failover_an_old_primary_is_quarantined_until_it_has_rejoined() {
    let mut setup = Setup::start();
    let mut client = setup.client("app");
    client.ok(INSERT);
    setup.cluster.settle(0);
    setup.cluster.nodes[0].kill();
    setup.wait_until_held();
    client.start_query(INSERT);
    setup.cluster.nodes[1].promote();
    client.read_reply().no_error();
    assert_eq!(setup.node("n2", "role"), "primary");
    assert_eq!(setup.node("n2", "timeline"), "2");
    setup.cluster.nodes[0].start();
    setup.wait_for_state("n1", "quarantined");
    assert!(setup.node("n1", "why").contains("pg_rewind"), "{}", setup.node("n1", "why"));
    always("it stays out", Duration::from_millis(500), || {
        client.ok(INSERT);
        setup.cluster.nodes[0].backends() == 0
    });
    setup.cluster.rejoin(0, 1);
    setup.wait_for_state("n1", "replica");
    assert_eq!(setup.node("n1", "role"), "replica");
    logged_in_order(
        &setup,
        &[
            "primary n1 lost",
            "holding writes",
            "n2 is promoted",
            "switched from n1 to n2",
            "n1 is quarantined",
            "n1 has rejoined",
        ],
    );
    let failovers = setup.proxy.console("show failovers");
    let cell = |name: &str| {
        let found = failovers[0].iter().find(|(column, _)| column == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    assert_eq!(failovers.len(), 1, "{failovers:?}");
    assert_eq!(
        [cell("cluster"), cell("from"), cell("to"), cell("timeline")],
        ["c", "n1", "n2", "2"]
    );
    assert_eq!([cell("held"), cell("failed")], ["1", "0"], "{failovers:?}");
    assert!(cell("duration_ms").parse::<u64>().is_ok_and(|ms| ms > 0), "{failovers:?}");
    assert_eq!(setup.metric("pgimbal_failovers_total{cluster=\"c\"}"), "1");
}

#[test]
fn failover_two_primaries_on_one_timeline_stop_writes() {
    let mut setup = Setup::before(Cluster::start(2));
    let (mut client, mut waits) = (setup.client("app"), setup.client("app"));
    setup.cluster.nodes[0].kill();
    setup.wait_until_held();
    waits.start_query("select 1");
    let both = [&setup.cluster.nodes[1], &setup.cluster.nodes[2]];
    std::thread::scope(|scope| {
        for node in both {
            scope.spawn(|| node.promote());
        }
    });
    assert_eq!(both.map(|node| node.timeline()), [2, 2]);
    let code = || client.query(INSERT).errors().first().map(|error| error.code.clone());
    let mut code = code;
    eventually("writes are refused", SOON, || code().as_deref() == Some("57P03"));
    let reply = client.query(INSERT);
    refusal(&reply, "57P03", 'I');
    let text = &reply.errors()[0].message;
    assert!(text.contains("n2") && text.contains("n3") && text.contains("timeline 2"), "{text}");
    // Either it was served before the second was promoted, or it is told as the others are.
    let reply = waits.read_reply();
    assert!(reply.errors().iter().all(|error| error.code == "57P03"), "{reply:?}");
    always("writes stay refused", Duration::from_millis(500), || {
        client.query("select 1").errors().iter().any(|error| error.code == "57P03")
    });
    logged_in_order(&setup, &["split brain"]);
    // What the alert PgimbalTwoPrimaries goes by.
    assert_eq!(setup.metric("pgimbal_cluster_writable{cluster=\"c\"}"), "0");
    let page = setup.proxy.metrics();
    let primaries = page.lines().filter(|line| line.contains("state=\"primary\""));
    assert_eq!(primaries.count(), 2, "{page}");
    setup.cluster.nodes[2].end(End::Fast);
    eventually("writes go on", SOON, || client.query(INSERT).errors().is_empty());
    assert_eq!(waits.value("select 1"), "1");
    assert_ne!(setup.count(1, "x"), "0");
}

#[test]
fn failover_a_node_of_another_cluster_is_refused_by_name() {
    let foreign = Postgres::start();
    foreign.run("create role probe login password 'probe-secret'; grant pg_monitor to probe");
    let setup = Setup::with(Cluster::start(1), |config| {
        config
            .node("stranger", "127.0.0.1", foreign.port)
            .tables("[databases.ro]\ncluster = \"c\"\ndbname = \"app\"\nroute = \"replica\"")
    });
    setup.wait_for_state("stranger", "foreign");
    let ours = setup.cluster.nodes[0].system_identifier();
    let theirs = foreign.value("select system_identifier from pg_control_system()");
    assert_ne!(ours, theirs);
    let why = setup.node("stranger", "why");
    assert!(why.contains(&ours) && why.contains(&theirs), "{why}");
    assert!(setup.proxy.log().contains("stranger"), "the log names it");
    let port = setup.cluster.nodes[1].port.to_string();
    setup.wait_for_state("n2", "replica");
    let mut reader = setup.client("ro");
    always("nobody reads there", Duration::from_millis(300), || {
        reader.value("select current_setting('port')") == port
    });
    assert_eq!(foreign.logged("user=app"), 0);
}

#[test]
fn failover_a_node_that_is_no_candidate_is_never_written_to() {
    let node = |cluster: &Cluster| {
        let port = cluster.nodes[1].port;
        format!("{{ host = \"127.0.0.1\", port = {port}, candidate = false }}")
    };
    let cluster = Cluster::start(1);
    let value = node(&cluster);
    let mut setup = Setup::with(cluster, |config| {
        config.cluster("nodes.n2", value).cluster("failover_hold", "\"1s\"")
    });
    let mut client = setup.client("app");
    client.ok(INSERT);
    setup.cluster.settle(0);
    setup.cluster.nodes[0].kill();
    setup.cluster.nodes[1].promote();
    refusal(&client.query(INSERT), "57P03", 'I');
    assert!(!setup.is_writable());
    assert_eq!(setup.cluster.nodes[1].backends(), 0);
    assert_eq!(setup.count(1, "x"), "1");
}

#[test]
fn failover_two_names_of_one_server_are_no_split_brain() {
    let cluster = Cluster::start(1);
    let port = cluster.nodes[0].port;
    let setup = Setup::with(cluster, |config| config.node("again", "localhost", port));
    eventually("both names are asked", SOON, || setup.node("again", "role") == "primary");
    let mut client = setup.client("app");
    always("it is written to", Duration::from_millis(500), || {
        client.query(INSERT).errors().is_empty()
    });
    assert!(!setup.proxy.log().contains("split brain"));
}

#[test]
fn failover_a_node_that_refuses_the_prober_lives_but_is_not_checked() {
    let cluster = Cluster::start(1);
    let proxy = Config::before_cluster(&cluster)
        .cluster("probe_user", "\"scram\"")
        .cluster("probe_password", "\"wrong\"")
        .start();
    let setup = Setup { cluster, proxy };
    for node in ["n1", "n2"] {
        setup.wait_for_state(node, "probe_refused");
        assert!(setup.node(node, "why").contains("28P01"), "{}", setup.node(node, "why"));
    }
    assert!(!setup.is_writable());
}

/// n1 on timeline 1 is left, after a pgimbal that keeps its state has seen timeline 2.
fn left_on_a_lower_timeline(keeps_state: bool) -> Setup {
    let mut setup = Setup::with(Cluster::start(1), |config| {
        let config = config.cluster("failover_hold", "\"1s\"");
        if keeps_state { config.with_state_dir() } else { config }
    });
    setup.cluster.nodes[0].kill();
    setup.cluster.nodes[1].promote();
    let mut client = setup.client("app");
    client.ok(INSERT);
    setup.cluster.nodes[1].kill();
    setup.cluster.nodes[0].start();
    setup.proxy.restart();
    setup
}

#[test]
fn failover_the_highest_timeline_outlives_a_restart_and_the_operator_adopts_another() {
    let setup = left_on_a_lower_timeline(true);
    setup.wait_for_state("n1", "quarantined");
    assert!(!setup.is_writable());
    assert!(setup.node("n1", "why").contains("say ADOPT NODE"), "{}", setup.node("n1", "why"));
    assert!(!setup.node("n1", "why").contains("pg_rewind"), "{}", setup.node("n1", "why"));
    // Nobody can log in while no server has ever answered, and is told the way out; the console
    // can.
    let refused = setup.proxy.connect().log_in(&Login::new("app", "app", "app-secret"));
    let messages = refused.expect_err("there is no server");
    let error = messages.last().expect("an answer").error();
    assert_eq!(error.code, "57P03", "{error:?}");
    assert!(error.message.contains("older timeline than was seen"), "{error:?}");
    assert!(error.fields[&'H'].contains("ADOPT NODE c.n1"), "{error:?}");
    let mut console = setup.proxy.log_in(&Login::new("app", "pgimbal", "app-secret"));
    assert_eq!(setup.cluster.nodes[0].backends(), 0);
    console.ok("adopt node c.n1");
    setup.wait_until_writable();
    setup.client("app").ok(INSERT);
    assert_eq!(setup.count(0, "x"), "1");
    logged_in_order(&setup, &["n1 is quarantined", "n1 adopted"]);
}

#[test]
fn failover_without_a_state_dir_a_restart_forgets_the_timeline() {
    let setup = left_on_a_lower_timeline(false);
    setup.wait_until_writable();
    setup.client("app").ok(INSERT);
    assert_eq!(setup.count(0, "x"), "1");
}

#[test]
fn failover_a_planned_switchover_shows_nobody_an_error() {
    let mut setup = Setup::start();
    let mut clients: Vec<WireClient> = (0..4).map(|_| setup.client("app")).collect();
    let mut block = setup.client("app");
    block.ok("begin");
    block.ok("insert into writes values ('in a block')");
    let mut console = setup.proxy.log_in(&Login::new("app", "pgimbal", "app-secret"));
    console.ok("hold c");
    for client in &mut clients {
        client.start_query("insert into writes values ('held')");
    }
    setup.proxy.wait_for_waiting(4);
    assert_eq!(crate::failover::ready(&setup.proxy), 200, "ready in a hold");
    // What runs may end.
    assert_eq!(block.ok("commit").commands(), ["COMMIT"]);
    let mut late = setup.client("app");
    late.start_query("select 'late'");
    setup.cluster.settle(0);
    setup.cluster.nodes[0].end(End::Fast);
    setup.cluster.nodes[1].promote();
    setup.wait_for_state("n2", "primary");
    // Each worker counts its clients behind the news of the new primary, and all of them wait.
    setup.proxy.wait_for_waiting(5);
    assert!(clients.iter().all(WireClient::has_no_input), "RESUME was not awaited");
    console.ok("resume");
    for client in &mut clients {
        assert_eq!(client.read_reply().no_error().commands(), ["INSERT 0 1"]);
    }
    assert_eq!(late.read_reply().value(), "late");
    assert_eq!(block.value("select 1"), "1");
    assert_eq!((setup.count(1, "held"), setup.count(1, "in a block")), ("4".into(), "1".into()));
    assert_eq!(setup.metric("pgimbal_failover_failed_total{cluster=\"c\"}"), "0");
}

#[test]
fn failover_a_hold_ends_with_an_error_that_the_connection_survives() {
    let mut setup =
        Setup::with(Cluster::start(0), |config| config.cluster("failover_hold", "\"1s\""));
    let (mut simple, mut extended) = (setup.client("app"), setup.client("app"));
    setup.cluster.nodes[0].kill();
    setup.wait_until_held();
    simple.start_query(INSERT);
    extended.send(pgimbal_tests::Pipeline::new().run(INSERT).sync().bytes());
    for client in [&mut simple, &mut extended] {
        refusal(&client.read_reply(), "57P03", 'I');
    }
    setup.cluster.nodes[0].start();
    for client in [&mut simple, &mut extended] {
        eventually("it is served again", SOON, || client.query(INSERT).errors().is_empty());
    }
    assert_eq!(setup.count(0, "x"), "2");
}

#[test]
fn failover_as_many_as_may_wait_do_and_no_more() {
    let mut setup = Setup::with(Cluster::start(1), |config| config.cluster("max_held", 2));
    let mut clients: Vec<WireClient> = (0..5).map(|_| setup.client("app")).collect();
    setup.cluster.nodes[0].kill();
    setup.wait_until_held();
    for client in &mut clients[..2] {
        client.start_query(INSERT);
    }
    setup.proxy.wait_for_waiting(2);
    for client in &mut clients[2..] {
        refusal(&client.query(INSERT), "57P03", 'I');
    }
    setup.cluster.nodes[1].promote();
    for client in &mut clients[..2] {
        client.read_reply().no_error();
    }
    for client in &mut clients {
        client.ok(INSERT);
    }
    assert_eq!(setup.count(1, "x"), "7");
}

#[test]
fn failover_a_code_that_frameworks_retry_can_be_chosen() {
    let mut setup = Setup::with(Cluster::start(1), |config: Config| {
        config.cluster("lost_transaction_error", "\"40001\"")
    });
    let mut clients = [setup.client("app"), setup.client("app")];
    for client in &mut clients {
        client.ok("begin");
    }
    clients[1].start_query("select hang('')");
    eventually("it hangs", SOON, || setup.cluster.nodes[0].running("hang") == 1);
    setup.cluster.settle(0);
    setup.cluster.nodes[0].end(End::Fast);
    setup.cluster.nodes[1].promote();
    let [idle, running] = &mut clients;
    refusal(&running.read_reply(), "40001", 'E');
    refusal(&idle.query("select 1"), "40001", 'E');
    for client in &mut clients {
        assert_eq!(client.ok("rollback").status(), 'I');
        client.ok("select 1");
    }
}
