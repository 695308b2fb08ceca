//! Counters and gauges of the process: what happens before a client has a worker, or beside all
//! workers.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::descriptors::ClientLimits;
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
            /// All values, in the order of the metrics page.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The word for this value in metrics and on the console.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }
    };
}

labels! {
    /// The result of a client's login, the label `result` of `pgimbal_logins_total`.
    pub enum LoginResult {
        /// The client has a session.
        "succeeded" Succeeded,
        /// The user is unknown, the password or proof is wrong, or the role has expired.
        "authentication_failed" AuthenticationFailed,
        /// A rule forbids the login: TLS is required, replication is asked for, or the user may not
        /// use the console.
        "not_permitted" NotPermitted,
        /// The source of the user's password gives none, so that the login cannot be checked.
        "unavailable" Unavailable,
        /// The user is known, and the database is not.
        "unknown_database" UnknownDatabase,
        /// `client_login_timeout` or `client_first_packet_timeout` passed.
        "timeout" Timeout,
        /// There were too many connections that had not logged in yet (in all, or from one
        /// address), and this one was the oldest: it was closed to make room.
        "crowded_out" Evicted,
        /// The client broke the protocol.
        "protocol_error" ProtocolError,
        /// The TLS handshake failed, or direct TLS came without ALPN.
        "tls_failed" TlsFailed,
        /// The client closed the connection first, or its socket failed.
        "client_gone" ClientGone,
        /// No server connection could be opened for the first login to a database.
        "no_server" NoServer,
    }
}

labels! {
    /// The reason for which a client is refused whatever its password, the label `reason` of
    /// `pgimbal_client_connections_refused_total`.
    pub enum Refusal {
        /// `max_client_conn` is reached.
        "max_client_conn" MaxClientConn,
        /// The process is draining.
        "draining" Draining,
    }
}

labels! {
    /// The phase of the process between its start and its end.
    pub enum Phase {
        /// The listeners are not bound yet.
        "starting" Starting,
        /// The process accepts clients.
        "serving" Serving,
        /// The process lets its clients go, and accepts none after `drain_delay`.
        "draining" Draining,
    }
}

impl LoginResult {
    /// The result that a login with this error counts as.
    #[must_use]
    pub const fn of(error: &LoginError) -> Self {
        match error {
            LoginError::Closed | LoginError::ClosedAtOnce | LoginError::Io(_) => Self::ClientGone,
            LoginError::StartupTimeout => Self::Timeout,
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
            LoginError::Authentication(_) => Self::AuthenticationFailed,
            LoginError::TlsRequired | LoginError::Replication | LoginError::ConsoleDenied(_) => {
                Self::NotPermitted
            }
            LoginError::UnknownDatabase(_) => Self::UnknownDatabase,
            LoginError::Unavailable { .. } | LoginError::SourceLimited(_) => Self::Unavailable,
        }
    }
}

/// The counters of the process, shared by all tasks that accept clients and log them in. Each is an
/// atomic of its own.
#[derive(Debug)]
pub struct ProcessStats {
    started_at: SystemTime,
    phase: AtomicU8,
    accept_paused: AtomicBool,
    clients: AtomicU64,
    consoles: AtomicU64,
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
    certificates: Mutex<Arc<[CertificateEnd]>>,
}

impl ProcessStats {
    /// Makes counters at zero, in [`Phase::Starting`]. `max_client_conn` is the configured limit of
    /// clients.
    #[must_use]
    pub fn new(started_at: SystemTime, max_client_conn: u32) -> Self {
        Self {
            started_at,
            phase: AtomicU8::new(Phase::Starting as u8),
            accept_paused: AtomicBool::new(false),
            clients: AtomicU64::new(0),
            consoles: AtomicU64::new(0),
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
            certificates: Mutex::default(),
        }
    }

    /// Sets the phase of the process, for `/readyz` and the metrics; nothing else follows from it.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Sets the limit of clients: `max_client_conn`, or fewer when there are not enough file
    /// descriptors.
    pub fn set_limit(&self, limits: &ClientLimits) {
        self.max_client_conn.store(limits.max_client_conn, Ordering::Relaxed);
        self.short_of_files.store(limits.is_short, Ordering::Relaxed);
    }

    /// Whether the limit of clients is below the configured one because file descriptors are short.
    #[must_use]
    pub fn is_short_of_files(&self) -> bool {
        self.short_of_files.load(Ordering::Relaxed)
    }

    /// The limit of clients that is in force.
    #[must_use]
    pub fn max_client_conn(&self) -> u32 {
        self.max_client_conn.load(Ordering::Relaxed)
    }

    /// Counts an accepted client connection, which counts as connected until the guard is dropped.
    #[must_use]
    pub fn client_accepted(self: &Arc<Self>) -> Connected {
        add(&self.accepted);
        add(&self.clients);
        Connected { stats: Arc::clone(self), admitted: false, is_console: false }
    }

    /// Counts a client that was refused before its login was checked.
    pub fn client_refused(&self, why: Refusal) {
        add(&self.refused[why as usize]);
    }

