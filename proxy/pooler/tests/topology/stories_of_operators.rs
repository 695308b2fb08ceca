//! HOLD, RESUME, ADOPT NODE, and nodes that come and go.

use std::time::{Duration, Instant};

use pgimbal_pooler::topology::{
    AdoptError, Event, HoldReason, NodeId, NodeState, Remembered, TimelineId, Topology, Writes,
};

use crate::watch::{Watch, options, spec};
use crate::world::{OURS, Reach, THEIRS};

fn writes_to(watch: &Watch) -> Option<usize> {
    watch.topology.view().primary().map(|epoch| epoch.node.index())
}

#[test]
fn failover_an_operators_hold_lasts_until_resume_and_leads_to_the_new_primary() {
    let mut watch = Watch::new(1, 1, false);
    watch.within(100, |watch| writes_to(watch) == Some(0));
    watch.topology.hold(watch.now);
    assert_eq!(watch.topology.view().writes, Writes::Held(HoldReason::Operator));
    watch.servers[0].reach = Reach::Dead;
    watch.servers[1].promote();
    watch.run(2_000);
    assert_eq!(watch.topology.view().writes, Writes::Held(HoldReason::Operator));
    assert!(watch.topology.resume(watch.now));
    assert_eq!(writes_to(&watch), Some(1));
    assert!(!watch.topology.resume(watch.now));
    let failovers: Vec<_> = watch.topology.failovers().collect();
    assert_eq!(&*failovers[0].why, "an operator holds the cluster");
    assert!(failovers[0].lasted >= Duration::from_secs(2));
}

#[test]
fn failover_an_adopted_nodes_lower_timeline_becomes_the_clusters() {
    let mut watch = Watch::new(1, 2, false);
    for server in &mut watch.servers {
        server.timeline = TimelineId(5);
    }
    watch.within(100, |watch| writes_to(watch) == Some(0));
    // n1 comes back from a backup, on an older timeline.
    watch.servers[1].primary = true;
    watch.servers[1].timeline = TimelineId(3);
    watch.run(1_200);
    assert_eq!(writes_to(&watch), Some(0));
    assert_eq!(watch.topology.view().nodes[1].state, NodeState::Quarantined);
    watch.topology.adopt(NodeId(1), watch.now).expect("it answers");
    watch.drain();
    assert_eq!(writes_to(&watch), Some(1));
    assert!(watch.events.iter().any(|event| matches!(event, Event::Adopted { .. })));
    assert_eq!(watch.topology.remembered().timeline, Some(TimelineId(3)));
    // What the others have seen of timeline 5 does not count.
    let mut told = Vec::new();
    for _ in 0..3_000 {
        while let Some(order) = watch.topology.poll_probe(watch.now) {
            let report = watch.servers[order.node.index()].report();
            watch.topology.handle_report(order.node, order.sent_at, watch.now, report);
            told.push(order.node);
        }
        assert_eq!(writes_to(&watch), Some(1));
        watch.now += Duration::from_millis(1);
    }
    assert!(told.len() > 6);
    for other in [0, 2] {
        assert_eq!(watch.topology.view().nodes[other].state, NodeState::Quarantined);
        watch.servers[other].primary = false;
        watch.servers[other].timeline = TimelineId(3);
        // It was started anew for that.
        watch.servers[other].started += 100;
    }
    while let Some(order) = watch.topology.poll_probe(watch.now + Duration::from_secs(1)) {
        let report = watch.servers[order.node.index()].report();
        watch.topology.handle_report(order.node, order.sent_at, watch.now, report);
    }
    for other in [0, 2] {
        assert_eq!(watch.topology.view().nodes[other].state, NodeState::Replica);
    }
}

#[test]
fn failover_adopting_one_of_two_primaries_ends_the_split_brain() {
    let mut watch = Watch::new(1, 2, false);
    watch.within(100, |watch| writes_to(watch) == Some(0));
    watch.servers[1].primary = true;
    watch.within(1_300, |watch| matches!(watch.topology.view().writes, Writes::Refused(_)));
    watch.topology.adopt(NodeId(0), watch.now).expect("it answers");
    assert_eq!(writes_to(&watch), Some(0));
    assert_eq!(watch.topology.view().nodes[1].state, NodeState::Quarantined);
}

#[test]
fn failover_a_cluster_made_anew_is_adopted() {
    let mut watch = Watch::new(1, 1, false);
    let remembered =
        Remembered { system: Some(OURS), timeline: Some(TimelineId(4)), rejected: vec![] };
    let specs = vec![spec(0), spec(1)];
    watch.topology = Topology::new(options(), specs, remembered, watch.now);
    for server in &mut watch.servers {
        server.system = THEIRS;
    }
    watch.run(1_200);
    let reason = HoldReason::OtherCluster(NodeId(0));
    assert_eq!(watch.topology.view().writes, Writes::Held(reason));
    let why = watch.topology.details(watch.now).remove(0).why;
    assert!(why.contains("ADOPT NODE"), "{why}");
    watch.topology.adopt(NodeId(0), watch.now).expect("it answers");
    assert_eq!(writes_to(&watch), Some(0));
    assert_eq!(watch.topology.view().nodes[1].state, NodeState::Replica);
}

