//! Connections that break in the middle of something that does not often break there.

use pgimbal_pooler::topology::{NodeId, NodeState};

use super::failover::{LOST, UNKNOWN, cluster_world, cluster_world_with, dies, promoted, view};
use super::{prepare_and_run, segment};
use crate::message as m;
use crate::world::World;

/// Parse, Bind, Execute, without their Sync.
fn open(text: &str) -> Vec<u8> {
    [m::parse("", text), m::bind("", "", ""), m::execute("", 0)].concat()
}

/// A client in a transaction whose primary has died; the other node is primary now.
fn lost_transaction() -> World {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("begin"));
    world.clients[0].disturb();
    dies(&mut world);
    promoted(&mut world);
    world
}

#[test]
fn failover_max_held_is_one_limit_for_all_workers() {
    let mut shape = cluster_world_with(1, |config| config.max_held = 2).shape.clone();
    shape.workers = 2;
    let mut world = World::desk_of(shape);
    world.see(view(1, Some(0), [NodeState::Primary, NodeState::Replica]));
    world.clients[2].worker = 1;
    for number in 0..3 {
        world.join(number);
        world.clients[number].disturb();
    }
    dies(&mut world);
    // A small pool's clients are all at one worker.
    assert!(world.say(0, &m::query("select 'c0.1'")).is_empty());
    assert!(world.say(1, &m::query("select 'c1.1'")).is_empty());
    let said = world.say(2, &m::query("select 'c2.1'"));
    assert!(said[0].starts_with("E 57P03 the primary is unavailable"), "{said:?}");
    promoted(&mut world);
    assert_eq!(world.heard(0)[1], "D c0.1");
    let waiting = &world.shared.cluster.as_ref().expect("a cluster").waiting;
    assert_eq!(waiting.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn failover_a_commit_that_was_executed_without_its_sync_may_have_come_through() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("begin"));
    world.clients[0].disturb();
    world.say_only(0, &[open("commit"), m::flush()].concat());
    dies(&mut world);
    world.settle();
    let heard = world.heard(0);
    assert_eq!(heard, [UNKNOWN], "it counts when it is executed");
    assert_eq!(world.say(0, &m::sync()), ["Z I"]);
}

#[test]
fn failover_what_may_commit_by_itself_is_not_sent_twice_although_its_sync_is_missing() {
    for text in ["call archive()", "create index concurrently i on t (a)"] {
        let mut world = cluster_world(1);
        world.join(0);
        // What the database has is asked ahead of such a text.
        world.say(0, &m::query("select set_config('work_mem', '1MB', true)"));
        world.clients[0].disturb();
        world.say_only(0, &[open(text), m::flush()].concat());
        dies(&mut world);
        world.settle();
        assert_eq!(world.heard(0), [UNKNOWN], "{text}");
        promoted(&mut world);
        assert_eq!(world.say(0, &m::sync()), ["Z I"], "{text}");
    }
}

#[test]
fn failover_what_was_run_again_and_answered_is_not_answered_again() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("select 'c0.0'"));
    world.clients[0].disturb();
    world.say_only(0, &m::query("select 'c0.1'"));
    dies(&mut world);
    world.see(view(10, Some(1), [NodeState::Down, NodeState::Primary]));
    world.land_dials();
    // The server answers BEGIN and the statement, then it dies.
    let (backend, sent) = world.last_backend();
    let sent = m::all(&sent);
    let [begin, statement, _commit] = &sent[..] else { panic!("{sent:?}") };
    for (tag, body) in [begin, statement] {
        backend.feed(&m::message(*tag, body));
    }
    world.deliver_output();
    world.dead.clear();
    world.see(view(11, None, [NodeState::Unknown, NodeState::Down]));
    world.kill_node(NodeId(1));
    world.see(view(12, Some(0), [NodeState::Primary, NodeState::Down]));
    world.settle();
    let heard = world.heard(0);
    assert_eq!(heard.iter().filter(|line| *line == "D c0.1").count(), 1, "{heard:?}");
    assert_eq!(heard.iter().filter(|line| line.starts_with('Z')).count(), 1, "{heard:?}");
    assert_eq!(world.say(0, &m::query("select 'c0.2'"))[1], "D c0.2");
}

#[test]
fn failover_a_read_that_is_due_again_stays_so_while_its_settings_are_set() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("set search_path to a"));
    world.clients[0].disturb();
    world.say_only(0, &m::query("select 'c0.1'"));
    dies(&mut world);
    world.see(view(10, Some(1), [NodeState::Down, NodeState::Primary]));
    world.land_dials();
    // The settings are set, and the connection is cut before the client's next turn.
    let (backend, sent) = world.last_backend();
    backend.feed(&sent);
    world.hear_last_backend();
    world.dead.clear();
    world.see(view(11, None, [NodeState::Unknown, NodeState::Down]));
    world.kill_node(NodeId(1));
    let rerun = world.session(0).rerun();
    assert_ne!(
        rerun,
        pgimbal_pooler::recovery::proof::Rerun::No,
        "else it would not run READ ONLY"
    );
    world.see(view(12, Some(0), [NodeState::Primary, NodeState::Down]));
    world.settle();
    assert_eq!(world.heard(0)[1], "D c0.1");
}

