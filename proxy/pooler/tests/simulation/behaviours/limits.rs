//! Limits that hold, and what is refused.

use std::mem::size_of;

use pgimbal_config::PoolMode;
use pgimbal_pooler::owed::OWED_LIMIT;
use pgimbal_pooler::session::Session;

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
    let mut world = World::desk(config);
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
    let mut shape = World::desk(pool(3)).shape.clone();
    shape.max_pinned = 1;
    let mut world = World::desk_of(shape);
    world.join(0);
    world.join(1);
    world.say(0, &m::query("create temp table t1"));
    world.clients[1].disturb();
    world
}

const TOO_MANY: &str = "E 53400 too many sessions of this pool keep their server connection";

#[test]
fn a_pin_beyond_the_limit_is_refused_outside_a_transaction() {
    let mut world = crowded();
    assert_eq!(world.say(1, &m::query("create temp table t2")), [TOO_MANY, "Z I"]);
    let said = world.say(1, &prepare_and_run("", "create temp table t2", ""));
    assert_eq!(said[said.len() - 2..], [TOO_MANY, "Z I"]);
    assert!(world.server_of(1).is_none() && world.shared.pinned_count() == 1);
    world.say(0, &m::query("discard all"));
    assert_eq!(world.say(1, &m::query("create temp table t2")), ["C CREATE TABLE", "Z I"]);
}

#[test]
fn a_pin_beyond_the_limit_is_refused_by_the_server_inside_a_transaction() {
    let mut world = crowded();
    world.say(1, &m::query("begin"));
    assert_eq!(world.say(1, &m::query("create temp table t2")), [TOO_MANY, "Z E"]);
    assert_eq!(world.say(1, &m::query("commit")), ["C ROLLBACK", "Z I"]);
    // Behind an open segment it waits for what is owed, and what ran before is rolled back.
    let open = [m::parse("", "insert $1"), m::bind("", "", "c1.1"), m::execute("", 0)].concat();
    let said = world.say(1, &[open, m::query("create temp table t2")].concat());
    assert_eq!(said, ["1", "2", "C INSERT 0 1", TOO_MANY, "Z I"]);
    assert!(world.peers.iter().all(|peer| peer.backend.committed.is_empty()));
    assert!(world.server_of(1).is_none());
}

#[test]
fn behaviour_25_ten_thousand_statements_in_one_pipeline() {
    for named in [false, true] {
        let mut world = World::desk(pool(1));
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
            let owed = world.server_of(0).map_or(0, |server| server.owed.len());
            assert!(owed <= OWED_LIMIT + 16, "{owed} are owed");
            world.settle();
        }
        world.settle();
        assert!(world.clients[0].rest.is_empty() && world.clients[0].complaint().is_none());
        assert!(world.server_of(0).is_none());
    }
}

#[test]
fn behaviour_25_a_full_queue_asks_the_server_to_speak() {
    let mut world = World::desk(pool(1));
    world.join(0);
    // Nothing makes the server answer these but a Flush of the proxy's.
    let mut bytes = Vec::new();
    for n in 0..2 * OWED_LIMIT {
        bytes.extend(m::parse(&format!("s{n}"), "select $1"));
    }
    world.say(0, &bytes);
    assert!(world.clients[0].rest.is_empty(), "all of it was forwarded");
    world.say(0, &m::sync());
    assert!(world.clients[0].complaint().is_none());
}
