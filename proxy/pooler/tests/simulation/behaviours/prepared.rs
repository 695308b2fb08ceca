//! Prepared statements over shared servers.

use super::{prepare_and_run, run, segment};
use crate::message as m;
use crate::world::{World, pool};

/// A pool of two servers, and client 9 in a transaction on one of them when `other` is asked for.
fn two_servers() -> World {
    let mut world = World::scripted(pool(2));
    for number in [0, 1, 9] {
        world.join(number);
    }
    world
}

/// Occupies the server that was used last, so that the next client gets another one.
fn move_on(world: &mut World) {
    world.say(9, &m::query("begin"));
}

fn come_back(world: &mut World) {
    world.say(9, &m::query("commit"));
}

#[test]
fn behaviour_12_made_replies_come_in_the_order_of_the_requests() {
    let mut world = two_servers();
    world.say(0, &prepare_and_run("s1", "select $1", "c0.1"));
    let bytes = segment(&[
        m::bind("", "s1", "c0.2"),
        m::execute("", 0),
        m::close(b'S', "s1"),
        m::parse("s1", "select $1"),
        m::describe(b'S', "s1"),
        m::close(b'S', "s1"),
        m::close(b'S', "nobody"),
        m::parse("s2", "select $1"),
        m::bind("", "s2", "c0.3"),
        m::execute("", 0),
    ]);
    let said = world.say(0, &bytes);
    let expected = [
        "2",
        "D c0.2",
        "C SELECT 1",
        "3",
        "1",
        "t",
        "T",
        "3",
        "3",
        "1",
        "2",
        "D c0.3",
        "C SELECT 1",
        "Z I",
    ];
    assert_eq!(said, expected);
}

#[test]
fn behaviour_13_after_an_error_everything_up_to_sync_is_discarded() {
    let mut world = two_servers();
    world.say(0, &prepare_and_run("s1", "select $1", "c0.1"));
    world.say(0, &[m::parse("", "bad 'c0.2'"), m::flush()].concat());
    // These have not arrived when the error comes.
    let late = [
        m::close(b'S', "s1"),
        m::parse("s2", "select $1"),
        m::query("insert 'c0.3'"),
        m::bind("", "s1", "c0.4"),
        m::execute("", 0),
    ];
    assert!(world.say(0, &late.concat()).is_empty());
    assert_eq!(world.say(0, &m::sync()), ["Z I"]);
    assert_eq!(world.say(0, &run("s1", "c0.5"))[1], "D c0.5", "its Close was discarded");
    assert!(world.say(0, &run("s2", "c0.6"))[0].starts_with("E 26000"));
}

#[test]
fn behaviour_14_a_failed_parse_of_the_proxys_own_is_forgotten() {
    let mut world = two_servers();
    world.say(0, &prepare_and_run("s1", "select $1", "c0.1"));
    move_on(&mut world);
    // On the other server it must be reprepared, and is skipped because of the error in front of
    // it.
    let failing = [m::parse("", "bad 'c0.2'"), m::bind("", "s1", "c0.3"), m::execute("", 0)];
    assert!(world.say(0, &segment(&failing))[0].starts_with("E 42601"));
    assert_eq!(world.say(0, &run("s1", "c0.4"))[1], "D c0.4");
}

#[test]
fn behaviour_14_a_skipped_eviction_is_remembered() {
    let mut config = pool(1);
    config.max_prepared_statements = 1;
    let mut world = World::scripted(config);
    world.join(0);
    world.say(0, &prepare_and_run("s1", "select $1", "c0.1"));
    let failing =
        [m::parse("", "bad 'c0.2'"), m::parse("s2", "insert $1"), m::bind("", "s2", "c0.3")];
    world.say(0, &segment(&failing));
    assert_eq!(world.say(0, &run("s1", "c0.4"))[1], "D c0.4");
    assert_eq!(world.say(0, &prepare_and_run("s2", "insert $1", "c0.5"))[2], "C INSERT 0 1");
}

#[test]
fn behaviour_15_shared_only_under_equal_settings() {
    let mut world = two_servers();
    world.say(0, &m::query("set timezone to 'Asia/Tokyo'"));
    assert_eq!(world.say(0, &prepare_and_run("s1", "zone $1", "c0.1"))[2], "D c0.1@Asia/Tokyo");
    assert_eq!(world.say(1, &prepare_and_run("s1", "zone $1", "c1.1"))[2], "D c1.1@UTC");
    assert_eq!(world.say(0, &run("s1", "c0.2"))[1], "D c0.2@Asia/Tokyo");
}

