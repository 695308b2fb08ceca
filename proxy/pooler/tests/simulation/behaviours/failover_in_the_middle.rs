//! Connections that break in the middle of something that does not often break there.

use pgimbal_pooler::topology::{NodeId, NodeState};

use super::failover::{LOST, UNKNOWN, desk, dies, promoted, view};
use super::{prepare_and_run, segment};
use crate::message as m;
use crate::world::World;

/// Parse, Bind, Execute, without their Sync.
fn open(text: &str) -> Vec<u8> {
    [m::parse("", text), m::bind("", "", ""), m::execute("", 0)].concat()
}

/// A client in a transaction whose primary has died; the other node is primary now.
fn lost_transaction() -> World {
    let mut world = desk(1);
    world.join(0);
    world.say(0, &m::query("begin"));
    world.clients[0].disturb();
    dies(&mut world);
    promoted(&mut world);
    world
}

#[test]
fn failover_a_commit_that_was_executed_without_its_sync_may_have_come_through() {
    let mut world = desk(1);
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
        let mut world = desk(1);
        world.join(0);
        world.say(0, &m::query("select 'c0.0'"));
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
    let mut world = desk(1);
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
    let mut world = desk(1);
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
    let rerun = world.session(0).rerun;
    assert_ne!(rerun, pgimbal_pooler::rerun::Rerun::No, "else it would not run READ ONLY");
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
    let mut world = desk(1);
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
    let mut world = desk(1);
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
    let mut world = desk(1);
    world.join(0);
    world.say(0, &m::query("select 'c0.0'"));
    world.clients[0].disturb();
    world.say_only(0, &m::query("select 'c0.1'"));
    world.last_backend().0.die(Some("terminating connection due to administrator command"));
    world.see(view(9, None, [NodeState::Unjudged, NodeState::Replica]));
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
