//! Limits that hold, and what is refused.

use std::mem::size_of;
use std::time::Duration;

use pgimbal_config::PoolMode;
use pgimbal_pooler::server::pending::PENDING_LIMIT;
use pgimbal_pooler::session::{Link, Session};

use super::{prepare_and_run, segment};
use crate::message as m;
use crate::world::{World, pool};

#[test]
fn a_session_is_at_most_512_bytes() {
    assert!(size_of::<Session>() <= 512, "{} bytes", size_of::<Session>());
}

#[test]
fn behaviour_10_statement_mode_refuses_begin() {
    let mut config = pool(1);
    config.mode = PoolMode::Statement;
    let mut world = World::scripted(config);
    world.join(0);
    world.clients[0].disturb();
    let refusal = "E 0A000 transaction blocks are not allowed in statement pooling";
    assert_eq!(world.say(0, &m::query("begin")), [refusal, "Z I"]);
    let said = world.say(0, &prepare_and_run("s1", "begin", ""));
    assert_eq!(said[said.len() - 2..], [refusal, "Z I"]);
    assert_eq!(world.say(0, &m::query("select 'c0.1'"))[1], "D c0.1");
}

/// A desk on which one session may be pinned, and client 0 is.
fn crowded() -> World {
    let mut shape = World::scripted(pool(3)).shape.clone();
    shape.max_pinned = 1;
    let mut world = World::desk_of(shape);
    world.join(0);
    world.join(1);
    world.say(0, &m::query("create temp table t1"));
    world.clients[1].disturb();
    world
}

#[test]
fn a_pool_that_nobody_has_used_for_an_hour_goes_and_its_counters_stay_in_the_total() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    assert_eq!(world.say(0, &m::query("select 'c0.1'"))[1], "D c0.1");
    let pools = |world: &World| world.poolers[0].pools().count();
    world.pass(Duration::from_secs(2 * 60 * 60));
    world.settle();
    assert_eq!(pools(&world), 1, "a client of it is there");
    world.say(0, &m::terminate());
    // First its idle server connections go, for which nobody waits.
    for _ in 0..5 {
        world.pass(Duration::from_secs(20 * 60));
        world.settle();
        if pools(&world) == 0 {
            break;
        }
    }
    assert_eq!(pools(&world), 0);
    assert!(world.poolers[0].pool_snapshots(world.now).is_empty());
    let retired = world.poolers[0].retired_stats();
    let [(database, stats)] = &retired[..] else { panic!("{retired:?}") };
    assert_eq!((&database[..], stats.transactions), ("db", 1));
}

const TOO_MANY: &str = "E 53400 too many sessions of this pool keep their server connection";

#[test]
fn a_pin_beyond_the_limit_waits_for_a_place_outside_a_transaction() {
    let mut world = crowded();
    let create = m::query("create temp table t2");
    assert!(world.say(1, &create).is_empty());
    assert!(matches!(world.session(1).link(), Link::AwaitingPlace(_)));
    assert!(world.server_of(1).is_none() && world.shared.pinned_count() == 1);
    world.say(0, &m::query("discard all"));
    world.pass(Duration::from_millis(2));
    world.settle();
    assert_eq!(world.heard(1), ["C CREATE TABLE", "Z I"]);
    assert!(world.session(1).pin().reasons().eq(["temporary_table"]));
}

#[test]
fn a_pin_beyond_the_limit_is_refused_when_no_place_became_free() {
    let mut world = crowded();
    let limit = world.shape.pool.query_wait_timeout;
    for bytes in [
        m::query("create temp table t2"),
        prepare_and_run("", "create temp table t2", ""),
        prepare_and_run("s1", "create temp table t3", ""),
    ] {
        assert!(world.say(1, &bytes).is_empty());
        world.pass(limit - Duration::from_millis(1));
        world.settle();
        assert!(world.heard(1).is_empty(), "it waits");
        world.pass(Duration::from_millis(1));
        world.settle();
        assert_eq!(world.heard(1), [TOO_MANY, "Z I"]);
    }
    assert!(world.server_of(1).is_none() && world.shared.pinned_count() == 1);
    assert_eq!(world.say(1, &m::query("select 'c1.1'"))[1], "D c1.1");
}

