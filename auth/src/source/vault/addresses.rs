//! The addresses of a Vault: which one is asked, and with which certificates.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pgimbal_config::{Secret, VaultConfig};
use serde::de::DeserializeOwned;

use super::address::Address;
use super::endpoint::Call;
use super::reply::{Reply, malformed};
use super::{MAX_REQUESTS, tls, verdict};
use crate::SourceError;

/// How long an idle connection is kept: less than Vault's own limit, so that it is pgimbal that
/// closes.
const IDLE: Duration = Duration::from_secs(60);
/// Time limit of connecting: a host that does not answer is given up sooner than a Vault that
/// thinks.
const CONNECT: Duration = Duration::from_secs(2);

/// All addresses of one Vault, with one pool of connections.
pub(super) struct Addresses {
    name: Box<str>,
    config: VaultConfig,
    /// The addresses with their HTTP client; replaced when certificates have changed on disk.
    current: Mutex<Arc<Current>>,
    /// Index of the address that answered last.
    working: AtomicUsize,
}

struct Current {
    addresses: Vec<Address>,
    written: [Option<SystemTime>; 3],
}

impl Addresses {
    /// Makes the addresses of the Vault `name`: reads certificate files, and connects to nothing
    /// yet.
    pub(super) fn new(name: &str, config: &VaultConfig) -> Result<Self, SourceError> {
        let current = Mutex::new(Arc::new(Current::new(name, config)?));
        let (name, config) = (name.into(), config.clone());
        Ok(Self { name, config, current, working: AtomicUsize::new(0) })
    }

    /// Makes a call at the address that answered last, or else at the others in turn. When TLS
    /// fails and the certificate files have changed, they are read again and the call is made once
    /// more.
    pub(super) async fn ask<T: DeserializeOwned + Send + Sync>(
        &self,
        call: &Call<T>,
        token: Option<&Secret>,
    ) -> Result<Reply, SourceError> {
        let current = self.current();
        let outcome = self.ask_in_turn(&current, call, token).await;
        if !matches!(outcome, Err(SourceError::Tls { .. })) {
            return outcome;
        }
        match self.renewed(&current)? {
            Some(renewed) => self.ask_in_turn(&renewed, call, token).await,
            None => outcome,
        }
    }

    async fn ask_in_turn<T: DeserializeOwned + Send + Sync>(
        &self,
        current: &Current,
        call: &Call<T>,
        token: Option<&Secret>,
    ) -> Result<Reply, SourceError> {
        let count = current.addresses.len();
        let first = self.working.load(Ordering::Relaxed);
        let mut told: Option<SourceError> = None;
        for index in (first..first + count).map(|index| index % count) {
            match current.addresses[index].ask(call, token).await {
                Ok(reply) => {
                    self.working.store(index, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(error) => {
                    let go_on = verdict::another_may_do_better(&error);
                    if told.as_ref().is_none_or(|told| says_less(told) && !says_less(&error)) {
                        told = Some(error);
                    }
                    if !go_on {
                        break;
                    }
                }
            }
        }
        Err(told.unwrap_or_else(|| no_address(&self.name)))
    }

    /// Makes the call at each address and returns all outcomes, in the order of the configuration.
    pub(super) async fn each<R>(&self, mut call: impl AsyncFnMut(&Address) -> R) -> Vec<R> {
        let current = self.current();
        let mut found = Vec::with_capacity(current.addresses.len());
        for address in &current.addresses {
            found.push(call(address).await);
        }
        found
    }

    /// Other addresses than `failed`, if certificates were written since those were read.
    fn renewed(&self, failed: &Arc<Current>) -> Result<Option<Arc<Current>>, SourceError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, failed) {
            if written(&self.config) == failed.written {
                return Ok(None);
            }
            *current = Arc::new(Current::new(&self.name, &self.config)?);
        }
        Ok(Some(Arc::clone(&current)))
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Index of the address that answered last, for a test.
    #[cfg(test)]
    pub(super) fn working(&self) -> usize {
        self.working.load(Ordering::Relaxed)
    }
}

impl Current {
    fn new(name: &str, config: &VaultConfig) -> Result<Self, SourceError> {
        let written = written(config);
        let is_tls = config.address.iter().any(|url| url.starts_with("https:"));
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(config, is_tls)?)
            // A redirect would carry the token to whatever address it names.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("pgimbal/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT.min(config.timeout))
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_REQUESTS)
            .build()
            .map_err(|_| malformed(&format!("vault {name}"), "the HTTP client cannot be made"))?;
        let namespace = config.namespace.as_deref();
        let address =
            |url: &String| Address::new(name, url, namespace, config.timeout, http.clone());
        let addresses: Vec<_> = config.address.iter().map(address).collect::<Result<_, _>>()?;
        if addresses.is_empty() { Err(no_address(name)) } else { Ok(Self { addresses, written }) }
    }
}

/// When the files with certificates were written.
fn written(config: &VaultConfig) -> [Option<SystemTime>; 3] {
    [&config.ca_file, &config.cert_file, &config.key_file].map(|path| {
        let modified = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
        path.as_deref().and_then(modified)
    })
}

fn no_address(name: &str) -> SourceError {
    malformed(&format!("vault {name}"), "it has no address")
}

/// Of several addresses' errors, one that an address itself gave says more.
const fn says_less(error: &SourceError) -> bool {
    matches!(error, SourceError::Unreachable { .. } | SourceError::TimedOut { .. })
}
