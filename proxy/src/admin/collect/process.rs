//! What is counted before a client has a worker, or beside all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::SystemTime;

use crate::descriptors::Fitting;
use crate::login::LoginError;

/// Declares a closed set of label values.
macro_rules! labels {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$doc:meta])+ $word:literal $variant:ident, )+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[$doc])+ $variant, )+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The word in metrics and on the console.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }
    };
}

labels! {
    /// How a client's login ended.
    pub enum LoginResult {
        /// It is a session.
        "succeeded" Succeeded,
        /// Unknown user, wrong password or proof, expired role.
        "authentication_failed" AuthenticationFailed,
        /// A rule forbids it: TLS is required, the console is not for this user.
        "not_permitted" NotPermitted,
        /// The source of the user's password does not say it.
        "unavailable" Unavailable,
        /// The user is known, the database is not.
        "unknown_database" UnknownDatabase,
        /// `client_login_timeout` or `client_first_packet_timeout` passed.
        "timeout" Timeout,
        /// Too many were logging in, and this one was the oldest.
        "crowded_out" CrowdedOut,
        /// The client broke the protocol.
        "protocol_error" ProtocolError,
        /// TLS could not be agreed on.
        "tls_failed" TlsFailed,
        /// The client closed the connection first, or its socket failed.
        "client_gone" ClientGone,
        /// No server connection could be opened for the first login to a database.
        "no_server" NoServer,
    }
}

labels! {
    /// Why a client was turned away before its login was checked.
    pub enum Refusal {
        /// `max_client_conn` was reached.
        "max_client_conn" MaxClientConn,
        /// pgimbal is draining.
        "draining" Draining,
    }
}

labels! {
    /// Where the process stands between its start and its end.
    pub enum Phase {
        /// Its listeners are not bound yet.
        "starting" Starting,
        /// It accepts clients.
        "serving" Serving,
        /// It lets transactions come to their end and accepts nobody.
        "draining" Draining,
    }
}

impl LoginResult {
    /// What a login that failed with `error` counts as.
    #[must_use]
    pub const fn of(error: &LoginError) -> Self {
        match error {
            LoginError::Gone | LoginError::NothingSaid | LoginError::Io(_) => Self::ClientGone,
            LoginError::Silent => Self::Timeout,
            LoginError::Tls(_) | LoginError::NoAlpn => Self::TlsFailed,
            LoginError::UnencryptedData(_)
            | LoginError::Startup(_)
            | LoginError::ProxyHeader(_)
            | LoginError::Length(_)
            | LoginError::UnexpectedMessage(_)
            | LoginError::MalformedAnswer
            | LoginError::NoUser
            | LoginError::NameTooLong(_)
            | LoginError::Options(_) => Self::ProtocolError,
            LoginError::Proof(_) => Self::AuthenticationFailed,
            LoginError::TlsRequired | LoginError::Replication | LoginError::ConsoleDenied(_) => {
                Self::NotPermitted
            }
            LoginError::UnknownDatabase(_) => Self::UnknownDatabase,
            LoginError::Unavailable { .. } | LoginError::Unasked(_) => Self::Unavailable,
        }
    }
}

/// Counters of the whole process, shared by the tasks that accept and log in.
#[derive(Debug)]
pub struct ProcessStats {
    started_at: SystemTime,
    phase: AtomicU8,
    accept_paused: AtomicBool,
    clients: AtomicU64,
    admitted: AtomicU64,
    max_client_conn: AtomicU32,
    short_of_files: AtomicBool,
    accepted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    logins: [AtomicU64; LoginResult::ALL.len()],
    cancel_requests: AtomicU64,
    accept_pauses: AtomicU64,
    reloads: AtomicU64,
    reloads_refused: AtomicU64,
    panics: AtomicU64,
}