#[test]
fn behaviour_16_duplicate_and_unknown_names_are_the_servers_to_refuse() {
    let mut world = two_servers();
    world.say(0, &prepare_and_run("s1", "select $1", "c0.1"));
    let duplicate = [
        m::parse("", "insert $1"),
        m::bind("", "", "c0.2"),
        m::execute("", 0),
        m::parse("s1", "select $1"),
        m::sync(),
    ];
    let said = world.say(0, &duplicate.concat());
    assert_eq!(said[3], "E 42P05 prepared statement \"s1\" already exists");
    let unknown =
        [m::parse("", "insert $1"), m::bind("", "", "c0.3"), m::execute("", 0), run("s9", "c0.4")];
    assert!(world.say(0, &unknown.concat())[3].starts_with("E 26000"));
    let committed = world.peers.iter().map(|peer| peer.backend.committed.len()).sum::<usize>();
    assert_eq!(committed, 0, "what ran before in the segment is rolled back");
    assert_eq!(world.say(0, &run("s1", "c0.5"))[1], "D c0.5");
}

#[test]
fn behaviour_16_a_client_cannot_name_a_statement_of_the_proxy() {
    let mut world = two_servers();
    world.say(0, &prepare_and_run("s1", "select $1", "c0.1"));
    let names: Vec<String> = world.peers[0].backend.statements.keys().cloned().collect();
    let name = names.iter().find(|name| name.starts_with("pgimbal_")).expect("a shared statement");
    assert!(world.say(1, &run(name, "c1.1"))[0].starts_with("E 26000"));
    world.say(1, &prepare_and_run(name, "select $1", "c1.2"));
    assert_eq!(world.say(1, &run(name, "c1.3"))[1], "D c1.3");
    assert_eq!(world.say(0, &run("s1", "c0.2"))[1], "D c0.2");
}

#[test]
fn behaviour_17_a_name_whose_parse_failed_is_free() {
    let mut world = two_servers();
    world.say(0, &segment(&[m::parse("s1", "bad $1")]));
    assert_eq!(world.say(0, &prepare_and_run("s1", "select $1", "c0.1"))[2], "D c0.1");
    let skipped = [m::parse("", "bad $1"), m::parse("s2", "select $1")];
    world.say(0, &segment(&skipped));
    assert!(world.say(0, &run("s2", "c0.2"))[0].starts_with("E 26000"));
}

#[test]
fn behaviour_18_unnamed_statement_is_the_clients_own() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.join(1);
    world.say(0, &segment(&[m::parse("", "select 'c0.1'")]));
    world.say(1, &segment(&[m::parse("", "select 'c1.1'")]));
    assert_eq!(world.say(0, &run("", ""))[1], "D c0.1");
    assert_eq!(world.say(1, &run("", ""))[1], "D c1.1");
    // An older one of its own on another server is not it either.
    world.say(1, &m::query("select 'c1.2'"));
    assert!(world.say(1, &run("", ""))[0].starts_with("E 26000"));
}

/// One that is reprepared fails in a failed transaction, and is not there for what is bound behind
/// it.
#[test]
fn behaviour_18_unnamed_statement_in_a_failed_transaction() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.say(0, &m::query("begin"));
    let skipped = [m::parse("", "select $1"), m::bind("", "nosuch", ""), m::parse("", "rows $1")];
    world.say(0, &segment(&skipped));
    let said = world.say(0, &[run("", "c0.1"), run("", "c0.2")].concat());
    let refused = "E 25P02 current transaction is aborted, commands ignored until end of \
                   transaction block";
    assert_eq!(said, [refused, "Z E", refused, "Z E"]);
}

/// One that was described is described again where it is reprepared, once.
#[test]
fn behaviour_18_described_unnamed_statement_in_a_failed_transaction() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.say(0, &m::query("begin"));
    world.say(0, &segment(&[m::parse("", "commit"), m::describe(b'S', "")]));
    world.say(0, &segment(&[m::bind("", "nosuch", ""), m::parse("", "rows $1")]));
    assert_eq!(world.say(0, &run("", "")), ["2", "C ROLLBACK", "Z I"]);
}

#[test]
fn behaviour_21_discard_and_deallocate_all_clear_one_clients_statements() {
    for text in ["discard all", "deallocate all"] {
        let mut world = World::scripted(pool(1));
        world.join(0);
        world.join(1);
        world.say(0, &prepare_and_run("s1", "select $1", "c0.1"));
        world.say(1, &prepare_and_run("s1", "select $1", "c1.1"));
        // Pipelined.
        let said = world.say(0, &[m::query(text), run("s1", "c0.2")].concat());
        assert!(said[2].starts_with("E 26000"), "{said:?}");
        assert_eq!(world.say(1, &run("s1", "c1.2"))[1], "D c1.2");
        let extended =
            [m::parse("", text), m::bind("", "", ""), m::execute("", 0), m::bind("", "s1", "c1.3")];
        let said = world.say(1, &segment(&extended));
        assert!(said[3].starts_with("E 26000"), "{said:?}");
    }
}

