//! Pipelines whose server is lost: what follows a BEGIN never runs without it, and a hold counts
//! once for all of it.

use std::time::{Duration, Instant};

use pgimbal_tests::cluster::Cluster;
use pgimbal_tests::{Pipeline, Reply, WireClient};

use super::rows::refusal;
use super::setup::Setup;

/// Statements, each in a segment of its own.
fn extended(texts: &[&str]) -> Pipeline {
    texts.iter().fold(Pipeline::new(), |pipeline, text| pipeline.run(text).sync())
}

/// Statements, each a simple query.
fn simple(texts: &[&str]) -> Pipeline {
    texts.iter().fold(Pipeline::new(), |pipeline, text| pipeline.query(text))
}

fn replies(client: &mut WireClient, number: usize) -> Vec<Reply> {
    (0..number).map(|_| client.read_reply()).collect()
}

/// Whether a transaction that was asked to roll back did, or failed as a whole.
fn is_one_transaction(replies: &[Reply]) {
    let [inside @ .., rollback] = replies else { panic!("no reply") };
    let loss: Vec<_> = inside.iter().map(Reply::sqlstate).filter(|code| !code.is_empty()).collect();
    if loss.is_empty() {
        assert!(inside.iter().all(|reply| reply.status() == 'T'), "{inside:?}");
    } else {
        assert_eq!(loss[0], "57P01", "{inside:?}");
        assert!(loss[1..].iter().all(|code| code == "25P02"), "{inside:?}");
        assert_eq!(inside.last().map(Reply::status), Some('E'), "{inside:?}");
    }
    assert_eq!(rollback.no_error().commands(), ["ROLLBACK"]);
    assert_eq!(rollback.status(), 'I');
}

#[test]
fn failover_what_is_pipelined_behind_a_begin_never_runs_without_it() {
    let setup = Setup::start();
    let texts = [
        "begin",
        "insert into writes values ('pipelined')",
        "insert into writes values ('pipelined')",
        "rollback",
    ];
    let mut clients: Vec<WireClient> = (0..6).map(|_| setup.client("app")).collect();
    for client in &mut clients {
        // Each has a server connection that will take its BEGIN and not answer.
        client.ok("begin");
    }
    for client in &mut clients {
        client.ok("rollback");
    }
    let frozen = setup.cluster.nodes[0].freeze();
    for (number, client) in clients.iter_mut().enumerate() {
        let pipeline = if number % 2 == 0 { extended(&texts) } else { simple(&texts) };
        client.send(pipeline.bytes());
    }
    setup.wait_until_held();
    setup.cluster.nodes[1].promote();
    for client in &mut clients {
        is_one_transaction(&replies(client, texts.len()));
        client.ok("select 1");
    }
    drop(frozen);
    setup.wait_for_state("n1", "quarantined");
    for index in 0..2 {
        assert_eq!(setup.count(index, "pipelined"), "0", "it ran, and stayed, on node {index}");
    }
}

#[test]
fn failover_hold_counts_once_for_a_pipeline_of_whatever_length() {
    let mut setup =
        Setup::with(Cluster::start(0), |config| config.cluster("failover_hold", "\"2s\""));
    let texts = ["select 1", "begin", "insert into writes values ('held')", "rollback", "select 2"];
    let mut clients = [setup.client("app"), setup.client("app")];
    setup.cluster.nodes[0].kill();
    setup.wait_until_held();
    let start = Instant::now();
    clients[0].send(extended(&texts).bytes());
    clients[1].send(simple(&texts).bytes());
    for client in &mut clients {
        let told = replies(client, texts.len());
        refusal(&told[0], "57P03", 'I');
        refusal(&told[1], "57P03", 'E');
        refusal(&told[2], "25P02", 'E');
        assert_eq!(
            (told[3].no_error().commands(), told[3].status()),
            (vec!["ROLLBACK".into()], 'I')
        );
        refusal(&told[4], "57P03", 'I');
    }
    assert!(start.elapsed() < Duration::from_secs(4), "held for {:?}", start.elapsed());
    setup.cluster.nodes[0].start();
    setup.wait_until_writable();
    for client in &mut clients {
        client.ok("select 1");
    }
}
