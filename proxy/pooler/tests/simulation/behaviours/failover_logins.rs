//! Logins and reads on replicas while a cluster's primary is away.

use std::time::Duration;

use pgimbal_config::Route;
use pgimbal_pooler::topology::{NodeId, NodeState};

use super::failover::{cluster_world, view};
use crate::client::Stage;
use crate::message as m;

#[test]
fn failover_who_reads_on_replicas_logs_in_without_a_primary() {
    let mut world = cluster_world(1);
    world.set_route(Route::Replica);
    world.see(view(2, None, [NodeState::Down, NodeState::Replica]));
    world.join(0);
    assert_eq!(world.say(0, &m::query("select 'c0.1'"))[1], "D c0.1");
    assert_eq!(world.node_of_last(), Some(NodeId(1)));
}

#[test]
fn failover_a_login_follows_when_the_replica_that_it_waits_for_fails() {
    let mut world = cluster_world(1);
    world.set_route(Route::Replica);
    world.dead.push(NodeId(1));
    world.join(0);
    assert_eq!(world.clients[0].stage, Stage::Open);
    assert_eq!(world.node_of_last(), Some(NodeId(0)), "none is left: the primary");
}

#[test]
fn failover_who_waits_for_a_primary_reads_on_a_replica_that_comes_back_first() {
    let mut world = cluster_world(1);
    world.set_route(Route::Replica);
    world.join(0);
    world.join(1);
    world.say(1, &m::query("set pgimbal.route to 'primary'"));
    world.clients[1].disturb();
    world.see(view(2, None, [NodeState::Down, NodeState::Down]));
    for client in [0, 1] {
        assert!(world.say(client, &m::query(&format!("select 'c{client}.1'"))).is_empty());
    }
    world.see(view(3, None, [NodeState::Down, NodeState::Replica]));
    world.pass(Duration::from_millis(200));
    world.settle();
    assert_eq!(world.heard(0)[1], "D c0.1");
    assert!(world.heard(1).is_empty(), "it wants the primary");
}
