//! Reads on replicas: who chooses them, which one serves, and what happens without one.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::Duration;

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Login, Pipeline, WireClient};

use super::rows::refusal;
use super::setup::Setup;

const WHERE: &str = "select current_setting('port')";

/// A setup whose database `ro` and whose user `reader` read from replicas.
fn start(replicas: usize, change: impl FnOnce(Config) -> Config) -> Setup {
    let cluster = Cluster::start(replicas);
    cluster.nodes[0].run("create role reader login password 'reader-secret'");
    let setup = Setup::with(cluster, |config| {
        change(config).tables(
            "[databases.ro]\ncluster = \"c\"\ndbname = \"app\"\nroute = \"replica\"\n\
             [users.reader]\npassword = \"reader-secret\"\nroute = \"replica\"",
        )
    });
    for node in &setup.cluster.nodes[1..] {
        setup.wait_for_state(&node.name, "replica");
    }
    setup
}

fn ports(setup: &Setup) -> Vec<String> {
    setup.cluster.nodes.iter().map(|node| node.port.to_string()).collect()
}

#[test]
fn failover_reads_are_sent_to_a_replica_by_the_address() {
    let setup = start(1, |config| {
        config.listening_on("127.0.0.2").set("read_listen", "[\"127.0.0.2:PORT\"]")
    });
    let [primary, replica] = &ports(&setup)[..] else { panic!("two nodes") };
    let login = Login::new("app", "app", "app-secret");
    let at_its_address = |login: &Login| {
        let stream = TcpStream::connect(("127.0.0.2", setup.proxy.port)).expect("a connection");
        let mut client = WireClient::of(stream);
        client.log_in(login).expect("a session");
        client
    };
    let mut reader = at_its_address(&login);
    assert_eq!(reader.parameters["in_hot_standby"], "on");
    assert_eq!(reader.value(WHERE), *replica);
    assert_eq!(reader.value("show pgimbal.route"), "replica");
    // A session may choose, and what it was given is what RESET leads back to.
    reader.ok("set pgimbal.route = 'primary'");
    assert_eq!(reader.value(WHERE), *primary);
    reader.ok("discard all");
    assert_eq!(reader.value(WHERE), *replica);
    let own = login.clone().with("options", "-c pgimbal.route=primary");
    assert_eq!(at_its_address(&own).value(WHERE), *primary);
    // The console has no route, and the other address none of its own.
    let _console = at_its_address(&Login::new("app", "pgimbal", "app-secret"));
    assert_eq!(setup.client("app").value(WHERE), *primary);
}

#[test]
fn failover_reads_are_sent_to_a_replica_by_choice_only() {
    let setup = start(1, |config| config);
    let [primary, replica] = &ports(&setup)[..] else { panic!("two nodes") };
    assert_eq!(setup.client("app").value(WHERE), *primary);
    // By the name of the database, and back by the session's own word.
    let mut alias = setup.client("ro");
    assert_eq!(alias.value(WHERE), *replica);
    assert_eq!(alias.run(&Pipeline::new().run(WHERE).sync()).value(), *replica);
    alias.ok("set pgimbal.route = 'primary'");
    assert_eq!(alias.value(WHERE), *primary);
    alias.ok("reset pgimbal.route");
    assert_eq!(alias.value(WHERE), *replica);
    // By the user.
    let mut reader = setup.proxy.log_in(&Login::new("reader", "app", "reader-secret"));
    assert_eq!(reader.value(WHERE), *replica);
    // By a startup option.
    let login = Login::new("app", "app", "app-secret");
    let mut optioned =
        setup.proxy.log_in(&login.clone().with("options", "-c pgimbal.route=replica"));
    assert_eq!(optioned.value(WHERE), *replica);
    // Each is greeted by who serves it, also when the other is known.
    for (option, standby) in [("replica", "on"), ("primary", "off"), ("replica", "on")] {
        let option = format!("-c pgimbal.route={option}");
        let client = setup.proxy.log_in(&login.clone().with("options", &option));
        assert_eq!(client.parameters["in_hot_standby"], standby, "{option}");
    }
    assert_eq!(setup.client("ro").parameters["in_hot_standby"], "on");
    assert_eq!(setup.client("app").parameters["in_hot_standby"], "off");
    let login = Login::new("app", "ro", "app-secret").with("options", "-c pgimbal.route=primary");
    assert_eq!(setup.proxy.log_in(&login).value(WHERE), *primary);
    // By SET, for the session and for nobody else.
    let mut client = setup.client("app");
    client.ok("set pgimbal.route = 'replica'");
    assert_eq!(client.value(WHERE), *replica);
    assert_eq!(client.value("show pgimbal.route"), "replica");
    assert_eq!(setup.client("app").value(WHERE), *primary);
    client.ok("set pgimbal.route to 'primary'");
    assert_eq!(client.value(WHERE), *primary);
    // A whole transaction goes where its session reads; a write there is the standby's to refuse.
    client.ok("set pgimbal.route = 'replica'");
    client.ok("begin");
    assert_eq!(client.value(WHERE), *replica);
    refusal(&client.query("insert into writes values ('x')"), "25006", 'E');
    client.ok("rollback");
    let page = setup.proxy.metrics();
    assert!(
        page.lines().any(
            |line| line.starts_with("pgimbal_reads_on_replicas_total") && !line.ends_with(" 0")
        )
    );
}

