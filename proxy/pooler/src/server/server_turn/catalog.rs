//! The catalog of a database, by which texts are found to be reads: it is read on a server
//! connection that a session is about to give back.

use std::sync::Arc;

use pgimbal_reads::CATALOG_QUERY;
use pgimbal_wire::encode::TransactionStatus;

use super::turn::{Forwarding, ServerTurn};
use crate::cluster::parsing::MAX_ROWS;
use crate::server::pending::OwnQuery;
use crate::session::setup;

/// Asks for the catalog, if the session's statements are routed by it and it is due. Returns
/// whether it was asked for: then the server connection is not given back before the answer.
pub(super) fn read_if_due(turn: &mut ServerTurn<'_>) -> bool {
    let is_used = turn.session.as_deref().is_some_and(|session| session.routing().is_some());
    if !is_used {
        return false;
    }
    let database = &turn.pool.shared().database;
    let harmless = &turn.pool.config().read_functions;
    if !database.catalog.begin_reading(turn.now, database.schema_changes(), harmless) {
        return false;
    }
    // Whatever the session has set.
    let text = format!(
        "BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY;\
         SET LOCAL client_encoding = 'UTF8';{};COMMIT",
        CATALOG_QUERY.trim_end().trim_end_matches(';')
    );
    turn.server.catalog = Some(Vec::new());
    setup::send_own(turn.server, OwnQuery::Catalog, text.as_bytes(), turn.plan);
    true
}

/// A row that has come while the catalog is read. One that makes no sense ends the reading; what is
/// beyond [`MAX_ROWS`] is left out, and with one row more than that nothing is made of them.
pub(super) fn row(turn: &mut ServerTurn<'_>, body: &[u8]) -> Forwarding {
    if turn.answers_own() == Some(OwnQuery::Catalog)
        && let Some(rows) = &mut turn.server.catalog
    {
        match three_texts(body) {
            Some(row) if rows.len() <= MAX_ROWS => rows.push(row),
            Some(_) => {}
            None => turn.server.catalog = None,
        }
    }
    turn.rows()
}

/// The catalog was read; `failed` if an error came.
pub(super) fn answered(turn: &mut ServerTurn<'_>, failed: bool) {
    if turn.server.status != TransactionStatus::Idle {
        setup::send_own(turn.server, OwnQuery::Rollback, b"ROLLBACK", turn.plan);
    }
    let rows = turn.server.catalog.take().filter(|_| !failed);
    let catalog = Arc::clone(&turn.pool.shared().database.catalog);
    turn.tables.parsing.ask_for_catalog(catalog, rows);
}

/// The three columns of a DataRow.
fn three_texts(body: &[u8]) -> Option<[String; 3]> {
    let (count, rest) = body.split_first_chunk::<2>()?;
    let (first, rest) = text(rest)?;
    let (second, rest) = text(rest)?;
    let (third, rest) = text(rest)?;
    (u16::from_be_bytes(*count) == 3 && rest.is_empty()).then_some([first, second, third])
}

/// A column, and what follows it.
fn text(body: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    let (text, rest) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(text).ok()?.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_three_texts() {
        let row = b"\0\x03\0\0\0\x01f\0\0\0\x04name\0\0\0\0";
        assert_eq!(three_texts(row), Some(["f", "name", ""].map(str::to_owned)));
        for wrong in [
            &b""[..],
            b"\0\x03\0\0\0\x01f",
            b"\0\x02\0\0\0\x01f\0\0\0\x04name",
            b"\0\x03\0\0\0\x01f\xff\xff\xff\xff\0\0\0\0",
            b"\0\x03\0\0\0\x01f\0\0\0\x04name\0\0\0\x01",
            b"\0\x03\0\0\0\x01f\0\0\0\x04name\0\0\0\0\0",
            b"\0\x03\0\0\0\x01f\0\0\0\x01\xff\0\0\0\0",
        ] {
            assert_eq!(three_texts(wrong), None);
        }
    }
}
