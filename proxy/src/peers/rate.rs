//! Limits of what strangers cost at the port for peers: handshakes in a second, and lines in the
//! log.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::stats::{PeerStats, Stranger};
use crate::pending_logins::Subnet;

/// Handshakes of strangers in a second, of about a third of a millisecond each. The addresses of
/// replicas have as many of their own. Peers keep their connections.
const ALL: u32 = 200;
/// The same from one address.
const ONE_ADDRESS: u32 = 100;
/// How often the log tells of strangers.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// The handshakes of this second, of strangers or of the addresses of replicas.
#[derive(Debug, Default)]
pub(super) struct Rate {
    since: Option<Instant>,
    all: u32,
    each: HashMap<Subnet, u32>,
}

impl Rate {
    /// Whether one more from this address is served.
    pub(super) fn allows(&mut self, from: Subnet, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            *self = Self { since: Some(now), ..Self::default() };
        }
        // No more addresses are remembered than are served.
        if self.all >= ALL {
            return false;
        }
        let own = self.each.entry(from).or_default();
        if *own >= ONE_ADDRESS {
            return false;
        }
        *own += 1;
        self.all += 1;
        true
    }
}

/// Tells of strangers, in the counters each and in the log now and then.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<(Option<Instant>, u64)>);

impl Strangers {
    pub(super) fn note(&self, stats: &PeerStats, kind: Stranger, from: SocketAddr, why: &str) {
        stats.stranger(kind);
        let now = Instant::now();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0.is_some_and(|last| now.duration_since(last) < SAY_AGAIN) {
            told.1 += 1;
            return;
        }
        let untold = std::mem::take(&mut told.1);
        told.0 = Some(now);
        drop(told);
        tracing::warn!(
            peer = %from,
            result = kind.as_str(),
            untold,
            "a connection to peers.listen has not proved the deployment's key: {why}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_a_rate_and_one_address_is_not_all() {
        let now = Instant::now();
        let from = |host: u8| Subnet::of(Some([10, 0, 0, host].into()));
        let mut rate = Rate::default();
        let served =
            |rate: &mut Rate, host, now| (0..1000).filter(|_| rate.allows(from(host), now)).count();
        assert_eq!(served(&mut rate, 1, now), 100);
        assert_eq!(served(&mut rate, 2, now), 100);
        assert_eq!(served(&mut rate, 3, now), 0);
        assert_eq!(rate.each.len(), 2);
        assert_eq!(served(&mut rate, 1, now + Duration::from_secs(1)), 100);
    }
}
