//! How replicas find each other, and who else may try.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::port::free_port;
use pgimbal_tests::process::directory;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pgimbal, Postgres};

use super::{Peers, peers, replica, tables, three, wait_for_peers};

const NAME: &str = "peers.pgimbal.test";

/// In place: the mount is of this very file.
fn write(hosts: &Path, addresses: &[&str]) {
    let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
    fs::write(hosts, format!("127.0.0.1 localhost\n{lines}")).expect("a file of hosts");
}

#[test]
fn replicas_are_the_addresses_of_a_name_and_come_and_go_with_it() {
    let pg = Postgres::start();
    let place = directory("hosts");
    let hosts = place.join("hosts");
    let addresses = ["127.0.3.1", "127.0.3.2", "127.0.3.3"];
    write(&hosts, &addresses[..2]);
    let script = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    let launcher = ["unshare", "--mount", "--", "sh", "-c", &script, "sh"];
    let port = free_port();
    let start = |address: &&str| {
        let table = Peers {
            name: (*address).to_owned(),
            listen: format!("{address}:{port}"),
            others: format!("dns = \"{NAME}\""),
            peer_id: None,
        };
        replica(Config::before(&pg).through(&launcher), &table).start()
    };
    let mut all: Vec<Pgimbal> = addresses[..2].iter().map(start).collect();
    all.iter().for_each(|one| wait_for_peers(one, 1));
    // The name lags: the third one finds the others, and they know it by its hello.
    all.push(start(&addresses[2]));
    all.iter().for_each(|one| wait_for_peers(one, 2));
    write(&hosts, &addresses);
    all.iter().for_each(|one| wait_for_peers(one, 2));
    // A name that nobody resolves changes nothing.
    write(&hosts, &[]);
    eventually("it is told", SOON, || all[0].log().contains("cannot be looked up"));
    wait_for_peers(&all[0], 2);
    write(&hosts, &addresses[..2]);
    drop(all.pop());
    eventually("it is silent", SOON, || {
        peers(&all[0]).iter().any(|row| row["replica"] == "127.0.3.3" && row["state"] == "silent")
    });
    eventually("it is told", SOON, || all[0].log().contains("a replica is silent"));
}

#[test]
fn a_replica_that_starts_anew_takes_its_own_place() {
    let pg = Postgres::start();
    let mut all = three(&pg);
    let before = peers(&all[0])[2]["instance"].clone();
    all[2].restart();
    eventually("the new process is met", SOON, || {
        let rows = peers(&all[0]);
        rows.len() == 3 && rows[2]["instance"] != before && rows[2]["state"] == "alive"
    });
}

#[test]
fn another_deployments_replica_is_refused_and_told_why() {
    let pg = Postgres::start();
    let tables = tables(2, false);
    let ours = replica(Config::before(&pg), &tables[0]).start();
    let other = "00112233445566778899aabbccddeeff";
    let theirs = replica(Config::before(&pg), &tables[1])
        .set("deployment_key", format!("\"{other}\""))
        .start();
    for proxy in [&ours, &theirs] {
        eventually("it is shown", SOON, || {
            let rows = peers(proxy);
            rows.len() == 2 && rows[1]["why"].contains("another deployment_key")
        });
        assert!(!proxy.log().contains(super::KEY) && !proxy.log().contains(other));
    }
    eventually("it is counted", SOON, || {
        let labels = ["reason=\"handshake\""];
        let page = ours.metrics();
        let name = "pgimbal_peer_handshakes_failed_total";
        pgimbal_tests::http::metric(&page, name, &labels) > Some(0.0)
    });
}

#[test]
fn a_flood_at_the_port_for_peers_costs_clients_nothing() {
    let pg = Postgres::start();
    let tables = tables(2, true);
    let config = Config::before(&pg);
    let all: Vec<Pgimbal> =
        tables.iter().map(|table| replica(config.clone(), table).start()).collect();
    all.iter().for_each(|one| wait_for_peers(one, 1));
    let to = tables[0].listen.clone();
    let mut client = all[0].client();
    // Connections that begin a handshake, and 64 that hold still.
    let mut held = Vec::new();
    for number in 0..1000 {
        let mut stream = TcpStream::connect(&to).expect("a connection");
        let _ = stream.write_all(b"\x16\x03\x01\x02");
        if number % 16 == 0 {
            held.push(stream);
        }
    }
    assert_eq!(client.value("select 'served'"), "served");
    wait_for_peers(&all[1], 1);
    eventually("they are closed", SOON, || {
        let page = all[0].metrics();
        let count = |reason: &str| {
            let labels = [reason];
            let name = "pgimbal_peer_handshakes_failed_total";
            pgimbal_tests::http::metric(&page, name, &labels).unwrap_or(0.0)
        };
        let reasons =
            ["handshake", "timeout", "crowded_out", "rate"].map(|r| format!("reason=\"{r}\""));
        reasons.iter().map(|reason| count(reason)).sum::<f64>() >= 1000.0
    });
    let lines = all[0].log().lines().filter(|line| line.contains("has not proved")).count();
    assert!(lines < 10, "{lines} lines in the log");
    assert_eq!(client.value("select 'served'"), "served");
}
