//! Addresses whose clients have a route of their own.

use std::net::TcpStream;
use std::time::Duration;

use pgimbal_tests::pgimbal::{Config, undisturbed};
use pgimbal_tests::postgres;
use pgimbal_tests::program::{Finished, run};
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, WireClient};
use rustix::process::{Pid, Signal, kill_process};

use super::{HERE, Setup};

/// Clients that come here read on a replica.
const READ: &str = "127.0.0.2";
/// Here it depends on what they send.
const AUTO: &str = "127.0.0.3";
/// And here everything goes to the primary.
const PRIMARY: &str = "127.0.0.4";

fn with_listeners(config: Config) -> Config {
    let all = [READ, AUTO, PRIMARY].into_iter();
    all.fold(config, Config::listening_on)
        .set("read_listen", format!("[\"{READ}:PORT\"]"))
        .set("auto_listen", format!("[\"{AUTO}:PORT\"]"))
        .set("primary_listen", format!("[\"{PRIMARY}:PORT\"]"))
}

/// A client of the database `app`, which has no route of its own, or of `auto`.
fn client_at(setup: &Setup, host: &str, database: &str) -> WireClient {
    let stream = TcpStream::connect((host, setup.proxy.port)).expect("a connection");
    let mut client = WireClient::of(stream);
    client.log_in(&Login::new("app", database, "app-secret")).expect("a session");
    client
}

/// psql, asked where it is by a client that wants such a session of one of these hosts.
fn psql(setup: &Setup, hosts: &str, attributes: &str) -> Finished {
    let port = setup.proxy.port;
    let connection = format!(
        "host={hosts} port={port} user=app dbname=app password=app-secret \
         target_session_attrs={attributes} connect_timeout=10"
    );
    let mut command = undisturbed(postgres::bin().join("psql"));
    command.env("HOME", setup.proxy.directory()).args(["-XAtqc", HERE, &connection]);
    run(&mut command, Duration::from_secs(20))
}

#[test]
fn reads_have_the_route_of_the_address_and_libpq_finds_what_it_wants_there() {
    let setup = Setup::with(1, with_listeners);
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    let mut auto = client_at(&setup, AUTO, "app");
    assert_eq!(auto.value("show pgimbal.route"), "auto");
    eventually("functions are known", SOON, || auto.value(HERE) == *replica);
    auto.ok("insert into items values (1)");
    assert_eq!(auto.value("select count(*) from items"), "1");
    assert_eq!(client_at(&setup, PRIMARY, "auto").value(HERE), *primary, "before the database's");
    assert_eq!(client_at(&setup, READ, "auto").value(HERE), *replica);
    // What a session chooses itself holds, and RESET leads back to its address's.
    auto.ok("set pgimbal.route = 'primary'");
    assert_eq!(auto.value(HERE), *primary);
    auto.ok("reset pgimbal.route");
    eventually("the replica has caught up", SOON, || auto.value(HERE) == *replica);

    for (hosts, attributes, node) in [
        (AUTO, "read-write", replica),
        (AUTO, "primary", replica),
        (AUTO, "prefer-standby", replica),
        (PRIMARY, "read-write", primary),
        (READ, "standby", replica),
        (READ, "read-only", replica),
        (&format!("{READ},{AUTO}"), "primary", replica),
        (&format!("{READ},{PRIMARY}"), "read-write", primary),
        (&format!("{PRIMARY},{READ}"), "standby", replica),
    ] {
        let finished = psql(&setup, hosts, attributes);
        assert_eq!(finished.stdout.trim(), *node, "{hosts} {attributes}: {finished:?}");
    }
    for (host, attributes, said) in [
        (AUTO, "standby", "server is not in hot standby mode"),
        (AUTO, "read-only", "session is not read-only"),
        (READ, "primary", "server is in hot standby mode"),
        (READ, "read-write", "session is read-only"),
        (PRIMARY, "standby", "server is not in hot standby mode"),
    ] {
        let finished = psql(&setup, host, attributes);
        assert!(finished.stderr.contains(said), "{host} {attributes}: {finished:?}");
    }
}

#[test]
fn reads_keep_the_route_of_the_address_when_another_process_takes_over() {
    let mut setup = Setup::with(1, |config| {
        with_listeners(config).set("drain_delay", "\"0s\"").set("shutdown_grace", "\"1s\"")
    });
    let [primary, replica] = &setup.ports()[..] else { panic!("two nodes") };
    kill_process(setup.proxy.process().pid(), Signal::USR2).expect("a living process");
    eventually("another one takes over", SOON, || {
        setup.proxy.log().contains("another process has taken over")
    });
    eventually("the first one ends", SOON, || setup.proxy.ended() == Some(0));
    let mut auto = client_at(&setup, AUTO, "app");
    eventually("functions are known", SOON, || auto.value(HERE) == *replica);
    assert_eq!(client_at(&setup, READ, "app").parameters["in_hot_standby"], "on");
    assert_eq!(client_at(&setup, PRIMARY, "auto").value(HERE), *primary);
    assert_eq!(setup.proxy.client().value(HERE), *primary, "no route of its own");
    let log = setup.proxy.log();
    let started = log.lines().find(|line| line.contains("is started to take over"));
    let pid = started.and_then(|line| line.split("pid=").nth(1)?.split_whitespace().next());
    let pid = pid.and_then(|pid| Pid::from_raw(pid.parse().ok()?)).expect("another process");
    kill_process(pid, Signal::INT).expect("a living process");
    eventually("all have ended", SOON, || !setup.proxy.process().has_group());
}
