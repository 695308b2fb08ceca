//! A thousand roles, none of them due.

use crate::Result;
use crate::figures::Figure;
use crate::figures::instance::Instance;
use crate::figures::stand_in::StandIn;
use crate::place::Place;
use crate::postgres::{DATABASE, Postgres};
use crate::usage::with_ended_threads;
use std::fmt::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How many.
const ROLES: usize = 1000;
/// How long requests and CPU time are counted: two of the default's polls.
const COUNTED: Duration = Duration::from_secs(60);

/// How long the start may take.
const START: Duration = Duration::from_secs(10);

/// Measures requests, CPU time and the start.
///
/// # Errors
/// When pgimbal does not start.
pub fn measure(place: &Place, postgres: &Postgres, program: &Path) -> Result<Vec<Figure>> {
    let vault = StandIn::start()?;
    let mut tables = vault.table("30s");
    for number in 0..ROLES {
        let name = format!("role{number}");
        vault.rotate(&name, &format!("password-{number}"), Duration::from_secs(7 * 86_400));
        let _ = writeln!(tables, "[users.{name}]\nvault_role = \"{name}\"");
    }
    let _ =
        write!(tables, "[databases.{DATABASE}]\nhost = \"127.0.0.1\"\nport = {}\n", postgres.port);
    let start = Instant::now();
    let pgimbal = Instance::start(place, program, "", &tables)?;
    let ready = pgimbal.wait("/readyz", || {
        let answer = pgimbal.http.request("GET", "/readyz", "");
        Ok(answer.is_ok_and(|(status, _)| status == 200))
    })?;
    let all = pgimbal.wait("each role is read", || Ok(vault.asked() == ROLES))?;
    // What the start still does is not what is asked.
    sleep(Duration::from_secs(3));
    let (requests, cpu, from) =
        (vault.requests(), with_ended_threads(pgimbal.pid()), Instant::now());
    sleep(COUNTED);
    let elapsed = from.elapsed().as_secs_f64();
    let spent = (with_ended_threads(pgimbal.pid()) - cpu).as_secs_f64();
    Ok(vec![
        Figure::number(
            "1,000 roles, none due: requests to Vault",
            "per second",
            40.0,
            (vault.requests() - requests) as f64 / elapsed,
        ),
        Figure::number(
            "1,000 roles, none due: CPU time",
            "% of a core",
            1.0,
            spent / elapsed * 100.0,
        ),
        Figure::time("1,000 roles: from the start to ready", START, &[ready - start]),
        Figure::time("1,000 roles: from the start to every role read", START, &[all - start]),
    ])
}
