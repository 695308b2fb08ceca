//! Figures of a rotation: how long it takes from Vault's new answer until pgimbal uses it.

use crate::figures::rotating::{Rotating, UNUSED, accepted, login};
use crate::figures::{FAR, Figure, PATIENCE};
use crate::postgres::DATABASE;
use pgimbal_tests::{Pgimbal, Postgres, eventually};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Number of times that each is measured.
const TIMES: usize = 5;

/// Measures the three times, each against its bound.
#[must_use]
pub fn measure(postgres: &Postgres) -> Vec<Figure> {
    vec![
        Figure::time(
            "Vault's answer changes at the expected moment, until it is used",
            Duration::from_secs(1),
            &expected(postgres),
        ),
        Figure::time(
            "it changes out of turn, `poll_interval` 2 s, until it is used",
            Duration::from_millis(2200),
            &polled(postgres),
        ),
        Figure::time(
            "a login is refused because it changed, until the statement has its answer",
            Duration::from_millis(300),
            &refused(postgres),
        ),
    ]
}

/// Rotates as soon as `ttl` is over; the times until there is a newer generation.
fn expected(postgres: &Postgres) -> Vec<Duration> {
    let ttl = Duration::from_secs(3);
    let mut rotating = Rotating::new(postgres, ttl);
    let mut due = Instant::now() + ttl;
    let pgimbal = rotating.pgimbal("1h");
    let measure = |_| {
        sleep(due.saturating_duration_since(Instant::now()));
        due = Instant::now() + ttl;
        until_known(&pgimbal, &mut rotating, ttl)
    };
    (0..TIMES).map(measure).collect()
}

fn polled(postgres: &Postgres) -> Vec<Duration> {
    let mut rotating = Rotating::new(postgres, FAR);
    let pgimbal = rotating.pgimbal("2s");
    let measure = |time| {
        // Anywhere between two polls.
        sleep(Duration::from_millis(300 * time as u64));
        until_known(&pgimbal, &mut rotating, FAR)
    };
    (0..TIMES).map(measure).collect()
}

fn until_known(pgimbal: &Pgimbal, rotating: &mut Rotating<'_>, ttl: Duration) -> Duration {
    let (before, _) = accepted(pgimbal);
    rotating.rotate(ttl);
    eventually("the next password is known", PATIENCE, || accepted(pgimbal).0 > before)
}

/// An application with an old password needs a server connection, whose login is refused.
fn refused(postgres: &Postgres) -> Vec<Duration> {
    let measure = |_| {
        let mut rotating = Rotating::new(postgres, FAR);
        let pgimbal = rotating.pgimbal("1h");
        // It works once, so that its refusal means that there is another one by then.
        pgimbal.log_in(&login(1, DATABASE)).ok("select 1");
        rotating.rotate(FAR);
        let start = Instant::now();
        // Another pool, whose first server connection is opened for this login already.
        pgimbal.log_in(&login(1, UNUSED)).ok("select 1");
        start.elapsed()
    };
    (0..TIMES).map(measure).collect()
}
