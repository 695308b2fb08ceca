//! Linking a client to a server connection.

use std::sync::Arc;
use std::time::Duration;

use pgimbal_pooler::ids::WorkerId;
use pgimbal_pooler::session::Link;

use super::{prepare_and_run, segment};
use crate::message as m;
use crate::world::{World, pool};

#[test]
fn behaviour_01_released_only_when_idle_settled_and_flushed() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.say(0, &m::query("begin"));
    assert!(world.server_of(0).is_some(), "a transaction holds its server");
    world.say(0, &m::query("commit"));
    assert!(world.server_of(0).is_none());
    // A segment without its Sync, answered by Flush, holds it too.
    world.say(0, &[m::parse("", "select $1"), m::flush()].concat());
    assert!(world.server_of(0).is_some(), "an open segment holds its server");
    world.say(0, &m::sync());
    assert!(world.server_of(0).is_none());
    // Replies that are still pending hold it.
    world.say_only(0, &[m::query("select 'c0.1'"), m::query("select 'c0.2'")].concat());
    assert!(world.server_of(0).is_some());
    world.settle();
    assert!(world.server_of(0).is_none());
}

#[test]
fn behaviour_02_a_transaction_of_a_vanished_client_is_rolled_back() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.say(
        0,
        &[m::query("begin"), m::query("insert 'c0.1'"), m::query("set work_mem to '9'")].concat(),
    );
    world.vanish(0);
    world.settle();
    assert_eq!(world.idle(), 1, "it serves on");
    assert!(world.peers[0].backend.committed.is_empty());
    world.join(1);
    let shown = world.say(1, &m::query("show work_mem"));
    assert_eq!(shown[1], "D 4MB");
}

#[test]
fn behaviour_02_a_segment_cut_in_half_takes_its_server_with_it() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.say(0, &[m::parse("", "insert $1"), m::bind("", "", "c0.1"), m::execute("", 0)].concat());
    world.vanish(0);
    world.settle();
    assert_eq!(world.open(), 0);
    assert!(world.peers[0].backend.committed.is_empty());
}

#[test]
fn behaviour_03_what_runs_for_a_vanished_client_is_cancelled_and_its_slot_stays_taken() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.join(1);
    world.say(0, &m::query("sleep 'c0.1'"));
    world.vanish(0);
    world.say_only(1, &m::query("select 'c1.1'"));
    assert_eq!(world.shared.open_count(), 1, "the backend still runs");
    assert!(matches!(world.session(1).link(), Link::Waiting(_)));
    world.settle();
    assert!(world.peers[0].backend.cancelled.contains("c0.1"));
    assert_eq!(world.heard(1)[1], "D c1.1");
    assert_eq!(world.poolers[0].pools().map(|pool| pool.stats().cancels).sum::<u64>(), 1);
}

#[test]
fn behaviour_03_a_commit_is_never_cancelled() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.say(0, &m::query("begin; insert 'c0.1'; sleep 'c0.2'; commit"));
    world.vanish(0);
    world.settle();
    assert!(world.peers[0].backend.cancelled.is_empty());
    world.wake_all();
    assert_eq!(world.peers[0].backend.committed, ["c0.1"]);
    assert_eq!(world.idle(), 1);
}

#[test]
fn behaviour_03_a_pipelined_commit_is_never_cancelled() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    let all = [
        m::query("begin"),
        m::query("insert 'c0.1'"),
        m::query("select 'c0.2'; commit; sleep 'c0.3'"),
    ];
    world.say(0, &all.concat());
    world.vanish(0);
    world.settle();
    world.wake_all();
    assert_eq!(world.peers[0].backend.committed, ["c0.1"]);
}

#[test]
fn behaviour_04_everything_before_terminate_runs() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    let first = prepare_and_run("", "insert $1", "c0.1");
    world.say(0, &[first, m::query("insert 'c0.2'"), m::terminate()].concat());
    assert_eq!(world.peers[0].backend.committed, ["c0.1", "c0.2"]);
    assert_eq!((world.idle(), world.clients[0].session), (1, None));
}

#[test]
fn behaviour_05_an_error_on_an_idle_server_removes_it_a_notice_does_not() {
    for (message, stays) in [
        (m::report(b'N', "NOTICE", "00000", "hello"), true),
        (m::parameter_status("TimeZone", "CET"), true),
        (m::message(b'A', b"\0\0\0\x01channel\0payload\0"), true),
        (m::report(b'E', "ERROR", "XX000", "what?"), false),
        (m::message(b'C', b"SELECT 1\0"), false),
    ] {
        let mut world = World::scripted(pool(1));
        world.join(0);
        world.peers[0].backend.output.extend(message);
        world.settle();
        assert_eq!(world.idle(), usize::from(stays));
    }
}

#[test]
fn behaviour_06_an_idle_server_that_died_is_invisible() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.peers[0].backend.die(None);
    let said = world.say(0, &m::query("select 'c0.1'"));
    assert_eq!(said, ["T", "D c0.1", "C SELECT 1", "Z I"]);
}

