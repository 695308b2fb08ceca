//! Failovers, one by one.

use std::time::Instant;

use pgimbal_pooler::topology::{
    Event, HoldReason, NodeId, NodeState, ProbeHint, Remembered, TimelineId, Topology, Writes,
};

use crate::watch::{Watch, options, spec};
use crate::world::{OURS, Reach, Server, THEIRS};

fn writes_to(watch: &Watch) -> Option<usize> {
    watch.topology.view().primary().map(|epoch| epoch.node.index())
}

fn state(watch: &Watch, node: usize) -> NodeState {
    watch.topology.view().nodes[node].state
}

/// The words of what was told, without the names.
fn told(watch: &Watch) -> Vec<&'static str> {
    let word = |event: &Event| match event {
        Event::Found { .. } => "found",
        Event::Lost { .. } => "lost",
        Event::Holding { .. } => "holding",
        Event::Promoted { .. } => "promoted",
        Event::Switched { .. } => "switched",
        Event::Resumed { .. } => "resumed",
        Event::Quarantined { .. } => "quarantined",
        Event::Rejoined { .. } => "rejoined",
        Event::SplitBrain { .. } => "split",
        Event::SplitBrainOver => "split over",
        Event::Foreign { .. } => "foreign",
        _ => "",
    };
    watch.events.iter().map(word).filter(|word| !word.is_empty()).collect()
}

#[test]
fn failover_a_killed_primary_is_replaced_quarantined_and_rejoined() {
    let mut watch = Watch::new(1, 1, false);
    watch.within(100, |watch| writes_to(watch) == Some(0));
    watch.servers[0].reach = Reach::Dead;
    watch.topology.handle_probe_hint(ProbeHint::ConnectionBroke(NodeId(0)), watch.now);
    watch.within(40, |watch| watch.topology.view().writes == Writes::Held(HoldReason::Unreachable));
    watch.topology.handle_probe_hint(ProbeHint::WaitersNeedPrimary, watch.now);
    watch.run(700);
    watch.servers[1].promote();
    let noticed = watch.within(130, |watch| writes_to(watch) == Some(1));
    assert!(noticed <= 130, "{noticed}");
    watch.start(0);
    watch.within(1300, |watch| state(watch, 0) == NodeState::Quarantined);
    assert_eq!(writes_to(&watch), Some(1));
    // In recovery, but still on its own history.
    watch.servers[0].primary = false;
    watch.run(1300);
    assert_eq!(state(&watch, 0), NodeState::Quarantined);
    watch.rejoin(0);
    watch.within(1300, |watch| state(watch, 0) == NodeState::Replica);
    let scenario = ["found", "lost", "holding", "promoted", "switched", "quarantined", "rejoined"];
    assert_eq!(told(&watch), scenario);
    let failovers: Vec<_> = watch.topology.failovers().collect();
    assert_eq!(failovers.len(), 1);
    assert_eq!((&*failovers[0].from, &*failovers[0].to), ("n0", "n1"));
    assert_eq!(failovers[0].timeline, TimelineId(2));
    assert!(failovers[0].lasted.as_millis() >= 700, "{failovers:?}");
}

#[test]
fn failover_a_frozen_primary_is_noticed_within_three_seconds_and_believed_again() {
    for phase in 0..20 {
        let mut watch = Watch::new(phase, 1, false);
        watch.within(100, |watch| writes_to(watch) == Some(0));
        watch.run(phase * 50);
        watch.servers[0].reach = Reach::Silent;
        watch.within(2_600, |watch| writes_to(watch).is_none());
        watch.servers[0].reach = Reach::Fine;
        watch.within(3_000, |watch| writes_to(watch) == Some(0));
        assert_eq!(told(&watch), ["found", "lost", "holding", "resumed"]);
        assert_eq!(watch.topology.failovers().count(), 0);
    }
}

