//! One prepared statement: its text, its identity, the settings under which it was parsed.

use std::cell::OnceCell;
use std::sync::Arc;

use crate::session::settings::Setting;
use crate::sql::{Classified, StatementClass};

/// Every name that the proxy gives on a server starts so; a client's own name that starts so too
/// is never forwarded as it is.
pub const SERVER_NAME_PREFIX: &[u8] = b"pgimbal_";

/// The settings under which a statement was parsed, as numbers that are equal on every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParsedUnder {
    /// These.
    Settings {
        /// All that matter to Parse: two clients share a statement only if they are equal.
        all: u64,
        /// Those of them whose meaning is fixed when the statement is parsed. The others (the
        /// search path, the role) PostgreSQL looks at again when the statement is run.
        fixed: u64,
    },
    /// Nobody knows. It is not shared; another server connection that gets it parses it
    /// under the settings of then.
    Unknown,
}

impl ParsedUnder {
    /// The server's defaults.
    pub const DEFAULTS: Self = Self::Settings { all: 0, fixed: 0 };

    /// Whether what was fixed when the statement was parsed would be fixed otherwise now.
    pub(crate) const fn is_fixed_otherwise(self, now: Self) -> bool {
        match (self, now) {
            (Self::Settings { fixed: then, .. }, Self::Settings { fixed: now, .. }) => then != now,
            _ => false,
        }
    }
}

/// The identity of a statement on every worker: a keyed 128-bit hash of all that must be equal.
/// A client cannot aim for a collision without the process's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(pub u128);

/// The process's secret key for [`StatementId`].
#[derive(Clone, Copy)]
pub struct StatementKey(pub [u8; 16]);

impl StatementKey {
    /// A seed for tables that hash what clients choose.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl std::fmt::Debug for StatementKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StatementKey(***)")
    }
}

/// A statement that may live on several servers and be known to several clients.
#[derive(Debug)]
pub struct Statement {
    /// Its identity.
    pub id: StatementId,
    /// The identity of what it was parsed from, which several statements may share.
    pub content: StatementId,
    /// The body of its Parse behind the name: text, NUL, parameter types. `None` when the text is
    /// above the limit: then it lives on one server only.
    pub body: Option<Box<[u8]>>,
    /// The settings under which it was parsed, as far as they matter to Parse.
    pub settings: ParsedUnder,
    /// What executing it means to the session.
    pub class: StatementClass,
    /// How it came about.
    pub origin: Origin,
    /// What its client was told of parameters and rows, once that has come.
    pub shape: OnceCell<Shape>,
    /// What stands behind `settings`, where that is known.
    pub parsed_under: OnceCell<Arc<[Setting]>>,
}

/// How a statement came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By Parse.
    Parse,
    /// By SQL PREPARE, which is its text.
    Sql,
    /// By Parse in session mode: the server has it under the client's own name.
    Session,
}

/// What a server says of a statement: PostgreSQL refuses to run one whose rows look otherwise than
/// when it was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The parameter types: a count of 2 bytes, then 4 bytes each.
    pub parameters: Box<[u8]>,
    /// A hash of its columns' names, types and type modifiers.
    pub rows: u64,
}

impl Statement {
    /// Bytes that are kept of its text, and of what is known of it.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.len()) + self.class.bytes()
    }

    /// A statement whose text is kept; `body` as in [`Statement::body`].
    pub(super) fn new(
        id: StatementId,
        content: StatementId,
        body: &[u8],
        settings: ParsedUnder,
        class: StatementClass,
    ) -> Self {
        let (body, origin, shape) = (Some(body.into()), Origin::Parse, OnceCell::new());
        let parsed_under = OnceCell::new();
        Self { id, content, body, settings, class, origin, shape, parsed_under }
    }

    /// One that lives on one server only, because its text is not kept.
    #[must_use]
    pub fn large(id: StatementId) -> Self {
        let (body, class, shape) = (None, StatementClass::UNREAD, OnceCell::new());
        let (settings, origin) = (ParsedUnder::DEFAULTS, Origin::Parse);
        let parsed_under = OnceCell::new();
        Self { id, content: id, body, settings, class, origin, shape, parsed_under }
    }

    /// One that a server has under its client's own name: what it does is all that is kept.
    #[must_use]
    pub fn of_session(id: StatementId, classified: Classified) -> Self {
        let own = Self::new(id, id, &[], ParsedUnder::Unknown, classified.into());
        Self { origin: Origin::Session, ..own }
    }

    /// The text of the statement, without its NUL; empty when it was not kept.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.body.as_deref().map_or(&[], |body| {
            let end = body.iter().position(|&b| b == 0).unwrap_or(body.len());
            &body[..end]
        })
    }

    /// Whether its text names statements.
    #[must_use]
    pub fn names_statements(&self) -> bool {
        self.class.not_plain().is_some_and(|classified| classified.names_statements)
    }

    /// Appends what stands behind the name in a Parse of it: with the parameter types that its
    /// client was told, if that is known.
    pub fn write_body(&self, out: &mut Vec<u8>) {
        let Some(body) = self.body.as_deref() else { return };
        match self.shape.get() {
            None => out.extend_from_slice(body),
            Some(shape) => {
                out.extend_from_slice(self.text());
                out.push(0);
                out.extend_from_slice(&shape.parameters);
            }
        }
    }

    /// Appends the statement's name on the servers, without a NUL.
    pub fn write_server_name(&self, out: &mut Vec<u8>) {
        write_server_name(self.id, out);
    }
}

/// Appends the server-side name of `id`, without a NUL.
pub fn write_server_name(id: StatementId, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(SERVER_NAME_PREFIX);
    for byte in id.0.to_be_bytes() {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgresql_looks_at_again_is_not_fixed() {
        let now = ParsedUnder::Settings { all: 2, fixed: 7 };
        assert!(!ParsedUnder::Settings { all: 1, fixed: 7 }.is_fixed_otherwise(now));
        assert!(ParsedUnder::Settings { all: 1, fixed: 8 }.is_fixed_otherwise(now));
        assert!(!ParsedUnder::Unknown.is_fixed_otherwise(now));
    }
}