#[test]
fn failover_a_rollback_with_more_behind_it_ends_a_lost_transaction() {
    let mut world = lost_transaction();
    let heard = world.say(0, &m::query(" /* a */ ROLLBACK;\n select 'c0.1'"));
    assert!(heard.contains(&"C ROLLBACK".to_owned()), "{heard:?}");
    assert!(heard.contains(&"D c0.1".to_owned()), "{heard:?}");
    assert_eq!(heard.last().map(String::as_str), Some("Z I"));
    // A COMMIT is an error, which ends the text.
    let mut world = lost_transaction();
    assert_eq!(world.say(0, &m::query("commit; begin")), [LOST, "Z I"]);
    let mut world = lost_transaction();
    assert_eq!(world.say(0, &m::query("select 'c0.1'; commit")), [LOST, "Z E"]);
}

#[test]
fn failover_statements_that_are_prepared_and_closed_in_a_lost_transaction_are_known_after_it() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &segment(&[m::parse("old", "select $1")]));
    world.say(0, &m::query("begin"));
    world.clients[0].disturb();
    dies(&mut world);
    promoted(&mut world);
    let end = [m::close(b'S', "old"), m::parse("end", "rollback"), m::bind("", "end", "")];
    let said = world.say(0, &segment(&[end.concat(), m::execute("", 0)]));
    assert_eq!(said, ["3", "1", "2", "C ROLLBACK", "Z I"]);
    assert_eq!(world.say(0, &prepare_and_run("old", "select $1", "c0.1"))[2], "D c0.1");
    world.say(0, &m::query("begin"));
    let said = world.say(0, &segment(&[m::bind("", "end", ""), m::execute("", 0)]));
    assert_eq!(said, ["2", "C ROLLBACK", "Z I"]);
}

#[test]
fn failover_what_stands_in_front_of_a_rollback_in_flight_is_told_of_the_loss() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("begin"));
    world.clients[0].disturb();
    world.say_only(0, &[open("insert 'c0.1'"), open("rollback"), m::sync()].concat());
    dies(&mut world);
    world.settle();
    assert_eq!(world.heard(0), [LOST, "Z E"]);
    assert_eq!(world.say(0, &m::query("rollback")), ["C ROLLBACK", "Z I"]);
}

#[test]
fn failover_a_proven_rollback_is_told_as_one_although_the_statement_cannot_run_again() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("select 'c0.0'"));
    world.clients[0].disturb();
    world.say_only(0, &m::query("select 'c0.1'"));
    world.last_backend().0.die(Some("terminating connection due to administrator command"));
    world.see(view(9, None, [NodeState::ProbeRefused, NodeState::Replica]));
    world.settle();
    world.see(view(10, Some(1), [NodeState::Down, NodeState::Primary]));
    world.land_dials();
    let (backend, sent) = world.last_backend();
    let sent = m::all(&sent);
    backend.feed(&m::message(sent[0].0, &sent[0].1));
    backend.output.extend(m::report(b'E', "ERROR", "25006", "cannot execute nextval()"));
    backend.output.extend(m::message(b'Z', b"E"));
    backend.feed(&m::query("rollback"));
    world.settle();
    assert_eq!(world.heard(0), [LOST, "Z I"]);
}

#[test]
fn failover_a_fatal_behind_the_completion_proves_nothing() {
    let fatal = m::report(b'E', "FATAL", "57P01", "terminating connection");
    let done = m::message(b'C', b"INSERT 0 1\0");
    for (pieces, told) in [
        (vec![done.clone(), fatal.clone()], vec!["C INSERT 0 1", UNKNOWN, "Z I"]),
        (vec![[done, fatal].concat()], vec![UNKNOWN, "Z I"]),
    ] {
        let mut world = cluster_world(1);
        world.join(0);
        world.say(0, &m::query("select 'c0.0'"));
        world.clients[0].disturb();
        world.say_only(0, &m::query("insert 'c0.1'"));
        for piece in pieces {
            let (backend, _) = world.last_backend();
            backend.output.extend(piece);
            world.deliver_output();
        }
        dies(&mut world);
        world.settle();
        assert_eq!(world.heard(0), told);
    }
}

