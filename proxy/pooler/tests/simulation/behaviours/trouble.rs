//! Cancel requests and servers that cannot be reached.

use std::time::Duration;

use pgimbal_pooler::server::ServerState;
use pgimbal_pooler::session::Link;
use pgimbal_pooler::session::drain::time::DrainTime;

use crate::client::Stage;
use crate::message as m;
use crate::world::{REFUSAL, World, pool};

#[test]
fn behaviour_46_a_server_is_released_only_after_the_cancels_for_it_have_ended() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.join(1);
    world.say(0, &m::query("sleep 'c0.1'"));
    world.cancel_of(0);
    // The statement ends before the cancel request arrives.
    world.finish("c0.1");
    world.deliver_output();
    assert_eq!(world.heard(0)[1], "D c0.1");
    assert!(world.server_of(0).is_none());
    world.say_only(1, &m::query("sleep 'c1.1'"));
    assert!(matches!(world.session(1).link(), Link::Waiting(_)), "it could be hit");
    world.settle();
    assert!(world.server_of(1).is_some(), "the cancel has hit nobody");
    world.finish("c1.1");
    world.settle();
    assert_eq!(world.heard(1)[1], "D c1.1");
}

#[test]
fn behaviour_46_at_cancel_wait_timeout_the_server_is_closed_instead() {
    let mut config = pool(1);
    config.cancel_wait_timeout = Duration::from_secs(3);
    let mut world = World::scripted(config);
    world.join(0);
    world.say(0, &m::query("sleep 'c0.1'"));
    world.cancel_of(0);
    world.finish("c0.1");
    world.deliver_output();
    let id = world.peers[0].id();
    let state = |world: &World| world.poolers[0].server(id).expect("a server").state();
    assert!(matches!(state(&world), ServerState::AwaitingCancels(_)));
    world.pass(Duration::from_secs(2));
    assert!(matches!(state(&world), ServerState::AwaitingCancels(_)));
    world.pass(Duration::from_secs(2));
    assert_eq!(state(&world), ServerState::Closing);
}

#[test]
fn behaviour_46_a_cancel_hits_what_its_client_runs() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.say(0, &m::query("sleep 'c0.1'"));
    world.cancel_of(0);
    world.settle();
    assert_eq!(world.heard(0)[..2], ["T", "E 57014 canceling statement due to user request"]);
    assert_eq!(world.idle(), 1);
}

#[test]
fn behaviour_47_a_waiting_client_is_taken_out_of_the_queue() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.join(1);
    world.say(0, &m::query("begin"));
    world.say(1, &m::query("select 'c1.1'"));
    world.clients[1].disturb();
    world.cancel_of(1);
    world.settle();
    assert_eq!(world.heard(1), ["E 57014 canceling statement due to user request", "Z I"]);
    assert_eq!(world.session(1).link(), Link::Unlinked);
    world.say(0, &m::query("commit"));
    assert_eq!(world.say(1, &m::query("select 'c1.2'"))[1], "D c1.2");
}

/// Two clients, and no server that would let anybody in from now on.
fn refused(size: u32) -> World {
    let mut world = World::scripted(pool(size));
    world.join(0);
    world.join(1);
    world.join(2);
    world.refuse_dials();
    world
}

#[test]
fn behaviour_43_one_attempt_and_every_waiter_gets_the_servers_error() {
    let mut world = refused(3);
    world.peers[0].backend.die(None);
    world.settle();
    let before = world.peers.len();
    for number in 0..3 {
        world.say_only(number, &m::query("select 'c0.9'"));
    }
    assert_eq!(world.peers.len(), before + 1, "one attempt for all of them");
    world.settle();
    for number in 0..3 {
        assert_eq!(world.heard(number), [format!("E 53300 {REFUSAL}"), "Z I".into()]);
    }
    assert_eq!(world.say(0, &m::query("select 'c0.9'"))[0], format!("E 53300 {REFUSAL}"));
    assert_eq!(world.peers.len(), before + 1, "and no other during the pause");
}

#[test]
fn behaviour_55_while_another_server_lives_waiters_wait() {
    let mut world = refused(2);
    world.say(0, &m::query("begin"));
    assert!(world.say(1, &m::query("select 'c1.1'")).is_empty());
    assert!(matches!(world.session(1).link(), Link::Waiting(_)));
    world.say(0, &m::query("commit"));
    assert_eq!(world.heard(1)[1], "D c1.1");
}

#[test]
fn behaviour_52_draining_lets_a_transaction_end() {
    let mut world = World::scripted(pool(2));
    world.join(0);
    world.join(1);
    world.say(0, &m::query("begin"));
    let now = world.now;
    world.poolers[0].drain(DrainTime { begin: now, end: now }, now);
    world.take_actions(0);
    world.settle();
    assert_eq!(world.heard(1), ["E 57P01 pgimbal is shutting down"]);
    assert_eq!(world.clients[0].stage, Stage::Open);
    let said = world.say(0, &m::query("commit"));
    assert_eq!(said, ["C COMMIT", "Z I", "E 57P01 pgimbal is shutting down"]);
    assert!(!world.poolers[0].has_sessions());
}
