//! Questions, resets and trials that something comes in the way of.

use std::time::Duration;

use pgimbal_pooler::session::{Link, Presence};

use crate::client::{Client, Stage};
use crate::message as m;
use crate::postgres::Balk;
use crate::world::{World, pool};

/// Client 0 has run code that has set something, and the question about it is on its way.
fn asked() -> World {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.join(1);
    // What is asked about the database comes first.
    world.say(0, &m::query("select set_config('work_mem', '4MB', true)"));
    world.say_only(0, &m::query("do $$set work_mem to '9MB'; create temp table t1$$"));
    while world.server_of(0).is_some_and(|server| !server.is_being_asked()) {
        world.deliver_output();
    }
    assert!(world.server_of(0).expect("a server").is_being_asked());
    world
}

fn nothing_is_left(world: &mut World) {
    let said = world.say(1, &m::query("inspect"));
    assert!(said[1].contains("work_mem=4MB") && said[1].ends_with("{} {} 0"), "{said:?}");
}

#[test]
fn a_client_that_leaves_while_it_is_asked_about_leaves_nothing() {
    for presence in [Presence::Vanished, Presence::Terminated] {
        let mut world = asked();
        match presence {
            Presence::Terminated => world.say_only(0, &m::terminate()),
            _ => world.vanish(0),
        }
        world.settle();
        assert!(world.clients[0].session.is_none());
        nothing_is_left(&mut world);
        assert_eq!(world.open(), 1, "it serves on");
    }
}

#[test]
fn what_is_pipelined_behind_a_question_waits_for_its_answer() {
    let mut world = asked();
    world.say_only(0, &m::query("show work_mem"));
    world.settle();
    let heard = world.heard(0);
    assert_eq!(heard[heard.len() - 3], "D 9MB");
    assert!(world.session(0).pin().reasons().eq(["temporary_table"]));
    let said = world.say(0, &m::query("drop table t1"));
    assert_eq!(said, ["C DROP TABLE", "Z I"]);
    assert!(world.server_of(0).is_none());
    nothing_is_left(&mut world);
    assert_eq!(world.say(0, &m::query("show work_mem"))[1], "D 9MB");
}

#[test]
fn a_cancel_does_not_reach_a_question() {
    let mut world = asked();
    world.cancel_of(0);
    let server = world.server_of(0).expect("a server");
    assert!(!server.awaits_cancels(), "nothing of the client's runs");
    world.settle();
    assert!(world.session(0).pin().reasons().eq(["temporary_table"]));
}

#[test]
fn a_question_that_is_refused_is_asked_again() {
    let mut world = asked();
    world.peers[0].backend.balks = Some(Balk::Question("57014"));
    world.settle();
    assert!(world.session(0).pin().reasons().eq(["unknown"]));
    world.say(0, &m::query("drop table t1"));
    assert!(world.server_of(0).is_none(), "it was answered");
    nothing_is_left(&mut world);
    assert_eq!(world.say(0, &m::query("show work_mem"))[1], "D 9MB");
}

#[test]
fn a_server_that_breaks_while_it_is_asked_takes_the_state_with_it() {
    let mut world = asked();
    world.heard(0);
    world.clients[0].disturb();
    world.peers[0].backend.die(None);
    world.peers[0].backend.output.clear();
    world.settle();
    assert_eq!(world.heard(0), [""; 0], "it has got all its answers");
    assert_eq!(world.say(0, &m::query("show work_mem"))[1], "D 4MB");
    assert_eq!(world.shared.pinned_count(), 0);
}

#[test]
fn a_question_that_is_not_answered_lets_its_client_go_on() {
    let mut world = asked();
    world.say_only(0, &m::query("select 'c0.1'"));
    world.pass(Duration::from_secs(2));
    assert!(world.session(0).pin().has(pgimbal_pooler::session::pin::PinReason::Unknown));
    world.settle();
    assert_eq!(world.heard(0).iter().filter(|line| *line == "D c0.1").count(), 1);
}

#[test]
fn what_is_sent_behind_a_late_question_is_asked_about_too() {
    let mut world = asked();
    world.say_only(0, &m::query("do $$select pg_advisory_lock(1)$$"));
    world.pass(Duration::from_secs(2));
    world.drive_client(0);
    assert_eq!(world.server_of(0).expect("a server").pending().len(), 2, "it did not wait");
    world.settle();
    assert!(world.session(0).pin().reasons().any(|reason| reason == "advisory_lock"));
}

