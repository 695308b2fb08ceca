//! TLS towards a cluster's nodes.

use pgimbal_tests::cluster::Cluster;

use super::setup::Setup;

#[test]
fn failover_a_cluster_with_tls_of_its_own_is_served() {
    let tables = "[server_tls]\nsslmode = \"prefer\"\n\
                  [clusters.c.server_tls]\nsslmode = \"disable\"\n";
    let setup = Setup::with(Cluster::start(0), |config| config.tables(tables));
    let ssl = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(setup.client("app").value(ssl), "f");
}
