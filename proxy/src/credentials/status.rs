//! Passwords as people see them: everything but the passwords.

use std::time::Duration;

use pgimbal_auth::account::Standing;

pub use super::fetch::FetchCounts;

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct CredentialsStatus {
    /// Each user whose password rotates, by name.
    pub users: Vec<CredentialStatus>,
    /// How the questions to sources went.
    pub fetches: FetchCounts,
}

/// One user's.
#[derive(Clone, Debug)]
pub struct CredentialStatus {
    /// The user's name.
    pub user: String,
    /// `vault`, `file` or `env`.
    pub source: &'static str,
    /// The role, path or variable there.
    pub place: String,
    /// How long until the next rotation is expected.
    pub next_rotation: Option<Duration>,
    /// How long ago the source was last asked.
    pub last_fetch: Option<Duration>,
    /// What came of it, as a word.
    pub last_result: &'static str,
    /// Since when the source says nothing; zero while it answers.
    pub stale: Duration,
    /// The generations that clients may show, the newest first.
    pub generations: Vec<GenerationStatus>,
    /// Nodes that were logged in to, and whether no password works there.
    pub nodes: Vec<(String, bool)>,
    /// Logins of clients by the standing of what they showed.
    pub logins: [u64; Standing::ALL.len()],
}

/// One generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationStatus {
    /// Its number.
    pub number: u32,
    /// How long ago it was made.
    pub age: Duration,
    /// Clients that have shown it.
    pub clients: u64,
    /// Server connections that were opened with it.
    pub servers: u64,
}

#[cfg(test)]
impl CredentialStatus {
    /// A user of a sealed Vault: two generations are accepted, and node `a` takes none.
    pub(crate) fn example() -> Self {
        let generation = |number: u32, age| GenerationStatus {
            number,
            age: Duration::from_secs(age),
            clients: number.into(),
            servers: 0,
        };
        Self {
            user: "app".to_owned(),
            source: "vault",
            place: "vault main, role app".to_owned(),
            next_rotation: Some(Duration::from_secs(40)),
            last_fetch: None,
            last_result: "sealed",
            stale: Duration::from_secs(9),
            generations: vec![generation(7, 20), generation(6, 80)],
            nodes: vec![("a".to_owned(), true), ("b".to_owned(), false)],
            logins: [5, 4, 3, 2],
        }
    }
}
