//! The primary of the story dies without a word, while statements of its own run beside the pools:
//! single reads, which can be run again, and what begins while there is no primary, which waits.

use std::process::Child;

use pgimbal_tests::cluster::Node;
use pgimbal_tests::pgimbal::undisturbed;
use pgimbal_tests::until::{SOON, eventually};

use super::setup::{NAMESPACE, Setup};

/// How long the reads go on, in seconds: it dies a few seconds after they have begun.
const SECONDS: &str = "12";

/// Clients that read all the time, in each protocol.
const READERS: &str = "6";

/// A single read, which is almost always under way.
const READ: &str = "select pg_sleep(0.03), count(*) from done;\n";

/// Two pgbenches of single reads, one in the simple and one in the extended protocol.
pub(super) struct Readers {
    processes: Vec<(&'static str, Child)>,
}

impl Readers {
    /// Starts them, and waits until all their clients read at `primary`.
    pub(super) fn start(setup: &Setup, primary: &Node) -> Self {
        let port = setup.nodes.proxy.local_port(NAMESPACE, "pgimbal", 5432).expect("a Service");
        let script = setup.file("read.sql", READ);
        let password = setup.password("scram");
        let start = |protocol: &'static str| {
            let mut pgbench = undisturbed("pgbench");
            pgbench.args(["--no-vacuum", "--client", READERS, "--jobs", "2", "--time", SECONDS]);
            pgbench.args(["--protocol", protocol, "--file"]).arg(&script);
            pgbench
                .arg(format!("host=127.0.0.1 port={port} dbname=app user=scram sslmode=require"));
            let log = std::fs::File::create(setup.file(protocol, "")).expect("a file");
            pgbench.env("PGPASSWORD", &password).stdout(log.try_clone().expect("a handle"));
            (protocol, pgbench.stderr(log).spawn().expect("pgbench"))
        };
        let processes = vec![start("simple"), start("extended")];
        let reading = "select count(*) > 3 from pg_stat_activity \
                       where state = 'active' and query like 'select pg_sleep(0.03)%'";
        eventually("they read", SOON, || primary.value(reading) == "t");
        Self { processes }
    }

    /// Waits for their end. None has seen an error.
    pub(super) fn finish(self, setup: &Setup) {
        for (protocol, mut process) in self.processes {
            let status = process.wait().expect("an end");
            let told = std::fs::read_to_string(setup.path(protocol)).expect("its output");
            assert!(status.success(), "{protocol}: {told}");
            assert!(told.contains("number of failed transactions: 0 ("), "{protocol}: {told}");
            let done = told.lines().find(|line| line.contains("actually processed"));
            eprintln!("reads, {protocol} protocol: {}, no error", done.unwrap_or_default());
        }
    }
}

/// Lets no acknowledged commit be lost with `primary`: it waits for its standby.
pub(super) fn wait_for_the_standby(primary: &Node) {
    primary.run("alter system set synchronous_standby_names = '*'");
    primary.run("select pg_reload_conf()");
    let sync = "select count(*) from pg_stat_replication where sync_state = 'sync'";
    eventually("its standby is synchronous", SOON, || primary.value(sync) == "1");
}

/// What the death did to transactions that were under way, by docs/failover.md.
#[derive(Default)]
pub(super) struct Lost {
    /// 57P01: they were told that nothing of it is there.
    rolled_back: u64,
    /// 08007: they were told that nobody knows.
    unknown: u64,
}

impl Lost {
    /// Sorts the errors that the pool `name` has written. Each is one of the two, and the first is
    /// true at the new `primary`.
    pub(super) fn of(name: &str, texts: &str, primary: &Node) -> Self {
        let mut lost = Self::default();
        for line in texts.lines().filter(|line| line.starts_with(name)) {
            let (id, text) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            let says = |words: [&str; 2]| words.iter().any(|word| text.contains(word));
            // psycopg names the class that it has for a SQLSTATE.
            if says(["57P01", "AdminShutdown"]) {
                let rows = primary.value(&format!("select count(*) from done where id = '{id}'"));
                assert_eq!(rows, "0", "it is there after all: {line}");
                lost.rolled_back += 1;
            } else {
                let is_unknown = says(["08007", "TransactionResolutionUnknown"]);
                assert!(is_unknown, "{name}: no row of docs/failover.md: {line}");
                lost.unknown += 1;
            }
        }
        let Self { rolled_back, unknown } = lost;
        eprintln!("{name}: {rolled_back} transactions were told 57P01, and {unknown} 08007");
        lost
    }

    /// How many of them may have been committed.
    pub(super) fn unknown(&self) -> u64 {
        self.unknown
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.rolled_back + self.unknown
    }
}
