//! TLS that was given up although the server offers it, told once for each server and cause.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Pairs that are remembered; a cluster has a few servers and each fails for a reason or two.
/// Beyond that it is no news.
const MOST: usize = 256;

/// What has been told. A reload begins anew, as whoever reloads wants to know what is left.
#[derive(Debug, Default)]
pub(super) struct GivenUp(Mutex<BTreeSet<(String, String)>>);

impl GivenUp {
    /// Whether this is news of this server.
    pub(super) fn is_news(&self, server: &str, cause: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < MOST && told.insert((server.to_owned(), cause.to_owned()))
    }

    /// This is news again: nothing came of it.
    pub(super) fn forget(&self, server: &str, cause: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.remove(&(server.to_owned(), cause.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_and_cause_is_news_once_and_their_number_is_bounded() {
        let given_up = GivenUp::default();
        assert!(given_up.is_news("a", "expired"));
        assert!(!given_up.is_news("a", "expired"));
        given_up.forget("a", "expired");
        assert!(given_up.is_news("a", "expired"));
        assert!(given_up.is_news("b", "expired") && given_up.is_news("a", "other"));
        let news = (0..2 * MOST).filter(|n| given_up.is_news("a", &n.to_string())).count();
        assert_eq!(news, MOST - 3);
    }
}
