//! Every password that ever was: what must not appear anywhere.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::api::Api;
use super::static_role;

/// The passwords that Vault gave, and others that a test adds.
#[derive(Default)]
pub struct Passwords {
    known: Mutex<BTreeSet<String>>,
}

impl Passwords {
    pub(super) fn record(api: Api, roles: &[&str]) -> Arc<Self> {
        let passwords = Arc::new(Self::default());
        // The recorder ends with the last other holder.
        let recorder = Arc::downgrade(&passwords);
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        std::thread::spawn(move || {
            while let Some(passwords) = recorder.upgrade() {
                // A sealed Vault says nothing, and rotates nothing either.
                for answer in roles.iter().filter_map(|role| static_role(&api, role)) {
                    passwords.add(&answer.password);
                }
                drop(passwords);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        passwords
    }

    /// Adds one.
    pub fn add(&self, password: &str) {
        self.lock().insert(password.to_owned());
    }

    /// How many there were so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// No password stands in any of the named `texts`, as it is or with its quotes and
    /// backslashes escaped. The message does not repeat it.
    ///
    /// # Panics
    /// When one does.
    pub fn appear_nowhere(&self, texts: &[(&str, &str)]) {
        let known = self.lock();
        assert!(!known.is_empty(), "no password was recorded");
        for (number, password) in known.iter().enumerate() {
            let escaped = [password.clone(), password.escape_debug().to_string()];
            for (name, text) in texts {
                let shown = escaped.iter().any(|form| text.contains(form.as_str()));
                assert!(!shown, "password {number} appears in {name}");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
