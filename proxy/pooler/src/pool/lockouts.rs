//! Roles whose passwords no server takes for now.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use pgimbal_config::{ResolvedPool, ServerPassword};

use super::Pool;

/// Roles with which no server connection can be opened, each with the body of the ErrorResponse
/// that says so.
#[derive(Debug, Default)]
pub(crate) struct Lockouts {
    by_role: HashMap<Box<str>, Arc<[u8]>, RandomState>,
}

impl Lockouts {
    /// No server connection can be opened with `role` from now on; `error` tells why.
    pub(crate) fn add(&mut self, role: &str, error: Arc<[u8]>) {
        self.by_role.insert(role.into(), error);
    }

    /// Server connections can be opened with `role` again.
    pub(crate) fn remove(&mut self, role: &str) {
        self.by_role.remove(role);
    }

    /// The error that tells why no server connection can be opened with the pool's role, while
    /// that is so. What is open is not given up for what cannot be opened.
    pub(crate) fn of(&self, pool: &Pool) -> Option<&Arc<[u8]>> {
        if self.by_role.is_empty() {
            return None;
        }
        self.by_role.get(role_of(pool.config())?)
    }
}

/// The user whose source says the pool's password, if it rotates.
pub(crate) fn role_of(pool: &ResolvedPool) -> Option<&str> {
    match &pool.login {
        ServerPassword::Role(role) => Some(role),
        ServerPassword::Fixed(_) => None,
    }
}
