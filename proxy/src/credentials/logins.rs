//! Logins that need what only the task knows: those of pgimbal at servers, and those of clients
//! whose password fits none that is known.

use std::sync::Arc;
use std::time::Duration;

use pgimbal_auth::client_login::{Accepted, UnmatchedProof};
use pgimbal_auth::rotation::MISMATCH_PAUSE;
use pgimbal_wire::error::SqlState;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::CredentialManager;
use super::manager::Command;
use super::mismatch::{OlderPassword, Refetched, Unavailable};
use super::server_logins::{LoginOutcome, NoPassword, OfferedPassword};
use super::status::Counted;
use crate::dial::{self, DialError, DialFault, Dialed, Target};
use crate::pending_logins::Subnet;

/// The text that a prober gets when it would have to wait for a password.
const NONE_WORKS: &str = "none that works is known yet";

/// Time limit of deriving the verifier of a new password, beyond the fetch: it costs milliseconds,
/// and on a busy machine waits behind those of other roles.
const DERIVATION: Duration = Duration::from_secs(2);

/// How long clients are held while passwords that should be known are not.
const HOLD: Duration = Duration::from_secs(30);

/// Pause before a server that has refused an older password is shown it again: each attempt is a
/// failed login there.
const OLDER_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// The reason for which a client's proof was not accepted, after its password was fetched again.
/// The login that asked turns it into the error for the client.
/// The login that asked turns it into the error for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// The proof matches no password, or there is no such user.
    Wrong,
    /// The proof matches no known password; the source was not asked again, because the client's
    /// address has caused too many fetches.
    NotFetched,
    /// The password should be known and is not, so that nobody can say whether the proof is right.
    Unavailable(Unavailable),
}

/// Time limits of a server login with a role's password.
#[derive(Clone, Copy)]
struct Patience {
    for_password: Option<Duration>,
    /// Whether the login waits for a permit of its node.
    needs_permit: bool,
}

impl CredentialManager {
    /// Connects to `target` and logs in, with the password that the target has, or with those that
    /// are known of its role, one after the other in the order that fits the node. `node` names the
    /// place (`host:port`). Waits while another login tries a password there, and for at most the
    /// target's connect timeout (1 s if it is shorter) while 16 logins run there. The connection
    /// counts as one of its generation until the second value is dropped; `None` for a fixed
    /// password. The future is large: box it.
    ///
    /// # Errors
    /// [`DialError`]; for a role whose passwords are all refused,
    /// [`DialFault::NoPasswordWorks`] has what the server said, and for a role without a known
    /// password [`DialFault::UnknownPassword`] has the source's error.
    pub async fn dial(
        &self,
        target: &Target,
        node: &str,
    ) -> Result<(Dialed, Option<Counted>), DialError> {
        let patience = Patience { for_password: None, needs_permit: true };
        let (dialed, generation) = self.dial_with(target, node, patience).await?;
        let role = target.role.as_deref();
        let counted =
            role.zip(generation).map(|(role, number)| self.shared.servers().add(role, number));
        Ok((dialed, counted))
    }

    /// Connects and logs in as [`Self::dial`] does, for a prober of a cluster's node: it waits for
    /// each password for at most `limit`, after which the password counts as unknown, and not for
    /// the limit of 16 logins. The connection is not counted.
    ///
    /// # Errors
    /// [`DialError`] as for [`Self::dial`].
    pub(crate) async fn dial_at_once(
        &self,
        target: &Target,
        node: &str,
        limit: Duration,
    ) -> Result<Dialed, DialError> {
        let patience = Patience { for_password: Some(limit), needs_permit: false };
        self.dial_with(target, node, patience).await.map(|(dialed, _)| dialed)
    }

    /// The connection, and the generation of the role's password that the server has accepted.
    async fn dial_with(
        &self,
        target: &Target,
        node: &str,
        patience: Patience,
    ) -> Result<(Dialed, Option<u32>), DialError> {
        let Some(role) = &target.role else {
            return dial::dial(target).await.map(|dialed| (dialed, None));
        };
        loop {
            let offer = self.offer(role, node);
            let offer = match patience.for_password {
                Some(limit) => timeout(limit, offer).await.unwrap_or_else(|_| Err(none_works())),
                None => offer.await,
            };
            let OfferedPassword { generation, password } =
                offer.map_err(|none| explain(target, role, none))?;
            let mut attempt = Attempt::new(self, role, node, generation);
            let with = Target { password: Some(password), ..target.clone() };
            let dialed = match patience.needs_permit {
                true => self.dial_with_permit(&with, node).await,
                false => dial::dial(&with).await,
            };
            match dialed {
                Ok(dialed) => {
                    attempt.end(LoginOutcome::Accepted);
                    return Ok((dialed, Some(generation)));
                }
                Err(error) if is_refusal(&error) => attempt.end(LoginOutcome::Refused(error)),
                Err(error) => return Err(error),
            }
        }
    }

