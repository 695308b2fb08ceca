//! Watchers and probers before false nodes; real ones are in the tests of the whole program.

use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use pgimbal_config::{ChannelBinding, Host, ServerTls, TcpConfig};
use pgimbal_pooler::topology::{
    HoldReason, NodeId, NodeSpec, NodeState, Options, Placement, ProbeFailure, ProbeScope, Writes,
};
use pgimbal_tests::fake_server::{FakeServer, ServerSide};
use pgimbal_wire::encode::{
    TransactionStatus, command_complete, ready_for_query, text_columns, text_row,
};
use tokio::time::sleep;

use super::prober::{self, ProberMessage, Question};
use super::spec::NodeSource;
use super::*;
use crate::tls::TlsConnector;

/// Longer than anything takes that does not fail.
const SOON: Duration = Duration::from_secs(40);

/// What a false node does with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mood {
    Says(&'static str),
    /// It reads and says nothing.
    Silent,
    /// It closes the connection instead.
    Leaves,
    /// It closes the connection once it has said this.
    SaysAndLeaves(&'static str),
}

const PRIMARY: Mood = Mood::Says("primary 00000001 0/3000100 0/3000100");
const STANDBY: Mood = Mood::Says("standby 1 0/3000100 f");
const PROMOTED: Mood = Mood::Says("primary 00000002 0/3000200 0/3000200");

/// A false node, its mood for the next question, and who it is.
struct FakeNode {
    server: FakeServer,
    mood: Arc<Mutex<Mood>>,
}

impl FakeNode {
    fn start(mood: Mood, started: i64) -> Self {
        let mood = Arc::new(Mutex::new(mood));
        let current = Arc::clone(&mood);
        let server = FakeServer::start(move |server| {
            server.accept()?;
            loop {
                if server.read()?.tag != b'Q' {
                    continue;
                }
                let mood = current.lock().expect("the mood").clone();
                match mood {
                    Mood::Silent => {}
                    Mood::Leaves => return Ok(()),
                    Mood::Says(place) => answer(server, place, started)?,
                    Mood::SaysAndLeaves(place) => return answer(server, place, started),
                }
            }
        });
        Self { server, mood }
    }

    fn turn(&self, mood: Mood) {
        *self.mood.lock().expect("the mood") = mood;
    }

    fn spec(&self, name: &str) -> NodeSpec {
        NodeSpec {
            name: name.into(),
            host: Host::Tcp("127.0.0.1".into()),
            port: self.server.port,
            candidate: true,
            placement: Placement::default(),
        }
    }
}

fn answer(server: &mut ServerSide, place: &str, started: i64) -> std::io::Result<()> {
    let started = started.to_string();
    let values = [place, "7000", "150018", &started, "16777216", "t"];
    let mut out = Vec::new();
    text_columns(&mut out, &["a", "b", "c", "d", "e", "f"]);
    text_row(&mut out, &values.map(Some));
    command_complete(&mut out, "SELECT 1");
    ready_for_query(&mut out, TransactionStatus::Idle);
    server.send(&out)
}

fn spec(nodes: Vec<NodeSpec>) -> ClusterSpec {
    ClusterSpec {
        name: "main".into(),
        source: NodeSource::Listed(nodes),
        options: Options {
            probe_interval: Duration::from_millis(50),
            failover_hold: SOON,
            max_lag_bytes: None,
            max_lag: None,
        },
        probe_timeout: Duration::from_millis(300),
        user: "probe".into(),
        password: None,
        role: None,
        database: "postgres".into(),
        require_auth: None,
        tls: Arc::new(TlsConnector::new(&ServerTls::default()).expect("a connector")),
        channel_binding: ChannelBinding::Prefer,
        tcp: TcpConfig::default(),
    }
}

/// What a worker is told: a cluster's name and its new view.
type Told = mpsc::UnboundedReceiver<(Arc<str>, Arc<View>)>;

fn clusters(specs: Vec<ClusterSpec>) -> (Clusters, Told) {
    let (worker, told) = mpsc::unbounded_channel();
    let counts = ClusterCounts::default();
    let tell = move |name: &Arc<str>, view: &Arc<View>| {
        let _ = worker.send((Arc::clone(name), Arc::clone(view)));
    };
    let inner = Inner { listener: ViewListener::new(tell), counts, ..Inner::default() };
    let clusters = Clusters { inner: Arc::new(RwLock::new(inner)) };
    clusters.reload(PreparedClusters(specs));
    (clusters, told)
}

async fn until(clusters: &Clusters, what: &str, holds: impl Fn(&View) -> bool) {
    let end = Instant::now() + SOON;
    loop {
        let view = clusters.view("main").expect("a cluster");
        if holds(&view) {
            return;
        }
        assert!(Instant::now() < end, "{what}: {view:#?}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn writes_to(view: &View) -> Option<u16> {
    view.primary().map(|epoch| epoch.node.0)
}

/// A prober and the ways to it.
struct Asker {
    questions: mpsc::Sender<Question>,
    said: mpsc::Receiver<ProberMessage>,
    spec: ClusterSpec,
}

impl Asker {
    fn of(node: &FakeNode) -> Self {
        let (questions, to_answer) = mpsc::channel(1);
        let (words, said) = mpsc::channel(8);
        tokio::spawn(prober::run(NodeId(0), CredentialManager::idle(), to_answer, words));
        Self { questions, said, spec: spec(vec![node.spec("a")]) }
    }

    async fn ask(&self) {
        let NodeSource::Listed(nodes) = &self.spec.source else { panic!("it is listed") };
        let target = self.spec.target(&nodes[0].host, nodes[0].port);
        let (limit, sent_at) = (self.spec.probe_timeout, Instant::now());
        let scope = ProbeScope::Everything;
        let question = Question { target, limit, sent_at, scope };
        self.questions.send(question).await.expect("a prober");
    }

    async fn hear(&mut self) -> ProberMessage {
        timeout(SOON, self.said.recv()).await.expect("in time").expect("a prober")
    }
}

#[tokio::test]
async fn failover_a_prober_keeps_its_connection_and_makes_another_when_it_breaks() {
    let node = FakeNode::start(PRIMARY, 1);
    let mut asker = Asker::of(&node);
    for _ in 0..3 {
        asker.ask().await;
        assert!(matches!(asker.hear().await, ProberMessage::ProbeReply(..)));
    }
    assert_eq!(node.server.connections(), 1);
    // Nobody needs to ask to notice the end.
    node.turn(Mood::SaysAndLeaves("standby 1 0/3000100 f"));
    asker.ask().await;
    assert!(matches!(asker.hear().await, ProberMessage::ProbeReply(..)));
    assert!(matches!(asker.hear().await, ProberMessage::Broke(NodeId(0))));
    node.turn(PRIMARY);
    asker.ask().await;
    assert!(matches!(asker.hear().await, ProberMessage::ProbeReply(..)));
    assert_eq!(node.server.connections(), 2);
    // An end of the old connection alone is no failure; one of a new connection is.
    node.turn(Mood::Leaves);
    asker.ask().await;
    let failure = asker.hear().await;
    assert!(matches!(failure, ProberMessage::Failure(_, ProbeFailure::Broke(_))), "{failure:?}");
    assert_eq!(node.server.connections(), 3);
}

#[tokio::test]
async fn failover_a_prober_waits_no_longer_than_its_limit_and_then_dials_anew() {
    let node = FakeNode::start(Mood::Silent, 1);
    let mut asker = Asker::of(&node);
    asker.ask().await;
    assert!(matches!(asker.hear().await, ProberMessage::Failure(_, ProbeFailure::TimedOut)));
    node.turn(PRIMARY);
    asker.ask().await;
    assert!(matches!(asker.hear().await, ProberMessage::ProbeReply(..)));
    assert_eq!(node.server.connections(), 2);
}

#[tokio::test]
async fn failover_workers_are_told_every_view_and_people_the_story() {
    let (a, b) = (FakeNode::start(PRIMARY, 1), FakeNode::start(STANDBY, 2));
    let (clusters, mut told) = clusters(vec![spec(vec![a.spec("a"), b.spec("b")])]);
    let shared = clusters.inner.read().expect("the clusters").counts.of("main");
    until(&clusters, "a is found", |view| writes_to(view) == Some(0)).await;
    shared.held.fetch_add(5, Relaxed);
    let counted = Instant::now();
    loop {
        // Looked at before the answer, so that a probe of before is never taken for a later one.
        let elapsed = counted.elapsed();
        if clusters.status().await[0].nodes[0].detail.last_probe < Some(elapsed) {
            break;
        }
        assert!(elapsed < SOON, "a is asked again");
    }
    a.turn(Mood::Silent);
    until(&clusters, "a is lost", |view| view.writes == Writes::Held(HoldReason::Unreachable))
        .await;
    shared.held.fetch_add(2, Relaxed);
    b.turn(PROMOTED);
    until(&clusters, "b is found", |view| writes_to(view) == Some(1)).await;
    let mut versions = Vec::new();
    while let Ok((cluster, view)) = told.try_recv() {
        assert_eq!(&*cluster, "main");
        versions.push(view.version);
    }
    assert!(versions.len() >= 4 && versions.is_sorted(), "{versions:?}");
    let status = clusters.status().await.remove(0);
    assert_eq!((status.failovers_total, status.failovers.len()), (1, 1));
    let failover = &status.failovers[0];
    assert_eq!((&*failover.from, &*failover.to, failover.timeline), ("a", "b", 2));
    assert_eq!(failover.counts.held, 2, "what was counted before is not its doing");
    assert_eq!(failover.why.as_ref(), "no answer within probe_timeout");
    assert_eq!(status.nodes[1].monitor, Some(true));
}

#[tokio::test]
async fn failover_the_operator_reaches_a_cluster_by_name_and_a_reload_keeps_what_was_seen() {
    let (a, b) = (FakeNode::start(PRIMARY, 1), FakeNode::start(STANDBY, 2));
    let both = || spec(vec![a.spec("a"), b.spec("b")]);
    let (clusters, _told) = clusters(vec![both()]);
    until(&clusters, "a is found", |view| writes_to(view) == Some(0)).await;
    clusters.hold("main").await.expect("it is held");
    until(&clusters, "a hold", |view| view.writes == Writes::Held(HoldReason::Operator)).await;
    assert_eq!(clusters.resume(None).await.expect("resumed"), [Arc::from("main")]);
    until(&clusters, "no hold", |view| writes_to(view) == Some(0)).await;
    let unknown = OperatorError::UnknownCluster("other".into());
    assert_eq!(clusters.hold("other").await, Err(unknown));
    let unknown = OperatorError::UnknownNode("main.c".into());
    assert_eq!(clusters.adopt("main.c").await, Err(unknown));
    clusters.adopt("main.a").await.expect("adopted");
    clusters.adopt("a").await.expect("adopted");
    // A third node comes first in the new configuration, and no number changes.
    let c = FakeNode::start(STANDBY, 3);
    clusters.reload(PreparedClusters(vec![spec(vec![c.spec("0"), a.spec("a"), b.spec("b")])]));
    until(&clusters, "three nodes", |view| {
        view.nodes.len() == 3 && view.nodes[2].state == NodeState::Replica
    })
    .await;
    assert_eq!(writes_to(&clusters.view("main").expect("a cluster")), Some(0));
    clusters.reload(PreparedClusters(vec![]));
    assert!(clusters.view("main").is_none());
}

#[tokio::test]
async fn failover_what_a_replica_shares_counts_at_the_others() {
    let node = FakeNode::start(PRIMARY, 1);
    let (clusters, _told) = clusters(vec![spec(vec![node.spec("a")])]);
    until(&clusters, "a is found", |view| writes_to(view) == Some(0)).await;
    let facts = clusters.inner.read().expect("the clusters").facts.clone();
    let elsewhere = Facts::alone();
    elsewhere.merge_from_peer(&facts.document().borrow().to_bytes()).expect("a document");
    let tell = || facts.merge_from_peer(&elsewhere.document().borrow().to_bytes()).expect("merged");
    elsewhere.add(|document, by| _ = document.cluster_mut("main").set_hold(true, by));
    tell();
    let held = |view: &View| matches!(view.writes, Writes::Held(HoldReason::Operator));
    until(&clusters, "it is held", held).await;
    elsewhere.add(|document, by| _ = document.cluster_mut("main").set_hold(false, by));
    tell();
    until(&clusters, "it goes on", |view| writes_to(view) == Some(0)).await;
    // A promotion was seen elsewhere: this primary is an old one.
    let system =
        facts.document().borrow().cluster("main").and_then(|c| c.history()).expect("one").system;
    elsewhere.add(|document, _| _ = document.cluster_mut("main").see(system, 2));
    tell();
    until(&clusters, "it is not written to", |view| writes_to(view).is_none()).await;
    clusters.hold("main").await.expect("held");
    assert!(facts.document().borrow().cluster("main").is_some_and(|cluster| cluster.is_held()));
}
