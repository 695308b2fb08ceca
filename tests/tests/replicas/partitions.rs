//! The replicas do not reach each other, or their store, or neither.

use std::time::{Duration, Instant};

use pgimbal_tests::Relay;
use pgimbal_tests::until::{SOON, always, eventually};

use super::load::Load;
use super::setup::{Setup, away, reads};

/// How long nothing is reachable: longer than the 5 s after which a replica counts as silent.
fn span() -> Duration {
    away(Duration::from_secs(7))
}

/// The longest that somebody may wait for an answer: the time limit of a request between replicas
/// is 2 s, and nobody waits for one.
const PAUSE: Duration = Duration::from_millis(1500);

#[test]
fn replicas_clients_see_nothing_while_links_break() {
    let setup = Setup::start();
    let load = Load::start(&setup.deployment, &setup.cluster.nodes[0], 4, &reads());
    load.wait_until_each_is_served();
    let deployment = &setup.deployment;
    // One direction of one link after the other: each side sees something else.
    for (from, to) in [(0, 1), (1, 0), (2, 0), (1, 2)] {
        deployment.link(from, to).cut();
        load.wait_until_each_is_served();
        deployment.link(from, to).heal();
    }
    // One replica alone, in three ways; the last for so long that it counts as silent.
    for (index, cut) in
        [Relay::cut as fn(&Relay), Relay::lose_answers, Relay::freeze].into_iter().enumerate()
    {
        deployment.links_of(index).for_each(cut);
        let span = if index == 2 { span() } else { Duration::from_secs(1) };
        always("nobody sees an error", span, || load.errors().is_empty());
        if index == 2 {
            // On a busy machine what was under way is heard a moment later.
            eventually("it counts as silent", SOON, || {
                [0, 1, 2].map(|index| deployment.heard_by(index)) == [1, 1, 0]
            });
        }
        deployment.heal();
    }
    let healed = Instant::now();
    deployment.wait_until_joined();
    eprintln!("all hear each other {:?} after the links were whole", healed.elapsed());
    load.wait_until_each_is_served();
    load.stop().nothing_but_answers(PAUSE);
}

#[test]
fn replicas_clients_see_nothing_while_peers_and_store_are_away() {
    let setup = Setup::start();
    let load = Load::start(&setup.deployment, &setup.cluster.nodes[0], 4, &reads());
    load.wait_until_each_is_served();
    let deployment = &setup.deployment;
    deployment.take_store_away();
    deployment.links().for_each(Relay::lose);
    always("nobody sees an error", span(), || load.errors().is_empty());
    load.wait_until_each_is_served();
    let hears = |index| deployment.heard_by(index);
    eventually("nobody hears another", SOON, || [0, 1, 2].map(hears) == [0; 3]);
    deployment.bring_store_back();
    deployment.heal();
    let healed = Instant::now();
    deployment.wait_until_joined();
    eprintln!("all hear each other {:?} after everything was back", healed.elapsed());
    load.wait_until_each_is_served();
    load.stop().nothing_but_answers(PAUSE);
}
