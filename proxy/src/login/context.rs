//! The login context: what logins are checked by, made from the configuration once.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use pgimbal_auth::Channel;
use pgimbal_auth::account::{Account, CleartextCost, UnusableSecret};
use pgimbal_auth::client_login::{ClientLogin, LoginRandomness, Method, Step};
use pgimbal_auth::verifier::SaltKey;
use pgimbal_config::{Config, SourceConfig};
use thiserror::Error;

use super::error::LoginError;
use crate::tls::{TlsAcceptor, TlsError};

/// Names of the console's databases: pgimbal's own, and PgBouncer's.
const CONSOLE: [&str; 2] = ["pgimbal", "pgbouncer"];

/// The configuration, accounts, salts and TLS by which logins are checked. Making one derives the
/// verifiers of all users, which takes milliseconds each with SCRAM.
#[derive(Debug)]
pub struct LoginContext {
    config: Arc<Config>,
    accounts: HashMap<Box<str>, Account>,
    salts: SaltKey,
    tls: Option<TlsAcceptor>,
}

/// The rights of a client on the console, which are settled at its login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleRole {
    /// The user is in `admin_users`, perhaps in `stats_users` too: every command is allowed.
    Admin,
    /// The user is in `stats_users` only: commands that change nothing (SHOW) are allowed.
    Stats,
}

/// The login context in force. Clones share it, so that a reload replaces it for all workers. Each
/// step of a login asks for the one of its moment: a reload may come between two steps.
#[derive(Clone, Debug)]
pub struct CurrentLoginContext(Arc<RwLock<Arc<LoginContext>>>);

impl CurrentLoginContext {
    /// Puts `context` in force.
    #[must_use]
    pub fn new(context: LoginContext) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(context))))
    }

    /// The context that is in force now.
    #[must_use]
    pub fn now(&self) -> Arc<LoginContext> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another context in force, at a reload, for all clones. Logins under way use it from
    /// their next step on, but keep the TLS with which they began; clients that are logged in stay.
    pub fn replace(&self, context: LoginContext) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(context);
    }
}

/// The reason for which a configuration gives no [`LoginContext`]: pgimbal does not start with it,
/// or a reload is refused. `Display` names the option.
#[derive(Debug, Error)]
pub enum ContextError {
    /// A user's password cannot be used with the authentication method.
    #[error("users.{user}.password: {cause}")]
    Secret {
        /// The user's name.
        user: Box<str>,
        /// Why the password cannot be used.
        cause: UnusableSecret,
    },
    /// TLS towards clients cannot be set up.
    #[error("client_tls: {0}")]
    Tls(#[from] TlsError),
}

impl LoginContext {
    /// Makes the context: reads the files of `client_tls`, and derives the verifiers of the users
    /// whose password is in the configuration; those of others come from the credentials' task.
    /// `salts` must be the same after a reload, so that a user's salt stays the same.
    ///
    /// # Errors
    /// [`ContextError`] when a user's password or a TLS file cannot be used.
    pub fn new(config: Arc<Config>, salts: SaltKey) -> Result<Self, ContextError> {
        let tls = TlsAcceptor::new(&config.clients.tls)?;
        let auth_type = config.clients.auth_type;
        let mut accounts = HashMap::with_capacity(config.users.len());
        // The others' are made as their sources say them.
        let inline =
            |(_, own): &(_, &pgimbal_config::UserConfig)| own.source() == SourceConfig::Inline;
        for (user, own) in config.users.iter().filter(inline) {
            let secrets: Vec<_> = own.password.iter().collect();
            let also = own.accept_also.as_ref();
            let account = Account::new(auth_type, user, &secrets, also, &salts)
                .map_err(|cause| ContextError::Secret { user: user.as_str().into(), cause })?;
            accounts.insert(user.as_str().into(), account);
        }
        Ok(Self { config, accounts, salts, tls })
    }

    /// TLS towards clients; `None` when `client_tls.sslmode` is `disable`, so that it is not
    /// offered.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsAcceptor> {
        self.tls.as_ref()
    }

    /// The configuration from which the context was made.
    #[must_use]
    pub const fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub(super) fn tls_required(&self) -> bool {
        self.tls.as_ref().is_some_and(TlsAcceptor::required)
    }

    /// The account of a user whose password is in the configuration; `None` for other users.
    pub(crate) fn fixed(&self, user: &str) -> Option<&Account> {
        self.accounts.get(user)
    }

    /// Begins a login. `rotates` says that the passwords of some users are known by verifiers only.
    pub(super) fn begin<'a>(
        &self,
        user: &'a str,
        account: Option<&Account>,
        rotates: bool,
        channel: Channel<'a>,
        randomness: LoginRandomness,
    ) -> Step<'a> {
        let auth_type = self.config.clients.auth_type;
        let cleartext_cost =
            if rotates { CleartextCost::Derivation } else { CleartextCost::Digest };
        let method = Method { auth_type, cleartext_cost };
        ClientLogin::begin(method, user, account, channel, &self.salts, randomness)
    }

    /// Checks that an authenticated user may use the database. Returns the user's rights when the
    /// database is the console (`pgimbal` or `pgbouncer`), and `None` for any other that is served.
    ///
    /// # Errors
    /// [`LoginError::ConsoleDenied`] and [`LoginError::UnknownDatabase`].
    pub(super) fn admit(
        &self,
        user: &str,
        database: &str,
    ) -> Result<Option<ConsoleRole>, LoginError> {
        let named = |users: &[String]| users.iter().any(|one| one == user);
        if CONSOLE.contains(&database) {
            return if named(&self.config.admin_users) {
                Ok(Some(ConsoleRole::Admin))
            } else if named(&self.config.stats_users) {
                Ok(Some(ConsoleRole::Stats))
            } else {
                Err(LoginError::ConsoleDenied(user.into()))
            };
        }
        match self.config.database(database) {
            Some(_) => Ok(None),
            None => Err(LoginError::UnknownDatabase(database.into())),
        }
    }
}
