//! What a rotating password means to server connections: those that an older one opened are
//! replaced one by one, and while none works those that are open are kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::pool::Pool;
use crate::pool::dial::{self, spread_over};
use crate::pool::lockouts::role_of;
use crate::pool::pools::Pools;
use crate::server::servers::Servers;

/// Over which time the connections of an older password are replaced: a pool of a hundred is then
/// three logins a second.
const REPLACED_WITHIN: Duration = Duration::from_secs(30);

/// A change of a role's password (or other credential) for logins to servers. The driver tells it
/// to each worker, with the role's name (`Pooler::handle_credential_event`); it concerns all pools
/// that log in as that role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialEvent {
    /// There is a newer password. The role's server connections are replaced within 30 s, each once
    /// it is idle, and failed logins are tried again at once.
    Rotated,
    /// There is a password that may work where none does: failed logins are tried again at once.
    Candidate,
    /// No password works at some node, or none is known. Holds the body of the ErrorResponse for
    /// whoever waits too long. Open connections are kept meanwhile, also those that have idled for
    /// too long or are due to be replaced.
    LockedOut(Arc<[u8]>),
    /// A password works again: the end of [`CredentialEvent::LockedOut`].
    LetIn,
}

/// Something has changed about a role's password.
pub(crate) fn credential_changed(
    core: &mut Core,
    role: &str,
    event: CredentialEvent,
    now: Instant,
) {
    match event {
        CredentialEvent::Rotated => {
            replace_servers_of(&mut core.servers, &core.pools, role, now);
            forget_failures_of(core, role, now);
        }
        CredentialEvent::Candidate => forget_failures_of(core, role, now),
        CredentialEvent::LockedOut(error) => {
            core.lockouts.add(role, error);
        }
        CredentialEvent::LetIn => {
            core.lockouts.remove(role);
        }
    }
}

/// They keep working, so they end when they are idle, each at its own moment.
fn replace_servers_of(servers: &mut Servers, pools: &Pools, role: &str, now: Instant) {
    let is_meant = |pool| role_of(pools[pool].config()) == Some(role);
    let meant = servers.iter_mut().filter(|server| is_meant(server.pool));
    for server in meant.filter(|server| !server.is_closing()) {
        let end = now + spread_over(REPLACED_WITHIN, server.id.serial);
        server.retire_at = server.retire_at.min(end);
    }
}

/// What was refused before may be accepted now: nobody waits for the end of a pause.
fn forget_failures_of(core: &mut Core, role: &str, now: Instant) {
    let pools = core.pools.iter().filter(|pool| role_of(pool.config()) == Some(role));
    for pool in pools.map(Pool::id).collect::<Vec<_>>() {
        core.pools[pool].shared().forget_failure();
        dial::dial_if_wanted(core, pool, now);
    }
}
