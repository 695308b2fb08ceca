//! Read-after-write pairs by other people's drivers, while replicas are late, lost and promoted.
//!
//! A program gets its conversation's `PGIMBAL_PORT` and, as environment variables:
//! `READS_DATABASE`, where it reads; `READS_WRITE_PORT` and `READS_WRITE_DATABASE`, where it
//! writes; `READS_SESSIONS`, which is `same` if one session does both and `two` otherwise;
//! `READS_CLIENTS`, its number of clients at once; `READS_FIRST_ID`, the row of the first of them,
//! the next ones have the next rows; `READS_PAIRS`, how many pairs each client has at least; and
//! `READS_PAUSE`, the longest pause between a write and its read, in seconds.
//!
//! In each pair a client writes the number of the pair into its row and reads it back, by turns in
//! autocommit, with the write in a transaction, and with the read in a READ ONLY transaction too.
//! A stale read ends the program with an error. After any other error, which it prints, a client
//! connects anew. When each client has had a pair, the program says `look at running`. It ends when
//! that is answered and every client has had its pairs, and then says what it has counted: `look at
//! WAY PAIRS ON_REPLICAS` for each way.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use pgimbal_tests::cluster::{Cluster, End};
use pgimbal_tests::library::{converse_within, go_clients, java, python};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::until::eventually;

use super::Setup;

const DRIVERS: [&str; 4] = ["psycopg", "asyncpg", "pgx", "pgjdbc"];
const WAYS: [&str; 3] = ["autocommit", "transaction", "read_only"];

/// Pairs of a write and a read behind it; `PGIMBAL_READ_PAIRS` is another number.
pub(super) fn pairs(usual: u32) -> u32 {
    number("PGIMBAL_READ_PAIRS", usual)
}

/// Clients of each driver at once; `PGIMBAL_READ_CLIENTS` is another number, up to 250.
fn clients(usual: u32) -> u32 {
    number("PGIMBAL_READ_CLIENTS", usual)
}

fn number(variable: &str, usual: u32) -> u32 {
    let number = std::env::var(variable).ok();
    number.map_or(usual, |number| number.parse().expect("a number"))
}

/// What the programs do.
#[derive(Clone, Copy)]
struct Load {
    /// The database that they read.
    database: &'static str,
    writer: Writer,
    /// Clients of each driver at once.
    clients: u32,
    /// Pairs of each client at least.
    pairs: u32,
    /// The longest pause between a write and its read, in seconds.
    pause: &'static str,
}

/// Who writes what is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// The session that reads it.
    Own,
    /// Another session of the same pgimbal.
    Other,
    /// One that does not go through pgimbal.
    Direct,
}

/// What the programs have seen.
#[derive(Debug, Default)]
struct Seen {
    /// By driver and way: pairs, and how many of their reads a replica has served.
    counts: BTreeMap<(&'static str, &'static str), (u32, u32)>,
    /// Lines of errors, all together.
    errors: Vec<String>,
}

impl Load {
    /// Sessions that read at a moment when a replica has mostly replayed what they have written.
    fn new(database: &'static str, writer: Writer) -> Self {
        let clients = clients(3);
        Self { database, writer, clients, pairs: pairs(1200).div_ceil(4 * clients), pause: "0.08" }
    }

    /// So few that all of them pause long enough at times for a replica to have everything.
    fn with_gaps(self) -> Self {
        Self { clients: 1, pairs: self.pairs.min(100), pause: "0.3", ..self }
    }
}

impl Seen {
    /// Every way of every driver must have read on replicas, or nothing is proven.
    fn assert_on_replicas(&self) {
        println!("{} errors, {:?}", self.errors.len(), self.counts);
        let sum = |which: fn(&(u32, u32)) -> u32| self.counts.values().map(which).sum::<u32>();
        println!(
            "{} pairs, {} of their reads on replicas",
            sum(|(all, _)| *all),
            sum(|(_, on)| *on)
        );
        for (who, (pairs, on_replicas)) in &self.counts {
            assert!(*on_replicas > 0, "{who:?}: none of {pairs} reads on a replica");
        }
        assert_eq!(self.counts.len(), DRIVERS.len() * WAYS.len());
    }

