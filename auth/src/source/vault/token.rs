//! The life of a Vault token: when it is renewed, and when only a new login helps. Time is an
//! argument.

use std::time::{Duration, Instant};

use pgimbal_config::Secret;

/// Pause before a renewal that failed is tried again, while the token is still valid.
const RETRY: Duration = Duration::from_secs(15);
/// Shortest time between two renewals of a token.
const LEAST: Duration = Duration::from_secs(1);
/// Age below which a token is taken to have the current policies of its role.
const YOUNG: Duration = Duration::from_secs(60);

/// A token and what is known of its life.
#[derive(Clone)]
pub(super) struct Token {
    /// The token itself.
    pub(super) secret: Secret,
    /// Number of the token, by which it is told from the next one without comparing secrets.
    pub(super) serial: u64,
    since: Instant,
    ends: Option<Instant>,
    refresh: Option<Instant>,
    renewable: bool,
}

/// The life of a token as Vault granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// Time to live; `None` or zero for a token that never expires.
    pub(super) ttl: Option<Duration>,
    /// Whether Vault allows the token to be renewed.
    pub(super) renewable: bool,
}

/// The action that is needed before a token is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenAction {
    /// None: the token is valid for long enough.
    Good,
    /// The token must be renewed.
    Renew,
    /// A new login is needed; the token may still work for a while.
    Replace,
}

impl Token {
    /// Makes the entry of a token with this lease, which was granted at `now`.
    pub(super) fn new(secret: Secret, serial: u64, lease: Lease, now: Instant) -> Self {
        let mut token =
            Self { secret, serial, since: now, ends: None, refresh: None, renewable: false };
        token.lease(lease, now);
        token
    }

    fn lease(&mut self, lease: Lease, now: Instant) {
        let ttl = lease.ttl.filter(|ttl| !ttl.is_zero());
        self.ends = ttl.and_then(|ttl| now.checked_add(ttl));
        // Two thirds, as Vault's own clients do.
        self.refresh = self.ends.and(ttl).map(|ttl| now + (ttl / 3 * 2).max(LEAST));
        self.renewable = lease.renewable;
    }

    /// The action that is needed before the token is used at `now`.
    pub(super) fn next_action(&self, now: Instant) -> TokenAction {
        match self.refresh {
            _ if self.has_ended(now) => TokenAction::Replace,
            Some(refresh) if now >= refresh && self.renewable => TokenAction::Renew,
            Some(refresh) if now >= refresh => TokenAction::Replace,
            _ => TokenAction::Good,
        }
    }

    /// Whether the token has expired at `now`; never for one without an end.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| now >= ends)
    }

    /// Takes a renewal's lease. False when it brought nothing: the longest life is reached, and
    /// only another login helps.
    pub(super) fn renewed(&mut self, lease: Lease, now: Instant) -> bool {
        let grown = match (self.ends, lease.ttl.filter(|ttl| !ttl.is_zero())) {
            (Some(ends), Some(ttl)) => now + ttl > ends + LEAST,
            _ => true,
        };
        if grown {
            self.lease(lease, now);
        }
        grown
    }

    /// Postpones the renewal after a failure.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.refresh = Some(now + RETRY);
    }

    /// Gives up renewals, because nothing can replace the token: it is used until it expires.
    pub(super) fn keep(&mut self) {
        self.refresh = None;
    }

    /// Whether another login could bring more rights than this token has.
    pub(super) fn is_young(&self, now: Instant) -> bool {
        now.duration_since(self.since) < YOUNG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn lease(seconds: u64, renewable: bool) -> Lease {
        Lease { ttl: Some(Duration::from_secs(seconds)), renewable }
    }

    fn token(lease: Lease, now: Instant) -> Token {
        Token::new(Secret::from("t"), 1, lease, now)
    }

    #[test]
    fn a_token_is_renewed_at_two_thirds_and_then_replaced_when_it_no_longer_grows() {
        let mut now = Instant::now();
        let ends = now + Duration::from_secs(100);
        let mut token = token(lease(30, true), now);
        let mut renewals = 0;
        loop {
            while token.next_action(now) == TokenAction::Good {
                now += Duration::from_millis(100);
            }
            assert_eq!(token.next_action(now), TokenAction::Renew);
            let granted = Duration::from_secs(30).min(ends - now);
            if !token.renewed(Lease { ttl: Some(granted), renewable: true }, now) {
                break;
            }
            renewals += 1;
        }
        assert!(now < ends && renewals == 4, "{renewals} renewals, {:?} left", ends - now);
    }

    #[test]
    fn a_token_that_cannot_be_renewed_is_replaced_before_it_ends() {
        let now = Instant::now();
        let token = token(lease(30, false), now);
        assert_eq!(token.next_action(now + Duration::from_secs(19)), TokenAction::Good);
        let due = now + Duration::from_secs(20);
        assert_eq!((token.next_action(due), token.has_ended(due)), (TokenAction::Replace, false));
        assert!(token.has_ended(now + Duration::from_secs(30)));
    }

    #[test]
    fn a_token_without_an_end_needs_nothing() {
        let now = Instant::now();
        for ttl in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
            let token = token(Lease { ttl, renewable: true }, now);
            let year = now + Duration::from_secs(365 * 86_400);
            assert_eq!(token.next_action(year), TokenAction::Good, "{ttl:?}");
        }
    }

    #[test]
    fn a_postponed_token_is_used_meanwhile_but_never_past_its_end() {
        let now = Instant::now();
        let mut token = token(lease(30, true), now);
        let due = now + Duration::from_secs(20);
        token.postpone(due);
        assert_eq!(token.next_action(due), TokenAction::Good);
        assert_eq!(token.next_action(now + Duration::from_secs(30)), TokenAction::Replace);
        token.keep();
        assert_eq!(token.next_action(now + Duration::from_secs(29)), TokenAction::Good);
    }
}