#[test]
fn locks_outlive_the_statement_that_failed_behind_them() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.say(0, &m::query("do $$select pg_advisory_lock(1); fail 'c0.1'$$"));
    assert!(world.session(0).pin().reasons().eq(["advisory_lock"]));
    world.say(0, &m::query("select pg_advisory_unlock(1)"));
    assert!(world.server_of(0).is_none());
}

#[test]
fn a_temporary_table_that_goes_with_its_transaction_pins_nobody() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    for last in ["rollback", "drop table t1; commit"] {
        world.say(0, &["begin", "create temp table t1", last].map(m::query).concat());
        assert!(world.server_of(0).is_none(), "{last}");
    }
}

/// A desk with one server connection, on which client 0 wants a setting that was not tried yet.
fn on_trial(value: &str) -> World {
    let mut world = World::scripted(pool(1));
    world.join(1);
    world.clients[0] = Client::new(0, 0, vec![("search_path".into(), value.into())], 0);
    world.clients[0].ready_spare = 9;
    world
}

#[test]
fn startup_values_are_tried_before_the_greeting() {
    let mut world = on_trial("mine");
    world.join(0);
    assert_eq!(world.say(0, &m::query("show search_path"))[1], "D mine");
    nothing_is_left(&mut world);
    let mut world = on_trial("Bad");
    world.client_logs_in(0);
    world.settle();
    assert_eq!(world.clients[0].stage, Stage::Gone);
    assert!(world.heard(0)[0].starts_with("E 22023"));
    nothing_is_left(&mut world);
    assert_eq!(world.open(), 1);
}

#[test]
fn a_trial_waits_for_a_server_connection_and_outlives_its_death() {
    let mut world = on_trial("mine");
    world.say(1, &m::query("begin"));
    world.client_logs_in(0);
    world.settle();
    assert!(matches!(world.session(0).link(), Link::Waiting(_)));
    world.say_only(1, &m::query("commit"));
    while !matches!(world.session(0).link(), Link::Setup(_)) {
        world.deliver_output();
        world.land_dials();
    }
    world.peers[0].backend.die(None);
    world.settle();
    assert_eq!(world.clients[0].stage, Stage::Open, "another connection has checked them");
    world.heard(0);
    assert_eq!(world.say(0, &m::query("show search_path"))[1], "D mine");
}

#[test]
fn a_client_that_leaves_on_trial_leaves_nothing() {
    let mut world = on_trial("mine");
    world.client_logs_in(0);
    assert!(matches!(world.session(0).link(), Link::Setup(_)));
    world.vanish(0);
    world.settle();
    assert!(world.clients[0].session.is_none());
    let said = world.say(1, &m::query("show search_path"));
    assert_eq!(said[1], "D public");
}

#[test]
fn settings_that_were_refused_at_once_are_set_one_by_one() {
    for leaves in [false, true] {
        let mut world = World::scripted(pool(1));
        world.join(0);
        world.join(1);
        world.say(0, &m::query("set work_mem to '9MB'"));
        world.say(0, &m::query("set application_name to 'nine'"));
        world.say(1, &m::query("select 'c1.1'"));
        world.peers[0].backend.balks = Some(Balk::Settings("42501"));
        world.say_only(0, &m::query("inspect"));
        if leaves {
            world.vanish(0);
            world.settle();
        } else {
            world.settle();
            assert!(world.heard(0)[1].contains("application_name=nine"), "it was healed");
        }
        nothing_is_left(&mut world);
    }
}

#[test]
fn what_is_to_be_taken_off_goes_with_a_connection_that_moves() {
    let mut shape = World::scripted(pool(1)).shape.clone();
    shape.workers = 2;
    let mut world = World::desk_of(shape);
    world.clients[1].worker = 1;
    world.join(0);
    world.join(1);
    // Under a name that no text shows.
    world.say(0, &m::query("do $$set my.var to 'c0.1'; insert 'c0.2'$$"));
    let idle = world.poolers[0].idle_servers().next().expect("one that is idle");
    let carries = |world: &World, worker: usize, id| {
        let server = world.poolers[worker].server(id).expect("a server");
        !server.residue().is_empty()
    };
    assert!(carries(&world, 0, idle));
    world.say(1, &m::query("inspect"));
    world.now += Duration::from_millis(2);
    let now = world.now;
    world.poolers[1].handle_timeout(now);
    world.take_actions(1);
    world.settle();
    let said = world.heard(1);
    assert!(!said[1].contains("my.var"), "{said:?}");
}