#[test]
fn failover_reads_go_to_the_replica_with_the_fewest_outstanding() {
    let setup = start(2, |config| config);
    let ports: BTreeSet<String> = ports(&setup).into_iter().skip(1).collect();
    let mut client = setup.client("ro");
    let seen: BTreeSet<String> = (0..8).map(|_| client.value(WHERE)).collect();
    assert_eq!(seen, ports, "equals take turns");
    let mut busy = setup.client("ro");
    busy.ok("begin");
    let taken = busy.value(WHERE);
    for _ in 0..8 {
        assert_ne!(client.value(WHERE), taken, "the busy one was chosen");
    }
    busy.ok("commit");
}

#[test]
fn failover_reads_go_on_elsewhere_when_a_replica_dies() {
    let mut setup = start(2, |config| config);
    let all = ports(&setup);
    let mut clients: Vec<WireClient> = (0..4).map(|_| setup.client("ro")).collect();
    let mut running: Vec<WireClient> = (0..4).map(|_| setup.client("ro")).collect();
    for client in &mut clients {
        client.ok(WHERE);
    }
    for client in &mut running {
        client.start_query("select current_setting('port') from pg_sleep(0.5)");
    }
    eventually("they run", SOON, || {
        setup.cluster.nodes[1].running("pg_sleep") + setup.cluster.nodes[2].running("pg_sleep") == 4
    });
    setup.cluster.nodes[1].kill();
    for client in clients.iter_mut().chain(&mut running[..0]) {
        for _ in 0..10 {
            assert_eq!(client.value(WHERE), all[2]);
        }
    }
    for client in &mut running {
        assert_eq!(client.read_reply().value(), all[2], "run again on the other");
    }
    // None left: the primary.
    setup.cluster.nodes[2].kill();
    for client in &mut clients {
        assert_eq!(client.value(WHERE), all[0]);
    }
    // Probed back in.
    setup.cluster.nodes[1].start();
    setup.wait_for_state("n2", "replica");
    eventually("it is read from again", SOON, || clients[0].value(WHERE) == all[1]);
}

#[test]
fn failover_reads_are_refused_without_a_replica_if_the_operator_says_so() {
    let mut setup = start(1, |config| config.cluster("replica_fallback", "\"none\""));
    let all = ports(&setup);
    let mut client = setup.client("ro");
    assert_eq!(client.value(WHERE), all[1]);
    setup.cluster.nodes[1].kill();
    setup.wait_for_state("n2", "down");
    refusal(&client.query(WHERE), "57P03", 'I');
    refusal(&client.run(&Pipeline::new().run(WHERE).sync()), "57P03", 'I');
    assert_eq!(setup.client("app").value(WHERE), all[0]);
    setup.cluster.nodes[1].start();
    setup.wait_for_state("n2", "replica");
    assert_eq!(client.value(WHERE), all[1]);
}

fn leaves_out_a_lagging_replica(key: &str, limit: &str) {
    let setup = start(2, |config| config.cluster(key, limit));
    let all = ports(&setup);
    let mut client = setup.client("ro");
    setup.cluster.nodes[1].run("select pg_wal_replay_pause()");
    eventually("replay is paused", SOON, || {
        setup.cluster.nodes[1].value("select pg_get_wal_replay_pause_state()") == "paused"
    });
    setup.cluster.nodes[0]
        .run("create table large as select repeat('x', 1000) from generate_series(1, 2000)");
    // The other one has the rows too, and pgimbal knows it.
    let written = setup.cluster.nodes[0].written();
    let has_come = |lsn: &str| {
        let sql = format!("select '{lsn}'::pg_lsn >= '{written}'");
        setup.cluster.nodes[0].value(&sql) == "t"
    };
    eventually("only one is left out", SOON, || {
        setup.node("n2", "state") == "lagging"
            && setup.node("n3", "state") == "replica"
            && has_come(&setup.node("n3", "lsn"))
    });
    always("it is left out", Duration::from_millis(300), || client.value(WHERE) == all[2]);
    assert!(setup.node("n2", "why").contains(key), "{}", setup.node("n2", "why"));
    setup.cluster.nodes[1].run("select pg_wal_replay_resume()");
    setup.wait_for_state("n2", "replica");
    eventually("it is read from again", SOON, || client.value(WHERE) == all[1]);
}

#[test]
fn failover_reads_leave_out_a_replica_too_many_bytes_behind() {
    leaves_out_a_lagging_replica("replica_max_lag_bytes", "\"200KiB\"");
}

#[test]
fn failover_reads_leave_out_a_replica_too_long_behind() {
    leaves_out_a_lagging_replica("replica_max_lag", "\"700ms\"");
}

