//! What a client's RESET in the middle of a segment has taken off, brought back.

use pgimbal_wire::encode::{self, NameKind, TransactionStatus};
use pgimbal_wire::tag::frontend;

use crate::plan::Plan;
use crate::server::Server;
use crate::server::restore::Restore;
use crate::session::{Session, setup};
use crate::tables::Tables;

/// After a RESET in the middle of a segment: what follows runs under what the client came with, as
/// its own RESET would have brought back.
pub(super) fn restore_in_segment(
    session: &Session,
    server: &mut Server,
    tables: &Tables,
    plan: &mut Plan,
) {
    const NAME: &[u8] = b"pgimbal_restore";
    let Restore { names, mut queries, local, in_block, .. } = std::mem::take(server.restore_mut());
    if server.status() == TransactionStatus::InTransaction {
        queries.extend(local);
    }
    queries.extend(setup::restoring(&session.settings, &names, tables));
    server.restore_mut().in_block = in_block;
    server.restore_mut().remember(&names);
    server.restore_mut().in_segment = names;
    for sql in queries {
        server.pending_mut().swallow(5);
        plan.make_for_server(|out| {
            encode::parse(out, NAME, &sql, &[0, 0]);
            encode::bind_head(out, NAME, NAME, 6);
            out.extend_from_slice(&[0; 6]);
            encode::message(out, frontend::EXECUTE, |out| {
                out.extend_from_slice(NAME);
                out.extend_from_slice(&[0; 5]);
            });
            encode::close(out, NameKind::Portal, NAME);
            encode::close(out, NameKind::Statement, NAME);
        });
    }
}
