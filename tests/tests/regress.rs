//! PostgreSQL's own regression statements, on a primary and a standby: what is called a read, the
//! standby runs, and on the primary it changes nothing. `PGIMBAL_REGRESS=all` runs every file.
#![allow(missing_docs, reason = "a test's name is its documentation")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed expectation is the point"
)]

#[path = "regress/script.rs"]
mod script;
#[path = "regress/witness.rs"]
mod witness;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgimbal_pooler::sql::{Encoding, Reading, StandardStrings};
use pgimbal_reads::{CATALOG_QUERY, Catalog, CatalogRow, Decision, parse};
use pgimbal_tests::cluster::{Cluster, Node};
use pgimbal_tests::sources::root;
use pgimbal_tests::{Message, WireClient};

use script::{Statement, statements};
use witness::Witness;

/// What `make test` runs: files that read much, and those that write where one would not think so.
const FILES: [&str; 34] = [
    "test_setup",
    "create_index",
    "select",
    "select_into",
    "select_distinct",
    "select_having",
    "subselect",
    "union",
    "case",
    "join",
    "aggregates",
    "groupingsets",
    "window",
    "with",
    "random",
    "sequence",
    "identity",
    "domain",
    "create_function_sql",
    "create_view",
    "updatable_views",
    "rules",
    "rowsecurity",
    "plpgsql",
    "copyselect",
    "guc",
    "temp",
    "txid",
    "lock",
    "advisory_lock",
    "largeobject",
    "jsonb",
    "xml",
    "tsrf",
];

/// Files that a single session cannot run, or that are about the server's own files.
const LEFT_OUT: [&str; 4] = ["tablespace", "stats", "stats_ext", "prepared_xacts"];

/// The database, and what has happened.
struct Run<'a> {
    cluster: &'a Cluster,
    primary: WireClient,
    standby: WireClient,
    /// Another session of the primary, in autocommit.
    witness: Witness,
    catalog: Catalog,
    /// Whether functions, views and the like may have changed since the catalog was read.
    is_stale: bool,
    /// Whether something may have been written that the standby has not replayed.
    is_behind: bool,
    reading: Reading,
    reads: usize,
    others: BTreeMap<&'static str, usize>,
    refused: Vec<String>,
    /// What was called a read and has changed something on the primary.
    written: Vec<String>,
}

#[test]
fn regression_statements_that_are_called_reads_run_on_a_standby_and_write_nothing() {
    let cluster = Cluster::with(1, &["statement_timeout=30s"]);
    let folder = copy_of_sources(cluster.directory());
    let mut run = Run::new(&cluster);
    let schedule = fs::read_to_string(folder.join("parallel_schedule")).expect("a schedule");
    let every = std::env::var("PGIMBAL_REGRESS").is_ok_and(|which| which == "all");
    for name in schedule
        .lines()
        .filter_map(|line| line.strip_prefix("test: "))
        .flat_map(str::split_whitespace)
    {
        if LEFT_OUT.contains(&name) || !(every || FILES.contains(&name)) {
            continue;
        }
        let text = fs::read_to_string(folder.join(format!("sql/{name}.sql"))).expect("a file");
        run.begin();
        for statement in statements(&text, &folder.display().to_string()) {
            run.statement(name, &statement);
        }
    }
    println!("{} reads; no reads: {:?}", run.reads, run.others);
    println!("{} of the reads ran on the primary, in a session of their own", run.witness.ran());
    let wrong = [("refused by the standby", run.refused), ("written", run.written)];
    assert!(wrong.iter().all(|(_, list)| list.is_empty()), "{wrong:#?}");
    assert!(run.witness.ran() * 10 > run.reads * 6, "too few have run to prove much");
    assert!(run.reads > 2000, "{} reads are too few to prove much", run.reads);
}