#[test]
fn failover_two_primaries_on_one_timeline_get_nothing_until_one_goes_away() {
    let mut watch = Watch::new(1, 2, false);
    watch.within(100, |watch| writes_to(watch) == Some(0));
    watch.servers[0].reach = Reach::Dead;
    watch.servers[1].promote();
    watch.servers[2].promote();
    watch.within(1_200, |watch| matches!(watch.topology.view().writes, Writes::Refused(_)));
    let Writes::Refused(text) = watch.topology.view().writes.clone() else { panic!("refused") };
    assert!(text.contains("n1 and n2") && text.contains("timeline 2"), "{text}");
    watch.servers[1].reach = Reach::Dead;
    watch.within(1_200, |watch| writes_to(watch) == Some(2));
    let told = told(&watch);
    let end = &told[told.len() - 2..];
    assert!(matches!(end, ["split over", "switched" | "resumed"]), "{told:?}");
}

#[test]
fn failover_two_names_of_one_server_are_one_node() {
    let server = Server::primary(1);
    let servers = vec![server.clone(), server, Server::standby(2)];
    let mut watch = Watch::of(servers, 1, false, Instant::now());
    watch.run(3_000);
    assert_eq!(writes_to(&watch), Some(0));
    assert_eq!((state(&watch, 0), state(&watch, 1)), (NodeState::Primary, NodeState::Primary));
    let details = watch.topology.details(watch.now);
    assert_eq!(details[1].why, "the same server as n0");
    // A restart is seen under one name first: that is no split brain.
    watch.servers[0].started = 9;
    watch.servers[1].started = 9;
    watch.run(3_000);
    assert!(!told(&watch).contains(&"split"), "{:?}", watch.events);
    // One name less: the server is still there.
    watch.servers[0].reach = Reach::Silent;
    watch.within(2_700, |watch| writes_to(watch) == Some(1));
}

#[test]
fn failover_a_node_of_another_cluster_is_refused_by_name() {
    let foreign = Server { system: THEIRS, timeline: TimelineId(7), ..Server::primary(9) };
    let servers = vec![foreign, Server::primary(1), Server::standby(2)];
    let mut watch = Watch::of(servers, 1, false, Instant::now());
    watch.within(100, |watch| writes_to(watch) == Some(1));
    assert_eq!(state(&watch, 0), NodeState::Foreign);
    let Some(Event::Foreign { node, why }) =
        watch.events.iter().find(|event| matches!(event, Event::Foreign { .. }))
    else {
        panic!("{:?}", watch.events)
    };
    assert_eq!(&**node, "n0");
    assert!(why.contains("9000") && why.contains("7000"), "{why}");
}

#[test]
fn failover_primaries_of_two_clusters_get_nothing_until_an_operator_has_chosen() {
    let foreign = Server { system: THEIRS, ..Server::primary(9) };
    let mut watch = Watch::of(vec![Server::primary(1), foreign], 1, false, Instant::now());
    watch.run(2_000);
    let Writes::Refused(text) = watch.topology.view().writes.clone() else { panic!("refused") };
    assert!(text.contains("n0 (7000)") && text.contains("n1 (9000)"), "{text}");
    watch.topology.adopt(NodeId(1), watch.now).expect("it answers");
    watch.within(100, |watch| writes_to(watch) == Some(1));
    assert_eq!(state(&watch, 0), NodeState::Foreign);
}

#[test]
fn failover_a_node_that_is_no_candidate_is_never_written_to_and_locks_nobody_out() {
    let mut watch = Watch::new(1, 2, false);
    watch.within(100, |watch| writes_to(watch) == Some(0));
    watch.drill(2);
    watch.servers[2].promote();
    watch.run(3_000);
    assert_eq!(writes_to(&watch), Some(0));
    watch.servers[0].reach = Reach::Dead;
    watch.run(3_000);
    assert_eq!(writes_to(&watch), None);
    assert_eq!(state(&watch, 2), NodeState::Primary);
    let details = watch.topology.details(watch.now);
    assert_eq!(details[2].why, "never written to: candidate = false");
}