#[test]
fn failover_a_reader_survives_the_promotion_of_its_replica() {
    let mut setup = start(1, |config| config);
    let mut reader = setup.client("ro");
    reader.ok("begin");
    let backend = reader.backend();
    let mut idle = setup.client("ro");
    idle.ok(WHERE);
    setup.cluster.nodes[0].kill();
    setup.cluster.nodes[1].promote();
    let mut writer = setup.client("app");
    writer.ok("insert into writes values ('new')");
    // A connection to a standby survives its promotion; it is not closed for that.
    assert_eq!(reader.backend(), backend);
    reader.ok("commit");
    // No replica is left: the primary serves, which it is now itself.
    let port = setup.cluster.nodes[1].port.to_string();
    assert_eq!(reader.value(WHERE), port);
    assert_eq!(idle.value(WHERE), port);
    assert_eq!(idle.value("select count(*) from writes"), "1");
}

#[test]
fn failover_a_route_that_there_is_not_is_an_error_with_a_suggestion() {
    let setup = start(1, |config| config);
    let mut client = setup.client("app");
    for (sql, code, hint) in [
        ("set pgimbal.route = 'standby'", "22023", "\"replica\""),
        ("set session pgimbal.route to master", "22023", "\"primary\""),
        ("set pgimbal.rout = 'replica'", "42704", "\"pgimbal.route\""),
        ("select set_config('pgimbal.routes', 'replica', false)", "42704", "\"pgimbal.route\""),
    ] {
        for reply in [client.query(sql), client.run(&Pipeline::new().run(sql).sync())] {
            let errors = reply.errors();
            assert_eq!((errors.len(), errors[0].code.as_str()), (1, code), "{sql}");
            assert!(errors[0].fields[&'H'].contains(hint), "{:?}", errors[0]);
        }
    }
    // A transaction fails with it, and the client's pipeline.
    for extended in [false, true] {
        client.ok("begin");
        let sql = "set pgimbal.route = 'standby'";
        let reply = match extended {
            false => client.query(sql),
            true => client.run(&Pipeline::new().run(sql).sync()),
        };
        refusal(&reply, "22023", 'E');
        assert!(reply.errors()[0].fields[&'H'].contains("\"replica\""));
        client.ok("rollback");
    }
    client.ok("set pgimbal.route = 'Replica'");
    client.ok("set pgimbal.route = default");
    let login = Login::new("app", "app", "app-secret");
    for option in ["-c pgimbal.route=standby", "-c pgimbal.rout=replica"] {
        let told = setup.proxy.connect().log_in(&login.clone().with("options", option));
        let error = told.expect_err("refused").pop().expect("an error").error();
        assert_eq!(error.severity, "FATAL");
        assert!(error.fields[&'H'].contains("Perhaps you meant"), "{error:?}");
    }
}

/// What a driver binds is checked as what stands in a text is.
#[test]
fn failover_a_bound_route_that_there_is_not_is_an_error_with_a_suggestion() {
    let setup = start(1, |config| config);
    for database in ["app", "session"] {
        let mut client = setup.client(database);
        let text = "select set_config('pgimbal.route', $1, false)";
        client.run(&Pipeline::new().parse("s", text).sync()).no_error();
        let named = |pipeline: Pipeline, value: &'static str| {
            pipeline.bind("", "s", &[value]).execute("", 0)
        };
        let unnamed = |pipeline: Pipeline, value: &'static str| {
            pipeline.parse("", text).bind("", "", &[value]).execute("", 0)
        };
        let both: [&dyn Fn(Pipeline, &'static str) -> Pipeline; 2] = [&named, &unnamed];
        for runs in both {
            let first = runs(Pipeline::new(), "standby").sync();
            let behind_another = runs(Pipeline::new().run("select 1"), "standby").sync();
            for pipeline in [first, behind_another] {
                let reply = client.run(&pipeline);
                assert_eq!(
                    (reply.sqlstate().as_str(), reply.status()),
                    ("22023", 'I'),
                    "{reply:?}"
                );
                assert_eq!(reply.errors().len(), 1);
                let error = &reply.errors()[0];
                assert!(error.message.contains("\"standby\""), "{error:?}");
                assert!(error.fields[&'H'].contains("\"replica\""), "{error:?}");
            }
            client.ok("begin");
            refusal(&client.run(&runs(Pipeline::new(), "master").sync()), "22023", 'E');
            // A transaction that has failed says so itself.
            refusal(&client.run(&runs(Pipeline::new(), "master").sync()), "25P02", 'E');
            client.ok("rollback");
            client.run(&runs(Pipeline::new(), "Replica").sync()).no_error();
            assert_eq!(client.value("show pgimbal.route"), "Replica");
            client.run(&runs(Pipeline::new(), "").sync()).no_error();
        }
        let any = Pipeline::new().parse("", "select set_config($1, $2, false)");
        let any = any.bind("", "", &["pgimbal.rout", "replica"]).execute("", 0);
        let reply = client.run(&any.sync());
        refusal(&reply, "42704", 'I');
        assert!(reply.errors()[0].fields[&'H'].contains("\"pgimbal.route\""));
    }
}
