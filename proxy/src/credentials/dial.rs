//! A server login with a password that rotates.

use std::time::Duration;

use pgimbal_wire::error::SqlState;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::manager::{Command, Outcome};
use super::server_logins::{NoPassword, Shown};
use super::{Counted, CredentialManager};
use crate::dial::{self, DialError, DialFault, Dialed, Target};

/// What a prober is told that would have to wait.
const NONE_WORKS: &str = "none that works is known yet";

impl CredentialManager {
    /// Connects and logs in, with the password that the target has, or with those that are known
    /// of its role, in the order that fits the node. `node` names the place. The
    /// connection counts as one of the generation that was accepted until the second value is
    /// dropped. The future is large: box it.
    ///
    /// # Errors
    /// [`DialError`]; of a role whose passwords are all refused, what the server said.
    pub async fn dial(
        &self,
        target: &Target,
        node: &str,
    ) -> Result<(Dialed, Option<Counted>), DialError> {
        let Some(role) = &target.role else {
            return dial::dial(target).await.map(|dialed| (dialed, None));
        };
        loop {
            let offer = self.offer(role, node).await;
            let Shown { generation, password } =
                offer.map_err(|none| explain(target, role, none))?;
            let mut attempt = Attempt::new(self, role, node, generation);
            let with = Target { password: Some(password), ..target.clone() };
            match self.dial_in_turn(&with, node).await {
                Ok(dialed) => {
                    attempt.ended(Outcome::Accepted);
                    return Ok((dialed, Some(self.shared.servers.count_in(role, generation))));
                }
                Err(error) if is_refusal(&error) => attempt.ended(Outcome::Refused(error)),
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Self::dial`], for a prober: it does not wait for news of a password for longer than
    /// `patience`, and for no place, because others wait for what it sees.
    ///
    /// # Errors
    /// As for [`Self::dial`].
    pub(crate) async fn dial_at_once(
        &self,
        target: &Target,
        node: &str,
        patience: Duration,
    ) -> Result<Dialed, DialError> {
        let Some(role) = &target.role else { return dial::dial(target).await };
        loop {
            let offer = timeout(patience, self.offer(role, node)).await;
            let offer = offer.unwrap_or_else(|_| Err(NoPassword::Unknown(NONE_WORKS.to_owned())));
            let Shown { generation, password } =
                offer.map_err(|none| explain(target, role, none))?;
            let mut attempt = Attempt::new(self, role, node, generation);
            let with = Target { password: Some(password), ..target.clone() };
            match dial::dial(&with).await {
                Ok(dialed) => {
                    attempt.ended(Outcome::Accepted);
                    return Ok(dialed);
                }
                Err(error) if is_refusal(&error) => attempt.ended(Outcome::Refused(error)),
                Err(error) => return Err(error),
            }
        }
    }

    /// The password to show to a node, as soon as there is one.
    async fn offer(&self, role: &str, node: &str) -> Result<Shown, NoPassword> {
        let mut asked = Asked::new(self, role, node);
        (&mut asked.answer).await.unwrap_or_else(|_| Err(shutting_down()))
    }

    /// Dials when the node has a place for one more login.
    pub(super) async fn dial_in_turn(
        &self,
        target: &Target,
        node: &str,
    ) -> Result<Dialed, DialError> {
        let places = self.shared.node(node);
        let limit = target.connect_timeout.max(Duration::from_secs(1));
        // The semaphore is never closed.
        let Ok(place) = timeout(limit, places.acquire()).await else {
            return Err(DialError::of(target, DialFault::Timeout(limit)));
        };
        let dialed = dial::dial(target).await;
        drop(place);
        dialed
    }
}

/// Whether the server has refused the role or its password.
pub(super) fn is_refusal(error: &DialError) -> bool {
    error.server_message().is_some()
        && matches!(error.sqlstate(), SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION)
}

fn shutting_down() -> NoPassword {
    NoPassword::Unknown("pgimbal is shutting down".to_owned())
}

fn explain(target: &Target, role: &str, none: NoPassword) -> DialError {
    let fault = match none {
        NoPassword::Unknown(source) => {
            DialFault::UnknownPassword { role: role.into(), source_says: source }
        }
        NoPassword::Refused { refusal, tried, silence } => {
            let body = refusal.as_ref().and_then(DialError::server_message).unwrap_or_default();
            let refusal = body.into();
            DialFault::LockedOut { role: role.into(), tried, refusal, source_says: silence }
        }
    };
    DialError::of(target, fault)
}

/// A password that was asked for. Nobody else may try the one that comes, so one that comes when
/// nobody waits any more is given back.
struct Asked<'a> {
    keeper: &'a CredentialManager,
    role: &'a str,
    node: &'a str,
    answer: oneshot::Receiver<Result<Shown, NoPassword>>,
}

impl<'a> Asked<'a> {
    fn new(keeper: &'a CredentialManager, role: &'a str, node: &'a str) -> Self {
        let (reply, answer) = oneshot::channel();
        keeper.tell(Command::Offer(role.into(), node.into(), reply));
        Self { keeper, role, node, answer }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(Ok(shown)) = self.answer.try_recv() {
            drop(Attempt::new(self.keeper, self.role, self.node, shown.generation));
        }
    }
}

/// A password that is being tried. Whatever ends the attempt, the keeper is told.
struct Attempt<'a> {
    keeper: &'a CredentialManager,
    role: &'a str,
    node: &'a str,
    generation: u32,
    outcome: Option<Outcome>,
}

impl<'a> Attempt<'a> {
    const fn new(
        keeper: &'a CredentialManager,
        role: &'a str,
        node: &'a str,
        generation: u32,
    ) -> Self {
        Self { keeper, role, node, generation, outcome: None }
    }

    fn ended(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or(Outcome::Abandoned);
        let (role, node) = (self.role.into(), self.node.into());
        self.keeper.tell(Command::Report(role, node, self.generation, outcome));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgimbal_config::Secret;
    use tokio::sync::mpsc;

    use super::super::Shared;
    use super::*;

    #[test]
    fn a_password_that_comes_when_nobody_waits_any_more_is_given_back() {
        let (commands, mut told) = mpsc::unbounded_channel();
        let keeper = CredentialManager { shared: Arc::new(Shared::new(true)), commands };
        let asked = Asked::new(&keeper, "shop", "a");
        let Ok(Command::Offer(_, _, reply)) = told.try_recv() else { panic!("asks") };
        let shown = Shown { generation: 7, password: Secret::from("x") };
        assert!(reply.send(Ok(shown)).is_ok());
        // The login is cancelled between the answer and its being looked at.
        drop(asked);
        let Ok(Command::Report(role, node, 7, Outcome::Abandoned)) = told.try_recv() else {
            panic!("nobody could ever try it again");
        };
        assert_eq!((&*role, &*node), ("shop", "a"));
    }
}
