//! What a rotating password means to server connections: those that an older one opened are
//! replaced one by one, and while none works those that are open are kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::{ResolvedPool, ServerPassword};

use crate::pool::Pool;
use crate::pool::checkout::spread_over;
use crate::pooler::Pooler;
use crate::server::ServerState;

/// Over which time the connections of an older password are replaced: a pool of a hundred is then
/// three logins a second.
const REPLACED_WITHIN: Duration = Duration::from_secs(30);

/// What is new of a role's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialEvent {
    /// There is a newer one.
    Rotated,
    /// There is one that may work where none does.
    Candidate,
    /// None works at some node, or none is known. The body of the ErrorResponse that tells so
    /// whoever waits too long.
    LockedOut(Arc<[u8]>),
    /// One works again.
    LetIn,
}

impl Pooler {
    /// Something has changed about a role's password.
    pub fn credential_changed(&mut self, role: &str, news: CredentialEvent, now: Instant) {
        match news {
            CredentialEvent::Rotated => {
                self.replace_servers_of(role, now);
                self.forget_failures_of(role, now);
            }
            CredentialEvent::Candidate => self.forget_failures_of(role, now),
            CredentialEvent::LockedOut(error) => {
                self.lockouts.insert(role.into(), error);
            }
            CredentialEvent::LetIn => {
                self.lockouts.remove(role);
            }
        }
    }

    /// They keep working, so they end when they are idle, each at its own moment.
    fn replace_servers_of(&mut self, role: &str, now: Instant) {
        for (_, server) in &mut self.servers {
            if role_of(&self.pools[server.pool.index()].config) == Some(role)
                && server.state != ServerState::Closing
            {
                let end = now + spread_over(REPLACED_WITHIN, server.id.serial);
                server.retire_at = server.retire_at.min(end);
            }
        }
    }

    /// What was refused before may be accepted now: nobody waits for the end of a pause.
    fn forget_failures_of(&mut self, role: &str, now: Instant) {
        let pools = self.pools.iter().filter(|pool| role_of(&pool.config) == Some(role));
        let pools: Vec<_> = pools.map(|pool| pool.id).collect();
        for pool in pools {
            self.pools[pool.index()].shared.forget_failure();
            self.dial_if_wanted(pool, now);
        }
    }

    /// The error that tells why no server connection can be opened with the pool's role, while
    /// that is so. What is open is not given up for what cannot be opened.
    pub(crate) fn lockout(&self, pool: &Pool) -> Option<&Arc<[u8]>> {
        if self.lockouts.is_empty() {
            return None;
        }
        self.lockouts.get(role_of(&pool.config)?)
    }
}

/// The user whose source says the pool's password, if it rotates.
fn role_of(pool: &ResolvedPool) -> Option<&str> {
    match &pool.login {
        ServerPassword::Role(role) => Some(role),
        ServerPassword::Fixed(_) => None,
    }
}
