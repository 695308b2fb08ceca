//! Server connections that are opened anew: RECONNECT, KILL, and a server whose name moves.

use std::fs;
use std::time::Duration;

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Login, Pgimbal, Postgres, WireClient};

const NAME: &str = "server.pgimbal.test";

fn admin(proxy: &Pgimbal) -> WireClient {
    proxy.log_in(&Login::new("app", "pgimbal", "app-secret"))
}

#[test]
fn reconnect_opens_each_server_connection_anew_once_it_is_free() {
    let pg = Postgres::start();
    let other = "[databases.other]\nhost = \"127.0.0.1\"\ndbname = \"app\"\n";
    let port = format!("port = {}\n", pg.port);
    let proxy = Config::before(&pg).tables(&format!("{other}{port}")).start();
    let (mut client, mut busy) = (proxy.client(), proxy.client());
    let mut beside = proxy.log_in(&Login::new("app", "other", "app-secret"));
    busy.ok("begin");
    let [idle, used, kept] = [&mut client, &mut busy, &mut beside].map(WireClient::backend);
    // What ALTER ROLE says holds for new connections.
    pg.run("alter role app in database app set statement_timeout = '77s'");
    admin(&proxy).ok("RECONNECT app");
    assert_eq!(client.value("show statement_timeout"), "77s");
    assert_ne!(client.backend(), idle);
    assert_eq!(busy.backend(), used, "its transaction goes on");
    busy.ok("commit");
    eventually("it is given up", SOON, || busy.backend() != used);
    assert_eq!(beside.backend(), kept, "another database was not meant");
    admin(&proxy).ok("reconnect");
    assert_ne!(beside.backend(), kept);
    let errors = admin(&proxy).query("RECONNECT nowhere").errors();
    assert_eq!((errors.len(), errors[0].code.as_str()), (1, "3D000"));
}

#[test]
fn kill_ends_clients_and_server_connections_of_a_database() {
    let pg = Postgres::start();
    pg.run("create database doomed owner app");
    let table = format!("[databases.doomed]\nhost = \"127.0.0.1\"\nport = {}\n", pg.port);
    let proxy = Config::before(&pg).tables(&table).start();
    let doomed = Login::new("app", "doomed", "app-secret");
    let (mut idle, mut busy) = (proxy.log_in(&doomed), proxy.log_in(&doomed));
    let mut beside = proxy.client();
    beside.ok("begin");
    busy.ok("begin");
    idle.value("select 1");
    busy.start_query("select pg_sleep(600)");
    let running = "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' \
                   and datname = 'doomed'";
    eventually("it runs", SOON, || pg.value(running) == "1");
    admin(&proxy).ok("KILL doomed");
    for client in [&mut idle, &mut busy] {
        let told = client.read_to_end();
        let error = told.iter().find(|message| message.tag == b'E').expect("an error").error();
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "57P01"));
    }
    let left = "select count(*) from pg_stat_activity where datname = 'doomed'";
    eventually("nobody is left there", SOON, || pg.value(left) == "0");
    pg.run("drop database doomed");
    assert_eq!(beside.ok("commit").status(), 'I');
}

#[test]
fn a_name_that_moves_takes_its_connections_along() {
    let cluster = Cluster::on_one_port(1);
    let [first, second] = [0, 1].map(|index| cluster.nodes[index].host.to_string());
    let hosts = cluster.directory().join("hosts");
    // In place: the mount is of this very file.
    let write = |address: &str| {
        fs::write(&hosts, format!("127.0.0.1 localhost\n{address} {NAME}\n")).expect("a file");
    };
    write(&first);
    let script = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    let launcher = ["unshare", "--mount", "--", "sh", "-c", &script, "sh"];
    let config = Config::to_port(cluster.nodes[0].port).server("host", format!("\"{NAME}\""));
    let proxy = config.through(&launcher).start();
    let (mut client, mut busy) = (proxy.client(), proxy.client());
    let place = "select host(inet_server_addr())";
    busy.ok("begin");
    assert_eq!([client.value(place), busy.value(place)], [first.clone(), first.clone()]);
    always("a name that stays moves nobody", Duration::from_secs(6), || {
        client.value(place) == first
    });
    write(&second);
    eventually("free ones move", SOON * 2, || client.value(place) == second);
    assert_eq!(busy.value(place), first, "a transaction stays where it is");
    busy.ok("commit");
    eventually("and moves at its end", SOON, || busy.value(place) == second);
    assert!(proxy.log().contains("no longer leads to"), "{}", proxy.log());
}