#[test]
fn failover_a_leader_on_an_older_timeline_than_was_seen_is_adopted_and_not_rewound() {
    let mut watch = Watch::new(1, 1, false);
    watch.run(100);
    watch.servers[0].timeline = TimelineId(3);
    watch.servers[1].timeline = TimelineId(3);
    watch.run(1_200);
    assert_eq!(writes_to(&watch), Some(0));
    let why = |watch: &Watch| watch.topology.details(watch.now).remove(0).why;
    // It comes back with an old timeline while a replica still has the newer one.
    watch.servers[0].timeline = TimelineId(2);
    watch.run(1_200);
    assert_eq!(watch.topology.view().writes, Writes::Held(HoldReason::NoPrimary));
    assert!(why(&watch).contains("pg_rewind"), "{}", why(&watch));
    // The cluster manager has the replica follow it, started anew.
    watch.servers[1].timeline = TimelineId(2);
    watch.servers[1].started = 99;
    watch.run(1_200);
    let reason = HoldReason::OlderTimeline(NodeId(0));
    assert_eq!(watch.topology.view().writes, Writes::Held(reason));
    assert!(why(&watch).contains("ADOPT NODE"), "{}", why(&watch));
    assert!(!why(&watch).contains("pg_rewind"), "{}", why(&watch));
    watch.topology.adopt(NodeId(0), watch.now).expect("it answers");
    assert_eq!(writes_to(&watch), Some(0));
    assert_eq!(watch.topology.view().nodes[1].state, NodeState::Replica);
}

#[test]
fn failover_what_an_operator_gave_up_stays_out_when_it_comes_back_after_a_restart() {
    let mut watch = Watch::new(1, 1, false);
    watch.run(100);
    watch.servers[0].timeline = TimelineId(3);
    watch.run(1_200);
    watch.servers[0].reach = Reach::Dead;
    watch.servers[1].primary = true;
    watch.run(1_200);
    assert_eq!(watch.topology.view().nodes[1].state, NodeState::Quarantined);
    watch.topology.adopt(NodeId(1), watch.now).expect("it answers");
    let remembered = watch.topology.remembered();
    assert_eq!(remembered.rejected, ["n0".into()]);
    let mut watch = Watch::new(1, 1, false);
    let specs = vec![spec(0), spec(1)];
    watch.topology = Topology::new(options(), specs, remembered, watch.now);
    watch.servers[0].timeline = TimelineId(3);
    watch.servers[1].primary = true;
    for _ in 0..50 {
        while let Some(order) = watch.topology.poll_probe(watch.now) {
            let report = watch.servers[order.node.index()].report();
            watch.topology.handle_report(order.node, order.sent_at, watch.now, report);
        }
        watch.now += Duration::from_millis(100);
        assert_ne!(writes_to(&watch), Some(0));
    }
    assert_eq!(writes_to(&watch), Some(1));
    assert_eq!(watch.topology.view().nodes[0].state, NodeState::Quarantined);
}

#[test]
fn failover_a_node_that_does_not_answer_cannot_be_adopted() {
    let mut watch = Watch::new(1, 0, false);
    assert_eq!(watch.topology.adopt(NodeId(0), watch.now), Err(AdoptError::Silent));
    assert_eq!(watch.topology.adopt(NodeId(7), watch.now), Err(AdoptError::Unknown));
}

#[test]
fn failover_nodes_of_a_name_come_and_go_and_keep_their_numbers() {
    let now = Instant::now();
    let mut topology = Topology::new(options(), vec![], Remembered::default(), now);
    assert_eq!(topology.view().writes, Writes::Held(HoldReason::Unknown));
    topology.set_nodes(vec![spec(0), spec(1)], now);
    topology.set_nodes(vec![spec(1), spec(2)], now);
    let names = |topology: &Topology| -> Vec<String> {
        let view = topology.view();
        view.nodes.iter().map(|node| format!("{} {}", node.name, node.state.word())).collect()
    };
    assert_eq!(names(&topology), ["n0 removed", "n1 unknown", "n2 unknown"]);
    // No answer says nothing.
    topology.set_nodes(vec![], now);
    assert_eq!(names(&topology), ["n0 removed", "n1 unknown", "n2 unknown"]);
    topology.set_nodes(vec![spec(0), spec(2)], now);
    assert_eq!(names(&topology), ["n0 unknown", "n1 removed", "n2 unknown"]);
    // Another place of the same name is another node.
    let moved = pgimbal_pooler::topology::NodeSpec { port: 6000, ..spec(0) };
    topology.set_nodes(vec![moved, spec(2)], now);
    assert_eq!(names(&topology), ["n0 removed", "n1 removed", "n2 unknown", "n0 unknown"]);
}

#[test]
fn failover_a_primary_that_is_not_listed_any_more_gets_no_writes() {
    let mut watch = Watch::new(1, 1, false);
    watch.within(100, |watch| writes_to(watch) == Some(0));
    watch.topology.set_nodes(vec![spec(1)], watch.now);
    assert_eq!(watch.topology.view().writes, Writes::Held(HoldReason::NoPrimary));
    watch.servers[1].promote();
    watch.within(1_300, |watch| writes_to(watch) == Some(1));
}
