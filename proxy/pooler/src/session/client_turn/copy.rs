//! A client's COPY data.

use pgimbal_wire::frame::Header;
use pgimbal_wire::tag::frontend;

use super::{ClientTurn, Message, Step};
use crate::plan::Stop;
use crate::session::Link;

impl ClientTurn<'_> {
    /// CopyData, CopyDone and CopyFail pass while a reply is pending that may be a COPY. Otherwise
    /// they are late: the copy has failed, and PostgreSQL drops them too.
    pub(super) fn copy(&mut self, header: Header) -> Step {
        let expected = matches!(self.session.link, Link::Ready(_))
            && self.server.as_deref().is_some_and(|server| !server.pending.is_empty());
        if !expected {
            self.drop_message(header);
            return Ok(());
        }
        // CopyData is not looked into: it streams as it comes. The others are processed whole.
        if header.tag == frontend::COPY_DATA {
            let rest = &self.buf[self.at..];
            let body =
                &rest[pgimbal_wire::frame::HEADER_LEN..(header.total as usize).min(rest.len())];
            let message = Message { header, body, start: self.at };
            self.forward(message);
            return Ok(());
        }
        let message = self.held(header, 0)?;
        self.forward(message);
        let server = self.server()?;
        if !std::mem::take(&mut server.copy_in) {
            server.pending.copy_ended();
        }
        Ok(())
    }

    /// Sync and Flush while COPY data is expected: PostgreSQL ignores them, and a Sync that crosses
    /// the copy's error on its way would be answered once too often.
    pub(super) fn ignored_in_copy(&mut self, header: Header) -> Result<bool, Stop> {
        let copying = matches!(self.session.link, Link::Ready(_)) && self.server()?.copy_in;
        if copying {
            self.drop_message(header);
        }
        Ok(copying)
    }
}