    /// The password to show to a node, as soon as there is one.
    async fn offer(&self, role: &str, node: &str) -> Result<OfferedPassword, NoPassword> {
        let mut request = OfferRequest::new(self, role, node);
        (&mut request.answer).await.unwrap_or_else(|_| Err(shutting_down()))
    }

    /// Dials when the node has a permit for one more login.
    async fn dial_with_permit(&self, target: &Target, node: &str) -> Result<Dialed, DialError> {
        let permits = self.shared.login_permits(node);
        let limit = target.connect_timeout.max(Duration::from_secs(1));
        // The semaphore is never closed.
        let Ok(permit) = timeout(limit, permits.acquire()).await else {
            return Err(DialError::of(target, DialFault::Timeout(limit)));
        };
        let dialed = dial::dial(target).await;
        drop(permit);
        dialed
    }

    /// Checks a client's proof again, after its source was asked once more. `server` is the place
    /// where the user is served, at which a password with an older date is tried. A wrong password
    /// takes the same time for every user, known or not. May be called only when [`Self::rotates`].
    ///
    /// # Errors
    /// [`Unproven`] when the proof still matches no password that rotates.
    pub(crate) async fn check_again(
        &self,
        user: &str,
        address: Subnet,
        unmatched: &UnmatchedProof,
        server: impl FnOnce() -> Option<Target>,
    ) -> Result<Accepted, Unproven> {
        let begun = Instant::now();
        let Refetched { turn, is_over_budget } = match self.refetch(user, address, unmatched).await
        {
            Ok(accepted) => return Ok(accepted),
            Err(refetched) => refetched,
        };
        if let Some(accepted) = self.check(user, unmatched) {
            return Ok(accepted);
        }
        if let Some(accepted) = self.try_older(user, unmatched, server).await {
            return Ok(accepted);
        }
        let unavailable = self.wait_until_available(begun + HOLD).await;
        if let Some(accepted) = self.check(user, unmatched) {
            return Ok(accepted);
        }
        sleep_until(Instant::from_std(turn) + self.shared.refusal_delay()).await;
        match unavailable {
            Some(unavailable) => Err(Unproven::Unavailable(unavailable)),
            None if is_over_budget => Err(Unproven::NotFetched),
            None => Err(Unproven::Wrong),
        }
    }

    /// Waits until the user has been fetched once more and its verifier is made, or will not be.
    /// The proof is checked whenever an account changes meanwhile.
    async fn refetch(
        &self,
        user: &str,
        address: Subnet,
        unmatched: &UnmatchedProof,
    ) -> Result<Accepted, Refetched> {
        let begun = Instant::now();
        let limit = begun + self.shared.fetch_limit() + DERIVATION + MISMATCH_PAUSE;
        let mut published = self.shared.published();
        let (reply, mut answer) = oneshot::channel();
        self.send(Command::Mismatch(user.into(), address, reply));
        let refetched = loop {
            tokio::select! {
                refetched = &mut answer => break refetched.ok(),
                Ok(()) = published.changed() => {
                    if let Some(accepted) = self.check(user, unmatched) {
                        return Ok(accepted);
                    }
                }
                () = sleep_until(limit) => break None,
            }
        };
        let none = Refetched { turn: begun.into_std(), is_over_budget: false };
        Err(refetched.unwrap_or(none))
    }

    /// Checks a proof by what is known now.
    fn check(&self, user: &str, unmatched: &UnmatchedProof) -> Option<Accepted> {
        unmatched.check(self.account(user).as_deref())
    }

    /// Tries the user's older password at the server, if it is the one that the client has proved
    /// to know. Of many clients one does so, and the others wait for it.
    async fn try_older(
        &self,
        user: &str,
        unmatched: &UnmatchedProof,
        server: impl FnOnce() -> Option<Target>,
    ) -> Option<Accepted> {
        let older = self.shared.older(user)?;
        unmatched.check(Some(older.account()))?;
        let mut refused_at = older.refused_at().await;
        if let Some(accepted) = self.check(user, unmatched) {
            return Some(accepted);
        }
        if refused_at.is_some_and(|at| at.elapsed() < OLDER_RETRY_PAUSE) {
            return None;
        }
        match self.log_in_with(user, &older, server()?).await {
            Ok(()) => self.check(user, unmatched),
            Err(error) => {
                if is_refusal(&error) {
                    *refused_at = Some(std::time::Instant::now());
                }
                None
            }
        }
    }

