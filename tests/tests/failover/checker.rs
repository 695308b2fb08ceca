//! Many clients write unique values while primaries die one after the other: what was
//! acknowledged is there, once; what was refused is not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pgimbal_tests::cluster::{Cluster, End};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::{SOON, eventually};
use pgimbal_tests::{Pipeline, Reply, WireClient};

use super::setup::Setup;

/// What a client was told of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    Done,
    RolledBack,
    Unknown,
}

/// How a client writes.
#[derive(Debug, Clone, Copy)]
enum Style {
    Simple,
    Prepared,
    Block,
    ExtendedBlock,
}

pub(super) struct Writers {
    threads: Vec<JoinHandle<Vec<(String, Told)>>>,
    stop: std::sync::Arc<AtomicBool>,
}

impl Writers {
    pub(super) fn start(setup: &Setup, count: usize) -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let styles = [Style::Simple, Style::Prepared, Style::Block, Style::ExtendedBlock];
        let threads = (0..count)
            .map(|number| {
                let mut client = setup.client("app");
                client.set_timeout(SOON * 2);
                let (stop, style) = (stop.clone(), styles[number % styles.len()]);
                thread::spawn(move || {
                    let parse = Pipeline::new().parse("w", "insert into writes values ($1)");
                    client.run(&parse.sync()).no_error();
                    let mut told = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let id = format!("{number}-{}", told.len());
                        let answer = write(&mut client, style, &id);
                        told.push((id, answer));
                        // Few are enough for every moment of a failover.
                        thread::sleep(Duration::from_millis(2));
                    }
                    client.ok("select 'still open'");
                    told
                })
            })
            .collect();
        Self { threads, stop }
    }

    /// What each was told of each value.
    pub(super) fn stop(self) -> BTreeMap<String, Told> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect()
    }
}

fn write(client: &mut WireClient, style: Style, id: &str) -> Told {
    let bind = Pipeline::new().bind("", "w", &[id]).execute("", 0);
    let insert = format!("insert into writes values ('{id}')");
    match style {
        Style::Simple => check(&client.query(&insert), 'I'),
        Style::Prepared => check(&client.run(&bind.sync()), 'I'),
        Style::Block => in_block(
            client,
            [
                Pipeline::new().query("begin"),
                Pipeline::new().query(&insert),
                Pipeline::new().query("commit"),
            ],
        ),
        Style::ExtendedBlock => in_block(
            client,
            [
                Pipeline::new().run("begin").sync(),
                bind.sync(),
                Pipeline::new().run("commit").sync(),
            ],
        ),
    }
}

fn in_block(client: &mut WireClient, [begin, insert, commit]: [Pipeline; 3]) -> Told {
    for pipeline in [begin, insert] {
        let reply = client.run(&pipeline);
        if reply.errors().is_empty() {
            assert_eq!(reply.status(), 'T');
            continue;
        }
        // BEGIN alone is no transaction yet.
        let told = check(&reply, reply.status());
        if reply.status() == 'E' {
            assert_eq!(told, Told::RolledBack, "{reply:?}");
            assert_eq!(client.ok("rollback").status(), 'I');
        }
        return Told::RolledBack;
    }
    let reply = client.run(&commit);
    if reply.errors().is_empty() {
        assert_eq!(reply.commands(), ["COMMIT"]);
    }
    check(&reply, 'I')
}

fn check(reply: &Reply, status: char) -> Told {
    assert_eq!(reply.status(), status, "{reply:?}");
    let errors = reply.errors();
    let Some(error) = errors.first() else { return Told::Done };
    assert_eq!((errors.len(), error.severity.as_str()), (1, "ERROR"), "{reply:?}");
    match error.code.as_str() {
        "57P01" => Told::RolledBack,
        "08007" => Told::Unknown,
        code => panic!("{code}: {reply:?}"),
    }
}

/// Compares what clients were told with what node `index` has.
pub(super) fn compare(setup: &Setup, index: usize, told: &BTreeMap<String, Told>) {
    let sql = "select id, count(*) from writes group by id";
    let rows = setup.cluster.nodes[index].superuser().ok(sql).texts();
    let found: BTreeMap<String, String> =
        rows.into_iter().map(|mut row| (row.remove(0), row.remove(0))).collect();
    let twice: Vec<_> = found.iter().filter(|(_, count)| *count != "1").collect();
    assert!(twice.is_empty(), "applied more than once: {twice:?}");
    let those = |wanted: Told, present: bool| -> Vec<&String> {
        let wrong =
            told.iter().filter(|(id, told)| **told == wanted && found.contains_key(*id) == present);
        wrong.map(|(id, _)| id).collect()
    };
    let lost = those(Told::Done, false);
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let undead = those(Told::RolledBack, true);
    assert!(undead.is_empty(), "told to be rolled back and there: {undead:?}");
    let strangers: Vec<_> = found.keys().filter(|id| !told.contains_key(*id)).collect();
    assert!(strangers.is_empty(), "written by nobody: {strangers:?}");
}

#[test]
fn failover_no_acknowledged_write_is_lost_and_none_is_applied_twice() {
    // Each waits for the other; a primary without one waits until it has rejoined.
    let settings = ["synchronous_standby_names=ANY 1 (n1, n2)"];
    let cluster = Cluster::with(1, &settings);
    let mut setup = Setup::with(cluster, |config: Config| config.set("workers", 2));
    let writers = Writers::start(&setup, 16);
    for round in 0..4 {
        let (old, new) = (round % 2, (round + 1) % 2);
        let busy = || setup.count_all(old);
        let before = busy();
        eventually("the load goes on", SOON, || busy() > before + 100);
        let mut frozen = None;
        match round {
            0 => setup.cluster.nodes[old].kill(),
            1 => setup.cluster.nodes[old].end(End::Immediate),
            2 => setup.cluster.nodes[old].kill_postmaster(),
            _ => frozen = Some(setup.cluster.nodes[old].freeze()),
        }
        setup.cluster.nodes[new].promote();
        eventually("the new one is written to", SOON, || setup.cluster.nodes[new].backends() > 0);
        drop(frozen);
        returns(&mut setup, old);
        setup.cluster.rejoin(old, new);
        setup.wait_for_state(&format!("n{}", old + 1), "replica");
    }
    let before = setup.count_all(0);
    eventually("the load goes on", SOON, || setup.count_all(0) > before + 100);
    let told = writers.stop();
    compare(&setup, 0, &told);
    let done = told.values().filter(|told| **told == Told::Done).count();
    assert!(done > 500, "{done} of {}", told.len());
    // Only what was in flight at the four moments may be unknown.
    let unknown = told.values().filter(|told| **told == Told::Unknown).count();
    assert!(unknown <= 4 * 16, "{unknown} of {}", told.len());
}

/// The old primary is back as it was, for a moment, and gets no write.
fn returns(setup: &mut Setup, old: usize) {
    let node = &mut setup.cluster.nodes[old];
    if !node.is_running() {
        node.start();
    }
    let before = setup.count_all(old);
    setup.wait_for_state(&format!("n{}", old + 1), "quarantined");
    let left = || setup.cluster.nodes[old].backends_with_a_client();
    eventually("nobody is left there", SOON, || left() == 0);
    let after = setup.count_all(old);
    // A frozen one may have committed what it had, which nobody was told.
    assert!(after <= before + 16, "{} writes on the lower timeline", after - before);
}
