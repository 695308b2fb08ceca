//! The ways of reading that docs/reads.md has for frameworks, by the frameworks themselves.
//!
//! A program reads in the way of the environment variable `READS_OF`, `READS` times, one read after
//! the other. Some get three variables more: the database `READS_DATABASE`, `READS_CONNECTIONS`,
//! the size of the program's own pool, and `READS_PAUSE`, its pause between reads in milliseconds.
//! Where the way is `own writes`, each round is a write, a read at once, and a read behind a pause,
//! by every connection of the pool at the same moment; the program prints `stale` and the number of
//! reads that did not show the write.

use std::process::Command;
use std::time::Duration;

use pgimbal_tests::http::metric;
use pgimbal_tests::library::{java_in, prisma_reads, python, ruby};
use pgimbal_tests::program::run;
use pgimbal_tests::sources::root;

use super::Setup;

/// Reads of each framework, one after the other, with pauses of 10 ms.
const READS: u32 = 60;
/// What a framework asks when it connects may go anywhere.
const OTHERS: u32 = 12;

/// Where the reads of a way go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    Replica,
    Primary,
}

/// How many statements and transactions were routed to the primary, and to a replica.
fn routed(setup: &Setup) -> [u32; 2] {
    let page = setup.proxy.metrics();
    ["role=\"primary\"", "role=\"replica\""].map(|role| {
        let sum = |database: &str| metric(&page, "pgimbal_routed_total", &[database, role]);
        let databases = ["database=\"auto\"", "database=\"pooled\""];
        databases.into_iter().filter_map(sum).sum::<f64>() as u32
    })
}

/// Runs a program, and returns what it has printed and what was routed to the primary, and to a
/// replica.
fn read(setup: &Setup, way: &str, reads: u32, command: &mut Command) -> (String, [u32; 2]) {
    let before = routed(setup);
    command.env("READS_OF", way).env("READS", reads.to_string());
    command.env("PGIMBAL_PORT", setup.proxy.port.to_string());
    let finished = run(command, Duration::from_secs(60)).succeeded();
    let after = routed(setup);
    let [primary, replica] = [0, 1].map(|index| after[index] - before[index]);
    println!("{way}: {primary} to the primary, {replica} to a replica. {}", finished.stdout);
    (finished.stdout, [primary, replica])
}

/// Lets a framework read, and sees where that went.
fn assert_goes(setup: &Setup, way: &str, command: &mut Command, goes: Goes) {
    let (_, [primary, replica]) = read(setup, way, READS, command);
    match goes {
        // After what it sets when it connects a session reads at the primary for some 20 ms, on a
        // busy machine for longer.
        Goes::Replica => assert!(replica >= READS / 2, "{way}: {primary}, {replica}"),
        Goes::Primary => assert!(replica <= OTHERS, "{way}: {primary}, {replica}"),
    }
}

#[test]
fn reads_of_frameworks_go_where_the_page_says() {
    let setup = Setup::start(1);
    setup.cluster.nodes[0]
        .run("insert into items select i, 'name ' || i from generate_series(1, 100) i");
    setup.cluster.settle(0);
    let _known = setup.client();
    for (way, goes) in [
        ("django", Goes::Replica),
        ("django with an alias for the primary", Goes::Primary),
        ("django with ATOMIC_REQUESTS", Goes::Primary),
        ("sqlalchemy", Goes::Primary),
        ("sqlalchemy in autocommit", Goes::Replica),
        ("sqlalchemy, read only", Goes::Replica),
        ("psycopg, read only", Goes::Replica),
    ] {
        assert_goes(&setup, way, &mut python("reads_of_frameworks.py"), goes);
    }
    for (way, goes) in [("rails", Goes::Replica), ("rails in transactions", Goes::Primary)] {
        assert_goes(&setup, way, &mut ruby("reads_of_active_record.rb"), goes);
    }
}

/// A setup with the tables of Prisma's programs too, and a database `pooled`, whose reads show what
/// any connection has written.
fn start() -> Setup {
    let setup = Setup::with(1, |config| {
        config.tables(
            "[databases.pooled]\ncluster = \"c\"\ndbname = \"app\"\nroute = \"auto\"\n\
             read_consistency = \"pool\"",
        )
    });
    let primary = &setup.cluster.nodes[0];
    primary.run("insert into items select i, 'name ' || i from generate_series(1, 100) i");
    let migration = root().join("deploy/examples/linkwarden/migrations/20250101000000_links");
    primary.run(&std::fs::read_to_string(migration.join("migration.sql")).expect("SQL"));
    primary.run("grant all on all tables in schema public to app");
    primary.run("grant all on all sequences in schema public to app");
    setup.cluster.settle(0);
    let _known = setup.client();
    setup
}

fn with_pool(mut command: Command, database: &str, connections: u32, pause: u64) -> Command {
    command.env("READS_DATABASE", database);
    command.env("READS_CONNECTIONS", connections.to_string());
    command.env("READS_PAUSE", pause.to_string());
    command
}

/// Lets a framework read in each of these ways.
fn assert_each_goes(setup: &Setup, ways: &[(&str, Goes)], program: impl Fn() -> Command) {
    for (way, goes) in ways {
        assert_goes(setup, way, &mut with_pool(program(), "auto", 1, 10), *goes);
    }
}

/// Lets a framework write and read back, while the replica is late. A pool of connections in the
/// program sees each other's writes if `read_consistency` is `pool`, and not if it is `session`.
fn assert_own_writes(setup: &Setup, way: &str, program: impl Fn() -> Command) {
    const ROUNDS: u32 = 10;
    let standby = &setup.cluster.nodes[1];
    standby.run("alter system set recovery_min_apply_delay = '150ms'");
    standby.run("select pg_reload_conf()");
    for (database, connections) in [("auto", 1), ("pooled", 2), ("auto", 2)] {
        let mut command = with_pool(program(), database, connections, 400);
        let (said, [primary, replica]) = read(setup, way, ROUNDS, &mut command);
        let stale: u32 = said.trim().trim_start_matches("stale ").parse().expect("a count");
        let is_unseen = database == "auto" && connections == 2;
        assert_eq!(
            stale > 0,
            is_unseen,
            "{database}, {connections} connections: {stale} are stale"
        );
        assert!(primary >= ROUNDS && replica >= ROUNDS / 2, "{primary}, {replica}");
    }
}

#[test]
fn reads_of_spring_go_where_the_page_says_and_show_what_was_written() {
    let setup = start();
    let program = || java_in("spring", "reads.Reads", &[]);
    let ways = [
        ("read only", Goes::Replica),
        ("read only, without autocommit", Goes::Replica),
        ("outside of transactions", Goes::Replica),
        ("outside of transactions, without autocommit", Goes::Primary),
        ("in writing transactions", Goes::Primary),
    ];
    assert_each_goes(&setup, &ways, program);
    assert_own_writes(&setup, "own writes", program);
}

#[test]
fn reads_of_prisma_go_where_the_page_says_and_show_what_was_written() {
    let setup = start();
    let program = || prisma_reads("reads_of_prisma.mjs");
    let ways = [
        ("prisma", Goes::Replica),
        ("prisma, in $transaction with a function", Goes::Primary),
        ("prisma, in $transaction with an array", Goes::Primary),
    ];
    assert_each_goes(&setup, &ways, program);
    assert_own_writes(&setup, "own writes", program);
}
