//! What a database's catalog says of the names that a text calls.

mod builtin;
mod query;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::Reason;

use query::Rows;
pub use query::{CATALOG_QUERY, CatalogError, CatalogRow};

/// A snapshot of what the names of a database's functions, relations, operators and types mean for
/// reads. Names count without their schema: a text may run under any `search_path`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    harmless: Harmless,
    /// `None` before the catalog has been read.
    read: Option<Names>,
}

/// The functions that the operator calls harmless, whatever their volatility.
type Harmless = HashSet<Box<str>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    functions: HashMap<Box<str>, Volatility>,
    relations: HashMap<Box<str>, RelationKind>,
    /// Operators that call a function which is no read.
    operators: HashSet<Box<str>>,
    /// Types whose checks, input or casts call one.
    types: HashSet<Box<str>>,
    /// Volatile functions of one row, which `row.function` calls.
    of_rows: HashSet<Box<str>>,
}

/// The volatility of all functions of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Volatility {
    /// Each is immutable or stable.
    Stable,
    /// One is volatile, and all that are come with PostgreSQL or an extension.
    Volatile,
    /// One is volatile, or calls a volatile one for a default, and is the database's own: it is not
    /// one that is known to be harmless.
    OwnVolatile,
}

/// What keeps a relation from being read on a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RelationKind {
    Unlogged,
    Foreign,
    Sequence,
    /// It calls a function that is no read, or reads a relation of these kinds.
    View,
    Policy,
}

impl Catalog {
    /// The catalog of a database that has not been read: only functions of a fixed list are known.
    #[must_use]
    pub fn unread<'a>(harmless: impl IntoIterator<Item = &'a str>) -> Self {
        Self { harmless: harmless.into_iter().map(Box::from).collect(), read: None }
    }

    /// The catalog of a database from the rows of [`CATALOG_QUERY`].
    ///
    /// # Errors
    /// A row that the query does not give, or too many of them.
    pub fn from_rows<'a, 'b>(
        rows: impl IntoIterator<Item = CatalogRow<'a>>,
        harmless: impl IntoIterator<Item = &'b str>,
    ) -> Result<Self, CatalogError> {
        let rows = Rows::new(rows)?;
        let mut catalog = Self::unread(harmless);
        catalog.read = Some(rows.names(&catalog.harmless));
        Ok(catalog)
    }

    /// Whether it was read from the database.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.read.is_some()
    }

    /// Why a call of this function is no read.
    pub(crate) fn function(&self, name: &str) -> Option<Reason> {
        match &self.read {
            Some(read) => read.function(name, &self.harmless),
            None if self.harmless.contains(name) || builtin::is_harmless(name) => None,
            None => builtin::special(name).map(|reason| reason(named(name))).or_else(|| {
                (!builtin::is_stable(name)).then(|| Reason::CatalogUnread(named(name)))
            }),
        }
    }

    /// Why `row.name` is no read, if `name` may be a function of the row's type.
    pub(crate) fn field(&self, name: &str) -> Option<Reason> {
        let read = self.read.as_ref()?;
        if read.of_rows.contains(name) { read.function(name, &self.harmless) } else { None }
    }

    /// Why reading the relation of this name, in this schema if it is given, is no read.
    pub(crate) fn relation(&self, schema: &str, name: &str) -> Option<Reason> {
        if schema == "pg_temp" || schema.starts_with("pg_temp_") {
            return Some(Reason::TemporaryTable(named(name)));
        }
        if builtin::is_server_view(name) {
            return Some(Reason::ServerView(named(name)));
        }
        let kind = self.read.as_ref()?.relations.get(name)?;
        let reason = match kind {
            RelationKind::Unlogged => Reason::UnloggedTable,
            RelationKind::Foreign => Reason::ForeignTable,
            RelationKind::Sequence => Reason::Sequence,
            RelationKind::View => Reason::View,
            RelationKind::Policy => Reason::Policy,
        };
        Some(reason(named(name)))
    }

    /// Why the operator of this name is no read.
    pub(crate) fn operator(&self, name: &str) -> Option<Reason> {
        let is_volatile = self.read.as_ref()?.operators.contains(name);
        is_volatile.then(|| Reason::VolatileOperator(named(name)))
    }

    /// Why a value of the type of this name is no read.
    pub(crate) fn type_named(&self, name: &str) -> Option<Reason> {
        let is_volatile = self.read.as_ref()?.types.contains(name);
        is_volatile.then(|| Reason::VolatileType(named(name)))
    }

    /// Why showing the setting of this name is no read.
    pub(crate) fn setting(name: &str) -> Option<Reason> {
        (!builtin::is_setting_of_session(name)).then(|| Reason::ServerSetting(named(name)))
    }
}

impl Names {
    fn function(&self, name: &str, harmless: &Harmless) -> Option<Reason> {
        if harmless.contains(name) {
            return None;
        }
        if let Some(reason) = builtin::special(name) {
            return Some(reason(named(name)));
        }
        match self.functions.get(name) {
            Some(Volatility::Volatile) if builtin::is_harmless(name) => None,
            Some(Volatility::Stable) => None,
            Some(_) => Some(Reason::VolatileFunction(named(name))),
            None => Some(Reason::UnknownFunction(named(name))),
        }
    }
}

/// A name as it is told: what is longer than PostgreSQL's names is cut.
fn named(name: &str) -> Arc<str> {
    let mut end = name.len().min(63);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].into()
}

#[cfg(test)]
mod tests;
