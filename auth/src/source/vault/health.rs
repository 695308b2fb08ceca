//! The health of one address of a Vault, for `pgimbal check`.

use std::time::{Duration, SystemTime};

use super::address::Address;
use super::reply::HealthData;
use super::verdict;
use crate::SourceError;

/// The health of one address of a Vault (`GET /v1/sys/health`).
/// [`VaultClient::health`](super::VaultClient::health) returns it; `pgimbal check` prints it.
#[derive(Debug)]
pub struct Health {
    /// The Vault's name and the address, as text.
    pub location: String,
    /// Vault's version; `None` when the answer has none. It is as Vault writes it, such as
    /// `1.17.2`.
    pub version: Option<String>,
    /// Vault's clock at the time of the answer, in whole seconds; `None` when the answer has none.
    pub clock: Option<SystemTime>,
    /// The reason for which this address could not serve a password now; `None` when it could. It
    /// is an error of the connection, or follows from the status: 429 standby, 472 recovery
    /// secondary, 473 performance standby, 501 not initialised, 503 sealed.
    pub fault: Option<SourceError>,
}

impl Health {
    /// Asks `address` for its health; a failure is put in [`Self::fault`].
    pub(super) async fn of(address: &Address) -> Self {
        let location = address.location();
        let mut health =
            Self { location: location.to_owned(), version: None, clock: None, fault: None };
        match address.health().await {
            Ok(reply) => {
                let data = reply.json::<HealthData>(location).unwrap_or_default();
                health.version = data.version.text().map(str::to_owned);
                let clock = data.server_time_utc.seconds();
                health.clock = clock
                    .filter(|clock| *clock > Duration::ZERO)
                    .and_then(|clock| SystemTime::UNIX_EPOCH.checked_add(clock));
                if verdict::is_about_the_address(reply.status) {
                    let complaint = reply.complaint(&[]);
                    let status = Some(reply.status);
                    health.fault =
                        Some(verdict::explain(location.into(), &reply, status, complaint));
                }
            }
            Err(error) => health.fault = Some(error),
        }
        health
    }
}
