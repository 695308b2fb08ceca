//! A string that must not be seen: it is wiped from memory when dropped, and masked when printed.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A password, verifier or token. `Debug` prints `***`, there is no `Display`, and the bytes are
/// overwritten when the value is dropped. A clone is another copy, which is wiped at its own drop.
/// `==` does not take constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Makes a secret of `text`, which is moved and not copied.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text of the secret, which may be empty. The method is named so that every place that
    /// reads a secret can be found. Copies that the caller makes are not wiped.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text for building a secret in place. Growing beyond its capacity leaves a copy in
    /// memory.
    pub(crate) const fn text_mut(&mut self) -> &mut String {
        &mut self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_masks_what_expose_shows() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "*** Some(\n    ***,\n)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
