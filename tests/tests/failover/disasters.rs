//! Each row of the client-state table under each way in which a primary is lost.

use pgimbal_tests::cluster::{Cluster, End};
use pgimbal_tests::until::{SOON, eventually};

use super::rows::{Clients, Words};
use super::setup::{SETTINGS, Setup};

/// What all of them have in common: `lose` the primary, see what the clients do meanwhile,
/// promote the replica, and check.
fn replaced(setup: &mut Setup, words: Words, lose: impl FnOnce(&mut Cluster)) {
    let mut clients = Clients::enter(setup);
    setup.cluster.settle(0);
    lose(&mut setup.cluster);
    setup.wait_until_held();
    clients.during();
    setup.cluster.nodes[1].promote();
    clients.check(setup, 1, words);
}

#[test]
fn failover_kill_of_the_whole_primary() {
    let mut setup = Setup::start();
    replaced(&mut setup, Words::Nothing, |cluster| cluster.nodes[0].kill());
    // It returns as it was: nothing is sent to it.
    setup.cluster.nodes[0].start();
    setup.wait_for_state("n1", "quarantined");
    let mut client = setup.client("app");
    client.ok("insert into writes values ('after the return')");
    assert_eq!(setup.count(1, "after the return"), "1");
    assert_eq!(setup.cluster.nodes[0].backends(), 0);
}

#[test]
fn failover_kill_of_the_postmaster_alone() {
    let mut setup = Setup::start();
    replaced(&mut setup, Words::Nothing, |cluster| cluster.nodes[0].kill_postmaster());
}

#[test]
fn failover_a_backend_that_outlives_its_postmaster_is_cut() {
    let mut setup = Setup::start();
    // It works and does not sleep, so that it does not notice.
    setup.cluster.nodes[0].run(
        "create function work() returns text language plpgsql as \
         $$ declare start timestamptz = clock_timestamp(); \
         begin while clock_timestamp() < start + '4s' loop end loop; return 'worked'; end $$",
    );
    setup.cluster.settle(0);
    let mut client = setup.client("app");
    client.start_query("insert into writes select work()");
    eventually("it works", SOON, || setup.cluster.nodes[0].running("insert into writes") == 1);
    setup.cluster.nodes[0].kill_postmaster();
    setup.cluster.nodes[1].promote();
    let reply = client.read_reply();
    assert_eq!(reply.sqlstate(), "08007");
    assert!(setup.cluster.nodes[0].lives(), "the backend had ended before");
    assert_eq!(client.value("select count(*) from writes"), "0");
    eventually("the backend commits and ends", SOON, || !setup.cluster.nodes[0].lives());
    // Had the cut connection said more, it would stand before this answer.
    client.expect_nothing_before_the_next_reply();
}

#[test]
fn failover_fast_shutdown() {
    let mut setup = Setup::start();
    replaced(&mut setup, Words::Fatal, |cluster| cluster.nodes[0].end(End::Fast));
}

#[test]
fn failover_immediate_shutdown() {
    let mut setup = Setup::start();
    replaced(&mut setup, Words::Nothing, |cluster| cluster.nodes[0].end(End::Immediate));
}

/// Every row, and more clients whose transactions are committed and await a replica.
fn shutdown_while_a_synchronous_replica_is_awaited(end: End, words: Words) {
    let setup = Setup::start();
    let mut clients = Clients::enter(&setup);
    let primary = &setup.cluster.nodes[0];
    primary.run("alter system set synchronous_standby_names = 'nobody'");
    primary.run("select pg_reload_conf()");
    eventually("it awaits nobody", SOON, || {
        primary.value("show synchronous_standby_names") == "nobody"
    });
    // The checkpointer tells the backends that there is somebody to wait for.
    primary.run("checkpoint");
    clients.enter_awaiting(&setup);
    // What awaits is committed, which is why nothing else than "unknown" can be said.
    setup.cluster.settle(0);
    // A fast shutdown does not come to its end: a backend that leaves drops its temporary tables
    // first, and that commit awaits the replica too.
    setup.cluster.nodes[0].begin_end(end);
    setup.cluster.nodes[0].wait_for_sync_waiters_only();
    setup.wait_until_held();
    clients.during();
    setup.cluster.nodes[1].promote();
    clients.check(&setup, 1, words);
}

#[test]
fn failover_fast_shutdown_while_a_synchronous_replica_is_awaited() {
    shutdown_while_a_synchronous_replica_is_awaited(End::Fast, Words::Fatal);
}

#[test]
fn failover_immediate_shutdown_while_a_synchronous_replica_is_awaited() {
    shutdown_while_a_synchronous_replica_is_awaited(End::Immediate, Words::Nothing);
}