impl<'a> Run<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let [primary, standby] = &cluster.nodes[..] else { panic!("two nodes") };
        Self {
            cluster,
            primary: session(primary),
            standby: session(standby),
            witness: Witness::new(primary),
            catalog: Catalog::unread([]),
            is_stale: true,
            is_behind: true,
            reading: Reading { encoding: Encoding::Utf8, ..Reading::default() },
            reads: 0,
            others: BTreeMap::new(),
            refused: Vec::new(),
            written: Vec::new(),
        }
    }

    /// A file begins with new sessions.
    fn begin(&mut self) {
        self.primary = session(&self.cluster.nodes[0]);
        self.standby = session(&self.cluster.nodes[1]);
        self.witness.begin(&self.cluster.nodes[0]);
        self.reading.strings = StandardStrings::On;
    }

    fn statement(&mut self, file: &str, statement: &Statement) {
        let text = &statement.text;
        if self.is_stale && may_read(text) {
            self.read_catalog();
        }
        match parse(text.as_bytes(), self.reading, &self.catalog) {
            Decision::Read => {
                self.reads += 1;
                self.on_standby(file, text);
                if let Some(change) = self.witness.run(&self.cluster.nodes[0], text) {
                    self.written.push(format!("{file}: {text}: {change}"));
                }
            }
            Decision::NotRead(reason) => {
                *self.others.entry(reason.as_str()).or_default() += 1;
                self.is_behind = true;
                let words = text.to_ascii_lowercase();
                self.is_stale |=
                    ["create", "alter", "drop", "do"].iter().any(|word| words.starts_with(word));
                // The other sessions have the same settings.
                if words.starts_with("set ") || words.starts_with("reset ") {
                    let _ = self.standby.try_query(text);
                    self.witness.set(text);
                }
            }
        }
        self.on_primary(statement);
    }

    fn on_standby(&mut self, file: &str, text: &str) {
        if std::mem::take(&mut self.is_behind) {
            self.witness.flush();
            self.cluster.settle(0);
        }
        let Ok(reply) = self.standby.try_query(text) else {
            self.standby = session(&self.cluster.nodes[1]);
            return;
        };
        for error in reply.errors() {
            if error.code == "25006" || error.message.contains("recovery") {
                self.refused.push(format!("{file}: {text}: {}", error.message));
            }
        }
    }

    fn on_primary(&mut self, statement: &Statement) {
        self.primary.start_query(&statement.text);
        loop {
            match self.primary.try_read() {
                Ok(message) if message.tag == b'G' => {
                    let rows = Message::new(b'd', statement.rows.as_bytes()).encode();
                    self.primary.send(&rows);
                    self.primary.send(&Message::new(b'c', b"").encode());
                }
                Ok(message) if message.tag == b'S' => {
                    if let [name, value] = &message.strings()[..]
                        && name == "standard_conforming_strings"
                    {
                        let is_on = value == "on";
                        self.reading.strings =
                            if is_on { StandardStrings::On } else { StandardStrings::Off };
                    }
                }
                Ok(message) if message.tag == b'Z' => return,
                Ok(_) => {}
                // The statement has ended the session.
                Err(_) => return self.primary = session(&self.cluster.nodes[0]),
            }
        }
    }

    fn read_catalog(&mut self) {
        let reply = session(&self.cluster.nodes[0]).query(CATALOG_QUERY);
        let rows = reply.texts();
        let rows = rows.iter().map(|row| CatalogRow { kind: &row[0], name: &row[1], via: &row[2] });
        self.catalog = Catalog::from_rows(rows, []).expect("the rows are known");
        self.is_stale = false;
    }
}

/// A superuser's session.
fn session(node: &Node) -> WireClient {
    let mut client = node.superuser();
    client.ok("set client_encoding = 'UTF8'");
    client
}

/// Whether a statement may be a read, so that the catalog has to be new.
fn may_read(text: &str) -> bool {
    let words = text.to_ascii_lowercase();
    ["select", "with", "values", "table", "explain", "copy", "("]
        .iter()
        .any(|w| words.starts_with(w))
}

/// A copy of PostgreSQL's regression tests that its server may read.
fn copy_of_sources(directory: &Path) -> PathBuf {
    let mut program = Command::new(root().join("tests/postgres-source/program"));
    let output = program.output().expect("the script runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let source = String::from_utf8(output.stdout).expect("a path");
    let copy = directory.join("regress");
    let copied = Command::new("cp").arg("-rT").arg(source.trim()).arg(&copy).status();
    assert!(copied.is_ok_and(|status| status.success()));
    let opened = Command::new("chmod").args(["-R", "a+rX"]).arg(&copy).status();
    assert!(opened.is_ok_and(|status| status.success()));
    copy
}
