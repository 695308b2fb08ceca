//! Logins while a cluster's primary is away.

use pgimbal_config::Route;
use pgimbal_pooler::topology::{NodeId, NodeState};

use super::failover::{desk, view};
use crate::client::Stage;
use crate::message as m;

#[test]
fn failover_who_reads_on_replicas_logs_in_without_a_primary() {
    let mut world = desk(1);
    world.set_route(Route::Replica);
    world.see(view(2, None, [NodeState::Down, NodeState::Replica]));
    world.join(0);
    assert_eq!(world.say(0, &m::query("select 'c0.1'"))[1], "D c0.1");
    assert_eq!(world.node_of_last(), Some(NodeId(1)));
}

#[test]
fn failover_a_login_follows_when_the_replica_that_it_waits_for_fails() {
    let mut world = desk(1);
    world.set_route(Route::Replica);
    world.dead.push(NodeId(1));
    world.join(0);
    assert_eq!(world.clients[0].stage, Stage::Open);
    assert_eq!(world.node_of_last(), Some(NodeId(0)), "none is left: the primary");
}
