//! The table of what a client sees when its server connection breaks, held at the core.

use std::sync::Arc;
use std::time::Duration;

use pgimbal_config::{ClusterConfig, Host, ReplicaFallback, ResolvedCluster, Route};
use pgimbal_pooler::session::Link;
use pgimbal_pooler::topology::{
    Epoch, HoldReason, NodeId, NodeState, NodeView, Placement, ProbeHint, SystemId, TimelineId,
    View, Writes,
};

use super::{prepare_and_run, segment};
use crate::message as m;
use crate::world::{World, pool};

pub(super) const LOST: &str =
    "E 57P01 the server connection was lost, and what it ran is rolled back";
pub(super) const UNKNOWN: &str =
    "E 08007 the server connection was lost; whether the statement took effect is not known";

/// Two nodes, `a` and `b`; `b` is a replica until it is promoted.
pub(super) fn view(version: u64, primary: Option<usize>, states: [NodeState; 2]) -> Arc<View> {
    let epoch = |node: usize| {
        let timeline = TimelineId(if version >= 10 { 2 } else { 1 });
        Epoch { system: SystemId(7), timeline, node: NodeId(node as u16) }
    };
    let node = |index: usize, name: &str| NodeView {
        id: NodeId(index as u16),
        name: name.into(),
        host: Host::Tcp("localhost".into()),
        port: 1 + index as u16,
        state: states[index],
        epoch: (states[index] != NodeState::Unknown).then(|| epoch(index)),
        candidate: true,
        placement: Placement::default(),
        freshness: None,
    };
    let writes = match primary {
        Some(index) => Writes::To(epoch(index)),
        None => Writes::Held(HoldReason::Unreachable),
    };
    Arc::new(View { version, nodes: vec![node(0, "a"), node(1, "b")], writes })
}

/// A desk before a cluster whose primary is `a`.
pub(super) fn cluster_world(size: u32) -> World {
    cluster_world_with(size, |_| {})
}

pub(super) fn cluster_world_with(size: u32, change: impl FnOnce(&mut ClusterConfig)) -> World {
    let mut config = ClusterConfig::default();
    change(&mut config);
    let cluster = ResolvedCluster { name: "main".into(), config: Arc::new(config) };
    let mut world = World::desk_before(pool(size), Some(cluster));
    world.see(view(1, Some(0), [NodeState::Primary, NodeState::Replica]));
    world
}

/// A client at a primary, with one answer behind it.
pub(super) fn at_work() -> World {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("select 'c0.0'"));
    world.clients[0].disturb();
    world
}

/// The primary dies without a word, and nobody else is primary yet.
pub(super) fn dies(world: &mut World) {
    world.see(view(9, None, [NodeState::Down, NodeState::Replica]));
    world.kill_node(NodeId(0));
}

/// The other node is promoted.
pub(super) fn promoted(world: &mut World) {
    world.see(view(10, Some(1), [NodeState::Down, NodeState::Primary]));
    world.settle();
}

#[test]
fn failover_an_idle_client_sees_nothing() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("select 'c0.1'"));
    dies(&mut world);
    promoted(&mut world);
    assert_eq!(world.heard(0), [""; 0]);
    assert_eq!(world.say(0, &m::query("select 'c0.2'"))[1], "D c0.2");
}

#[test]
fn failover_what_begins_during_the_hold_runs_on_the_new_primary() {
    let mut world = cluster_world(1);
    world.join(0);
    world.join(1);
    dies(&mut world);
    assert!(world.say(0, &m::query("select 'c0.1'")).is_empty());
    assert!(world.say(1, &prepare_and_run("", "select $1", "c1.1")).is_empty());
    assert!(world.probe_hints.contains(&ProbeHint::WaitersNeedPrimary));
    promoted(&mut world);
    assert_eq!(world.heard(0)[1], "D c0.1");
    assert_eq!(world.heard(1)[2], "D c1.1");
}

#[test]
fn failover_hold_ends_with_57p03_and_the_connection_survives() {
    let mut world = cluster_world_with(1, |config| config.failover_hold = Duration::from_secs(3));
    world.join(0);
    dies(&mut world);
    world.say(0, &m::query("select 'c0.1'"));
    world.clients[0].disturb();
    world.pass(Duration::from_secs(2));
    world.settle();
    assert!(world.heard(0).is_empty());
    world.pass(Duration::from_secs(2));
    world.settle();
    let text = "E 57P03 no primary within failover_hold: the primary does not answer";
    assert_eq!(world.heard(0), [text, "Z I"]);
    promoted(&mut world);
    assert_eq!(world.say(0, &m::query("select 'c0.2'"))[1], "D c0.2");
}