#[test]
fn failover_what_was_remembered_keeps_an_old_primary_out_after_a_restart() {
    let mut old = Watch::new(1, 1, false);
    old.servers[0].reach = Reach::Dead;
    old.servers[1].promote();
    old.run(200);
    let remembered = old.topology.remembered();
    let highest =
        Remembered { system: Some(OURS), timeline: Some(TimelineId(2)), rejected: vec![] };
    assert_eq!(remembered, highest);
    let mut watch = Watch::new(1, 1, false);
    let specs = vec![spec(0), spec(1)];
    watch.topology = Topology::new(options(), specs, remembered, watch.now);
    watch.servers[1].reach = Reach::Dead;
    watch.run(3_000);
    assert_eq!(writes_to(&watch), None);
    assert_eq!(state(&watch, 0), NodeState::Quarantined);
}

#[test]
fn failover_nothing_is_written_before_every_node_was_asked_once() {
    let mut watch = Watch::new(1, 1, false);
    watch.servers[1].promote();
    watch.servers[1].reach = Reach::Silent;
    watch.run(1_400);
    assert_eq!(writes_to(&watch), None, "a newer primary may be late");
    watch.servers[1].reach = Reach::Fine;
    watch.within(200, |watch| writes_to(watch) == Some(0));
    watch.within(1_200, |watch| writes_to(watch) == Some(1));
}

#[test]
fn failover_a_primary_that_refuses_only_the_prober_keeps_its_writes() {
    let mut watch = Watch::new(1, 1, false);
    watch.within(100, |watch| writes_to(watch) == Some(0));
    watch.servers[0].reach = Reach::Shut;
    watch.run(5_000);
    assert_eq!(writes_to(&watch), Some(0));
    assert_eq!(state(&watch, 0), NodeState::ProbeRefused);
    // After it was down, what it is now is not known.
    watch.servers[0].reach = Reach::Dead;
    watch.run(1_200);
    watch.servers[0].reach = Reach::Shut;
    watch.run(3_000);
    assert_eq!(writes_to(&watch), None);
}

#[test]
fn failover_while_clients_wait_nodes_are_asked_every_100_ms_and_dialled_every_250() {
    let mut watch = Watch::new(1, 1, false);
    watch.within(100, |watch| writes_to(watch) == Some(0));
    watch.servers[0].reach = Reach::Dead;
    watch.within(1_200, |watch| writes_to(watch).is_none());
    watch.run(50);
    let mut asked = [0; 2];
    watch.topology.handle_probe_hint(ProbeHint::WaitersNeedPrimary, watch.now);
    for _ in 0..1_000 {
        while let Some(order) = watch.topology.poll_probe(watch.now) {
            asked[order.node.index()] += 1;
            let (sent, now) = (order.sent_at, watch.now);
            match watch.servers[order.node.index()].answer() {
                Ok(report) => watch.topology.handle_report(order.node, sent, now, report),
                Err(failure) => watch.topology.handle_failure(order.node, now, failure),
            }
        }
        watch.now += std::time::Duration::from_millis(1);
    }
    assert!((4..=6).contains(&asked[0]) && (9..=12).contains(&asked[1]), "{asked:?}");
}

#[test]
fn failover_a_storm_of_hints_asks_a_node_no_more_often_than_every_10_ms() {
    let mut watch = Watch::new(1, 0, false);
    watch.within(100, |watch| writes_to(watch) == Some(0));
    watch.run(100);
    let mut asked = 0;
    for _ in 0..100 {
        for _ in 0..50 {
            watch.topology.handle_probe_hint(ProbeHint::DialFailed(NodeId(0)), watch.now);
            watch.topology.handle_probe_hint(ProbeHint::WaitersNeedPrimary, watch.now);
        }
        while let Some(order) = watch.topology.poll_probe(watch.now) {
            asked += 1;
            let report = watch.servers[0].report();
            watch.topology.handle_report(order.node, order.sent_at, watch.now, report);
        }
        watch.now += std::time::Duration::from_millis(1);
    }
    assert!((5..=11).contains(&asked), "{asked}");
}
