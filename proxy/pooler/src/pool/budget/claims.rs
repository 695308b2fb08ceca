//! Who waits for a connection to a server.

use std::time::{Duration, Instant};

use crate::ids::WorkerId;

/// How long a claim lasts that is not repeated: a worker repeats it with each of its ticks, every
/// 2 ms, while a client of the pool waits. Long enough for a worker that is late.
const LIFETIME: Duration = Duration::from_millis(100);

/// How old a claim is when it gets a connection of any pool that has more, whichever releases one
/// first, and one that has only just become idle.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// One worker's part of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimant {
    /// The pool's address, which is the same on all workers.
    pub(super) pool: usize,
    pub(super) worker: WorkerId,
}

/// Which limit stands in a claim's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Server,
    Role(Box<str>),
    Database(Box<str>),
}

/// A wish for a connection that could not be granted.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) claimant: Claimant,
    pub(super) scope: Scope,
    pub(super) since: Instant,
    seen_at: Instant,
}

/// The claims to one server, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Claims(Vec<Claim>);

impl Claims {
    /// Drops the claims that were not repeated.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|claim| now.saturating_duration_since(claim.seen_at) < LIFETIME);
    }

    /// How many claims of this scope come before that of `claimant`, which is made now if there is
    /// none: those of pools that have fewer connections, by `open_of`, and of as many the older.
    pub(super) fn ahead(
        &self,
        claimant: Claimant,
        scope: &Scope,
        open_of: impl Fn(usize) -> u32,
    ) -> u32 {
        let mine = self.0.iter().position(|claim| claim.claimant == claimant);
        let mine = (open_of(claimant.pool), mine.unwrap_or(self.0.len()));
        let claims = self.0.iter().enumerate();
        let others = claims.filter(|(_, it)| it.claimant != claimant && it.scope == *scope);
        others.filter(|(at, it)| (open_of(it.claimant.pool), *at) < mine).count() as u32
    }

    /// Notes a claim, or that it is repeated.
    pub(super) fn note(&mut self, claimant: Claimant, scope: Scope, now: Instant) {
        match self.0.iter_mut().find(|claim| claim.claimant == claimant) {
            Some(claim) => {
                claim.scope = scope;
                claim.seen_at = now;
            }
            None => self.0.push(Claim { claimant, scope, since: now, seen_at: now }),
        }
    }

    /// The claim is granted.
    pub(super) fn remove(&mut self, claimant: Claimant) {
        self.0.retain(|claim| claim.claimant != claimant);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> u32 {
        self.0.len() as u32
    }
}
