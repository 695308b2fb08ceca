//! A client has shown what fits no password that is known. Before it is refused, its source is
//! asked once more; how long that takes does not tell who exists.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pgimbal_auth::account::Account;
use pgimbal_auth::client_login::{Accepted, ClientLoginError, Mismatch};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::keeper::Command;
use super::{Keeper, Shared};
use crate::login::LoginError;

/// The least wait of a login with a wrong password: a fetch and a key derivation fit in.
const SHORTEST: Duration = Duration::from_millis(250);
/// The longest that is waited although nothing is awaited any more.
const LONGEST: Duration = Duration::from_secs(2);

/// How long the verifier of a new password may take beyond the question: it costs milliseconds, and
/// on a busy machine waits behind those of other roles.
const DERIVATION: Duration = Duration::from_secs(2);

/// How long clients are held while passwords are not known that should be.
const HOLD: Duration = Duration::from_secs(30);

/// Passwords cannot be judged: their source has not said them since the start.
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
}

impl From<Refused> for LoginError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Wrong(error) => error.into(),
            Refused::Unavailable(user, Unavailable { cause }) => Self::Unavailable { user, cause },
        }
    }
}

impl Keeper {
    /// Judges once more what `user` has shown, after its source was asked. `fixed` is the account
    /// of a user whose password does not rotate. A wrong password takes the same time for
    /// everybody, known or not.
    ///
    /// # Errors
    /// [`Refused`] when it still fits nothing.
    pub(crate) async fn judge_again(
        &self,
        user: &str,
        mismatch: Mismatch,
        fixed: Option<&Account>,
    ) -> Result<Accepted, Refused> {
        if !self.rotates() {
            return Err(Refused::Wrong(mismatch.refusal()));
        }
        let begun = Instant::now();
        let end = begun + self.shared.delay();
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Mismatch(user.into(), reply));
        // Until the answer to a question that was sent later can be judged by, or there is none.
        let _ = timeout_at(begun + self.shared.patience(), answer).await;
        if let Some(accepted) = self.try_once(user, &mismatch) {
            return Ok(accepted);
        }
        let dark = self.wait_for_light(begun + HOLD).await;
        let newly = self.try_once(user, &mismatch);
        if let Some(accepted) = newly {
            return Ok(accepted);
        }
        sleep_until(end).await;
        if let Some(cause) = dark {
            return Err(Refused::Unavailable(user.into(), cause));
        }
        let account = self.account(user);
        mismatch.retry(account.as_deref().or(fixed)).map_err(Refused::Wrong)
    }

    fn try_once(&self, user: &str, mismatch: &Mismatch) -> Option<Accepted> {
        mismatch.check(self.account(user).as_deref())
    }

    /// Waits while passwords are unknown that should be known; why they still are in the end.
    async fn wait_for_light(&self, end: Instant) -> Option<Unavailable> {
        let mut dark = self.shared.dark.subscribe();
        let light = timeout_at(end, dark.wait_for(Option::is_none)).await;
        match light {
            Ok(_) => None,
            Err(_) => *self.shared.dark.borrow(),
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
        Duration::from_micros(self.question.load(Relaxed)) + DERIVATION
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
    pub(super) fn set_dark(&self, dark: Option<Unavailable>) {
        self.dark.send_if_modified(|now| std::mem::replace(now, dark) != dark);
    }
}
