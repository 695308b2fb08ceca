//! The ways of reading that docs/reads.md has for frameworks, by the frameworks themselves.

use std::process::Command;
use std::time::Duration;

use pgimbal_tests::http::metric;
use pgimbal_tests::library::{python, ruby};
use pgimbal_tests::program::run;

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
        let labels = ["database=\"auto\"", role];
        metric(&page, "pgimbal_routed_total", &labels).unwrap_or_default() as u32
    })
}

/// Lets a framework read, and sees where that went.
fn assert_goes(setup: &Setup, way: &str, command: &mut Command, goes: Goes) {
    let before = routed(setup);
    command.env("READS_OF", way).env("READS", READS.to_string());
    command.env("PGIMBAL_PORT", setup.proxy.port.to_string());
    let _ = run(command, Duration::from_secs(60)).succeeded();
    let after = routed(setup);
    let [primary, replica] = [0, 1].map(|index| after[index] - before[index]);
    println!("{way}: {primary} to the primary, {replica} to a replica");
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
