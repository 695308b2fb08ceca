//! Which standbys are read from.

use std::time::Duration;

use pgimbal_pooler::topology::{NodeState, Options, TimelineId};

use crate::watch::{Watch, options, spec};
use crate::world::Reach;

fn limited(bytes: Option<u64>, time: Option<Duration>) -> Watch {
    let mut watch = Watch::new(1, 1, false);
    let options = Options { max_lag_bytes: bytes, max_lag: time, ..options() };
    watch.topology.reconfigure(options, vec![spec(0), spec(1)], watch.now);
    watch
}

fn state(watch: &Watch) -> NodeState {
    watch.topology.view().nodes[1].state
}

#[test]
fn failover_a_standby_too_many_bytes_behind_is_left_out_until_it_has_caught_up() {
    let mut watch = limited(Some(20_000), None);
    watch.run(1_200);
    assert_eq!(state(&watch), NodeState::Replica, "its 9600 bytes are allowed");
    watch.within(4_000, |watch| state(watch) == NodeState::Lagging);
    let detail = watch.topology.details(watch.now).remove(1);
    assert!(detail.lag_bytes.is_some_and(|bytes| bytes > 20_000), "{detail:?}");
    assert!(detail.why.contains("replica_max_lag_bytes is 20000"), "{detail:?}");
    watch.servers[1].position = watch.servers[0].position;
    watch.within(1_200, |watch| state(watch) == NodeState::Replica);
}

#[test]
fn failover_a_standby_too_long_behind_is_left_out_and_an_idle_primary_makes_no_lag() {
    let mut watch = limited(None, Some(Duration::from_millis(2_500)));
    watch.run(1_200);
    assert_eq!(state(&watch), NodeState::Replica);
    watch.within(5_000, |watch| state(watch) == NodeState::Lagging);
    let detail = watch.topology.details(watch.now).remove(1);
    assert!(detail.lag.is_some_and(|lag| lag.as_millis() > 2_500), "{detail:?}");
    watch.servers[1].position = watch.servers[0].position + 1_000_000;
    watch.run(10_000);
    assert_eq!(state(&watch), NodeState::Replica);
    let detail = watch.topology.details(watch.now).remove(1);
    assert_eq!((detail.lag_bytes, detail.lag), (Some(0), Some(Duration::ZERO)));
}

#[test]
fn failover_without_the_primarys_position_a_limit_cannot_be_kept() {
    let mut watch = limited(Some(1), None);
    watch.servers[0].reach = Reach::Dead;
    watch.run(1_000);
    assert_eq!(state(&watch), NodeState::Lagging);
    let mut free = Watch::new(1, 1, false);
    free.servers[0].reach = Reach::Dead;
    free.run(1_000);
    assert_eq!(state(&free), NodeState::Replica);
}

#[test]
fn failover_a_standby_on_the_old_timeline_is_not_read_from() {
    let mut watch = Watch::new(1, 2, false);
    watch.run(1_000);
    watch.servers[0].reach = Reach::Dead;
    watch.servers[2].promote();
    // Ahead of the fork it would show a negative lag.
    watch.servers[1].position += 1_000_000;
    watch.run(2_000);
    assert_eq!(state(&watch), NodeState::Lagging);
    let detail = watch.topology.details(watch.now).remove(1);
    assert_eq!((detail.lag_bytes, detail.lag), (None, None));
    assert_eq!(detail.why, "on timeline 1, the cluster is on 2");
    watch.servers[1].timeline = TimelineId(2);
    watch.within(1_200, |watch| state(watch) == NodeState::Replica);
}

#[test]
fn failover_a_promoted_standby_has_a_new_epoch_on_the_same_node() {
    let mut watch = Watch::new(1, 1, false);
    watch.run(1_000);
    let before = watch.topology.view().nodes[1].epoch.expect("it has answered");
    watch.servers[1].promote();
    watch.run(1_200);
    let after = watch.topology.view().nodes[1].epoch.expect("it has answered");
    assert_eq!((before.timeline, after.timeline), (TimelineId(1), TimelineId(2)));
    assert_eq!((before.system, before.node), (after.system, after.node));
    assert_eq!(watch.topology.view().primary(), Some(after));
}

#[test]
fn failover_a_standby_whose_upstream_is_gone_stays_on_the_timeline_that_it_has_followed() {
    let mut watch = Watch::new(1, 1, false);
    watch.run(1_200);
    watch.servers[0].timeline = TimelineId(2);
    watch.servers[1].timeline = TimelineId(2);
    watch.run(1_200);
    assert_eq!(state(&watch), NodeState::Replica);
    // Without its receiver it tells the timeline of its last restartpoint.
    watch.servers[1].timeline = TimelineId(1);
    watch.run(3_000);
    assert_eq!(state(&watch), NodeState::Replica);
    // Another server at its place may be behind.
    watch.servers[1].started = 99;
    watch.within(1_200, |watch| state(watch) == NodeState::Lagging);
}
