//! A role whose password rotates when it is told, on the server and in a stand-in for Vault, and
//! what a pgimbal before them makes of it.

use crate::figures::PATIENCE;
use crate::postgres::{DATABASE, ROTATING_ROLE};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Login, Pgimbal, Postgres, VaultStandIn, eventually};
use std::time::Duration;

/// A database of pgimbal's that nothing has used yet.
pub const UNUSED: &str = "unused";

/// [`ROTATING_ROLE`] and where its password comes from.
pub struct Rotating<'a> {
    /// What pgimbal asks.
    pub vault: VaultStandIn,
    postgres: &'a Postgres,
    count: usize,
}

impl<'a> Rotating<'a> {
    /// The role with its first password, the next one is due when `ttl` has passed.
    #[must_use]
    pub fn new(postgres: &'a Postgres, ttl: Duration) -> Self {
        let mut rotating = Self { vault: VaultStandIn::start(), postgres, count: 0 };
        rotating.rotate(ttl);
        rotating
    }

    /// Rotates, first on the server, then in Vault, as Vault itself does.
    pub fn rotate(&mut self, ttl: Duration) {
        self.count += 1;
        let password = password(self.count);
        self.postgres.run(&format!("alter role {ROTATING_ROLE} password '{password}'"));
        self.vault.rotate(ROTATING_ROLE, &password, ttl);
    }

    /// A pgimbal that has the first password, asks for the next one every `poll`, and accepts all
    /// of them. Its database [`UNUSED`] is the same as `app`, with a pool of its own.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn pgimbal(&self, poll: &str) -> Pgimbal {
        let pgimbal = Config::before(self.postgres)
            .without(&["workers", "pool_size"])
            .set("auth_type", "\"scram-sha-256\"")
            .set("grace_generations", 100)
            .tables(&self.vault.table(&format!("poll_interval = \"{poll}\"")))
            .tables(&format!("[users.{ROTATING_ROLE}]\nvault_role = \"{ROTATING_ROLE}\""))
            .tables(&format!(
                "[databases.{UNUSED}]\ndbname = \"{DATABASE}\"\nhost = \"127.0.0.1\"\nport = {}",
                self.postgres.port
            ))
            .start();
        eventually("the first password is known", PATIENCE, || accepted(&pgimbal).1 > 0);
        pgimbal
    }
}

/// Who logs in to `database` with the password of this generation, from 1 on.
#[must_use]
pub fn login(generation: usize, database: &str) -> Login {
    Login::new(ROTATING_ROLE, database, &password(generation))
}

/// The password of this generation, from 1 on.
#[must_use]
pub fn password(generation: usize) -> String {
    format!("generation-{generation}")
}

/// The number of the latest generation that pgimbal knows, and how many it accepts.
#[must_use]
pub fn accepted(pgimbal: &Pgimbal) -> (u64, usize) {
    let rows = pgimbal.console("show credentials");
    let field = |row: &[(String, String)], column: &str| {
        row.iter().find(|(name, _)| name == column).map(|(_, value)| value.clone())
    };
    let mine = rows.iter().filter(|row| field(row, "user").as_deref() == Some(ROTATING_ROLE));
    let numbers = mine.filter_map(|row| field(row, "generation")?.parse().ok());
    let numbers: Vec<u64> = numbers.collect();
    (numbers.iter().copied().max().unwrap_or(0), numbers.len())
}
