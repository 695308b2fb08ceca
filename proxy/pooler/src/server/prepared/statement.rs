//! One prepared statement: its text, its identity, the settings under which it was parsed.

use std::cell::OnceCell;
use std::sync::Arc;

use crate::cluster::decided::LastDecided;
use crate::session::settings::Setting;
use crate::sql::{Classified, StatementClass};

/// The beginning of every statement name that the proxy makes up on a server. A client's own name
/// that begins so is never forwarded unchanged.
pub const SERVER_NAME_PREFIX: &[u8] = b"pgimbal_";

/// The settings under which a statement was parsed, as numbers that are equal on every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParsedUnder {
    /// The settings are known; each number is a hash of them, 0 for the server's defaults.
    Settings {
        /// The hash of all settings that matter to Parse: two clients share a statement only if
        /// they are equal.
        all: u64,
        /// The hash of those settings whose meaning is fixed at Parse. The others (the search path,
        /// the role) PostgreSQL looks at again when the statement is run.
        fixed: u64,
    },
    /// The settings are not known. The statement is not shared; another server connection parses it
    /// under the settings of that moment.
    Unknown,
}

impl ParsedUnder {
    /// The server's defaults: no setting that matters to Parse differs from them; both hashes are
    /// 0.
    pub const DEFAULTS: Self = Self::Settings { all: 0, fixed: 0 };

    /// Whether what was fixed when the statement was parsed would be fixed otherwise now.
    pub(crate) const fn is_fixed_otherwise(self, now: Self) -> bool {
        match (self, now) {
            (Self::Settings { fixed: then, .. }, Self::Settings { fixed: now, .. }) => then != now,
            _ => false,
        }
    }
}

/// The identity of a prepared statement, equal on every worker: a keyed 128-bit hash of all that
/// must be equal. A client cannot aim for a collision without the process's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(pub u128);

/// The process's secret key for the hashes of [`StatementId`]: 16 random bytes, drawn when the
/// process starts and equal on every worker; not shown by `Debug`.
#[derive(Clone, Copy)]
pub struct StatementKey(pub [u8; 16]);

impl StatementKey {
    /// A seed, made of the first 8 bytes of the key, for tables that hash what clients choose.
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

/// A named prepared statement as the proxy knows it. It may exist on several servers, under one
/// name, and be known to several clients, each under its own name.
#[derive(Debug)]
pub struct Statement {
    /// The statement's identity, of which its name on the servers is made.
    pub id: StatementId,
    /// The identity of what the statement was parsed from (text, types, settings, schema changes),
    /// which several statements may share.
    pub content: StatementId,
    /// The body of the statement's Parse behind the name: text, NUL, parameter types. `None` if the
    /// text is not kept, because it is above the limit or `max_prepared_statements` is 0: then only
    /// one server has the statement.
    pub body: Option<Box<[u8]>>,
    /// The settings under which the statement was parsed, as far as they matter to Parse.
    pub settings: ParsedUnder,
    /// The classification of the statement's text: what executing it may do to the session.
    pub class: StatementClass,
    /// How the statement was made: by Parse, by SQL PREPARE, or by Parse in session mode.
    pub origin: Origin,
    /// The parameters and rows that its client was told of; empty until the server has described
    /// it.
    pub shape: OnceCell<Shape>,
    /// The settings themselves whose hashes are in `settings`, to parse the statement anew under
    /// them; empty if they are not known.
    pub parsed_under: OnceCell<Arc<[Setting]>>,
    /// Whether a replica may serve the statement, as it was decided last.
    pub last_decided: LastDecided,
}

/// How a prepared statement was made, which decides how it is made again on another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By a Parse message, in transaction pooling: the server has it under a name of the proxy's.
    Parse,
    /// By SQL PREPARE; the statement's text is that of the PREPARE, which is run again where it is
    /// needed.
    Sql,
    /// By a Parse message in session mode: the server has it under the client's own name, and it is
    /// never parsed again.
    Session,
}

/// The parameters and rows of a prepared statement, as a server describes them. PostgreSQL refuses
/// to run a statement whose rows look otherwise than when it was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The parameter types as in ParameterDescription and Parse: a count of 2 bytes, then a type
    /// OID of 4 bytes each, big-endian.
    pub parameters: Box<[u8]>,
    /// A hash of the columns' names, types and type modifiers; 0 if the statement returns no rows.
    pub rows: u64,
}

impl Statement {
    /// How many bytes are kept of the statement's Parse (text, NUL, parameter types; 0 if the text
    /// is not kept) and of its classification. They count against `max_client_statement_bytes`.
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
        let (parsed_under, last_decided) = (OnceCell::new(), LastDecided::default());
        Self { id, content, body, settings, class, origin, shape, parsed_under, last_decided }
    }

    /// A statement whose text is not kept, so that only one server has it. Its settings count as
    /// the server's defaults.
    #[must_use]
    pub fn large(id: StatementId) -> Self {
        let (body, class, shape) = (None, StatementClass::UNREAD, OnceCell::new());
        let (settings, origin) = (ParsedUnder::DEFAULTS, Origin::Parse);
        let (parsed_under, last_decided) = (OnceCell::new(), LastDecided::default());
        Self { id, content: id, body, settings, class, origin, shape, parsed_under, last_decided }
    }

    /// A statement in session mode, which a server has under its client's own name: its text is
    /// empty, and only the classification is kept.
    #[must_use]
    pub fn of_session(id: StatementId, classified: Classified) -> Self {
        let own = Self::new(id, id, &[], ParsedUnder::Unknown, classified.into());
        Self { origin: Origin::Session, ..own }
    }

    /// The SQL text of the Parse or PREPARE, without its NUL; empty if it is not kept.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.body.as_deref().map_or(&[], |body| {
            let end = body.iter().position(|&b| b == 0).unwrap_or(body.len());
            &body[..end]
        })
    }

    /// Whether the statement's text names prepared statements (EXECUTE, DEALLOCATE and the like),
    /// so that those must exist on the server under the client's names when it is executed. False
    /// for a text that was not classified, true for one that could not be read.
    #[must_use]
    pub fn names_statements(&self) -> bool {
        self.class.not_plain().is_some_and(|classified| classified.names_statements)
    }

    /// Appends the part of a Parse of this statement behind the name: text, NUL and parameter
    /// types, which are those that the client was told, if it was. Appends nothing if the text is
    /// not kept.
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

    /// Appends the name that the statement has on every server, without a NUL: `pgimbal_` and 32
    /// hexadecimal digits.
    pub fn write_server_name(&self, out: &mut Vec<u8>) {
        write_server_name(self.id, out);
    }
}

/// Appends the name on the servers of the statement `id`, without a NUL: [`SERVER_NAME_PREFIX`] and
/// 32 lower-case hexadecimal digits, the highest first; 40 bytes in all.
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