    /// Each client may have met the loss of the replica and of the primary in each round.
    fn assert_few_errors(&self, load: Load) {
        let most = 4 * load.clients as usize * 2 * rounds();
        assert!(self.errors.len() <= most, "{:#?}", self.errors);
        let told =
            ["57P01", "terminating connection", "connection was lost", "08007", "int: ", "INT: "];
        let other =
            |error: &&String| !error.is_empty() && !told.iter().any(|word| error.contains(word));
        assert_eq!(self.errors.iter().filter(other).collect::<Vec<_>>(), [""; 0]);
    }
}

/// Lets all drivers write and read while `disturb` runs, and returns what they have seen.
fn write_and_read(setup: &mut Setup, load: Load, disturb: impl FnOnce(&mut Cluster)) -> Seen {
    let Load { database, writer, .. } = load;
    setup.cluster.nodes[0].run("update pairs set pair = 0");
    setup.cluster.settle(0);
    let limit = Duration::from_secs(120) + Duration::from_millis(250) * load.pairs;
    let write_port = match writer {
        Writer::Direct => setup.cluster.nodes[0].port,
        Writer::Own | Writer::Other => setup.proxy.port,
    };
    let port = setup.proxy.port;
    let (running, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let run = |index: u32, driver: &'static str| {
        let mut counts = BTreeMap::new();
        let mut command = program(driver);
        command
            .env("READS_DATABASE", database)
            .env("READS_WRITE_PORT", write_port.to_string())
            .env("READS_WRITE_DATABASE", if writer == Writer::Direct { "app" } else { database })
            .env("READS_SESSIONS", if writer == Writer::Own { "same" } else { "two" })
            .env("READS_CLIENTS", load.clients.to_string())
            .env("READS_FIRST_ID", (1 + load.clients * index).to_string())
            .env("READS_PAIRS", load.pairs.to_string())
            .env("READS_PAUSE", load.pause);
        let errors = converse_within(limit, command, "pgimbal", port, |what| {
            if what == "running" {
                running.fetch_add(1, SeqCst);
                eventually("the disturbance is over", limit, || ended.load(SeqCst) > 0);
            } else {
                let way = WAYS.into_iter().find(|way| what.starts_with(way)).expect("a way");
                let counted: Vec<u32> =
                    what.split(' ').skip(1).map(|word| word.parse().expect("a number")).collect();
                counts.insert((driver, way), (counted[0], counted[1]));
            }
        });
        (counts, errors)
    };
    let run = &run;
    let mut seen = Seen::default();
    std::thread::scope(|scope| {
        let programs: Vec<_> = (0..)
            .zip(DRIVERS)
            .map(|(index, driver)| scope.spawn(move || run(index, driver)))
            .collect();
        eventually("all drivers run", limit, || {
            running.load(SeqCst) == DRIVERS.len() || programs.iter().any(|one| one.is_finished())
        });
        let end = AtTheEnd(&ended);
        disturb(&mut setup.cluster);
        drop(end);
        for program in programs {
            let (counts, errors) = program.join().expect("no stale read");
            seen.counts.extend(counts);
            seen.errors.extend(errors.lines().map(str::to_owned));
        }
    });
    seen
}

/// Lets the programs end, also when the test has failed.
struct AtTheEnd<'a>(&'a AtomicUsize);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(1, SeqCst);
    }
}

fn program(driver: &str) -> Command {
    match driver {
        "pgx" => {
            let mut command = go_clients();
            command.arg("reads");
            command
        }
        "pgjdbc" => java("ReadsOwnWrites", &[]),
        _ => {
            let mut command = python("reads_own_writes.py");
            command.arg(driver);
            command
        }
    }
}

/// A primary with two replicas, and databases that differ in the consistency of their reads.
fn start() -> Setup {
    let setup = Setup::with(2, |config: Config| {
        let database = |(name, options): (&str, &str)| {
            format!(
                "[databases.{name}]\ncluster = \"c\"\ndbname = \"app\"\nroute = \"auto\"\n{options}\n"
            )
        };
        let databases = [
            ("pool", "read_consistency = \"pool\""),
            ("waiting", "read_consistency = \"pool\"\nread_wait = \"200ms\""),
            ("strong", "read_consistency = \"strong\""),
        ];
        config.set("workers", 2).tables(&databases.map(database).concat())
    });
    let _known = setup.client();
    setup
}

