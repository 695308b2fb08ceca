//! `BENCH=figures make bench`: what rotation and failover cost and how long they take.

use pgimbal_benches::figures::{
    Figure, failover, listen, logins, overhead, roles, rotation, routing, table,
};
use pgimbal_benches::settings::OPEN_FILES;
use pgimbal_benches::{Error, open_files, postgres};
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// The groups of figures, which `BENCH_SCENARIOS` picks.
const GROUPS: [&str; 7] =
    ["rotation", "roles", "logins", "failover", "listen", "overhead", "routing"];

fn main() -> ExitCode {
    if figures() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether all bounds hold.
fn figures() -> bool {
    let _ = open_files::raise(OPEN_FILES);
    let wanted = env::var("BENCH_SCENARIOS").unwrap_or_default();
    eprintln!("starting PostgreSQL");
    let postgres = postgres::start();
    let mut all = Vec::new();
    for group in GROUPS {
        if !wanted.is_empty() && !wanted.split([' ', ',']).any(|word| word == group) {
            continue;
        }
        let start = Instant::now();
        // One that fails, by an error or a panic of the harness, does not hide the others.
        let measured = catch_unwind(AssertUnwindSafe(|| match group {
            "rotation" => Ok(rotation::measure(&postgres)),
            "roles" => Ok(roles::measure(&postgres)),
            "logins" => logins::measure(&postgres),
            "failover" => failover::measure(),
            "listen" => listen::measure(&postgres),
            "routing" => routing::measure(),
            _ => overhead::measure(&postgres),
        }));
        let measured = measured.unwrap_or_else(|_| Err(Error::Program("see above".to_owned())));
        all.extend(
            measured.unwrap_or_else(|error| vec![Figure::missing(group, &error.to_string())]),
        );
        eprintln!("{group}: {} s", start.elapsed().as_secs());
    }
    println!("{}", table(&all));
    all.iter().all(|figure| figure.holds)
}