#[test]
fn failover_a_frozen_primary_that_later_thaws() {
    let mut setup = Setup::start();
    let mut frozen = None;
    replaced(&mut setup, Words::Nothing, |cluster| frozen = Some(cluster.nodes[0].freeze()));
    frozen.expect("it stands still").thaw();
    setup.wait_for_state("n1", "quarantined");
    let mut client = setup.client("app");
    client.ok("insert into writes values ('after the thaw')");
    assert_eq!(setup.count(1, "after the thaw"), "1");
}

#[test]
fn failover_a_frozen_primary_that_thaws_before_anybody_is_promoted() {
    let setup = Setup::start();
    let mut clients = Clients::enter(&setup);
    let frozen = setup.cluster.nodes[0].freeze();
    setup.wait_until_held();
    clients.during();
    frozen.thaw();
    setup.let_go(0);
    // A slow probe has killed no transaction.
    clients.go_on(&setup, 0);
}

#[test]
fn failover_a_black_holed_network() {
    let mut setup = Setup::before(Cluster::with_primary_in_namespace(1, SETTINGS));
    replaced(&mut setup, Words::Nothing, |cluster| cluster.nodes[0].network().cut());
    setup.cluster.nodes[0].network().reconnect();
    setup.wait_for_state("n1", "quarantined");
    setup.client("app").ok("insert into writes values ('after the cut')");
    assert_eq!(setup.count(1, "after the cut"), "1");
}

#[test]
fn failover_promotion_while_the_old_primary_stays_up() {
    let setup = Setup::start();
    let mut clients = Clients::enter(&setup);
    setup.cluster.settle(0);
    setup.cluster.nodes[1].promote();
    setup.wait_for_state("n1", "quarantined");
    clients.during();
    clients.check(&setup, 1, Words::Nothing);
    eventually("nobody is left on the old primary", SOON, || {
        setup.cluster.nodes[0].backends_with_a_client() == 0
    });
}

#[test]
fn failover_a_black_hole_that_ends_before_anybody_is_promoted() {
    let setup = Setup::before(Cluster::with_primary_in_namespace(1, SETTINGS));
    let mut clients = Clients::enter(&setup);
    setup.cluster.nodes[0].network().cut();
    setup.wait_until_held();
    clients.during();
    setup.cluster.nodes[0].network().reconnect();
    setup.let_go(0);
    clients.go_on(&setup, 0);
}

#[test]
fn failover_the_old_primary_returns_before_anybody_is_promoted() {
    let mut setup = Setup::start();
    let mut clients = Clients::enter(&setup);
    setup.cluster.nodes[0].kill();
    setup.wait_until_held();
    clients.during();
    setup.cluster.nodes[0].start();
    setup.let_go(0);
    clients.check(&setup, 0, Words::Nothing);
}

#[test]
fn failover_the_old_primary_returns_before_the_clients_look() {
    let mut setup = Setup::start();
    let mut clients = Clients::enter(&setup);
    setup.cluster.settle(0);
    setup.cluster.nodes[0].kill();
    setup.wait_until_held();
    clients.during();
    setup.cluster.nodes[1].promote();
    setup.cluster.nodes[0].start();
    setup.wait_for_state("n1", "quarantined");
    clients.check(&setup, 1, Words::Nothing);
    assert_eq!(setup.cluster.nodes[0].backends(), 0);
}

#[test]
fn failover_the_old_primary_returns_beside_the_new_one() {
    let mut setup = Setup::start();
    setup.cluster.nodes[0].kill();
    setup.cluster.nodes[1].promote();
    setup.wait_until_writable();
    setup.hang_on(1, 1);
    let mut clients = Clients::enter_on(&setup, 1);
    setup.cluster.nodes[0].start();
    setup.wait_for_state("n1", "quarantined");
    clients.during();
    setup.let_go(1);
    clients.go_on(&setup, 1);
    assert_eq!(setup.cluster.nodes[0].backends(), 0);
}

#[test]
fn failover_without_the_replica_the_primary_goes_on() {
    let mut setup = Setup::with(Cluster::with(1, SETTINGS), |config| {
        config.tables(
            "[databases.read_app]\ncluster = \"c\"\ndbname = \"app\"\nroute = \"replica\"\n\
             [databases.read_session]\ncluster = \"c\"\ndbname = \"app\"\nroute = \"replica\"\n\
             pool_mode = \"session\"",
        )
    });
    setup.wait_for_state("n2", "replica");
    setup.hang_on(1, 0);
    let mut clients = Clients::enter(&setup);
    let mut readers = Clients::enter_on_replica(&setup, 1);
    setup.cluster.nodes[1].kill();
    setup.wait_for_state("n2", "down");
    clients.during();
    readers.during();
    setup.let_go(0);
    clients.go_on(&setup, 0);
    // They had a replica; now the primary serves them.
    setup.cluster.nodes[0].run("truncate writes, slow");
    readers.check(&setup, 0, Words::ReadOnly);
    setup.cluster.nodes[1].start();
    setup.wait_for_state("n2", "replica");
}