#[test]
fn reads_of_own_writes_by_four_drivers_are_never_stale() {
    let mut setup = start();
    let load = Load::new("auto", Writer::Own);
    let seen = write_and_read(&mut setup, load, |_| {});
    seen.assert_on_replicas();
    assert_eq!(seen.errors, [""; 0]);
}

#[test]
fn reads_of_own_writes_by_four_drivers_are_never_stale_on_troubled_replicas() {
    let mut setup = start();
    let load = Load::new("auto", Writer::Own);
    let seen = write_and_read(&mut setup, load, trouble);
    seen.assert_on_replicas();
    seen.assert_few_errors(load);
}

#[test]
fn reads_of_writes_of_other_sessions_are_never_stale_with_pool() {
    let mut setup = start();
    let load = Load::new("pool", Writer::Other).with_gaps();
    let seen = write_and_read(&mut setup, load, |cluster| pause_and_delay(cluster, 0));
    seen.assert_on_replicas();
    assert_eq!(seen.errors, [""; 0]);
    // Somebody always writes, so nearly everything would be read at the primary if no read waited.
    let load = Load::new("waiting", Writer::Other);
    let seen = write_and_read(&mut setup, load, trouble);
    seen.assert_on_replicas();
    seen.assert_few_errors(load);
}

#[test]
fn reads_of_writes_of_other_sessions_are_never_stale_with_strong() {
    let mut setup = start();
    let load = Load::new("strong", Writer::Other);
    let seen = write_and_read(&mut setup, load, trouble);
    seen.assert_on_replicas();
    seen.assert_few_errors(load);
}

#[test]
fn reads_of_writes_past_pgimbal_are_never_stale_with_strong() {
    let mut setup = start();
    let load = Load::new("strong", Writer::Direct);
    let seen = write_and_read(&mut setup, load, |cluster| pause_and_delay(cluster, 0));
    seen.assert_on_replicas();
    assert_eq!(seen.errors, [""; 0]);
}

/// Lets replicas be late, lost and promoted.
fn trouble(cluster: &mut Cluster) {
    for round in 0..rounds() {
        pause_and_delay(cluster, round % 3);
        lose_and_promote(cluster, round % 3);
    }
    pause_and_delay(cluster, rounds() % 3);
}

/// How often nodes are lost and promoted: more often in a long run.
fn rounds() -> usize {
    1 + pairs(0) as usize / 5_000
}

/// Pauses the replay of a replica of this primary, then of both, and lets the other replay late.
fn pause_and_delay(cluster: &Cluster, primary: usize) {
    const A_WHILE: Duration = Duration::from_millis(300);
    let [one, other] = [1, 2].map(|further| &cluster.nodes[(primary + further) % 3]);
    one.run("select pg_wal_replay_pause()");
    std::thread::sleep(A_WHILE);
    other.run("select pg_wal_replay_pause()");
    std::thread::sleep(A_WHILE);
    one.run("select pg_wal_replay_resume()");
    std::thread::sleep(A_WHILE);
    other.run("select pg_wal_replay_resume()");
    other.run("alter system set recovery_min_apply_delay = '60ms'");
    other.run("select pg_reload_conf()");
    std::thread::sleep(A_WHILE);
    other.run("alter system reset recovery_min_apply_delay");
    other.run("select pg_reload_conf()");
}

/// Kills a replica and starts it again. Then the primary is shut down, which its replicas survive
/// with every commit; the replica is promoted, and the others follow it.
fn lose_and_promote(cluster: &mut Cluster, primary: usize) {
    let [next, other] = [1, 2].map(|further| (primary + further) % 3);
    cluster.nodes[next].kill();
    cluster.nodes[next].start();
    cluster.nodes[primary].wait_until_it_feeds(2);
    cluster.nodes[primary].end(End::Fast);
    // What asks for the promotion has a snapshot, for which the end of the replay would wait.
    let received = cluster.nodes[next].value("select pg_last_wal_receive_lsn()");
    cluster.nodes[next].wait_until_replayed(&received);
    cluster.nodes[next].promote();
    cluster.repoint(other, next);
    cluster.rejoin(primary, next);
}