#[test]
fn behaviour_06_a_client_idle_in_a_transaction_learns_of_the_death_at_its_next_message() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.say(0, &m::query("begin"));
    world.clients[0].disturb();
    world.peers[0].backend.die(Some("terminating connection due to administrator command"));
    world.settle();
    assert!(world.heard(0).is_empty(), "nothing before it asks");
    let text = "terminating connection due to administrator command";
    assert_eq!(world.say(0, &m::query("select 'c0.1'")), [format!("E 57P01 {text}"), "Z E".into()]);
    let next = world.say(0, &prepare_and_run("", "select $1", "c0.2"));
    assert_eq!(next.len(), 2);
    assert!(next[0].starts_with("E 25P02") && next[1] == "Z E");
    assert_eq!(world.say(0, &m::query("rollback")), ["C ROLLBACK", "Z I"]);
    assert_eq!(world.say(0, &m::query("select 'c0.3'"))[1], "D c0.3");
}

#[test]
fn behaviour_06_a_death_in_the_middle_of_a_pipeline_is_told_once_for_each_sync() {
    let mut config = pool(1);
    config.failover_hold = None;
    let mut world = World::scripted(config);
    world.join(0);
    world.say(0, &m::query("sleep 'c0.1'"));
    world.clients[0].disturb();
    let open = [m::parse("", "select $1"), m::bind("", "", "c0.4"), m::execute("", 0)].concat();
    world.say_only(
        0,
        &[m::query("select 'c0.2'"), prepare_and_run("", "select $1", "c0.3"), open].concat(),
    );
    world.peers[0].backend.die(None);
    world.settle();
    let error =
        "E 08007 the server connection was lost; whether the statement took effect is not known";
    let unsent = "E 57P01 the server connection was lost, and what it ran is rolled back";
    assert_eq!(world.heard(0), [error, "Z I", error, "Z I", error, "Z I", unsent]);
    assert_eq!(world.say(0, &m::sync()), ["Z I"]);
}

#[test]
fn behaviour_07_lifetime_never_ends_a_linked_connection() {
    let mut config = pool(1);
    config.server_lifetime = Duration::from_secs(10);
    let mut world = World::scripted(config);
    world.join(0);
    world.say(0, &m::query("begin"));
    world.pass(Duration::from_secs(60));
    world.settle();
    assert_eq!(world.open(), 1);
    world.say(0, &m::query("commit"));
    assert_eq!(world.open(), 0, "it is replaced once it is free");
}

#[test]
fn behaviour_08_waiters_are_served_in_their_order() {
    let mut world = World::scripted(pool(1));
    for number in 0..4 {
        world.join(number);
    }
    world.say(0, &m::query("begin"));
    for number in 1..4 {
        world.say(number, &m::query("begin"));
        world.pass(Duration::from_micros(10));
    }
    for number in 1..4 {
        world.say(number - 1, &m::query("commit"));
        assert!(world.server_of(number).is_some(), "client {number} is next");
    }
}

#[test]
fn behaviour_08_who_left_the_queue_has_lost_its_place() {
    let mut world = World::scripted(pool(1));
    for number in 0..3 {
        world.join(number);
    }
    world.say(0, &m::query("begin"));
    world.say(1, &m::query("begin"));
    world.pass(Duration::from_micros(10));
    world.say(2, &m::query("begin"));
    world.clients[1].disturb();
    world.cancel_of(1);
    world.settle();
    world.pass(Duration::from_micros(10));
    world.say(1, &m::query("begin"));
    world.say(0, &m::query("commit"));
    assert!(world.server_of(2).is_some() && world.server_of(1).is_none());
}

#[test]
fn behaviour_08_idle_capacity_of_another_worker_comes_to_a_waiter() {
    let mut shape = World::scripted(pool(1)).shape.clone();
    shape.workers = 2;
    let mut world = World::desk_of(shape);
    world.clients[1].worker = 1;
    world.join(0);
    world.join(1);
    world.say(1, &m::query("begin"));
    assert!(world.server_of_worker(1, 1).is_none(), "the only server is at worker 0");
    world.now += Duration::from_millis(2);
    let now = world.now;
    world.poolers[1].handle_timeout(now);
    world.take_actions(1);
    world.settle();
    assert!(world.server_of_worker(1, 1).is_some());
    assert_eq!(world.shared.share(WorkerId(1)).open.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&world.shared), 1 + 2 + 1, "world, pools, one server");
}

#[test]
fn behaviour_57_a_message_that_trickles_in_holds_no_server() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    let bytes =
        segment(&[m::parse("s1", "select $1"), m::bind("", "s1", "c0.1"), m::execute("", 0)]);
    world.clients[0].send(&m::query("select 'c0.2'"));
    for _ in 0..m::query("select 'c0.2'").len() - 1 {
        world.arrive(0, 1);
        assert_eq!(world.session(0).link(), Link::Unlinked);
    }
    world.arrive(0, 1);
    assert!(world.server_of(0).is_some());
    world.settle();
    // Behind a whole message half of the next one does not keep it either.
    world.clients[0].send(&m::query("select 'c0.3'"));
    world.clients[0].send(&bytes);
    world.arrive(0, m::query("select 'c0.3'").len() + 3);
    world.settle();
    assert_eq!(world.session(0).link(), Link::Unlinked);
    world.arrive(0, usize::MAX);
    world.settle();
    assert!(world.clients[0].complaint().is_none());
}
