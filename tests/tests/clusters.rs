//! The harness's own clusters do what the failover tests take for granted.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use pgimbal_tests::cluster::{Cluster, End};
use pgimbal_tests::until::{SOON, always, eventually};

const TABLE: &str = "create table t (x int)";

#[test]
fn cluster_a_replica_streams_and_is_promoted() {
    let mut cluster = Cluster::start(1);
    cluster.nodes[0].run(TABLE);
    cluster.nodes[0].run("insert into t values (1)");
    cluster.settle(0);
    let [first, second] = &mut cluster.nodes[..] else { panic!("two nodes") };
    assert_eq!(second.value("select x from t"), "1");
    assert_eq!(first.system_identifier(), second.system_identifier());
    assert_eq!((first.timeline(), second.timeline()), (1, 1));
    first.kill();
    assert!(!first.lives());
    second.promote();
    assert_eq!(second.timeline(), 2);
    second.run("insert into t values (2)");
}

#[test]
fn cluster_backends_outlive_their_postmaster_and_commit() {
    let mut cluster = Cluster::start(0);
    let primary = &mut cluster.nodes[0];
    primary.run(TABLE);
    // A backend that sleeps or waits for a lock ends with its postmaster; one that works does not.
    primary.run(
        "create function busy() returns int language plpgsql as \
         $$ declare start timestamptz = clock_timestamp(); \
         begin while clock_timestamp() < start + '1s' loop end loop; return 1; end $$",
    );
    let mut client = primary.superuser();
    client.start_query("insert into t select busy()");
    let sql = "select count(*) from pg_stat_activity where query like 'insert%busy%'";
    eventually("it runs", SOON, || primary.value(sql) == "1");
    primary.kill_postmaster();
    assert_eq!(client.read_reply().commands(), ["INSERT 0 1"]);
    eventually("the last backend ends", SOON, || !primary.lives());
    primary.start();
    assert_eq!(primary.value("select x from t"), "1");
}

#[test]
fn cluster_ends_fast_or_at_once() {
    for end in [End::Fast, End::Immediate] {
        let mut cluster = Cluster::start(0);
        let mut client = cluster.nodes[0].superuser();
        cluster.nodes[0].end(end);
        let messages = client.read_to_end();
        let told: Vec<_> =
            messages.iter().map(|message| (message.tag, message.error().code)).collect();
        match end {
            End::Fast => assert_eq!(told, [(b'E', "57P01".to_owned())]),
            // A backend that is on its way to stop may not come to say so.
            End::Immediate => assert!(told.iter().all(|(tag, _)| *tag == b'N'), "{told:?}"),
        }
        cluster.nodes[0].start();
    }
}

#[test]
fn cluster_a_frozen_node_says_nothing_and_goes_on_when_thawed() {
    let cluster = Cluster::start(0);
    let node = &cluster.nodes[0];
    let mut client = node.superuser();
    let frozen = node.freeze();
    client.start_query("select 1");
    // The silence itself is what is tested, and has no end to wait for.
    assert!(client.is_silent_for(Duration::from_millis(300)));
    frozen.thaw();
    assert_eq!(client.read_reply().value(), "1");
}

#[test]
fn cluster_an_old_primary_returns_as_it_was_and_rejoins_by_rewind() {
    let mut cluster = Cluster::start(1);
    cluster.nodes[0].run(TABLE);
    cluster.settle(0);
    cluster.nodes[0].kill();
    cluster.nodes[1].promote();
    cluster.nodes[1].run("insert into t values (2)");
    cluster.nodes[0].start();
    cluster.nodes[0].run("insert into t values (1)");
    assert_eq!(cluster.nodes[0].value("select pg_is_in_recovery()"), "f");
    assert_eq!(cluster.nodes[0].timeline(), 1);
    cluster.rejoin(0, 1);
    cluster.settle(1);
    assert_eq!(cluster.nodes[0].value("select x from t"), "2");
    assert_eq!(cluster.nodes[0].timeline(), 2);
}

#[test]
fn cluster_another_replica_follows_the_new_primary() {
    let mut cluster = Cluster::start(2);
    cluster.nodes[0].kill();
    cluster.nodes[1].promote();
    cluster.repoint(2, 1);
    cluster.nodes[1].run(TABLE);
    cluster.settle(1);
    assert_eq!(cluster.nodes[2].value("select count(*) from t"), "0");
}

#[test]
fn cluster_a_cut_network_is_silence_and_closes_no_socket() {
    let cluster = Cluster::with_primary_in_namespace(1, &[]);
    let [primary, replica] = &cluster.nodes[..] else { panic!("two nodes") };
    let address = SocketAddr::from((primary.host, primary.port));
    let connected = TcpStream::connect(address).expect("a connection into the namespace");
    connected.set_nonblocking(true).expect("a socket");
    primary.network().cut();
    primary.run(TABLE);
    let silent = || {
        let waits = connected.peek(&mut [0]);
        waits.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    // The silence itself is what is tested, and has no end to wait for.
    always("silence", Duration::from_millis(300), silent);
    let attempt = TcpStream::connect_timeout(&address, Duration::from_millis(300));
    assert_eq!(attempt.expect_err("a cut network").kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(replica.value("select to_regclass('t') is null"), "t");
    primary.network().reconnect();
    cluster.settle(0);
    assert_eq!(replica.value("select count(*) from t"), "0");
}

#[test]
fn cluster_nodes_have_addresses_of_their_own_on_one_port() {
    let cluster = Cluster::on_one_port(1);
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    assert_eq!(first.port, second.port);
    for node in [first, second] {
        TcpStream::connect((node.host, node.port)).expect("a node at its address");
    }
}

#[test]
fn cluster_primaries_die_in_turn_and_rejoin() {
    let mut cluster = Cluster::with(1, &["synchronous_standby_names=ANY 1 (n1, n2)"]);
    cluster.nodes[0].run(TABLE);
    for round in 0..4 {
        let (old, new) = (round % 2, (round + 1) % 2);
        cluster.nodes[old].run("insert into t values (1)");
        match round {
            0 => cluster.nodes[old].kill(),
            1 => cluster.nodes[old].end(End::Immediate),
            2 => cluster.nodes[old].kill_postmaster(),
            _ => cluster.nodes[old].freeze().thaw(),
        }
        cluster.nodes[new].promote();
        if !cluster.nodes[old].is_running() {
            cluster.nodes[old].start();
        }
        cluster.rejoin(old, new);
        assert_eq!(cluster.nodes[new].timeline(), cluster.nodes[old].timeline());
    }
    cluster.nodes[0].run("insert into t values (1)");
    assert_eq!(cluster.nodes[0].value("select count(*) from t"), "5");
}
