//! A password that the source says with an older date than the newest known. A client that proves
//! to know it is worth a try at the server: the date of the newest may come from a clock that was
//! ahead.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use pgimbal_auth::account::{Account, LoginKeys, Matched, Standing};
use pgimbal_auth::client_login::{Accepted, Mismatch};
use pgimbal_auth::verifier::Salting;
use pgimbal_config::{AuthType, Secret};
use tokio::sync::{Mutex, oneshot};

use super::dial::is_refusal;
use super::manager::Command;
use super::{CredentialManager, Shared};
use crate::dial::Target;
use crate::login::{Authenticators, Claim};

/// A server that has refused it is not asked again for so long: each try is a failed login there.
const AGAIN: Duration = Duration::from_secs(5);

/// What was set aside of a user's passwords.
#[derive(Debug)]
pub(super) struct Aside {
    number: u32,
    password: Secret,
    keys: LoginKeys,
    account: Account,
    /// When a server has refused it. Held by the one who tries.
    refused_at: Mutex<Option<Instant>>,
}

impl Aside {
    pub(super) fn new(
        auth_type: AuthType,
        salting: Salting,
        number: u32,
        password: Secret,
        keys: LoginKeys,
    ) -> Self {
        let matched = Matched { generation: number, standing: Standing::Newest };
        let account = Account::of_keys(auth_type, salting, [(matched, keys.clone())]);
        Self { number, password, keys, account, refused_at: Mutex::new(None) }
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    pub(super) const fn keys(&self) -> &LoginKeys {
        &self.keys
    }
}

impl CredentialManager {
    /// Tries what was set aside of the user's passwords at the server, if that is what the client
    /// has shown. Of many clients one does so.
    pub(super) async fn try_aside(
        &self,
        claim: Claim<'_>,
        mismatch: &Mismatch,
        authenticators: Authenticators<'_>,
    ) -> Option<Accepted> {
        let aside = self.shared.aside(claim.user)?;
        mismatch.check(Some(&aside.account))?;
        let mut refused_at = aside.refused_at.lock().await;
        if let Some(accepted) = self.try_once(claim.user, mismatch) {
            return Some(accepted);
        }
        if refused_at.is_some_and(|at| at.elapsed() < AGAIN) {
            return None;
        }
        let target = (authenticators.server_of)(claim.user, claim.database)?;
        let node = format!("{}:{}", target.host, target.port);
        let password = Some(aside.password.clone());
        let target = Target { user: claim.user.into(), role: None, password, ..target };
        match Box::pin(self.dial_in_turn(&target, &node)).await {
            Ok(_) => {
                let (reply, believed) = oneshot::channel();
                self.tell(Command::Believe(claim.user.into(), aside.number, node.into(), reply));
                // A task that has ended believes nothing.
                let _ = believed.await;
            }
            Err(error) => {
                if is_refusal(&error) {
                    *refused_at = Some(Instant::now());
                }
                return None;
            }
        }
        self.try_once(claim.user, mismatch)
    }
}

impl Shared {
    fn aside(&self, user: &str) -> Option<Arc<Aside>> {
        let asides = self.asides.read().unwrap_or_else(PoisonError::into_inner);
        asides.get(user).cloned()
    }

    /// Something was set aside of a user's passwords, or is not any more.
    pub(super) fn set_aside(&self, user: &str, aside: Option<Arc<Aside>>) {
        let mut asides = self.asides.write().unwrap_or_else(PoisonError::into_inner);
        match aside {
            Some(aside) => drop(asides.insert(user.into(), aside)),
            None => drop(asides.remove(user)),
        }
    }
}
