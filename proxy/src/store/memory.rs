//! The store of one process, without another one: its memory.

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use super::document::{Stored, Version, VersionOf, names_aside};
use super::error::StoreError;

/// Its place in words.
pub(super) const LOCATION: &str = "memory";

/// A document in memory, lost with the process.
#[derive(Default)]
pub(super) struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: Zeroizing<Vec<u8>>,
    /// How often it was replaced.
    count: u64,
    aside: Vec<Zeroizing<Vec<u8>>>,
}

impl MemoryStore {
    /// The document as it is.
    pub(super) fn read(&self) -> Stored {
        let state = self.lock();
        Stored::new(state.bytes.clone(), VersionOf::Count(state.count))
    }

    /// Replaces the document if it is at this version.
    pub(super) fn replace(&self, bytes: &[u8], at: &Version) -> Result<Version, StoreError> {
        let mut state = self.lock();
        if at.0 != VersionOf::Count(state.count) {
            return Err(StoreError::Conflict { location: LOCATION.into() });
        }
        state.bytes = Zeroizing::new(bytes.to_vec());
        state.count += 1;
        Ok(Version(VersionOf::Count(state.count)))
    }

    /// Keeps a document aside, and says under which name.
    pub(super) fn set_aside(&self, bytes: &[u8]) -> Result<String, StoreError> {
        let mut state = self.lock();
        for (index, name) in names_aside().enumerate() {
            match state.aside.get(index) {
                Some(kept) if kept[..] == *bytes => return Ok(name),
                Some(_) => {}
                None => {
                    state.aside.push(Zeroizing::new(bytes.to_vec()));
                    return Ok(name);
                }
            }
        }
        Err(StoreError::all_taken(LOCATION))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