    /// Logs in at a server with an older password, which is the newest when that succeeds.
    async fn log_in_with(
        &self,
        user: &str,
        older: &Arc<OlderPassword>,
        server: Target,
    ) -> Result<(), DialError> {
        let node = format!("{}:{}", server.host, server.port);
        let password = Some(older.password().clone());
        let target = Target { user: user.into(), role: None, password, ..server };
        Box::pin(self.dial_with_permit(&target, &node)).await?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::OlderAccepted(user.into(), older.generation(), node.into(), reply));
        // A task that has ended changes nothing.
        let _ = answer.await;
        Ok(())
    }

    /// Waits while passwords are unknown that should be known; why they still are at `end`.
    async fn wait_until_available(&self, end: Instant) -> Option<Unavailable> {
        let mut unavailable = self.shared.unavailable();
        let is_over = timeout_at(end, unavailable.wait_for(Option::is_none)).await.is_err();
        is_over.then(|| *unavailable.borrow()).flatten()
    }
}

/// Whether the server has refused the role or its password.
fn is_refusal(error: &DialError) -> bool {
    error.server_message().is_some()
        && matches!(error.sqlstate(), SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION)
}

fn shutting_down() -> NoPassword {
    NoPassword::Unknown("pgimbal is shutting down".to_owned())
}

fn none_works() -> NoPassword {
    NoPassword::Unknown(NONE_WORKS.to_owned())
}

fn explain(target: &Target, role: &str, none: NoPassword) -> DialError {
    let fault = match none {
        NoPassword::Unknown(source) => {
            DialFault::UnknownPassword { role: role.into(), source_error: source }
        }
        NoPassword::AllRefused { refusal, tried, fetch_error } => {
            let body = refusal.as_ref().and_then(DialError::server_message).unwrap_or_default();
            let refusal = body.into();
            DialFault::NoPasswordWorks {
                role: role.into(),
                tried,
                refusal,
                source_error: fetch_error,
            }
        }
    };
    DialError::of(target, fault)
}

/// A request for a password. No other login may try the one that is offered, so one that comes when
/// this is dropped already is reported as abandoned.
struct OfferRequest<'a> {
    manager: &'a CredentialManager,
    role: &'a str,
    node: &'a str,
    answer: oneshot::Receiver<Result<OfferedPassword, NoPassword>>,
}

impl<'a> OfferRequest<'a> {
    fn new(manager: &'a CredentialManager, role: &'a str, node: &'a str) -> Self {
        let (reply, answer) = oneshot::channel();
        manager.send(Command::Offer(role.into(), node.into(), reply));
        Self { manager, role, node, answer }
    }
}

impl Drop for OfferRequest<'_> {
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(Ok(offered)) = self.answer.try_recv() {
            drop(Attempt::new(self.manager, self.role, self.node, offered.generation));
        }
    }
}

/// A password that is being tried. The task is told how that ended when this is dropped.
struct Attempt<'a> {
    manager: &'a CredentialManager,
    role: &'a str,
    node: &'a str,
    generation: u32,
    outcome: LoginOutcome,
}

impl<'a> Attempt<'a> {
    const fn new(
        manager: &'a CredentialManager,
        role: &'a str,
        node: &'a str,
        generation: u32,
    ) -> Self {
        Self { manager, role, node, generation, outcome: LoginOutcome::Abandoned }
    }

    fn end(&mut self, outcome: LoginOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, LoginOutcome::Abandoned);
        let (role, node) = (self.role.into(), self.node.into());
        self.manager.send(Command::LoginEnded(role, node, self.generation, outcome));
    }
}

#[cfg(test)]
mod tests {
    use pgimbal_config::Secret;
    use tokio::sync::mpsc;

    use super::super::shared::Shared;
    use super::*;

    #[test]
    fn a_password_that_comes_when_nobody_waits_any_more_is_given_back() {
        let (commands, mut sent) = mpsc::unbounded_channel();
        let manager = CredentialManager { shared: Arc::new(Shared::new(true)), commands };
        let request = OfferRequest::new(&manager, "shop", "a");
        let Ok(Command::Offer(_, _, reply)) = sent.try_recv() else { panic!("asks") };
        let offered = OfferedPassword { generation: 7, password: Secret::from("x") };
        assert!(reply.send(Ok(offered)).is_ok());
        // The login is cancelled between the answer and its being looked at.
        drop(request);
        let Ok(Command::LoginEnded(role, node, 7, LoginOutcome::Abandoned)) = sent.try_recv()
        else {
            panic!("nobody could ever try it again");
        };
        assert_eq!((&*role, &*node), ("shop", "a"));
    }
}
