//! libpq's `require_auth`: the authentication methods that a server may ask for.

use std::fmt;
use std::str::FromStr;

use figment::value::Value;

use crate::reader::Reader;
use crate::suggest::{did_you_mean, nearest};

/// An authentication method by which a server may authenticate pgimbal, as in libpq's
/// `require_auth`. A server chooses it by its Authentication request at the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// `password`: the password in clear text.
    Password,
    /// `md5`: PostgreSQL's challenge with MD5.
    Md5,
    /// `gss`: GSSAPI, which pgimbal does not speak.
    Gss,
    /// `sspi`: SSPI, which pgimbal does not speak.
    Sspi,
    /// `scram-sha-256`: SCRAM-SHA-256, with or without channel binding.
    ScramSha256,
    /// `none`: the server asks for no authentication, as with `trust`.
    None,
}

impl AuthMethod {
    const ALL: [(&'static str, Self); 6] = [
        ("password", Self::Password),
        ("md5", Self::Md5),
        ("gss", Self::Gss),
        ("sspi", Self::Sspi),
        ("scram-sha-256", Self::ScramSha256),
        ("none", Self::None),
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The method's name in libpq's `require_auth`, such as `scram-sha-256`; never empty.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, method)| *method == self).map_or("", |(name, _)| name)
    }
}

/// A set of allowed authentication methods, the option `require_auth`. `FromStr` reads the form of
/// libpq: names with commas, or names that each have a `!` in front for all methods but these.
/// `Display` prints that form again, in a fixed order and without repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthMethods {
    allowed: u8,
    /// Whether they were listed, and not all but those listed.
    listed: bool,
}

impl AuthMethods {
    /// Whether the option allows a server to ask for `method`. Where it does not, a login fails
    /// before the password, or anything made from it, is sent.
    #[must_use]
    pub const fn allows(self, method: AuthMethod) -> bool {
        self.allowed & method.bit() != 0
    }

    /// Whether the list allows `method` by its name: `!md5` allows the other methods without naming
    /// them, so that this is `false` for all. A password goes in clear text to a server that is not
    /// verified only when the list names `password`.
    #[must_use]
    pub const fn lists(self, method: AuthMethod) -> bool {
        self.listed && self.allows(method)
    }
}

impl fmt::Display for AuthMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.listed { "" } else { "!" };
        let mut between = "";
        for (name, method) in AuthMethod::ALL {
            if self.allows(method) == self.listed {
                write!(f, "{between}{mark}{name}")?;
                between = ",";
            }
        }
        Ok(())
    }
}

/// Reads libpq's form. The error is the cause in words, for an unknown name and for a mixture of
/// names with and without `!`.
impl FromStr for AuthMethods {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        let negated = names.iter().filter(|name| name.starts_with('!')).count();
        if negated != 0 && negated != names.len() {
            return Err("either every method has a \"!\" in front, or none".to_owned());
        }
        let mut named = 0;
        for name in names {
            let name = name.trim_start_matches('!');
            let Some((_, method)) = AuthMethod::ALL.iter().find(|(known, _)| *known == name) else {
                let known = AuthMethod::ALL.map(|(known, _)| known);
                let hint = did_you_mean(nearest(name, known.into_iter()));
                return Err(format!("expected some of {}{hint}", known.join(", ")));
            };
            named |= method.bit();
        }
        let listed = negated == 0;
        Ok(Self { allowed: if listed { named } else { !named }, listed })
    }
}

/// The reader of [`AuthMethods`].
pub(crate) struct RequireAuth;

impl Reader for RequireAuth {
    type Out = AuthMethods;
    const KIND: &'static str = "methods";

    fn read(value: &Value) -> Result<AuthMethods, String> {
        value.as_str().ok_or("expected text, such as \"scram-sha-256\"")?.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AuthMethods, String> {
        RequireAuth::read(&Value::from(text))
    }

    #[test]
    fn methods_are_listed_or_excluded() {
        let some = read("password, scram-sha-256").unwrap();
        assert!(some.allows(AuthMethod::Password) && some.lists(AuthMethod::ScramSha256));
        assert!(!some.allows(AuthMethod::Md5) && !some.allows(AuthMethod::None));
        assert_eq!(some.to_string(), "password,scram-sha-256");
        let others = read("!md5,!none").unwrap();
        assert!(others.allows(AuthMethod::Password) && !others.lists(AuthMethod::Password));
        assert!(!others.allows(AuthMethod::Md5) && !others.allows(AuthMethod::None));
        assert_eq!(others.to_string(), "!md5,!none");
        assert!(read("md5,!none").unwrap_err().contains("either"));
        assert!(read("scram").unwrap_err().contains("scram-sha-256"));
        assert!(read("").is_err());
    }
}