#[test]
fn who_waits_for_a_place_may_leave_or_cancel() {
    let mut world = crowded();
    let create = m::query("create temp table t2");
    world.say(1, &create);
    world.cancel_of(1);
    world.settle();
    assert_eq!(world.heard(1), ["E 57014 canceling statement due to user request", "Z I"]);
    assert_eq!(world.session(1).link(), Link::Unlinked);
    world.say(1, &create);
    world.vanish(1);
    world.settle();
    assert!(world.clients[1].session.is_none());
    world.say(0, &m::query("discard all"));
    world.pass(Duration::from_millis(2));
    world.settle();
    assert_eq!(world.shared.pinned_count(), 0);
}

#[test]
fn a_pin_that_is_found_in_a_transaction_may_pass_the_limit() {
    let mut world = crowded();
    world.say(1, &m::query("begin"));
    assert_eq!(world.say(1, &m::query("create temp table t2")), ["C CREATE TABLE", "Z T"]);
    assert_eq!(world.say(1, &m::query("commit")), ["C COMMIT", "Z I"]);
    assert!(world.session(1).pin().reasons().eq(["temporary_table"]));
    assert_eq!(world.shared.pinned_count(), 1, "it has no place");
    assert_eq!(world.say(1, &m::query("drop table t2")), ["C DROP TABLE", "Z I"]);
    assert!(world.server_of(1).is_none(), "the server shows none any more");
}

#[test]
fn a_statement_that_is_only_prepared_takes_no_place() {
    let mut world = World::scripted(pool(2));
    world.join(0);
    world.say(0, &segment(&[m::parse("s1", "create temp table t1"), m::describe(b'S', "s1")]));
    assert!(world.server_of(0).is_none());
    assert_eq!(world.shared.pinned_count(), 0);
}

#[test]
fn behaviour_25_ten_thousand_statements_in_one_pipeline() {
    for named in [false, true] {
        let mut world = World::scripted(pool(1));
        world.join(0);
        if named {
            world.say(0, &segment(&[m::parse("s1", "select $1")]));
        }
        let mut bytes = Vec::new();
        for n in 0..10_000 {
            if named {
                bytes.extend(m::close(b'S', "s1"));
                bytes.extend(m::parse("s1", "select $1"));
                bytes.extend(m::bind("", "s1", &format!("c0.{n}")));
            } else {
                bytes.extend(m::parse("", "select $1"));
                bytes.extend(m::bind("", "", &format!("c0.{n}")));
            }
            bytes.extend(m::execute("", 0));
        }
        bytes.extend(m::sync());
        world.clients[0].send(&bytes);
        while !world.clients[0].up.is_empty() {
            world.arrive(0, 8192);
            let pending = world.server_of(0).map_or(0, |server| server.pending().len());
            assert!(pending <= PENDING_LIMIT + 16, "{pending} are pending");
            world.settle();
        }
        world.settle();
        assert!(world.clients[0].rest.is_empty() && world.clients[0].complaint().is_none());
        assert!(world.server_of(0).is_none());
    }
}

#[test]
fn behaviour_25_a_full_queue_asks_the_server_to_speak() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    // Nothing makes the server answer these but a Flush of the proxy's.
    let mut bytes = Vec::new();
    for n in 0..2 * PENDING_LIMIT {
        bytes.extend(m::parse(&format!("s{n}"), "select $1"));
    }
    world.say(0, &bytes);
    assert!(world.clients[0].rest.is_empty(), "all of it was forwarded");
    world.say(0, &m::sync());
    assert!(world.clients[0].complaint().is_none());
}
