//! Each row of the client-state table under each way in which a primary is lost.

use std::time::Duration;

use pgimbal_tests::cluster::{Cluster, End};
use pgimbal_tests::until::{SOON, always, eventually};

use super::rows::{Clients, Words};
use super::scene::Scene;

/// What all of them have in common: `lose` the primary, see what the clients do meanwhile,
/// promote the replica, and judge.
fn replaced(scene: &mut Scene, words: Words, lose: impl FnOnce(&mut Cluster)) {
    let mut clients = Clients::enter(scene);
    scene.cluster.settle(0);
    lose(&mut scene.cluster);
    scene.wait_until_held();
    clients.during();
    scene.cluster.nodes[1].promote();
    clients.judge(scene, 1, words);
}

#[test]
fn failover_kill_of_the_whole_primary() {
    let mut scene = Scene::start();
    replaced(&mut scene, Words::Nothing, |cluster| cluster.nodes[0].kill());
    // It returns as it was: nothing is sent to it.
    scene.cluster.nodes[0].start();
    scene.wait_for_state("n1", "quarantined");
    let mut client = scene.client("app");
    client.ok("insert into writes values ('after the return')");
    assert_eq!(scene.count(1, "after the return"), "1");
    assert_eq!(scene.cluster.nodes[0].backends(), 0);
}

#[test]
fn failover_kill_of_the_postmaster_alone() {
    let mut scene = Scene::start();
    replaced(&mut scene, Words::Nothing, |cluster| cluster.nodes[0].kill_postmaster());
}

#[test]
fn failover_a_backend_that_outlives_its_postmaster_is_cut() {
    let mut scene = Scene::start();
    // It works and does not sleep, so that it does not notice.
    scene.cluster.nodes[0].run(
        "create function work() returns text language plpgsql as \
         $$ declare start timestamptz = clock_timestamp(); \
         begin while clock_timestamp() < start + '4s' loop end loop; return 'worked'; end $$",
    );
    scene.cluster.settle(0);
    let mut client = scene.client("app");
    client.start_query("insert into writes select work()");
    eventually("it works", SOON, || scene.cluster.nodes[0].running("insert into writes") == 1);
    scene.cluster.nodes[0].kill_postmaster();
    scene.cluster.nodes[1].promote();
    let reply = client.read_reply();
    assert_eq!(reply.sqlstate(), "08007");
    assert!(scene.cluster.nodes[0].lives(), "the backend had ended before");
    assert_eq!(client.value("select count(*) from writes"), "0");
    eventually("the backend commits and ends", SOON, || !scene.cluster.nodes[0].lives());
    assert!(client.is_silent_for(Duration::from_millis(100)), "the cut connection said more");
}

#[test]
fn failover_fast_shutdown() {
    let mut scene = Scene::start();
    replaced(&mut scene, Words::Fatal, |cluster| cluster.nodes[0].end(End::Fast));
}

#[test]
fn failover_immediate_shutdown() {
    let mut scene = Scene::start();
    replaced(&mut scene, Words::Nothing, |cluster| cluster.nodes[0].end(End::Immediate));
}

