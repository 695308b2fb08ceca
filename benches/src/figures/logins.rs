//! The CPU time of a SCRAM login when three generations of a password are accepted.

use crate::Result;
use crate::client::Endpoint;
use crate::figures::rotating::{Rotating, accepted, password};
use crate::figures::{FAR, Figure, PATIENCE};
use crate::login;
use crate::postgres::ROTATING_ROLE;
use pgimbal_tests::{Pgimbal, Postgres, eventually};
use std::time::Duration;

/// Number of times that each of the two is measured, in turn.
const ROUNDS: usize = 7;
/// Length of each measurement.
const DURATION: Duration = Duration::from_secs(2);

/// Measures the CPU time of a login for clients with the oldest of three passwords, which is
/// compared last, against logins with one password.
///
/// # Errors
/// When a login fails.
///
/// # Panics
/// When pgimbal does not learn the generations.
pub fn measure(postgres: &Postgres) -> Result<Vec<Figure>> {
    let mut rotating = Rotating::new(postgres, FAR);
    let one = rotating.pgimbal("1h");
    let three = rotating.pgimbal("1h");
    let endpoints = [&one, &three]
        .map(|pgimbal| Endpoint::new(pgimbal.port, ROTATING_ROLE).with_password(&password(1)));
    // The server connections that logins need are open before the server's password changes.
    for endpoint in &endpoints {
        endpoint.log_in()?.close()?;
    }
    for number in 2..=3 {
        rotating.rotate(FAR);
        let _ = three.console(&format!("refresh {ROTATING_ROLE}"));
        eventually("the next password is known", PATIENCE, || accepted(&three).1 == number);
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let cpu = |endpoint, pgimbal: &Pgimbal| {
            login::cpu_per_login(endpoint, pgimbal.process().id(), DURATION)
        };
        let (first, second) = (cpu(&endpoints[0], &one)?, cpu(&endpoints[1], &three)?);
        // The first round warms both up.
        if round > 0 {
            before.push(first);
            after.push(second);
        }
    }
    assert_eq!(accepted(&one).1, 1, "the one has heard of the others");
    let what = "CPU time of a SCRAM login, 3 accepted generations instead of 1";
    Ok(vec![Figure::growth(what, "us", 10.0, &before, &after)])
}
