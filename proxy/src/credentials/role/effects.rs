//! What must follow from a change of a role.

use std::time::Instant;

use pgimbal_pooler::server::credential::CredentialEvent;
use tokio::task::AbortHandle;

use crate::credentials::fetch::VerifierRequest;

/// What the credentials' task must do because a role has changed. The default is nothing.
#[derive(Debug, Default)]
#[must_use]
pub(in crate::credentials) struct Effects {
    /// The change to tell all workers; `None` when it does not concern server connections.
    pub(in crate::credentials) event: Option<CredentialEvent>,
    /// Verifiers to derive. The role waits for [`super::Role::handle_verifier`] of each.
    pub(in crate::credentials) verifiers: Vec<VerifierRequest>,
    /// Whether [`super::Role::account`] has changed and must be published to logins.
    pub(in crate::credentials) is_account_changed: bool,
    /// Whether [`super::Role::older`] has changed and must be published to logins.
    pub(in crate::credentials) is_older_changed: bool,
    /// Whether [`super::Role::history`] or [`super::Role::passwords`] has changed and must be written.
    pub(in crate::credentials) is_state_changed: bool,
    /// The time at which the fetch whose result has come into use now was sent: a sample of how
    /// long that takes. `None` when none has.
    pub(in crate::credentials) fetch_sent: Option<Instant>,
}

/// The task that listens to a source's changes; it is aborted when this is dropped.
#[derive(Debug)]
pub(in crate::credentials) struct SourceListener(pub(super) AbortHandle);

impl SourceListener {
    /// Takes over the handle of a listening task.
    pub(in crate::credentials) const fn new(task: AbortHandle) -> Self {
        Self(task)
    }
}

impl Drop for SourceListener {
    fn drop(&mut self) {
        self.0.abort();
    }
}