#[test]
fn behaviour_20_deallocate_knows_the_clients_names() {
    let mut world = World::scripted(pool(1));
    world.join(0);
    world.join(1);
    world.say(0, &prepare_and_run("s1", "select $1", "c0.1"));
    world.say(1, &prepare_and_run("s1", "select $1", "c1.1"));
    assert_eq!(world.say(0, &m::query("deallocate s1")), ["C DEALLOCATE", "Z I"]);
    assert!(world.say(0, &m::query("deallocate s1"))[0].starts_with("E 26000"));
    assert_eq!(world.say(1, &run("s1", "c1.2"))[1], "D c1.2");
}

#[test]
fn behaviour_22_statements_on_a_server_stay_within_the_limit() {
    let mut config = pool(1);
    config.max_prepared_statements = 5;
    let mut world = World::scripted(config);
    world.join(0);
    for n in 0..100 {
        let name = format!("s{n}");
        world.say(0, &prepare_and_run(&name, &format!("select $1 /* {n} */"), "c0.1"));
        assert!(world.peers[0].backend.names().count() <= 5 + 1);
    }
    for n in 0..100 {
        assert_eq!(world.say(0, &run(&format!("s{n}"), "c0.2"))[1], "D c0.2");
        assert!(world.peers[0].backend.names().count() <= 5 + 1);
    }
}

#[test]
fn behaviour_60_eviction_spares_a_statement_under_an_open_portal() {
    let mut config = pool(1);
    config.max_prepared_statements = 2;
    let mut world = World::scripted(config);
    world.join(0);
    world.say(0, &m::query("begin"));
    world.say(
        0,
        &segment(&[m::parse("s0", "rows $1"), m::bind("p1", "s0", "c0.1"), m::execute("p1", 1)]),
    );
    let used: Vec<String> = world.peers[0].backend.statements.keys().cloned().collect();
    for n in 1..10 {
        world.say(0, &prepare_and_run(&format!("s{n}"), &format!("select $1 /* {n} */"), "c0.2"));
    }
    let statements = &world.peers[0].backend.statements;
    assert!(used.iter().all(|name| statements.contains_key(name)), "its portal is open");
    assert_eq!(world.say(0, &segment(&[m::execute("p1", 1)]))[0], "D c0.1:2");
    world.say(0, &m::query("commit"));
}

#[test]
fn behaviour_61_an_unnamed_statement_stays_unnamed() {
    let mut world = two_servers();
    world.say(0, &segment(&[m::parse("", "select $1")]));
    move_on(&mut world);
    assert_eq!(world.say(0, &run("", "c0.1"))[1], "D c0.1");
    come_back(&mut world);
    for peer in &world.peers {
        assert!(peer.backend.names().all(String::is_empty), "nothing was given a name");
    }
}

#[test]
fn behaviour_62_a_large_statement_holds_its_client_until_it_is_closed() {
    let mut config = pool(2);
    config.max_statement_bytes = 20_000;
    let mut world = World::scripted(config);
    world.join(0);
    let text = format!("select $1 /* {} */", "x".repeat(100_000));
    world.say(0, &prepare_and_run("s1", &text, "c0.1"));
    assert!(world.server_of(0).is_some(), "its server alone has it");
    assert!(world.session(0).pin().reasons().eq(["large_statement"]));
    assert_eq!(world.say(0, &run("s1", "c0.2"))[1], "D c0.2");
    world.say(0, &segment(&[m::close(b'S', "s1")]));
    assert!(world.server_of(0).is_none());
    assert_eq!(world.peers[0].backend.names().count(), 0);
}

#[test]
fn behaviour_62_a_large_statement_that_leaves_state_is_seen() {
    let mut config = pool(2);
    config.max_statement_bytes = 20_000;
    let mut world = World::scripted(config);
    world.join(0);
    let text = format!("create /* {} */ temp table t1", "x".repeat(100_000));
    world.say(0, &prepare_and_run("s1", &text, ""));
    world.say(0, &segment(&[m::close(b'S', "s1")]));
    assert!(world.session(0).pin().reasons().eq(["temporary_table"]));
}

#[test]
fn what_is_put_in_under_settings_that_nobody_knows_is_nobody_elses() {
    for leaves in [false, true] {
        put_in_under_unknown_settings(leaves);
    }
}

fn put_in_under_unknown_settings(leaves: bool) {
    let mut world = two_servers();
    for number in [0, 1] {
        let token = format!("c{number}.1");
        let said = world.say(number, &prepare_and_run("s1", "zone $1", &token));
        assert_eq!(said[2], format!("D {token}@UTC"));
    }
    move_on(&mut world);
    // The other server connection does not have it yet.
    world.say(0, &[m::query("begin"), m::query("do $$set local timezone to 'X'$$")].concat());
    world.clients[0].disturb();
    world.say(0, &run("s1", "c0.2"));
    match leaves {
        true => world.vanish(0),
        false => drop(world.say(0, &m::query("commit"))),
    }
    world.settle();
    assert_eq!(world.say(1, &run("s1", "c1.2"))[1], "D c1.2@UTC");
}
