//! The history file of earlier versions, `credentials.json` in `state_dir`: read once, when there
//! is no record of a user yet.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::record::{HistoryRecord, SaltId, StoredGeneration, Unreadable};
use super::secret_bytes::{SecretBytes, Time};
use crate::verifier::{Key, SaltParameters};

/// The version of the file.
const VERSION: u32 = 1;

#[derive(Deserialize)]
struct File {
    version: u32,
    users: BTreeMap<String, User>,
}

#[derive(Deserialize)]
struct User {
    salt: SecretBytes<Vec<u8>>,
    iterations: u32,
    generations: Vec<Generation>,
}

#[derive(Deserialize)]
struct Generation {
    rotated_at: Option<Time>,
    stored_key: SecretBytes<Key>,
    server_key: SecretBytes<Key>,
    first_seen: Time,
    retired_at: Option<Time>,
}

/// Reads a history file into the records of its users, by name.
///
/// # Errors
/// [`Unreadable`] when the bytes are not JSON of this form or have another version.
pub fn parse_history_file(bytes: &[u8]) -> Result<BTreeMap<String, HistoryRecord>, Unreadable> {
    let file: File = serde_json::from_slice(bytes)?;
    if file.version != VERSION {
        return Err(Unreadable::Version(file.version));
    }
    Ok(file.users.into_iter().map(|(name, user)| (name, user.record())).collect())
}

impl User {
    fn record(mut self) -> HistoryRecord {
        // The retired ones in the order of their end, then the newest.
        self.generations.sort_by_key(|one| {
            let born = one.rotated_at.unwrap_or(one.first_seen);
            (one.retired_at.is_none(), one.retired_at, born)
        });
        let (salt, iterations) = (self.salt.as_slice().into(), self.iterations);
        let salt_id = SaltId::of(&SaltParameters { salt, iterations });
        let mut record = HistoryRecord::default();
        for (one, order) in self.generations.into_iter().zip(1..) {
            record.insert(StoredGeneration {
                order,
                returns: 0,
                rotated_at: one.rotated_at,
                salt_id,
                stored_key: one.stored_key,
                server_key: one.server_key,
                first_seen: one.first_seen,
                retired_at: one.retired_at,
                unknown: <_>::default(),
            });
        }
        record
    }
}
