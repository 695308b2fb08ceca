//! Both at once: the primary dies in the middle of a rotation of the role's password.

use std::fs;
use std::path::Path;

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Login, WireClient};

use super::setup::Setup;

/// What PostgreSQL logs of a wrong password.
const REFUSED: &str = "FATAL:  password authentication failed for user \"turning\"";

/// A setup whose role `turning` has its password in a directory, as a mounted Secret has it.
fn start() -> Setup {
    let cluster = Cluster::start(1);
    cluster.nodes[0].run("create role turning login password 'first'");
    let secret = cluster.directory().join("secret");
    fs::create_dir(&secret).expect("a directory");
    write(&secret, "first");
    let source = format!("[users.turning]\npassword_file = {:?}", secret.display().to_string());
    let setup =
        Setup::with(cluster, |config| config.set("auth_type", "\"scram-sha-256\"").tables(&source));
    setup.cluster.nodes[0].run("grant all on writes, slow to turning");
    setup
}

fn write(directory: &Path, password: &str) {
    fs::write(directory.join("username"), "turning").expect("a file");
    let partial = directory.join("partial");
    fs::write(&partial, password).expect("a file");
    fs::rename(partial, directory.join("password")).expect("a file");
}

fn log_in(setup: &Setup, password: &str) -> WireClient {
    setup.proxy.log_in(&Login::new("turning", "app", password))
}

#[test]
fn failover_in_the_middle_of_a_rotation_shows_nobody_an_error() {
    let mut setup = start();
    let mut clients: Vec<WireClient> = (0..5).map(|_| log_in(&setup, "first")).collect();
    for client in &mut clients {
        client.ok("insert into writes values ('before')");
    }
    // PostgreSQL has the new password, nobody else knows it yet.
    setup.cluster.nodes[0].run("alter role turning password 'second'");
    setup.cluster.settle(0);
    setup.cluster.nodes[0].kill();
    for client in &mut clients {
        client.start_query("insert into writes values ('after')");
    }
    setup.cluster.nodes[1].promote();
    // When the new primary refuses the first password again, everybody has outlived the first time.
    let refusals = || setup.cluster.nodes[1].log().matches(REFUSED).count();
    eventually("the first password is tried twice", SOON, || refusals() >= 2);
    assert!(clients.iter().all(WireClient::has_no_input), "with which password?");
    write(&setup.cluster.directory().join("secret"), "second");
    for client in &mut clients {
        client.read_reply().no_error();
    }
    assert_eq!((setup.count(1, "before"), setup.count(1, "after")), ("5".into(), "5".into()));
    // Applications go on with the first, and those that have the second may use it.
    for password in ["first", "second"] {
        log_in(&setup, password).ok("insert into writes values ('later')");
    }
    let refused = setup.proxy.connect().log_in(&Login::new("turning", "app", "third"));
    let error = refused.expect_err("a wrong password").last().expect("a message").error();
    assert_eq!(error.code, "28P01");
}

#[test]
fn failover_that_loses_a_rotation_falls_back_to_the_previous_password() {
    let mut setup = start();
    let mut client = log_in(&setup, "first");
    client.ok("select 1");
    setup.cluster.settle(0);
    // The replica never hears of the new password.
    setup.cluster.nodes[1].stop_receiving();
    setup.cluster.nodes[0].run("alter role turning password 'second'");
    write(&setup.cluster.directory().join("secret"), "second");
    eventually("the second is used", SOON, || {
        let rows = setup.proxy.console("show credentials");
        rows.iter().flatten().any(|(name, value)| name == "accepted_generations" && value == "2")
    });
    setup.cluster.nodes[0].kill();
    setup.cluster.nodes[1].promote();
    client.ok("insert into writes values ('with the previous')");
    assert_eq!(setup.count(1, "with the previous"), "1");
    // Vault sets it again, as it would.
    setup.cluster.nodes[1].run("alter role turning password 'second'");
    log_in(&setup, "second").ok("insert into writes values ('with the second')");
}