impl ProcessStats {
    /// Counters at zero, in [`Phase::Starting`]. `max_client_conn` is the configured limit.
    #[must_use]
    pub fn new(started_at: SystemTime, max_client_conn: u32) -> Self {
        Self {
            started_at,
            phase: AtomicU8::new(Phase::Starting as u8),
            accept_paused: AtomicBool::new(false),
            clients: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            max_client_conn: AtomicU32::new(max_client_conn),
            short_of_files: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            logins: std::array::from_fn(|_| AtomicU64::new(0)),
            cancel_requests: AtomicU64::new(0),
            accept_pauses: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    /// The process has come to `phase`.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// How many clients there may be: `max_client_conn`, or fewer when open files do not suffice.
    pub fn set_limit(&self, fitting: &Fitting) {
        self.max_client_conn.store(fitting.max_client_conn, Ordering::Relaxed);
        self.short_of_files.store(fitting.is_short, Ordering::Relaxed);
    }

    /// Whether the limit is lower than configured, for want of open files.
    #[must_use]
    pub fn is_short_of_files(&self) -> bool {
        self.short_of_files.load(Ordering::Relaxed)
    }

    /// The limit of clients.
    #[must_use]
    pub fn max_client_conn(&self) -> u32 {
        self.max_client_conn.load(Ordering::Relaxed)
    }

    /// A client connection was accepted; it counts as connected until the guard is dropped.
    #[must_use]
    pub fn client_accepted(self: &Arc<Self>) -> Connected {
        add(&self.accepted);
        add(&self.clients);
        Connected { stats: Arc::clone(self), admitted: false }
    }

    /// A client was turned away before its login was checked.
    pub fn client_refused(&self, why: Refusal) {
        add(&self.refused[why as usize]);
    }

    /// A login ended.
    pub fn login(&self, result: LoginResult) {
        add(&self.logins[result as usize]);
    }

    /// A cancel request came from a client.
    pub fn cancel_requested(&self) {
        add(&self.cancel_requests);
    }

    /// The process is out of file descriptors and stops accepting, or accepts again.
    pub fn set_accept_paused(&self, paused: bool) {
        if !self.accept_paused.swap(paused, Ordering::Relaxed) && paused {
            add(&self.accept_pauses);
        }
    }

    /// A reload was applied, or refused whole.
    pub fn reloaded(&self, applied: bool) {
        add(if applied { &self.reloads } else { &self.reloads_refused });
    }

    /// A task outside the workers ended in a panic.
    pub fn panicked(&self) {
        add(&self.panics);
    }

    /// Where the process stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        Phase::ALL.get(phase).copied().unwrap_or(Phase::Starting)
    }

    /// Client connections now, those that log in included.
    #[must_use]
    pub fn clients(&self) -> u64 {
        read(&self.clients)
    }

    /// All of it as it stands.
    #[must_use]
    pub fn snapshot(&self) -> ProcessSnapshot {
        ProcessSnapshot {
            started_at: self.started_at,
            now: Gauges {
                phase: self.phase(),
                accept_paused: self.accept_paused.load(Ordering::Relaxed),
                clients: self.clients(),
                logging_in: self.clients().saturating_sub(read(&self.admitted)),
                max_client_conn: self.max_client_conn.load(Ordering::Relaxed),
            },
            accepted: read(&self.accepted),
            refused: counts(Refusal::ALL, &self.refused),
            logins: counts(LoginResult::ALL, &self.logins),
            cancel_requests: read(&self.cancel_requests),
            accept_pauses: read(&self.accept_pauses),
            reloads: read(&self.reloads),
            reloads_refused: read(&self.reloads_refused),
            panics: read(&self.panics),
        }
    }
}

/// A client connection that counts as connected until this is dropped, whatever path it ends on.
#[derive(Debug)]
pub struct Connected {
    stats: Arc<ProcessStats>,
    admitted: bool,
}

impl Connected {
    /// The client has logged in. Returns how many clients have, this one included; they count
    /// towards `max_client_conn`.
    pub fn admit(&mut self) -> u64 {
        if !std::mem::replace(&mut self.admitted, true) {
            return self.stats.admitted.fetch_add(1, Ordering::Relaxed) + 1;
        }
        read(&self.stats.admitted)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.stats.clients.fetch_sub(1, Ordering::Relaxed);
        if self.admitted {
            self.stats.admitted.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What the process itself counted.
#[derive(Clone, Debug)]
pub struct ProcessSnapshot {
    /// When it started.
    pub started_at: SystemTime,
    /// How it stands now.
    pub now: Gauges,
    /// Client connections accepted.
    pub accepted: u64,
    /// Clients turned away before login, by reason.
    pub refused: Vec<(Refusal, u64)>,
    /// Logins by result.
    pub logins: Vec<(LoginResult, u64)>,
    /// Cancel requests from clients.
    pub cancel_requests: u64,
    /// How often accepting had to stop for want of file descriptors.
    pub accept_pauses: u64,
    /// Reloads applied.
    pub reloads: u64,
    /// Reloads refused for their configuration.
    pub reloads_refused: u64,
    /// Tasks outside the workers that ended in a panic.
    pub panics: u64,
}

/// What may go up and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauges {
    /// Where the process stands.
    pub phase: Phase,
    /// Whether accepting has stopped for want of file descriptors.
    pub accept_paused: bool,
    /// Client connections.
    pub clients: u64,
    /// Those of them that have not logged in.
    pub logging_in: u64,
    /// How many there may be.
    pub max_client_conn: u32,
}

// Each counter stands alone: no other memory is published through it.
fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn counts<L: Copy>(labels: &[L], counters: &[AtomicU64]) -> Vec<(L, u64)> {
    labels.iter().copied().zip(counters.iter().map(read)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviour_42_the_count_of_clients_comes_back_whatever_ends_them() {
        let stats = Arc::new(ProcessStats::new(SystemTime::UNIX_EPOCH, 5));
        let mut one = stats.client_accepted();
        let other = stats.client_accepted();
        assert_eq!((one.admit(), one.admit()), (1, 1), "a client is admitted once");
        assert_eq!(stats.snapshot().now.logging_in, 1);
        drop(one);
        assert_eq!((stats.clients(), stats.snapshot().now.logging_in), (1, 1));
        drop(other);
        let snapshot = stats.snapshot();
        assert_eq!((snapshot.now.clients, snapshot.accepted), (0, 2));
    }

    #[test]
    fn results_are_counted_apart() {
        let stats = ProcessStats::new(SystemTime::UNIX_EPOCH, 5);
        stats.login(LoginResult::NoServer);
        stats.client_refused(Refusal::Draining);
        let snapshot = stats.snapshot();
        assert!(snapshot.logins.contains(&(LoginResult::NoServer, 1)));
        assert!(snapshot.logins.contains(&(LoginResult::Succeeded, 0)));
        assert!(snapshot.refused.contains(&(Refusal::Draining, 1)));
    }

    #[test]
    fn behaviour_44_a_pause_is_counted_once() {
        let stats = ProcessStats::new(SystemTime::UNIX_EPOCH, 5);
        stats.set_accept_paused(true);
        stats.set_accept_paused(true);
        assert!(stats.snapshot().now.accept_paused);
        stats.set_accept_paused(false);
        assert_eq!(stats.snapshot().accept_pauses, 1);
        assert!(!stats.snapshot().now.accept_paused);
    }

    #[test]
    fn phases_read_back() {
        let stats = ProcessStats::new(SystemTime::UNIX_EPOCH, 5);
        for phase in Phase::ALL {
            stats.enter(*phase);
            assert_eq!(stats.phase(), *phase);
        }
    }
}