#[test]
fn failover_shutdown_while_a_synchronous_replica_is_awaited() {
    for end in [End::Fast, End::Immediate] {
        let mut scene = Scene::start();
        let primary = &scene.cluster.nodes[0];
        let mut clients = [scene.client("app"), scene.client("app"), scene.client("app")];
        clients[2].ok("begin");
        clients[2].ok("insert into writes values ('in a block')");
        primary.run("alter system set synchronous_standby_names = 'nobody'");
        primary.run("select pg_reload_conf()");
        eventually("it awaits nobody", SOON, || {
            primary.value("show synchronous_standby_names") == "nobody"
        });
        // The checkpointer tells the backends that there is somebody to wait for.
        primary.run("checkpoint");
        clients[0].start_query("insert into writes values ('simple')");
        let extended = pgimbal_tests::Pipeline::new();
        clients[1].send(extended.run("insert into writes values ('extended')").sync().bytes());
        clients[2].start_query("commit");
        eventually("all three await it", SOON, || {
            let sql = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
            primary.value(sql) == "3"
        });
        scene.cluster.settle(0);
        scene.cluster.nodes[0].end(end);
        scene.cluster.nodes[1].promote();
        for client in &mut clients {
            let reply = client.read_reply();
            assert_eq!((reply.sqlstate().as_str(), reply.status()), ("08007", 'I'), "{end:?}");
            assert_eq!(reply.errors()[0].severity, "ERROR");
            assert!(reply.messages.iter().all(|message| message.tag != b'N'), "{reply:?}");
            client.ok("select 1");
        }
        // They were committed, which is why nothing else could be said.
        for id in ["simple", "extended", "in a block"] {
            assert_eq!(scene.count(1, id), "1", "{end:?} {id}");
        }
    }
}

#[test]
fn failover_a_frozen_primary_that_later_thaws() {
    let mut scene = Scene::start();
    let mut frozen = None;
    replaced(&mut scene, Words::Nothing, |cluster| frozen = Some(cluster.nodes[0].freeze()));
    frozen.expect("it stands still").thaw();
    scene.wait_for_state("n1", "quarantined");
    let mut client = scene.client("app");
    client.ok("insert into writes values ('after the thaw')");
    assert_eq!(scene.count(1, "after the thaw"), "1");
}

#[test]
fn failover_a_frozen_primary_that_thaws_before_anybody_is_promoted() {
    let scene = Scene::start();
    let primary = &scene.cluster.nodes[0];
    let (mut idle, mut block) = (scene.client("app"), scene.client("app"));
    block.ok("begin");
    block.ok("insert into writes values ('in a block')");
    let frozen = primary.freeze();
    scene.wait_until_held();
    idle.start_query("insert into writes values ('held')");
    assert!(idle.is_silent_for(Duration::from_millis(200)));
    frozen.thaw();
    // A slow probe has killed no transaction.
    assert_eq!(idle.read_reply().no_error().commands(), ["INSERT 0 1"]);
    assert_eq!(block.ok("commit").commands(), ["COMMIT"]);
    assert_eq!((scene.count(0, "held"), scene.count(0, "in a block")), ("1".into(), "1".into()));
}

#[test]
fn failover_a_black_holed_network() {
    let mut scene = Scene::before(Cluster::with_primary_in_namespace(1));
    replaced(&mut scene, Words::Nothing, |cluster| cluster.nodes[0].network().cut());
    scene.cluster.nodes[0].network().mend();
    scene.wait_for_state("n1", "quarantined");
    scene.client("app").ok("insert into writes values ('after the cut')");
    assert_eq!(scene.count(1, "after the cut"), "1");
}

#[test]
fn failover_promotion_while_the_old_primary_stays_up() {
    let scene = Scene::start();
    let mut clients = Clients::enter(&scene);
    scene.cluster.settle(0);
    scene.cluster.nodes[1].promote();
    scene.wait_for_state("n1", "quarantined");
    clients.during();
    clients.judge(&scene, 1, Words::Nothing);
    eventually("nobody is left on the old primary", SOON, || {
        scene.cluster.nodes[0].backends_with_a_client() == 0
    });
}

#[test]
fn failover_without_the_replica_writes_go_on() {
    let mut scene = Scene::start();
    let mut clients = Clients::enter_those(&scene, |row| !row.runs);
    scene.cluster.nodes[1].kill();
    scene.wait_for_state("n2", "down");
    clients.during();
    let mut client = scene.client("app");
    always("writes go on", Duration::from_millis(500), || {
        client.query("insert into writes values ('meanwhile')").errors().is_empty()
    });
    drop(clients);
    scene.cluster.nodes[1].start();
    scene.wait_for_state("n2", "replica");
}
