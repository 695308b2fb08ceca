//! A record of every password that there was, none of which may appear anywhere.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::api::Api;
use super::static_role;

/// The passwords that Vault gave, and those that a test adds.
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

    /// Adds a password.
    pub fn add(&self, password: &str) {
        self.lock().insert(password.to_owned());
    }

    /// Number of different passwords so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Asserts that no password is in any of the named `texts`, neither as it is nor with its
    /// quotes and backslashes escaped. The message does not repeat the password.
    ///
    /// # Panics
    /// When a password is in a text, or none was recorded.
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
