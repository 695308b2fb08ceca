//! A role whose password rotates on demand, on the server and in a stand-in for Vault, and a
//! pgimbal in front of them.

use crate::figures::PATIENCE;
use crate::postgres::{DATABASE, ROTATING_ROLE};
use pgimbal_tests::pgimbal::Config;
use pgimbal_tests::{Login, Pgimbal, Postgres, VaultStandIn, eventually};
use std::time::Duration;

/// The name of a database of pgimbal that nothing has used yet, so that its pool is empty.
pub const UNUSED: &str = "unused";

/// The role [`ROTATING_ROLE`] with the source of its password.
pub struct Rotating<'a> {
    /// The stand-in for Vault that pgimbal asks for the password.
    pub vault: VaultStandIn,
    postgres: &'a Postgres,
    count: usize,
}

impl<'a> Rotating<'a> {
    /// Gives the role its first password, on the server and in Vault; the next one is due after
    /// `ttl`.
    #[must_use]
    pub fn new(postgres: &'a Postgres, ttl: Duration) -> Self {
        let mut rotating = Self { vault: VaultStandIn::start(), postgres, count: 0 };
        rotating.rotate(ttl);
        rotating
    }

    /// Rotates the password, first on the server, then in Vault, as Vault itself does. The next
    /// rotation is due after `ttl`.
    pub fn rotate(&mut self, ttl: Duration) {
        self.count += 1;
        let password = password(self.count);
        self.postgres.run(&format!("alter role {ROTATING_ROLE} password '{password}'"));
        self.vault.rotate(ROTATING_ROLE, &password, ttl);
    }

    /// Starts a pgimbal that knows the first password, fetches the next one every `poll` (as in the
    /// configuration, for example `1s`), and accepts all generations. Its database [`UNUSED`] is
    /// the same as `app`, with a pool of its own.
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

/// The login to `database` with the password of this generation; generations count from 1.
#[must_use]
pub fn login(generation: usize, database: &str) -> Login {
    Login::new(ROTATING_ROLE, database, &password(generation))
}

/// The password of this generation; generations count from 1.
#[must_use]
pub fn password(generation: usize) -> String {
    format!("generation-{generation}")
}

/// The number of the latest generation that pgimbal knows, and the number of generations that it
/// accepts.
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