#[test]
fn failover_as_many_wait_as_max_held_allows() {
    let mut world = cluster_world_with(1, |config| config.max_held = 1);
    world.join(0);
    world.join(1);
    dies(&mut world);
    assert!(world.say(0, &m::query("select 'c0.1'")).is_empty());
    world.clients[1].disturb();
    let said = world.say(1, &m::query("select 'c1.1'"));
    assert!(said[0].starts_with("E 57P03 the primary is unavailable"), "{said:?}");
    assert_eq!(said[1], "Z I");
    promoted(&mut world);
    assert_eq!(world.heard(0)[1], "D c0.1");
}

#[test]
fn failover_a_read_in_flight_is_run_again_in_both_protocols() {
    let mut world = cluster_world(2);
    world.join(0);
    world.join(1);
    world.say(0, &m::query("sleep 'c0.1'"));
    world.say(1, &m::query("select 'c1.0'"));
    // The model's sleep is no SELECT: what only reads begins as such.
    world.clients[0].disturb();
    dies(&mut world);
    world.settle();
    assert_eq!(world.heard(0), [UNKNOWN, "Z I"]);
    world.see(view(10, Some(1), [NodeState::Down, NodeState::Primary]));
    for bytes in [m::query("select 'c1.1'"), prepare_and_run("", "select $1", "c1.1")] {
        let mut world = cluster_world(1);
        world.join(1);
        world.say(1, &m::query("select 'c1.0'"));
        world.heard(1);
        world.say_only(1, &bytes);
        dies(&mut world);
        world.settle();
        assert!(world.heard(1).is_empty());
        promoted(&mut world);
        let heard = world.heard(1);
        assert!(heard.contains(&"D c1.1".to_owned()), "{heard:?}");
        assert_eq!(heard.last().map(String::as_str), Some("Z I"));
        assert_eq!(heard.iter().filter(|line| line.starts_with('Z')).count(), 1);
        assert_eq!(world.rerun(), 1);
    }
}

#[test]
fn failover_a_write_in_flight_has_an_unknown_outcome_once_for_each_sync() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("select 'c0.0'"));
    world.clients[0].disturb();
    world
        .say_only(0, &[prepare_and_run("", "sleep $1", "c0.1"), m::query("sleep 'c0.2'")].concat());
    dies(&mut world);
    world.settle();
    assert_eq!(world.heard(0), [UNKNOWN, "Z I", UNKNOWN, "Z I"]);
}

#[test]
fn failover_a_fatal_before_the_answer_proves_the_rollback() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("sleep 'c0.1'"));
    world.clients[0].disturb();
    world.peers[0].backend.die(Some("terminating connection due to administrator command"));
    world.settle();
    let text = "E 57P01 terminating connection due to administrator command";
    assert_eq!(world.heard(0), [text, "Z I"]);
}

#[test]
fn failover_inside_a_transaction_the_error_comes_once_until_rollback() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("begin"));
    world.clients[0].disturb();
    dies(&mut world);
    world.settle();
    assert!(world.heard(0).is_empty(), "nothing until its next message");
    promoted(&mut world);
    let parsed = segment(&[m::parse("", "release a"), m::bind("", "", ""), m::execute("", 0)]);
    assert_eq!(world.say(0, &m::query("rollback to a")), [LOST, "Z E"], "the loss comes first");
    for savepoint in [m::query("rollback to a"), parsed] {
        let said = world.say(0, &savepoint);
        let [.., error, ready] = &said[..] else { panic!("{said:?}") };
        assert!(error.starts_with("E 25P02") && ready == "Z E", "{said:?}");
    }
    let next = world.say(0, &m::query("select 'c0.1'"));
    assert!(next[0].starts_with("E 25P02") && next[1] == "Z E", "{next:?}");
    assert_eq!(world.say(0, &m::query("rollback")), ["C ROLLBACK", "Z I"]);
    assert_eq!(world.say(0, &m::query("select 'c0.2'"))[1], "D c0.2");
    assert_eq!(world.failed(), 1, "it is counted although it was told later");
}

#[test]
fn failover_a_commit_is_never_answered_as_a_rollback() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("begin"));
    world.clients[0].disturb();
    dies(&mut world);
    promoted(&mut world);
    assert_eq!(world.say(0, &m::query("commit")), [LOST, "Z I"]);
    // One that was in flight may have come through.
    world.say(0, &m::query("begin"));
    world.say_only(0, &m::query("commit"));
    world.see(view(11, None, [NodeState::Down, NodeState::Down]));
    world.kill_node(NodeId(1));
    world.settle();
    assert_eq!(world.heard(0), [UNKNOWN, "Z I"]);
}

#[test]
fn failover_a_rollback_in_flight_succeeds() {
    for bytes in [
        m::query("rollback"),
        segment(&[m::parse("", "rollback"), m::bind("", "", ""), m::execute("", 0)]),
    ] {
        let mut world = cluster_world(1);
        world.join(0);
        world.say(0, &m::query("begin"));
        world.clients[0].disturb();
        world.say_only(0, &bytes);
        dies(&mut world);
        world.settle();
        let heard = world.heard(0);
        assert!(heard.contains(&"C ROLLBACK".to_owned()), "{heard:?}");
        assert_eq!(heard.last().map(String::as_str), Some("Z I"));
    }
}

