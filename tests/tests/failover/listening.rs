//! Who listens when the primary is replaced.

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::pgimbal::Config;

use super::setup::{SETTINGS, Setup};
use crate::listening::crowd::{CLIENTS, Crowd};

#[test]
fn failover_clients_that_share_a_connection_listen_on_the_new_primary() {
    let cluster = Cluster::with(1, SETTINGS);
    let change = |config: Config| config.set("workers", 1).set("max_client_conn", CLIENTS + 10);
    let mut setup = Setup::with(cluster, change);
    let mut crowd = Crowd::join(|| setup.client("app"));
    crowd.hears("old", |sql| setup.cluster.nodes[0].run(sql));
    setup.cluster.settle(0);
    setup.cluster.nodes[0].kill();
    setup.wait_until_held();
    setup.cluster.nodes[1].promote();
    let run = |sql: &str| setup.cluster.nodes[1].run(sql);
    crowd.wait_until_it_hears(&setup.proxy, run);
    crowd.hears("new", run);
    let listening = "select count(*) from pg_stat_activity where usename = 'app' \
                     and query like '%LISTEN%'";
    assert_eq!(setup.cluster.nodes[1].value(listening), "1");
    let client = &mut crowd.clients[7];
    client.ok("insert into writes values ('x')");
    client.ok("unlisten c7");
}
