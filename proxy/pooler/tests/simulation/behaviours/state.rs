//! Session state, and who is pinned by it.

use super::{prepare_and_run, segment};
use crate::client::Client;
use crate::message as m;
use crate::world::{World, pool};

#[test]
fn behaviour_29_settings_follow_the_client() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.join(1);
    world.say(0, &m::query("set work_mem to '1MB'"));
    world.say(1, &m::query("set work_mem to '2MB'"));
    assert_eq!(world.say(0, &m::query("show work_mem"))[1], "D 1MB");
    assert_eq!(world.say(1, &m::query("show work_mem"))[1], "D 2MB");
    world.say(0, &m::query("reset all"));
    assert_eq!(world.say(0, &m::query("show work_mem"))[1], "D 4MB");
    // In the extended protocol, by two portals that wait for their Execute.
    let two = [
        m::parse("s1", "set work_mem to '7MB'"),
        m::parse("s2", "set application_name to 'seven'"),
        m::bind("p1", "s1", ""),
        m::bind("p2", "s2", ""),
        m::execute("p1", 0),
        m::execute("p2", 0),
    ];
    world.say(0, &segment(&two));
    println!(
        "{:?} {:?}",
        world.session(0).link(),
        world.session(0).pin().reasons().collect::<Vec<_>>()
    );
    assert_eq!(world.say(1, &m::query("show application_name"))[1], "D ");
    assert_eq!(world.say(0, &m::query("show work_mem"))[1], "D 7MB");
    assert_eq!(world.say(0, &m::query("show application_name"))[1], "D seven");
}

#[test]
fn behaviour_30_set_follows_the_fate_of_its_transaction() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.join(1);
    let undone = ["begin", "set work_mem to '1MB'", "rollback"].map(m::query).concat();
    world.say(0, &undone);
    assert_eq!(world.say(0, &m::query("show work_mem"))[1], "D 4MB");
    let local = ["begin", "set local work_mem to '1MB'", "commit"].map(m::query).concat();
    world.say(0, &local);
    assert_eq!(world.say(0, &m::query("show work_mem"))[1], "D 4MB");
    let failed = ["begin", "set work_mem to '1MB'", "fail 'c0.1'", "commit"].map(m::query).concat();
    world.say(0, &failed);
    assert_eq!(world.say(0, &m::query("show work_mem"))[1], "D 4MB");
    // SET in a pipeline whose later statement fails is undone with it.
    let pipeline = [m::parse("", "set work_mem to '1MB'"), m::bind("", "", ""), m::execute("", 0)];
    let failing = [&pipeline.concat()[..], &prepare_and_run("", "fail $1", "c0.2")].concat();
    world.say(0, &failing);
    assert_eq!(world.say(0, &m::query("show work_mem"))[1], "D 4MB");
    let kept = [
        "begin",
        "set work_mem to '3MB'",
        "savepoint a",
        "set work_mem to '5MB'",
        "rollback to a",
        "commit",
    ];
    world.say(0, &kept.map(m::query).concat());
    world.say(1, &m::query("show work_mem"));
    assert_eq!(world.say(0, &m::query("show work_mem"))[1], "D 3MB");
}

#[test]
fn behaviour_31_startup_values_come_back_after_reset_before_anything_else_runs() {
    let mut world = World::scripted(pool(1));
    world.clients[0] = Client::new(0, 0, vec![("timezone".into(), "Asia/Tokyo".into())], 0);
    world.join(0);
    world.join(1);
    assert_eq!(world.say(0, &m::query("show timezone"))[1], "D Asia/Tokyo");
    assert_eq!(world.say(1, &m::query("show timezone"))[1], "D UTC");
    let said = world.say(0, &[m::query("discard all"), m::query("show timezone")].concat());
    assert_eq!(said, ["C DISCARD ALL", "Z I", "T", "D Asia/Tokyo", "C SELECT 1", "Z I"]);
    assert_eq!(world.clients[0].known["TimeZone"], "Asia/Tokyo");
}

#[test]
fn behaviour_32_a_changed_value_reaches_the_client() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.join(1);
    let said = world.say(0, &m::query("set timezone to 'Asia/Tokyo'"));
    assert_eq!(said, ["C SET", "S TimeZone=Asia/Tokyo=", "Z I"]);
    // It stays that for this client, and the other never hears of it.
    world.say(1, &m::query("select 'c1.1'"));
    assert_eq!(world.say(0, &m::query("select 'c0.1'")), ["T", "D c0.1", "C SELECT 1", "Z I"]);
    assert_eq!(world.clients[1].known["TimeZone"], "UTC");
    let undone = ["begin", "set timezone to 'CET'", "rollback"].map(m::query).concat();
    world.say(0, &undone);
    assert_eq!(world.clients[0].known["TimeZone"], "Asia/Tokyo");
}

#[test]
fn behaviour_34_pinned_until_the_state_is_gone() {
    let mut world = World::scripted(pool(2));
    world.join(0);
    world.say(0, &m::query("create temp table t1"));
    assert!(world.server_of(0).is_some());
    assert!(world.session(0).pin().reasons().eq(["temporary_table"]));
    assert_eq!(world.shared.pinned_count(), 1);
    world.say(0, &m::query("discard all"));
    assert!(world.server_of(0).is_none());
    assert_eq!(world.shared.pinned_count(), 0);
}

#[test]
fn behaviour_35_a_pinned_client_that_leaves_leaves_nothing() {
    for vanishes in [false, true] {
        let mut world = World::scripted(pool(1));
        world.join(0);
        world.join(1);
        world.say(0, &m::query("create temp table t1"));
        world.say(0, &m::query("select pg_advisory_lock(1)"));
        world.say(0, &m::query("prepare q1 as select 'c0.1'"));
        match vanishes {
            true => world.vanish(0),
            false => drop(world.say(0, &m::terminate())),
        }
        world.settle();
        assert!(world.say(1, &m::query("inspect"))[1].ends_with("| {} {} 0"));
        assert!(world.say(1, &m::query("execute q1"))[1].starts_with("E 26000"));
    }
}

#[test]
fn behaviour_11_the_reset_query_runs_before_a_session_mode_connection_is_reused() {
    let mut config = pool(1);
    config.mode = pgimbal_config::PoolMode::Session;
    let mut world = World::scripted(config);
    world.join(0);
    world.join(1);
    world.say(0, &m::query("create temp table t1"));
    world.say(0, &m::query("set work_mem to '9MB'"));
    assert!(world.server_of(0).is_some());
    world.say(0, &m::terminate());
    let shown = world.say(1, &m::query("inspect"));
    assert!(shown[1].contains("work_mem=4MB") && shown[1].ends_with("{} {} 0"), "{shown:?}");
}
