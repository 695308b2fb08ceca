//! What an address of a Vault says of itself, for `pgimbal check`.

use std::time::{Duration, SystemTime};

use super::address::Address;
use super::reply::HealthData;
use super::verdict;
use crate::SourceError;

/// What an address of a Vault says of itself.
#[derive(Debug)]
pub struct Health {
    /// The Vault's name and the address.
    pub place: String,
    /// Its version, where it says one.
    pub version: Option<String>,
    /// Its clock at the answer, to the second.
    pub clock: Option<SystemTime>,
    /// Why it could not be asked for a password now.
    pub fault: Option<SourceError>,
}

impl Health {
    pub(super) async fn of(address: &Address) -> Self {
        let place = address.place();
        let mut health = Self { place: place.to_owned(), version: None, clock: None, fault: None };
        match address.health().await {
            Ok(reply) => {
                let data = reply.json::<HealthData>(place).unwrap_or_default();
                health.version = data.version.text().map(str::to_owned);
                let clock = data.server_time_utc.seconds();
                health.clock = clock
                    .filter(|clock| *clock > Duration::ZERO)
                    .and_then(|clock| SystemTime::UNIX_EPOCH.checked_add(clock));
                if verdict::is_about_the_address(reply.status) {
                    let complaint = reply.complaint(&[]);
                    let status = Some(reply.status);
                    health.fault = Some(verdict::explain(place.into(), &reply, status, complaint));
                }
            }
            Err(error) => health.fault = Some(error),
        }
        health
    }
}
