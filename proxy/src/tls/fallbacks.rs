//! The servers to which a connection continues without TLS although they offer it, remembered so
//! that each is logged once for each cause.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Limit of remembered pairs of server and cause; beyond it nothing is logged.
const MOST: usize = 256;

/// The pairs of server and cause that were logged. A reload begins with an empty set, so that what
/// is left is logged again.
#[derive(Debug, Default)]
pub(super) struct TlsFallbacks(Mutex<BTreeSet<(String, String)>>);

impl TlsFallbacks {
    /// Whether this pair was not logged before, so that the caller logs it; it counts as logged
    /// from now on. Always false for new pairs beyond 256.
    pub(super) fn is_new(&self, server: &str, cause: &str) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.len() < MOST && logged.insert((server.to_owned(), cause.to_owned()))
    }

    /// Forgets the pair, so that it is logged again.
    pub(super) fn forget(&self, server: &str, cause: &str) {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.remove(&(server.to_owned(), cause.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_and_cause_is_news_once_and_their_number_is_bounded() {
        let fallbacks = TlsFallbacks::default();
        assert!(fallbacks.is_new("a", "expired"));
        assert!(!fallbacks.is_new("a", "expired"));
        fallbacks.forget("a", "expired");
        assert!(fallbacks.is_new("a", "expired"));
        assert!(fallbacks.is_new("b", "expired") && fallbacks.is_new("a", "other"));
        let news = (0..2 * MOST).filter(|n| fallbacks.is_new("a", &n.to_string())).count();
        assert_eq!(news, MOST - 3);
    }
}
