//! COPY.

use super::segment;
use crate::message as m;
use crate::world::{World, pool};

fn copying() -> (World, Vec<String>) {
    let mut world = World::scripted(pool(1));
    world.join(0);
    let said = world.say(0, &m::query("copy t from stdin"));
    (world, said)
}

#[test]
fn behaviour_27_late_copy_data_after_an_error_is_dropped() {
    let (mut world, said) = copying();
    assert_eq!(said, ["G"]);
    let said = world.say(0, &[m::copy_data("c0.1"), m::copy_fail("enough")].concat());
    assert_eq!(said, ["E 57014 COPY from stdin failed: enough", "Z I"]);
    assert!(world.server_of(0).is_none(), "the idle ReadyForQuery has released it");
    let late = [m::copy_data("c0.2"), m::copy_done(), m::copy_fail("late")].concat();
    assert!(world.say(0, &late).is_empty());
    assert!(world.server_of(0).is_none(), "late data links nobody");
    assert_eq!(world.say(0, &m::query("select 'c0.3'"))[1], "D c0.3");
}

#[test]
fn behaviour_27_a_sync_before_copy_in_response_gets_no_answer() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    let begin = [m::parse("", "copy t from stdin"), m::bind("", "", ""), m::execute("", 0)];
    assert_eq!(world.say(0, &segment(&begin)), ["1", "2", "G"]);
    assert_eq!(
        world.say(0, &[m::copy_data("c0.1"), m::copy_done(), m::sync()].concat()),
        ["C COPY 1", "Z I"]
    );
    assert!(world.server_of(0).is_none());
    // And when the COPY fails, the server skips to the next Sync: nobody else may get it before.
    world.say(0, &segment(&begin));
    let said = world.say(0, &m::copy_fail("enough"));
    assert_eq!(said, ["E 57014 COPY from stdin failed: enough"]);
    assert!(world.server_of(0).is_some());
    assert_eq!(world.say(0, &m::sync()), ["Z I"]);
    assert!(world.server_of(0).is_none());
}

#[test]
fn behaviour_27_an_end_that_crosses_the_response_is_the_end() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    let begin =
        [m::parse("", "copy t from stdin"), m::bind("", "", ""), m::execute("", 0)].concat();
    world.say_only(0, &begin);
    world.say_only(0, &[m::sync(), m::copy_data("c0.1"), m::copy_done()].concat());
    world.settle();
    assert_eq!(world.heard(0), ["1", "2", "G"]);
    assert_eq!(world.say(0, &m::sync()), ["C COPY 1", "Z I"]);
    assert_eq!(world.peers[0].backend.committed, ["c0.1"]);
}

#[test]
fn behaviour_28_syncs_during_copy_expect_no_answer() {
    let (mut world, _) = copying();
    assert!(
        world.say(0, &[m::copy_data("c0.1"), m::sync(), m::flush(), m::sync()].concat()).is_empty()
    );
    assert_eq!(world.say(0, &m::copy_done()), ["C COPY 1", "Z I"]);
    assert!(world.server_of(0).is_none());
}

#[test]
fn behaviour_28_copy_out_passes() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    let said = world.say(0, &m::query("copy t to stdout"));
    assert_eq!(said, ["H", "d", "d", "d", "c", "C COPY 3", "Z I"]);
}

#[test]
fn a_client_that_vanishes_in_copy_leaves_nothing() {
    let (mut world, _) = copying();
    world.say(0, &m::copy_data("c0.1"));
    world.vanish(0);
    world.settle();
    assert_eq!(world.idle(), 1);
    assert!(world.peers[0].backend.committed.is_empty());
}
