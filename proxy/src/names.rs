//! Host names of servers outside of clusters. When a name resolves to other addresses than before,
//! the connections to the old addresses are closed as they become free. The nodes of clusters are
//! watched by `topology`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgimbal_config::{Config, Host};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::worker::Message;

/// Interval of look-ups: answers of a Service, or of a provider's name that moves at a failover,
/// live for 5 s or longer.
const STEADY: Duration = Duration::from_secs(5);
/// The resolver's own limit is 5 s for each of its servers.
const LIMIT: Duration = Duration::from_secs(10);
/// Time after which an address is gone: two look-ups have missed it.
const MISSED: Duration = Duration::from_secs(9);
/// An address that had gone and came back is one of a name that shows a few at a time. All that it
/// has shown for so long are its.
const ROTATING: Duration = Duration::from_secs(600);
/// Limit of remembered addresses of a name; beyond it those that sort first are forgotten.
const MOST: usize = 256;

/// Looks up the host names of `configs` until the process ends, and sends changed addresses to the
/// workers.
pub(crate) async fn follow(
    configs: watch::Receiver<Arc<Config>>,
    workers: Arc<[mpsc::UnboundedSender<Message>]>,
) {
    let mut names: BTreeMap<String, Name> = BTreeMap::new();
    loop {
        sleep(STEADY).await;
        if configs.has_changed().is_err() {
            return;
        }
        let wanted = names_of(&configs.borrow());
        names.retain(|name, _| wanted.contains(name));
        for name in wanted {
            let Some(addresses) = look_up(&name).await else { continue };
            let known = names.entry(name.clone()).or_default();
            let Some(gone) = known.see(&addresses, Instant::now()) else { continue };
            if !gone.is_empty() {
                let gone: Vec<String> = gone.iter().map(ToString::to_string).collect();
                tracing::info!(
                    name,
                    "{name} no longer leads to {}: connections to it end when they are free",
                    gone.join(", ")
                );
            }
            let (name, addresses): (Arc<str>, Arc<[IpAddr]>) = (name.into(), known.addresses());
            for worker in workers.iter() {
                let (name, addresses) = (Arc::clone(&name), Arc::clone(&addresses));
                // One that has ended needs to know nothing.
                let _ = worker.send(Message::Name { name, addresses });
            }
        }
    }
}

/// The names of servers that are no cluster's, without addresses.
fn names_of(config: &Config) -> BTreeSet<String> {
    let plain = config.databases.values().filter(|database| database.cluster.is_none());
    let names = plain.filter_map(|database| match &database.host {
        Host::Tcp(name) if name.parse::<IpAddr>().is_err() => Some(name.clone()),
        Host::Tcp(_) | Host::Unix(_) => None,
    });
    names.collect()
}

/// The addresses of a name; `None` when nobody says, which changes nothing.
async fn look_up(name: &str) -> Option<BTreeSet<IpAddr>> {
    let found = timeout(LIMIT, tokio::net::lookup_host((name, 0))).await.ok()?.ok()?;
    let addresses: BTreeSet<IpAddr> = found.map(|address| address.ip()).collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// The addresses that a name has resolved to.
#[derive(Debug, Default)]
struct Name {
    /// When each address was seen last.
    seen: BTreeMap<IpAddr, Instant>,
    gone: BTreeSet<IpAddr>,
    rotates: bool,
    /// Number of look-ups that still report the change. A change is reported twice, because a
    /// connection may have been opened meanwhile with an older answer of the resolver.
    told: u8,
}

impl Name {
    /// The name leads to these now. The addresses that are gone with this look, or `None` when
    /// there is nothing to tell.
    fn see(&mut self, addresses: &BTreeSet<IpAddr>, now: Instant) -> Option<Vec<IpAddr>> {
        self.rotates |= addresses.iter().any(|address| self.gone.contains(address));
        for address in addresses {
            self.gone.remove(address);
            self.seen.insert(*address, now);
        }
        let kept = if self.rotates { ROTATING } else { MISSED };
        let gone = self.seen.extract_if(.., |_, seen| now >= *seen + kept);
        let gone: Vec<IpAddr> = gone.map(|(address, _)| address).collect();
        if self.gone.len() + gone.len() > MOST {
            self.gone.clear();
        }
        self.gone.extend(&gone);
        while self.seen.len() > MOST {
            self.seen.pop_first();
        }
        if !gone.is_empty() {
            self.told = 2;
        }
        let told = self.told > 0;
        self.told = self.told.saturating_sub(1);
        told.then_some(gone)
    }

    fn addresses(&self) -> Arc<[IpAddr]> {
        self.seen.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(hosts: &[u8]) -> BTreeSet<IpAddr> {
        hosts.iter().map(|host| IpAddr::from([10, 0, 0, *host])).collect()
    }

    #[test]
    fn an_address_is_gone_that_two_looks_have_missed() {
        let start = Instant::now();
        let at = |look: u32| start + STEADY * look;
        let mut name = Name::default();
        assert_eq!(name.see(&set(&[1]), at(0)), None);
        assert_eq!(name.see(&set(&[2]), at(1)), None, "one look may be wrong");
        assert_eq!(name.see(&set(&[2]), at(2)), Some(set(&[1]).into_iter().collect()));
        assert_eq!(name.see(&set(&[2]), at(3)), Some(vec![]), "said once more");
        assert_eq!(name.see(&set(&[2]), at(4)), None);
        assert_eq!(*name.addresses(), [IpAddr::from([10, 0, 0, 2])]);
    }

    #[test]
    fn a_name_that_shows_one_of_many_keeps_them_all() {
        let start = Instant::now();
        let mut name = Name::default();
        let mut gone = 0;
        for look in 0..100_u32 {
            let shown = set(&[u8::try_from(look % 5).expect("small")]);
            gone += name.see(&shown, start + STEADY * look).map_or(0, |gone| gone.len());
        }
        assert!(gone <= 5, "{gone} times");
        assert_eq!(name.addresses().len(), 5);
    }
}
