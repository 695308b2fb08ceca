//! Nodes that do not agree on the password: scenario 8.

use std::time::{Duration, Instant};

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::process::directory;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Cluster, Login, Pgimbal, Vault};

use super::{eventually_accepted, shop};

/// `shop`'s new connection to the replica, whose answer says that it is one.
fn reads(proxy: &Pgimbal, password: &str) {
    let mut client = proxy.log_in(&Login::new("shop", "reports", password));
    assert_eq!(client.value("select pg_is_in_recovery()"), "t");
}

#[test]
fn rotation_8_a_replica_that_has_not_replayed_the_new_password() {
    let cluster = Cluster::start(1);
    let (primary, replica) = (&cluster.nodes[0], &cluster.nodes[1]);
    primary.run("create role shop login");
    let vault = Vault::start();
    vault.serve(primary.port);
    vault.static_role("shop", 86_400);
    let first = vault.role("shop").password;
    cluster.settle(0);
    let reports = format!(
        "[databases.reports]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"app\"\n",
        replica.port
    );
    let vaults = format!("{}poll_interval = \"1s\"\n", vault.table(&vault.reader()));
    let config = Config::to_port(primary.port).set("auth_type", "\"scram-sha-256\"");
    let config = config.tables(&reports).tables(&vaults);
    let proxy = config.tables("[users.shop]\nvault_role = \"shop\"\n").start();
    assert_eq!(proxy.log_in(&shop(&first)).value("select pg_is_in_recovery()"), "f");
    reads(&proxy, &first);

    replica.run("select pg_wal_replay_pause()");
    let mut second = vault.rotate("shop");
    eventually_accepted(&proxy, 2);
    for round in 0..3 {
        let gone = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'shop'";
        primary.run(gone);
        replica.run(gone);
        let start = Instant::now();
        assert_eq!(proxy.log_in(&shop(&second)).value("select pg_is_in_recovery()"), "f");
        reads(&proxy, &second);
        reads(&proxy, &first);
        assert!(start.elapsed() < Duration::from_secs(3), "round {round}: {:?}", start.elapsed());
    }
    // It catches up: the previous password is worth nothing there from then on.
    replica.run("select pg_wal_replay_resume()");
    cluster.settle(0);
    replica.run("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'shop'");
    reads(&proxy, &second);
    second = vault.rotate("shop");
    cluster.settle(0);
    // The next rotation goes as any other.
    drop(proxy.log_in(&shop(&second)));
    replica.run("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'shop'");
    reads(&proxy, &second);
}

#[test]
fn rotation_10_a_probers_own_password_changes_and_its_node_is_written_to_throughout() {
    let cluster = Cluster::start(0);
    let node = &cluster.nodes[0];
    node.run("create role watch login password 'first'; grant pg_monitor to watch");
    let folder = directory("watch");
    let file = folder.join("password");
    std::fs::write(&file, "first").expect("a file");
    let tables = format!(
        "[clusters.c]\nprobe_user = \"watch\"\nprobe_database = \"app\"\n\
         probe_interval = \"200ms\"\n[clusters.c.nodes.a]\nhost = \"{}\"\nport = {}\n\
         [users.watch]\npassword_file = \"{}\"\n",
        node.host,
        node.port,
        file.display()
    );
    let proxy = Config::to_nowhere().server("cluster", "\"c\"").tables(&tables).start();
    let state = || {
        let row = proxy.console("show nodes").remove(0);
        row.into_iter().find(|(name, _)| name == "state").expect("a state").1
    };
    eventually("the prober logs in with what the file says", SOON, || state() == "primary");
    let mut client = proxy.log_in(&Login::new("app", "app", "app-secret"));
    node.run("create table written (id int); grant all on written to app");

    node.run("alter role watch password 'second'");
    node.run("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'watch'");
    eventually("nothing new is believed of it", SOON, || state() == "probe_refused");
    client.ok("insert into written values (1)");
    std::fs::write(&file, "second").expect("a file");
    eventually("the new password is taken", SOON, || state() == "primary");
    client.ok("insert into written values (2)");
    assert_eq!(client.value("select count(*) from written"), "2");
}
