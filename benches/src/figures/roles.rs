//! Figures of a thousand roles whose rotation is not due.

use crate::figures::{Figure, PATIENCE};
use crate::usage::with_ended_threads;
use pgimbal_tests::http::get;
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Postgres, VaultStandIn, eventually};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Number of roles whose passwords pgimbal fetches.
const ROLES: usize = 1000;
/// How long requests and CPU time are counted: two poll intervals of the default.
const COUNTED: Duration = Duration::from_secs(60);

/// Bound of the time of the start.
const START: Duration = Duration::from_secs(10);

/// Measures requests to Vault, CPU time and the time of the start.
#[must_use]
pub fn measure(postgres: &Postgres) -> Vec<Figure> {
    let vault = VaultStandIn::start();
    let mut users = String::new();
    for number in 0..ROLES {
        let name = format!("role{number}");
        vault.rotate(&name, &format!("password-{number}"), Duration::from_secs(7 * 86_400));
        let _ = writeln!(users, "[users.{name}]\nvault_role = \"{name}\"");
    }
    let config = Config::before(postgres)
        .without(&["workers", "pool_size"])
        .set("auth_type", "\"scram-sha-256\"")
        .tables(&vault.table("poll_interval = \"30s\""))
        .tables(&users);
    let start = Instant::now();
    let pgimbal = config.start();
    eventually("/readyz", PATIENCE, || get(pgimbal.http_port, "/readyz").0 == 200);
    let ready = start.elapsed();
    let known = || {
        let requests = vault.requests();
        let roles = requests.iter().filter(|request| request.path.contains("static-creds/"));
        roles.map(|request| request.path.as_str()).collect::<BTreeSet<_>>().len()
    };
    eventually("each role is read", PATIENCE, || known() == ROLES);
    let all = start.elapsed();
    // What the start still does is not what is asked.
    sleep(Duration::from_secs(3));
    let (requests, cpu, from) =
        (vault.requests().len(), with_ended_threads(pgimbal.process().id()), Instant::now());
    sleep(COUNTED);
    let elapsed = from.elapsed().as_secs_f64();
    let spent = (with_ended_threads(pgimbal.process().id()) - cpu).as_secs_f64();
    vec![
        Figure::number(
            "1,000 roles, none due: requests to Vault",
            "per second",
            40.0,
            (vault.requests().len() - requests) as f64 / elapsed,
        ),
        Figure::number(
            "1,000 roles, none due: CPU time",
            "% of a core",
            1.0,
            spent / elapsed * 100.0,
        ),
        Figure::time("1,000 roles: from the start to ready", START, &[ready]),
        Figure::time("1,000 roles: from the start to every role read", START, &[all]),
    ]
}
