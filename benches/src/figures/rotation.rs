//! From Vault's answer changing to pgimbal using it.

use crate::Result;
use crate::client::Door;
use crate::figures::Figure;
use crate::figures::instance::Instance;
use crate::figures::stand_in::StandIn;
use crate::place::Place;
use crate::postgres::{DATABASE, Postgres, SCRAM_ROLE};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often each is measured.
const TIMES: usize = 5;
/// No rotation is near.
const FAR: Duration = Duration::from_secs(86_400);

/// Measures all three.
///
/// # Errors
/// When pgimbal does not start or does not see a rotation.
pub fn measure(place: &Place, postgres: &Postgres, program: &Path) -> Result<Vec<Figure>> {
    Ok(vec![
        Figure::time(
            "Vault's answer changes at the expected moment, until it is used",
            Duration::from_secs(1),
            &expected(place, postgres, program)?,
        ),
        Figure::time(
            "it changes out of turn, `poll_interval` 2 s, until it is used",
            Duration::from_millis(2200),
            &polled(place, postgres, program)?,
        ),
        Figure::time(
            "a login is refused because it changed, until the statement has its answer",
            Duration::from_millis(300),
            &refused(place, postgres, program)?,
        ),
    ])
}

/// The server asks `SCRAM_ROLE` for its password, so that it must be right.
struct Rotating<'a> {
    vault: StandIn,
    postgres: &'a Postgres,
    count: u32,
}

impl<'a> Rotating<'a> {
    fn new(postgres: &'a Postgres, ttl: Duration) -> Result<Self> {
        let mut rotating = Self { vault: StandIn::start()?, postgres, count: 0 };
        rotating.rotate(ttl)?;
        Ok(rotating)
    }

    /// First on the server, then in Vault, as Vault itself does.
    fn rotate(&mut self, ttl: Duration) -> Result<String> {
        self.count += 1;
        let password = format!("figure-{}", self.count);
        let mut superuser = Door::new(self.postgres.port, crate::postgres::ROLE).enter()?;
        superuser.question(&format!("ALTER ROLE {SCRAM_ROLE} PASSWORD '{password}'"))?;
        superuser.leave()?;
        self.vault.rotate(SCRAM_ROLE, &password, ttl);
        Ok(password)
    }

    fn pgimbal(&self, place: &Place, program: &Path, poll: &str) -> Result<Instance> {
        let tables = format!(
            "{}[users.{SCRAM_ROLE}]\nvault_role = \"{SCRAM_ROLE}\"\n\n\
             [databases.{DATABASE}]\nhost = \"127.0.0.1\"\nport = {port}\n\n\
             [databases.fresh]\ndbname = \"{DATABASE}\"\nhost = \"127.0.0.1\"\nport = {port}\n",
            self.vault.table(poll),
            port = self.postgres.port
        );
        let pgimbal = Instance::start(place, program, "grace_generations = 100", &tables)?;
        pgimbal.wait("the first password", || Ok(pgimbal.generations(SCRAM_ROLE)?.1 > 0))?;
        Ok(pgimbal)
    }
}

/// Rotates as soon as `ttl` is over; the times until there is a newer generation.
fn expected(place: &Place, postgres: &Postgres, program: &Path) -> Result<Vec<Duration>> {
    let ttl = Duration::from_secs(3);
    let mut rotating = Rotating::new(postgres, ttl)?;
    let mut due = Instant::now() + ttl;
    let pgimbal = rotating.pgimbal(place, program, "1h")?;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        sleep(due.saturating_duration_since(Instant::now()));
        due = Instant::now() + ttl;
        times.push(until_seen(&pgimbal, &mut rotating, ttl)?);
    }
    Ok(times)
}

fn polled(place: &Place, postgres: &Postgres, program: &Path) -> Result<Vec<Duration>> {
    let mut rotating = Rotating::new(postgres, FAR)?;
    let pgimbal = rotating.pgimbal(place, program, "2s")?;
    let mut times = Vec::new();
    for time in 0..TIMES {
        sleep(Duration::from_millis(300 * time as u64));
        times.push(until_seen(&pgimbal, &mut rotating, FAR)?);
    }
    Ok(times)
}

fn until_seen(pgimbal: &Instance, rotating: &mut Rotating<'_>, ttl: Duration) -> Result<Duration> {
    let (before, _) = pgimbal.generations(SCRAM_ROLE)?;
    rotating.rotate(ttl)?;
    let start = Instant::now();
    let seen = || Ok(pgimbal.generations(SCRAM_ROLE)?.0 > before);
    Ok(pgimbal.wait("the next password", seen)? - start)
}

/// An application with an old password needs a server connection, whose login is refused.
fn refused(place: &Place, postgres: &Postgres, program: &Path) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let mut rotating = Rotating::new(postgres, FAR)?;
        let pgimbal = rotating.pgimbal(place, program, "1h")?;
        let first = format!("figure-{}", rotating.count);
        let door = || Door::new(pgimbal.port, SCRAM_ROLE).with_password(&first);
        // It works once, so that its refusal means that there is another one by then.
        let mut client = door().enter()?;
        client.ask("SELECT 1")?;
        client.leave()?;
        rotating.rotate(FAR)?;
        let start = Instant::now();
        // Another pool, whose first server connection is opened for this login already.
        let mut client = door().to_database("fresh").enter()?;
        client.ask("SELECT 1")?;
        times.push(start.elapsed());
        client.leave()?;
    }
    Ok(times)
}
