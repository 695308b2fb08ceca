//! What an operator says at one replica holds at all of them, and after restarts.

use std::thread::JoinHandle;
use std::time::Duration;

use pgimbal_tests::cluster::{Cluster, End};
use pgimbal_tests::until::{SOON, always, eventually};
use pgimbal_tests::{Relay, Reply, WireClient};

use super::setup::{Setup, app, rows};

const INSERT: &str = "insert into writes values ('x')";

/// A client whose write waits.
struct Held(JoinHandle<Reply>);

impl Held {
    /// Waits until `replica` holds, and starts a client there. Where nobody has logged in before,
    /// its login waits: what the server would say of itself is not known.
    fn at(setup: &Setup, replica: usize) -> Self {
        eventually("the replica holds", SOON, || !setup.is_writable(replica));
        let port = setup.replica(replica).port;
        let held = Self(std::thread::spawn(move || {
            let mut client = WireClient::tcp(port);
            client.set_timeout(SOON * 4);
            client.log_in(&app()).expect("a login");
            client.query(INSERT)
        }));
        always("it waits", Duration::from_millis(300), || !held.0.is_finished());
        held
    }

    /// The write is done.
    fn written(self) {
        let reply = self.0.join().expect("a client");
        assert_eq!(reply.no_error().commands(), ["INSERT 0 1"]);
    }
}

fn start() -> Setup {
    Setup::with(|config| config.cluster("failover_hold", "\"60s\""))
}

#[test]
fn replicas_hold_and_resume_at_one_act_on_all() {
    let setup = start();
    let answers = setup.command(0, "hold c");
    let mut names: Vec<String> = answers.iter().map(|row| row["replica"].clone()).collect();
    names.sort_unstable();
    assert_eq!(names, ["r1", "r2", "r3"], "{answers:?}");
    // It has acted on all when it is answered.
    for replica in 0..3 {
        assert!(!setup.is_writable(replica), "r{}", replica + 1);
    }
    let clients: Vec<Held> = (0..3).map(|replica| Held::at(&setup, replica)).collect();
    setup.command(1, "resume c");
    clients.into_iter().for_each(Held::written);
    // Said by whom it may: the last word counts everywhere.
    for (by, command, writable) in
        [(2, "hold c", false), (0, "resume", true), (1, "hold c", false), (1, "resume c", true)]
    {
        setup.command(by, command);
        for replica in 0..3 {
            eventually(&format!("{command} of r{}", by + 1), SOON, || {
                setup.is_writable(replica) == writable
            });
        }
    }
}

#[test]
fn replicas_hold_outlives_restarts_and_reaches_who_was_away() {
    let mut setup = start();
    // The third is not there, the second cannot be reached: it hears it from the store.
    setup.deployment.replicas[2].kill();
    setup.deployment.links_of(1).for_each(Relay::cut);
    setup.command(0, "hold c");
    eventually("r2 has read it from the store", SOON, || !setup.is_writable(1));
    setup.deployment.replicas[2].restart();
    let left = Held::at(&setup, 2);
    setup.deployment.heal();
    // All of them end at once, and nobody is left who could tell.
    for replica in &mut setup.deployment.replicas {
        replica.kill();
    }
    assert!(left.0.join().is_err(), "it had an answer");
    for replica in &mut setup.deployment.replicas {
        replica.restart();
    }
    let clients: Vec<Held> = (0..3).map(|replica| Held::at(&setup, replica)).collect();
    setup.deployment.wait_until_joined();
    // RESUME while one is not there.
    setup.deployment.replicas[1].kill();
    setup.command(2, "resume c");
    setup.deployment.replicas[1].restart();
    setup.wait_until_writable(1);
    setup.client(1).ok(INSERT);
    for (replica, client) in clients.into_iter().enumerate().filter(|(index, _)| *index != 1) {
        setup.wait_until_writable(replica);
        client.written();
    }
}

#[test]
fn replicas_hold_reaches_the_others_while_the_store_is_away() {
    let mut setup = start();
    setup.deployment.take_store_away();
    setup.command(1, "hold c");
    let clients: Vec<Held> = (0..3).map(|replica| Held::at(&setup, replica)).collect();
    // One that restarts learns it from the others.
    setup.deployment.replicas[0].restart();
    setup.deployment.wait_until_joined();
    let again = Held::at(&setup, 0);
    setup.deployment.bring_store_back();
    eventually("the store knows it", SOON, || {
        std::fs::metadata(setup.deployment.store_file()).is_ok()
    });
    setup.command(2, "resume");
    // The first one's connection ended with its replica.
    clients.into_iter().skip(1).for_each(Held::written);
    again.written();
}

#[test]
fn replicas_what_both_sides_of_a_partition_decide_ends_in_one_decision() {
    let setup = start();
    let is_writable = |replica: usize| setup.is_writable(replica);
    setup.deployment.take_store_away();
    setup.deployment.links().for_each(Relay::lose);
    // Each speaks for itself; the third has said more, and last.
    setup.command(0, "hold c");
    for command in ["hold c", "resume c", "hold c", "resume c"] {
        setup.command(2, command);
    }
    eventually("they disagree", SOON, || [0, 1, 2].map(is_writable) == [false, true, true]);
    setup.deployment.heal();
    setup.deployment.wait_until_joined();
    eventually("the others tell the first", SOON, || [0, 1, 2].map(is_writable) == [true; 3]);
    // With neither the store nor another replica it is what they have.
    setup.deployment.bring_store_back();
    always("it stays so", Duration::from_secs(2), || [0, 1, 2].map(is_writable) == [true; 3]);
}

#[test]
fn replicas_adopt_at_one_is_known_to_all_and_after_a_restart() {
    let mut setup =
        Setup::before(Cluster::start(1), |_, config| config.cluster("failover_hold", "\"1s\""));
    // The second node is promoted, is written to, and is lost with what it has; the first is what
    // a restore leaves.
    setup.cluster.nodes[0].end(End::Fast);
    setup.cluster.nodes[1].promote();
    for replica in 0..3 {
        setup.wait_for_state(replica, "n2", "primary");
    }
    setup.client(2).ok(INSERT);
    setup.cluster.nodes[1].kill();
    setup.cluster.nodes[0].start();
    for replica in 0..3 {
        setup.wait_for_state(replica, "n1", "quarantined");
        assert!(!setup.is_writable(replica));
    }
    // A restart makes nobody forget it: the store has the timeline.
    setup.deployment.replicas[1].restart();
    setup.wait_for_state(1, "n1", "quarantined");
    assert_eq!(setup.cluster.nodes[0].backends(), 0);
    setup.command(0, "adopt node c.n1");
    for replica in 0..3 {
        setup.wait_until_writable(replica);
        setup.client(replica).ok(INSERT);
    }
    for replica in &mut setup.deployment.replicas {
        replica.kill();
    }
    for replica in &mut setup.deployment.replicas {
        replica.restart();
    }
    for replica in 0..3 {
        setup.wait_until_writable(replica);
        setup.client(replica).ok(INSERT);
        let why = setup.node(replica, "n1", "state");
        assert_eq!(why, "primary", "{:?}", rows(setup.replica(replica), "show nodes"));
    }
    let count = setup.cluster.nodes[0].value("select count(*) from writes");
    assert_eq!(count, "6", "each of {:?} wrote to n1", app().parameters);
}
