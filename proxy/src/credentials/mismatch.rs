//! A client has shown what fits no password that is known. Before it is refused, its source is
//! asked once more; how long that takes does not tell who exists.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pgimbal_auth::client_login::{Accepted, ClientLoginError, Mismatch};
use pgimbal_auth::rotation::MISMATCH_PAUSE;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::manager::Command;
use super::{CredentialManager, Shared};
use crate::login::{Authenticators, Claim, LoginError};

/// The least wait of a login with a wrong password: a fetch and a key derivation fit in.
const SHORTEST: Duration = Duration::from_millis(250);
/// The longest that is waited although nothing is awaited any more.
const LONGEST: Duration = Duration::from_secs(2);

/// How long the verifier of a new password may take beyond the question: it costs milliseconds, and
/// on a busy machine waits behind those of other roles.
const DERIVATION: Duration = Duration::from_secs(2);

/// How long clients are held while passwords are not known that should be.
const HOLD: Duration = Duration::from_secs(30);

/// Passwords cannot be checked: their source has not said them since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What the source says, as a word.
    pub cause: &'static str,
}

/// Why a client that has shown something is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is wrong.
    Wrong(ClientLoginError),
    /// That cannot be told.
    Unavailable(Box<str>, Unavailable),
    /// That was not asked: too often before.
    Unasked(Box<str>),
}

/// What became of the question that a client's mismatch wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// When it was its turn. A refusal comes so long after it for everybody.
    pub(super) turn: std::time::Instant,
    /// Whoever is where the client is has shown too many that fit nothing.
    pub(super) is_over: bool,
}

impl From<Refused> for LoginError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Wrong(error) => error.into(),
            Refused::Unavailable(user, Unavailable { cause }) => Self::Unavailable { user, cause },
            Refused::Unasked(user) => Self::Unasked(user),
        }
    }
}

impl CredentialManager {
    /// Checks once more what a client has shown, after its source was asked. A wrong password takes
    /// the same time for everybody, known or not.
    ///
    /// # Errors
    /// [`Refused`] when it still fits nothing.
    pub(crate) async fn check_again(
        &self,
        claim: Claim<'_>,
        mismatch: Mismatch,
        authenticators: Authenticators<'_>,
    ) -> Result<Accepted, Refused> {
        if !self.rotates() {
            return Err(Refused::Wrong(mismatch.refusal()));
        }
        let (user, begun) = (claim.user, Instant::now());
        let Asked { turn, is_over } = match self.ask(claim, &mismatch).await {
            Ok(accepted) => return Ok(accepted),
            Err(asked) => asked,
        };
        let mut newly = self.try_once(user, &mismatch);
        if newly.is_none() {
            newly = self.try_aside(claim, &mismatch, authenticators).await;
        }
        if let Some(accepted) = newly {
            return Ok(accepted);
        }
        let unavailable = self.wait_until_available(begun + HOLD).await;
        if let Some(accepted) = self.try_once(user, &mismatch) {
            return Ok(accepted);
        }
        sleep_until(Instant::from_std(turn) + self.shared.delay()).await;
        if let Some(cause) = unavailable {
            return Err(Refused::Unavailable(user.into(), cause));
        }
        let (context, rotating) = (authenticators.in_force.now(), self.account(user));
        let account = rotating.as_deref().or(context.fixed(user));
        match mismatch.retry(account) {
            Err(_) if is_over => Err(Refused::Unasked(user.into())),
            checked => checked.map_err(Refused::Wrong),
        }
    }

    /// Waits until the answer to a question that was sent later can be checked by, or there is
    /// none. What comes to be known meanwhile is looked at as it does.
    async fn ask(&self, claim: Claim<'_>, mismatch: &Mismatch) -> Result<Accepted, Asked> {
        let begun = Instant::now();
        let mut published = self.shared.published.subscribe();
        let (reply, mut answer) = oneshot::channel();
        self.tell(Command::Mismatch(claim.user.into(), claim.peer.into(), reply));
        let asked = loop {
            tokio::select! {
                asked = &mut answer => break asked.ok(),
                Ok(()) = published.changed() => {
                    if let Some(accepted) = self.try_once(claim.user, mismatch) {
                        return Ok(accepted);
                    }
                }
                () = sleep_until(begun + self.shared.patience()) => break None,
            }
        };
        Err(asked.unwrap_or(Asked { turn: begun.into_std(), is_over: false }))
    }

    pub(super) fn try_once(&self, user: &str, mismatch: &Mismatch) -> Option<Accepted> {
        mismatch.check(self.account(user).as_deref())
    }

    /// Waits while passwords are unknown that should be known; why they still are in the end.
    async fn wait_until_available(&self, end: Instant) -> Option<Unavailable> {
        let mut unavailable = self.shared.unavailable.subscribe();
        let light = timeout_at(end, unavailable.wait_for(Option::is_none)).await;
        match light {
            Ok(_) => None,
            Err(_) => *self.shared.unavailable.borrow(),
        }
    }
}

impl Shared {
    /// How long a login with a wrong password takes.
    fn delay(&self) -> Duration {
        Duration::from_micros(self.delay.load(Relaxed)).clamp(SHORTEST, LONGEST)
    }

    /// The longest that a client waits for its source to be asked once more.
    fn patience(&self) -> Duration {
        Duration::from_micros(self.question.load(Relaxed)) + DERIVATION + MISMATCH_PAUSE
    }

    /// A question to a source takes so long at most.
    pub(super) fn set_question(&self, longest: Duration) {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        self.question.store(micros, Relaxed);
    }

    /// A fetch took so long, from the question to its use. The wait follows slowly: it must not
    /// tell of a single fetch.
    pub(super) fn took(&self, time: Duration) {
        let sample = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(10_000_000);
        let wanted = 2 * sample + 150_000;
        let before = self.delay.load(Relaxed);
        let after = if before == 0 { wanted } else { before - before / 4 + wanted / 4 };
        self.delay.store(after, Relaxed);
    }

    /// Passwords are known, or not, that should be.
    pub(super) fn set_unavailable(&self, unavailable: Option<Unavailable>) {
        self.unavailable.send_if_modified(|now| std::mem::replace(now, unavailable) != unavailable);
    }
}
