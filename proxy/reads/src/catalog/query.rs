//! The query that reads a catalog, and its rows.

use std::collections::HashMap;
use thiserror::Error;

use super::{Harmless, Names, RelationKind, Volatility, builtin};

/// Reads what a [`Catalog`](super::Catalog) has to know of a database. Each row has three texts,
/// those of [`CatalogRow`]. It takes no locks but those of reading the catalog, and runs on a
/// primary or a standby of any supported version.
///
/// Expressions of views, policies, defaults and checks are searched for the OIDs of functions in
/// their stored form, because `pg_depend` has none of those that PostgreSQL brings.
pub const CATALOG_QUERY: &str = include_str!("catalog.sql");

/// The names of a database may have so many bytes together (16 MiB). PostgreSQL's own have 100 kB.
const MAX_BYTES: usize = 16 << 20;

/// A row of [`CATALOG_QUERY`]: the names are without their schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogRow<'a> {
    /// What the row says: a word.
    pub kind: &'a str,
    /// Of which function, operator, relation or type it says that.
    pub name: &'a str,
    /// The function that it calls, or what it is made of; empty if the word says all.
    pub via: &'a str,
}

/// Why rows make no catalog.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CatalogError {
    /// A row that [`CATALOG_QUERY`] does not give.
    #[error("the catalog query gave a row of the unknown kind {0:?}")]
    UnknownKind(String),
    /// The database has too many names.
    #[error("the names of the database's catalog have more than {MAX_BYTES} bytes")]
    TooLarge,
}

/// The rows, sorted by what they say. Names stand for all that have them.
#[derive(Debug, Default)]
pub(super) struct Rows<'a> {
    functions: Vec<&'a str>,
    volatile: Vec<&'a str>,
    own_volatile: Vec<&'a str>,
    row_functions: Vec<&'a str>,
    operators: Vec<(&'a str, &'a str)>,
    defaults: Vec<(&'a str, &'a str)>,
    types: Vec<(&'a str, &'a str)>,
    parts: Vec<(&'a str, &'a str)>,
    relations: Vec<(&'a str, RelationKind)>,
    views: Vec<(&'a str, &'a str)>,
    policies: Vec<(&'a str, &'a str)>,
    reads: Vec<(&'a str, &'a str)>,
}

impl<'a> Rows<'a> {
    /// Takes the rows.
    pub(super) fn new(
        rows: impl IntoIterator<Item = CatalogRow<'a>>,
    ) -> Result<Rows<'a>, CatalogError> {
        let mut sorted = Rows::default();
        let mut bytes = 0;
        for row in rows {
            bytes += row.name.len() + row.via.len();
            if bytes > MAX_BYTES {
                return Err(CatalogError::TooLarge);
            }
            sorted.add(row)?;
        }
        Ok(sorted)
    }

    fn add(&mut self, row: CatalogRow<'a>) -> Result<(), CatalogError> {
        let CatalogRow { kind, name, via } = row;
        match kind {
            "function" => self.functions.push(name),
            "volatile" => self.volatile.push(name),
            "own_volatile" => self.own_volatile.push(name),
            "row_function" => self.row_functions.push(name),
            "operator" => self.operators.push((name, via)),
            "default" => self.defaults.push((name, via)),
            "type" => self.types.push((name, via)),
            "part" => self.parts.push((name, via)),
            "unlogged" => self.relations.push((name, RelationKind::Unlogged)),
            "foreign" => self.relations.push((name, RelationKind::Foreign)),
            "sequence" => self.relations.push((name, RelationKind::Sequence)),
            "view" => self.views.push((name, via)),
            "policy" => self.policies.push((name, via)),
            "reads" => self.reads.push((name, via)),
            unknown => return Err(CatalogError::UnknownKind(unknown.to_owned())),
        }
        Ok(())
    }

    /// What the rows make of the database's names, if the functions `harmless` are.
    pub(super) fn names(&self, harmless: &Harmless) -> Names {
        let mut names = Names { functions: self.functions(harmless), ..Names::default() };
        let is_no_read = |function: &str| names.function(function, harmless).is_some();
        let callers = |rows: &Pairs<'a>| -> HashMap<&'a str, RelationKind> {
            let called = rows.iter().filter(|row| is_no_read(row.1));
            called.map(|row| (row.0, RelationKind::View)).collect()
        };
        let operators = callers(&self.operators);
        let mut types = callers(&self.types);
        spread(&mut types, &self.parts, |_| false);
        let mut relations = callers(&self.views);
        relations
            .extend(callers(&self.policies).into_keys().map(|name| (name, RelationKind::Policy)));
        relations.extend(self.relations.iter().copied());
        spread(&mut relations, &self.reads, builtin::is_server_view);
        names.operators = operators.into_keys().map(Box::from).collect();
        names.types = types.into_keys().map(Box::from).collect();
        names.relations = relations.into_iter().map(|(name, kind)| (name.into(), kind)).collect();
        names.of_rows = self.row_functions.iter().map(|name| Box::from(*name)).collect();
        names
    }

    /// The volatility of each name of functions: that of the most volatile one, with its defaults.
    fn functions(&self, harmless: &Harmless) -> HashMap<Box<str>, Volatility> {
        let all = |names: &[&'a str], volatility| {
            names.iter().map(move |name| (Box::from(*name), volatility)).collect::<Vec<_>>()
        };
        let mut functions: HashMap<_, _> =
            all(&self.functions, Volatility::Stable).into_iter().collect();
        functions.extend(all(&self.volatile, Volatility::Volatile));
        functions.extend(all(&self.own_volatile, Volatility::OwnVolatile));
        let mut names = Names { functions, ..Names::default() };
        // A default may call a function whose own defaults do.
        loop {
            let more: Vec<_> = self
                .defaults
                .iter()
                .filter(|(name, called)| {
                    names.functions.get(*name) != Some(&Volatility::OwnVolatile)
                        && names.function(called, harmless).is_some()
                })
                .map(|(name, _)| (Box::from(*name), Volatility::OwnVolatile))
                .collect();
            if more.is_empty() {
                return names.functions;
            }
            names.functions.extend(more);
        }
    }
}

/// Pairs of names, of which the first calls or reads the second.
type Pairs<'a> = [(&'a str, &'a str)];

/// Adds to `found` everything that reaches one of it, or a name of which `is_more` holds.
fn spread<'a>(
    found: &mut HashMap<&'a str, RelationKind>,
    pairs: &Pairs<'a>,
    is_more: fn(&str) -> bool,
) {
    loop {
        let more: Vec<_> = pairs
            .iter()
            .filter(|(name, read)| {
                !found.contains_key(name) && (found.contains_key(read) || is_more(read))
            })
            .map(|(name, _)| (*name, RelationKind::View))
            .collect();
        if more.is_empty() {
            return;
        }
        found.extend(more);
    }
}