    /// Counts a login that ended with this result, in `pgimbal_logins_total`. A connection that
    /// ended without a byte, as a health check's does, is not to be counted.
    pub fn login(&self, result: LoginResult) {
        add(&self.logins[result as usize]);
    }

    /// Counts a CancelRequest of a client, whether or not its key is right.
    pub fn cancel_requested(&self) {
        add(&self.cancel_requests);
    }

    /// Notes whether accepting is paused because the process has no file descriptors left; each
    /// beginning of a pause is counted.
    pub fn set_accept_paused(&self, paused: bool) {
        if !self.accept_paused.swap(paused, Ordering::Relaxed) && paused {
            add(&self.accept_pauses);
        }
    }

    /// Counts a reload: `applied`, or refused as a whole.
    pub fn reloaded(&self, applied: bool) {
        add(if applied { &self.reloads } else { &self.reloads_refused });
    }

    /// Notes when each of pgimbal's own certificates ends, for the metrics; it replaces what was
    /// noted before.
    pub fn set_certificates(&self, certificates: Vec<CertificateEnd>) {
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = certificates.into();
    }

    /// The phase of the process.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        Phase::ALL.get(phase).copied().unwrap_or(Phase::Starting)
    }

    /// Number of client connections, those that are logging in included.
    #[must_use]
    pub fn clients(&self) -> u64 {
        read(&self.clients)
    }

    /// Number of client connections for which a drain waits: all but those of the console.
    #[must_use]
    pub fn clients_to_drain(&self) -> u64 {
        self.clients().saturating_sub(read(&self.consoles))
    }

    /// Reads all counters and gauges. They are read one by one, so that a client may be counted in
    /// one and not yet in another.
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
            certificates: Arc::clone(
                &self.certificates.lock().unwrap_or_else(PoisonError::into_inner),
            ),
        }
    }
}

/// A client connection that counts as connected until this guard is dropped.
#[derive(Debug)]
pub struct Connected {
    stats: Arc<ProcessStats>,
    admitted: bool,
    is_console: bool,
}

impl Connected {
    /// Notes that the client has logged in, and returns the number of clients that have, this one
    /// included: the number to compare with `max_client_conn`. A second call counts nothing more.
    /// The client stops counting when the guard is dropped.
    pub fn admit(&mut self) -> u64 {
        if !std::mem::replace(&mut self.admitted, true) {
            return self.stats.admitted.fetch_add(1, Ordering::Relaxed) + 1;
        }
        read(&self.stats.admitted)
    }

    /// Notes that the client is connected to the console. A second call counts nothing more.
    pub fn note_console(&mut self) {
        if !std::mem::replace(&mut self.is_console, true) {
            add(&self.stats.consoles);
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if self.is_console {
            self.stats.consoles.fetch_sub(1, Ordering::Relaxed);
        }
        self.stats.clients.fetch_sub(1, Ordering::Relaxed);
        if self.admitted {
            self.stats.admitted.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The counters and gauges of the process at one time. Counters begin at the start of the process.
#[derive(Clone, Debug)]
pub struct ProcessSnapshot {
    /// Time at which the process started.
    pub started_at: SystemTime,
    /// The gauges: values that may fall as well as rise.
    pub now: Gauges,
    /// Client connections accepted, refused ones included.
    pub accepted: u64,
    /// Clients refused whatever their password: every reason with its count, zero included.
    pub refused: Vec<(Refusal, u64)>,
    /// Logins that ended: every result with its count, zero included.
    pub logins: Vec<(LoginResult, u64)>,
    /// CancelRequests of clients.
    pub cancel_requests: u64,
    /// Pauses of accepting for want of file descriptors.
    pub accept_pauses: u64,
    /// Reloads that were applied.
    pub reloads: u64,
    /// Reloads that were refused because of their configuration.
    pub reloads_refused: u64,
    /// The ends of pgimbal's own certificates; empty when there is none.
    pub certificates: Arc<[CertificateEnd]>,
}

/// The end of the validity of one of pgimbal's own certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateEnd {
    /// The option that names its file, such as `client_tls.cert_file`.
    pub option: String,
    /// The last moment at which it is valid, in seconds of Unix time.
    pub not_after: i64,
}

/// The values of the process that may fall as well as rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauges {
    /// The phase of the process.
    pub phase: Phase,
    /// Whether accepting is paused for want of file descriptors.
    pub accept_paused: bool,
    /// Client connections, those that are logging in included.
    pub clients: u64,
    /// Client connections that have not logged in yet.
    pub logging_in: u64,
    /// The limit of clients that is in force.
    pub max_client_conn: u32,
}

impl Gauges {
    /// Why `/readyz` answers 503; `None` while the process accepts clients. A database that is down
    /// is no reason: its clients wait or get an error, and those of other databases are served.
    #[must_use]
    pub const fn reason_not_ready(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Starting => Some("starting, the listeners are not bound yet"),
            Phase::Draining => Some("draining"),
            Phase::Serving if self.accept_paused => {
                Some("out of file descriptors, accepting clients is paused")
            }
            Phase::Serving => None,
        }
    }
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
