//! Work beside the task, a few at a time: fetches from sources, and verifiers of the passwords that
//! they tell.

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

/// Fetches that run at a time: enough for a thousand roles in a second or two, without a storm.
const AT_ONCE: usize = 16;

/// A fetch that has ended.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) role: Arc<str>,
    /// The number that [`Fetches::start`] gave.
    pub(super) serial: u64,
    pub(super) sent: Instant,
    /// The source's kind, for metrics.
    pub(super) kind: &'static str,
    pub(super) result: Result<SourcePassword, SourceError>,
}

/// The fetches that are under way.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    running: JoinSet<Fetched>,
    last_serial: u64,
    counts: FetchCounts,
}

impl Fetches {
    /// Whether one more may be started.
    pub(super) fn has_room(&self) -> bool {
        self.running.len() < AT_ONCE
    }

    /// Starts a fetch. The number tells it from others of the same role.
    pub(super) fn start(&mut self, role: Arc<str>, source: Arc<dyn Source>, sent: Instant) -> u64 {
        self.last_serial += 1;
        let serial = self.last_serial;
        self.running.spawn(async move {
            let result = source.fetch().await;
            Fetched { role, serial, sent, kind: source.kind(), result }
        });
        serial
    }

    /// The next one that ends; `None` while none is under way. Can be cancelled without loss.
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

    /// How those that have ended went.
    pub(super) const fn counts(&self) -> &FetchCounts {
        &self.counts
    }
}

/// The result of a fetch as a metric's label.
pub(super) fn result_label(result: &Result<SourcePassword, SourceError>) -> &'static str {
    result.as_ref().map_or_else(SourceError::result_label, |_| "ok")
}

/// A password whose verifier is wanted.
#[derive(Debug)]
pub(super) struct VerifierRequest {
    pub(super) role: Arc<str>,
    pub(super) generation: u32,
    pub(super) password: Secret,
    pub(super) salt_parameters: SaltParameters,
    /// When the fetch was sent that told the password.
    pub(super) since: Instant,
}

/// A verifier that is made, or why it cannot be.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) role: Arc<str>,
    pub(super) generation: u32,
    pub(super) keys: Result<LoginKeys, UnusableSecret>,
    /// As in the request.
    pub(super) since: Instant,
}

/// The verifiers that are being made.
#[derive(Debug, Default)]
pub(super) struct Verifiers {
    running: JoinSet<Verifier>,
    /// Their own: neither logins of clients nor of servers wait for them.
    derivations: Arc<Derivations>,
}

impl Verifiers {
    /// Makes a verifier when its turn comes.
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

    /// The next one that is made; `None` while none is. Can be cancelled without loss.
    pub(super) async fn next(&mut self) -> Option<Result<Verifier, JoinError>> {
        self.running.join_next().await
    }
}
