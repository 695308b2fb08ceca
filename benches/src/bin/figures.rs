//! `BENCH=figures make bench`: what rotation and failover cost and how long they take.

use pgimbal_benches::Result;
use pgimbal_benches::demo::pgimbal::program;
use pgimbal_benches::figures::{Figure, failover, logins, overhead, roles, rotation, table};
use pgimbal_benches::place::{Place, raise_open_files};
use pgimbal_benches::postgres::Postgres;
use pgimbal_benches::settings::OPEN_FILES;
use std::env;
use std::process::ExitCode;
use std::time::Instant;

/// The groups of figures, which `BENCH_SCENARIOS` picks.
const GROUPS: [&str; 5] = ["rotation", "roles", "logins", "failover", "overhead"];

fn main() -> ExitCode {
    match figures() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all bounds hold.
fn figures() -> Result<bool> {
    let _ = raise_open_files(OPEN_FILES);
    let place = Place::new("figures")?;
    let wanted = env::var("BENCH_SCENARIOS").unwrap_or_default();
    eprintln!("starting PostgreSQL in {}", place.path().display());
    let postgres = Postgres::start(&place)?;
    let program = place.copy_in(&program()?, "pgimbal")?;
    let mut all = Vec::new();
    for group in GROUPS {
        if !wanted.is_empty() && !wanted.split([' ', ',']).any(|word| word == group) {
            continue;
        }
        let start = Instant::now();
        let measured = match group {
            "rotation" => rotation::measure(&place, &postgres, &program),
            "roles" => roles::measure(&place, &postgres, &program),
            "logins" => logins::measure(&place, &postgres, &program),
            "failover" => failover::measure(&place, &program),
            _ => overhead::measure(&place, &postgres, &program),
        };
        // One that fails does not hide the others.
        all.extend(
            measured.unwrap_or_else(|error| vec![Figure::missing(group, &error.to_string())]),
        );
        eprintln!("{group}: {} s", start.elapsed().as_secs());
    }
    println!("{}", table(&all));
    Ok(all.iter().all(|figure| figure.holds))
}