#[test]
fn failover_a_copy_counts_once_its_end_was_sent() {
    for (end, told) in [(vec![], LOST), (m::copy_done(), UNKNOWN)] {
        let mut world = cluster_world(1);
        world.join(0);
        world.clients[0].disturb();
        assert_eq!(world.say(0, &m::query("copy t from stdin")), ["G"]);
        world.say_only(0, &[m::copy_data("c0.1"), end].concat());
        dies(&mut world);
        world.settle();
        assert_eq!(world.heard(0), [told, "Z I"]);
        promoted(&mut world);
        // What is left of the copy is dropped.
        assert!(world.say(0, &[m::copy_data("c0.2"), m::copy_done()].concat()).is_empty());
        assert_eq!(world.say(0, &m::query("select 'c0.3'"))[1], "D c0.3");
    }
}

#[test]
fn failover_last_notices_prove_nothing_and_are_not_told() {
    for (severity, code) in [("WARNING", "57P01"), ("WARNING", "57P02")] {
        let notice = m::report(b'N', severity, code, "the server goes down");
        // A read that has only begun to be answered is run again, whatever came with the notice.
        let mut world = cluster_world(1);
        world.join(0);
        world.say(0, &m::query("select 'c0.0'"));
        world.clients[0].disturb();
        world.say_only(0, &m::query("select 'c0.1'"));
        let (backend, _) = world.last_backend();
        backend.output.extend([m::row_description(), notice.clone()].concat());
        world.see(view(8, None, [NodeState::Unknown, NodeState::Replica]));
        world.deliver_output();
        dies(&mut world);
        promoted(&mut world);
        assert_eq!(world.heard(0), ["T", "D c0.1", "C SELECT 1", "Z I"], "{code}");
        // Behind a part of the answer it is swallowed.
        world.dead.clear();
        world.say_only(0, &m::query("insert 'c0.2'"));
        let (backend, _) = world.last_backend();
        backend.output.extend(m::message(b'C', b"INSERT 0 1\0"));
        world.deliver_output();
        world.last_backend().0.output.extend(notice);
        world.deliver_output();
        world.see(view(11, None, [NodeState::Down; 2]));
        world.kill_node(NodeId(1));
        world.settle();
        assert_eq!(world.heard(0), ["C INSERT 0 1", UNKNOWN, "Z I"], "{code}");
    }
}

#[test]
fn failover_a_switchover_cuts_connections_to_what_is_a_replica_now() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("begin"));
    world.clients[0].disturb();
    world.say_only(0, &m::query("insert 'c0.1'"));
    world.see(view(10, Some(1), [NodeState::Replica, NodeState::Primary]));
    assert!(world.peers[0].backend.closed);
    world.settle();
    assert_eq!(world.heard(0), [LOST, "Z E"]);
}

#[test]
fn failover_who_was_to_be_run_again_and_waits_too_long_is_not_told_that_nothing_ran() {
    let hold = std::time::Duration::from_secs(3);
    let mut world = cluster_world_with(1, |config| config.failover_hold = hold);
    world.join(0);
    world.say(0, &m::query("select 'c0.0'"));
    world.clients[0].disturb();
    world.say_only(0, &m::query("select 'c0.1'"));
    dies(&mut world);
    world.settle();
    world.pass(2 * hold);
    world.settle();
    assert_eq!(world.heard(0), [UNKNOWN, "Z I"]);
    // The same with a cancel request while it waits.
    world.see(view(10, Some(1), [NodeState::Down, NodeState::Primary]));
    world.say(0, &m::query("select 'c0.2'"));
    world.heard(0);
    world.say_only(0, &m::query("select 'c0.3'"));
    world.see(view(11, None, [NodeState::Down; 2]));
    world.kill_node(NodeId(1));
    world.cancel_of(0);
    world.settle();
    assert_eq!(world.heard(0), [UNKNOWN, "Z I"]);
}

#[test]
fn failover_a_client_that_has_vanished_is_not_run_again() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("select 'c0.0'"));
    world.clients[0].disturb();
    world.say_only(0, &m::query("select 'c0.1'"));
    world.vanish(0);
    dies(&mut world);
    promoted(&mut world);
    assert_eq!(world.rerun(), 0);
    assert!(world.clients[0].session.is_none());
}

#[test]
fn failover_of_several_statements_in_a_transaction_the_first_is_told_of_the_loss() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("begin"));
    world.clients[0].disturb();
    world.say_only(0, &[m::query("insert 'c0.1'"), m::query("insert 'c0.2'")].concat());
    dies(&mut world);
    world.settle();
    let heard = world.heard(0);
    assert_eq!(heard[..2], [LOST, "Z E"]);
    assert!(heard[2].starts_with("E 25P02") && heard[3..] == ["Z E"], "{heard:?}");
}

#[test]
fn failover_a_pinned_client_is_closed_because_its_state_is_lost() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("create temp table t1"));
    world.clients[0].disturb();
    assert!(world.server_of(0).is_some(), "it is pinned");
    dies(&mut world);
    world.settle();
    assert_eq!(world.heard(0), [LOST]);
    assert!(world.clients[0].session.is_none());
}
