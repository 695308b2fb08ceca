//! The work that runs beside the credentials' task, a few items at a time: fetches from sources,
//! and the derivation of verifiers for the passwords that they return.

use std::sync::Arc;
use std::time::Instant;

use pgimbal_auth::account::{LoginKeys, UnusableSecret};
use pgimbal_auth::source::Source;
use pgimbal_auth::verifier::SaltParameters;
use pgimbal_auth::{SourceError, SourcePassword};
use pgimbal_config::Secret;
use tokio::task::{JoinError, JoinSet};

use super::status::FetchCounts;
use crate::derivation::Derivations;

/// Limit of fetches that run at a time: enough for a thousand roles in a second or two, without a
/// storm on Vault.
const AT_ONCE: usize = 16;

/// The outcome of a fetch that has ended.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The name of the role whose password was fetched.
    pub(super) role: Arc<str>,
    /// The number that [`Fetches::start`] returned. A role ignores the fetch when it waits for
    /// another.
    pub(super) serial: u64,
    /// The time at which the fetch was started.
    pub(super) sent: Instant,
    /// The kind of the source (`vault`, `file` or `env`), for metrics.
    pub(super) kind: &'static str,
    /// The password, or the reason for which there is none.
    pub(super) result: Result<SourcePassword, SourceError>,
}

/// The fetches that run, and counts of those that have ended.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    running: JoinSet<Fetched>,
    last_serial: u64,
    counts: FetchCounts,
}

impl Fetches {
    /// Whether fewer than 16 fetches run, so that the caller may start one more;
    /// [`Self::start`] does not check it.
    pub(super) fn has_room(&self) -> bool {
        self.running.len() < AT_ONCE
    }

    /// Starts a fetch for `role`, and returns its serial number, which tells it from other fetches
    /// of the same role; the first is 1.
    pub(super) fn start(&mut self, role: Arc<str>, source: Arc<dyn Source>, sent: Instant) -> u64 {
        self.last_serial += 1;
        let serial = self.last_serial;
        self.running.spawn(async move {
            let result = source.fetch().await;
            Fetched { role, serial, sent, kind: source.kind(), result }
        });
        serial
    }

    /// Waits for the next fetch that ends, in the order of their ends, and counts it. `None` while
    /// none runs. The error is a panic of the source, which is not counted. Can be cancelled
    /// without loss.
    pub(super) async fn next(&mut self) -> Option<Result<Fetched, JoinError>> {
        let done = self.running.join_next().await?;
        if let Ok(fetched) = &done {
            let label = result_label(&fetched.result);
            *self.counts.results.entry((fetched.kind, label)).or_default() += 1;
            self.counts.time += fetched.sent.elapsed();
            self.counts.count += 1;
        }
        Some(done)
    }

    /// Counts of the fetches that have ended since the start, for metrics.
    pub(super) const fn counts(&self) -> &FetchCounts {
        &self.counts
    }
}

/// The result of a fetch as a metric's label: `ok`, or [`SourceError::result_label`].
pub(super) fn result_label(result: &Result<SourcePassword, SourceError>) -> &'static str {
    result.as_ref().map_or_else(SourceError::result_label, |_| "ok")
}

/// A password whose verifier must be derived.
#[derive(Debug)]
pub(super) struct VerifierRequest {
    /// The name of the role.
    pub(super) role: Arc<str>,
    /// The number of the password's generation.
    pub(super) generation: u32,
    /// The password as the source returned it.
    pub(super) password: Secret,
    /// The salt and iterations of the role's other verifiers.
    pub(super) salt_parameters: SaltParameters,
    /// The time at which the fetch that returned the password was sent.
    pub(super) since: Instant,
}

/// A verifier that was derived, or the reason for which there is none.
#[derive(Debug)]
pub(super) struct Verifier {
    /// The name of the role.
    pub(super) role: Arc<str>,
    /// The number of the password's generation.
    pub(super) generation: u32,
    /// The keys by which clients' logins are checked; an error when the password is a malformed
    /// verifier.
    pub(super) keys: Result<LoginKeys, UnusableSecret>,
    /// The time of the request ([`VerifierRequest::since`]).
    pub(super) since: Instant,
}

/// The derivations of verifiers that run.
#[derive(Debug, Default)]
pub(super) struct Verifiers {
    running: JoinSet<Verifier>,
    /// A limiter for these derivations only: logins of clients and at servers do not wait for them.
    derivations: Arc<Derivations>,
}

impl Verifiers {
    /// Starts the derivation of a verifier, which waits for its turn. It takes milliseconds.
    pub(super) fn start(&mut self, request: VerifierRequest) {
        let derivations = Arc::clone(&self.derivations);
        self.running.spawn(async move {
            let VerifierRequest { role, generation, password, salt_parameters, since } = request;
            let rounds = salt_parameters.iterations;
            let work = move || {
                let keys = LoginKeys::derive(&role, &password, &salt_parameters);
                Verifier { role, generation, keys, since }
            };
            derivations.run(rounds, work).await
        });
    }

    /// Waits for the next verifier; `None` while none is being derived. The error is a panic. Can
    /// be cancelled without loss.
    pub(super) async fn next(&mut self) -> Option<Result<Verifier, JoinError>> {
        self.running.join_next().await
    }
}
