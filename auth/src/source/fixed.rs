//! Passwords that do not change while pgimbal runs: from the configuration or the environment.

use std::env::{self, VarError};

use pgimbal_config::Secret;
use tokio::sync::watch;

use super::{BoxFuture, Source};
use crate::{SourceError, SourcePassword};

/// A source whose password was read once at the start and never changes.
#[derive(Debug)]
pub(super) struct FixedSource {
    kind: &'static str,
    location: String,
    found: Result<SourcePassword, SourceError>,
}

impl FixedSource {
    /// The source of a password in the configuration; `user` is named in errors.
    pub(super) fn inline(user: &str, password: Secret) -> Self {
        let location = format!("users.{user}.password");
        let found = SourcePassword::new(&location, password);
        Self { kind: "inline", location, found }
    }

    /// The source of an environment variable, with its value as it is now.
    pub(super) fn variable(name: &str) -> Self {
        let location = format!("${name}");
        let found = match env::var(name) {
            Ok(text) => SourcePassword::new(&location, Secret::new(text)),
            Err(VarError::NotPresent) => {
                Err(SourceError::MissingVariable { location: location.as_str().into() })
            }
            Err(VarError::NotUnicode(_)) => Err(SourceError::Malformed {
                location: location.as_str().into(),
                cause: "it is not UTF-8".into(),
            }),
        };
        Self { kind: "env", location, found }
    }
}

impl Source for FixedSource {
    fn fetch(&self) -> BoxFuture<'_, Result<SourcePassword, SourceError>> {
        Box::pin(std::future::ready(self.found.clone()))
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let source = FixedSource::variable("PGIMBAL_NO_SUCH_VARIABLE");
        let error = source.found.expect_err("no variable");
        assert!(error.to_string().starts_with("$PGIMBAL_NO_SUCH_VARIABLE: "), "{error}");
    }

    #[test]
    fn a_variable_that_is_set_is_the_password() {
        let home = env::var("PATH").expect("a PATH");
        let source = FixedSource::variable("PATH");
        assert_eq!(source.found.as_ref().expect("an answer").password.expose(), home);
        assert!(!format!("{source:?}").contains(&home));
    }

    #[test]
    fn an_inline_password_is_what_it_is() {
        let source = FixedSource::inline("ann", Secret::from("p"));
        assert_eq!((source.kind(), &*source.location()), ("inline", "users.ann.password"));
        assert_eq!(source.found.expect("an answer").password.expose(), "p");
    }
}
