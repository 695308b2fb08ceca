//! One replica ends without a word, is a double, or has a wrong clock.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::until::{SOON, eventually};

use super::load::{Load, Work};
use super::setup::{Setup, reads, rows};

/// The library of Debian's package `libfaketime`.
fn fake_time() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
    let libraries = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    libraries.into_iter().find(|path| path.exists()).expect("libfaketime: run tests/set-up")
}

#[test]
fn replicas_a_kill_is_noticed_by_its_own_clients_only() {
    let mut setup = Setup::start();
    let work = Work { pause: Duration::from_millis(5), ..reads() };
    let load = Load::start(&setup.deployment, &setup.cluster.nodes[0], 4, &work);
    load.wait_until_each_is_served();
    for round in 0..2 {
        // The others' clients are served while it is away and when it is back.
        setup.deployment.replicas[1].kill();
        load.shift(&[4, 0, 4]);
        load.wait_until_each_is_served();
        if round == 1 {
            // Long enough for the others to call it silent.
            let heard = |index: usize| setup.deployment.heard_by(index);
            eventually("it is silent", SOON, || heard(0) == 1 && heard(2) == 1);
            load.wait_until_each_is_served();
        }
        setup.deployment.replicas[1].restart();
        setup.deployment.wait_until_joined();
        load.shift(&[4, 4, 4]);
        load.wait_until_each_is_served();
    }
    let mut seen = load.stop();
    seen.errors.retain(|error| !error.starts_with("r2:"));
    seen.nothing_but_answers(Duration::from_millis(1500));
}

#[test]
fn replicas_two_with_one_peer_id_are_named_and_their_cancels_work() {
    let setup = Setup::before(Cluster::start(0), |index, config| {
        config.peers("peer_id", if index == 0 { 5 } else { 7 })
    });
    for (replica, other) in [(1, "r3"), (2, "r2"), (0, "r2")] {
        eventually("the log names them", SOON, || {
            let log = setup.replica(replica).log();
            log.lines().any(|line| line.contains("peer id") && line.contains(other))
        });
    }
    for (home, through) in [(1, 2), (2, 1), (1, 0), (2, 0), (0, 2)] {
        let mut client = setup.client(home);
        client.start_query("select pg_sleep(60)");
        let running = || setup.cluster.nodes[0].running("pg_sleep(60)") == 1;
        eventually("the query runs", SOON, running);
        client.cancel(setup.replica(through).port);
        assert_eq!(client.read_reply().sqlstate(), "57014", "r{} of r{}", through + 1, home + 1);
    }
}

#[test]
fn replicas_a_clock_that_is_an_hour_off_changes_nothing() {
    let preload = format!("LD_PRELOAD={}", fake_time().display());
    // Its timers are right: a clock that is set is not one that runs at another speed.
    let launcher = [
        "env",
        &preload,
        "FAKETIME=+1h",
        "DONT_FAKE_MONOTONIC=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    ];
    let setup = Setup::before(Cluster::start(1), |index, config| match index {
        1 => config.through(&launcher),
        _ => config,
    });
    let load = Load::start(&setup.deployment, &setup.cluster.nodes[0], 3, &reads());
    load.wait_until_each_is_served();
    // Decisions of the one that is ahead do not win over later ones of the others.
    for (by, command, writable) in
        [(1, "hold c", false), (0, "resume c", true), (2, "hold c", false), (1, "resume c", true)]
    {
        setup.command(by, command);
        for replica in 0..3 {
            eventually(&format!("{command} of r{}", by + 1), SOON, || {
                setup.is_writable(replica) == writable
            });
        }
    }
    load.wait_until_each_is_served();
    assert!(load.stop().errors.is_empty());
    let peers = rows(setup.replica(0), "show peers");
    assert!(peers.len() >= 2, "{peers:?}");
}
