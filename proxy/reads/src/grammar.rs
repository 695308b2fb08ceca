//! The decision of a text by PostgreSQL's grammar.

mod walk;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pg_query::protobuf::RawStmt;
use pg_query::{NodeEnum, ParserOptions};
use pgimbal_lexer::{Reading, StandardStrings};

use crate::normal::{Normalised, normalise};
use crate::{Catalog, Decision, Reason};

/// A longer text (256 KiB) is never parsed, whatever the operator's limit: its tree would take a
/// hundred times its bytes.
const LONGEST_PARSED: usize = 256 << 10;

/// Decides a text by PostgreSQL's grammar. It takes 8 us for a short SELECT and milliseconds for a
/// long text, so the caller chooses the thread by what [`Decisions::lookup`](crate::Decisions::lookup)
/// says; 1 MiB of stack is enough for any text. Its result does not depend on the text's literals.
#[must_use]
pub fn parse(text: &[u8], reading: Reading, catalog: &Catalog) -> Decision {
    match why_not(text, reading, catalog) {
        None => Decision::Read,
        Some(reason) => Decision::NotRead(reason),
    }
}

/// Why a text is no read.
fn why_not(text: &[u8], reading: Reading, catalog: &Catalog) -> Option<Reason> {
    if text.len() > LONGEST_PARSED {
        return Some(Reason::TooLong);
    }
    if let Err(reason) = normalise(text, reading, &mut Normalised::default()) {
        return Some(reason);
    }
    let Ok(text) = std::str::from_utf8(text) else { return Some(Reason::Encoding) };
    let Some(statements) = statements(text, reading) else { return Some(Reason::NotParsed) };
    let mut reasons = statements.iter().map(|statement| {
        let node = statement.stmt.as_ref().and_then(|node| node.node.as_ref());
        node.map_or(Some(Reason::Construct), |node| statement_reason(node, catalog))
    });
    match statements.len() {
        0 => Some(Reason::Empty),
        1 => reasons.next().flatten(),
        _ => (1..).zip(reasons).find_map(|(number, reason)| {
            reason.map(|reason| Reason::OneOfSeveral(number, Arc::new(reason)))
        }),
    }
}

/// The statements of a text; `None` if the grammar refuses it.
fn statements(text: &str, reading: Reading) -> Option<Vec<RawStmt>> {
    // It would write its warnings to standard error.
    let mut options = ParserOptions::DISABLE_ESCAPE_STRING_WARNING;
    if reading.strings == StandardStrings::Off {
        options |= ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS;
    }
    // The library looks at the tree for purposes of its own, and panics at a form that it does not
    // expect.
    let parsed = catch_unwind(AssertUnwindSafe(|| pg_query::parse(text, options))).ok()?;
    Some(parsed.ok()?.protobuf.stmts)
}

/// Why a statement is no read.
fn statement_reason(node: &NodeEnum, catalog: &Catalog) -> Option<Reason> {
    match node {
        NodeEnum::SelectStmt(_) => walk::reason(node, catalog),
        NodeEnum::VariableShowStmt(show) => Catalog::setting(&show.name),
        NodeEnum::ExplainStmt(explain) => {
            let is_analyze = |option: &NodeEnum| match option {
                NodeEnum::DefElem(option) => option.defname.eq_ignore_ascii_case("analyze"),
                _ => true,
            };
            // Its value is a literal, which must not count.
            if explain.options.iter().filter_map(|node| node.node.as_ref()).any(is_analyze) {
                return Some(Reason::ExplainAnalyze);
            }
            match explain.query.as_ref().and_then(|query| query.node.as_ref()) {
                Some(query @ NodeEnum::SelectStmt(_)) => walk::reason(query, catalog),
                _ => Some(Reason::Statement),
            }
        }
        NodeEnum::CopyStmt(copy) => {
            if copy.is_from {
                return Some(Reason::CopyFrom);
            }
            if copy.is_program || !copy.filename.is_empty() {
                return Some(Reason::CopyToFile);
            }
            match (&copy.relation, copy.query.as_ref().and_then(|query| query.node.as_ref())) {
                (Some(table), _) => catalog.relation(&table.schemaname, &table.relname),
                (None, Some(query @ NodeEnum::SelectStmt(_))) => walk::reason(query, catalog),
                (None, Some(_)) => Some(Reason::Statement),
                (None, None) => Some(Reason::Construct),
            }
        }
        _ => Some(Reason::Statement),
    }
}

#[cfg(test)]
mod tests;
