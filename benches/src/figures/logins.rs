//! The CPU time of a SCRAM login when three generations of a password are accepted.

use crate::Result;
use crate::client::Door;
use crate::figures::Figure;
use crate::figures::instance::Instance;
use crate::figures::stand_in::StandIn;
use crate::login;
use crate::place::Place;
use crate::postgres::{DATABASE, Postgres, ROLE};
use std::path::Path;
use std::time::Duration;

/// Interleaved rounds.
const ROUNDS: usize = 7;
/// How long each lasts.
const DURATION: Duration = Duration::from_secs(2);
/// No rotation is near.
const FAR: Duration = Duration::from_secs(86_400);

/// Measures it for clients with the oldest password, which is compared last.
///
/// # Errors
/// When a login fails.
pub fn measure(place: &Place, postgres: &Postgres, program: &Path) -> Result<Vec<Figure>> {
    let one = Accepting::start(place, postgres, program, 1)?;
    let three = Accepting::start(place, postgres, program, 3)?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (first, second) = (one.cpu_per_login()?, three.cpu_per_login()?);
        // The first round warms both up.
        if round > 0 {
            before.push(first);
            after.push(second);
        }
    }
    let what = "CPU time of a SCRAM login, 3 accepted generations instead of 1";
    Ok(vec![Figure::growth(what, "us", 10.0, &before, &after)])
}

struct Accepting {
    pgimbal: Instance,
    door: Door,
    _vault: StandIn,
}

impl Accepting {
    fn start(place: &Place, postgres: &Postgres, program: &Path, count: usize) -> Result<Self> {
        let vault = StandIn::start()?;
        vault.rotate(ROLE, "generation-1", FAR);
        let tables = format!(
            "{}[users.{ROLE}]\nvault_role = \"{ROLE}\"\n\n\
             [databases.{DATABASE}]\nhost = \"127.0.0.1\"\nport = {}\n",
            vault.table("1h"),
            postgres.port
        );
        let pgimbal = Instance::start(place, program, "grace_generations = 3", &tables)?;
        pgimbal.wait("the first", || Ok(pgimbal.generations(ROLE)?.1 == 1))?;
        for number in 2..=count {
            vault.rotate(ROLE, &format!("generation-{number}"), FAR);
            pgimbal.console(&format!("REFRESH {ROLE}"))?;
            pgimbal.wait("the next", || Ok(pgimbal.generations(ROLE)?.1 == number))?;
        }
        let door = Door::new(pgimbal.port, ROLE).with_password("generation-1");
        Ok(Self { pgimbal, door, _vault: vault })
    }

    fn cpu_per_login(&self) -> Result<f64> {
        login::cpu_per_login(&self.door, self.pgimbal.pid(), DURATION)
    }
}