#[test]
fn failover_a_segment_without_its_sync_goes_to_the_new_primary() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("select 'c0.0'"));
    let open = [m::parse("", "select $1"), m::bind("", "", "c0.1"), m::execute("", 0)].concat();
    world.say_only(0, &open);
    dies(&mut world);
    world.settle();
    assert!(world.heard(0).is_empty());
    promoted(&mut world);
    let heard = world.say(0, &m::sync());
    assert!(heard.contains(&"D c0.1".to_owned()), "{heard:?}");
    assert_eq!(world.rerun(), 0);
}

#[test]
fn failover_a_switch_cuts_linked_connections_before_another_byte() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("begin"));
    world.clients[0].disturb();
    world.say_only(0, &m::query("select 'c0.1'"));
    // The old primary lives on and answers, but its time is over.
    world.see(view(10, Some(1), [NodeState::Quarantined, NodeState::Primary]));
    world.settle();
    assert_eq!(world.heard(0), [LOST, "Z E"]);
    assert!(world.peers[0].backend.closed);
}

#[test]
fn failover_a_hold_leaves_linked_connections_alone() {
    let mut world = cluster_world(1);
    world.join(0);
    world.join(1);
    world.say(0, &m::query("begin"));
    world.see(view(2, None, [NodeState::Down, NodeState::Replica]));
    assert_eq!(world.say(0, &m::query("select 'c0.1'"))[1], "D c0.1");
    world.say(0, &m::query("commit"));
    assert!(world.say(1, &m::query("select 'c1.1'")).is_empty());
    assert!(matches!(world.session(1).link(), Link::Waiting(_)));
    world.see(view(3, Some(0), [NodeState::Primary, NodeState::Replica]));
    world.settle();
    assert_eq!(world.heard(1)[1], "D c1.1");
    assert_eq!(world.open(), 1, "the connection was kept");
}

#[test]
fn failover_a_dial_that_lands_behind_the_switch_is_not_used() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("select 'c0.0'"));
    dies(&mut world);
    world.settle();
    world.dead.clear();
    world.see(view(9, Some(0), [NodeState::Primary, NodeState::Replica]));
    world.heard(0);
    world.say_only(0, &m::query("select 'c0.1'"));
    // While the dial is under way the other node is promoted.
    world.see(view(10, Some(1), [NodeState::Quarantined, NodeState::Primary]));
    world.settle();
    world.pass(Duration::from_millis(300));
    world.settle();
    assert_eq!(world.heard(0)[1], "D c0.1");
    assert!(world.probe_hints.contains(&ProbeHint::DialFailed(NodeId(0))));
}

#[test]
fn failover_reads_follow_the_route_and_leave_a_failed_replica_out() {
    let mut world = cluster_world(1);
    world.join(0);
    let said = world.say(0, &m::query("set pgimbal.route to 'replica'"));
    assert_eq!(said, ["C SET", "Z I"]);
    assert_eq!(world.say(0, &m::query("select 'c0.1'"))[1], "D c0.1");
    assert_eq!(world.node_of_last(), Some(NodeId(1)));
    world.kill_node(NodeId(1));
    world.settle();
    assert_eq!(world.say(0, &m::query("select 'c0.2'"))[1], "D c0.2");
    assert_eq!(world.node_of_last(), Some(NodeId(0)), "none is left: the primary");
    world.say(0, &m::query("reset pgimbal.route"));
    world.pass(Duration::from_secs(3));
    assert_eq!(world.say(0, &m::query("select 'c0.3'"))[1], "D c0.3");
}

#[test]
fn failover_without_a_replica_reads_are_refused_where_the_operator_says_so() {
    let mut world = cluster_world_with(1, |config| config.replica_fallback = ReplicaFallback::None);
    world.set_route(Route::Replica);
    world.join(0);
    assert_eq!(world.say(0, &m::query("select 'c0.1'"))[1], "D c0.1");
    world.see(view(2, Some(0), [NodeState::Primary, NodeState::Lagging]));
    world.clients[0].disturb();
    assert_eq!(
        world.say(0, &m::query("select 'c0.2'")),
        ["E 57P03 no replica can be read from", "Z I"]
    );
}

#[test]
fn failover_a_segment_behind_one_in_flight_runs_on_the_new_primary() {
    let mut world = cluster_world(1);
    world.join(0);
    world.say(0, &m::query("select 'c0.0'"));
    world.clients[0].disturb();
    let segments =
        [prepare_and_run("", "sleep $1", "c0.1"), prepare_and_run("", "insert $1", "c0.2")];
    world.say(0, &segments.concat());
    dies(&mut world);
    world.settle();
    assert_eq!(world.heard(0), [UNKNOWN, "Z I"]);
    promoted(&mut world);
    assert_eq!(world.heard(0), ["1", "2", "C INSERT 0 1", "Z I"]);
}
