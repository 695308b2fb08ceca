//! A cluster that is one DNS name: every address of it is a node.

use std::fs;
use std::path::PathBuf;

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};

use std::time::Duration;

use super::setup::{Setup, schema};

const NAME: &str = "cluster.pgimbal.test";

/// A pgimbal that sees a file of the test's own as `/etc/hosts`.
fn start(cluster: Cluster) -> (Setup, PathBuf) {
    cluster.nodes[0].run(&schema(&cluster));
    cluster.settle(0);
    let hosts = cluster.directory().join("hosts");
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.host.to_string()).collect();
    write(&hosts, &addresses);
    let script = format!("mount --bind {hosts} /etc/hosts && exec \"$@\"", hosts = hosts.display());
    let launcher = ["unshare", "--mount", "--", "sh", "-c", &script, "sh"];
    let proxy = Config::before_name(NAME, cluster.nodes[0].port)
        .set("pool_size", 10)
        .through(&launcher)
        .start();
    let setup = Setup { cluster, proxy };
    setup.wait_until_writable();
    (setup, hosts)
}

/// In place: the mount is of this very file.
fn write(hosts: &PathBuf, addresses: &[String]) {
    let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
    fs::write(hosts, format!("127.0.0.1 localhost\n{lines}")).expect("a file of hosts");
}

#[test]
fn failover_every_address_of_a_name_is_a_node() {
    let (mut setup, hosts) = start(Cluster::on_one_port(1));
    let addresses: Vec<String> =
        setup.cluster.nodes.iter().map(|node| node.host.to_string()).collect();
    let mut client = setup.client("app");
    client.ok("insert into writes values ('first')");
    let states = |setup: &Setup| -> Vec<String> {
        let rows = setup.proxy.console("show nodes");
        let mut states: Vec<String> = rows
            .iter()
            .filter_map(|row| row.iter().find(|(name, _)| name == "state"))
            .map(|(_, state)| state.clone())
            .collect();
        states.sort();
        states
    };
    eventually("both are known", SOON, || states(&setup) == ["primary", "replica"]);
    setup.cluster.settle(0);
    setup.cluster.nodes[0].kill();
    setup.cluster.nodes[1].promote();
    client.ok("insert into writes values ('second')");
    assert_eq!(setup.count(1, "second"), "1");
    // A name without an address says nothing new.
    write(&hosts, &[]);
    always("the last answer counts", Duration::from_secs(1), || {
        client.query("insert into writes values ('third')").errors().is_empty()
    });
    // An address that is gone drains.
    write(&hosts, &addresses[1..]);
    eventually("the old one is gone", Duration::from_secs(40), || {
        states(&setup).iter().all(|state| state != "down")
    });
    client.ok("insert into writes values ('fourth')");
}
