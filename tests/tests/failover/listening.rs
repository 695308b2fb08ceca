//! Who listens when the primary is replaced.

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::http::metric;
use pgimbal_tests::until::{SOON, eventually};

use super::setup::{SETTINGS, Setup};

#[test]
fn failover_clients_that_share_a_connection_listen_on_the_new_primary() {
    let cluster = Cluster::with(1, SETTINGS);
    let mut setup = Setup::with(cluster, |config| config.set("listen_mode", "\"share\""));
    let mut client = setup.client("app");
    client.ok("listen news");
    setup.cluster.nodes[0].run("notify news, 'old'");
    assert!(client.expect(b'A').body.ends_with(b"news\0old\0"));
    setup.cluster.settle(0);
    setup.cluster.nodes[0].kill();
    setup.wait_until_held();
    setup.cluster.nodes[1].promote();
    let told = || metric(&setup.proxy.metrics(), "pgimbal_notifications_total", &[]);
    eventually("it listens again", SOON, || {
        setup.cluster.nodes[1].run("notify news, 'new'");
        told() >= Some(2.0)
    });
    assert!(client.expect(b'A').body.ends_with(b"news\0new\0"));
    client.ok("insert into writes values ('x')");
    client.ok("unlisten news");
}
