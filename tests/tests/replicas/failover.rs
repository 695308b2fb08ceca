//! The primary dies while the replicas do not reach each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pgimbal_tests::Relay;
use pgimbal_tests::until::{SOON, eventually};

use super::setup::Setup;

/// How many rows node `index` has in `writes`.
fn count(setup: &Setup, index: usize) -> u64 {
    setup.cluster.nodes[index].value("select count(*) from writes").parse().expect("a count")
}

#[test]
fn replicas_all_write_to_the_new_primary_only_when_it_changes_in_a_partition() {
    let mut setup = Setup::start();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..6)
        .map(|number| {
            let (mut client, stop) = (setup.client(number % 3), Arc::clone(&stop));
            thread::spawn(move || {
                let mut done = Vec::new();
                for turn in 0.. {
                    let id = format!("{number}-{turn}");
                    let reply = client.query(&format!("insert into writes values ('{id}')"));
                    match reply.errors().first().map(|error| error.code.as_str()) {
                        None => done.push(id),
                        // In flight at the kill: rolled back, or nobody knows.
                        Some("57P01" | "08007") => {}
                        Some(code) => panic!("{code}: {reply:?}"),
                    }
                    if stop.load(Ordering::Relaxed) {
                        return done;
                    }
                    thread::sleep(std::time::Duration::from_millis(5));
                }
                unreachable!("an endless loop")
            })
        })
        .collect();
    eventually("they write", SOON, || count(&setup, 0) > 100);
    setup.deployment.links().for_each(Relay::lose);
    setup.deployment.take_store_away();
    setup.cluster.nodes[0].kill();
    setup.cluster.nodes[1].promote();
    let before = count(&setup, 1);
    eventually("they write to the new one", SOON, || count(&setup, 1) > before + 100);
    // The old one returns as it was, a primary.
    setup.cluster.nodes[0].start();
    let old = count(&setup, 0);
    for replica in 0..3 {
        setup.wait_for_state(replica, "n1", "quarantined");
    }
    setup.deployment.heal();
    setup.deployment.bring_store_back();
    setup.deployment.wait_until_joined();
    stop.store(true, Ordering::Relaxed);
    let done: Vec<String> =
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect();
    assert_eq!(count(&setup, 0), old, "somebody wrote to the old primary");
    // Without synchronous replication the last writes before the kill may be lost; those that were
    // acknowledged after it are not.
    let new = count(&setup, 1);
    assert!(new > before + 100 && done.len() as u64 + 6 >= new, "{} and {new}", done.len());
}

#[test]
fn replicas_one_that_has_missed_a_failover_does_not_write_to_the_old_primary() {
    let mut setup = Setup::start();
    setup.deployment.replicas[2].kill();
    setup.cluster.nodes[0].kill();
    setup.cluster.nodes[1].promote();
    for replica in [0, 1] {
        setup.wait_for_state(replica, "n2", "primary");
    }
    setup.client(0).ok("insert into writes values ('after the failover')");
    // The new one stands still, and the old one is back: the only one that answers.
    let frozen = setup.cluster.nodes[1].freeze();
    setup.cluster.nodes[0].start();
    setup.deployment.replicas[2].restart();
    setup.wait_for_state(2, "n1", "quarantined");
    assert!(!setup.is_writable(2), "it would write to the old primary");
    assert_eq!(setup.cluster.nodes[0].backends(), 0);
    frozen.thaw();
    // Its own client reads what the other replica's client has written.
    setup.wait_until_writable(2);
    let mut client = setup.client(2);
    assert_eq!(client.value("select id from writes"), "after the failover");
    client.ok("insert into writes values ('through another')");
    assert_eq!((count(&setup, 0), count(&setup, 1)), (0, 2));
}
