//! What a server has said of startup packets, so that the next one like it need not be tried.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::SharedPool;
use crate::server::reported::{NamedValue, Reported};
use crate::session::settings::Setting;

/// The settings of a startup packet that a server of the pool has accepted. The next client that
/// asks for the same is greeted without trying them.
#[derive(Debug)]
pub struct TriedStartup {
    /// The settings that need a check, as the clients say them, sorted by name.
    asked: Vec<Setting>,
    /// The settings as the server spells them (a value may differ from what the client said),
    /// without those that need no check.
    pub settings: Vec<Setting>,
    /// The settings that the server reported (ParameterStatus) under them with another value than
    /// at its login: name and value.
    pub reported: Vec<NamedValue>,
}

/// Different sets of startup settings that are remembered: applications have a few each. The oldest
/// goes when there are more, and is tried again when it comes back.
const TRIED_LIMIT: usize = 128;

impl SharedPool {
    /// Returns what a server has answered to these startup settings; `None` if none has accepted
    /// them, or that was forgotten (128 newer sets, another welcome). Settings that need no check,
    /// and the order, do not matter. Asked when a client is greeted; without an answer a server
    /// tries them.
    #[must_use]
    pub fn tried_startup(&self, asked: &[Setting]) -> Option<Arc<TriedStartup>> {
        let asked: Vec<Setting> = uncertain(asked);
        self.tried().iter().find(|tried| tried.asked == asked).cloned()
    }

    /// Remembers that a server has taken the startup settings `asked`, spells them as `settings`
    /// and then reports `reported`. Of the latter only what differs from the pool's welcome is
    /// kept, never `in_hot_standby`, and `application_name` only if it was asked for. Replaces an
    /// answer to the same settings. At most 128 sets are kept; the oldest goes first.
    pub fn keep_tried(&self, asked: &[Setting], settings: Vec<Setting>, reported: &Reported) {
        let asked = uncertain(asked);
        let names_application = asked.iter().any(|s| *s.name == *b"application_name");
        let welcome = self.welcome();
        let known = welcome.as_ref().map_or(&[][..], |welcome| &welcome.parameters);
        let news = reported.iter().filter(|(name, value)| {
            *name != b"in_hot_standby"
                && (*name != b"application_name" || names_application)
                && !known.iter().any(|(n, v)| (&**n, &**v) == (*name, *value))
        });
        let reported = news.map(|(name, value)| (name.into(), value.into())).collect();
        // What is certain is each client's own.
        let is_asked = |setting: &Setting| asked.iter().any(|other| other.name == setting.name);
        let settings = settings.into_iter().filter(is_asked).collect();
        let mut tried = self.tried();
        tried.retain(|tried| tried.asked != asked);
        if tried.len() == TRIED_LIMIT {
            tried.remove(0);
        }
        tried.push(Arc::new(TriedStartup { asked, settings, reported }));
    }

    /// The sets of startup settings that are remembered, oldest first.
    pub(super) fn tried(&self) -> MutexGuard<'_, Vec<Arc<TriedStartup>>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns those of startup settings that a server has to check, sorted by name.
fn uncertain(asked: &[Setting]) -> Vec<Setting> {
    let mut asked: Vec<Setting> = asked.iter().filter(|s| !s.is_certain()).cloned().collect();
    asked.sort_by(|a, b| a.name.cmp(&b.name));
    asked
}
